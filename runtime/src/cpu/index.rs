//! Index expressions under bound symbols: affine forms over a body's axes, and trees for the rest.

use smallvec::SmallVec;
use tgc_ir::dim::{Atom, Dim, DimError, Symbol};
use tgc_ir::kernel_program::{as_axis, as_value};

/// `base + sum of coefs[i] * axis i`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affine {
    /// Value at the origin.
    pub base: i64,
    /// One coefficient per axis.
    pub coefs: SmallVec<[i64; 6]>,
}

impl Affine {
    /// A number.
    pub fn constant(base: i64, axes: usize) -> Self {
        Self { base, coefs: SmallVec::from_elem(0, axes) }
    }

    /// Smallest and largest value over axes of these extents (each at least one).
    pub fn range(&self, extents: &[i64]) -> (i64, i64) {
        let (mut low, mut high) = (self.base, self.base);
        for (c, e) in self.coefs.iter().zip(extents) {
            let reach = c * (e - 1).max(0);
            if reach < 0 { low += reach } else { high += reach }
        }
        (low, high)
    }
}

/// An integer expression per point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Affine in the axes.
    Affine(Affine),
    /// The result of an earlier instruction.
    Value(u32),
    /// Sum.
    Add(Box<Expr>, Box<Expr>),
    /// Product.
    Mul(Box<Expr>, Box<Expr>),
    /// Division rounding down.
    FloorDiv(Box<Expr>, Box<Expr>),
    /// Remainder with the divisor's sign.
    Mod(Box<Expr>, Box<Expr>),
    /// The smaller.
    Min(Box<Expr>, Box<Expr>),
    /// The larger.
    Max(Box<Expr>, Box<Expr>),
}

impl Expr {
    /// True when it reads no value and no axis from number `axes` on.
    pub fn uses_only(&self, axes: usize) -> bool {
        match self {
            Expr::Affine(a) => a.coefs.iter().skip(axes).all(|&c| c == 0),
            Expr::Value(_) => false,
            Expr::Add(a, b)
            | Expr::Mul(a, b)
            | Expr::FloorDiv(a, b)
            | Expr::Mod(a, b)
            | Expr::Min(a, b)
            | Expr::Max(a, b) => a.uses_only(axes) && b.uses_only(axes),
        }
    }

    /// Its value at a point; `None` when it reads a computed value.
    pub fn value(&self, at: &[i64]) -> Option<i64> {
        Some(match self {
            Expr::Affine(a) => a.coefs.iter().zip(at).fold(a.base, |sum, (c, x)| sum + c * x),
            Expr::Value(_) => return None,
            Expr::Add(a, b) => a.value(at)?.wrapping_add(b.value(at)?),
            Expr::Mul(a, b) => a.value(at)?.wrapping_mul(b.value(at)?),
            Expr::FloorDiv(a, b) => floor_div(a.value(at)?, b.value(at)?),
            Expr::Mod(a, b) => floor_mod(a.value(at)?, b.value(at)?),
            Expr::Min(a, b) => a.value(at)?.min(b.value(at)?),
            Expr::Max(a, b) => a.value(at)?.max(b.value(at)?),
        })
    }
}

/// `affine + rest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The affine part.
    pub affine: Affine,
    /// What is not affine.
    pub rest: Option<Expr>,
}

/// Values of the plan's symbols.
pub type Symbols<'a> = dyn Fn(&Symbol) -> Option<i64> + 'a;

/// `dim` with every shape symbol replaced by its value.
pub fn bind(dim: &Dim, symbols: &Symbols<'_>) -> Dim {
    if dim.as_const().is_some() {
        return dim.clone();
    }
    dim.substitute(&|s| {
        if as_axis(s).is_some() || as_value(s).is_some() {
            None
        } else {
            symbols(s).map(Dim::Const)
        }
    })
}

/// The number that `dim` is under `symbols`.
pub fn number(dim: &Dim, symbols: &Symbols<'_>) -> Result<i64, DimError> {
    dim.eval(symbols)
}

/// Splits a bound dim over `axes` axes.
pub fn split(dim: &Dim, axes: usize) -> Result<Split, DimError> {
    let p = dim.polynomial();
    let mut affine = Affine::constant(p.constant, axes);
    let mut rest: Option<Expr> = None;
    for (monomial, coefficient) in &p.terms {
        if let [Atom::Symbol(s)] = monomial.as_slice()
            && let Some(axis) = as_axis(s)
            && axis < axes
        {
            affine.coefs[axis] += coefficient;
            continue;
        }
        let mut product: Option<Expr> = None;
        for atom in monomial {
            let factor = of_atom(atom, axes)?;
            product = Some(match product {
                None => factor,
                Some(p) => Expr::Mul(Box::new(p), Box::new(factor)),
            });
        }
        let Some(mut term) = product else { continue };
        if *coefficient != 1 {
            let factor = Expr::Affine(Affine::constant(*coefficient, axes));
            term = Expr::Mul(Box::new(term), Box::new(factor));
        }
        rest = Some(match rest {
            None => term,
            Some(r) => Expr::Add(Box::new(r), Box::new(term)),
        });
    }
    Ok(Split { affine, rest })
}

/// A bound dim as one tree.
pub fn tree(dim: &Dim, axes: usize) -> Result<Expr, DimError> {
    let Split { affine, rest } = split(dim, axes)?;
    let plain = affine.base == 0 && affine.coefs.iter().all(|&c| c == 0);
    Ok(match rest {
        None => Expr::Affine(affine),
        Some(rest) if plain => rest,
        Some(rest) => Expr::Add(Box::new(rest), Box::new(Expr::Affine(affine))),
    })
}

fn of_atom(atom: &Atom, axes: usize) -> Result<Expr, DimError> {
    let pair =
        |a: &Dim, b: &Dim| Ok::<_, DimError>((Box::new(tree(a, axes)?), Box::new(tree(b, axes)?)));
    Ok(match atom {
        Atom::Symbol(s) => match (as_axis(s), as_value(s)) {
            (Some(axis), _) if axis < axes => {
                let mut affine = Affine::constant(0, axes);
                affine.coefs[axis] = 1;
                Expr::Affine(affine)
            }
            (_, Some(value)) => Expr::Value(value),
            _ => return Err(DimError::Unbound(s.clone())),
        },
        Atom::FloorDiv(a, b) => {
            let (a, b) = pair(a, b)?;
            Expr::FloorDiv(a, b)
        }
        Atom::Mod(a, b) => {
            let (a, b) = pair(a, b)?;
            Expr::Mod(a, b)
        }
        Atom::Min(a, b) => {
            let (a, b) = pair(a, b)?;
            Expr::Min(a, b)
        }
        Atom::Max(a, b) => {
            let (a, b) = pair(a, b)?;
            Expr::Max(a, b)
        }
    })
}

/// Division rounding down; by zero gives zero.
pub fn floor_div(a: i64, b: i64) -> i64 {
    if b == 0 {
        return 0;
    }
    let q = a.wrapping_div(b);
    if a.wrapping_rem(b) != 0 && ((a < 0) != (b < 0)) { q - 1 } else { q }
}

/// Remainder with the sign of the divisor; by zero gives zero.
pub fn floor_mod(a: i64, b: i64) -> i64 {
    if b == 0 { 0 } else { a.wrapping_sub(b.wrapping_mul(floor_div(a, b))) }
}

/// A linear walk over several axes, with axes merged wherever one stride serves both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// (extent, stride), outermost first, no extent of one; empty when nothing moves.
    axes: SmallVec<[(i64, i64); 4]>,
}

/// `count` elements from `offset` on, `stride` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First element.
    pub offset: i64,
    /// Elements.
    pub count: usize,
    /// Distance.
    pub stride: i64,
}

impl Walk {
    /// The walk over axes of these extents with these strides.
    pub fn new(extents: &[i64], strides: &[i64]) -> Self {
        let mut axes: SmallVec<[(i64, i64); 4]> = SmallVec::new();
        for (&extent, &stride) in extents.iter().zip(strides) {
            if extent == 1 {
                continue;
            }
            match axes.last_mut() {
                Some((outer, s)) if *s == stride * extent => {
                    (*outer, *s) = (*outer * extent, stride)
                }
                _ => axes.push((extent, stride)),
            }
        }
        if axes.iter().all(|&(_, s)| s == 0) {
            axes.clear();
        }
        Self { axes }
    }

    /// True when every point has offset zero.
    pub fn is_still(&self) -> bool {
        self.axes.is_empty()
    }

    /// The one stride of the walk, when it has only one.
    pub fn stride(&self) -> Option<i64> {
        match self.axes.as_slice() {
            [] => Some(0),
            [(_, stride)] => Some(*stride),
            _ => None,
        }
    }

    /// Offset of point `i`.
    pub fn offset(&self, mut i: i64) -> i64 {
        let mut offset = 0;
        for &(extent, stride) in self.axes.iter().rev() {
            offset += i % extent * stride;
            i /= extent;
        }
        offset
    }

    /// Calls `visit` with the runs that points `start..start + count` make.
    #[inline]
    pub fn runs(&self, start: usize, count: usize, visit: &mut dyn FnMut(Run)) {
        match self.axes.as_slice() {
            [] => visit(Run { offset: 0, count, stride: 0 }),
            [(_, stride)] => visit(Run { offset: start as i64 * stride, count, stride: *stride }),
            [.., (extent, stride)] => {
                let mut at = start as i64;
                let end = (start + count) as i64;
                while at < end {
                    let take = (extent - at % extent).min(end - at);
                    visit(Run { offset: self.offset(at), count: take as usize, stride: *stride });
                    at += take;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(walk: &Walk, start: usize, count: usize) -> Vec<i64> {
        let mut out = Vec::new();
        walk.runs(start, count, &mut |r| {
            out.extend((0..r.count as i64).map(|i| r.offset + i * r.stride))
        });
        out
    }

    #[test]
    fn walks_merge_axes_and_keep_order() {
        let walk = Walk::new(&[2, 3, 4], &[12, 4, 1]);
        assert_eq!(walk.stride(), Some(1));
        assert_eq!(points(&walk, 5, 3), [5, 6, 7]);
        let walk = Walk::new(&[2, 3, 4], &[4, 8, 1]);
        let all: Vec<i64> = (0..24).map(|i| i / 12 * 4 + i / 4 % 3 * 8 + i % 4).collect();
        assert_eq!(points(&walk, 0, 24), all);
        assert_eq!(points(&walk, 7, 9), all[7..16]);
        assert!(Walk::new(&[5, 1], &[0, 7]).is_still());
    }

    #[test]
    fn dims_split_into_affine_and_rest() {
        let dim: Dim = tgc_ir::kernel_program::axis(0) * Dim::Const(6)
            + tgc_ir::kernel_program::axis(1).floor_div(&Dim::Const(2))
            + Dim::symbol("S");
        let bound = bind(&dim, &|s| (s.name() == "S").then_some(5));
        let split = split(&bound, 2).unwrap();
        assert_eq!((split.affine.base, split.affine.coefs.as_slice()), (5, &[6, 0][..]));
        assert!(matches!(split.rest, Some(Expr::FloorDiv(..))));
        assert_eq!((floor_div(-7, 2), floor_mod(-7, 2)), (-4, 1));
    }
}
