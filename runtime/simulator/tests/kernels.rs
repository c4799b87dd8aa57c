//! Correct kernels: right results, no finding, whatever the schedule; and what the counters say of them.

mod support;

use support::{SCENARIOS, run, scenario, schedules};
use tgc_simulator::LaunchOptions;

#[test]
fn clean_kernels_are_clean_under_every_schedule() {
    for (name, scenario) in SCENARIOS {
        for options in schedules(16) {
            let outcome = run(scenario, scenario.text, &options);
            let words: Vec<String> =
                outcome.report.findings.iter().map(ToString::to_string).collect();
            assert!(
                outcome.report.is_clean(),
                "{name} seed {}: {}",
                options.seed,
                words.join("\n")
            );
            assert!(outcome.right, "{name} seed {} computes something else", options.seed);
        }
    }
}

#[test]
fn the_number_of_host_threads_changes_nothing() {
    for (name, scenario) in SCENARIOS {
        let with = |threads| {
            let options = LaunchOptions { threads, ..LaunchOptions::default() };
            run(scenario, scenario.text, &options).report
        };
        // Which block takes the last ticket, and sums, is the schedule's choice; its counts are not.
        assert_eq!(with(1), with(4), "{name}");
    }
}

#[test]
fn counters_show_bank_conflicts_and_split_sectors() {
    let transpose = scenario("transpose");
    let padded = run(transpose, transpose.text, &LaunchOptions::default()).report.counters;
    assert_eq!((padded.bank_rounds(), padded.sector_use()), (1.0, 1.0));
    assert_eq!((padded.shared_loads.requests, padded.shared_loads.units), (64, 64));
    let narrow = transpose.text.replace("33", "32");
    let conflicts = run(transpose, &narrow, &LaunchOptions::default()).report.counters;
    assert_eq!((conflicts.shared_loads.requests, conflicts.shared_loads.units), (64, 64 * 32));
    // Rows become columns of global memory: every lane touches a sector of its own.
    let scattered = transpose.text.replace("mul.wide.u32 %rd3, %r1, 4;", "mul.wide.u32 %rd3, %r1, 4;\n  mad.lo.s32 %r10, %r2, 32, %r3;\n  mul.wide.u32 %rd6, %r10, 4;").replace("add.s64 %rd4, %rd1, %rd3;", "add.s64 %rd4, %rd1, %rd6;");
    let scattered = run(transpose, &scattered, &LaunchOptions::default()).report.counters;
    assert_eq!(scattered.global_loads.units, 64 * 32);
}

#[test]
fn counters_of_a_product_are_exact() {
    let product = scenario("product");
    let counters = run(product, product.text, &LaunchOptions::default()).report.counters;
    assert_eq!(counters.matrix_multiply_adds, 64 * 8 * 16);
    assert_eq!(counters.mix["matrix"], 4);
    assert_eq!(counters.global_loads.bytes, (64 + 8) * 32);
    assert_eq!(counters.blocks, 1);
}
