//! The hand-written protobuf messages against an independent reader of the format: every model decoded by
//! ours, encoded again and read by `onnx-protobuf` equals the file read by `onnx-protobuf`.
//!
//! Left out of the comparison is what ours does not keep because nothing in a compiler depends on it: documentation
//! strings, metadata, denotations, training information and quantisation annotations.

use std::path::{Path, PathBuf};

use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, Message, ModelProto, NodeProto, SparseTensorProto,
    TensorProto, TypeProto, ValueInfoProto, type_proto,
};

fn keep_model(model: &mut ModelProto) {
    model.domain.clear();
    model.model_version = 0;
    model.doc_string.clear();
    model.metadata_props.clear();
    model.training_info.clear();
    model.graph.as_mut().into_iter().for_each(keep_graph);
    model.functions.iter_mut().for_each(keep_function);
}

fn keep_function(function: &mut FunctionProto) {
    function.doc_string.clear();
    function.metadata_props.clear();
    function.attribute_proto.iter_mut().for_each(keep_attribute);
    function.node.iter_mut().for_each(keep_node);
    function.value_info.iter_mut().for_each(keep_value);
}

fn keep_graph(graph: &mut GraphProto) {
    graph.doc_string.clear();
    graph.metadata_props.clear();
    graph.quantization_annotation.clear();
    graph.node.iter_mut().for_each(keep_node);
    graph.initializer.iter_mut().for_each(keep_tensor);
    graph.sparse_initializer.iter_mut().for_each(keep_sparse);
    let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    values.for_each(keep_value);
}

fn keep_node(node: &mut NodeProto) {
    node.doc_string.clear();
    node.metadata_props.clear();
    node.attribute.iter_mut().for_each(keep_attribute);
}

fn keep_attribute(attribute: &mut AttributeProto) {
    attribute.doc_string.clear();
    attribute.t.as_mut().into_iter().chain(&mut attribute.tensors).for_each(keep_tensor);
    attribute.g.as_mut().into_iter().chain(&mut attribute.graphs).for_each(keep_graph);
    let sparse = attribute.sparse_tensor.as_mut().into_iter();
    sparse.chain(&mut attribute.sparse_tensors).for_each(keep_sparse);
    attribute.tp.as_mut().into_iter().chain(&mut attribute.type_protos).for_each(keep_type);
}

fn keep_tensor(tensor: &mut TensorProto) {
    tensor.doc_string.clear();
    tensor.metadata_props.clear();
}

fn keep_sparse(tensor: &mut SparseTensorProto) {
    tensor.values.as_mut().into_iter().chain(tensor.indices.as_mut()).for_each(keep_tensor);
}

fn keep_value(value: &mut ValueInfoProto) {
    value.doc_string.clear();
    value.metadata_props.clear();
    value.type_.as_mut().into_iter().for_each(keep_type);
}

fn keep_type(ty: &mut TypeProto) {
    ty.denotation.clear();
    let shape = match &mut ty.value {
        Some(type_proto::Value::TensorType(t)) => t.shape.as_mut(),
        Some(type_proto::Value::SparseTensorType(t)) => t.shape.as_mut(),
        Some(type_proto::Value::SequenceType(t)) => {
            return t.elem_type.as_mut().into_iter().for_each(keep_type);
        }
        Some(type_proto::Value::OptionalType(t)) => {
            return t.elem_type.as_mut().into_iter().for_each(keep_type);
        }
        Some(type_proto::Value::MapType(t)) => {
            return t.value_type.as_mut().into_iter().for_each(keep_type);
        }
        _ => None,
    };
    for dim in shape.into_iter().flat_map(|s| &mut s.dim) {
        dim.denotation.clear();
    }
}

/// Models beside the repository, and those that ship with it.
fn models() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    for folder in ["tests/models", "../shared/data/models"] {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else {
            println!("skipped: {folder} is absent");
            continue;
        };
        found.extend(
            entries.filter_map(|e| Some(e.ok()?.path().join("model.onnx"))).filter(|p| p.is_file()),
        );
    }
    found.sort();
    found
}

#[test]
fn every_model_decodes_as_an_independent_reader_decodes_it() {
    let models = models();
    assert!(!models.is_empty(), "the shipped model is missing");
    for path in &models {
        let bytes = std::fs::read(path).expect("the file is readable");
        let mut wanted = ModelProto::parse_from_bytes(&bytes).expect("the file is a model");
        keep_model(&mut wanted);
        let ours = tgc_onnx::decode(bytes.into(), path, None, tgc_onnx::Limits::default())
            .expect("the file is a model");
        let again = prost::Message::encode_to_vec(&ours.proto);
        let got = ModelProto::parse_from_bytes(&again).expect("what we encode is a model");
        assert!(
            got == wanted,
            "{} decodes differently:\n{}",
            path.display(),
            first_difference(&got, &wanted)
        );
    }
    println!("{} models decode alike", models.len());
}

/// The first node, tensor or value that differs, in text.
fn first_difference(got: &ModelProto, wanted: &ModelProto) -> String {
    let (g, w) = (&got.graph, &wanted.graph);
    let nodes =
        g.node.iter().zip(&w.node).find(|(a, b)| a != b).map(|(a, b)| format!("{a:?}\n{b:?}"));
    let values = g
        .value_info
        .iter()
        .zip(&w.value_info)
        .find(|(a, b)| a != b)
        .map(|(a, b)| format!("{a:?}\n{b:?}"));
    let tensors = g.initializer.iter().zip(&w.initializer).find(|(a, b)| a != b);
    let tensors = tensors.map(|(a, _)| format!("initializer {}", a.name));
    nodes
        .or(values)
        .or(tensors)
        .unwrap_or_else(|| "outside nodes, values and initializers".to_owned())
}
