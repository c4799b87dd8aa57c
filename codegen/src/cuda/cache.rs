//! Compiled programs on disk, shared by compilations: equal text, options and NVRTC give equal bytes.
//!
//! Knows nothing of kernels. An entry that cannot be read is no entry: a cache never fails a compilation.
//! Entries are written beside their place and renamed, so that readers see whole files only.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::nvrtc::{Compiled, NvrtcVersion, Program};

const MAGIC: &[u8; 8] = b"tgc-cu1\n";
const HASH_BYTES: usize = 32;

/// Digest of everything that decides a program's compiled bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProgramKey([u8; HASH_BYTES]);

impl ProgramKey {
    /// Key of a program under one NVRTC version.
    pub fn of(program: &Program, version: NvrtcVersion) -> ProgramKey {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        add(&version.to_string());
        add(&program.name);
        add(&program.source);
        program.options().iter().for_each(|option| add(option));
        for (name, text) in &program.headers {
            add(name);
            add(text);
        }
        ProgramKey(*hasher.finalize().as_bytes())
    }
}

impl std::fmt::Display for ProgramKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A folder of compiled programs.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// A cache in `folder`, which is made at the first write.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Cache {
        Cache { folder: folder.into() }
    }

    /// The stored program, or `None` when it is absent, cut short or altered.
    pub fn read(&self, key: ProgramKey) -> Option<Compiled> {
        let bytes = fs::read(self.path(key)).ok()?;
        decode(&bytes, key)
    }

    /// Stores a program. A failure (full disk, no permission) is returned for logging; nothing is left behind.
    ///
    /// # Errors
    /// The file system's error.
    pub fn write(&self, key: ProgramKey, compiled: &Compiled) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let beside = self.folder.join(format!("{key}.{}.part", std::process::id()));
        let written = write_all(&beside, &encode(key, compiled))
            .and_then(|()| fs::rename(&beside, self.path(key)));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }

    fn path(&self, key: ProgramKey) -> PathBuf {
        self.folder.join(format!("{key}.cubin"))
    }
}

fn write_all(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::File::create(path)?.write_all(bytes)
}

/// Magic, key, digest of the rest, length of the JSON part, JSON part, cubin.
fn encode(key: ProgramKey, compiled: &Compiled) -> Vec<u8> {
    let meta = serde_json::to_vec(compiled).expect("strings and integers always have a JSON form");
    let mut body = (meta.len() as u64).to_le_bytes().to_vec();
    body.extend_from_slice(&meta);
    body.extend_from_slice(&compiled.cubin);
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&key.0);
    bytes.extend_from_slice(blake3::hash(&body).as_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn decode(bytes: &[u8], key: ProgramKey) -> Option<Compiled> {
    let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(&key.0)?;
    let (digest, body) = rest.split_at_checked(HASH_BYTES)?;
    if blake3::hash(body).as_bytes() != digest {
        return None;
    }
    let (length, body) = body.split_at_checked(8)?;
    let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let (meta, cubin) = body.split_at_checked(length)?;
    let mut compiled: Compiled = serde_json::from_slice(meta).ok()?;
    compiled.cubin = cubin.to_vec();
    Some(compiled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::nvrtc::KernelReport;

    fn sample() -> (Program, Compiled) {
        let program = Program {
            name: "k.cu".into(),
            source: "int x;".into(),
            arch: "sm_80".into(),
            headers: vec![],
            line_info: false,
        };
        let report = KernelReport {
            name: "k".into(),
            registers: 8,
            spill_bytes: 0,
            stack_bytes: 0,
            shared_bytes: 0,
        };
        let compiled = Compiled {
            ptx: ".version".into(),
            cubin: vec![1, 2, 3],
            log: String::new(),
            kernels: vec![report],
            warnings: vec![],
        };
        (program, compiled)
    }

    #[test]
    fn entries_come_back_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(folder.path().join("kernels"));
        let (program, compiled) = sample();
        let key = ProgramKey::of(&program, NvrtcVersion { major: 13, minor: 0 });
        assert_eq!(cache.read(key), None);
        cache.write(key, &compiled).unwrap();
        assert_eq!(cache.read(key), Some(compiled.clone()));
        let path = cache.path(key);
        let whole = fs::read(&path).unwrap();
        for cut in [0, 10, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(cache.read(key), None, "cut at {cut}");
        }
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(&path, &flipped).unwrap();
        assert_eq!(cache.read(key), None);
    }

    #[test]
    fn key_depends_on_every_part() {
        let (program, _) = sample();
        let v13 = NvrtcVersion { major: 13, minor: 0 };
        let base = ProgramKey::of(&program, v13);
        let mut others = vec![ProgramKey::of(&program, NvrtcVersion { major: 12, minor: 9 })];
        let changes: [fn(&mut Program); 3] = [
            |p| p.arch = "sm_90a".into(),
            |p| p.source.push(' '),
            |p| p.headers.push(("a.cuh".into(), String::new())),
        ];
        for change in changes {
            let mut changed = program.clone();
            change(&mut changed);
            others.push(ProgramKey::of(&changed, v13));
        }
        others.push(base);
        others.sort();
        others.dedup();
        assert_eq!(others.len(), 5);
    }
}
