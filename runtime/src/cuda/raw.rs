//! Owners of driver objects, and the only unsafe code of the device.
//!
//! Knows nothing of plans. Every call goes to the thread's current context,
//! so whoever starts work calls [`Context::enter`] first; owners do so when
//! they are dropped. Device addresses are numbers for the driver alone: a
//! wrong one makes the driver answer an error and reaches no host memory.
//! Nothing here records or waits on events per buffer: one stream at a time
//! orders an instance's work, which capture into graphs needs.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::{DriverError, result, sys};
use smallvec::SmallVec;

use super::error::DriverFault;

/// Describes an answer of the driver.
fn fault(call: &'static str) -> impl Fn(DriverError) -> DriverFault {
    move |error| {
        let text = |found: Result<&std::ffi::CStr, DriverError>| {
            found.map_or_else(|_| "unknown".to_owned(), |t| t.to_string_lossy().into_owned())
        };
        DriverFault {
            call,
            code: error.0 as u32,
            name: text(error.error_name()),
            text: text(error.error_string()),
        }
    }
}

/// True when the driver's library loads.
pub(super) fn is_present() -> bool {
    // SAFETY: opens and closes the library and calls nothing in it.
    unsafe { sys::is_culib_present() }
}

/// Starts the driver; its version as 1000 × major + 10 × minor. Only after [`is_present`].
pub(super) fn start() -> Result<u32, DriverFault> {
    result::init().map_err(fault("cuInit"))?;
    let mut version = 0;
    // SAFETY: writes one integer to the given place.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(fault("cuDriverGetVersion"))?;
    Ok(version.unsigned_abs())
}

/// Number of GPUs. Only after [`start`].
pub(super) fn device_count() -> Result<u32, DriverFault> {
    result::device::get_count().map(i32::unsigned_abs).map_err(fault("cuDeviceGetCount"))
}

/// A GPU, by its number. Only after [`start`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Gpu(sys::CUdevice);

impl Gpu {
    pub(super) fn get(ordinal: u32) -> Result<Gpu, DriverFault> {
        result::device::get(ordinal as i32).map(Gpu).map_err(fault("cuDeviceGet"))
    }

    pub(super) fn name(self) -> Result<String, DriverFault> {
        result::device::get_name(self.0).map_err(fault("cuDeviceGetName"))
    }

    pub(super) fn memory_bytes(self) -> Result<u64, DriverFault> {
        // SAFETY: the device comes from cuDeviceGet.
        let bytes = unsafe { result::device::total_mem(self.0) };
        bytes.map(|b| b as u64).map_err(fault("cuDeviceTotalMem"))
    }

    fn attribute(self, which: sys::CUdevice_attribute) -> Result<u32, DriverFault> {
        // SAFETY: the device comes from cuDeviceGet.
        let value = unsafe { result::device::get_attribute(self.0, which) };
        value.map(i32::unsigned_abs).map_err(fault("cuDeviceGetAttribute"))
    }

    /// Major and minor compute capability.
    pub(super) fn capability(self) -> Result<(u32, u32), DriverFault> {
        use sys::CUdevice_attribute as A;
        Ok((
            self.attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            self.attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ))
    }

    /// Bytes of shared memory that a block may ask for.
    pub(super) fn shared_bytes(self) -> Result<u32, DriverFault> {
        self.attribute(
            sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        )
    }
}

/// The primary context of a GPU, shared with other users of the process.
#[derive(Debug)]
pub(super) struct Context {
    gpu: Gpu,
    raw: sys::CUcontext,
}

// SAFETY: a context may be current in any number of threads at a time.
unsafe impl Send for Context {}
// SAFETY: as above; the handle itself never changes.
unsafe impl Sync for Context {}

impl Context {
    pub(super) fn retain(gpu: Gpu) -> Result<Arc<Context>, DriverFault> {
        // SAFETY: the device comes from cuDeviceGet; drop releases what is retained here.
        let raw = unsafe { result::primary_ctx::retain(gpu.0) };
        raw.map(|raw| Arc::new(Context { gpu, raw })).map_err(fault("cuDevicePrimaryCtxRetain"))
    }

    /// Makes this the calling thread's context.
    pub(super) fn enter(&self) -> Result<(), DriverFault> {
        // SAFETY: the context is retained while self lives.
        unsafe { result::ctx::set_current(self.raw) }.map_err(fault("cuCtxSetCurrent"))
    }

    /// Free and total bytes of the GPU.
    pub(super) fn memory_info() -> Result<(u64, u64), DriverFault> {
        result::mem_get_info()
            .map(|(free, total)| (free as u64, total as u64))
            .map_err(fault("cuMemGetInfo"))
    }

    /// Enters for a destructor: true when driver calls may follow.
    fn leave(&self) -> bool {
        self.enter().is_ok()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: balances the retain of the constructor. An error here has
        // no one to go to.
        let _ = unsafe { result::primary_ctx::release(self.gpu.0) };
    }
}

/// Device memory.
#[derive(Debug)]
pub(super) struct Block {
    context: Arc<Context>,
    address: u64,
    bytes: usize,
}

impl Block {
    /// Uninitialised memory; of zero bytes without a call.
    pub(super) fn new(context: &Arc<Context>, bytes: usize) -> Result<Block, DriverFault> {
        let address = match bytes {
            0 => 0,
            // SAFETY: the memory is only reached through its address, by the device.
            _ => unsafe { result::malloc_sync(bytes) }.map_err(fault("cuMemAlloc"))?,
        };
        Ok(Block { context: Arc::clone(context), address, bytes })
    }

    pub(super) fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.bytes > 0 && self.context.leave() {
            // SAFETY: allocated by the constructor, freed once.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

/// Page-locked host memory, for copies that the GPU makes by itself.
#[derive(Debug)]
pub(super) struct Pinned {
    context: Arc<Context>,
    start: *mut u8,
    bytes: usize,
}

// SAFETY: plain memory that only its owner reaches.
unsafe impl Send for Pinned {}
// SAFETY: shared references only read it.
unsafe impl Sync for Pinned {}

impl Pinned {
    pub(super) fn new(context: &Arc<Context>, bytes: usize) -> Result<Pinned, DriverFault> {
        let start = match bytes {
            0 => std::ptr::NonNull::dangling().as_ptr(),
            _ => {
                // SAFETY: given to drop, and zeroed before any reference to it is made.
                let start =
                    unsafe { result::malloc_host(bytes, 0) }.map_err(fault("cuMemHostAlloc"))?;
                // SAFETY: the driver gave `bytes` writable bytes.
                unsafe { start.cast::<u8>().write_bytes(0, bytes) };
                start.cast()
            }
        };
        Ok(Pinned { context: Arc::clone(context), start, bytes })
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: `bytes` initialised bytes that live as long as self; copies
        // of the device into it are awaited before it is read.
        unsafe { std::slice::from_raw_parts(self.start, self.bytes) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the reference is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.bytes > 0 && self.context.leave() {
            // SAFETY: allocated by the constructor, freed once.
            let _ = unsafe { result::free_host(self.start.cast()) };
        }
    }
}

/// Loaded code.
#[derive(Debug)]
pub(super) struct Module {
    context: Arc<Context>,
    raw: sys::CUmodule,
}

// SAFETY: modules may be used from any thread in which their context is current.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

/// An entry of a module that its owner keeps loaded, and how many pointers it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    raw: sys::CUfunction,
    arguments: usize,
}

// SAFETY: functions may be launched from any thread in which their context is current.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Module {
    /// Loads machine code (an ELF image) or PTX text.
    pub(super) fn load(context: &Arc<Context>, image: &[u8]) -> Result<Module, DriverFault> {
        let mut ended = image.to_vec();
        ended.push(0);
        // SAFETY: the driver reads text up to the final zero, and machine
        // code as far as its own headers say; engine files are digest-checked,
        // so these are what the compiler wrote.
        let raw = unsafe { result::module::load_data(ended.as_ptr().cast()) };
        raw.map(|raw| Module { context: Arc::clone(context), raw })
            .map_err(fault("cuModuleLoadData"))
    }

    /// An entry that takes this many pointers; `None` when the module has none of the name.
    pub(super) fn function(
        &self,
        name: &str,
        arguments: usize,
    ) -> Result<Option<Function>, DriverFault> {
        let Ok(name) = CString::new(name) else { return Ok(None) };
        // SAFETY: the module is loaded while self lives.
        match unsafe { result::module::get_function(self.raw, name) } {
            Ok(raw) => Ok(Some(Function { raw, arguments })),
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_NOT_FOUND => Ok(None),
            Err(e) => Err(fault("cuModuleGetFunction")(e)),
        }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.leave() {
            // SAFETY: loaded by the constructor, unloaded once.
            let _ = unsafe { result::module::unload(self.raw) };
        }
    }
}

impl Function {
    /// Shared memory that the code itself declares.
    pub(super) fn static_shared_bytes(self) -> Result<u32, DriverFault> {
        let which = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        // SAFETY: the function's module stays loaded while the engine lives.
        let bytes = unsafe { result::function::get_function_attribute(self.raw, which) };
        bytes.map(i32::unsigned_abs).map_err(fault("cuFuncGetAttribute"))
    }

    /// Allows this much dynamic shared memory at launch.
    pub(super) fn allow_shared(self, bytes: u32) -> Result<(), DriverFault> {
        let which = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: as above.
        unsafe { result::function::set_function_attribute(self.raw, which, bytes as i32) }
            .map_err(fault("cuFuncSetAttribute"))
    }
}

/// A stream that somebody owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHandle(sys::CUstream);

// SAFETY: streams may be used from any thread in which their context is current.
unsafe impl Send for StreamHandle {}
// SAFETY: as above.
unsafe impl Sync for StreamHandle {}

impl StreamHandle {
    /// A caller's `CUstream` (or `cudaStream_t`, the same handle); null is the default stream.
    ///
    /// # Safety
    /// The stream belongs to the primary context of the engine's GPU and
    /// outlives every run that is given it.
    #[must_use]
    pub unsafe fn from_raw(stream: *mut c_void) -> StreamHandle {
        StreamHandle(stream.cast())
    }

    /// The default stream, which needs no owner.
    pub(super) fn default_stream() -> StreamHandle {
        StreamHandle(result::stream::null())
    }

    /// Waits until everything submitted has run.
    pub(super) fn synchronize(self) -> Result<(), DriverFault> {
        // SAFETY: the stream lives, by its constructor's contract.
        unsafe { result::stream::synchronize(self.0) }.map_err(fault("cuStreamSynchronize"))
    }

    pub(super) fn is_capturing(self) -> Result<bool, DriverFault> {
        // SAFETY: as above.
        let status = unsafe { result::stream::is_capturing(self.0) };
        let none = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        status.map(|s| s != none).map_err(fault("cuStreamIsCapturing"))
    }

    /// Copies to the device. `from` may change when the call returns, unless
    /// it is [`Pinned`]: then when the stream has come past it.
    pub(super) fn copy_in(self, to: u64, from: &[u8]) -> Result<(), DriverFault> {
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: from pageable memory the driver has taken the bytes when the
        // call returns; the owner of pinned memory waits before changing it.
        unsafe { result::memcpy_htod_async(to, from, self.0) }.map_err(fault("cuMemcpyHtoDAsync"))
    }

    /// Copies to the host and waits.
    pub(super) fn copy_out(self, to: &mut [u8], from: u64) -> Result<(), DriverFault> {
        if !to.is_empty() {
            // SAFETY: the destination is borrowed until the copy has been awaited below.
            unsafe { result::memcpy_dtoh_async(to, from, self.0) }
                .map_err(fault("cuMemcpyDtoHAsync"))?;
        }
        self.synchronize()
    }

    /// Copies within the device.
    pub(super) fn copy(self, to: u64, from: u64, bytes: usize) -> Result<(), DriverFault> {
        // SAFETY: touches device memory only.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.0) }
            .map_err(fault("cuMemcpyDtoDAsync"))
    }

    /// Sets device memory to zero.
    pub(super) fn zero(self, at: u64, bytes: usize) -> Result<(), DriverFault> {
        // SAFETY: touches device memory only.
        unsafe { result::memset_d8_async(at, 0, bytes, self.0) }.map_err(fault("cuMemsetD8Async"))
    }

    /// Launches a kernel whose arguments are all pointers.
    pub(super) fn launch(
        self,
        function: Function,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        pointers: &[u64],
    ) -> Result<(), DriverFault> {
        assert_eq!(pointers.len(), function.arguments, "the engine binds every argument");
        let mut parameters: SmallVec<[*mut c_void; 32]> =
            pointers.iter().map(|p| std::ptr::from_ref(p).cast_mut().cast()).collect();
        // SAFETY: the driver copies one 8-byte value per parameter before it
        // returns; the count is the kernel's, checked above.
        unsafe {
            result::launch_kernel(
                function.raw,
                grid.into(),
                block.into(),
                shared_bytes,
                self.0,
                &mut parameters,
            )
        }
        .map_err(fault("cuLaunchKernel"))
    }

    pub(super) fn wait(self, event: &Event) -> Result<(), DriverFault> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: stream and event live.
        unsafe { result::stream::wait_event(self.0, event.raw, flags) }
            .map_err(fault("cuStreamWaitEvent"))
    }

    pub(super) fn replay(self, graph: &Graph) -> Result<(), DriverFault> {
        // SAFETY: stream and graph live; the driver keeps what a running graph needs.
        unsafe { result::graph::launch(graph.raw, self.0) }.map_err(fault("cuGraphLaunch"))
    }
}

/// A stream of our own, independent of the default stream.
#[derive(Debug)]
pub(super) struct Stream {
    context: Arc<Context>,
    handle: StreamHandle,
}

impl Stream {
    pub(super) fn new(context: &Arc<Context>) -> Result<Stream, DriverFault> {
        let kind = result::stream::StreamKind::NonBlocking;
        let raw = result::stream::create(kind).map_err(fault("cuStreamCreate"))?;
        Ok(Stream { context: Arc::clone(context), handle: StreamHandle(raw) })
    }

    pub(super) fn handle(&self) -> StreamHandle {
        self.handle
    }

    /// Records what `submit` does to the stream instead of running it.
    pub(super) fn capture<E: From<DriverFault>>(
        &self,
        submit: impl FnOnce(StreamHandle) -> Result<(), E>,
    ) -> Result<Graph, E> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives.
        unsafe { result::stream::begin_capture(self.handle.0, mode) }
            .map_err(fault("cuStreamBeginCapture"))?;
        let submitted = submit(self.handle);
        // SAFETY: the stream lives and is being captured.
        let graph = unsafe { result::stream::end_capture(self.handle.0) };
        let graph = match (submitted, graph) {
            (Ok(()), graph) => graph.map_err(fault("cuStreamEndCapture"))?,
            (Err(error), graph) => {
                if let Ok(graph) = graph {
                    // SAFETY: the graph was just made and is used by nobody.
                    let _ = unsafe { result::graph::destroy(graph) };
                }
                return Err(error);
            }
        };
        // SAFETY: the graph was just made.
        let raw = unsafe { result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)) };
        // SAFETY: executable graphs do not need the graph that they come from.
        let _ = unsafe { result::graph::destroy(graph) };
        let raw = raw.map_err(fault("cuGraphInstantiate"))?;
        Ok(Graph { context: Arc::clone(&self.context), raw })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.context.leave() {
            // SAFETY: made by the constructor, destroyed once.
            let _ = unsafe { result::stream::destroy(self.handle.0) };
        }
    }
}

/// An executable graph.
#[derive(Debug)]
pub(super) struct Graph {
    context: Arc<Context>,
    raw: sys::CUgraphExec,
}

// SAFETY: the owner launches it from one thread at a time, any thread.
unsafe impl Send for Graph {}
// SAFETY: nothing reaches it through a shared reference but launches of its one owner.
unsafe impl Sync for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.context.leave() {
            // SAFETY: instantiated once, destroyed once; the driver defers it while the graph runs.
            let _ = unsafe { result::graph::exec_destroy(self.raw) };
        }
    }
}

/// A point in a stream.
#[derive(Debug)]
pub(super) struct Event {
    context: Arc<Context>,
    raw: sys::CUevent,
}

// SAFETY: events may be used from any thread in which their context is current.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    pub(super) fn new(context: &Arc<Context>) -> Result<Event, DriverFault> {
        let raw = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        let raw = raw.map_err(fault("cuEventCreate"))?;
        Ok(Event { context: Arc::clone(context), raw })
    }

    pub(super) fn record(&self, stream: StreamHandle) -> Result<(), DriverFault> {
        // SAFETY: event and stream live.
        unsafe { result::event::record(self.raw, stream.0) }.map_err(fault("cuEventRecord"))
    }

    /// Waits until the recorded point has been reached.
    pub(super) fn synchronize(&self) -> Result<(), DriverFault> {
        // SAFETY: the event lives.
        unsafe { result::event::synchronize(self.raw) }.map_err(fault("cuEventSynchronize"))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.context.leave() {
            // SAFETY: made by the constructor, destroyed once.
            let _ = unsafe { result::event::destroy(self.raw) };
        }
    }
}

/// Device memory of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevicePtr<'a> {
    address: u64,
    bytes: usize,
    shape: &'a [usize],
}

impl<'a> DevicePtr<'a> {
    /// Memory of `bytes` bytes at a device address, holding a dense row-major tensor of these extents.
    /// For an output the extents may be empty: the plan says them.
    ///
    /// # Safety
    /// The memory belongs to the engine's GPU and stays valid until the runs
    /// that are given it have finished on their stream; nobody else writes it
    /// meanwhile, and nobody reads outputs before.
    #[must_use]
    pub unsafe fn from_raw(address: u64, bytes: usize, shape: &'a [usize]) -> DevicePtr<'a> {
        DevicePtr { address, bytes, shape }
    }

    /// The device address.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes of the memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Extents of the tensor in it.
    #[must_use]
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }
}
