//! From a body to tile operations: levels, element offsets, masks, slots and passes.

use tgc_ir::DType;
use tgc_ir::dim::{Dim, DimError};
use tgc_ir::kernel_program::{Body, InstKind, Load, ScalarConst, Store, as_value};
use tgc_ir::scalar::ScalarOp;

use super::allocate::{allocate, passes, prune, visit};
use super::scalar::{vector1, vector2, wrap};
use super::superops;
use super::{Form, Ins, Level, Op, Program, Reg};
use crate::cpu::index::{Affine, Expr, Symbols, Walk, bind, split, tree};
use crate::cpu::kernels::lanes::{Arg, Binary, Imm, Unary};
use crate::cpu::kernels::region::kind_of;
use crate::cpu::kernels::slots::Kind;

/// What [`compile`] is told about a body's surroundings.
pub struct Spec<'a> {
    /// The code.
    pub body: &'a Body,
    /// Element type and strides of each argument.
    pub buffers: &'a [(DType, Vec<i64>)],
    /// Extents of the axes that are constant in a tile; the first axes of the body.
    pub fixed: &'a [i64],
    /// Extents of the row axes, the next ones.
    pub rows: &'a [i64],
    /// Extents of the column axes, the last ones.
    pub cols: &'a [i64],
    /// Values of shape symbols.
    pub symbols: &'a Symbols<'a>,
    /// What is written.
    pub stores: &'a [Store],
    /// Instructions whose values the anchor reads, as full tiles.
    pub results: &'a [u32],
    /// Number of values that the anchor puts into the first slots, as full tiles.
    pub given: u16,
    /// Rows are swept in chunks: no slot is used twice.
    pub chunked: bool,
}

/// Compiles a body.
///
/// # Errors
/// When an index mentions an unbound symbol or divides by zero.
pub fn compile(spec: &Spec<'_>) -> Result<Program, DimError> {
    let mut builder = Builder::new(spec);
    builder.body()?;
    let mut results = Vec::new();
    for &value in spec.results {
        let v = builder.vals[value as usize].clone().expect("results are marked as needed");
        let reg = builder.at_level(&v, Level::FULL);
        results.push((reg, kind_of(v.dtype)));
    }
    for store in spec.stores {
        builder.store(store)?;
    }
    Ok(builder.finish(results))
}

#[derive(Clone, Debug)]
enum Repr {
    Reg(u16),
    Imm(Imm),
}

/// A value while building: registers are numbered without reuse.
#[derive(Clone, Debug)]
struct Val {
    repr: Repr,
    level: Level,
    dtype: DType,
}

impl Val {
    fn arg(&self, at: Level) -> Arg {
        match &self.repr {
            Repr::Imm(imm) => Arg::Imm(*imm),
            Repr::Reg(reg) => Arg::Slot(*reg, self.level.spread(at)),
        }
    }

    fn imm_f64(&self) -> Option<f64> {
        match &self.repr {
            Repr::Imm(imm) => Some(imm.f64),
            Repr::Reg(_) => None,
        }
    }
}

fn literal(constant: ScalarConst, dtype: DType) -> Imm {
    match constant {
        ScalarConst::Float(bits) => {
            let x = f64::from_bits(bits);
            Imm { f32: x as f32, f64: x, i64: x as i64, bool: u8::from(x != 0.0) }
        }
        ScalarConst::Int(i) => {
            Imm { f32: i as f32, f64: i as f64, i64: wrap(i, dtype), bool: u8::from(i != 0) }
        }
    }
}

struct Builder<'a> {
    spec: &'a Spec<'a>,
    vals: Vec<Option<Val>>,
    ins: Vec<Ins>,
    regs: u16,
}

impl<'a> Builder<'a> {
    fn new(spec: &'a Spec<'a>) -> Self {
        Self { spec, vals: vec![None; spec.body.insts.len()], ins: Vec::new(), regs: spec.given }
    }

    fn axes(&self) -> usize {
        self.spec.fixed.len() + self.spec.rows.len() + self.spec.cols.len()
    }

    fn emit(&mut self, level: Level, dtype: DType, op: Op) -> Val {
        let dst = self.regs;
        self.regs += 1;
        self.ins.push(Ins { level, dst, op });
        Val { repr: Repr::Reg(dst), level, dtype }
    }

    /// The value in a register at exactly this level.
    fn at_level(&mut self, v: &Val, level: Level) -> u16 {
        match v.repr {
            Repr::Reg(reg) if v.level == level => reg,
            _ => {
                let op = Op::Expand(kind_of(v.dtype), v.arg(level));
                let Repr::Reg(reg) = self.emit(level, v.dtype, op).repr else {
                    unreachable!("emitted")
                };
                reg
            }
        }
    }

    fn form(&self, affine: &Affine) -> (Form, Level) {
        let (nf, nr) = (self.spec.fixed.len(), self.spec.rows.len());
        let rows = Walk::new(self.spec.rows, &affine.coefs[nf..nf + nr]);
        let cols = Walk::new(self.spec.cols, &affine.coefs[nf + nr..]);
        let level = Level { row: !rows.is_still(), col: !cols.is_still() };
        (Form { base: affine.base, fixed: affine.coefs[..nf].to_vec(), rows, cols }, level)
    }

    /// Marks what results and stores need, then lowers it in order.
    fn body(&mut self) -> Result<(), DimError> {
        let needed = needed(self.spec);
        for (i, inst) in self.spec.body.insts.iter().enumerate() {
            if needed[i] {
                let val = match superops::find(self.spec.body, i as u32) {
                    Some((op, x)) => {
                        let x = self.val(x);
                        let src = self.at_level(&x, x.level);
                        self.emit(x.level, inst.dtype, Op::Unary(op, src))
                    }
                    None => self.inst(&inst.kind, inst.dtype)?,
                };
                self.vals[i] = Some(val);
            }
        }
        Ok(())
    }

    fn val(&self, i: u32) -> Val {
        self.vals[i as usize].clone().expect("operands are earlier and marked as needed")
    }

    fn inst(&mut self, kind: &InstKind, dtype: DType) -> Result<Val, DimError> {
        Ok(match kind {
            InstKind::Const(c) => {
                Val { repr: Repr::Imm(literal(*c, dtype)), level: Level::default(), dtype }
            }
            InstKind::Index(dim) => {
                let dim = bind(dim, self.spec.symbols);
                let expr = tree(&dim, self.axes())?;
                self.expr(&expr)
            }
            InstKind::Slot(k) => Val { repr: Repr::Reg(*k as u16), level: Level::FULL, dtype },
            InstKind::Load(load) => self.load(load, dtype)?,
            InstKind::Scalar(op, args) => {
                let args: Vec<Val> = args.iter().map(|&a| self.val(a)).collect();
                self.scalar(*op, &args)
            }
            InstKind::Cast(from) => {
                let v = self.val(*from);
                let src = self.at_level(&v, v.level);
                self.emit(v.level, dtype, Op::Cast { from: v.dtype, to: dtype, src })
            }
            InstKind::Bitcast(from) => {
                let v = self.val(*from);
                let src = self.at_level(&v, v.level);
                self.emit(v.level, dtype, Op::Bitcast { from: v.dtype, to: dtype, src })
            }
            InstKind::Reduce(op, from) => {
                let v = self.val(*from);
                let wide = Level { row: v.level.row, col: true };
                let src = Reg { slot: self.at_level(&v, wide), level: wide };
                let level = Level { row: v.level.row, col: false };
                self.emit(level, dtype, Op::Reduce { op: *op, dtype: v.dtype, src })
            }
        })
    }

    fn scalar(&mut self, op: ScalarOp, args: &[Val]) -> Val {
        let level = args.iter().fold(Level::default(), |l, a| l.join(a.level));
        let of = if op == ScalarOp::Select { args[1].dtype } else { args[0].dtype };
        let result = match op {
            ScalarOp::Eq | ScalarOp::Lt | ScalarOp::Le | ScalarOp::IsNan | ScalarOp::IsInf => {
                DType::Bool
            }
            _ => of,
        };
        if kind_of(of) == Kind::F32
            && let Some(op) = self.vector(op, args, level)
        {
            return self.emit(level, result, op);
        }
        let mut packed = [args[0].arg(level); 3];
        for (p, a) in packed.iter_mut().zip(args) {
            *p = a.arg(level);
        }
        self.emit(level, result, Op::Scalar(op, of, packed))
    }

    /// The vector operation for a row on single precision.
    fn vector(&mut self, op: ScalarOp, args: &[Val], level: Level) -> Option<Op> {
        if let Some(op) = vector1(op) {
            let src = self.at_level(&args[0], level);
            return Some(Op::Unary(op, src));
        }
        if op == ScalarOp::Pow && args[1].imm_f64() == Some(2.0) {
            let src = self.at_level(&args[0], level);
            return Some(Op::Unary(Unary::Square, src));
        }
        let op = vector2(op)?;
        if let (Binary::Mul, Repr::Reg(a), Repr::Reg(b)) = (op, &args[0].repr, &args[1].repr)
            && a == b
        {
            return Some(Op::Unary(Unary::Square, *a));
        }
        Some(Op::Binary(op, args[0].arg(level), args[1].arg(level)))
    }

    fn int(&mut self, op: ScalarOp, a: &Val, b: &Val) -> Val {
        self.scalar(op, &[a.clone(), b.clone()])
    }

    fn expr(&mut self, expr: &Expr) -> Val {
        match expr {
            Expr::Affine(affine) => self.coord(affine),
            Expr::Value(v) => self.val(*v),
            Expr::Add(a, b) => self.pair(a, b, |s, x, y| s.int(ScalarOp::Add, x, y)),
            Expr::Mul(a, b) => self.pair(a, b, |s, x, y| s.int(ScalarOp::Mul, x, y)),
            Expr::Min(a, b) => self.pair(a, b, |s, x, y| s.int(ScalarOp::Min, x, y)),
            Expr::Max(a, b) => self.pair(a, b, |s, x, y| s.int(ScalarOp::Max, x, y)),
            Expr::FloorDiv(a, b) => self.pair(a, b, |s, x, y| {
                let level = x.level.join(y.level);
                s.emit(level, DType::I64, Op::FloorDiv(x.arg(level), y.arg(level)))
            }),
            Expr::Mod(a, b) => self.pair(a, b, |s, x, y| {
                let level = x.level.join(y.level);
                s.emit(level, DType::I64, Op::FloorMod(x.arg(level), y.arg(level)))
            }),
        }
    }

    fn pair(&mut self, a: &Expr, b: &Expr, f: impl Fn(&mut Self, &Val, &Val) -> Val) -> Val {
        let a = self.expr(a);
        let b = self.expr(b);
        f(self, &a, &b)
    }

    fn coord(&mut self, affine: &Affine) -> Val {
        let (form, level) = self.form(affine);
        if form.fixed.iter().all(|&c| c == 0) && level == Level::default() {
            let imm = literal(ScalarConst::Int(form.base), DType::I64);
            return Val { repr: Repr::Imm(imm), level, dtype: DType::I64 };
        }
        self.emit(level, DType::I64, Op::Coord(form))
    }

    /// Element offset of an index as affine form and computed rest.
    fn offset(&mut self, buffer: u32, index: &[Dim]) -> Result<(Affine, Option<Val>), DimError> {
        let strides = &self.spec.buffers[buffer as usize].1;
        let mut sum = Dim::ZERO;
        for (dim, &stride) in index.iter().zip(strides) {
            sum = sum + bind(dim, self.spec.symbols) * Dim::Const(stride);
        }
        let parts = split(&sum, self.axes())?;
        Ok((parts.affine, parts.rest.map(|rest| self.expr(&rest))))
    }

    fn guard(&mut self, value: &Dim, below: &Dim) -> Result<Option<Val>, DimError> {
        let value = tree(&bind(value, self.spec.symbols), self.axes())?;
        let below = tree(&bind(below, self.spec.symbols), self.axes())?;
        if let (Expr::Affine(v), Expr::Affine(b)) = (&value, &below) {
            let extents: Vec<i64> = [self.spec.fixed, self.spec.rows, self.spec.cols]
                .into_iter()
                .flatten()
                .copied()
                .collect();
            if v.range(&extents).0 >= 0 && v.range(&extents).1 < b.range(&extents).0 {
                return Ok(None);
            }
        }
        let value = self.expr(&value);
        let below = self.expr(&below);
        let zero = self.coord(&Affine::constant(0, self.axes()));
        let low = self.int(ScalarOp::Le, &zero, &value);
        let high = self.int(ScalarOp::Lt, &value, &below);
        Ok(Some(self.scalar(ScalarOp::And, &[low, high])))
    }

    fn load(&mut self, load: &Load, dtype: DType) -> Result<Val, DimError> {
        let (affine, add) = self.offset(load.buffer, &load.index)?;
        let (form, form_level) = self.form(&affine);
        let mut masks = Vec::new();
        for g in &load.guards {
            masks.extend(self.guard(&g.value, &g.below)?);
        }
        let add_level = add.as_ref().map_or(Level::default(), |a| a.level);
        let level = masks.iter().fold(form_level.join(add_level), |l, m| l.join(m.level));
        let per_row = |l: Level| !l.col && (level.col || !l.row);
        let simple = per_row(add_level)
            && masks.iter().all(|m| per_row(m.level) || (!m.level.row && m.level.col));
        let region = load.buffer as u16;
        let loaded = if simple {
            let row_mask = self.all(masks.iter().filter(|m| !m.level.col).cloned().collect());
            let row_mask =
                row_mask.map(|m| Reg { slot: self.at_level(&m, m.level), level: m.level });
            let col_mask = self.all(masks.iter().filter(|m| m.level.col).cloned().collect());
            let col_mask = col_mask.map(|m| self.at_level(&m, m.level));
            let add = add.map(|a| Reg { slot: self.at_level(&a, a.level), level: a.level });
            let in_place = true;
            self.emit(
                level,
                dtype,
                Op::Load { region, dtype, form, add, row_mask, col_mask, in_place },
            )
        } else {
            let index = self.index(&affine, add, level);
            let mask = self.all(masks).map(|m| self.at_level(&m, level));
            self.emit(level, dtype, Op::Gather { region, dtype, index, mask })
        };
        let Some(otherwise) = load.otherwise else { return Ok(loaded) };
        // Where a guard failed the load gave zero; the guards again say where that was.
        let mut masks = Vec::new();
        for g in &load.guards {
            masks.extend(self.guard(&g.value, &g.below)?);
        }
        let otherwise = self.val(otherwise);
        Ok(match self.all(masks) {
            None => loaded,
            Some(mask) => self.scalar(ScalarOp::Select, &[mask, loaded, otherwise]),
        })
    }

    /// The affine form plus the computed rest, in a register of the level.
    fn index(&mut self, affine: &Affine, add: Option<Val>, level: Level) -> u16 {
        let mut index = self.coord(affine);
        if let Some(add) = add {
            index = self.int(ScalarOp::Add, &index, &add);
        }
        self.at_level(&index, level)
    }

    fn all(&mut self, masks: Vec<Val>) -> Option<Val> {
        masks.into_iter().reduce(|a, b| self.scalar(ScalarOp::And, &[a, b]))
    }

    fn store(&mut self, store: &Store) -> Result<(), DimError> {
        let (affine, add) = self.offset(store.buffer, &store.index)?;
        let (form, form_level) = self.form(&affine);
        let value = self.val(store.value);
        let add_level = add.as_ref().map_or(Level::default(), |a| a.level);
        let level = form_level.join(add_level).join(value.level);
        let dst = self.at_level(&value, level);
        let dtype = self.spec.buffers[store.buffer as usize].0;
        let region = store.buffer as u16;
        let op = if !add_level.col && (level.col || !add_level.row) {
            let add = add.map(|a| Reg { slot: self.at_level(&a, a.level), level: a.level });
            Op::Store { region, dtype, form, add }
        } else {
            let index = self.index(&affine, add, level);
            Op::Scatter { region, dtype, index }
        };
        self.ins.push(Ins { level, dst, op });
        Ok(())
    }

    fn finish(mut self, results: Vec<(u16, Kind)>) -> Program {
        let keep: Vec<u16> = results.iter().map(|r| r.0).collect();
        prune(&mut self.ins, self.regs, &keep);
        let written = self.spec.stores.iter().map(|s| s.buffer as u16).collect();
        if self.spec.chunked {
            let passes = passes(&self.ins, self.regs);
            return Program { ins: self.ins, slots: self.regs, results, passes, written };
        }
        for ins in &mut self.ins {
            if let Op::Load { in_place, .. } = &mut ins.op {
                *in_place &= !keep.contains(&ins.dst);
            }
        }
        let (map, slots) = allocate(&self.ins, self.regs, self.spec.given, &keep);
        for ins in &mut self.ins {
            visit(ins, &mut |reg, _| *reg = map[*reg as usize]);
        }
        let results = results.into_iter().map(|(r, k)| (map[r as usize], k)).collect();
        Program { ins: self.ins, slots, results, passes: Vec::new(), written }
    }
}

/// Which instructions results and stores depend on.
fn needed(spec: &Spec<'_>) -> Vec<bool> {
    let mut needed = vec![false; spec.body.insts.len()];
    let mark_dim = |dim: &Dim, needed: &mut Vec<bool>| {
        for s in dim.symbols() {
            if let Some(v) = as_value(&s) {
                needed[v as usize] = true;
            }
        }
    };
    for &r in spec.results {
        needed[r as usize] = true;
    }
    for store in spec.stores {
        needed[store.value as usize] = true;
        store.index.iter().for_each(|d| mark_dim(d, &mut needed));
    }
    for i in (0..needed.len()).rev() {
        if !needed[i] {
            continue;
        }
        match &spec.body.insts[i].kind {
            InstKind::Index(dim) => mark_dim(dim, &mut needed),
            InstKind::Load(load) => {
                load.index.iter().for_each(|d| mark_dim(d, &mut needed));
                for g in &load.guards {
                    mark_dim(&g.value, &mut needed);
                    mark_dim(&g.below, &mut needed);
                }
                if let Some(o) = load.otherwise {
                    needed[o as usize] = true;
                }
            }
            InstKind::Scalar(_, args) => args.iter().for_each(|&a| needed[a as usize] = true),
            InstKind::Cast(a) | InstKind::Bitcast(a) | InstKind::Reduce(_, a) => {
                needed[*a as usize] = true;
            }
            InstKind::Const(_) | InstKind::Slot(_) => {}
        }
    }
    needed
}
