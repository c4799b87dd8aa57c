//! Random programs against a plain evaluator of one thread at a time, and random texts against the reader.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use tgc_simulator::{FindingKind, LaunchOptions, LaunchShape, Memory, Module, Parameters, launch};

/// Registers of a program.
const REGISTERS: usize = 6;

/// One step of a random program.
#[derive(Clone, Debug)]
enum Step {
    /// d = a op b, maybe under predicate `p` (or its negation).
    Operate { op: usize, d: usize, a: usize, b: usize, guard: Option<(usize, bool)> },
    /// p = a relation b.
    Compare { relation: usize, p: usize, a: usize, b: usize },
    /// Skips some steps where a predicate holds.
    Skip { p: usize, steps: usize },
    /// Repeats the last steps up to three times, counted by lane.
    Repeat { steps: usize, times: u32 },
}

/// Name, and what it computes.
type Operation = (&'static str, fn(u32, u32) -> u32);

const OPERATIONS: [Operation; 10] = [
    ("add.u32", u32::wrapping_add),
    ("sub.u32", u32::wrapping_sub),
    ("mul.lo.u32", u32::wrapping_mul),
    ("and.b32", |a, b| a & b),
    ("or.b32", |a, b| a | b),
    ("xor.b32", |a, b| a ^ b),
    ("min.s32", |a, b| (a as i32).min(b as i32) as u32),
    ("max.u32", u32::max),
    ("mul.hi.u32", |a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32),
    ("shl.b32", |a, b| if b > 31 { 0 } else { a << b }),
];

/// Name, and when it holds.
type Relation = (&'static str, fn(u32, u32) -> bool);

const RELATIONS: [Relation; 4] = [
    ("eq.u32", |a, b| a == b),
    ("lt.s32", |a, b| (a as i32) < b as i32),
    ("ge.u32", |a, b| a >= b),
    ("ne.s32", |a, b| a != b),
];

fn step() -> impl Strategy<Value = Step> {
    let register = 0..REGISTERS;
    let guard = proptest::option::of((0..3usize, any::<bool>()));
    prop_oneof![
        5 => (0..OPERATIONS.len(), register.clone(), register.clone(), register.clone(), guard)
            .prop_map(|(op, d, a, b, guard)| Step::Operate { op, d, a, b, guard }),
        2 => (0..RELATIONS.len(), 0..3usize, register.clone(), register)
            .prop_map(|(relation, p, a, b)| Step::Compare { relation, p, a, b }),
        2 => (0..3usize, 1..6usize).prop_map(|(p, steps)| Step::Skip { p, steps }),
        1 => (1..4usize, 1..4u32).prop_map(|(steps, times)| Step::Repeat { steps, times }),
    ]
}

/// Operations that a repetition at a place covers: those before it without jumps.
fn covered(program: &[Step], at: usize, steps: usize) -> usize {
    let plain = |s: &Step| matches!(s, Step::Operate { .. } | Step::Compare { .. });
    program[..at].iter().rev().take(steps).take_while(|s| plain(s)).count()
}

fn text(program: &[Step]) -> String {
    let mut out = String::from(
        ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 d)\n{\n.reg .pred %p<4>;\n.reg .b32 %r<8>, %c, %t;\n.reg .b64 %rd<4>;\nld.param.u64 %rd1, [d];\nmov.u32 %t, %tid.x;\n",
    );
    for r in 0..REGISTERS {
        out += &format!("mad.lo.u32 %r{r}, %t, {}, {};\n", 2 * r + 1, 1000 * r);
    }
    out += "setp.eq.u32 %p0, %t, 99; setp.eq.u32 %p1, %t, %t; setp.lt.u32 %p2, %t, 9;\n";
    let mut bodies = vec![String::new(); program.len()];
    let mut before = vec![String::new(); program.len() + 8];
    for (at, step) in program.iter().enumerate() {
        match step {
            Step::Operate { op, d, a, b, guard } => {
                let guard = guard.map_or_else(String::new, |(p, n)| {
                    format!("@{}%p{p} ", if n { "!" } else { "" })
                });
                bodies[at] = format!("{guard}{} %r{d}, %r{a}, %r{b};\n", OPERATIONS[*op].0);
            }
            Step::Compare { relation, p, a, b } => {
                bodies[at] = format!("setp.{} %p{p}, %r{a}, %r{b};\n", RELATIONS[*relation].0);
            }
            Step::Skip { p, steps } => {
                bodies[at] = format!("@%p{p} bra skip{at};\n");
                let to = (at + 1 + steps).min(program.len());
                before[to] += &format!("skip{at}:\n");
            }
            Step::Repeat { steps, times } => {
                // The lane decides how often, so that lanes leave at different times.
                let from = at - covered(program, at, *steps);
                before[from] += &format!("and.b32 %c, %t, {times};\nagain{at}:\n");
                bodies[at] =
                    format!("add.u32 %c, %c, -1;\nsetp.ge.s32 %p3, %c, 0;\n@%p3 bra again{at};\n");
            }
        }
    }
    for (at, body) in bodies.iter().enumerate() {
        out += &before[at];
        out += body;
    }
    out += &before[program.len()];
    out += "mul.wide.u32 %rd2, %t, 32;\nadd.s64 %rd3, %rd1, %rd2;\n";
    for r in 0..REGISTERS {
        out += &format!("st.global.u32 [%rd3+{}], %r{r};\n", 4 * r);
    }
    out + "ret;\n}\n"
}

/// Registers of a thread at the end.
fn evaluate(program: &[Step], thread: u32) -> [u32; REGISTERS] {
    let mut r: [u32; REGISTERS] = std::array::from_fn(|at| {
        thread.wrapping_mul(2 * at as u32 + 1).wrapping_add(1000 * at as u32)
    });
    let mut p = [thread == 99, true, thread < 9];
    let apply = |step: &Step, r: &mut [u32; REGISTERS], p: &mut [bool; 3]| match step {
        Step::Operate { op, d, a, b, guard }
            if guard.is_none_or(|(at, negated)| p[at] != negated) =>
        {
            r[*d] = OPERATIONS[*op].1(r[*a], r[*b]);
        }
        Step::Compare { relation, p: to, a, b } => p[*to] = RELATIONS[*relation].1(r[*a], r[*b]),
        _ => {}
    };
    let mut at = 0;
    while at < program.len() {
        match &program[at] {
            Step::Skip { p: by, steps } if p[*by] => at += steps,
            Step::Repeat { steps, times } => {
                let covered = covered(program, at, *steps);
                for _ in 0..thread & times {
                    program[at - covered..at].iter().for_each(|s| apply(s, &mut r, &mut p));
                }
            }
            step => apply(step, &mut r, &mut p),
        }
        at += 1;
    }
    r
}

/// A repetition's counter is set before its body, so a skip into the body would miss it.
fn is_proper(program: &[Step]) -> bool {
    program.iter().enumerate().all(|(at, step)| {
        let Step::Repeat { steps, .. } = step else { return true };
        let from = at - covered(program, at, *steps);
        program.iter().enumerate().all(|(skip, step)| {
            let Step::Skip { steps, .. } = step else { return true };
            let to = skip + 1 + steps;
            skip >= at || to <= from || to > at
        })
    })
}

fn run(text: &str, threads: u32) -> Vec<u32> {
    let module = Module::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut memory = Memory::new(1 << 16);
    let variables = module.place_variables(&mut memory).unwrap();
    let d = memory.allocate(u64::from(threads) * 32).unwrap();
    let shape = LaunchShape::linear(1, threads, 0);
    let parameters = Parameters::new().u64(d);
    let report = launch(
        &module,
        &variables,
        "k",
        &memory,
        &shape,
        parameters.bytes(),
        &LaunchOptions::default(),
    );
    assert!(report.unwrap().is_clean());
    let mut out = vec![0; threads as usize * 32];
    memory.read(d, &mut out).unwrap();
    out.chunks(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_compute_what_one_thread_would(program in proptest::collection::vec(step(), 1..24)) {
        prop_assume!(is_proper(&program));
        let threads = 40;
        let found = run(&text(&program), threads);
        for thread in 0..threads {
            let expected = evaluate(&program, thread);
            let at = thread as usize * 8;
            prop_assert_eq!(&found[at..at + REGISTERS], &expected[..], "thread {}", thread);
        }
    }

    #[test]
    fn changed_texts_are_read_or_refused(which in 0..5usize, edits in proptest::collection::vec((any::<u16>(), 0..8u8, any::<u8>()), 1..8)) {
        let texts = [
            include_str!("kernels/reduce.ptx"),
            include_str!("kernels/pipe.ptx"),
            include_str!("kernels/tensor.ptx"),
            include_str!("kernels/matrix.ptx"),
            include_str!("kernels/product.ptx"),
        ];
        let mut bytes = texts[which].as_bytes().to_vec();
        for (place, kind, byte) in edits {
            edit(&mut bytes, usize::from(place), kind, byte);
        }
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok(module) = Module::parse(&text)
        {
            survive(&module);
        }
    }
}

/// Changes a text at one place: characters, parts, numbers.
fn edit(bytes: &mut Vec<u8>, place: usize, kind: u8, byte: u8) {
    let at = place % bytes.len().max(1);
    let end = (at + usize::from(byte)).min(bytes.len());
    match kind {
        _ if bytes.is_empty() => bytes.push(byte & 0x7f),
        0 => bytes[at] = byte & 0x7f,
        1 => bytes.insert(at, byte & 0x7f),
        2 => {
            bytes.remove(at);
        }
        3 => bytes.truncate(at + bytes.len() / 2),
        4 => {
            bytes.drain(at..end);
        }
        5 => {
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        _ => {
            let values = [
                "0",
                "1",
                "255",
                "4096",
                "65536",
                "2147483648",
                "4294967295",
                "18446744073709551615",
            ];
            let digit = (at..bytes.len()).find(|i| bytes[*i].is_ascii_digit()).unwrap_or(at);
            let last =
                (digit..bytes.len()).find(|i| !bytes[*i].is_ascii_digit()).unwrap_or(bytes.len());
            bytes.splice(digit..last, values[usize::from(byte) % values.len()].bytes());
        }
    }
}

/// Launches every kernel of a module with parameters that mean nothing: findings are fine, panics are not.
fn survive(module: &Module) {
    let mut memory = Memory::new(1 << 20);
    let Ok(variables) = module.place_variables(&mut memory) else { return };
    let options = LaunchOptions {
        step_limit: 2_000,
        memory_limit: 1 << 26,
        threads: 1,
        ..LaunchOptions::default()
    };
    for kernel in module.kernels() {
        let parameters = vec![0x70; kernel.parameter_bytes as usize];
        let shape = LaunchShape::linear(1, kernel.max_threads.unwrap_or(64).clamp(1, 64), 0);
        let _ = launch(module, &variables, &kernel.name, &memory, &shape, &parameters, &options);
    }
}

#[test]
fn faults_of_texts_name_their_line() {
    let head = ".version 7.0\n.target sm_80\n.address_size 64\n";
    let body = |line: &str| {
        format!("{head}.visible .entry k()\n{{\n.reg .b32 %r<4>;\n.reg .pred %p;\n{line}\nret;\n}}")
    };
    let cases = [
        ("frobnicate.b32 %r0, %r1;", "frobnicate"),
        ("add.b32.wobble %r0, %r1, %r2;", "wobble"),
        ("add.u32 %r0, %r1;", "2 operands"),
        ("add.u64 %r0, %r1, %r2;", "width"),
        ("bra nowhere;", "label"),
        ("mov.u32 %r0, %unknown;", "%unknown"),
        ("mov.u32 %r0, nothing;", "nothing"),
        ("@%r1 bra x;", "predicate"),
        ("ld.param.u32 %r0, [x];", "x"),
        ("mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%r0}, {%r0}, {%r0}, {%r0};", "mma"),
    ];
    for (line, word) in cases {
        let error = Module::parse(&body(line)).unwrap_err();
        assert_eq!(error.line, 8, "{line}: {error}");
        assert!(error.message.contains(word), "{line}: {error}");
    }
    assert!(Module::parse("").is_err());
    assert!(
        Module::parse(&format!("{head}.global .b8 big[1099511627776];"))
            .unwrap_err()
            .message
            .contains("bytes")
    );
    assert!(
        Module::parse(&format!("{head}.visible .entry k() {{ .reg .b32 %r<4000000000>; }}"))
            .is_err()
    );
}

#[test]
fn limits_are_errors_or_findings() {
    let mut memory = Memory::new(1 << 30);
    assert!(memory.allocate(1 << 40).is_err());
    assert!(memory.allocate(u64::MAX).is_err());
    let text = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\nagain: bra again;\n}";
    let module = Module::parse(text).unwrap();
    let variables = module.place_variables(&mut memory).unwrap();
    let options = LaunchOptions { step_limit: 10_000, ..LaunchOptions::default() };
    let shape = LaunchShape::linear(2, 64, 0);
    let report = launch(&module, &variables, "k", &memory, &shape, &[], &options).unwrap();
    assert_eq!(report.findings[0].kind, FindingKind::StepLimit);
    assert!(report.counters.warp_instructions < 50_000);
    let huge = LaunchShape { dynamic_shared: u32::MAX, ..shape };
    assert!(launch(&module, &variables, "k", &memory, &huge, &[], &options).is_err());
    assert!(
        launch(&module, &variables, "k", &memory, &LaunchShape::linear(1, 2048, 0), &[], &options)
            .is_err()
    );
    assert!(launch(&module, &variables, "k", &memory, &shape, &[0; 8], &options).is_err());
    assert!(launch(&module, &variables, "other", &memory, &shape, &[], &options).is_err());
}
