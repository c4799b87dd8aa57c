//! Bad input at the command line: a clear message and the documented exit
//! code, never a panic, never a half-written file.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Exit code and standard error of a run.
fn tgc(args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tgc"))
        .args(args)
        .env_remove("TGC_NVRTC")
        .output()
        .expect("starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{args:?}: {text}");
    (output.status.code().unwrap_or(-1), text)
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("writes");
    path
}

const GRAPH: &str = "graph \"g\" {\n  symbol B 1..8\n  %0 = input name=x ty=\"f32[B, 4]\" : f32[B, 4]\n  %1 = exp %0 : f32[B, 4]\n  output \"y\" %1\n}\n";

#[track_caller]
fn expect(args: &[&str], code: i32, wanted: &[&str]) {
    let (found, text) = tgc(args);
    assert_eq!(found, code, "{args:?}: {text}");
    for word in wanted {
        assert!(text.contains(word), "{args:?}: `{word}` is not in: {text}");
    }
}

#[test]
fn files_that_are_no_models() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |p: &Path| p.to_str().expect("UTF-8").to_owned();
    let text = at(&write(folder.path(), "text.onnx", b"this is a text file, not a model\n"));
    let empty = at(&write(folder.path(), "empty.onnx", b""));
    let missing = at(&folder.path().join("missing.onnx"));
    let broken = at(&write(folder.path(), "broken.tgir", b"graph \"g\" {\n  %0 = explode\n}\n"));
    expect(&["compile", &text], 3, &["text.onnx"]);
    expect(&["compile", &empty], 3, &["empty.onnx"]);
    expect(&["compile", &missing], 3, &["missing.onnx"]);
    expect(&["compile", &broken], 3, &["line 2", "explode"]);
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("lists").collect();
    assert_eq!(left.len(), 3, "nothing is written for a model that does not compile");
}

#[test]
fn usage_errors_suggest() {
    let folder = tempfile::tempdir().expect("folder");
    let model = write(folder.path(), "m.tgir", GRAPH.as_bytes());
    let model = model.to_str().expect("UTF-8");
    expect(&["compil", model], 2, &["compile"]);
    expect(&["compile", model, "--target", "sm_95"], 2, &["sm_90a"]);
    expect(&["compile", model, "--dim", "b=4"], 2, &["did you mean `B`"]);
    expect(&["compile", model, "--passes", "saturat"], 2, &["saturat"]);
    expect(&["run", model, "--device", "cpuu"], 2, &["did you mean `cpu`"]);
    expect(&["run", model, "--shapes", "z:2x4"], 2, &["no input `z`"]);
    expect(&["run", model, "--shapes", "x:9x4"], 2, &["B", "1..8"]);
    expect(&["run", model, "--inputs", "x=nothing.npy"], 8, &["nothing.npy"]);
}

#[test]
fn a_device_is_a_demand() {
    let folder = tempfile::tempdir().expect("folder");
    let model = write(folder.path(), "m.tgir", GRAPH.as_bytes());
    let engine = folder.path().join("m.tgc");
    let (model, engine) = (model.to_str().expect("UTF-8"), engine.to_str().expect("UTF-8"));
    expect(&["compile", "-q", model, "-o", engine, "--target", "sm_80", "--no-nvrtc"], 0, &[]);
    expect(&["run", engine, "--device", "cpu"], 5, &["no plan for `cpu`", "sm_80"]);
}

#[test]
fn damaged_engines_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let model = write(folder.path(), "m.tgir", GRAPH.as_bytes());
    let engine = folder.path().join("m.tgc");
    expect(
        &["compile", "-q", model.to_str().expect("UTF-8"), "-o", engine.to_str().expect("UTF-8")],
        0,
        &[],
    );
    let bytes = std::fs::read(&engine).expect("reads");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    for (name, damaged) in [
        ("flip.tgc", flipped.as_slice()),
        ("cut.tgc", &bytes[..bytes.len() / 2]),
        ("empty.tgc", &[]),
    ] {
        let path = write(folder.path(), name, damaged);
        expect(&["run", path.to_str().expect("UTF-8")], 3, &[name, "no intact engine"]);
    }
    let path = write(folder.path(), "whole.tgc", &bytes);
    expect(&["run", "-q", path.to_str().expect("UTF-8")], 0, &[]);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let model = write(folder.path(), "m.tgir", GRAPH.as_bytes());
    let model = model.to_str().expect("UTF-8");
    expect(&["compile", model, "-o", "/dev/full/m.tgc"], 8, &["/dev/full"]);
    expect(&["compile", model, "-o", "/nonexistent-folder/m.tgc"], 8, &["cannot write"]);
}

#[test]
fn wrong_rules_files_name_the_line() {
    let folder = tempfile::tempdir().expect("folder");
    let rules = write(
        folder.path(),
        "my.rules",
        b"# law\nrule a.b : real phase recognise\n  (explode ?x) => ?x\n",
    );
    expect(&["rules", "--check", rules.to_str().expect("UTF-8")], 2, &["my.rules:3", "explode"]);
}
