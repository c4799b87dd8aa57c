//! The kernels under `kernels/` with inputs and expected outputs, and ways to run them.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use tgc_simulator::{
    Completion, LaunchOptions, LaunchShape, Memory, Module, Parameters, Report, Swizzle,
    TensorElement, TensorMap, launch,
};

/// Parameters, and the contents that addresses must have afterwards.
type Setup = (Parameters, Vec<(u64, Vec<u8>)>);

/// A kernel text, how it is launched, and what it must compute.
pub(crate) struct Scenario {
    pub(crate) text: &'static str,
    pub(crate) kernel: &'static str,
    pub(crate) shape: LaunchShape,
    /// Makes parameters, and the addresses and contents that are expected afterwards.
    pub(crate) setup: fn(&mut Memory) -> Setup,
}

/// All scenarios by the name of their kernel.
pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    (
        "reduce",
        Scenario {
            text: include_str!("../kernels/reduce.ptx"),
            kernel: "reduce",
            shape: linear(3, 128),
            setup: reduce,
        },
    ),
    (
        "transpose",
        Scenario {
            text: include_str!("../kernels/transpose.ptx"),
            kernel: "transpose",
            shape: linear(1, 1024),
            setup: transpose,
        },
    ),
    (
        "ring",
        Scenario {
            text: include_str!("../kernels/ring.ptx"),
            kernel: "ring",
            shape: linear(1, 64),
            setup: ring,
        },
    ),
    (
        "ticket",
        Scenario {
            text: include_str!("../kernels/ticket.ptx"),
            kernel: "ticket",
            shape: linear(6, 32),
            setup: ticket,
        },
    ),
    (
        "pipe",
        Scenario {
            text: include_str!("../kernels/pipe.ptx"),
            kernel: "pipe",
            shape: linear(1, 96),
            setup: pipe,
        },
    ),
    (
        "product",
        Scenario {
            text: include_str!("../kernels/product.ptx"),
            kernel: "product",
            shape: linear(1, 128),
            setup: product,
        },
    ),
    (
        "tensor",
        Scenario {
            text: include_str!("../kernels/tensor.ptx"),
            kernel: "tensor",
            shape: linear(1, 32),
            setup: tensor,
        },
    ),
    (
        "cluster",
        Scenario {
            text: include_str!("../kernels/cluster.ptx"),
            kernel: "exchange",
            shape: linear(2, 32),
            setup: cluster,
        },
    ),
    (
        "matrix",
        Scenario {
            text: include_str!("../kernels/matrix.ptx"),
            kernel: "matrix",
            shape: linear(1, 32),
            setup: matrix,
        },
    ),
];

const fn linear(blocks: u32, threads: u32) -> LaunchShape {
    LaunchShape { grid: [blocks, 1, 1], block: [threads, 1, 1], cluster: None, dynamic_shared: 0 }
}

/// The scenario of a name.
pub(crate) fn scenario(name: &str) -> &'static Scenario {
    &SCENARIOS.iter().find(|(n, _)| *n == name).unwrap().1
}

/// Bytes of values of 32 bits.
pub(crate) fn bytes_of<T: Into<Word> + Copy>(values: &[T]) -> Vec<u8> {
    values.iter().flat_map(|v| (*v).into().0.to_le_bytes()).collect()
}

/// 32 bits.
pub(crate) struct Word(u32);

impl From<u32> for Word {
    fn from(x: u32) -> Word {
        Word(x)
    }
}

impl From<f32> for Word {
    fn from(x: f32) -> Word {
        Word(x.to_bits())
    }
}

fn reduce(memory: &mut Memory) -> Setup {
    let input: Vec<f32> = (0..384).map(|i| (i % 37) as f32).collect();
    let from = memory.allocate_from(&bytes_of(&input)).unwrap();
    let to = memory.allocate(12).unwrap();
    let sums: Vec<f32> = input.chunks(128).map(|c| c.iter().sum()).collect();
    (Parameters::new().u64(from).u64(to), vec![(to, bytes_of(&sums))])
}

fn transpose(memory: &mut Memory) -> Setup {
    let input: Vec<u32> = (0..2048).map(|i| i * 7 + 1).collect();
    let from = memory.allocate_from(&bytes_of(&input)).unwrap();
    let to = memory.allocate(8192).unwrap();
    let turned: Vec<u32> =
        (0..2048).map(|i| input[i / 1024 * 1024 + i % 32 * 32 + i % 1024 / 32]).collect();
    (Parameters::new().u64(from).u64(to), vec![(to, bytes_of(&turned))])
}

fn ring(memory: &mut Memory) -> Setup {
    let input: Vec<f32> = (0..64 * 5).map(|i| i as f32).collect();
    let from = memory.allocate_from(&bytes_of(&input)).unwrap();
    let to = memory.allocate(64 * 5 * 4).unwrap();
    let out: Vec<f32> = (0..64 * 5).map(|i| input[i / 64 * 64 + ((i % 64) ^ 63)] + 1.0).collect();
    (Parameters::new().u64(from).u64(to).u32(5), vec![(to, bytes_of(&out))])
}

fn ticket(memory: &mut Memory) -> Setup {
    let from = memory.allocate_from(&bytes_of(&[1u32, 10, 100, 1000, 10000, 100_000])).unwrap();
    let parts = memory.allocate(24).unwrap();
    let counter = memory.allocate_from(&[0; 4]).unwrap();
    let to = memory.allocate(4).unwrap();
    (
        Parameters::new().u64(from).u64(parts).u64(counter).u64(to),
        vec![(to, bytes_of(&[111_111u32]))],
    )
}

fn pipe(memory: &mut Memory) -> Setup {
    let input: Vec<u32> = (0..64 * 5).map(|i| i * i).collect();
    let from = memory.allocate_from(&bytes_of(&input)).unwrap();
    let to = memory.allocate(256).unwrap();
    let sums: Vec<u32> = (0..64).map(|t| (0..5).map(|s| input[s * 64 + t]).sum()).collect();
    (Parameters::new().u64(from).u64(to).u32(5), vec![(to, bytes_of(&sums))])
}

/// Bits of small integers as halves.
pub(crate) fn half(value: i32) -> u16 {
    let magnitude = value.unsigned_abs();
    if magnitude == 0 {
        return 0;
    }
    let exponent = 31 - magnitude.leading_zeros();
    let mantissa = (magnitude << (10 - exponent)) & 0x3ff;
    (if value < 0 { 0x8000 } else { 0 }) | ((exponent + 15) << 10 | mantissa) as u16
}

fn halves(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| half(*v).to_le_bytes()).collect()
}

fn small(i: usize) -> i32 {
    (i * 7 % 13) as i32 - 6
}

/// Rows of A by columns of B, B given by element.
fn products(rows: usize, a: &[i32], b: impl Fn(usize, usize) -> i32) -> Vec<f32> {
    (0..rows * 8)
        .map(|i| (0..16).map(|k| a[i / 8 * 16 + k] * b(k, i % 8)).sum::<i32>() as f32)
        .collect()
}

fn product(memory: &mut Memory) -> Setup {
    let a: Vec<i32> = (0..64 * 16).map(small).collect();
    // Rows of B are columns of the product.
    let b: Vec<i32> = (0..8 * 16).map(|i| small(i + 5)).collect();
    let (pa, pb) =
        (memory.allocate_from(&halves(&a)).unwrap(), memory.allocate_from(&halves(&b)).unwrap());
    let to = memory.allocate(64 * 8 * 4).unwrap();
    let out = products(64, &a, |k, n| b[n * 16 + k]);
    (Parameters::new().u64(pa).u64(pb).u64(to), vec![(to, bytes_of(&out))])
}

fn matrix(memory: &mut Memory) -> Setup {
    let a: Vec<i32> = (0..16 * 16).map(small).collect();
    let b: Vec<i32> = (0..16 * 8).map(|i| small(i + 3)).collect();
    let (pa, pb) =
        (memory.allocate_from(&halves(&a)).unwrap(), memory.allocate_from(&halves(&b)).unwrap());
    let to = memory.allocate(16 * 8 * 4).unwrap();
    let out = products(16, &a, |k, n| b[k * 8 + n]);
    (Parameters::new().u64(pa).u64(pb).u64(to), vec![(to, bytes_of(&out))])
}

/// A tensor of 40 columns by 10 rows, and a box that hangs over its edges.
fn tensor(memory: &mut Memory) -> Setup {
    let input: Vec<u32> = (0..400).map(|i| i + 1).collect();
    let from = memory.allocate_from(&bytes_of(&input)).unwrap();
    let to = memory.allocate_from(&[0; 1600]).unwrap();
    let map = |base| {
        TensorMap::tiled(base, TensorElement::U32, &[40, 10], &[160], &[32, 8], Swizzle::B128)
    };
    let out: Vec<u32> = (0..400)
        .map(|i| if i % 40 >= 16 && i / 40 >= 4 { 2 * input[i as usize] } else { 0 })
        .collect();
    let encoded = |base| map(base).encode().unwrap();
    let parameters =
        Parameters::new().tensor_map(&encoded(from)).tensor_map(&encoded(to)).i32(16).i32(4);
    (parameters, vec![(to, bytes_of(&out))])
}

fn cluster(memory: &mut Memory) -> Setup {
    let to = memory.allocate(256).unwrap();
    let out: Vec<u32> = (0..64).map(|i| (1 - i / 32) * 100 + i % 32).collect();
    (Parameters::new().u64(to), vec![(to, bytes_of(&out))])
}

/// What a run gave: the report, and whether the outputs are right.
pub(crate) struct Outcome {
    pub(crate) report: Report,
    pub(crate) right: bool,
}

/// Runs a text in a scenario's place.
pub(crate) fn run(scenario: &Scenario, text: &str, options: &LaunchOptions) -> Outcome {
    let module = Module::parse(text).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::new(1 << 24);
    let variables = module.place_variables(&mut memory).unwrap();
    let (parameters, expected) = (scenario.setup)(&mut memory);
    let report = launch(
        &module,
        &variables,
        scenario.kernel,
        &memory,
        &scenario.shape,
        parameters.bytes(),
        options,
    )
    .unwrap_or_else(|e| panic!("{e}"));
    let right = expected.iter().all(|(address, contents)| {
        let mut found = vec![0; contents.len()];
        memory.read(*address, &mut found).unwrap();
        found == *contents
    });
    Outcome { report, right }
}

/// In order with late and with early completion, then under random schedules.
pub(crate) fn schedules(random: u64) -> Vec<LaunchOptions> {
    let base = LaunchOptions { step_limit: 100_000, ..LaunchOptions::default() };
    let mut out =
        vec![base.clone(), LaunchOptions { completion: Completion::Early, ..base.clone() }];
    out.extend((1..=random).map(|seed| LaunchOptions {
        seed,
        completion: Completion::Seeded,
        ..base.clone()
    }));
    out
}

/// Lines of a text on which a marker stands.
pub(crate) fn lines_of(text: &str, marker: &str) -> Vec<u32> {
    let marked = |line: &str| line.split("// ").last().is_some_and(|m| m.trim() == marker);
    text.lines().enumerate().filter(|(_, l)| marked(l)).map(|(at, _)| at as u32 + 1).collect()
}
