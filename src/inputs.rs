//! Input tensors: from files, or random by seed with ids in the range of the
//! gather that they feed.

use std::path::Path;

use tgc_ir::bind::Binding;
use tgc_ir::graph::{Graph, NodeId};
use tgc_ir::op::Op;
use tgc_ir::scalar::{ScalarOp, Value};
use tgc_ir::{DType, Tensor, TensorType};

use crate::session::{Failure, Kind, closest};

/// A named tensor.
pub type Named = (String, Tensor);

/// Reads `FILE.npz`, `NAME=FILE.npy`, `NAME=FILE.pb`, or a folder of ONNX test
/// data (`input_0.pb`, … in the order of the model's inputs).
///
/// # Errors
/// [`Failure`] naming the file and what is wrong with it.
pub fn read(spec: &str, ports: &[(String, TensorType)]) -> Result<Vec<Named>, Failure> {
    let (name, path) = match spec.split_once('=') {
        Some((name, path)) => (Some(name), Path::new(path)),
        None => (None, Path::new(spec)),
    };
    let fail = |why: String| Failure::new(Kind::File, format!("{}: {why}", path.display()));
    if path.is_dir() {
        return read_folder(path, "input", ports);
    }
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    if extension == "npz" {
        return crate::npy::read_npz(path).map_err(fail);
    }
    let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
    let (own_name, tensor) = match extension {
        "npy" => (String::new(), crate::npy::read(&bytes).map_err(fail)?),
        "pb" => tgc_onnx::read_tensor_pb(bytes.into()).map_err(|e| fail(e.to_string()))?,
        "bin" | "dat" | "raw" => return read_raw(name, bytes, ports).map_err(fail),
        other => {
            return Err(fail(format!(
                "`.{other}` is no tensor format; npz, npy, pb, bin or a folder of ONNX test data"
            )));
        }
    };
    let name = name.map_or(own_name, str::to_owned);
    if name.is_empty() {
        return Err(fail("say which input it is: NAME=FILE".to_owned()));
    }
    Ok(vec![(name, tensor)])
}

fn read_raw(
    name: Option<&str>,
    bytes: Vec<u8>,
    ports: &[(String, TensorType)],
) -> Result<Vec<Named>, String> {
    let name = name.ok_or("say which input it is: NAME=FILE")?;
    let (_, ty) = ports
        .iter()
        .find(|(n, _)| n == name)
        .ok_or_else(|| format!("there is no input `{name}`"))?;
    let shape = ty
        .const_shape()
        .ok_or_else(|| format!("raw bytes need known extents, `{name}` is {ty}"))?;
    let shape = shape.into_iter().map(|d| usize::try_from(d).unwrap_or(0)).collect();
    Ok(vec![(
        name.to_owned(),
        Tensor::new(ty.dtype, shape, bytes.into()).map_err(|e| e.to_string())?,
    )])
}

/// Reads `STEM_0.pb`, `STEM_1.pb`, … as the ports in order.
///
/// # Errors
/// [`Failure`] naming the file.
pub fn read_folder(
    folder: &Path,
    stem: &str,
    ports: &[(String, TensorType)],
) -> Result<Vec<Named>, Failure> {
    let mut out = Vec::new();
    for (i, (name, _)) in ports.iter().enumerate() {
        let path = folder.join(format!("{stem}_{i}.pb"));
        let fail = |why: String| Failure::new(Kind::File, format!("{}: {why}", path.display()));
        let bytes = std::fs::read(&path).map_err(|e| fail(e.to_string()))?;
        let (_, tensor) =
            tgc_onnx::read_tensor_pb(bytes.into()).map_err(|e| fail(e.to_string()))?;
        out.push((name.clone(), tensor));
    }
    Ok(out)
}

/// Reads `STEM_0.pb`, `STEM_1.pb`, … as far as they go, under the names that
/// the files give.
///
/// # Errors
/// [`Failure`] naming the file.
pub fn read_named(folder: &Path, stem: &str) -> Result<Vec<Named>, Failure> {
    let paths = (0..).map(|i| folder.join(format!("{stem}_{i}.pb"))).take_while(|p| p.exists());
    paths
        .map(|path| {
            let fail = |why: String| Failure::new(Kind::File, format!("{}: {why}", path.display()));
            let bytes = std::fs::read(&path).map_err(|e| fail(e.to_string()))?;
            tgc_onnx::read_tensor_pb(bytes.into()).map_err(|e| fail(e.to_string()))
        })
        .collect()
}

/// Puts named tensors into the order of ports; a scalar and a vector of one
/// element stand for each other.
///
/// # Errors
/// [`Failure`] naming a missing or unknown input.
pub fn arrange(given: Vec<Named>, ports: &[(String, TensorType)]) -> Result<Vec<Tensor>, Failure> {
    if let Some((unknown, _)) = given.iter().find(|(n, _)| ports.iter().all(|(p, _)| p != n)) {
        let hint = closest(unknown, ports.iter().map(|(n, _)| n.as_str()));
        let names = ports.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", ");
        let hint = hint
            .map_or_else(|| format!("the inputs are {names}"), |h| format!("did you mean `{h}`?"));
        return Err(Failure::new(
            Kind::Usage,
            format!("the model has no input `{unknown}`; {hint}"),
        ));
    }
    ports
        .iter()
        .map(|(name, ty)| {
            let found = given.iter().find(|(n, _)| n == name);
            let (_, tensor) = found.ok_or_else(|| {
                Failure::new(Kind::Usage, format!("input `{name}` ({ty}) was not given"))
            })?;
            if tensor.dtype() != ty.dtype {
                let message = format!(
                    "input `{name}` is {ty}, {}{:?} was given",
                    tensor.dtype(),
                    tensor.shape()
                );
                return Err(Failure::new(Kind::Usage, message));
            }
            let single = tensor.len() == 1
                && ty.shape.iter().all(|d| d.is(1))
                && tensor.shape().len() != ty.rank();
            Ok(if single {
                tensor.reshaped(&vec![1; ty.rank()]).unwrap_or_else(|| tensor.clone())
            } else {
                tensor.clone()
            })
        })
        .collect()
}

/// Names and types of a graph's inputs.
pub fn ports(graph: &Graph) -> Vec<(String, TensorType)> {
    graph
        .inputs()
        .iter()
        .filter_map(|n| match graph.op(*n) {
            Op::Input { name, ty } => Some((name.to_string(), ty.clone())),
            _ => None,
        })
        .collect()
}

/// Numbers drawn by a seed, the same on every machine (xorshift64).
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Draw {
        Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// In 0..1.
    pub(crate) fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Of mean 0 and variance 1.
    pub(crate) fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

/// How the numbers of random inputs are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Normal numbers, masks mostly ones.
    Usual,
    /// Masks left-padded, with holes and all zero; numbers scaled by 64, so
    /// that squares overflow half precision.
    Hard,
}

/// Random inputs for bound extents. Integers are drawn below the extent of the
/// gather that they feed; integers that feed none are 0 or 1.
///
/// # Errors
/// [`Failure`] when an extent is not bound.
pub fn random(
    graph: &Graph,
    binding: &Binding,
    seed: u64,
    style: Style,
) -> Result<Vec<Tensor>, Failure> {
    let mut draw = Draw::new(seed);
    let mut out = Vec::new();
    for &node in graph.inputs() {
        let ty = graph.ty(node);
        let shape = binding.extents(&ty.shape).ok_or_else(|| {
            Failure::new(
                Kind::Usage,
                format!("an extent of {ty} is not known; give --dim NAME=VALUE"),
            )
        })?;
        let count: usize = shape.iter().product();
        let limit = id_range(graph, node, binding);
        let is_mask = is_float_mask(graph, node);
        let row = shape.last().copied().unwrap_or(1).max(1);
        let mut values = Vec::with_capacity(count);
        for i in 0..count {
            values.push(if is_mask {
                Value::Float(mask_bit(style, i / row, i % row, row, draw.unit()) as f64)
            } else if ty.dtype.is_float() {
                let normal = draw.normal();
                Value::Float(if style == Style::Hard { 64.0 * normal } else { normal })
            } else if let Some(limit) = limit {
                Value::Int((draw.unit() * limit as f64) as i128)
            } else {
                Value::Int(mask_bit(style, i / row, i % row, row, draw.unit()))
            });
        }
        out.push(Tensor::from_values(ty.dtype, &shape, &values));
    }
    Ok(out)
}

fn mask_bit(style: Style, row: usize, at: usize, width: usize, chance: f64) -> i128 {
    match (style, row % 4) {
        (Style::Usual, _) => 1,
        (_, 0) => i128::from(at >= width / 2),
        (_, 1) => i128::from(chance < 0.7),
        (_, 2) => 0,
        _ => 1,
    }
}

/// Least magnitude of a factor that only a mask is multiplied by.
const MASK_FACTOR: f64 = 1e4;

/// True for a float input that pointwise ops bring to a product with a huge
/// constant: `(1 - mask) * -10000`, or the lowest number, is how exporters
/// write masks, and other values than 0 and 1 there overflow.
fn is_float_mask(graph: &Graph, input: NodeId) -> bool {
    if !graph.dtype(input).is_float() {
        return false;
    }
    let users = graph.users();
    let is_huge = |node: &NodeId| {
        graph.splat_value(*node).is_some_and(|value| value.as_f64().abs() >= MASK_FACTOR)
    };
    let mut stack = vec![input];
    let mut seen = vec![false; graph.len()];
    while let Some(node) = stack.pop() {
        for &user in &users[node.index()] {
            let op = graph.op(user);
            if matches!(op, Op::Scalar(ScalarOp::Mul)) && graph.operands(user).iter().any(is_huge) {
                return true;
            }
            let affine = matches!(
                op,
                Op::View { .. } | Op::Cast { .. } | Op::Scalar(ScalarOp::Sub | ScalarOp::Neg)
            );
            if affine && !std::mem::replace(&mut seen[user.index()], true) {
                stack.push(user);
            }
        }
    }
    false
}

/// The smallest extent of an axis that a value is an index of.
fn id_range(graph: &Graph, input: NodeId, binding: &Binding) -> Option<i64> {
    if graph.dtype(input) == DType::Bool || graph.dtype(input).is_float() {
        return None;
    }
    let users = graph.users();
    let mut stack = vec![input];
    let mut seen = vec![false; graph.len()];
    let mut limit: Option<i64> = None;
    while let Some(node) = stack.pop() {
        if std::mem::replace(&mut seen[node.index()], true) {
            continue;
        }
        for &user in &users[node.index()] {
            let operands = graph.operands(user);
            let axis = match graph.op(user) {
                Op::Gather { axis } | Op::GatherElements { axis } if operands[1] == node => {
                    Some(*axis as usize)
                }
                Op::GatherNd { .. } if operands[1] == node => Some(0),
                _ => None,
            };
            match axis {
                Some(axis) => {
                    let extent = binding.eval(&graph.shape(operands[0])[axis]).ok();
                    limit = match (limit, extent) {
                        (Some(a), Some(b)) => Some(a.min(b)),
                        (a, b) => a.or(b),
                    };
                }
                None => {
                    let op = graph.op(user);
                    let passes_on = op.is_pointwise() || matches!(op, Op::View { .. });
                    let dtype = graph.dtype(user);
                    if passes_on && !dtype.is_float() && dtype != DType::Bool {
                        stack.push(user);
                    }
                }
            }
        }
    }
    limit
}
