//! Old operator sets, brought to the current form before operators see a node.
//!
//! Attributes that later became inputs are turned into inputs, and what an old operator implies is said. What
//! cannot be said this way (a changed meaning) is left to the operator, which sees the version. Knows no IR op.

use tgc_ir::tensor::Tensor;

use crate::attr::{AttrError, Attrs};
use crate::proto::{AttributeProto, AttributeType, NodeProto};

/// How an attribute reads as an input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A list of integers becomes i64[n].
    Ints,
    /// An integer becomes i64[1].
    Int,
    /// A float becomes a rank-0 value of the type of input 0.
    Float,
    /// A list of floats becomes f32[n].
    Floats,
}

/// `name` of `op` was an attribute in versions below `until` and is input `position` since.
struct Moved {
    op: &'static str,
    until: i64,
    name: &'static str,
    position: usize,
    form: Form,
}

const fn moved(
    op: &'static str,
    until: i64,
    name: &'static str,
    position: usize,
    form: Form,
) -> Moved {
    Moved { op, until, name, position, form }
}

const MOVED: &[Moved] = &[
    moved("Squeeze", 13, "axes", 1, Form::Ints),
    moved("Unsqueeze", 13, "axes", 1, Form::Ints),
    moved("ReduceSum", 13, "axes", 1, Form::Ints),
    moved("ReduceL1", 18, "axes", 1, Form::Ints),
    moved("ReduceL2", 18, "axes", 1, Form::Ints),
    moved("ReduceLogSum", 18, "axes", 1, Form::Ints),
    moved("ReduceLogSumExp", 18, "axes", 1, Form::Ints),
    moved("ReduceMax", 18, "axes", 1, Form::Ints),
    moved("ReduceMean", 18, "axes", 1, Form::Ints),
    moved("ReduceMin", 18, "axes", 1, Form::Ints),
    moved("ReduceProd", 18, "axes", 1, Form::Ints),
    moved("ReduceSumSquare", 18, "axes", 1, Form::Ints),
    moved("Slice", 10, "starts", 1, Form::Ints),
    moved("Slice", 10, "ends", 2, Form::Ints),
    moved("Slice", 10, "axes", 3, Form::Ints),
    moved("Split", 13, "split", 1, Form::Ints),
    moved("Pad", 11, "pads", 1, Form::Ints),
    moved("Pad", 2, "paddings", 1, Form::Ints),
    moved("Pad", 11, "value", 2, Form::Float),
    moved("Clip", 11, "min", 1, Form::Float),
    moved("Clip", 11, "max", 2, Form::Float),
    moved("TopK", 10, "k", 1, Form::Int),
    moved("Reshape", 5, "shape", 1, Form::Ints),
    moved("Upsample", 9, "scales", 1, Form::Floats),
    moved("Dropout", 12, "ratio", 1, Form::Float),
];

/// A node in its current form.
pub(crate) struct Upgraded {
    /// Inputs that the file gave as attributes: (position, tensor, scalar of the type of input 0).
    pub added: Vec<(usize, Tensor, bool)>,
    /// Positions of inputs in the file's order; `None` is an absent one. Equal to the file's unless an input moved.
    pub inputs: Vec<Option<usize>>,
    /// Attributes that an old operator implies.
    pub implied: Vec<AttributeProto>,
}

fn string(name: &str, value: &'static str) -> AttributeProto {
    let s = bytes::Bytes::from_static(value.as_bytes());
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::String as i32,
        s,
        ..Default::default()
    }
}

/// Brings a node of the default domain to its current form.
///
/// # Errors
/// [`AttrError`] when an attribute has the wrong type.
pub(crate) fn upgrade(node: &NodeProto, version: i64) -> Result<Upgraded, AttrError> {
    let attrs = Attrs(&node.attribute);
    let mut added = Vec::new();
    for m in MOVED.iter().filter(|m| m.op == node.op_type && version < m.until) {
        let tensor = match m.form {
            Form::Ints => attrs.ints(m.name)?.map(|v| Tensor::from_i64(&[v.len()], v)),
            Form::Int => attrs.int(m.name)?.map(|v| Tensor::from_i64(&[1], &[v])),
            Form::Float => attrs.float(m.name)?.map(|v| Tensor::from_f32(&[], &[v])),
            Form::Floats => attrs.floats(m.name)?.map(|v| Tensor::from_f32(&[v.len()], v)),
        };
        if let Some(tensor) = tensor {
            added.push((m.position, tensor, m.form == Form::Float));
        }
    }
    let mut out =
        Upgraded { added, inputs: (0..node.input.len()).map(Some).collect(), implied: Vec::new() };
    if node.op_type == "Upsample" || (node.op_type == "Resize" && version < 11) {
        legacy_resize(&mut out);
    }
    Ok(out)
}

/// Upsample and Resize 10 scale about the corner; the scales are input 1 there and input 2 now.
fn legacy_resize(node: &mut Upgraded) {
    node.implied.push(string("coordinate_transformation_mode", "asymmetric"));
    node.implied.push(string("nearest_mode", "floor"));
    if node.inputs.len() > 1 {
        node.inputs.insert(1, None);
    }
    for (position, ..) in &mut node.added {
        if *position == 1 {
            *position = 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(op: &str, attribute: Vec<AttributeProto>) -> NodeProto {
        NodeProto { op_type: op.into(), input: vec!["x".into()], attribute, ..Default::default() }
    }

    #[test]
    fn axes_become_an_input_below_13_only() {
        let axes = AttributeProto {
            name: "axes".into(),
            r#type: AttributeType::Ints as i32,
            ints: vec![0, 2],
            ..Default::default()
        };
        let squeeze = node("Squeeze", vec![axes]);
        let old = upgrade(&squeeze, 11).unwrap();
        assert_eq!(old.added.len(), 1);
        assert_eq!(old.added[0].1.to_i64(), Some(vec![0, 2]));
        assert!(upgrade(&squeeze, 13).unwrap().added.is_empty());
    }

    #[test]
    fn upsample_is_a_resize_about_the_corner() {
        let new = upgrade(
            &NodeProto { input: vec!["x".into(), "s".into()], ..node("Upsample", vec![]) },
            9,
        )
        .unwrap();
        assert_eq!(new.inputs, [Some(0), None, Some(1)]);
        assert_eq!(new.implied[0].s, "asymmetric");
    }
}
