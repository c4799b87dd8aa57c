//! What can go wrong on the cuda device.

use tgc_ir::bind::BindError;
use tgc_ir::dim::DimError;

/// Lowest driver interface that has every call in use (CUDA 11.4).
pub(super) const DRIVER_MIN: u32 = 11_040;

/// An answer of the driver other than success, with its own name and text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the CUDA driver answers {call} with {name} ({code}): {text}")]
pub struct DriverFault {
    /// What was asked.
    pub call: &'static str,
    /// Number of the error.
    pub code: u32,
    /// The driver's name of it.
    pub name: String,
    /// The driver's text.
    pub text: String,
}

/// An error of the cuda device.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// The driver's library does not load.
    #[error("no CUDA driver is here: libcuda.so.1 does not load")]
    NoDriver,
    /// The driver lacks calls that are needed.
    #[error("the CUDA driver speaks version {found}, {needed} is needed; install a newer driver")]
    OldDriver {
        /// Version of the driver: 1000 × major + 10 × minor.
        found: u32,
        /// Lowest usable version.
        needed: u32,
    },
    /// There is no GPU of this number.
    #[error("there is no GPU {ordinal}: the driver sees {count}")]
    NoDevice {
        /// Wanted GPU.
        ordinal: u32,
        /// GPUs that the driver sees.
        count: u32,
    },
    /// Kernels of the plan's target do not run on this GPU.
    #[error(
        "the plan is for {target}, the GPU `{gpu}` has compute capability {}.{}; compile with --target {wanted}",
        .capability.0, .capability.1
    )]
    Target {
        /// Target of the plan.
        target: String,
        /// Name of the GPU.
        gpu: String,
        /// Major and minor.
        capability: (u32, u32),
        /// A target that fits.
        wanted: String,
    },
    /// A unit was never compiled.
    #[error(
        "{unit} holds neither machine code nor PTX: the engine was compiled without NVRTC; compile it again where `tgc doctor` finds NVRTC"
    )]
    NoCode {
        /// Name of the unit.
        unit: String,
    },
    /// The driver takes neither the machine code nor the PTX of a unit.
    #[error("{unit} does not load: {cubin}{}", .ptx.as_ref().map_or(String::new(), |p| format!("; its PTX neither: {p}")))]
    Load {
        /// Name of the unit.
        unit: String,
        /// Answer to the machine code, or to the PTX when there is no machine code.
        cubin: Box<DriverFault>,
        /// Answer to the PTX that stands in for refused machine code.
        ptx: Option<Box<DriverFault>>,
    },
    /// The driver refuses a call.
    #[error(transparent)]
    Driver(#[from] DriverFault),
    /// The plan says something that its own language does not allow.
    #[error("{what} of the plan is malformed: {why}")]
    Malformed {
        /// Which part.
        what: String,
        /// Why.
        why: String,
    },
    /// Wrong number of something.
    #[error("{what}: {expected} are expected, {found} were given")]
    Count {
        /// `inputs`, `outputs`, `weights` or `states`.
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
    /// The inputs' extents do not fit the signature or its constraints.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A size cannot be computed from the bound symbols.
    #[error("a size of {what} cannot be computed: {source}")]
    Dim {
        /// Of what.
        what: String,
        /// Why.
        source: DimError,
    },
    /// The allowed memory is too small.
    #[error("{needed} bytes of GPU memory are needed, {limit} are allowed")]
    Limit {
        /// Bytes for weights and one instance.
        needed: u64,
        /// Allowed bytes.
        limit: u64,
    },
    /// The GPU has too little memory left.
    #[error("{needed} bytes of GPU memory are needed for {what}, {free} of {total} are free")]
    OutOfMemory {
        /// For what.
        what: &'static str,
        /// Bytes asked for.
        needed: u64,
        /// Bytes left.
        free: u64,
        /// Bytes of the GPU.
        total: u64,
    },
    /// A kernel cannot be launched with these sizes.
    #[error("kernel `{kernel}` cannot be launched: {why}")]
    Launch {
        /// Name of the kernel.
        kernel: String,
        /// Why.
        why: String,
    },
    /// A copy between buffers that no driver copy can do.
    #[error("`{from}` cannot be copied to `{to}`: {why}")]
    Copy {
        /// Name of the source.
        from: String,
        /// Name of the destination.
        to: String,
        /// Why.
        why: String,
    },
    /// A caller's pointer does not fit.
    #[error("the memory given for `{name}` does not fit: {why}")]
    Pointer {
        /// Input or output.
        name: String,
        /// Why.
        why: String,
    },
    /// States are missing or used without having been asked for.
    #[error("states: {0}")]
    State(String),
    /// The caller's stream records a graph.
    #[error(
        "the stream is being captured; run outside the capture, the device replays a graph of its own"
    )]
    Capturing,
}

/// The part of a plan that breaks the rules of plans.
pub(super) fn malformed(what: impl Into<String>, why: impl Into<String>) -> CudaError {
    CudaError::Malformed { what: what.into(), why: why.into() }
}
