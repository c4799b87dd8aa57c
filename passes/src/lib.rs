//! Rewriting: pass table and manager, canonical form, folding, equality
//! saturation with rules as data, extraction, and the hub steps that patterns
//! cannot say (attention by structure, sibling contractions).
//!
//! Absent here: ONNX, kernels, devices, the environment, the clock. What a
//! kernel costs comes in as a [`tgc_ir::cost::CostModel`].

pub mod attention;
pub mod canon;
pub mod cost;
pub mod egraph;
pub mod fold;
pub mod pass;
pub mod rules;
pub mod siblings;

pub use pass::{Context, Observer, PASSES, Pass, PassError, run_passes};
