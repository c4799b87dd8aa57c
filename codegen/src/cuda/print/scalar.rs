//! Scalar functions, constants and conversions as C++ expressions.
//!
//! Operators are written as operators; every other row of the scalar table is `op::<name>` of the
//! prelude, or its expansion in other rows when the prelude needs none of its own.

use tgc_ir::DType;
use tgc_ir::kernel_program::ScalarConst;
use tgc_ir::scalar::{Expansion, ScalarOp};

use super::{storage_type, value_type};

/// How a row is written.
enum Form {
    Prefix(&'static str),
    Infix(&'static str),
    Function,
}

/// Rows that C++ writes as operators, and rows with an expansion for which the prelude has something better.
fn form(op: ScalarOp, dtype: DType) -> Option<Form> {
    use ScalarOp::*;
    let is_bool = dtype == DType::Bool;
    Some(match op {
        Neg => Form::Prefix("-"),
        Not if is_bool => Form::Prefix("!"),
        Not => Form::Prefix("~"),
        Add => Form::Infix("+"),
        Sub => Form::Infix("-"),
        Mul => Form::Infix("*"),
        Div if dtype.is_float() => Form::Infix("/"),
        And if is_bool => Form::Infix("&&"),
        Or if is_bool => Form::Infix("||"),
        Xor if is_bool => Form::Infix("!="),
        And => Form::Infix("&"),
        Or => Form::Infix("|"),
        Xor => Form::Infix("^"),
        Eq => Form::Infix("=="),
        Lt => Form::Infix("<"),
        Le => Form::Infix("<="),
        Rsqrt | Sigmoid => Form::Function,
        _ => match op.record().device {
            Expansion::Intrinsic => Form::Function,
            Expansion::Expand(_) => return None,
        },
    })
}

/// True when the text needs no parentheses as an operand.
fn is_atomic(text: &str) -> bool {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            ' ' if depth == 0 => return false,
            '-' | '!' | '~' if at == 0 => return false,
            _ => {}
        }
    }
    // `(a) + …` is excluded by the spaces; a cast such as `(i32)x` binds tighter than any operator used here.
    true
}

fn operand(text: &str) -> String {
    if is_atomic(text) { text.to_owned() } else { format!("({text})") }
}

/// The expression of a row applied to printed operands of dtype `dtype` (of the chosen values, for select).
///
/// Integers narrower than `int` are converted back, because C++ promotes them.
pub fn apply(op: ScalarOp, args: &[String], dtype: DType) -> String {
    if op == ScalarOp::Select {
        return format!("{} ? {} : {}", operand(&args[0]), operand(&args[1]), operand(&args[2]));
    }
    let text = match form(op, dtype) {
        Some(Form::Prefix(sign)) => format!("{sign}{}", operand(&args[0])),
        Some(Form::Infix(sign)) => format!("{} {sign} {}", operand(&args[0]), operand(&args[1])),
        Some(Form::Function) => return format!("op::{}({})", op.name(), args.join(", ")),
        None => return expand(op, args, dtype),
    };
    let is_number = !matches!(op, ScalarOp::Eq | ScalarOp::Lt | ScalarOp::Le);
    let is_promoted = dtype.is_int() && dtype.bits() < 32;
    if is_number && is_promoted { format!("({})({text})", value_type(dtype)) } else { text }
}

/// The row's own expansion, `op(arg, …)` nested, with `x`, `y`, `z` for the operands.
fn expand(op: ScalarOp, args: &[String], dtype: DType) -> String {
    let Expansion::Expand(text) = op.record().device else { return String::new() };
    expression(text.trim(), args, dtype)
}

fn expression(text: &str, args: &[String], dtype: DType) -> String {
    let Some((name, rest)) = text.split_once('(') else {
        return match text {
            "x" => args[0].clone(),
            "y" => args[1].clone(),
            "z" => args[2].clone(),
            number => typed_literal(number, dtype),
        };
    };
    let inner = rest.strip_suffix(')').unwrap_or(rest);
    let parts: Vec<String> = tgc_ir::types::split_commas(inner)
        .into_iter()
        .map(|part| expression(part, args, dtype))
        .collect();
    match name.trim().parse::<ScalarOp>() {
        // The only row whose operands are conditions is a negation of a comparison.
        Ok(ScalarOp::Not) if inner.starts_with("eq(") => apply(ScalarOp::Not, &parts, DType::Bool),
        Ok(op) => apply(op, &parts, dtype),
        Err(_) => text.to_owned(),
    }
}

fn typed_literal(number: &str, dtype: DType) -> String {
    match number.parse::<f64>() {
        Ok(value) if dtype.is_float() => literal(ScalarConst::float(value), dtype),
        Ok(value) => literal(ScalarConst::Int(value as i64), dtype),
        Err(_) => number.to_owned(),
    }
}

/// A constant of a dtype; narrow floats are rounded to what they can hold.
pub fn literal(value: ScalarConst, dtype: DType) -> String {
    if !dtype.is_float() {
        return integer_literal(value, dtype);
    }
    let rounded = tgc_ir::scalar::round_float(value.as_f64(), dtype);
    let is_double = dtype == DType::F64;
    match (rounded.is_nan(), rounded.is_infinite(), is_double) {
        (true, _, true) => "NAN_D".to_owned(),
        (true, _, false) => "NAN_F".to_owned(),
        (_, true, true) => signed("INFINITY_D", rounded),
        (_, true, false) => signed("INFINITY_F", rounded),
        (_, _, true) => format!("{rounded:?}"),
        (_, _, false) => format!("{:?}f", rounded as f32),
    }
}

fn signed(name: &str, value: f64) -> String {
    if value < 0.0 { format!("-{name}") } else { name.to_owned() }
}

fn integer_literal(value: ScalarConst, dtype: DType) -> String {
    let value = match value {
        ScalarConst::Int(i) => i,
        ScalarConst::Float(bits) => f64::from_bits(bits) as i64,
    };
    match dtype {
        DType::Bool => (if value != 0 { "true" } else { "false" }).to_owned(),
        DType::I64 if value == i64::MIN => "(-9223372036854775807LL - 1)".to_owned(),
        DType::I64 => format!("{value}LL"),
        DType::U64 => format!("{}ULL", value as u64),
        DType::U32 => format!("{}u", value as u32),
        DType::I32 if value <= i64::from(i32::MIN) => "(-2147483647 - 1)".to_owned(),
        DType::I32 => value.to_string(),
        narrow => format!("({}){value}", value_type(narrow)),
    }
}

/// A value of dtype `from` converted to dtype `to`.
pub fn convert(value: &str, from: DType, to: DType) -> String {
    let same = value_type(from) == value_type(to);
    match to {
        _ if from == to => value.to_owned(),
        // A narrow float is already held as the float it denotes.
        DType::F32 if same => value.to_owned(),
        DType::F16 => format!("op::cast_f16({value})"),
        DType::BF16 => format!("op::cast_bf16({value})"),
        _ => format!("op::cast<{}>({value})", value_type(to)),
    }
}

/// The bits of a value of dtype `from` read as dtype `to`; `None` where one of them is not storable.
pub fn reinterpret(value: &str, from: DType, to: DType) -> Option<String> {
    let is_storable = |dtype| !matches!(dtype, DType::F8E4M3 | DType::F8E5M2);
    let element = storage_type(to).filter(|_| is_storable(from) && is_storable(to))?;
    storage_type(from)?;
    let bits = stored(value, from, from);
    Some(loaded(&format!("bits_as<{element}>({bits})"), to))
}

/// A stored element as a value.
pub fn loaded(element: &str, dtype: DType) -> String {
    match dtype {
        DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => format!("to_f32({element})"),
        _ => element.to_owned(),
    }
}

/// A value of dtype `from` as an element to be stored with dtype `to`; narrow floats round here.
pub fn stored(value: &str, from: DType, to: DType) -> String {
    let wide_enough = matches!(from, DType::F32 | DType::F64) || from == to;
    match to {
        DType::F16 | DType::BF16 if wide_enough => format!("to_{}({value})", to.name()),
        DType::F16 | DType::BF16 => format!("to_{}({})", to.name(), convert(value, from, to)),
        _ => {
            let converted = convert(value, from, to);
            // Written types equal the value type for everything else that is storable.
            debug_assert!(storage_type(to).is_some(), "4-bit buffers are refused by the scope");
            converted
        }
    }
}
