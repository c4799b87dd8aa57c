//! Drawing a left side: types go from the root down as wishes, nodes are built
//! from the leaves up, and a draw that has no type is given up.

use std::collections::BTreeMap;

use tgc_ir::attr::{Attr, AttrKind};
use tgc_ir::bind::Binding;
use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::dtype::DType;
use tgc_ir::facts::{Bounds, Facts};
use tgc_ir::kernel_program::ScalarConst;
use tgc_ir::op::Op;
use tgc_ir::scalar::{ScalarOp, TypeRule, round_to};
use tgc_ir::types::TensorType;
use tgc_ir::view::View;

use super::values::Rng;
use super::views;
use crate::egraph::{ClassId, Trial};
use crate::rules::{Condition, Role, Rule, Term};

/// Element types, the usual ones more often.
const DTYPES: [DType; 12] = [
    DType::F32,
    DType::F32,
    DType::F32,
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::F64,
    DType::I64,
    DType::I32,
    DType::U8,
    DType::I8,
    DType::Bool,
];

pub(super) struct Drawer<'a> {
    rule: &'a Rule,
    lhs: &'a Term,
    rng: &'a mut Rng,
    trial: Trial,
    bound: BTreeMap<&'a str, ClassId>,
    binding: Binding,
    inputs: usize,
    /// The extent of every axis, in draws where all are equal: only there do
    /// axes taken for one another keep the shape.
    uniform: Option<Dim>,
}

impl<'a> Drawer<'a> {
    pub(super) fn new(rule: &'a Rule, lhs: &'a Term, rng: &'a mut Rng) -> Drawer<'a> {
        let mut facts = Facts::default();
        let mut binding = Binding::default();
        for (name, low, count) in [("A", 1, 4), ("B", 1, 4), ("Z", 0, 3)] {
            facts.bound(Symbol::new(name), Bounds { low, high: None, multiple_of: 1 });
            binding.0.insert(Symbol::new(name), low + rng.below(count) as i64);
        }
        let uniform =
            rng.once_in(3).then(|| rng.pick(&[Dim::Const(2), Dim::Const(3), Dim::symbol("A")]));
        Drawer {
            rule,
            lhs,
            rng,
            trial: Trial::new(facts, rule),
            bound: BTreeMap::new(),
            binding,
            inputs: 0,
            uniform,
        }
    }

    /// An instance whose last node is the root, with values of its symbols.
    pub(super) fn draw(mut self) -> Option<(Trial, Binding)> {
        let dtype = self.result_dtype(self.lhs).unwrap_or_else(|| self.root_dtype());
        let rank =
            if mentions(self.lhs, "conv") { 3 + self.rng.below(2) } else { self.rng.below(5) };
        let shape: Vec<Dim> = (0..rank).map(|_| self.extent()).collect();
        self.term(self.lhs, &TensorType::new(dtype, shape))?;
        Some((self.trial, self.binding))
    }

    fn extent(&mut self) -> Dim {
        self.uniform.clone().unwrap_or_else(|| extent(self.rng))
    }

    fn root_dtype(&mut self) -> DType {
        match self.lhs {
            Term::Op(name, ..) => match name.parse::<ScalarOp>().map(|op| op.record().types) {
                Ok(TypeRule::Float) => self.rng.pick(&DTYPES[..7]),
                Ok(TypeRule::Logic) => self.rng.pick(&[DType::Bool, DType::Bool, DType::I64]),
                _ => self.rng.pick(&DTYPES),
            },
            _ => self.rng.pick(&DTYPES),
        }
    }

    /// The element type that a term can only have.
    fn result_dtype(&self, term: &Term) -> Option<DType> {
        match term {
            Term::Var(name) => {
                self.bound.get(name.as_str()).and_then(|id| self.trial.ty(*id)).map(|t| t.dtype)
            }
            Term::Op("cast", _, attrs) => match &attrs[0] {
                Term::Attr(Attr::DType(dtype)) => Some(*dtype),
                Term::Var(name) => {
                    match self.bound.get(name.as_str()).and_then(|id| self.trial.attr_of(*id)) {
                        Some(Attr::DType(dtype)) => Some(*dtype),
                        _ => None,
                    }
                }
                _ => None,
            },
            Term::Op(name, operands, _) => {
                match name.parse::<ScalarOp>().map(|op| op.record().types) {
                    Ok(TypeRule::Compare | TypeRule::Predicate) => Some(DType::Bool),
                    _ => operands.last().and_then(|o| self.result_dtype(o)),
                }
            }
            _ => None,
        }
    }

    /// A condition of role `if` of this name about a variable.
    fn asks(&self, name: &str, variable: &str) -> Option<&'a Condition> {
        let about = |c: &&Condition| c.role == Role::If && c.name == name && c.args[0] == variable;
        self.rule.conditions.iter().find(about)
    }

    fn wants_literal(&self, variable: &str) -> bool {
        ["splat", "nonzero", "positive"].iter().any(|c| self.asks(c, variable).is_some())
    }

    fn term(&mut self, term: &'a Term, want: &TensorType) -> Option<ClassId> {
        match term {
            Term::Var(name) => match self.bound.get(name.as_str()) {
                Some(id) => Some(*id),
                None => {
                    let id = self.variable(name, want)?;
                    self.bound.insert(name, id);
                    Some(id)
                }
            },
            Term::Number(_, value) => {
                let is_legal =
                    want.dtype.is_float() || (value.fract() == 0.0 && want.dtype != DType::Bool);
                // Sometimes as another rounding: exact rules must refuse it.
                let epsilon = want.dtype.epsilon().filter(|_| self.rng.once_in(8)).unwrap_or(0.0);
                is_legal.then(|| self.literal(*value * (1.0 + epsilon), want.dtype))
            }
            Term::Op(name, operands, attrs) => self.op(name, operands, attrs, want),
            Term::Attr(_) | Term::Call(..) => None,
        }
    }

    fn literal(&mut self, value: f64, dtype: DType) -> ClassId {
        self.trial.leaf(&Op::splat(value, dtype), &TensorType::scalar(dtype))
    }

    fn variable(&mut self, name: &str, want: &TensorType) -> Option<ClassId> {
        if let Some(condition) = self.asks("is_count", name)
            && !self.rng.once_in(8)
        {
            return self.count(condition, want.dtype);
        }
        if self.wants_literal(name) && !self.rng.once_in(8) {
            let id = self.some_literal(want.dtype);
            return if self.rng.once_in(4) { self.raised(id, want) } else { Some(id) };
        }
        if self.rng.once_in(10) {
            return Some(self.some_literal(want.dtype));
        }
        self.inputs += 1;
        let op = Op::Input { name: format!("x{}", self.inputs).into(), ty: want.clone() };
        Some(self.trial.leaf(&op, want))
    }

    fn some_literal(&mut self, dtype: DType) -> ClassId {
        let value = match dtype {
            DType::Bool => self.rng.below(2) as f64,
            _ if !dtype.is_float() => self.rng.below(4) as f64,
            _ if self.rng.once_in(3) => self.rng.pick(&[0.0, 1.0, -1.0, 0.5, 2.0]),
            _ if self.rng.once_in(4) => self.rng.uniform(-2.0, 0.0),
            _ => self.rng.uniform(0.0, 2.0),
        };
        let value = round_to(tgc_ir::scalar::Value::Float(value), dtype).as_f64();
        self.literal(value, dtype)
    }

    /// A literal behind a view: exporters write [1, 1] where rank 0 is meant.
    fn raised(&mut self, literal: ClassId, want: &TensorType) -> Option<ClassId> {
        let rank = want.rank() + self.rng.below(2);
        let shape: Vec<Dim> = if rank == want.rank() && self.rng.once_in(2) {
            want.shape.to_vec()
        } else {
            vec![Dim::ONE; rank]
        };
        if shape.is_empty() {
            return Some(literal);
        }
        let view = self.trial.attr(Attr::View(View::expand(&[], &shape)?.into()));
        self.trial.op("view", &[literal], &[view])
    }

    /// The number of elements along axes: a literal, or a dim as a value.
    fn count(&mut self, condition: &Condition, dtype: DType) -> Option<ClassId> {
        let x = *self.bound.get(condition.args[1].as_str())?;
        let axes = *self.bound.get(condition.args[2].as_str())?;
        let Some(Attr::Ints(axes)) = self.trial.attr_of(axes) else { return None };
        let shape = &self.trial.ty(x)?.shape;
        let count = Dim::product(axes.iter().map(|a| &shape[*a as usize]));
        if let Some(value) = count.as_const() {
            return Some(self.literal(value as f64, dtype));
        }
        let dim = self.trial.leaf(&Op::DimValue { value: count }, &TensorType::scalar(DType::I64));
        if dtype == DType::I64 {
            return Some(dim);
        }
        let to = self.trial.attr(Attr::DType(dtype));
        self.trial.op("cast", &[dim], &[to])
    }

    fn op(
        &mut self,
        name: &'static str,
        operands: &'a [Term],
        attrs: &'a [Term],
        want: &TensorType,
    ) -> Option<ClassId> {
        let (wants, first): (Vec<TensorType>, Option<ClassId>) = match name {
            "view" => self.view_wants(&attrs[0], want)?,
            "contract" => self.contract_wants(&attrs[0], want)?,
            "conv" => self.conv_wants(&attrs[0], want)?,
            "cast" => {
                let (dtype, attr) = self.cast_dtypes(&operands[0], &attrs[0], want)?;
                (vec![TensorType::new(dtype, want.shape.iter().cloned())], Some(attr))
            }
            _ => (self.pointwise_wants(name, operands, attrs, want), None),
        };
        let mut ids = Vec::new();
        for (operand, want) in operands.iter().zip(&wants) {
            ids.push(self.term(operand, want)?);
        }
        let mut attr_ids: Vec<ClassId> = Vec::new();
        match first {
            Some(id) => attr_ids.push(id),
            None => {
                let schema = Op::schema(name)?;
                let x = self.trial.ty(*ids.first()?)?.clone();
                for (term, (_, kind)) in attrs.iter().zip(schema) {
                    attr_ids.push(self.attr(term, |rng| plain_attr(rng, kind, &x))?);
                }
            }
        }
        self.trial.op(name, &ids, &attr_ids)
    }

    /// An attribute: literal, known, or drawn now.
    fn attr(
        &mut self,
        term: &'a Term,
        draw: impl FnOnce(&mut Rng) -> Option<Attr>,
    ) -> Option<ClassId> {
        match term {
            Term::Attr(attr) => Some(self.trial.attr(attr.clone())),
            Term::Var(name) => {
                if let Some(id) = self.bound.get(name.as_str()) {
                    return Some(*id);
                }
                let attr = draw(self.rng)?;
                let id = self.trial.attr(attr);
                self.bound.insert(name, id);
                Some(id)
            }
            _ => None,
        }
    }

    fn view_wants(
        &mut self,
        attr: &'a Term,
        want: &TensorType,
    ) -> Option<(Vec<TensorType>, Option<ClassId>)> {
        let facts = self.trial.facts().clone();
        let id = self.attr(attr, |rng| {
            views::view(rng, &want.shape, &facts).map(|v| Attr::View(v.into()))
        })?;
        let Some(Attr::View(view)) = self.trial.attr_of(id) else { return None };
        Some((vec![TensorType::new(want.dtype, view.input_shape())], Some(id)))
    }

    fn contract_wants(
        &mut self,
        attr: &'a Term,
        want: &TensorType,
    ) -> Option<(Vec<TensorType>, Option<ClassId>)> {
        let uniform = self.uniform.clone();
        let mut inner = |rng: &mut Rng| uniform.clone().unwrap_or_else(|| extent(rng));
        let id = self.attr(attr, |rng| Some(views::contract(rng, want, &mut inner)))?;
        let Some(Attr::Contract(spec)) = self.trial.attr_of(id) else { return None };
        let side = |axes| TensorType::new(spec.dtype, spec.shape(axes));
        Some((vec![side(&spec.lhs), side(&spec.rhs)], Some(id)))
    }

    fn conv_wants(
        &mut self,
        attr: &'a Term,
        want: &TensorType,
    ) -> Option<(Vec<TensorType>, Option<ClassId>)> {
        let (spec, x, w) = views::conv(self.rng, want)?;
        let id = self.attr(attr, |_| Some(spec))?;
        Some((vec![x, w], Some(id)))
    }

    fn cast_dtypes(
        &mut self,
        operand: &Term,
        attr: &'a Term,
        want: &TensorType,
    ) -> Option<(DType, ClassId)> {
        let id = self.attr(attr, |_| Some(Attr::DType(want.dtype)))?;
        let own = self.result_dtype(operand);
        let any = if self.rng.once_in(4) { want.dtype } else { self.rng.pick(&DTYPES) };
        Some((own.unwrap_or(any), id))
    }

    /// One operand carries the wished extents, the others may broadcast.
    fn pointwise_wants(
        &mut self,
        name: &str,
        operands: &[Term],
        attrs: &[Term],
        want: &TensorType,
    ) -> Vec<TensorType> {
        let types = name.parse::<ScalarOp>().ok().map(|op| op.record().types);
        let compared = operands
            .iter()
            .find_map(|o| self.result_dtype(o))
            .unwrap_or_else(|| self.rng.pick(&DTYPES));
        let can_carry = |o: &&usize| match &operands[**o] {
            Term::Number(..) => false,
            Term::Var(name) => !self.wants_literal(name) && self.asks("is_count", name).is_none(),
            _ => true,
        };
        let all: Vec<usize> = (0..operands.len()).collect();
        let carriers: Vec<usize> = all.iter().filter(can_carry).copied().collect();
        let carrier = if carriers.is_empty() { 0 } else { self.rng.pick(&carriers) };
        all.into_iter()
            .map(|at| {
                let dtype = match types {
                    Some(TypeRule::Compare | TypeRule::Predicate) => compared,
                    Some(TypeRule::Select) if at == 0 => DType::Bool,
                    _ => want.dtype,
                };
                let mut shape = want.shape.to_vec();
                if at != carrier {
                    match self.rng.below(8) {
                        0..4 => {}
                        4..7 => shape
                            .iter_mut()
                            .filter(|_| self.rng.once_in(2))
                            .for_each(|d| *d = Dim::ONE),
                        _ => shape.clear(),
                    }
                }
                if !attrs.is_empty() {
                    // A reduced axis has its own extent above.
                    shape.iter_mut().filter(|d| d.is(1)).for_each(|d| *d = self.extent());
                }
                TensorType::new(dtype, shape)
            })
            .collect()
    }
}

fn mentions(term: &Term, op: &str) -> bool {
    match term {
        Term::Op(name, operands, _) => *name == op || operands.iter().any(|o| mentions(o, op)),
        _ => false,
    }
}

/// An extent: mostly small and known, sometimes symbolic or none.
fn extent(rng: &mut Rng) -> Dim {
    match rng.below(20) {
        0..4 => Dim::ONE,
        4..8 => Dim::Const(2),
        8..11 => Dim::Const(3),
        11..13 => Dim::Const(4),
        13..16 => Dim::symbol("A"),
        16..18 => Dim::symbol("B"),
        18 => Dim::symbol("Z"),
        _ => Dim::ZERO,
    }
}

/// An attribute of a kind that depends on the first operand only.
fn plain_attr(rng: &mut Rng, kind: AttrKind, x: &TensorType) -> Option<Attr> {
    match kind {
        AttrKind::Ints => {
            let mut axes: Vec<i64> = (0..x.rank() as i64).filter(|_| rng.once_in(2)).collect();
            if axes.is_empty() && x.rank() > 0 && !rng.once_in(8) {
                axes.push(rng.below(x.rank()) as i64);
            }
            Some(Attr::Ints(axes))
        }
        AttrKind::Int => Some(Attr::Int(rng.below(x.rank()) as i64)),
        AttrKind::Bool => Some(Attr::Bool(rng.once_in(2))),
        AttrKind::DType => Some(Attr::DType(rng.pick(&DTYPES))),
        AttrKind::Const => Some(Attr::Const(ScalarConst::float(rng.uniform(0.001, 1.0)))),
        _ => None,
    }
}
