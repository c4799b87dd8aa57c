//! The engine file: one safetensors file with graph, plans, kernels, weights
//! and provenance. Written beside and renamed; mapped and checked on load.
//!
//! Layout: 8-byte length, JSON header, tensors; every section that is mapped
//! starts at a multiple of 64 bytes (padding tensors fill gaps, because the
//! format allows no holes). The last tensor, `digest`, is the BLAKE3 hash of
//! everything before it, so that a cut or altered file is refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use tgc_ir::dtype::DType;
use tgc_ir::plan::Plan;
use tgc_ir::tensor::Tensor;

/// Format name and version, in the header.
pub const FORMAT: &str = "tgc.engine/1";
const ALIGN: usize = 64;

/// A compiled model.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    /// What made it, and from what.
    pub provenance: Provenance,
    /// The optimised graph, in text, weights left out.
    pub graph: String,
    /// Weights and literals that plans refer to by index.
    pub weights: Vec<Tensor>,
    /// One plan per target.
    pub plans: BTreeMap<String, Plan>,
    /// Generated files by path (`sm_90a/contract_0.cu`, `.cubin`, `.ptx`).
    pub files: BTreeMap<String, Bytes>,
}

/// Where an engine comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of tgc.
    pub tgc: String,
    /// Name of the model.
    pub model: String,
    /// Options that change the result.
    pub options: BTreeMap<String, String>,
    /// Version of NVRTC, when kernels were compiled.
    pub nvrtc: Option<String>,
    /// What verification did.
    pub verification: Verification,
}

/// What verification compared when the engine was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// One line per comparison.
    pub checks: Vec<String>,
    /// What was not reached, and why.
    pub not_reached: Vec<String>,
}

/// An engine file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The file system said no.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// Read or write.
        action: &'static str,
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The contents are not what was written.
    #[error("{path} is no intact engine: {why}; compile the model again")]
    Damaged {
        /// File.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// There is no plan for a target.
    #[error("the engine holds no plan for `{target}`; it holds {found}")]
    NoTarget {
        /// Wanted target.
        target: String,
        /// Targets in the file.
        found: String,
    },
}

/// Safetensors name and element type of a dtype; packed and unusual ones are bytes.
fn storage(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "BOOL",
        DType::I8 => "I8",
        DType::I16 => "I16",
        DType::U16 => "U16",
        DType::I32 => "I32",
        DType::U32 => "U32",
        DType::I64 => "I64",
        DType::U64 => "U64",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::F32 => "F32",
        DType::F64 => "F64",
        _ => "U8",
    }
}

#[derive(Serialize)]
struct Entry {
    dtype: &'static str,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// What the header says of weights beyond safetensors' own types.
#[derive(Serialize, Deserialize)]
struct WeightMeta {
    dtype: DType,
    shape: Vec<usize>,
}

impl Engine {
    /// The bytes of the file; equal engines give equal bytes.
    ///
    /// # Errors
    /// When a plan has no text form, which is a fault of ours.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut sections: Vec<(String, &'static str, Vec<usize>, Bytes)> = Vec::new();
        let mut text = |name: String, bytes: Vec<u8>| {
            let len = bytes.len();
            sections.push((name, "U8", vec![len], bytes.into()));
        };
        text("provenance".into(), serde_json::to_vec(&self.provenance)?);
        text("graph".into(), self.graph.clone().into_bytes());
        let metas: Vec<WeightMeta> = self
            .weights
            .iter()
            .map(|w| WeightMeta { dtype: w.dtype(), shape: w.shape().to_vec() })
            .collect();
        text("weights".into(), serde_json::to_vec(&metas)?);
        for (target, plan) in &self.plans {
            text(format!("plan/{target}"), serde_json::to_vec(plan)?);
        }
        for (path, bytes) in &self.files {
            sections.push((format!("file/{path}"), "U8", vec![bytes.len()], bytes.clone()));
        }
        for (i, weight) in self.weights.iter().enumerate() {
            let is_native = storage(weight.dtype()) != "U8" || weight.dtype() == DType::U8;
            let shape =
                if is_native { weight.shape().to_vec() } else { vec![weight.bytes().len()] };
            sections.push((
                format!("weight/{i:06}"),
                storage(weight.dtype()),
                shape,
                weight.bytes().clone(),
            ));
        }
        lay_out(&sections)
    }

    /// Writes the file beside its place and renames it.
    ///
    /// # Errors
    /// [`EngineError::Io`]; the place keeps what it had.
    pub fn write(&self, path: &Path) -> Result<u64, EngineError> {
        let io = |source| EngineError::Io { action: "write", path: path.to_owned(), source };
        let bytes = self.to_bytes().map_err(|e| io(e.into()))?;
        write_beside(path, &bytes).map_err(io)?;
        Ok(bytes.len() as u64)
    }

    /// Maps and checks a file.
    ///
    /// # Errors
    /// [`EngineError`] naming what is damaged.
    pub fn load(path: &Path) -> Result<Engine, EngineError> {
        let io = |source| EngineError::Io { action: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            return Err(EngineError::Damaged { path: path.to_owned(), why: "it is empty".into() });
        }
        // SAFETY: the map is read-only and private; a file that another
        // process cuts while it is mapped can raise SIGBUS, as for every
        // mapped file.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        let bytes = Bytes::from_owner(map);
        Engine::from_bytes(&bytes)
            .map_err(|why| EngineError::Damaged { path: path.to_owned(), why })
    }

    /// Reads the bytes of a file; weights stay slices of them.
    ///
    /// # Errors
    /// What does not fit.
    pub fn from_bytes(bytes: &Bytes) -> Result<Engine, String> {
        let body = bytes.len().checked_sub(32).ok_or("it is too short")?;
        if *blake3::hash(&bytes[..body]).as_bytes() != bytes[body..] {
            return Err("its digest does not match its contents".into());
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let part = |name: &str| -> Result<Bytes, String> {
            let view = tensors.tensor(name).map_err(|_| format!("section `{name}` is missing"))?;
            Ok(bytes.slice_ref(view.data()))
        };
        let metas: Vec<WeightMeta> =
            serde_json::from_slice(&part("weights")?).map_err(|e| e.to_string())?;
        let weights = metas
            .into_iter()
            .enumerate()
            .map(|(i, m)| {
                Tensor::new(m.dtype, m.shape, part(&format!("weight/{i:06}"))?)
                    .map_err(|e| e.to_string())
            })
            .collect::<Result<_, _>>()?;
        let mut engine = Engine {
            provenance: serde_json::from_slice(&part("provenance")?).map_err(|e| e.to_string())?,
            graph: String::from_utf8(part("graph")?.to_vec()).map_err(|e| e.to_string())?,
            weights,
            ..Engine::default()
        };
        for name in tensors.names() {
            if let Some(target) = name.strip_prefix("plan/") {
                let plan = serde_json::from_slice(&part(name)?)
                    .map_err(|e| format!("plan of {target}: {e}"))?;
                engine.plans.insert(target.to_owned(), plan);
            } else if let Some(path) = name.strip_prefix("file/") {
                engine.files.insert(path.to_owned(), part(name)?);
            }
        }
        Ok(engine)
    }

    /// The plan of a target.
    ///
    /// # Errors
    /// [`EngineError::NoTarget`] with the targets there are.
    pub fn plan(&self, target: &str) -> Result<&Plan, EngineError> {
        self.plans.get(target).ok_or_else(|| EngineError::NoTarget {
            target: target.to_owned(),
            found: self.plans.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }
}

/// Header and data of sections, padded and followed by the digest.
fn lay_out(
    sections: &[(String, &'static str, Vec<usize>, Bytes)],
) -> Result<Vec<u8>, serde_json::Error> {
    let mut header: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    header.insert("__metadata__".into(), serde_json::json!({ "format": FORMAT }));
    let mut at = 0usize;
    let mut pads = Vec::new();
    for (i, (name, dtype, shape, bytes)) in sections.iter().enumerate() {
        let pad = at.next_multiple_of(ALIGN) - at;
        pads.push(pad);
        if pad > 0 {
            let entry = Entry { dtype: "U8", shape: vec![pad], data_offsets: [at, at + pad] };
            header.insert(format!("pad/{i:06}"), serde_json::to_value(entry)?);
            at += pad;
        }
        let entry = Entry { dtype, shape: shape.clone(), data_offsets: [at, at + bytes.len()] };
        header.insert(name.clone(), serde_json::to_value(entry)?);
        at += bytes.len();
    }
    let entry = Entry { dtype: "U8", shape: vec![32], data_offsets: [at, at + 32] };
    header.insert("digest".into(), serde_json::to_value(entry)?);
    let mut text = serde_json::to_vec(&header)?;
    // Data starts at a multiple of 64 bytes of the file.
    text.resize((text.len() + 8).next_multiple_of(ALIGN) - 8, b' ');
    let mut out = Vec::with_capacity(text.len() + at + 40);
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(&text);
    for ((_, _, _, bytes), pad) in sections.iter().zip(pads) {
        out.resize(out.len() + pad, 0);
        out.extend_from_slice(bytes);
    }
    let digest = blake3::hash(&out);
    out.extend_from_slice(digest.as_bytes());
    Ok(out)
}

/// Writes to a file beside `path`, then renames it into place.
///
/// # Errors
/// From the file system; nothing is left beside.
pub fn write_beside(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let name =
        path.file_name().map_or_else(|| "engine".into(), |n| n.to_string_lossy().into_owned());
    let beside = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let written =
        File::create(&beside).and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()));
    let result = written.and_then(|()| std::fs::rename(&beside, path));
    if result.is_err() {
        // The first error is the one worth reporting.
        drop(std::fs::remove_file(&beside));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Engine {
        Engine {
            graph: "graph \"g\" {\n}\n".into(),
            weights: vec![
                Tensor::from_f32(&[3], &[1.0, 2.0, 3.0]),
                Tensor::from_values(DType::I4, &[3], &[1, -2, 3].map(tgc_ir::scalar::Value::Int)),
                Tensor::zeros(DType::F32, &[0, 4]),
            ],
            files: BTreeMap::from([("sm_80/a.cu".to_owned(), Bytes::from_static(b"text"))]),
            ..Engine::default()
        }
    }

    #[test]
    fn engines_round_trip_aligned() {
        let bytes = Bytes::from(sample().to_bytes().expect("serialises"));
        let back = Engine::from_bytes(&bytes).expect("reads");
        assert_eq!(back.weights, sample().weights);
        assert_eq!(back.files, sample().files);
        assert_eq!(back.to_bytes().expect("serialises"), bytes);
        let offset = back.weights[0].bytes().as_ptr() as usize - bytes.as_ptr() as usize;
        assert_eq!(offset % ALIGN, 0);
    }

    #[test]
    fn damage_is_found_everywhere() {
        let bytes = sample().to_bytes().expect("serialises");
        for at in (0..bytes.len()).step_by(7) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert!(Engine::from_bytes(&Bytes::from(flipped)).is_err(), "flip at {at}");
        }
        for len in [0, 7, 31, bytes.len() / 2, bytes.len() - 1] {
            assert!(
                Engine::from_bytes(&Bytes::copy_from_slice(&bytes[..len])).is_err(),
                "cut at {len}"
            );
        }
    }
}
