//! Binding symbols: from extents and values of inputs to numbers, with checks.

use std::collections::BTreeMap;

use crate::dim::{Dim, Symbol};
use crate::facts::{Facts, Require};
use crate::types::TensorType;

/// Values of symbols.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding(pub BTreeMap<Symbol, i64>);

/// Inputs do not fit the signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Another number of axes.
    #[error("input `{input}` should be {expected}, has {found} axes")]
    Rank {
        /// Input name.
        input: String,
        /// Declared type.
        expected: String,
        /// Axes given.
        found: usize,
    },
    /// An extent contradicts the declaration or another extent.
    #[error("input `{input}` axis {axis} is {found}, but its extent `{dim}` must be {expected}")]
    Extent {
        /// Input name.
        input: String,
        /// Axis.
        axis: usize,
        /// Declared extent.
        dim: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: i64,
    },
    /// A symbol is outside its bounds.
    #[error("`{symbol}` is {value}, allowed is {range}; `--dim {symbol}=…` changes the range")]
    Bounds {
        /// Symbol.
        symbol: Symbol,
        /// Its value.
        value: i64,
        /// Allowed range.
        range: String,
    },
    /// A constraint does not hold.
    #[error("the model requires {require} (from {origin}), which does not hold for {values}")]
    Require {
        /// The constraint.
        require: String,
        /// Who asks.
        origin: String,
        /// Values of its symbols.
        values: String,
    },
    /// A symbol cannot be found from the inputs.
    #[error("`{0}` is determined by no input")]
    Undetermined(Symbol),
}

/// The value of the one unknown symbol of `dim` that makes it equal `extent`,
/// as an expression of `$0` (the extent) and of known symbols; `None` when
/// there is not exactly one unknown or it is not linear with coefficient ±1 or
/// a constant.
pub fn solve(dim: &Dim, known: &dyn Fn(&Symbol) -> bool) -> Option<(Symbol, Dim)> {
    let unknown: Vec<Symbol> = dim.symbols().into_iter().filter(|s| !known(s)).collect();
    let [symbol] = unknown.as_slice() else { return None };
    let (coefficient, rest) = dim.linear_in(symbol)?;
    if coefficient.is(0) {
        return None;
    }
    Some((symbol.clone(), (Dim::symbol("$0") - rest).floor_div(&coefficient)))
}

impl Binding {
    /// The value of a symbol.
    pub fn value(&self, symbol: &Symbol) -> Option<i64> {
        self.0.get(symbol).copied()
    }

    /// The value of a dim.
    pub fn eval(&self, dim: &Dim) -> Result<i64, crate::dim::DimError> {
        dim.eval(&|s| self.value(s))
    }

    /// The values of extents as sizes; `None` when one is unknown or negative.
    pub fn extents(&self, dims: &[Dim]) -> Option<Vec<usize>> {
        dims.iter().map(|d| self.eval(d).ok().and_then(|v| usize::try_from(v).ok())).collect()
    }

    /// Binds every symbol that input extents determine and checks bounds and
    /// constraints whose symbols are all bound. `preset` holds symbols that
    /// are known already (values of input elements).
    pub fn from_inputs(
        inputs: &[(&str, &TensorType, &[usize])],
        facts: &Facts,
        preset: BTreeMap<Symbol, i64>,
    ) -> Result<Binding, BindError> {
        let mut binding = Binding(preset);
        for (name, ty, shape) in inputs {
            if ty.rank() != shape.len() {
                return Err(BindError::Rank {
                    input: (*name).to_owned(),
                    expected: ty.to_string(),
                    found: shape.len(),
                });
            }
        }
        // Extents that are sums of several symbols wait for the others.
        loop {
            let before = binding.0.len();
            for (_, ty, shape) in inputs {
                for (dim, extent) in ty.shape.iter().zip(*shape) {
                    if let Some((symbol, value)) = solve(dim, &|s| binding.0.contains_key(s)) {
                        let lookup = |s: &Symbol| {
                            if s.name() == "$0" { Some(*extent as i64) } else { binding.value(s) }
                        };
                        if let Ok(value) = value.eval(&lookup) {
                            binding.0.insert(symbol, value);
                        }
                    }
                }
            }
            if binding.0.len() == before {
                break;
            }
        }
        binding.check_extents(inputs)?;
        binding.check_facts(facts)?;
        Ok(binding)
    }

    fn check_extents(&self, inputs: &[(&str, &TensorType, &[usize])]) -> Result<(), BindError> {
        for (name, ty, shape) in inputs {
            for (axis, (dim, extent)) in ty.shape.iter().zip(*shape).enumerate() {
                match self.eval(dim) {
                    Ok(value) if value == *extent as i64 => {}
                    Ok(value) => {
                        return Err(BindError::Extent {
                            input: (*name).to_owned(),
                            axis,
                            dim: dim.to_string(),
                            expected: value.to_string(),
                            found: *extent as i64,
                        });
                    }
                    Err(crate::dim::DimError::Unbound(s)) => {
                        return Err(BindError::Undetermined(s));
                    }
                    Err(e) => {
                        return Err(BindError::Extent {
                            input: (*name).to_owned(),
                            axis,
                            dim: dim.to_string(),
                            expected: e.to_string(),
                            found: *extent as i64,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks bounds and constraints whose symbols are bound.
    pub fn check_facts(&self, facts: &Facts) -> Result<(), BindError> {
        for (symbol, bounds) in facts.symbols() {
            let Some(value) = self.value(symbol) else { continue };
            let fits = value >= bounds.low
                && bounds.high.is_none_or(|h| value <= h)
                && value % bounds.multiple_of.max(1) == 0;
            if !fits {
                let high = bounds.high.map_or_else(|| "…".to_owned(), |h| h.to_string());
                let step = if bounds.multiple_of > 1 {
                    format!(" in steps of {}", bounds.multiple_of)
                } else {
                    String::new()
                };
                let range = format!("{}..{high}{step}", bounds.low);
                return Err(BindError::Bounds { symbol: symbol.clone(), value, range });
            }
        }
        facts.requires().iter().try_for_each(|r| self.check_require(r))
    }

    fn check_require(&self, require: &Require) -> Result<(), BindError> {
        if require.holds(&|s| self.value(s)) != Ok(false) {
            return Ok(());
        }
        let symbols: Vec<String> = require
            .lhs
            .symbols()
            .union(&require.rhs.symbols())
            .filter_map(|s| self.value(s).map(|v| format!("{s} = {v}")))
            .collect();
        Err(BindError::Require {
            require: require.to_string(),
            origin: require.origin.clone(),
            values: symbols.join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Relation;

    fn ty(text: &str) -> TensorType {
        text.parse().expect("type")
    }

    #[test]
    fn sums_are_solved_when_their_parts_are_known() {
        let (a, b) = (ty("f32[B, past + 1]"), ty("f32[2*B, past + S]"));
        let inputs = [("b", &b, [4usize, 12].as_slice()), ("a", &a, [2, 8].as_slice())];
        let binding =
            Binding::from_inputs(&inputs, &Facts::default(), BTreeMap::new()).expect("binds");
        let values: Vec<i64> =
            ["B", "past", "S"].iter().filter_map(|s| binding.value(&Symbol::new(s))).collect();
        assert_eq!(values, [2, 7, 5]);
    }

    #[test]
    fn contradictions_are_named() {
        let (a, b) = (ty("f32[B, 4]"), ty("f32[B]"));
        let run = |x: &[usize], y: &[usize], facts: &Facts| {
            Binding::from_inputs(&[("a", &a, x), ("b", &b, y)], facts, BTreeMap::new())
        };
        let mut facts = Facts::default();
        assert!(matches!(run(&[2, 4], &[3], &facts), Err(BindError::Extent { .. })));
        assert!(matches!(run(&[2, 5], &[2], &facts), Err(BindError::Extent { axis: 1, .. })));
        assert!(matches!(run(&[2], &[2], &facts), Err(BindError::Rank { .. })));
        facts.require(Require {
            lhs: Dim::symbol("B"),
            relation: Relation::MultipleOf,
            rhs: Dim::Const(8),
            origin: "x".into(),
        });
        assert!(matches!(run(&[2, 4], &[2], &facts), Err(BindError::Require { .. })));
        facts.bound(
            Symbol::new("B"),
            crate::facts::Bounds { low: 1, high: Some(1), multiple_of: 1 },
        );
        assert!(matches!(run(&[2, 4], &[2], &facts), Err(BindError::Bounds { .. })));
    }
}
