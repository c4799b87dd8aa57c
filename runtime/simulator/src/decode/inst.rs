//! The compact form of instructions that warps execute.
//!
//! Operands are slots of the register file; constants and special registers have slots too, so that fetching
//! an operand never asks what it is.

use crate::exec::alu::AluOp;
use crate::ptx::ast::Type;

/// No slot, no guard.
pub(crate) const NONE: u32 = u32::MAX;
/// Slot of each class that takes results nobody reads.
pub(crate) const SINK: u32 = 0;

/// One instruction. What `extra` and `offset` hold is said at each [`Op`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inst {
    pub(crate) op: Op,
    /// Slot of a predicate times two, plus one when it is negated; or [`NONE`].
    pub(crate) guard: u32,
    pub(crate) d: u32,
    pub(crate) a: u32,
    pub(crate) b: u32,
    pub(crate) c: u32,
    pub(crate) extra: u32,
    pub(crate) offset: i32,
}

/// Address spaces of memory instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Global,
    Shared,
    /// Shared memory of any block of the cluster.
    Cluster,
    Local,
    Generic,
}

/// What a load or store moves per lane. Registers: `d` when one, else a list at `extra`; address in `a`
/// plus `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) window: Window,
    /// Of one element.
    pub(crate) bytes: u8,
    /// Elements.
    pub(crate) count: u8,
    /// Extends the sign into a wider register.
    pub(crate) signed: bool,
    /// Registers have 64 bits.
    pub(crate) wide: bool,
    /// The address register has 64 bits.
    pub(crate) far: bool,
    /// `volatile`, `relaxed` and stronger: no data race by itself.
    pub(crate) strong: bool,
}

impl Access {
    /// Bytes of all elements.
    pub(crate) fn size(self) -> u32 {
        u32::from(self.bytes) * u32::from(self.count)
    }
}

/// What an atomic does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "names are those of PTX")]
pub(crate) enum AtomicKind {
    Add,
    Inc,
    Dec,
    And,
    Or,
    Xor,
    Min,
    Max,
    Exchange,
    CompareSwap,
}

/// An atomic or a reduction: `d` old value (sink for `red`), `a` address, `b` operand, `c` second operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Atomic {
    pub(crate) kind: AtomicKind,
    pub(crate) ty: Type,
    pub(crate) window: Window,
    pub(crate) far: bool,
    /// Orders what stood before it, as a release does.
    pub(crate) release: bool,
    /// Orders what stands after it, as an acquire does.
    pub(crate) acquire: bool,
    /// Elements in a list at `extra` when more than one.
    pub(crate) count: u8,
}

/// How lanes of a shuffle choose their source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "names are those of PTX")]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

/// Votes over a warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "names are those of PTX")]
pub(crate) enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

/// Reductions over a warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "names are those of PTX")]
pub(crate) enum Reduction {
    Add,
    MinU,
    MaxU,
    MinS,
    MaxS,
    And,
    Or,
    Xor,
}

/// Shape and element types of an `mma.sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mma {
    pub(crate) k: u8,
    pub(crate) a: Type,
    pub(crate) b: Type,
    /// Accumulators: f32, f16, s32 or f64.
    pub(crate) d: Type,
    pub(crate) saturates: bool,
}

/// Shape and operands of a `wgmma.mma_async`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wgmma {
    pub(crate) n: u16,
    pub(crate) a: Type,
    pub(crate) b: Type,
    pub(crate) d: Type,
    pub(crate) a_in_registers: bool,
    pub(crate) a_transposed: bool,
    pub(crate) b_transposed: bool,
    pub(crate) negate: (bool, bool),
}

/// Operations on mbarrier objects; the address is `a` plus `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mbarrier {
    /// `b` arrivals.
    Init,
    Inval,
    /// `d` state, `b` arrivals or [`NONE`], `c` expected bytes or [`NONE`].
    Arrive {
        drop: bool,
    },
    /// `b` bytes.
    ExpectTx,
    /// `b` bytes.
    CompleteTx,
    /// `d` predicate, `b` state (64 bits) or parity; `blocks`: the warp may be suspended.
    Wait {
        parity: bool,
        blocks: bool,
    },
    /// `d` count, `b` state.
    PendingCount,
}

/// A bulk copy of the async proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bulk {
    /// Global to shared, completing bytes on an mbarrier: `d` destination, `a` source, `b` bytes, `c` mbarrier.
    Load {
        multicast: bool,
    },
    /// Shared to global, in a bulk group: `d` destination, `a` source, `b` bytes.
    Store,
    /// Shared to shared of another block, completing bytes there.
    ToCluster,
    /// Tensor to shared: `d` destination, `a` tensor map, `c` mbarrier, list at `extra`: coordinates, then
    /// im2col offsets, then the multicast mask.
    TensorLoad {
        rank: u8,
        im2col: bool,
        multicast: bool,
    },
    /// Shared to tensor: `d` tensor map, `a` source, coordinates at `extra`.
    TensorStore {
        rank: u8,
        im2col: bool,
        reduction: Option<AtomicKind>,
    },
    Commit,
    /// Until at most `a` groups are under way; `read`: only until their sources were read.
    Wait {
        read: bool,
    },
    PrefetchTensor,
}

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Nop,
    Alu(AluOp),
    /// `bfi`, with the length's slot in `extra`.
    InsertField {
        wide: bool,
    },
    /// A comparison into `d` and `offset` (its negation, or [`SINK`]), combined with predicate `c`.
    Compare {
        row: AluOp,
        combine: Combine,
        negated: bool,
    },
    /// `mov` of a wide value into the parts listed at `extra`; `part` bits each.
    Unpack {
        part: u8,
        parts: u8,
    },
    /// `mov` of the bytes or halves listed at `extra` into one value.
    Pack {
        part: u8,
        parts: u8,
        wide: bool,
    },
    /// Carries in predicate `c`.
    Carry {
        subtract: bool,
        reads: bool,
        writes: bool,
        wide: bool,
    },
    /// Target in `extra`, meeting point in `c`.
    Branch,
    /// Index in `a`, targets in a list at `extra` of `offset` entries, meeting point in `c`.
    BranchIndexed,
    Exit,
    Trap,
    Load(Access),
    Store(Access),
    /// From the kernel's parameters at `offset`.
    LoadParam(Access),
    Atomic(Atomic),
    Shuffle(Shuffle),
    Vote(Vote),
    /// `match.any` or `match.all` (predicate in `offset`).
    Match {
        all: bool,
        wide: bool,
    },
    Redux(Reduction),
    Elect,
    ActiveMask,
    WarpSync,
    /// Barrier `a` for `b` threads or all; `c` and `d` predicates of a reduction.
    Barrier {
        waits: bool,
        reduction: Option<Vote>,
        aligned: bool,
    },
    ClusterArrive {
        release: bool,
    },
    ClusterWait,
    Fence {
        gpu: bool,
    },
    ProxyFence,
    CpAsync {
        bytes: u8,
        far: bool,
    },
    CpAsyncCommit,
    /// Until at most `a` groups are under way.
    CpAsyncWait,
    CpAsyncWaitAll,
    CpAsyncArrive {
        counted: bool,
    },
    LdMatrix {
        count: u8,
        transposed: bool,
        far: bool,
    },
    StMatrix {
        count: u8,
        transposed: bool,
        far: bool,
    },
    /// Registers of d, a, b, c in a list at `extra`.
    Mma(Mma),
    Mbarrier {
        kind: Mbarrier,
        window: Window,
    },
    Bulk(Bulk),
    /// Registers of d, then of a, in a list at `extra`; descriptors `a`, `b`; predicate `c` scales d;
    /// `offset` bit 0: d is kept always, bit 1: never.
    Wgmma(Wgmma),
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait,
    /// Address of `a` in block `b` of the cluster.
    MapRank {
        far: bool,
    },
    SetMaxRegisters {
        increase: bool,
    },
    /// Counts instructions, since no clock is read.
    Clock {
        wide: bool,
    },
    Sleep,
    /// Whether an address lies in a window.
    IsSpace(Window),
}

/// How a comparison meets a third operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "names are those of PTX")]
pub(crate) enum Combine {
    None,
    And,
    Or,
    Xor,
}

/// Special registers that are rows filled before a block runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "names are those of PTX")]
pub(crate) enum Special {
    Thread(u8),
    Threads(u8),
    Block(u8),
    Blocks(u8),
    Lane,
    Warp,
    Warps,
    WarpSize,
    LaneMask(LaneMask),
    ClusterBlock(u8),
    ClusterBlocks(u8),
    Cluster(u8),
    Clusters(u8),
    ClusterRank,
    ClusterSize,
    IsCluster,
    DynamicShared,
    TotalShared,
    Zero,
}

/// Lanes relative to one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "names are those of PTX")]
pub(crate) enum LaneMask {
    Eq,
    Lt,
    Le,
    Gt,
    Ge,
}
