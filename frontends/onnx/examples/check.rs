//! Checks cases in the layout of the ONNX backend tests on the reference: `cargo run --release --example check -- CASE...`

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::time::Instant;

fn main() {
    let mut passed = 0;
    let cases: Vec<String> = std::env::args().skip(1).collect();
    for case in &cases {
        let start = Instant::now();
        let result = common::run_case(Path::new(case));
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                passed += 1;
                println!("ok {case} {seconds:.1} s");
            }
            Err(error) => println!("FAIL {case} {seconds:.1} s: {error}"),
        }
    }
    println!("{passed} of {} pass", cases.len());
}
