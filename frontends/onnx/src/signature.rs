//! Declared types of graph inputs: element type, extents, and the symbols that extents introduce.
//!
//! Named dims are symbols, at least 1, or at least 0 when the name speaks of the past; expressions such as `past + 1`
//! are parsed; `''`, `?`, negative values and `unk__*` (names that shape inference makes up) give fresh symbols. Knows
//! no operator.

use std::collections::BTreeSet;

use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::facts::{Bounds, Facts};
use tgc_ir::types::TensorType;

use crate::proto::{DimensionValue, TypeProto, TypeValue, ValueInfoProto};
use crate::tensors;

/// Largest extent that a signature may declare.
const EXTENT_MAX: i64 = 1 << 40;

/// Names the dims of a model and hands out fresh symbols.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    used: BTreeSet<Symbol>,
    plain: BTreeSet<Symbol>,
}

impl Symbols {
    /// A symbol that no dim of the model has, named after `hint`.
    pub(crate) fn fresh(&mut self, hint: &str) -> Symbol {
        let hint: String = hint
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' })
            .collect();
        let hint = hint.trim_matches('_');
        let hint = if hint.is_empty() || hint.starts_with(|c: char| c.is_ascii_digit()) {
            "d"
        } else {
            hint
        };
        for n in 0u32.. {
            let symbol =
                if n == 0 { Symbol::new(hint) } else { Symbol::new(format!("{hint}_{n}")) };
            if self.used.insert(symbol.clone()) {
                return symbol;
            }
        }
        Symbol::new(hint)
    }

    /// Notes every name that stands alone as an extent of an input: those are bound from the input's shape.
    pub(crate) fn declare(&mut self, inputs: &[ValueInfoProto]) {
        for name in inputs.iter().flat_map(param_names) {
            if let Some(dim) = parse(name) {
                self.used.extend(dim.symbols());
                self.plain.extend(dim.as_symbol().cloned());
            }
        }
    }
}

fn param_names(info: &ValueInfoProto) -> impl Iterator<Item = &str> {
    let tensor = match info.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(TypeValue::Tensor(t)) => t.shape.as_ref(),
        _ => None,
    };
    tensor.into_iter().flat_map(|s| &s.dim).filter_map(|d| match &d.value {
        Some(DimensionValue::Param(name)) => Some(name.as_str()),
        _ => None,
    })
}

/// The expression a `dim_param` stands for; `None` for names that mean nothing.
fn parse(name: &str) -> Option<Dim> {
    let name = name.trim();
    if name.is_empty() || name == "?" || name == "None" || name.starts_with("unk__") {
        return None;
    }
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | ':' | '/');
    // A hyphen inside a word belongs to the name; with spaces around it, it subtracts.
    if name.chars().all(is_name)
        && !name.contains("//")
        && name.starts_with(|c: char| c.is_alphabetic() || c == '_')
    {
        return Some(Dim::symbol(name));
    }
    match name.parse::<Dim>() {
        Ok(dim) => Some(dim),
        Err(_) => Some(Dim::symbol(name.replace('\'', "_"))),
    }
}

/// The smallest value of a symbol of this name.
fn low(name: &str) -> i64 {
    i64::from(!name.to_ascii_lowercase().contains("past"))
}

/// The type of an input tensor; new symbols get their bounds in `facts`.
///
/// # Errors
/// A sentence that says what is missing or not supported.
pub(crate) fn input_type(
    info: &ValueInfoProto,
    symbols: &mut Symbols,
    facts: &mut Facts,
) -> Result<TensorType, String> {
    let name = &info.name;
    let tensor = match info.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(TypeValue::Tensor(t)) => t,
        Some(other) => {
            return Err(format!("input `{name}` is {}; only tensors are supported", kind(other)));
        }
        None => return Err(format!("input `{name}` has no type")),
    };
    let dtype = tensors::dtype(tensor.elem_type).map_err(|e| format!("input `{name}`: {e}"))?;
    let Some(shape) = &tensor.shape else {
        return Err(format!(
            "input `{name}` has no rank; declare its shape, with symbolic dims where it varies"
        ));
    };
    let mut extents = Vec::with_capacity(shape.dim.len());
    for (axis, dim) in shape.dim.iter().enumerate() {
        let dim = match &dim.value {
            Some(DimensionValue::Value(n)) if *n > EXTENT_MAX => {
                return Err(format!("extent {n} of axis {axis} of input `{name}` is too large"));
            }
            Some(DimensionValue::Value(n)) if *n >= 0 => Dim::Const(*n),
            Some(DimensionValue::Param(text)) => {
                let known = |d: &Dim| {
                    d.as_symbol().is_some() || d.symbols().iter().all(|s| symbols.plain.contains(s))
                };
                parse(text)
                    .filter(known)
                    .unwrap_or_else(|| Dim::from(&symbols.fresh(&format!("{name}_{axis}"))))
            }
            _ => Dim::from(&symbols.fresh(&format!("{name}_{axis}"))),
        };
        for symbol in dim.symbols() {
            let bounds = Bounds { low: low(symbol.name()), high: None, multiple_of: 1 };
            facts.bound(symbol, bounds);
        }
        extents.push(dim);
    }
    Ok(TensorType::new(dtype, extents))
}

/// What kind of type it is, for messages.
#[must_use]
pub(crate) fn kind(value: &TypeValue) -> &'static str {
    match value {
        TypeValue::Tensor(_) => "a tensor",
        TypeValue::Sequence(_) => "a sequence",
        TypeValue::Map(_) => "a map",
        TypeValue::Opaque(_) => "opaque",
        TypeValue::SparseTensor(_) => "a sparse tensor",
        TypeValue::Optional(_) => "an optional",
    }
}

/// True for types that are no dense tensor.
#[must_use]
pub(crate) fn is_not_tensor(proto: Option<&TypeProto>) -> bool {
    matches!(proto.and_then(|t| t.value.as_ref()), Some(v) if !matches!(v, TypeValue::Tensor(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{DimensionProto, TensorShapeProto, TensorTypeProto};

    fn info(dims: &[DimensionValue]) -> ValueInfoProto {
        let dim = dims.iter().map(|v| DimensionProto { value: Some(v.clone()) }).collect();
        let tensor = TensorTypeProto { elem_type: 1, shape: Some(TensorShapeProto { dim }) };
        ValueInfoProto {
            name: "x".into(),
            r#type: Some(TypeProto { value: Some(TypeValue::Tensor(tensor)) }),
        }
    }

    fn p(name: &str) -> DimensionValue {
        DimensionValue::Param(name.into())
    }

    fn declared(dims: &[DimensionValue]) -> (String, Facts) {
        let (mut symbols, mut facts) = (Symbols::default(), Facts::default());
        let info = info(dims);
        symbols.declare(std::slice::from_ref(&info));
        (input_type(&info, &mut symbols, &mut facts).unwrap().to_string(), facts)
    }

    #[test]
    fn named_dims_and_expressions() {
        let (ty, facts) =
            declared(&[p("batch"), p("past"), p("past + 1"), DimensionValue::Value(64)]);
        assert_eq!(ty, "f32[batch, past, past + 1, 64]");
        assert_eq!(facts.bounds_of(&Symbol::new("batch")).unwrap().low, 1);
        assert_eq!(facts.bounds_of(&Symbol::new("past")).unwrap().low, 0);
    }

    #[test]
    fn nameless_dims_are_fresh() {
        let (ty, _) =
            declared(&[p(""), p("?"), p("unk__12"), DimensionValue::Value(-1), p("no*where")]);
        assert_eq!(ty, "f32[x_0, x_1, x_2, x_3, x_4]");
    }

    #[test]
    fn odd_names_are_symbols() {
        let (ty, _) = declared(&[p("batch-size"), p("p2o.DynamicDimension.0")]);
        assert_eq!(ty, "f32['batch-size', p2o.DynamicDimension.0]");
    }
}
