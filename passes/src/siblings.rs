//! Sibling contractions: products of one value with several weights of equal
//! form (q/k/v, gate/up) become one product with concatenated weights.
//!
//! Pairs of rules plus extraction cannot find this: seen from one class the
//! merged product always costs more. So it is decided jointly on the extracted
//! graph: groups are proposed, priced by the cost model against the separate
//! products, and taken when cheaper.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use tgc_ir::dim::Dim;
use tgc_ir::facts::Facts;
use tgc_ir::graph::{Graph, NodeId, Operands};
use tgc_ir::op::Op;
use tgc_ir::scalar::ScalarOp;
use tgc_ir::spec::{ContractSpec, Group, Role};
use tgc_ir::types::TensorType;
use tgc_ir::view::View;

use crate::pass::{Context, PassError};

/// One product with an optional bias, as a member of a group.
#[derive(Clone, Debug)]
struct Member {
    product: NodeId,
    weight: NodeId,
    /// (add node, bias) when every reader goes through one constant bias.
    bias: Option<(NodeId, NodeId)>,
    /// Extent of the merged axis.
    width: Dim,
    /// From the member's part of the merged product to its own result, when
    /// that has the merged axis split or in another place.
    restore: Option<View>,
}

/// What members of a group share.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    lhs: NodeId,
    spec: ContractSpec,
    has_bias: bool,
}

/// Merges every group that pays.
pub fn run(graph: &Graph, context: &mut Context<'_>) -> Result<Graph, PassError> {
    let mut groups: std::collections::BTreeMap<Key, Vec<Member>> = Default::default();
    let live = graph.live();
    let users = graph.users();
    for id in graph.ids().filter(|id| live[id.index()]) {
        if let Some((key, member)) = member_of(graph, &users, id) {
            groups.entry(key).or_default().push(member);
        }
    }
    let mut chosen: Vec<(Key, Vec<Member>)> = Vec::new();
    for (key, members) in groups {
        if members.len() > 1
            && pays(graph, &key, &members, context)
            && context.spend("merge-siblings")
        {
            chosen.push((key, members));
        }
    }
    if chosen.is_empty() { Ok(graph.clone()) } else { rebuild(graph, &chosen) }
}

/// The axis of rhs and result along which a plain product can be widened: one
/// N label that is an axis of its own in both.
fn wide_axis(spec: &ContractSpec) -> Option<(usize, usize)> {
    let labels = spec.labels_of(Role::N, &spec.out);
    let [label] = labels.as_slice() else { return None };
    let alone = |axes: &[Group]| axes.iter().position(|g| g.as_slice() == [*label]);
    Some((alone(&spec.rhs)?, alone(&spec.out)?))
}

/// A product whose N labels are one axis of the weight but several axes of the
/// result (heads), as the product with one such axis at the end, and the view
/// that gives the result back.
fn flattened(spec: &ContractSpec, facts: &Facts) -> Option<(ContractSpec, Option<View>)> {
    if wide_axis(spec).is_some() {
        return Some((spec.clone(), None));
    }
    let labels = spec.labels_of(Role::N, &spec.rhs);
    let axis = spec.rhs.iter().position(|g| *g == labels).filter(|_| labels.len() > 1)?;
    let of = |group: &Group| labels.iter().position(|l| group.as_slice() == [*l]);
    let is_mixed = |group: &Group| of(group).is_none() && group.iter().any(|l| labels.contains(l));
    if spec.out.iter().any(is_mixed) || !labels.iter().all(|l| spec.out.contains(&vec![*l])) {
        return None;
    }
    let mut flat = spec.clone();
    let wide = flat.extents.len() as u32;
    flat.extents.push(Dim::product(labels.iter().map(|l| &spec.extents[*l as usize])));
    flat.rhs[axis] = vec![wide];
    flat.out.retain(|g| of(g).is_none());
    let lead = flat.out.len();
    flat.out.push(vec![wide]);
    let from = flat.shape(&flat.out);
    let mut split = from[..lead].to_vec();
    split.extend(labels.iter().map(|l| spec.extents[*l as usize].clone()));
    let mut kept = 0..lead;
    let axes: Option<Vec<usize>> =
        spec.out.iter().map(|g| of(g).map(|n| lead + n).or_else(|| kept.next())).collect();
    let [view] = &View::reshape(&from, &split, facts)?[..] else { return None };
    let restore = view.then(&View::permute(&split, &axes?), facts)?;
    let flat = flat.canonical();
    wide_axis(&flat).is_some().then_some((flat, Some(restore)))
}

fn is_weight_only(graph: &Graph, node: NodeId) -> bool {
    match graph.op(node) {
        Op::Input { .. } | Op::DimValue { .. } | Op::Random { .. } => false,
        op if op.is_leaf() => true,
        _ => graph.operands(node).iter().all(|o| is_weight_only(graph, *o)),
    }
}

fn member_of(graph: &Graph, users: &[Vec<NodeId>], id: NodeId) -> Option<(Key, Member)> {
    let Op::Contract { spec } = graph.op(id) else { return None };
    let (lhs, weight) = (graph.operands(id)[0], graph.operands(id)[1]);
    if !is_weight_only(graph, weight) || is_weight_only(graph, lhs) {
        return None;
    }
    let (flat, restore) = flattened(spec, &graph.facts)?;
    let (_, out_axis) = wide_axis(&flat)?;
    let width = flat.shape(&flat.out)[out_axis].clone();
    let bias = match users[id.index()].as_slice() {
        _ if restore.is_some() => None,
        [add] if matches!(graph.op(*add), Op::Scalar(ScalarOp::Add)) => {
            let other = graph.operands(*add).iter().copied().find(|o| *o != id)?;
            let shape = graph.shape(other);
            let is_vector = shape.len() == graph.shape(id).len()
                && shape
                    .iter()
                    .enumerate()
                    .all(|(a, d)| if a == out_axis { *d == width } else { d.is(1) });
            (is_vector && is_weight_only(graph, other)).then_some((*add, other))
        }
        _ => None,
    };
    // The shared form has the widened extent set to 1.
    let label = flat.labels_of(Role::N, &flat.out)[0];
    let mut shared = flat;
    shared.extents[label as usize] = Dim::ONE;
    let key = Key { lhs, spec: shared, has_bias: bias.is_some() };
    Some((key, Member { product: id, weight, bias, width, restore }))
}

fn merged_spec(key: &Key, total: &Dim) -> ContractSpec {
    let label = key.spec.labels_of(Role::N, &key.spec.out)[0];
    let mut spec = key.spec.clone();
    spec.extents[label as usize] = total.clone();
    spec
}

fn pays(graph: &Graph, key: &Key, members: &[Member], context: &Context<'_>) -> bool {
    let price = |spec: &ContractSpec| {
        let side = |axes: &[Group]| TensorType::new(graph.dtype(key.lhs), spec.shape(axes));
        let (lhs, rhs, out) = (side(&spec.lhs), side(&spec.rhs), side(&spec.out));
        context.cost.node(&Op::Contract { spec: Arc::new(spec.clone()) }, &[lhs, rhs], &[out])
    };
    let separate: u64 = members.iter().map(|m| price(&merged_spec(key, &m.width))).sum();
    let total = Dim::sum(members.iter().map(|m| &m.width));
    price(&merged_spec(key, &total)) < separate
}

fn rebuild(graph: &Graph, chosen: &[(Key, Vec<Member>)]) -> Result<Graph, PassError> {
    // Which group replaces a node, and as which member.
    let mut replaced: FxHashMap<NodeId, (usize, usize)> = FxHashMap::default();
    for (g, (_, members)) in chosen.iter().enumerate() {
        for (i, member) in members.iter().enumerate() {
            replaced.insert(member.bias.map_or(member.product, |(add, _)| add), (g, i));
        }
    }
    let live = graph.live();
    let mut next = graph.successor();
    let mut map: Vec<Option<NodeId>> = vec![None; graph.len()];
    let mut merged: Vec<Option<NodeId>> = vec![None; chosen.len()];
    for id in graph.ids().filter(|id| live[id.index()] || graph.inputs().contains(id)) {
        let new = match replaced.get(&id) {
            Some(&(g, i)) => {
                let (key, members) = &chosen[g];
                let product = match merged[g] {
                    Some(product) => product,
                    None => merge(graph, &mut next, &map, key, members)?,
                };
                merged[g] = Some(product);
                let (_, axis) =
                    wide_axis(&key_spec(key, members)).expect("members have a wide axis");
                let start = Dim::sum(members[..i].iter().map(|m| &m.width));
                let part = next.slice(product, axis, start, 1, members[i].width.clone())?;
                match &members[i].restore {
                    Some(view) => next.view(part, view.clone())?,
                    None => part,
                }
            }
            None => {
                let operands: Operands = graph
                    .operands(id)
                    .iter()
                    .map(|o| map[o.index()].expect("operands come first"))
                    .collect();
                let names: Vec<_> = graph.locations(id).iter().cloned().collect();
                next.set_location(&names);
                next.add(graph.op(id).clone(), &operands)?
            }
        };
        map[id.index()] = Some(new);
    }
    next.set_location(&[]);
    for output in graph.outputs() {
        next.output(&output.name, map[output.node.index()].expect("outputs are live"));
    }
    Ok(next.pruned())
}

fn key_spec(key: &Key, members: &[Member]) -> ContractSpec {
    merged_spec(key, &Dim::sum(members.iter().map(|m| &m.width)))
}

/// The wide product, with its bias.
fn merge(
    graph: &Graph,
    next: &mut Graph,
    map: &[Option<NodeId>],
    key: &Key,
    members: &[Member],
) -> Result<NodeId, PassError> {
    let spec = key_spec(key, members);
    let (rhs_axis, out_axis) = wide_axis(&spec).expect("members have a wide axis");
    let names: Vec<_> = members
        .iter()
        .flat_map(|m| [Some(m.product), m.bias.map(|(add, _)| add)])
        .flatten()
        .flat_map(|n| graph.locations(n).iter().cloned())
        .collect();
    next.set_location(&names);
    let mut copies: FxHashMap<NodeId, NodeId> = FxHashMap::default();
    let mut weights = Operands::new();
    let mut biases = Operands::new();
    for member in members {
        weights.push(copy(graph, next, map, &mut copies, member.weight)?);
        if let Some((_, bias)) = member.bias {
            biases.push(copy(graph, next, map, &mut copies, bias)?);
        }
    }
    let weight = next.add(Op::Concat { axis: rhs_axis as i64 }, &weights)?;
    let lhs = map[key.lhs.index()].expect("the shared operand comes first");
    let product = next.add(Op::Contract { spec: Arc::new(spec) }, &[lhs, weight])?;
    if biases.is_empty() {
        return Ok(product);
    }
    let bias = next.add(Op::Concat { axis: out_axis as i64 }, &biases)?;
    Ok(next.add(Op::Scalar(ScalarOp::Add), &[product, bias])?)
}

/// A weight expression in the new graph, also when it comes later in the old one.
fn copy(
    graph: &Graph,
    next: &mut Graph,
    map: &[Option<NodeId>],
    copies: &mut FxHashMap<NodeId, NodeId>,
    node: NodeId,
) -> Result<NodeId, PassError> {
    if let Some(known) = map[node.index()].or_else(|| copies.get(&node).copied()) {
        return Ok(known);
    }
    let mut operands = Operands::new();
    for &operand in graph.operands(node) {
        operands.push(copy(graph, next, map, copies, operand)?);
    }
    let new = next.add(graph.op(node).clone(), &operands)?;
    copies.insert(node, new);
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tgc_ir::Tensor;
    use tgc_ir::dtype::DType;
    use tgc_ir::eval::{Mode, run as evaluate};

    #[test]
    fn products_with_split_heads_merge_with_flat_ones() {
        let mut graph = Graph::new("qkv");
        let dims =
            |s: &str| s.split_whitespace().map(|d| d.parse().expect("dim")).collect::<Vec<Dim>>();
        graph.facts.bound(tgc_ir::dim::Symbol::new("S"), Default::default());
        let x = graph.input("x", TensorType::new(DType::F32, dims("S 6")));
        for (i, (spec, width)) in [
            ("a:S b:6, b (c:2 d:4) -> c a d : f32", 8),
            ("a:S b:6, b (c:3 d:2) -> c d a : f32", 6),
            ("a:S b:6, b c:5 -> a c : f32", 5),
        ]
        .into_iter()
        .enumerate()
        {
            let values: Vec<f32> =
                (0..6 * width).map(|v| ((v * 7 + i) % 11) as f32 - 5.0).collect();
            let weight = graph.weight(&format!("w{i}"), Tensor::from_f32(&[6, width], &values));
            let spec: ContractSpec = spec.parse().expect("spec");
            let product =
                graph.add(Op::Contract { spec: Arc::new(spec) }, &[x, weight]).expect("types");
            graph.output(&format!("y{i}"), product);
        }
        let rules = crate::rules::RuleSet::default();
        let mut context = Context::new(&crate::cost::Structural, &rules);
        let merged = run(&graph, &mut context).expect("merges");
        let live = merged.live();
        let products = merged
            .ids()
            .filter(|id| live[id.index()] && matches!(merged.op(*id), Op::Contract { .. }));
        assert_eq!(products.count(), 1, "{}", tgc_ir::text::print(&merged));
        let values: Vec<f32> = (0..18).map(|v| v as f32 * 0.25 - 2.0).collect();
        let inputs = [("x", Tensor::from_f32(&[3, 6], &values))];
        let wanted = evaluate(&graph, &inputs, Mode::Exact).expect("evaluates");
        let got = evaluate(&merged, &inputs, Mode::Exact).expect("evaluates");
        for (want, got) in wanted.iter().zip(&got) {
            assert_eq!((want.shape(), want.to_f64()), (got.shape(), got.to_f64()));
        }
    }
}
