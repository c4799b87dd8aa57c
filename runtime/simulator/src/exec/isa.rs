//! Instantiates hot loops for the instruction sets of the host, chosen once per launch.
//!
//! This is the one place with unsafe code: calling a function compiled for instructions that were detected.

use super::alu;
use super::lanes::{File, Words};
use super::matrix;
use crate::counters::PcCount;
use crate::decode::inst::{Inst, Mma, NONE, Op, Wgmma};

/// Instruction sets of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// What every host has.
    Base,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The best of this host.
    pub(crate) fn detect() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
                && is_x86_feature_detected!("bmi2");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx512 {
                return Level::Avx512;
            }
            if avx2 {
                return Level::Avx2;
            }
        }
        Level::Base
    }
}

macro_rules! instantiate {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? = $body:path;) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, reason = "a loop's whole state, kept out of memory")]
        pub(crate) fn $name(level: Level, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments, reason = "a loop's whole state, kept out of memory")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2,popcnt,lzcnt")]
            fn avx512($($arg: $ty),*) $(-> $ret)? { $body($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments, reason = "a loop's whole state, kept out of memory")]
            #[target_feature(enable = "avx2,fma,f16c,bmi2,popcnt")]
            fn avx2($($arg: $ty),*) $(-> $ret)? { $body($($arg),*) }
            match level {
                Level::Base => $body($($arg),*),
                // SAFETY: `Level::detect` returns this level only on hosts that have its instructions.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    };
}

/// Lanes of a mask for which an instruction's guard holds.
#[inline(always)]
pub(crate) fn guarded(file: &File, guard: u32, mask: u32) -> u32 {
    if guard == NONE {
        return mask;
    }
    let predicate = file.predicate(guard >> 1);
    mask & if guard & 1 != 0 { !predicate } else { predicate }
}

/// Where a run of register instructions begins and must end.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) pc: u32,
    /// Stops before this instruction: a meeting point.
    pub(crate) meet: u32,
    pub(crate) mask: u32,
    /// Only some of the warp's live lanes are here.
    pub(crate) partial: bool,
    /// Most instructions.
    pub(crate) budget: u32,
}

/// Executes register instructions and branches that all lanes take alike, until another instruction comes;
/// returns its position and what is left of the budget.
#[inline(always)]
fn run_body(code: &[Inst], file: &mut File, counts: &mut [PcCount], span: Span) -> (u32, u32) {
    let (mut pc, mut budget) = (span.pc, span.budget);
    while budget != 0 && pc != span.meet {
        let inst = &code[pc as usize];
        let active = guarded(file, inst.guard, span.mask);
        let next = match inst.op {
            Op::Alu(row) => {
                if active != 0 {
                    alu::execute(row, file, inst, active);
                }
                pc + 1
            }
            Op::Branch if active == span.mask => inst.extra,
            Op::Branch if active == 0 => pc + 1,
            _ => break,
        };
        let count = &mut counts[pc as usize];
        count.issues += 1;
        count.lanes += u64::from(active.count_ones());
        count.diverged += u64::from(span.partial);
        pc = next;
        budget -= 1;
    }
    (pc, budget)
}

instantiate! {
    /// Runs register instructions; see [`Span`].
    fn run(code: &[Inst], file: &mut File, counts: &mut [PcCount], span: Span) -> (u32, u32) = run_body;
}

instantiate! {
    /// One `mma.sync`.
    fn mma(file: &mut File, shape: Mma, slots: &[u32], mask: u32) = matrix::mma;
}

instantiate! {
    /// One warp's part of a `wgmma`.
    fn wgmma(file: &mut File, shape: Wgmma, slots: &[u32], a: &[Words; 4], b: &[[Words; 2]], keeps: bool) = matrix::wgmma;
}
