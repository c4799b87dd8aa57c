//! Kernels with one fault each: every one must be found, at the right line, under at least one schedule.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{lines_of, run, scenario, schedules};
use tgc_simulator::FindingKind::{self, *};

/// A fault put into a kernel by replacing text.
struct Bug {
    kernel: &'static str,
    what: &'static str,
    from: &'static str,
    to: &'static str,
    kind: FindingKind,
    /// What stands behind the line that must be named.
    line: &'static str,
}

const fn bug(
    kernel: &'static str,
    what: &'static str,
    (from, to): (&'static str, &'static str),
    kind: FindingKind,
    line: &'static str,
) -> Bug {
    Bug { kernel, what, from, to, kind, line }
}

const BUGS: &[Bug] = &[
    bug("reduce", "missing barrier", ("bar.sync 0; ", ""), UninitialisedShared, "@collect"),
    bug("reduce", "missing barrier, seen as a race", ("bar.sync 0; ", ""), SharedRace, "@collect"),
    bug(
        "reduce",
        "off by one at the end",
        ("ld.global.f32 %f1, [%rd4]", "ld.global.f32 %f1, [%rd4+4]"),
        OutOfBounds,
        "@load",
    ),
    bug(
        "reduce",
        "before the beginning",
        ("ld.global.f32 %f1, [%rd4]", "ld.global.f32 %f1, [%rd4+-4]"),
        OutOfBounds,
        "@load",
    ),
    bug(
        "reduce",
        "misaligned word",
        ("ld.global.f32 %f1, [%rd4]", "ld.global.f32 %f1, [%rd4+2]"),
        Misaligned,
        "@load",
    ),
    bug(
        "reduce",
        "misaligned vector",
        ("{%f3, %f4, %f5, %f6}, [partial]", "{%f3, %f4, %f5, %f6}, [partial+8]"),
        Misaligned,
        "@collect",
    ),
    bug(
        "reduce",
        "beyond shared memory",
        ("st.shared.f32 [%r7]", "st.shared.f32 [%r7+8]"),
        OutOfBounds,
        "@store",
    ),
    bug(
        "reduce",
        "a warp that does not write",
        (
            "@!%p1 st.shared.f32 [%r7], %f1;",
            "setp.eq.u32 %p3, %r1, 0;\n @%p3 st.shared.f32 [%r7], %f1;",
        ),
        UninitialisedShared,
        "@collect",
    ),
    bug(
        "reduce",
        "a shuffle without some of its members",
        (
            "shfl.sync.bfly.b32 %f2, %f1, 16, 31, -1;",
            "setp.gt.u32 %p3, %r1, 120;\n @%p3 ret;\n shfl.sync.bfly.b32 %f2, %f1, 16, 31, -1;",
        ),
        Undefined,
        "@shuffle",
    ),
    bug(
        "reduce",
        "a barrier for a part of a warp",
        ("bar.sync 0; ", "setp.gt.u32 %p3, %r4, 15;\n @%p3 bar.sync 0; "),
        Divergence,
        "@barrier",
    ),
    bug(
        "reduce",
        "blocks write one place",
        ("mul.wide.u32 %rd5, %r2, 4;", "mul.wide.u32 %rd5, %r2, 0;"),
        GlobalRace,
        "@result",
    ),
    bug("reduce", "a trap", ("bar.sync 0; ", "trap; "), Trap, "@barrier"),
    bug(
        "transpose",
        "missing first barrier",
        ("bar.sync 0;                                             // first", ""),
        SharedRace,
        "@take",
    ),
    bug(
        "transpose",
        "missing second barrier",
        ("bar.sync 0;                                             // second", ""),
        SharedRace,
        "@put",
    ),
    bug(
        "transpose",
        "one step too many",
        ("setp.lt.u32 %p1, %r8, 2", "setp.lt.u32 %p1, %r8, 3"),
        OutOfBounds,
        "@load",
    ),
    bug(
        "transpose",
        "an endless loop",
        ("@%p1 bra loop;", "stuck: bra stuck; // @stuck"),
        StepLimit,
        "@stuck",
    ),
    bug(
        "transpose",
        "a barrier for too few threads",
        ("bar.sync 0;                                             // first", "bar.sync 0, 992;"),
        SharedRace,
        "@take",
    ),
    bug(
        "transpose",
        "a barrier for too many threads",
        (
            "bar.sync 0;                                             // second",
            "setp.lt.u32 %p2, %r1, 1024;\n @%p2 bar.sync 1, 1056; // @stuck",
        ),
        Deadlock,
        "@stuck",
    ),
    bug("ring", "missing wait", ("cp.async.wait_group 1;  ", ""), AsyncHazard, "@take"),
    bug(
        "ring",
        "a wait that leaves one group too many",
        ("wait_group 1;", "wait_group 2;"),
        AsyncHazard,
        "@take",
    ),
    bug(
        "ring",
        "missing commit",
        ("cp.async.commit_group;                                  // commit", ""),
        AsyncHazard,
        "@take",
    ),
    bug(
        "ring",
        "missing barrier after the wait",
        ("bar.sync 0;                                             // arrived", ""),
        AsyncHazard,
        "@take",
    ),
    bug(
        "ring",
        "missing barrier before the next copy",
        ("bar.sync 0;                                             // released", ""),
        SharedRace,
        "@next",
    ),
    bug(
        "ring",
        "a copy into the slot being read",
        ("and.b32 %r11, %r10, 1;", "and.b32 %r11, %r9, 1;"),
        AsyncHazard,
        "@take",
    ),
    bug(
        "ring",
        "reads the wrong slot",
        ("and.b32 %r13, %r9, 1;", "and.b32 %r13, %r10, 1;"),
        AsyncHazard,
        "@take",
    ),
    bug(
        "ring",
        "copies nobody waits for",
        ("@!%p1 cp.async.ca", "cp.async.ca"),
        OutOfBounds,
        "@next",
    ),
    bug(
        "ring",
        "unfinished copies at the end",
        (
            "cp.async.wait_group 0;                                  // drain",
            "cp.async.ca.shared.global [%r7], [%rd1], 4; // @late",
        ),
        UnfinishedAsync,
        "@late",
    ),
    bug(
        "ring",
        "a misaligned copy",
        (
            "cp.async.ca.shared.global [%r7], [%rd4], 4;",
            "cp.async.ca.shared.global [%r7], [%rd4], 8;",
        ),
        Misaligned,
        "@first",
    ),
    bug(
        "ticket",
        "parts at one place",
        ("add.s64 %rd7, %rd2, %rd5;", "add.s64 %rd7, %rd2, 0;"),
        GlobalRace,
        "@part",
    ),
    bug("ticket", "no ticket", ("@%p2 bra done;", ""), GlobalRace, "@total"),
    bug(
        "ticket",
        "a ticket that nobody shares",
        ("atom.global.inc.u32 %r6, [%rd3], %r5;", "mov.u32 %r6, %r2;"),
        GlobalRace,
        "@sum",
    ),
    bug(
        "ticket",
        "a part that nobody wrote",
        ("st.global.u32 [%rd7], %r4;", "@%p1 st.global.u32 [%rd7], %r4;"),
        UninitialisedGlobal,
        "@sum",
    ),
    bug("pipe", "wrong parity of the producer", ("xor.b32 %r8, %r8, 1;", ""), Deadlock, "@free"),
    bug(
        "pipe",
        "wrong parity of the consumers",
        (
            "shl.b32 %r9, %r7, 3;\n  add.s32 %r10, %r4, %r9;\n  add.s32 %r11, %r3, %r9;\n  shl.b32 %r12, %r7, 8;\n  add.s32 %r13, %r5, %r12;\n  add.s32 %r13",
            "xor.b32 %r8, %r8, 1;\n  shl.b32 %r9, %r7, 3;\n  add.s32 %r10, %r4, %r9;\n  add.s32 %r11, %r3, %r9;\n  shl.b32 %r12, %r7, 8;\n  add.s32 %r13, %r5, %r12;\n  add.s32 %r13",
        ),
        AsyncHazard,
        "@take",
    ),
    bug(
        "pipe",
        "expects too few bytes",
        ("[%r11], 256;   // @expect", "[%r11], 128;   // @expect"),
        Deadlock,
        "@free",
    ),
    bug(
        "pipe",
        "expects too many bytes",
        ("[%r11], 256;   // @expect", "[%r11], 512;   // @expect"),
        Deadlock,
        "@free",
    ),
    bug(
        "pipe",
        "expects more arrivals than come",
        ("[%r4], 2;   ", "[%r4], 3;   "),
        Deadlock,
        "@free",
    ),
    bug(
        "pipe",
        "expects fewer arrivals than come",
        ("[%r4], 2;   ", "[%r4], 1;   "),
        SharedRace,
        "@copy",
    ),
    bug(
        "pipe",
        "an mbarrier never initialised",
        ("mbarrier.init.shared::cta.b64 [%r3], 1;", ""),
        Mbarrier,
        "@expect",
    ),
    bug(
        "pipe",
        "an mbarrier initialised twice",
        (
            "mbarrier.init.shared::cta.b64 [%r3+8], 1;",
            "mbarrier.init.shared::cta.b64 [%r3], 1; // @twice",
        ),
        Mbarrier,
        "@twice",
    ),
    bug(
        "pipe",
        "consumers do not wait",
        (
            "mbarrier.try_wait.parity.shared::cta.b64 %p3, [%r11], %r8;  // @full\n  @!%p3 bra arrive;",
            "",
        ),
        AsyncHazard,
        "@take",
    ),
    bug(
        "pipe",
        "the producer does not wait",
        (
            "mbarrier.try_wait.parity.shared::cta.b64 %p3, [%r10], %r8;  // @free\n  @!%p3 bra free;",
            "",
        ),
        AsyncHazard,
        "@copy",
    ),
    bug(
        "pipe",
        "a slot released before it is read",
        (
            "  ld.shared.u32 %r16, [%r13];                                 // @take\n  add.s32 %r15, %r15, %r16;\n  bar.warp.sync -1;\n  @!%p5 mbarrier.arrive.shared::cta.b64 _, [%r10];            // @release",
            "  @!%p5 mbarrier.arrive.shared::cta.b64 _, [%r10];\n  ld.shared.u32 %r16, [%r13]; // @take\n  add.s32 %r15, %r15, %r16;",
        ),
        SharedRace,
        "@copy",
    ),
    bug(
        "pipe",
        "a bulk copy of odd size",
        ("[%rd1], 256, [%r11]", "[%rd1], 250, [%r11]"),
        Misaligned,
        "@copy",
    ),
    bug(
        "pipe",
        "a bulk copy beyond shared memory",
        (
            "shl.b32 %r12, %r7, 8;\n  add.s32 %r13, %r5, %r12;\nfree",
            "shl.b32 %r12, %r7, 9;\n  add.s32 %r13, %r5, %r12;\nfree",
        ),
        OutOfBounds,
        "@copy",
    ),
    bug(
        "product",
        "missing proxy fence",
        ("fence.proxy.async;                                      // fence", ""),
        MissingProxyFence,
        "@product",
    ),
    bug(
        "product",
        "missing barrier",
        ("bar.sync 0;                                             // barrier", ""),
        SharedRace,
        "@product",
    ),
    bug(
        "product",
        "missing wait",
        ("wgmma.wait_group.sync.aligned 0;                        // wait", ""),
        UnfinishedAsync,
        "@product",
    ),
    bug(
        "product",
        "a descriptor beyond shared memory",
        ("68720001024;", "274878431232;"),
        Descriptor,
        "@product",
    ),
    bug(
        "product",
        "a descriptor without stride",
        ("68720001024;", "524288;"),
        Descriptor,
        "@product",
    ),
    bug(
        "tensor",
        "missing proxy fence",
        ("fence.proxy.async.shared::cta; ", ""),
        MissingProxyFence,
        "@bring-back",
    ),
    bug(
        "tensor",
        "missing wait for the box",
        (
            "mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r5], 0;  // @arrived\n  @!%p2 bra wait;",
            "",
        ),
        AsyncHazard,
        "@take",
    ),
    bug(
        "tensor",
        "missing wait for the store",
        ("cp.async.bulk.wait_group 0;                              // wait", ""),
        UnfinishedAsync,
        "@bring-back",
    ),
    bug(
        "tensor",
        "a misaligned box",
        ("mov.u32 %r4, box;", "mov.u32 %r4, box+128;"),
        Misaligned,
        "@bring",
    ),
    bug(
        "tensor",
        "a parameter that is no map",
        ("mov.b64 %rd1, source;", "mov.b64 %rd1, source+64;"),
        TensorMap,
        "@bring",
    ),
    bug(
        "cluster",
        "missing wait for the cluster",
        ("barrier.cluster.wait.acquire;                            // wait", ""),
        UninitialisedShared,
        "@take",
    ),
    bug(
        "cluster",
        "a block that is not there",
        ("xor.b32 %r7, %r2, 1;", "add.s32 %r7, %r2, 2;"),
        OutOfBounds,
        "@take",
    ),
    bug(
        "matrix",
        "a row that nobody wrote",
        (
            "@%p1 st.shared.v4.u32 [%r10]",
            "setp.lt.u32 %p1, %r1, 15;\n  @%p1 st.shared.v4.u32 [%r10]",
        ),
        UninitialisedShared,
        "@right",
    ),
    bug(
        "matrix",
        "a row off its alignment",
        ("add.s32 %r14, %r14, %r13;", "add.s32 %r14, %r14, %r13;\n  add.s32 %r14, %r14, 8;"),
        Misaligned,
        "@left",
    ),
    bug(
        "matrix",
        "a product of half a warp",
        (
            "mma.sync.aligned.m16n8k16",
            "setp.lt.u32 %p1, %r1, 16;\n  @%p1 mma.sync.aligned.m16n8k16",
        ),
        Divergence,
        "@mma",
    ),
];

/// Faults that only the result shows, because every access is legal.
const WRONG: &[(&str, &str, &str, &str)] = &[
    ("product", "a stride of the wrong field", "68720001024;", "34360262656;"),
    ("matrix", "fragments in the wrong order", "{%r16, %r17}, {%f1", "{%r17, %r16}, {%f1"),
    (
        "reduce",
        "a butterfly left out",
        "shfl.sync.bfly.b32 %f2, %f1, 4, 31, -1;",
        "mov.f32 %f2, 0f00000000;",
    ),
    ("tensor", "the box of another place", "{%r1, %r2}], [%r5];", "{%r2, %r1}], [%r5];"),
];

#[test]
fn every_bug_is_found_at_its_line() {
    let mut missed = Vec::new();
    for bug in BUGS {
        let scenario = scenario(bug.kernel);
        assert!(scenario.text.contains(bug.from), "{}: `{}` stands nowhere", bug.kernel, bug.from);
        let text = scenario.text.replacen(bug.from, bug.to, 1);
        let lines = lines_of(&text, bug.line);
        assert_eq!(lines.len(), 1, "{}: {}", bug.kernel, bug.what);
        let mut seen = Vec::new();
        for options in schedules(16) {
            let report = run(scenario, &text, &options).report;
            seen.extend(
                report
                    .findings
                    .into_iter()
                    .map(|f| (f.kind, f.site.ptx_line, f.other.map(|o| o.ptx_line))),
            );
        }
        let found = |(kind, line, other): &(FindingKind, u32, Option<u32>)| {
            *kind == bug.kind && (*line == lines[0] || *other == Some(lines[0]))
        };
        if !seen.iter().any(found) {
            seen.sort();
            seen.dedup();
            missed.push(format!(
                "{}: {} ({} at line {}): {seen:?}",
                bug.kernel, bug.what, bug.kind, lines[0]
            ));
        }
    }
    assert!(missed.is_empty(), "{} of {} missed:\n{}", missed.len(), BUGS.len(), missed.join("\n"));
    assert!(BUGS.len() >= 50);
}

#[test]
fn faults_of_arithmetic_show_in_the_result() {
    for (kernel, what, from, to) in WRONG {
        let scenario = scenario(kernel);
        let text = scenario.text.replacen(from, to, 1);
        assert_ne!(text, scenario.text, "{kernel}: {what}");
        let outcome = run(scenario, &text, &schedules(0)[0]);
        assert!(!outcome.right, "{kernel}: {what}");
    }
}

#[test]
fn a_finding_names_block_thread_and_source() {
    let reduce = scenario("reduce");
    let text = reduce.text.replace("[%rd4];", "[%rd4+4];");
    let report = run(reduce, &text, &schedules(0)[0]).report;
    let [finding] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!((finding.kind, finding.count, finding.kernel.as_str()), (OutOfBounds, 1, "reduce"));
    assert_eq!((finding.site.block, finding.site.thread), ([2, 0, 0], [127, 0, 0]));
    let source = finding.site.source.as_ref().unwrap();
    assert_eq!((source.file.as_str(), source.line), ("reduce.cu", 6));
    assert!(
        finding.message.contains("0 bytes past an allocation of 1536 bytes"),
        "{}",
        finding.message
    );
}

#[test]
fn a_fault_that_happens_often_is_reported_once() {
    let transpose = scenario("transpose");
    let text = transpose.text.replace("[%rd4];", "[%rd4+8192];");
    let report = run(transpose, &text, &schedules(0)[0]).report;
    assert_eq!(report.findings.len(), 1);
    // The second step reads what the first has stored.
    assert_eq!(report.findings[0].count, 1024);
}
