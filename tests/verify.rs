//! `tgc verify`: faults put in on purpose are found and named, right models
//! pass, and every side can be compared.

use std::path::Path;
use std::process::Command;

use tgc::inputs::{Style, random};
use tgc::reduce::reduce;
use tgc::verify::{Finding, bisect, check_launches, small_binding};
use tgc::{Options, Outcome, Session};
use tgc_ir::Tensor;
use tgc_ir::kernel_program::KernelProgram;

/// GELU and a scaled sum in an exporter's spelling, so that right rules fire
/// before and after the wrong one; `OP` is the place of the op under test.
const GRAPH: &str = r#"graph "g" {
  %0 = input name=x ty="f32[3, 8]"
  %1 = splat value=0.7071067811865475 dtype=f32
  %2 = mul %0 %1
  %3 = erf %2
  %4 = splat value=1.0 dtype=f32
  %5 = add %3 %4
  %6 = mul %0 %5
  %7 = splat value=0.5 dtype=f32
  %8 = mul %6 %7
  %9 = OP
  %10 = reduce %9 op=max axes=[1]
  %11 = sub %9 %10
  %12 = exp %11
  %13 = reduce %12 op=sum axes=[1]
  %14 = div %12 %13
  output "y" %14
  output "z" %9
}
"#;

/// A wrong rule and the op that it meets.
const WRONG_RULES: &[(&str, &str)] = &[
    ("(exp ?x) => ?x", "exp %8"),
    ("(neg ?x) => ?x", "neg %8"),
    ("(abs ?x) => ?x", "abs %8"),
    ("(tanh ?x) => ?x", "tanh %8"),
    ("(floor ?x) => ?x", "floor %8"),
    ("(sin ?x) => ?x", "sin %8"),
    ("(max ?x ?y) => ?x", "max %8 %0"),
    ("(min ?x ?y) => ?y", "min %8 %0"),
    ("(sub ?x ?y) => ?x", "sub %8 %0"),
    ("(div ?x ?y) => ?y", "div %8 %0"),
];

fn named(graph: &tgc_ir::Graph, tensors: &[Tensor]) -> Vec<(String, Tensor)> {
    let names = tgc::inputs::ports(graph).into_iter().map(|(name, _)| name);
    names.zip(tensors.iter().cloned()).collect()
}

fn drawn(graph: &tgc_ir::Graph) -> Vec<(String, Tensor)> {
    let binding = small_binding(graph).expect("small sizes exist");
    named(graph, &random(graph, &binding, 7, Style::Usual).expect("extents are bound"))
}

fn borrowed(named: &[(String, Tensor)]) -> Vec<(&str, Tensor)> {
    named.iter().map(|(n, t)| (n.as_str(), t.clone())).collect()
}

#[test]
fn bisection_names_each_wrong_rule() {
    let folder = tempfile::tempdir().expect("folder");
    for (i, (rule, op)) in WRONG_RULES.iter().enumerate() {
        let path = folder.path().join(format!("g{i}.tgir"));
        std::fs::write(&path, GRAPH.replace("OP", op)).expect("writes");
        let text = format!("rule wrong.fault : exact phase recognise\n  {rule}\n");
        let options = Options {
            rules: vec![("wrong".to_owned(), text)],
            verify: false,
            ..Options::default()
        };
        let session = Session::new(options.clone());
        let (graph, _) = session.import(&path).expect("imports");
        let inputs = drawn(&graph);
        let found = bisect(&options, &graph, &borrowed(&inputs)).expect("evaluates");
        let found = found.unwrap_or_else(|| panic!("{rule}: nothing found"));
        assert_eq!(found.rules, ["wrong.fault"], "{rule}: fuel {}", found.fuel);
        let (small, _) = reduce(&graph, &mut |candidate: &tgc_ir::Graph| {
            let inputs = drawn(candidate);
            bisect(&options, candidate, &borrowed(&inputs)).is_ok_and(|found| found.is_some())
        });
        let lines = tgc_ir::text::print(&small);
        assert!(small.len() <= 3, "{rule}: {} nodes are left\n{lines}", small.len());
        let right = Options { rules: Vec::new(), ..options };
        let clean = bisect(&right, &graph, &borrowed(&inputs)).expect("evaluates");
        assert!(clean.is_none(), "{op}: a false alarm, {:?}", clean.map(|c| c.rules));
    }
}

/// Ops in the text form of kernels and what replaces the first that occurs. No
/// `sub`: adding the greatest score where softmax subtracts it changes nothing.
const WRONG_OPS: &[(&str, &str)] =
    &[("div", "mul"), ("mul", "add"), ("add", "mul"), ("exp", "tanh"), ("sqrt", "exp")];

/// The kernel with one op replaced by another, in every way that it allows.
fn mutants(kernel: &KernelProgram) -> Vec<KernelProgram> {
    let text = ron::to_string(kernel).expect("kernels have a text form");
    let scalar = |op: &str| format!("Scalar(\"{op}\"");
    let met = WRONG_OPS.iter().filter(|(from, _)| text.contains(&scalar(from)));
    let wrong = met.map(|(from, to)| text.replacen(&scalar(from), &scalar(to), 1));
    wrong.map(|text| ron::from_str(&text).expect("the text form reads back")).collect()
}

fn compiled(path: &Path) -> Outcome {
    let options = Options { verify: false, ..Options::default() };
    Session::new(options).compile(path).expect("compiles")
}

#[test]
fn layers_name_each_wrong_kernel() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tgir");
    let mut models: Vec<_> = std::fs::read_dir(folder)
        .expect("lists")
        .map(|e| e.expect("lists").path())
        .filter(|p| p.extension().is_some_and(|e| e == "tgir"))
        .collect();
    models.sort();
    let mut faults = 0;
    for path in &models {
        let outcome = compiled(path);
        let inputs = drawn(&outcome.imported);
        let clean = check_launches(&outcome, &borrowed(&inputs)).expect("evaluates");
        // A clean kernel is one that was compared and agrees.
        let wrong: Vec<_> =
            clean.iter().filter(|c| !matches!(c.finding, Finding::Agrees(_))).collect();
        assert!(wrong.is_empty(), "{}: a false alarm: {wrong:?}", path.display());
        let mut faulty = compiled(path);
        for kernel in &outcome.engine.plans["cpu"].kernels {
            let name = &kernel.name;
            if !clean.iter().any(|c| c.kernel == *name) {
                continue;
            }
            for wrong in mutants(kernel) {
                let plan = faulty.engine.plans.get_mut("cpu").expect("the cpu is the target");
                let place = plan.kernels.iter_mut().find(|k| k.name == *name).expect("it is there");
                *place = wrong;
                let found = check_launches(&faulty, &borrowed(&inputs)).expect("evaluates");
                let named: Vec<&str> =
                    found.iter().filter(|c| c.differs()).map(|c| c.kernel.as_str()).collect();
                assert!(!named.is_empty(), "{}: a fault in {name} is missed", path.display());
                assert!(named.iter().all(|n| n == name), "{}: {name}: {named:?}", path.display());
                faults += 1;
            }
            let plan = faulty.engine.plans.get_mut("cpu").expect("the cpu is the target");
            plan.kernels.clone_from(&outcome.engine.plans["cpu"].kernels);
        }
    }
    assert!(faults >= 10, "only {faults} kernels could be made wrong");
    println!("{faults} of {faults} wrong kernels named");
}

#[test]
fn a_model_with_a_fault_shrinks_to_it() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (model, rules, small) = (at("m.tgir"), at("wrong.rules"), at("small.tgir"));
    std::fs::write(&model, GRAPH.replace("OP", "floor %8")).expect("writes");
    let rule = "rule wrong.fault : exact phase recognise\n  (floor ?x) => ?x\n";
    std::fs::write(&rules, rule).expect("writes");
    let reduce = |property: &str| {
        tgc(&["reduce", &model, "--while", property, "--rules", &rules, "-o", &small])
    };
    for property in ["optimised", "cpu", "grep -q floor {}"] {
        let (code, out, err) = reduce(property);
        assert_eq!(code, 0, "{property}: {out}{err}");
        let text = std::fs::read_to_string(&small).expect("reads");
        let graph = tgc_ir::text::parse(&text).expect("what is left is a graph");
        assert!(graph.len() == 2 && text.contains("floor"), "{property}: {text}");
    }
    let (code, _, err) = reduce("error:no such error");
    assert!(code == 2 && err.contains("not true of the model itself"), "{err}");
    let (code, _, err) = reduce("nothing");
    assert!(code == 2 && err.contains("neither optimised"), "{err}");
}

/// Exit code, standard output and standard error of a run.
fn tgc(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tgc")).args(args).output().expect("starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn sides_are_compared_at_the_command_line() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (model, saved, broken) = (at("m.tgir"), at("saved.npz"), at("broken.npz"));
    std::fs::write(&model, GRAPH.replace("OP", "exp %8")).expect("writes");
    let (code, _, err) = tgc(&["run", &model, "--save-outputs", &saved, "--no-verify"]);
    assert_eq!(code, 0, "{err}");
    for against in ["imported", "optimised", "reference", &saved] {
        let (code, out, err) =
            tgc(&["verify", &model, "--against", against, "--layers", "--bisect"]);
        assert_eq!(code, 0, "{against}: {out}{err}");
        assert!(out.contains("ok    y") && out.contains("no rewrite changes an answer"), "{out}");
    }
    let mut outputs = tgc::npy::read_npz(saved.as_ref()).expect("reads");
    let mut values = outputs[0].1.values();
    values[5] = tgc_ir::scalar::Value::Float(f64::NAN);
    outputs[0].1 = Tensor::from_values(outputs[0].1.dtype(), &[3, 8], &values);
    let pairs: Vec<(&str, &Tensor)> = outputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    tgc::npy::write_npz(broken.as_ref(), &pairs).expect("writes");
    let (code, out, err) = tgc(&["verify", &model, "--against", &broken]);
    assert_eq!(code, 4, "{out}{err}");
    assert!(
        out.contains("FAIL") && out.contains("1 elements are finite on one side only"),
        "{out}"
    );
    let (code, out, _) = tgc(&["verify", &model, "--json"]);
    assert!(code == 0 && out.contains("tgc.verify/1") && out.contains("cosine"), "{out}");
    let (code, _, err) = tgc(&["verify", &model, "--against", "nowhere"]);
    assert!(code == 2 && err.contains("neither a side"), "{err}");
    let (code, _, err) = tgc(&["verify", &model, "--against", "null"]);
    assert!(code == 2 && err.contains("computes nothing"), "{err}");
}
