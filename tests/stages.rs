//! Graphs in text form through every stage: the optimised graph, the cut and
//! the kernels are snapshots; kernels and cpu device give what the graph gives.

use std::fmt::Write as _;

use tgc::device::{RunOptions, open};
use tgc::inputs::{Style, ports, random};
use tgc::tolerance::compare;
use tgc::{Options, Session};
use tgc_ir::Tensor;
use tgc_ir::eval::{Mode, run};
use tgc_ir::plan::{Event, Step, walk};

#[test]
fn text_files_through_all_stages() {
    insta::glob!("tgir/*.tgir", |path| {
        let text = std::fs::read_to_string(path).expect("readable");
        let parsed = tgc_ir::text::parse(&text).expect("parses");
        let printed = tgc_ir::text::print_with_weights(&parsed, 64);
        let again = tgc_ir::text::parse(&printed).expect("parses again");
        assert_eq!(
            tgc_ir::text::print_with_weights(&again, 64),
            printed,
            "print and parse are inverse"
        );

        let session = Session::new(Options { verify: false, ..Options::default() });
        let outcome = session.compile(path).expect("compiles");
        let mut shown = tgc_ir::text::print(&outcome.optimised);
        let plan = &outcome.engine.plans["cpu"];
        let mut depth = 0;
        walk(&plan.steps, &mut |event| {
            let (line, opens) = match event {
                Event::Enter(Step::Launch(l)) => {
                    (format!("launch {}", plan.kernels[l.kernel as usize].name), 0)
                }
                Event::Enter(Step::Copy { .. }) => ("launch copy".to_owned(), 0),
                Event::Enter(Step::Host(host)) => (format!("host {:?}", host.op), 0),
                Event::Enter(Step::If { .. }) => ("if".to_owned(), 1),
                Event::Enter(Step::Loop(l)) => {
                    let (carried, stacked) = (l.carried.len(), l.stacked.len());
                    (format!("loop {:?} copies {carried} stacks {stacked}", l.trip), 1)
                }
                Event::Else(_) => ("else".to_owned(), 0),
                Event::Leave(_) => {
                    depth -= 1;
                    return;
                }
            };
            let indent = depth - usize::from(matches!(event, Event::Else(_)));
            let _ = writeln!(shown, "{}{line}", "  ".repeat(indent));
            depth += opens;
        });
        insta::with_settings!({ snapshot_path => path.parent().expect("in a folder"), prepend_module_to_snapshot => false,
            omit_expression => true, snapshot_suffix => path.file_stem().expect("a name").to_string_lossy() }, {
            insta::assert_snapshot!("stages", shown);
        });

        let binding = tgc::verify::small_binding(&outcome.imported).expect("sizes");
        for style in [Style::Usual, Style::Hard] {
            let inputs = random(&outcome.imported, &binding, 7, style).expect("inputs");
            let names: Vec<String> = ports(&outcome.imported).into_iter().map(|(n, _)| n).collect();
            let named: Vec<(&str, Tensor)> =
                names.iter().map(String::as_str).zip(inputs.iter().cloned()).collect();
            let want = run(&outcome.imported, &named, Mode::Exact).expect("evaluates");
            let optimised = run(&outcome.optimised, &named, Mode::Exact).expect("evaluates");
            let mut results = vec![("optimised", optimised)];
            for device in ["reference", "cpu"] {
                let mut instance =
                    open(&outcome.engine, device, RunOptions { threads: 1 }).expect("opens");
                results.push((device, instance.run(&inputs).expect("runs")));
            }
            for (what, got) in results {
                for (got, want) in got.iter().zip(&want) {
                    let epsilon = want.dtype().epsilon().unwrap_or(0.0).max(1e-6);
                    let scale = want.to_f64().iter().fold(0.0f64, |m, v| m.max(v.abs())).min(1e30);
                    let difference = compare(got, want, 8.0 * epsilon, 8.0 * epsilon * scale)
                        .expect("comparable");
                    assert!(difference.excess <= 1.0, "{}: {what}: {difference:?}", path.display());
                }
            }
        }
    });
}
