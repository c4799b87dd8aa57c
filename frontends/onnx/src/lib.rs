//! ONNX import for tgc: from a `.onnx` file to a typed graph.
//!
//! [`load()`] maps and decodes a file (weights stay byte ranges of the map), [`import()`] checks, infers and decomposes it
//! into [`tgc_ir::Graph`]. Every problem of a model is reported at once, with the node, operator, domain, opset and operand
//! types. An operator is one entry of a table under `ops/`; [`operators()`] lists them.
//!
//! Shape arithmetic is evaluated while importing: integer tensors whose elements follow from the shapes of inputs are
//! arrays of symbolic dims and leave no node behind. Nothing in a file is trusted: lengths, counts, nesting and external
//! paths are checked, and no input makes the importer panic.
//!
//! The crate knows ONNX and the IR. It knows no rewrite rule, no kernel and no device, and it reads no environment.

mod attr;
mod cx;
mod diag;
mod emit;
mod import;
mod known;
mod load;
mod ops;
mod opset;
pub mod proto;
mod region;
mod repeat;
mod settle;
mod signature;
mod symbols_of;
mod tensors;
mod value;
mod wire;

pub use attr::AttrError;
pub use diag::{Code, Diagnostic, ImportErrors, NodeRef};
pub use import::{Imported, Options, import, import_with};
pub use load::{ExternalError, ExternalFiles, Limits, LoadError, Model, decode, load};
pub use ops::operators;
pub use tensors::{ReadTensorError, read_tensor_pb};
pub use wire::WireError;
