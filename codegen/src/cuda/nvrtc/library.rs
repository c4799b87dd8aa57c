//! Finds and opens `libnvrtc` and looks its functions up.
//!
//! The builtins library is opened first and for everybody: NVRTC 13.0 carries no RUNPATH and would not
//! find it beside itself (error 7). Both stay open for the life of the process, because NVRTC keeps
//! thread-local state that must not outlive its code.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use libloading::Library;

use super::NvrtcError;

/// Folders below a named one where installations keep the libraries: the folder itself, Python wheels
/// of CUDA 13 and 12, toolkits.
const SUBFOLDERS: [&str; 5] = ["", "nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib", "lib64", "lib"];

/// Names asked of the system's loader, newest first.
const SYSTEM_NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

/// The functions of NVRTC that are used, with the signatures of `nvrtc.h`.
#[derive(Debug)]
pub(super) struct Functions {
    pub(super) version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    pub(super) create: unsafe extern "C" fn(
        *mut *mut c_void,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    pub(super) compile: unsafe extern "C" fn(*mut c_void, c_int, *const *const c_char) -> c_int,
    pub(super) ptx_size: super::SizeFn,
    pub(super) ptx: super::BytesFn,
    pub(super) cubin_size: super::SizeFn,
    pub(super) cubin: super::BytesFn,
    pub(super) log_size: super::SizeFn,
    pub(super) log: super::BytesFn,
    pub(super) destroy: unsafe extern "C" fn(*mut *mut c_void) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
}

impl Functions {
    /// Turns a non-zero code into an error with NVRTC's own words.
    pub(super) fn check(&self, function: &'static str, code: c_int) -> Result<(), NvrtcError> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: nvrtcGetErrorString accepts any code and returns a static C string.
        let text = unsafe { (self.error_string)(code) };
        let reason = if text.is_null() {
            format!("code {code}")
        } else {
            // SAFETY: the pointer is a static NUL-terminated string.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Err(NvrtcError::Call { function, reason })
    }

    fn look_up(library: &Library, path: &Path) -> Result<Functions, NvrtcError> {
        macro_rules! function {
            ($name:literal) => {{
                // SAFETY: the symbol is NVRTC's documented C function and the field's type is its prototype.
                let symbol = unsafe { library.get(concat!($name, "\0").as_bytes()) };
                *symbol.map_err(|_| NvrtcError::MissingFunction {
                    path: path.display().to_string(),
                    function: $name,
                })?
            }};
        }
        Ok(Functions {
            version: function!("nvrtcVersion"),
            create: function!("nvrtcCreateProgram"),
            compile: function!("nvrtcCompileProgram"),
            ptx_size: function!("nvrtcGetPTXSize"),
            ptx: function!("nvrtcGetPTX"),
            cubin_size: function!("nvrtcGetCUBINSize"),
            cubin: function!("nvrtcGetCUBIN"),
            log_size: function!("nvrtcGetProgramLogSize"),
            log: function!("nvrtcGetProgramLog"),
            destroy: function!("nvrtcDestroyProgram"),
            error_string: function!("nvrtcGetErrorString"),
        })
    }
}

/// Opens the first NVRTC of `folders`; an empty path stands for the system's loader.
pub(super) fn open(folders: &[PathBuf]) -> Result<(Functions, PathBuf), NvrtcError> {
    let mut searched = Vec::new();
    for folder in folders {
        let candidates: Vec<PathBuf> = if folder.as_os_str().is_empty() {
            SYSTEM_NAMES.iter().map(PathBuf::from).collect()
        } else {
            SUBFOLDERS
                .iter()
                .flat_map(|sub| libraries_in(&folder.join(sub), "libnvrtc.so"))
                .collect()
        };
        if candidates.is_empty() {
            searched.push(folder.display().to_string());
        }
        for path in candidates {
            match open_with_builtins(&path) {
                Ok(library) => {
                    let functions = Functions::look_up(&library, &path)?;
                    std::mem::forget(library);
                    return Ok((functions, path));
                }
                Err(error) => searched.push(format!("{} ({error})", path.display())),
            }
        }
    }
    Err(NvrtcError::NotFound { searched })
}

/// Files of `folder` whose name starts with `stem`, highest name first.
fn libraries_in(folder: &Path, stem: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(stem))
        })
        .collect();
    found.sort();
    found.reverse();
    found
}

fn open_with_builtins(path: &Path) -> Result<Library, libloading::Error> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        for builtins in libraries_in(folder, "libnvrtc-builtins.so") {
            std::mem::forget(open_for_all(&builtins)?);
        }
    }
    open_for_all(path)
}

#[cfg(unix)]
fn open_for_all(path: &Path) -> Result<Library, libloading::Error> {
    use libloading::os::unix::{Library as UnixLibrary, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the caller named this folder as NVRTC's; its initialisers have no preconditions.
    unsafe { UnixLibrary::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.map(Library::from)
}

#[cfg(not(unix))]
fn open_for_all(path: &Path) -> Result<Library, libloading::Error> {
    // SAFETY: the caller named this folder as NVRTC's; its initialisers have no preconditions.
    unsafe { Library::new(path) }
}
