//! Findings: each fault once, with where it happened and how often.

use std::collections::BTreeMap;
use std::fmt;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// An access outside every allocation, or outside shared or local memory.
    OutOfBounds,
    /// An address that is not a multiple of the access's size.
    Misaligned,
    /// Global memory that nothing has written.
    UninitialisedGlobal,
    /// Shared memory that nothing has written.
    UninitialisedShared,
    /// Two accesses to shared memory of which one writes, with nothing that orders them.
    SharedRace,
    /// Shared memory touched while an asynchronous copy or product still uses it.
    AsyncHazard,
    /// An asynchronous access to what plain stores wrote, without a proxy fence between.
    MissingProxyFence,
    /// Blocks touch the same global memory and one writes, with nothing that orders them.
    GlobalRace,
    /// An instruction of a whole warp or block reached by a part of it.
    Divergence,
    /// Nothing can go on.
    Deadlock,
    /// Asynchronous work that nobody waited for when the kernel ended.
    UnfinishedAsync,
    /// An mbarrier used against its rules.
    Mbarrier,
    /// A tensor map, or a copy, that the hardware refuses.
    TensorMap,
    /// A matrix descriptor that the hardware refuses.
    Descriptor,
    /// More instructions than the launch allows.
    StepLimit,
    /// The kernel executed `trap`.
    Trap,
    /// An instruction used in a way that PTX leaves undefined.
    Undefined,
}

impl FindingKind {
    /// A short name that does not change.
    pub fn name(self) -> &'static str {
        match self {
            FindingKind::OutOfBounds => "out-of-bounds",
            FindingKind::Misaligned => "misaligned",
            FindingKind::UninitialisedGlobal => "uninitialised-global",
            FindingKind::UninitialisedShared => "uninitialised-shared",
            FindingKind::SharedRace => "shared-race",
            FindingKind::AsyncHazard => "async-hazard",
            FindingKind::MissingProxyFence => "missing-proxy-fence",
            FindingKind::GlobalRace => "global-race",
            FindingKind::Divergence => "divergence",
            FindingKind::Deadlock => "deadlock",
            FindingKind::UnfinishedAsync => "unfinished-async",
            FindingKind::Mbarrier => "mbarrier",
            FindingKind::TensorMap => "tensor-map",
            FindingKind::Descriptor => "descriptor",
            FindingKind::StepLimit => "step-limit",
            FindingKind::Trap => "trap",
            FindingKind::Undefined => "undefined",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A line of the CUDA source, known when the text was compiled with `-lineinfo`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourcePlace {
    /// File as the compiler named it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Where the function with that line was inlined.
    pub inlined_at: Option<(String, u32)>,
}

impl fmt::Display for SourcePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        match &self.inlined_at {
            Some((file, line)) => write!(f, " (inlined at {file}:{line})"),
            None => Ok(()),
        }
    }
}

/// Where a thread was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Block in the grid.
    pub block: [u32; 3],
    /// Thread in the block.
    pub thread: [u32; 3],
    /// Line of the PTX text.
    pub ptx_line: u32,
    /// Line of the CUDA source.
    pub source: Option<SourcePlace>,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (b, t) = (self.block, self.thread);
        write!(
            f,
            "block ({}, {}, {}) thread ({}, {}, {}), PTX line {}",
            b[0], b[1], b[2], t[0], t[1], t[2], self.ptx_line
        )?;
        match &self.source {
            Some(source) => write!(f, ", {source}"),
            None => Ok(()),
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind.
    pub kind: FindingKind,
    /// Kernel that was running.
    pub kernel: String,
    /// Where it was first seen.
    pub site: Site,
    /// The other access, of a race.
    pub other: Option<Site>,
    /// What happened, in words.
    pub message: String,
    /// How often it was seen.
    pub count: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.kind, self.message)?;
        write!(f, "  kernel `{}`, {}", self.kernel, self.site)?;
        if let Some(other) = &self.other {
            write!(f, "\n  the other access: {other}")?;
        }
        if self.count > 1 {
            write!(f, "\n  seen {} times", self.count)?;
        }
        Ok(())
    }
}

/// What makes two sightings the same fault: kind and both instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: FindingKind,
    pub(crate) pc: u32,
    pub(crate) other_pc: Option<u32>,
}

/// A sighting before its lines are looked up.
#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    /// Gang that saw it first: the order of findings.
    pub(crate) gang: u64,
    pub(crate) block: [u32; 3],
    pub(crate) thread: [u32; 3],
    pub(crate) other: Option<([u32; 3], [u32; 3])>,
    pub(crate) message: String,
    pub(crate) count: u64,
}

/// Findings of one worker.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) seen: BTreeMap<Key, Sighting>,
    /// The gang that is running.
    pub(crate) gang: u64,
}

impl Findings {
    /// Adds a sighting; its words are made only for the first.
    pub(crate) fn add(&mut self, key: Key, first: impl FnOnce() -> Sighting) {
        self.seen.entry(key).and_modify(|s| s.count += 1).or_insert_with(first);
    }

    /// Joins what another worker found; the earlier gang's words stay.
    pub(crate) fn merge(&mut self, other: Findings) {
        for (key, sighting) in other.seen {
            match self.seen.get_mut(&key) {
                None => {
                    self.seen.insert(key, sighting);
                }
                Some(mine) => {
                    let count = mine.count + sighting.count;
                    if sighting.gang < mine.gang {
                        *mine = sighting;
                    }
                    mine.count = count;
                }
            }
        }
    }
}
