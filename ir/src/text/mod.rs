//! The text form `.tgir` of graphs: one node per line, exact round trip.
//!
//! ```text
//! graph "softmax" {
//!   symbol B 1..
//!   require "S % 8 == 0" from "--dim"
//!   weight 0 "w" f32[2] {0.5, 1.0}
//!   %0 = input name=x ty="f32[B, 128]" : f32[B, 128]
//!   %1 = softmax %0 axes=[1] : f32[B, 128]
//!   output "y" %1
//! }
//! ```

mod dot;
mod labels;
mod parse;
mod print;

pub use dot::dot;
pub use labels::SpecParseError;
pub(crate) use labels::split_outside;
pub use parse::{TextError, parse};
pub use print::{node_line, print, print_with_weights};

#[cfg(test)]
mod tests {
    use crate::dtype::DType;
    use crate::facts::{Bounds, Relation, Require};
    use crate::graph::{Graph, State};
    use crate::kernel_program::ReduceOp;
    use crate::scalar::ScalarOp;
    use crate::tensor::Tensor;
    use crate::{Dim, Symbol, TensorType};

    fn sample() -> Graph {
        let mut g = Graph::new("sample \"quoted\"");
        g.facts.bound(Symbol::new("B"), Bounds::default());
        g.facts.bound(Symbol::new("past len"), Bounds { low: 0, high: Some(2048), multiple_of: 8 });
        g.facts.require(Require {
            lhs: Dim::symbol("B"),
            relation: Relation::AtMost,
            rhs: Dim::Const(64),
            origin: "--dim".into(),
        });
        g.set_location(&["/a/MatMul".into()]);
        let x = g.input(
            "x",
            TensorType::new(
                DType::F32,
                [Dim::symbol("B"), Dim::symbol("past len") + Dim::ONE, Dim::Const(2)],
            ),
        );
        let w = g.weight("w", Tensor::from_f32(&[1, 2, 2], &[1.0, 2.0, f32::NAN, -0.0]));
        let w = g.expand(w, &[Dim::symbol("B"), Dim::Const(2), Dim::Const(2)]).expect("expands");
        let y = g.matmul(x, w).expect("fits");
        let c = g.constant(Tensor::from_f32(&[1, 1, 2], &[0.25, 7.0]));
        let z = g.scalar(ScalarOp::Add, &[y, c]).expect("fits");
        let r = g.reduce(ReduceOp::Max, z, &[2]).expect("fits");
        g.output("y", r);
        g.output("present", z);
        g.states.push(State { input: 0, output: 1, capacity: Some(Dim::Const(2048)), axis: 1 });
        g
    }

    #[test]
    fn text_round_trips() {
        let g = sample();
        let text = super::print_with_weights(&g, 64);
        let back = super::parse(&text).expect("reads back");
        assert_eq!(super::print_with_weights(&back, 64), text);
        assert_eq!(back.facts, g.facts);
        assert_eq!(back.states, g.states);
        crate::infer::verify(&back).expect("verifies");
    }

    #[test]
    fn errors_name_the_line() {
        for (text, want) in [
            ("graph \"g\" {\n  %0 = no_such_op : f32[]\n}", "line 2"),
            ("graph \"g\" {\n  %0 = input name=x ty=\"f32[4]\"\n  %1 = exp %7\n}", "line 3"),
            (
                "graph \"g\" {\n  %0 = input name=x ty=\"f32[4]\"\n  %1 = exp %0 : f32[5]\n}",
                "line 3",
            ),
            ("nonsense", "line 1"),
            ("graph \"g\" {", "closing"),
        ] {
            let error = super::parse(text).expect_err(text).to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
