//! NVRTC, NVIDIA's run-time compiler, behind `Result`: CUDA C++ text in, PTX, cubin and the assembler's report out.
//!
//! Knows nothing of kernel programs, of the environment or of where NVRTC lies: the caller passes
//! folders. Needs neither a GPU nor a driver. Programs compile independently and from many threads.

mod library;
mod ptx;
mod report;

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use library::Functions;
pub use ptx::{PtxVersion, lower_ptx_version, needed_ptx_version, without_folders};
pub use report::{KernelReport, parse_log};
use serde::{Deserialize, Serialize};

/// Why NVRTC could not be loaded or refused a program.
#[derive(Debug, thiserror::Error)]
pub enum NvrtcError {
    /// No folder held a loadable `libnvrtc`.
    #[error(
        "NVRTC was not found (searched: {})\n  help: `pip install --no-deps --target FOLDER nvidia-cuda-nvrtc==13.0.88` and name FOLDER",
        searched.join(", ")
    )]
    NotFound {
        /// Folders and library names that were tried, in order, each with its failure.
        searched: Vec<String>,
    },
    /// The library lacks a function that every NVRTC since 11.2 has.
    #[error("{path} is not a usable NVRTC: it lacks {function}")]
    MissingFunction {
        /// The library file.
        path: String,
        /// The C name that was looked up.
        function: &'static str,
    },
    /// The program does not compile; the log is the compiler's own text.
    #[error("{name} does not compile for {arch}:\n{log}")]
    Rejected {
        /// Program name as passed to NVRTC.
        name: String,
        /// Target architecture, for example `sm_90a`.
        arch: String,
        /// Compiler and assembler messages.
        log: String,
    },
    /// A call failed for a reason that is not in the program's text.
    #[error("{function} failed: {reason}")]
    Call {
        /// The C name of the function.
        function: &'static str,
        /// NVRTC's own description of its error code.
        reason: String,
    },
    /// The text cannot be handed to C.
    #[error("{what} holds a NUL byte")]
    NulByte {
        /// Which text it was.
        what: &'static str,
    },
}

/// Version of a loaded NVRTC; part of every cache key, because code generation differs between versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NvrtcVersion {
    /// CUDA major version.
    pub major: u32,
    /// CUDA minor version.
    pub minor: u32,
}

impl std::fmt::Display for NvrtcVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One translation unit to compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Name shown in messages, for example `engine_3.cu`.
    pub name: String,
    /// CUDA C++ text.
    pub source: String,
    /// `sm_80`, `sm_90a` … for PTX and cubin, `compute_80` … for PTX only.
    pub arch: String,
    /// In-memory headers: name as included, text.
    pub headers: Vec<(String, String)>,
    /// Instructions name their lines of the text.
    pub line_info: bool,
}

impl Program {
    /// The exact option list of this program; together with source, headers and NVRTC version it decides the output bytes.
    ///
    /// Silenced remarks: unreachable loops and unused variables of generated code, unsigned values compared
    /// with zero in templates. Contraction is off: kernels write `fma` where they mean it, so that the text decides the rounding.
    pub fn options(&self) -> Vec<String> {
        let mut options = vec![
            format!("-arch={}", self.arch),
            "-std=c++17".to_owned(),
            "-default-device".to_owned(),
            "--fmad=false".to_owned(),
            "--diag-suppress=128,177,186".to_owned(),
        ];
        if self.arch.starts_with("sm_") {
            options.push("--ptxas-options=-v".to_owned());
        }
        if self.line_info {
            options.push("--generate-line-info".to_owned());
        }
        options
    }
}

/// What one program compiled to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiled {
    /// PTX text as NVRTC wrote it (see [`lower_ptx_version`]).
    pub ptx: String,
    /// Machine code; empty when the architecture was a virtual one.
    #[serde(skip)]
    pub cubin: Vec<u8>,
    /// Messages of compiler and assembler, without lines that hold times.
    pub log: String,
    /// Assembler figures per kernel, in the order of the log; empty for a virtual architecture.
    pub kernels: Vec<KernelReport>,
    /// The assembler's performance warnings (C75xx), one line each.
    pub warnings: Vec<String>,
}

impl Compiled {
    /// Bytes spilled to local memory over all kernels of the program.
    pub fn spill_bytes(&self) -> u32 {
        self.kernels.iter().map(|kernel| kernel.spill_bytes).sum()
    }

    /// The largest register count of a kernel of the program.
    pub fn registers(&self) -> u32 {
        self.kernels.iter().map(|kernel| kernel.registers).max().unwrap_or(0)
    }
}

/// A loaded NVRTC.
#[derive(Debug)]
pub struct Nvrtc {
    functions: Functions,
    version: NvrtcVersion,
    path: PathBuf,
}

impl Nvrtc {
    /// Loads the first NVRTC found in `folders`, in order.
    ///
    /// A folder may hold the library itself or be the root of a Python `--target` installation or of a
    /// CUDA toolkit. An empty path asks the system's loader for the library by name.
    ///
    /// # Errors
    /// [`NvrtcError::NotFound`] with everything that was tried, [`NvrtcError::MissingFunction`].
    pub fn load(folders: &[PathBuf]) -> Result<Nvrtc, NvrtcError> {
        let (functions, path) = library::open(folders)?;
        let (mut major, mut minor): (c_int, c_int) = (0, 0);
        // SAFETY: both pointers are valid for writes during the call.
        let code = unsafe { (functions.version)(&mut major, &mut minor) };
        functions.check("nvrtcVersion", code)?;
        let version = NvrtcVersion { major: major.unsigned_abs(), minor: minor.unsigned_abs() };
        Ok(Nvrtc { functions, version, path })
    }

    /// Version reported by the library.
    pub fn version(&self) -> NvrtcVersion {
        self.version
    }

    /// The library file, or its bare name when the system's loader found it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Compiles one program.
    ///
    /// # Errors
    /// [`NvrtcError::Rejected`] carries the compiler's log; the other kinds name the call that failed.
    pub fn compile(&self, program: &Program) -> Result<Compiled, NvrtcError> {
        let handle = Handle::create(&self.functions, program)?;
        let outcome = handle.compile(&program.options())?;
        let log = report::without_times(&handle.log()?);
        if !outcome {
            return Err(NvrtcError::Rejected {
                name: program.name.clone(),
                arch: program.arch.clone(),
                log,
            });
        }
        let (kernels, warnings) = parse_log(&log);
        Ok(Compiled { ptx: handle.ptx()?, cubin: handle.cubin()?, log, kernels, warnings })
    }
}

/// An `nvrtcProgram`, destroyed when dropped.
struct Handle<'a> {
    functions: &'a Functions,
    raw: *mut c_void,
}

fn c_string(text: &str, what: &'static str) -> Result<CString, NvrtcError> {
    CString::new(text).map_err(|_| NvrtcError::NulByte { what })
}

type SizeFn = unsafe extern "C" fn(*mut c_void, *mut usize) -> c_int;
type BytesFn = unsafe extern "C" fn(*mut c_void, *mut c_char) -> c_int;

impl<'a> Handle<'a> {
    fn create(functions: &'a Functions, program: &Program) -> Result<Handle<'a>, NvrtcError> {
        let source = c_string(&program.source, "the source")?;
        let name = c_string(&program.name, "the program name")?;
        let headers: Vec<(CString, CString)> = program
            .headers
            .iter()
            .map(|(name, text)| Ok((c_string(name, "a header name")?, c_string(text, "a header")?)))
            .collect::<Result<_, NvrtcError>>()?;
        let texts: Vec<*const c_char> = headers.iter().map(|(_, text)| text.as_ptr()).collect();
        let names: Vec<*const c_char> = headers.iter().map(|(name, _)| name.as_ptr()).collect();
        let mut raw = std::ptr::null_mut();
        // SAFETY: all strings are NUL-terminated and outlive the call, and NVRTC copies them;
        // the arrays hold `headers.len()` pointers each.
        let code = unsafe {
            (functions.create)(
                &mut raw,
                source.as_ptr(),
                name.as_ptr(),
                c_int::try_from(headers.len()).unwrap_or(c_int::MAX),
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        functions.check("nvrtcCreateProgram", code)?;
        Ok(Handle { functions, raw })
    }

    /// True when the program compiled, false when its text was refused.
    fn compile(&self, options: &[String]) -> Result<bool, NvrtcError> {
        const REFUSED: c_int = 6;
        let options: Vec<CString> =
            options.iter().map(|option| c_string(option, "an option")).collect::<Result<_, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let count = c_int::try_from(pointers.len()).unwrap_or(c_int::MAX);
        // SAFETY: `raw` came from nvrtcCreateProgram and is alive; the array holds `count` C strings.
        let code = unsafe { (self.functions.compile)(self.raw, count, pointers.as_ptr()) };
        if code == REFUSED {
            return Ok(false);
        }
        self.functions.check("nvrtcCompileProgram", code)?;
        Ok(true)
    }

    fn log(&self) -> Result<String, NvrtcError> {
        let bytes =
            self.bytes("nvrtcGetProgramLog", self.functions.log_size, self.functions.log)?;
        Ok(text_of(&bytes))
    }

    fn ptx(&self) -> Result<String, NvrtcError> {
        let bytes = self.bytes("nvrtcGetPTX", self.functions.ptx_size, self.functions.ptx)?;
        Ok(text_of(&bytes))
    }

    fn cubin(&self) -> Result<Vec<u8>, NvrtcError> {
        self.bytes("nvrtcGetCUBIN", self.functions.cubin_size, self.functions.cubin)
    }

    fn bytes(
        &self,
        function: &'static str,
        size: SizeFn,
        copy: BytesFn,
    ) -> Result<Vec<u8>, NvrtcError> {
        let mut length = 0usize;
        // SAFETY: `raw` is alive and `length` is valid for writes.
        self.functions.check(function, unsafe { size(self.raw, &mut length) })?;
        let mut bytes = vec![0u8; length];
        if length > 0 {
            // SAFETY: the buffer holds the `length` bytes that NVRTC announced.
            self.functions.check(function, unsafe { copy(self.raw, bytes.as_mut_ptr().cast()) })?;
        }
        Ok(bytes)
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        // SAFETY: `raw` came from nvrtcCreateProgram and is destroyed once.
        unsafe { (self.functions.destroy)(&mut self.raw) };
    }
}

/// Text of a NUL-terminated buffer.
fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
