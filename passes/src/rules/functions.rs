//! Functions that right sides compute: attributes and literals from a match.

use std::sync::Arc;

use tgc_ir::attr::Attr;
use tgc_ir::dim::Dim;
use tgc_ir::kernel_program::ScalarConst;
use tgc_ir::scalar::{ScalarOp, Value, round_to};
use tgc_ir::spec::Role;
use tgc_ir::view::View;

use crate::egraph::{ClassData, Site};
use crate::rules::Guarded;

/// A named function.
#[derive(Clone, Copy)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) arity: usize,
    compute: fn(&Site<'_>, &[String]) -> Option<Guarded>,
}

impl Function {
    pub(crate) fn named(name: &str) -> Option<Function> {
        TABLE.iter().find(|f| f.name == name).copied()
    }

    pub(crate) fn evaluate(&self, args: &[String], site: &Site<'_>) -> Option<Guarded> {
        (self.compute)(site, args)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! functions {
    ($($name:literal $arity:literal $compute:expr;)*) => {
        const TABLE: &[Function] = &[$(Function { name: $name, arity: $arity, compute: $compute }),*];
    };
}

functions! {
    // Arithmetic of literals.
    "recip" 1 |s, a| literal(s, ScalarOp::Recip, a);
    "neg" 1 |s, a| literal(s, ScalarOp::Neg, a);
    "mul" 2 |s, a| literal(s, ScalarOp::Mul, a);
    "add" 2 |s, a| literal(s, ScalarOp::Add, a);
    // The value of a literal as an attribute.
    "value" 1 |s, a| data(s, &a[0])?.splat.map(|v| Guarded::Attr(Attr::Const(v)));
    // One view for two in a row.
    "compose" 2 |s, a| {
        let (first, second) = (view(s, &a[0])?, view(s, &a[1])?);
        first.then(second, &s.egraph.analysis.facts).map(view_attr)
    };
    // Contraction labels with a view of an operand or of the result absorbed.
    "absorb_lhs" 2 |s, a| absorb(s, a, 0);
    "absorb_rhs" 2 |s, a| absorb(s, a, 1);
    "absorb_out" 2 |s, a| absorb(s, a, 2);
    // [1, c, 1, …] as [c, 1, 1, …]: a per-channel factor over filter rows.
    "filter_rows" 1 |s, a| {
        let ty = data(s, &a[0])?.ty()?;
        let mut axes: Vec<usize> = (0..ty.rank()).collect();
        if axes.len() > 1 {
            axes.swap(0, 1);
        }
        Some(view_attr(View::permute(&ty.shape, &axes)))
    };
    // Axes of a reduction over a view that only permutes.
    "moved_axes" 2 |s, a| {
        let (Attr::Ints(axes), view) = (attr(s, &a[0])?, view(s, &a[1])?) else { return None };
        let order = permutation(view)?;
        let mut moved: Vec<i64> = axes.iter().map(|x| order.get(usize::try_from(*x).ok()?).map(|p| *p as i64)).collect::<Option<_>>()?;
        moved.sort_unstable();
        Some(Guarded::Attr(Attr::Ints(moved)))
    };
    // The permutation of ?v on the shape of ?y, whose reduced axes have extent 1.
    "permute_like" 2 |s, a| {
        let (view, ty) = (view(s, &a[0])?, data(s, &a[1])?.ty()?);
        Some(view_attr(View::permute(&ty.shape, &permutation(view)?)))
    };
}

fn data<'a>(site: &Site<'a>, name: &str) -> Option<&'a ClassData> {
    site.class(name).map(|id| &site.egraph[id].data)
}

fn attr<'a>(site: &Site<'a>, name: &str) -> Option<&'a Attr> {
    data(site, name)?.attr.map(|i| site.egraph.analysis.attr(i))
}

fn view<'a>(site: &Site<'a>, name: &str) -> Option<&'a Arc<View>> {
    match attr(site, name)? {
        Attr::View(view) => Some(view),
        _ => None,
    }
}

fn view_attr(view: View) -> Guarded {
    Guarded::Attr(Attr::View(Arc::new(view)))
}

/// The axis order of a view that only permutes whole axes.
fn permutation(view: &View) -> Option<Vec<usize>> {
    let shape: Vec<Dim> = view.input_shape();
    if view.output.len() != shape.len() || shape.len() > 6 {
        return None;
    }
    let mut order = Vec::new();
    let mut used = vec![false; shape.len()];
    for parts in &view.output {
        let axis = match parts.as_slice() {
            [] => (0..shape.len()).find(|a| !used[*a] && shape[*a].is(1))?,
            [tgc_ir::view::OutAtom::Take { atom, .. }] => {
                let mut first = 0;
                view.input.iter().position(|g| {
                    let here = g.len() == 1 && first == *atom;
                    first += g.len() as u32;
                    here
                })?
            }
            _ => return None,
        };
        used[axis] = true;
        order.push(axis);
    }
    (View::permute(&shape, &order) == *view).then_some(order)
}

fn literal(site: &Site<'_>, op: ScalarOp, args: &[String]) -> Option<Guarded> {
    let operands: Vec<&ClassData> = args.iter().map(|a| data(site, a)).collect::<Option<_>>()?;
    let dtype = operands[0].ty()?.dtype;
    let values: Vec<_> =
        operands.iter().map(|d| d.splat.map(ScalarConst::value)).collect::<Option<_>>()?;
    let value = round_to(op.evaluate(&values, dtype), dtype);
    let is_finite = !dtype.is_float() || value.as_f64().is_finite();
    let value = match value {
        Value::Float(x) if op != ScalarOp::Neg => {
            Value::Float(site.egraph.analysis.known_float(x, dtype))
        }
        exact => exact,
    };
    is_finite.then(|| Guarded::Splat(ScalarConst::from_value(value), dtype))
}

fn absorb(site: &Site<'_>, args: &[String], side: usize) -> Option<Guarded> {
    let Attr::Contract(spec) = attr(site, &args[0])? else { return None };
    let view = view(site, &args[1])?;
    let facts = &site.egraph.analysis.facts;
    // A label that one operand alone sums over would be lost with the axis
    // that a broadcast view adds.
    let is_lone = |l: u32| spec.role(l) == Role::LoneSum;
    if side < 2 && (0..spec.extents.len() as u32).any(is_lone) {
        return None;
    }
    let new = if side == 2 {
        spec.absorb_result(view, facts)
    } else {
        spec.absorb_operand(side, view, facts)
    };
    new.map(|s| Guarded::Attr(Attr::Contract(Arc::new(s))))
}
