//! From a path or bytes to a decoded model: memory map, limits, decoding, external data files.
//!
//! Nothing in the file is trusted: lengths and counts are surveyed before decoding, external data stays inside the
//! model's folder after symbolic links are resolved. It knows files and protobuf; it must not know operators or the IR.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use crate::proto::{ModelProto, TensorProto};
use crate::wire::{self, WireError};

/// Bounds on what a model may ask for; [`Limits::default`] admits every model met so far with room to spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Protobuf messages in the file (a node of a large exported model makes about 10).
    pub messages: usize,
    /// Depth of nested protobuf messages; three levels make one nested graph.
    pub depth: usize,
    /// Nodes after function calls are inlined and loops of known count are unrolled.
    pub nodes: usize,
    /// Bytes that import may allocate for tensors that are not byte ranges of a file.
    pub owned_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { messages: 20_000_000, depth: 64, nodes: 2_000_000, owned_bytes: 1 << 30 }
    }
}

/// Why a file could not be read as a model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    #[error("cannot read `{path}`: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{path}` is not a readable ONNX model: {source}")]
    Wire { path: PathBuf, source: WireError },
    #[error("`{path}` is not a readable ONNX model: {source}")]
    Decode { path: PathBuf, source: prost::DecodeError },
    #[error("`{path}` is empty")]
    Empty { path: PathBuf },
    #[error("`{path}` holds no graph: it is not an ONNX model")]
    NoGraph { path: PathBuf },
    #[error("`{path}` has IR version {found}; versions 3 to 14 are supported")]
    IrVersion { path: PathBuf, found: i64 },
}

impl LoadError {
    /// The stable code of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "E2001",
            Self::Wire { .. } | Self::Decode { .. } | Self::Empty { .. } | Self::NoGraph { .. } => {
                "E2002"
            }
            Self::IrVersion { .. } => "E2003",
        }
    }
}

/// A decoded model and the folder that its external data must lie in.
#[derive(Debug)]
pub struct Model {
    /// The decoded messages; byte fields point into the file.
    pub proto: ModelProto,
    /// The path or a name, for messages.
    pub path: PathBuf,
    /// Bytes of the file itself.
    pub file_bytes: usize,
    limits: Limits,
    folder: Option<PathBuf>,
}

impl Model {
    /// The limits the model was loaded under.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The external data files of this model, none opened yet.
    #[must_use]
    pub fn external_files(&self) -> ExternalFiles {
        ExternalFiles { folder: self.folder.clone(), open: BTreeMap::new() }
    }
}

/// Maps and decodes the model at `path`; external data is looked for in the same folder.
///
/// # Errors
/// [`LoadError`] when the file cannot be read, is no ONNX model, or passes a limit.
pub fn load(path: &Path) -> Result<Model, LoadError> {
    let bytes = map(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    decode(bytes, path, Some(parent), Limits::default())
}

/// Decodes a model from bytes. `name` stands in messages; external data is refused unless `folder` is given.
///
/// # Errors
/// [`LoadError`] when the bytes are no ONNX model or pass a limit.
pub fn decode(
    bytes: Bytes,
    name: &Path,
    folder: Option<&Path>,
    limits: Limits,
) -> Result<Model, LoadError> {
    let path = name.to_owned();
    if bytes.is_empty() {
        return Err(LoadError::Empty { path });
    }
    let file_bytes = bytes.len();
    wire::survey(&bytes, limits.messages, limits.depth)
        .map_err(|source| LoadError::Wire { path: path.clone(), source })?;
    let proto = ModelProto::decode(bytes)
        .map_err(|source| LoadError::Decode { path: path.clone(), source })?;
    if proto.graph.is_none() {
        return Err(LoadError::NoGraph { path });
    }
    if !(3..=14).contains(&proto.ir_version) {
        return Err(LoadError::IrVersion { path, found: proto.ir_version });
    }
    Ok(Model { proto, path, file_bytes, limits, folder: folder.map(Path::to_owned) })
}

/// Maps a file read-only. An empty file gives empty bytes.
fn map(path: &Path) -> std::io::Result<Bytes> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if metadata.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is private and read-only and is never handed out mutably. Should another process shorten the file
    // while it is mapped, reads can fault; every tool that maps model files shares that limit.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}

/// Why a tensor's external data was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExternalError {
    #[error("its external data names no `location`")]
    NoLocation,
    #[error("its external data path `{location}` is not a plain path inside the model's folder")]
    Escapes { location: String },
    #[error(
        "the model was given as bytes, so its external data `{location}` has no folder to lie in"
    )]
    NoFolder { location: String },
    #[error("its external data file `{location}` cannot be read: {source}")]
    Read { location: String, source: std::io::Error },
    #[error("its external data gives `{key}` as `{value}`, which is not a byte count")]
    BadNumber { key: String, value: String },
    #[error(
        "its external data asks for bytes {offset}..{end} of `{location}`, which has {file_bytes}"
    )]
    Range { location: String, offset: u64, end: u128, file_bytes: usize },
}

/// Opens external data files of one model, each mapped once.
#[derive(Debug)]
pub struct ExternalFiles {
    folder: Option<PathBuf>,
    open: BTreeMap<String, Bytes>,
}

impl ExternalFiles {
    /// The byte range that `tensor` names. `expected_bytes` is used when the entry gives no length.
    ///
    /// # Errors
    /// [`ExternalError`] when the path leaves the folder, the file cannot be read, or the range leaves the file.
    pub fn read(
        &mut self,
        tensor: &TensorProto,
        expected_bytes: usize,
    ) -> Result<Bytes, ExternalError> {
        let entry = |key: &str| {
            tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str())
        };
        let location = entry("location").ok_or(ExternalError::NoLocation)?;
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(value) => match value.trim().parse::<u64>() {
                Ok(n) => Ok(Some(n)),
                Err(_) => {
                    Err(ExternalError::BadNumber { key: key.to_owned(), value: value.to_owned() })
                }
            },
        };
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.unwrap_or(expected_bytes as u64);
        let file = self.open(location)?;
        let end = u128::from(offset) + u128::from(length);
        if end > file.len() as u128 {
            let file_bytes = file.len();
            return Err(ExternalError::Range {
                location: location.to_owned(),
                offset,
                end,
                file_bytes,
            });
        }
        // Both fit in usize: the end is at most the length of the file.
        Ok(file.slice(offset as usize..end as usize))
    }

    fn open(&mut self, location: &str) -> Result<Bytes, ExternalError> {
        if let Some(bytes) = self.open.get(location) {
            return Ok(bytes.clone());
        }
        let folder = self
            .folder
            .as_ref()
            .ok_or_else(|| ExternalError::NoFolder { location: location.to_owned() })?;
        let path = contained(folder, location)?;
        let bytes = map(&path)
            .map_err(|source| ExternalError::Read { location: location.to_owned(), source })?;
        self.open.insert(location.to_owned(), bytes.clone());
        Ok(bytes)
    }
}

/// `folder/location`, if that is a file reached without `..`, absolute parts or symbolic links out of the folder.
fn contained(folder: &Path, location: &str) -> Result<PathBuf, ExternalError> {
    let escapes = || ExternalError::Escapes { location: location.to_owned() };
    let read = |source| ExternalError::Read { location: location.to_owned(), source };
    let relative = Path::new(location);
    let plain =
        relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if location.is_empty() || location.contains(['\0', '\\']) || !plain {
        return Err(escapes());
    }
    let root = folder.canonicalize().map_err(read)?;
    let mut path = root.clone();
    for part in relative.components().filter(|c| matches!(c, Component::Normal(_))) {
        path.push(part);
        if path.symlink_metadata().map_err(read)?.file_type().is_symlink() {
            return Err(escapes());
        }
    }
    let path = path.canonicalize().map_err(read)?;
    if path.starts_with(&root) { Ok(path) } else { Err(escapes()) }
}

/// For tensors that stand alone: external data has no folder.
pub(crate) fn no_external_files() -> ExternalFiles {
    ExternalFiles { folder: None, open: BTreeMap::new() }
}
