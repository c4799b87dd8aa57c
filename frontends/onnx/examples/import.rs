//! Imports models and says what became of them: `cargo run --example import -- MODEL...`

fn main() {
    for path in std::env::args().skip(1) {
        let model = match tgc_onnx::load(std::path::Path::new(&path)) {
            Ok(model) => model,
            Err(error) => {
                println!("{path}: {error}");
                continue;
            }
        };
        match tgc_onnx::import(&model) {
            Ok(imported) => {
                println!("{path}: {} nodes", imported.graph.len());
                for require in imported.graph.facts.requires() {
                    println!("  requires {require} from {}", require.origin);
                }
                imported.notes.iter().for_each(|n| println!("  note: {n}"));
            }
            Err(errors) => println!("{path}:\n{errors}"),
        }
    }
}
