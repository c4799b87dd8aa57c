//! The lowest PTX version a text needs, so that older drivers can load it.
//!
//! NVRTC stamps its own newest version; rewriting the `.version` line to the version that the target
//! and the instructions need lets drivers back to CUDA 11.4 read the same text. Versions are those of
//! the "PTX ISA Notes" of each instruction in the PTX ISA manual; `ptxas` accepts the result.

/// A PTX ISA version, major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PtxVersion(pub u32, pub u32);

impl std::fmt::Display for PtxVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Version that introduced each target.
const TARGETS: [(&str, PtxVersion); 9] = [
    ("sm_80", PtxVersion(7, 0)),
    ("sm_86", PtxVersion(7, 1)),
    ("sm_87", PtxVersion(7, 4)),
    ("sm_89", PtxVersion(7, 8)),
    ("sm_90", PtxVersion(7, 8)),
    ("sm_90a", PtxVersion(8, 0)),
    ("sm_100a", PtxVersion(8, 6)),
    ("sm_120", PtxVersion(8, 7)),
    ("sm_120a", PtxVersion(8, 7)),
];

/// Pieces of instruction text with the version that introduced them; everything else is 7.0 or older.
const FEATURES: [(&str, PtxVersion); 20] = [
    ("min.xorsign", PtxVersion(7, 2)),
    ("alloca", PtxVersion(7, 3)),
    ("L1::", PtxVersion(7, 4)),
    ("L2::", PtxVersion(7, 4)),
    ("createpolicy", PtxVersion(7, 4)),
    ("bmsk", PtxVersion(7, 6)),
    ("szext", PtxVersion(7, 6)),
    ("cvta.param", PtxVersion(7, 7)),
    ("shared::", PtxVersion(7, 8)),
    ("griddepcontrol", PtxVersion(7, 8)),
    ("stmatrix", PtxVersion(7, 8)),
    ("mbarrier.try_wait", PtxVersion(7, 8)),
    ("clusterid", PtxVersion(7, 8)),
    ("ex2.approx.ftz.bf16", PtxVersion(7, 8)),
    ("wgmma", PtxVersion(8, 0)),
    ("setmaxnreg", PtxVersion(8, 0)),
    ("cp.async.bulk", PtxVersion(8, 0)),
    ("used_bytes_mask", PtxVersion(8, 3)),
    ("tcgen05", PtxVersion(8, 6)),
    (".v8.", PtxVersion(8, 8)),
];

/// The text with source files named without their folders: NVRTC puts the folder of its process before names
/// of texts in memory, and the same program has the same text everywhere.
pub fn without_folders(ptx: &str) -> String {
    let file = |line: &str| -> Option<String> {
        let (number, path) = line.trim_start().strip_prefix(".file")?.split_once('"')?;
        let name = path.rsplit('/').next()?;
        Some(format!("\t.file{number}\"{name}"))
    };
    ptx.split_inclusive('\n').map(|line| file(line).unwrap_or_else(|| line.to_owned())).collect()
}

/// The lowest version that this text needs; `None` when its target is not in the table.
pub fn needed_ptx_version(ptx: &str) -> Option<PtxVersion> {
    let target = ptx.lines().find_map(|line| line.trim().strip_prefix(".target"))?;
    let target = target.split([',', ' ', '\t']).find(|word| !word.is_empty())?;
    let base = TARGETS.iter().find(|(name, _)| *name == target)?.1;
    let code = ptx.lines().map(|line| line.split("//").next().unwrap_or(""));
    Some(code.fold(base, |needed, line| {
        let features = FEATURES.iter().filter(|(text, _)| line.contains(text));
        features.map(|(_, version)| *version).fold(needed, PtxVersion::max)
    }))
}

/// The same text with the lowest `.version` it needs; unchanged when the target is unknown.
pub fn lower_ptx_version(ptx: &str) -> String {
    let Some(version) = needed_ptx_version(ptx) else { return ptx.to_owned() };
    let mut lowered = String::with_capacity(ptx.len());
    for line in ptx.lines() {
        if line.trim_start().starts_with(".version") {
            lowered.push_str(&format!(".version {version}"));
        } else {
            lowered.push_str(line);
        }
        lowered.push('\n');
    }
    lowered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_follows_target_and_instructions() {
        let text = "// a comment with wgmma\n.version 9.0\n.target sm_80\n{ld.global.nc.L1::no_allocate.v4.u32 x;}\n";
        assert_eq!(needed_ptx_version(text), Some(PtxVersion(7, 4)));
        assert!(lower_ptx_version(text).contains("\n.version 7.4\n"));
        assert_eq!(needed_ptx_version(".target sm_90a\n"), Some(PtxVersion(8, 0)));
        assert_eq!(needed_ptx_version(".target sm_999\n"), None);
    }
}
