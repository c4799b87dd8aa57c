//! Everything that decides without a driver: variants, layout, growth,
//! fallback of modules, buckets, states, copies, and the answer without a driver.

use std::cell::RefCell;

use bytes::Bytes;
use tgc_ir::DType;
use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::facts::{Bounds, Relation, Require};
use tgc_ir::kernel_program::{
    Access, Anchor, Body, Buffer, Epilogue, InstKind, KernelProgram, Loops, ScalarConst, Store,
    axis,
};
use tgc_ir::plan::{
    HostOp, HostStep, Launch, Place, Plan, PlanBuffer, Port, Source, Step, SymbolSource, Variant,
};
use tgc_ir::tensor::Tensor;

use super::bind::{Bound, Signature};
use super::device::runs_on;
use super::error::{CudaError, DriverFault};
use super::graphs::{Buckets, Slot};
use super::launch::{Values, element_offsets, is_dense};
use super::layout::{Layout, Staged, check_limit, grown_bytes};
use super::module::{self, Module};
use super::program::{LaunchSite, Node, Program, Work};
use super::state::StatePairs;
use super::steps::Frame;
use super::transfer::{Shape, gather, scatter};
use super::{CudaEngine, Options, devices, is_present};

fn seq() -> Dim {
    Dim::symbol("seq")
}

fn buffer(name: &str, shape: &[Dim], place: Place) -> PlanBuffer {
    PlanBuffer {
        name: name.to_owned(),
        dtype: DType::F32,
        shape: shape.to_vec(),
        strides: Buffer::dense_strides(shape),
        bytes: Dim::product(shape) * Dim::Const(4),
        place,
    }
}

fn port(name: &str, shape: &[Dim], buffer: u32) -> Port {
    Port { name: name.to_owned(), dtype: DType::F32, shape: shape.to_vec(), buffer, state: None }
}

fn variant(entry: &str, guard: Vec<Require>, grid: Dim, workspace_bytes: Dim) -> Variant {
    Variant {
        guard,
        entry: entry.to_owned(),
        grid: [grid, Dim::ONE, Dim::ONE],
        block: [128, 1, 1],
        shared_bytes: Dim::ZERO,
        workspace_bytes,
    }
}

fn multiple_of_8() -> Require {
    let (lhs, rhs) = (seq(), Dim::Const(8));
    Require { lhs, relation: Relation::MultipleOf, rhs, origin: "wide accesses".into() }
}

/// x[seq, 4] → hidden in the arena → y[seq, 4]; both launches of one kernel with two variants.
fn plan() -> Plan {
    let shape = [seq(), Dim::Const(4)];
    let mut body = Body::default();
    let value = body.push(DType::F32, InstKind::Const(ScalarConst::Int(1)));
    let argument = |access| Buffer {
        access,
        dtype: DType::F32,
        shape: shape.to_vec(),
        strides: Buffer::dense_strides(&shape),
        constant: false,
    };
    let stores = vec![Store { buffer: 1, index: vec![axis(0), axis(1)], value }];
    let kernel = KernelProgram {
        name: "loops_0".into(),
        buffers: vec![argument(Access::Read), argument(Access::Write)],
        anchor: Anchor::Loops(Loops {
            extents: shape.to_vec(),
            epilogue: Epilogue { body, stores },
        }),
    };
    let wide =
        variant("loops_0_by_8", vec![multiple_of_8()], seq().ceil_div(&Dim::Const(128)), Dim::ZERO);
    let plain = variant("loops_0", Vec::new(), seq(), seq() * Dim::Const(16));
    let launch = |from, to| {
        Step::Launch(Launch {
            kernel: 0,
            buffers: vec![from, to],
            variants: vec![wide.clone(), plain.clone()],
            provenance: Vec::new(),
        })
    };
    let bytes = seq() * Dim::Const(16);
    Plan {
        target: "sm_80".into(),
        symbols: vec![SymbolSource {
            symbol: Symbol::new("seq"),
            bounds: Bounds { low: 0, high: Some(512), multiple_of: 1 },
            source: Source::InputExtent { input: 0, axis: 0, solve: Dim::symbol("$0") },
        }],
        requires: Vec::new(),
        inputs: vec![port("x", &shape, 0)],
        outputs: vec![port("y", &shape, 2)],
        buffers: vec![
            buffer("x", &shape, Place::Input(0)),
            buffer("hidden", &shape, Place::Arena { offset: Dim::Const(64) }),
            buffer("y", &shape, Place::Output(0)),
        ],
        steps: vec![launch(0, 1), launch(1, 2)],
        arena_bytes: bytes + Dim::Const(64),
        kernels: vec![kernel],
    }
}

fn site(program: &Program) -> &LaunchSite {
    match &program.segments[0][0] {
        Work::Launch(site) => site,
        Work::Copy { .. } => panic!("a launch comes first"),
    }
}

fn layout(plan: &Plan, table: &[i64], staged: bool) -> Result<Layout, CudaError> {
    let program = Program::new(plan)?;
    let (inputs, outputs) = (vec![staged; plan.inputs.len()], vec![staged; plan.outputs.len()]);
    let staged = Staged { inputs: &inputs, outputs: &outputs };
    Layout::new(&program, Values { plan, table }, staged)
}

#[test]
fn the_first_variant_whose_guard_holds_is_launched() {
    let plan = plan();
    let program = Program::new(&plan).expect("the plan is well formed");
    let chosen = |n: i64| {
        let values = Values { plan: &plan, table: &[n] };
        let (variant, entry) = values.select(site(&program)).expect("the last has no guard");
        let grid = values.grid(site(&program), variant).expect("it fits");
        (program.entries[entry].name.clone(), grid)
    };
    assert_eq!(chosen(256), ("loops_0_by_8".into(), Some([2, 1, 1])));
    assert_eq!(chosen(7), ("loops_0".into(), Some([7, 1, 1])));
    assert_eq!(chosen(0), ("loops_0_by_8".into(), None), "an empty grid launches nothing");
}

#[test]
fn equal_entries_are_one_and_workspace_is_an_argument() {
    let program = Program::new(&plan()).expect("the plan is well formed");
    let found: Vec<(&str, usize)> =
        program.entries.iter().map(|e| (e.name.as_str(), e.arguments)).collect();
    assert_eq!(found, [("loops_0_by_8", 3), ("loops_0", 4)]);
    assert_eq!(program.segments.len(), 1, "launches in a row are one segment");
}

#[test]
fn grids_beyond_the_hardware_are_refused() {
    let mut plan = plan();
    for step in &mut plan.steps {
        if let Step::Launch(launch) = step {
            launch.variants[1].grid = [Dim::ONE, seq() * Dim::Const(1000), Dim::ONE];
        }
    }
    let program = Program::new(&plan).expect("the plan is well formed");
    let values = Values { plan: &plan, table: &[67] };
    let (variant, _) = values.select(site(&program)).expect("the last has no guard");
    let error = values.grid(site(&program), variant).expect_err("y takes 65535").to_string();
    assert!(error.contains("loops_0") && error.contains("67000"), "{error}");
}

#[test]
fn layouts_are_disjoint_and_aligned() {
    let layout = layout(&plan(), &[7], true).expect("it fits");
    // Table, input of 112 bytes, output, arena of 176 bytes, workspace of 112.
    assert_eq!((layout.inputs[0], layout.outputs[0]), (256, 512));
    assert_eq!(layout.staged, [256, 512, 768]);
    assert_eq!((layout.arena, layout.workspace, layout.total), (768, 1024, 1280));
    assert_eq!(layout.workspace_bytes, 112);
    assert_eq!(layout.buffers, [(112, 0), (112, 64), (112, 0)]);
}

#[test]
fn ports_of_a_caller_take_no_room() {
    let (ours, theirs) = (layout(&plan(), &[8], true), layout(&plan(), &[8], false));
    let (ours, theirs) = (ours.expect("it fits"), theirs.expect("it fits"));
    assert_eq!(theirs.arena, 256, "only the table lies before it");
    assert!(theirs.total < ours.total);
    assert_eq!(theirs.workspace_bytes, 0, "the wide variant has none");
}

#[test]
fn plans_that_reach_outside_their_arena_are_refused() {
    let mut plan = plan();
    plan.arena_bytes = Dim::Const(64);
    let error = layout(&plan, &[8], true).expect_err("hidden does not fit").to_string();
    assert!(error.contains("hidden"), "{error}");
}

#[test]
fn blocks_grow_when_a_larger_binding_comes_and_never_shrink() {
    let small = layout(&plan(), &[8], true).expect("it fits").total;
    let large = layout(&plan(), &[512], true).expect("it fits").total;
    let first = grown_bytes(0, small).expect("nothing is there");
    assert!(first >= small);
    let second = grown_bytes(first, large).expect("512 rows need more");
    assert!(second >= large);
    assert_eq!(grown_bytes(second, small), None);
    assert_eq!(grown_bytes(second, large), None);
    assert_eq!(grown_bytes(1 << 20, (5 << 20) + 1), Some(6 << 20), "large ones grow by pages");
}

#[test]
fn limits_say_both_figures() {
    assert!(check_limit(4096, Some(4096)).is_ok());
    assert!(check_limit(u64::MAX, None).is_ok());
    let error = check_limit(4097, Some(4096)).expect_err("one byte too many").to_string();
    assert!(error.contains("4097") && error.contains("4096"), "{error}");
}

/// A driver that knows only some images.
fn load_recording(
    module: &Module,
    answer: impl Fn(&[u8]) -> u32,
) -> (Result<Vec<u8>, CudaError>, Vec<Vec<u8>>) {
    let tried = RefCell::new(Vec::new());
    let loaded = module::load(module, |image| {
        tried.borrow_mut().push(image.to_vec());
        match answer(image) {
            0 => Ok(image.to_vec()),
            code => Err(DriverFault {
                call: "cuModuleLoadData",
                code,
                name: format!("ERROR_{code}"),
                text: "refused".into(),
            }),
        }
    });
    (loaded, tried.into_inner())
}

fn unit(cubin: &'static [u8], ptx: &'static [u8]) -> Module {
    Module {
        name: "sm_80/unit_0".into(),
        cubin: Bytes::from_static(cubin),
        ptx: Bytes::from_static(ptx),
    }
}

#[test]
fn machine_code_is_tried_first_and_ptx_when_it_is_foreign() {
    let both = unit(b"elf", b"ptx");
    let (loaded, tried) = load_recording(&both, |_| 0);
    assert_eq!((loaded.expect("it loads"), tried.len()), (b"elf".to_vec(), 1));
    for foreign in [209, 222] {
        let (loaded, _) = load_recording(&both, |i| if i == b"elf" { foreign } else { 0 });
        assert_eq!(loaded.expect("the PTX loads"), b"ptx");
    }
    let (loaded, tried) = load_recording(&both, |_| 200);
    assert!(matches!(loaded, Err(CudaError::Load { ptx: None, .. })));
    assert_eq!(tried.len(), 1, "a damaged image has no second chance");
}

#[test]
fn refusals_of_both_forms_are_told() {
    let answer = |image: &[u8]| if image == b"elf" { 209 } else { 218 };
    let error =
        load_recording(&unit(b"elf", b"ptx"), answer).0.expect_err("neither loads").to_string();
    assert!(error.contains("ERROR_209") && error.contains("ERROR_218"), "{error}");
    let (only_ptx, _) = load_recording(&unit(b"", b"ptx"), |_| 0);
    assert_eq!(only_ptx.expect("it loads"), b"ptx");
    let (none, tried) = load_recording(&unit(b"", b""), |_| 0);
    assert!(none.expect_err("there is no code").to_string().contains("NVRTC"));
    assert!(tried.is_empty());
}

#[test]
fn targets_run_where_ptx_says() {
    assert!(runs_on("sm_80", (8, 0)) && runs_on("sm_80", (9, 0)) && !runs_on("sm_86", (8, 0)));
    assert!(runs_on("sm_90a", (9, 0)) && !runs_on("sm_90a", (10, 0)));
    assert!(runs_on("sm_100f", (10, 3)) && !runs_on("sm_100f", (12, 0)));
    assert!(runs_on("compute_80", (12, 0)) && !runs_on("cpu", (9, 0)) && !runs_on("sm_", (9, 0)));
    assert!(!runs_on("sm_90x", (9, 0)));
}

#[test]
fn without_a_driver_there_is_an_error_and_no_panic() {
    let opened = CudaEngine::new(plan(), Vec::new(), Vec::new(), Options::default());
    if is_present() {
        // Whatever is wrong then, it is not a missing library.
        assert!(!matches!(opened, Err(CudaError::NoDriver)));
    } else {
        assert!(matches!(opened, Err(CudaError::NoDriver)));
        let error = devices().expect_err("no driver, no devices").to_string();
        assert!(error.contains("libcuda"), "{error}");
    }
}

#[test]
fn segments_are_captured_when_they_come_again() {
    let mut buckets: Buckets<u32> = Buckets::new(2);
    let come = |buckets: &mut Buckets<u32>, table: &[i64], segment| match buckets.slot(
        table,
        &[100],
        segment,
    ) {
        Slot::Captured(graph) => format!("replay {graph}"),
        slot @ Slot::New => {
            *slot = Slot::Seen;
            "direct".to_owned()
        }
        slot @ Slot::Seen => {
            *slot = Slot::Captured(7);
            "capture".to_owned()
        }
    };
    let shown: Vec<String> = (0..3).map(|_| come(&mut buckets, &[5], 0)).collect();
    assert_eq!(shown, ["direct", "capture", "replay 7"]);
    assert_eq!(come(&mut buckets, &[5], 1), "direct", "segments have graphs of their own");
    assert_eq!(come(&mut buckets, &[6], 0), "direct", "another binding is another bucket");
    assert!(matches!(buckets.slot(&[5], &[200], 0), Slot::New), "moved memory is too");
    assert_eq!(buckets.captured(), 1);
    for n in 0..64 {
        come(&mut buckets, &[1000 + n], 0);
    }
    assert_eq!(buckets.captured(), 0, "what was unused for longest is gone");
}

#[test]
fn binding_happens_when_extents_change() {
    let plan = plan();
    let (signature, mut bound) = (Signature::new(&plan), Bound::default());
    let mut bind = |n: usize| bound.bind(&plan, &signature, &[&[n, 4]], &[]);
    assert!(bind(5).expect("it binds"));
    assert!(!bind(5).expect("it is bound"));
    assert!(bind(6).expect("it binds"));
    let error = bind(513).expect_err("above the bound").to_string();
    assert!(error.contains("seq"), "{error}");
    assert!(bind(6).expect("it binds"), "a failed binding is not remembered");
    let wrong = bound.bind(&plan, &signature, &[&[6, 5]], &[]).expect_err("4 columns").to_string();
    assert!(wrong.contains("`x`"), "{wrong}");
}

#[test]
fn launches_without_entries_and_stores_to_weights_are_refused() {
    let mut bare = plan();
    if let Step::Launch(launch) = &mut bare.steps[1] {
        launch.variants.clear();
    }
    let error = Program::new(&bare).expect_err("nothing to launch").to_string();
    assert!(error.contains("loops_0"), "{error}");
    let mut storing = plan();
    storing.buffers[1].place = Place::Weight(0);
    assert!(Program::new(&storing).expect_err("weights are shared").to_string().contains("weight"));
    let mut outside = plan();
    outside.buffers[2].place = Place::Output(3);
    assert!(Program::new(&outside).is_err());
}

#[test]
fn host_steps_cut_segments_and_counts_start_at_their_bound() {
    let mut plan = plan();
    plan.symbols.push(SymbolSource {
        symbol: Symbol::new("found"),
        bounds: Bounds { low: 0, high: None, multiple_of: 1 },
        source: Source::Data { step: 1, bound: seq() * Dim::Const(4) },
    });
    let index = [Dim::Const(2), Dim::symbol("found")];
    let mut indices = buffer("indices", &index, Place::Arena { offset: Dim::ZERO });
    indices.bytes = Dim::ZERO;
    plan.buffers.push(indices);
    let host = HostStep {
        op: HostOp::NonZero,
        inputs: vec![1],
        outputs: vec![3],
        count: Some(Symbol::new("found")),
    };
    plan.steps.insert(1, Step::Host(host.clone()));
    let program = Program::new(&plan).expect("the plan is well formed");
    assert!(matches!(program.steps[..], [Node::Segment(0), Node::Host(_), Node::Segment(1)]));
    let mut bound = Bound::default();
    bound.bind(&plan, &Signature::new(&plan), &[&[5, 4]], &[]).expect("it binds");
    assert_eq!(bound.table, [5, 20]);
    plan.steps[1] = Step::Host(HostStep { inputs: vec![1, 1], ..host });
    assert!(Program::new(&plan).is_err(), "nonzero takes one operand");
}

#[test]
fn states_pair_inputs_with_outputs_of_equal_type() {
    let mut plan = plan();
    assert!(matches!(StatePairs::new(&plan, true), Err(CudaError::State(_))));
    plan.inputs[0].state = Some(0);
    let none = StatePairs::new(&plan, false).expect("not asked for");
    assert!(none.pairs.is_empty() && none.given[0]);
    let states = StatePairs::new(&plan, true).expect("they pair");
    assert_eq!(
        (states.pairs, states.given, states.taken),
        (vec![(0, 0)], vec![false], vec![false])
    );
    plan.buffers[0].strides = vec![Dim::ONE, seq()];
    assert!(StatePairs::new(&plan, true).is_err(), "strided states would need copies");
}

#[test]
fn strided_copies_become_the_longest_runs() {
    let plan = plan();
    let values = Values { plan: &plan, table: &[3] };
    let shape = [seq(), Dim::Const(4)];
    let dense = buffer("dense", &shape, Place::Input(0));
    assert_eq!(values.copy_runs(&dense, &dense).expect("dense"), [(0, 0, 48)]);
    let padded = PlanBuffer { strides: vec![Dim::Const(6), Dim::ONE], ..dense.clone() };
    assert_eq!(
        values.copy_runs(&dense, &padded).expect("rows"),
        [(0, 0, 16), (16, 24, 16), (32, 48, 16)]
    );
    let transposed = PlanBuffer { strides: vec![Dim::ONE, seq()], ..dense.clone() };
    assert_eq!(values.copy_runs(&transposed, &dense).expect("elements").len(), 12);
    let many = Values { plan: &plan, table: &[4000] };
    let error = many.copy_runs(&transposed, &dense).expect_err("16000 copies").to_string();
    assert!(error.contains("dense"), "{error}");
    let shorter = PlanBuffer { shape: vec![Dim::Const(2), Dim::Const(4)], ..dense.clone() };
    let pair = Plan { buffers: vec![dense, shorter], ..plan.clone() };
    let layout = Layout { buffers: vec![(48, 0), (32, 0)], ..Layout::default() };
    let values = Values { plan: &pair, table: &[3] };
    let addresses = &[0x1000, 0x2000];
    let frame = Frame { values, layout: &layout, addresses, table: 0, workspace: 0 };
    assert!(frame.copies(0, 1).is_err(), "more than was planned");
    assert_eq!(frame.copies(1, 0).expect("it has room"), [(0x2000, 0x1000, 32)]);
}

#[test]
fn strided_bytes_round_trip() {
    let plan = plan();
    let transposed = PlanBuffer { strides: vec![Dim::ONE, seq()], ..plan.buffers[0].clone() };
    let mut strided = plan.clone();
    strided.buffers[0] = transposed.clone();
    let shape = || Shape::of(&strided, &[3], 0, 48).expect("it fits");
    assert!(!is_dense(&shape().extents, &shape().strides));
    let values: Vec<f32> = (0..12u8).map(f32::from).collect();
    let tensor = Tensor::from_f32(&[3, 4], &values);
    let mut bytes = vec![0; 48];
    scatter(&transposed, &shape(), &tensor, &mut bytes).expect("equal types");
    assert_eq!(bytes[4..8], 4f32.to_le_bytes(), "the second row comes second");
    assert_eq!(gather(&transposed, shape(), &bytes).expect("whole"), tensor);
    assert!(gather(&transposed, shape(), &bytes[..20]).is_err());
    assert!(Shape::of(&strided, &[4], 0, 48).is_err(), "larger than planned");
    assert_eq!(element_offsets(&[2, 2], &[1, 8], 4).collect::<Vec<_>>(), [0, 32, 4, 36]);
}
