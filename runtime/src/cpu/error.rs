//! What can go wrong on the cpu device.

use tgc_ir::DType;
use tgc_ir::dim::DimError;

/// An error of the cpu device.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// A size cannot be computed from the bound symbols.
    #[error("a size of kernel `{kernel}` cannot be computed: {source}")]
    Dim {
        /// Name of the kernel, or of the plan's part.
        kernel: String,
        /// Why.
        source: DimError,
    },
    /// The program says something that its own language does not allow.
    #[error("kernel `{kernel}` is malformed: {why}")]
    Malformed {
        /// Name of the kernel.
        kernel: String,
        /// Why.
        why: String,
    },
    /// A kernel would touch memory outside a buffer.
    #[error(
        "kernel `{kernel}` reaches element {element} of argument {argument}, which has {elements}"
    )]
    OutOfBounds {
        /// Name of the kernel.
        kernel: String,
        /// Which argument.
        argument: usize,
        /// Element reached.
        element: i64,
        /// Elements that exist.
        elements: i64,
    },
    /// Wrong number of inputs or weights.
    #[error("{what}: the plan has {expected}, {found} were given")]
    Count {
        /// `inputs` or `weights`.
        what: &'static str,
        /// Number in the plan.
        expected: usize,
        /// Number given.
        found: usize,
    },
    /// An input has another type than the signature says.
    #[error("input `{name}` is {expected}, {found} was given")]
    InputType {
        /// Name in the model.
        name: String,
        /// Declared type.
        expected: String,
        /// Given type.
        found: String,
    },
    /// A constraint of the plan does not hold for the given inputs.
    #[error("the inputs break `{require}`, which {origin} needs")]
    Require {
        /// The constraint.
        require: String,
        /// Who asks for it.
        origin: String,
    },
    /// A symbol is outside its declared bounds.
    #[error("`{symbol}` is {value}, outside {low}..={high}")]
    Bounds {
        /// Name.
        symbol: String,
        /// Value of this run.
        value: i64,
        /// Smallest allowed.
        low: i64,
        /// Largest allowed, or `any`.
        high: String,
    },
    /// The device cannot store elements of this type.
    #[error("elements of type {dtype} cannot be addressed one by one in kernel `{kernel}`")]
    Packed {
        /// Name of the kernel.
        kernel: String,
        /// The type.
        dtype: DType,
    },
    /// Memory beyond what can be addressed or was allowed.
    #[error("{bytes} bytes are needed for {what}")]
    Memory {
        /// For what.
        what: &'static str,
        /// How many, or the formula.
        bytes: String,
    },
    /// The operating system refused a thread.
    #[error("cannot start worker threads: {0}")]
    Threads(#[from] std::io::Error),
    /// A loop or branch reads a predicate that is no single bool.
    #[error("step {step} of the plan is malformed: {why}")]
    Step {
        /// Which.
        step: String,
        /// Why.
        why: String,
    },
}
