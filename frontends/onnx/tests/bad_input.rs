//! Models that are damaged, hostile or wrong: each a clear message, none a panic.

use std::path::Path;

use prost::Message;
use tgc_onnx::proto::*;
use tgc_onnx::{Code, ImportErrors, Limits, LoadError, decode, import, load};

fn value(name: &str, elem_type: i32, dims: &[i64]) -> ValueInfoProto {
    let dim =
        dims.iter().map(|&d| DimensionProto { value: Some(DimensionValue::Value(d)) }).collect();
    let tensor = TensorTypeProto { elem_type, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { value: Some(TypeValue::Tensor(tensor)) }),
    }
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: format!("the_{op}"),
        input: inputs.iter().map(|s| (*s).into()).collect(),
        output: outputs.iter().map(|s| (*s).into()).collect(),
        ..Default::default()
    }
}

fn model(nodes: Vec<NodeProto>) -> ModelProto {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        graph: Some(GraphProto {
            node: nodes,
            input: vec![value("x", 1, &[2, 3])],
            output: vec![value("y", 1, &[2, 3])],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn problems(model: &ModelProto) -> ImportErrors {
    let decoded =
        decode(model.encode_to_vec().into(), Path::new("m.onnx"), None, Limits::default())
            .expect("the bytes are a model");
    import(&decoded).expect_err("the model is wrong")
}

fn codes(model: &ModelProto) -> Vec<Code> {
    problems(model).diagnostics.iter().map(|d| d.code).collect()
}

#[test]
fn files_that_are_no_models() {
    let open = |bytes: &'static [u8]| {
        decode(bytes.into(), Path::new("m.onnx"), None, Limits::default()).unwrap_err()
    };
    assert!(matches!(open(b""), LoadError::Empty { .. }));
    assert!(matches!(
        open(b"# a text file\nwith lines\n"),
        LoadError::Wire { .. } | LoadError::Decode { .. }
    ));
    assert!(matches!(open(&[0x08, 8]), LoadError::NoGraph { .. }));
    assert!(matches!(load(Path::new("no/such/file.onnx")), Err(LoadError::Read { .. })));
    assert!(matches!(load(Path::new(env!("CARGO_MANIFEST_DIR"))), Err(LoadError::Read { .. })));
    let old = ModelProto { ir_version: 2, ..model(vec![node("Relu", &["x"], &["y"])]) };
    let error = decode(old.encode_to_vec().into(), Path::new("m.onnx"), None, Limits::default())
        .unwrap_err();
    assert_eq!(error.to_string(), "`m.onnx` has IR version 2; versions 3 to 14 are supported");
}

#[test]
fn every_cut_of_a_file_is_an_error_or_a_model() {
    let whole =
        model(vec![node("Relu", &["x"], &["a"]), node("Exp", &["a"], &["y"])]).encode_to_vec();
    for end in 0..whole.len() {
        if let Ok(model) =
            decode(whole[..end].to_vec().into(), Path::new("m.onnx"), None, Limits::default())
        {
            let _ = import(&model);
        }
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let nodes = vec![
        node("NoSuchOp", &["x"], &["a"]),
        node("Relu", &["a"], &["b"]),
        node("Relu", &["missing"], &["c"]),
        node("MatMul", &["x", "x"], &["d"]),
        node("NoSuchOp", &["x"], &["y"]),
    ];
    let errors = problems(&model(nodes));
    let codes: Vec<Code> = errors.diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(codes, [Code::UnknownOperator, Code::UndefinedValue, Code::Invalid]);
    let text = errors.to_string();
    assert!(
        text.contains("error[E2101]: NoSuchOp `the_NoSuchOp` is not an operator that is supported"),
        "{text}"
    );
    assert!(text.contains("the same at `the_NoSuchOp`"), "{text}");
    assert!(text.contains("inner extents 3 and 2 differ"), "{text}");
    assert!(text.contains("operand 0 `x` is f32[2, 3]"), "{text}");
}

#[test]
fn cycles_duplicates_and_wrong_attributes() {
    let cycle = model(vec![node("Add", &["x", "b"], &["a"]), node("Relu", &["a"], &["b"])]);
    assert!(codes(&cycle).contains(&Code::UndefinedValue));
    let twice = model(vec![node("Relu", &["x"], &["y"]), node("Exp", &["x"], &["y"])]);
    assert_eq!(codes(&twice), [Code::DuplicateValue]);
    let mut softmax = node("Softmax", &["x"], &["y"]);
    softmax.attribute.push(AttributeProto {
        name: "axis".into(),
        r#type: AttributeType::Float as i32,
        f: 1.0,
        ..Default::default()
    });
    let errors = problems(&model(vec![softmax]));
    assert!(
        errors.to_string().contains("attribute `axis` should be an int but is a float"),
        "{errors}"
    );
}

#[test]
fn signatures_and_opsets() {
    let mut string = model(vec![node("Relu", &["x"], &["y"])]);
    if let Some(graph) = &mut string.graph {
        graph.input[0] = value("x", 8, &[2]);
    }
    assert_eq!(codes(&string), [Code::Signature]);
    let mut future = model(vec![node("Relu", &["x"], &["y"])]);
    future.opset_import[0].version = 99;
    assert_eq!(codes(&future), [Code::Opset]);
}

#[test]
fn tensors_larger_than_the_file() {
    for dims in [vec![1_000_000_000_000], vec![i64::MAX, i64::MAX], vec![-4]] {
        let mut huge = model(vec![node("Add", &["x", "w"], &["y"])]);
        let tensor = TensorProto {
            name: "w".into(),
            dims,
            data_type: 1,
            raw_data: Some("abc".into()),
            ..Default::default()
        };
        if let Some(graph) = &mut huge.graph {
            graph.initializer.push(tensor);
        }
        assert_eq!(codes(&huge), [Code::Tensor]);
    }
}

#[test]
fn functions_that_call_themselves() {
    let mut recursive =
        model(vec![NodeProto { domain: "mine".into(), ..node("F", &["x"], &["y"]) }]);
    recursive.opset_import.push(OperatorSetIdProto { domain: "mine".into(), version: 1 });
    recursive.functions.push(FunctionProto {
        name: "F".into(),
        domain: "mine".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: vec![NodeProto { domain: "mine".into(), ..node("F", &["a"], &["b"]) }],
        ..Default::default()
    });
    assert_eq!(codes(&recursive), [Code::Limit]);
}

#[test]
fn external_data_stays_in_the_folder() {
    let folder = std::env::temp_dir().join(format!("tgc-onnx-external-{}", std::process::id()));
    let inner = folder.join("model");
    std::fs::create_dir_all(&inner).unwrap();
    std::fs::write(folder.join("secret.bin"), [0u8; 24]).unwrap();
    std::fs::write(inner.join("good.bin"), [0u8; 24]).unwrap();
    let mut hostile =
        vec!["../secret.bin".to_owned(), folder.join("secret.bin").to_string_lossy().into_owned()];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.join("secret.bin"), inner.join("link.bin")).unwrap();
        hostile.push("link.bin".to_owned());
    }
    let with = |location: &str, length: &str| {
        let entry = |k: &str, v: &str| StringStringEntryProto { key: k.into(), value: v.into() };
        let mut m = model(vec![node("Add", &["x", "w"], &["y"])]);
        if let Some(graph) = &mut m.graph {
            graph.initializer.push(TensorProto {
                name: "w".into(),
                dims: vec![2, 3],
                data_type: 1,
                data_location: 1,
                external_data: vec![entry("location", location), entry("length", length)],
                ..Default::default()
            });
        }
        let decoded =
            decode(m.encode_to_vec().into(), Path::new("m.onnx"), Some(&inner), Limits::default())
                .unwrap();
        import(&decoded)
    };
    assert!(with("good.bin", "24").is_ok());
    assert!(with("good.bin", "2400").is_err());
    for location in hostile {
        let errors = with(&location, "24").expect_err("the path leaves the folder");
        assert!(
            errors.to_string().contains("is not a plain path inside the model's folder"),
            "{errors}"
        );
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Flips bytes and cuts pieces out of small models; whatever comes out must import or be refused.
#[test]
fn damaged_models_never_panic() {
    let mut conv = node("Conv", &["x4", "w4"], &["c"]);
    conv.attribute.push(AttributeProto {
        name: "pads".into(),
        r#type: AttributeType::Ints as i32,
        ints: vec![1, 1, 1, 1],
        ..Default::default()
    });
    let mut m = model(vec![
        node("Shape", &["x"], &["s"]),
        node("Reshape", &["x", "s"], &["r"]),
        node("Softmax", &["r"], &["p"]),
        node("Slice", &["p", "i0", "i2", "i0"], &["q"]),
        node("Gather", &["q", "i0"], &["g"]),
        conv,
        node("Concat", &["p", "x"], &["y"]),
    ]);
    if let Some(graph) = &mut m.graph {
        graph.node[6].attribute.push(AttributeProto {
            name: "axis".into(),
            r#type: AttributeType::Int as i32,
            i: 1,
            ..Default::default()
        });
        let ints = |name: &str, v: i64| TensorProto {
            name: name.into(),
            dims: vec![1],
            data_type: 7,
            int64_data: vec![v],
            ..Default::default()
        };
        graph.input.push(value("x4", 1, &[1, 2, 5, 5]));
        graph.input.push(value("w4", 1, &[4, 2, 3, 3]));
        graph.initializer.extend([ints("i0", 0), ints("i2", 2)]);
    }
    let whole = m.encode_to_vec();
    assert!(
        decode(whole.clone().into(), Path::new("m.onnx"), None, Limits::default())
            .is_ok_and(|m| import(&m).is_ok())
    );
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..4000 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random(3) {
            let at = random(bytes.len());
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, random(256) as u8][random(6)];
        }
        if let Ok(model) = decode(bytes.into(), Path::new("m.onnx"), None, Limits::default()) {
            let _ = import(&model);
        }
    }
}
