//! `TensorProto` to IR tensors: raw bytes are shared with the file, typed fields are packed once.
//!
//! Sizes are checked against the bytes present before anything is allocated. Knows element types and storage; must not
//! know operators.

use bytes::Bytes;
use prost::Message;
use tgc_ir::dtype::DType;
use tgc_ir::tensor::{Tensor, TensorError, element_count};
use thiserror::Error;

use crate::load::{ExternalError, ExternalFiles};
use crate::proto::{SparseTensorProto, TensorProto};

/// Why a tensor could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadTensorError {
    #[error("not a TensorProto: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error(
        "not a TensorProto with an element type (a sequence or an optional value is not supported here)"
    )]
    NoType,
    #[error("element type {name} is not supported")]
    Type { name: String },
    #[error("extent {extent} of axis {axis} is negative")]
    Negative { axis: usize, extent: i64 },
    #[error("extents {dims:?} are too large to address")]
    TooLarge { dims: Vec<i64> },
    #[error("{dtype}{dims:?} takes {expected} {unit}, found {found}")]
    Size { dtype: DType, dims: Vec<i64>, expected: usize, unit: &'static str, found: usize },
    #[error("{dtype} elements stand in a field of another type")]
    Field { dtype: DType },
    #[error("it is split into segments")]
    Segment,
    #[error("{0}")]
    External(#[from] ExternalError),
    #[error("{0}")]
    Tensor(#[from] TensorError),
    #[error("a sparse tensor of {elements} elements is too large to write out")]
    SparseTooLarge { elements: usize },
    #[error("a sparse tensor lacks values or indices of the right form")]
    SparseForm,
}

/// Names of ONNX element types by number (`TensorProto.DataType`), for messages.
const TYPE_NAMES: &[&str] = &[
    "undefined",
    "float",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "int32",
    "int64",
    "string",
    "bool",
    "float16",
    "double",
    "uint32",
    "uint64",
    "complex64",
    "complex128",
    "bfloat16",
    "float8e4m3fn",
    "float8e4m3fnuz",
    "float8e5m2",
    "float8e5m2fnuz",
    "uint4",
    "int4",
    "float4e2m1",
    "float8e8m0",
    "uint2",
    "int2",
    "float6e2m3",
    "float6e3m2",
];

/// ONNX's name of an element type number.
#[must_use]
pub(crate) fn type_name(data_type: i32) -> String {
    let known = usize::try_from(data_type).ok().and_then(|i| TYPE_NAMES.get(i));
    known.map_or_else(|| format!("number {data_type}"), |name| (*name).to_owned())
}

/// The element type for a `TensorProto.DataType` number.
///
/// # Errors
/// [`ReadTensorError::Type`] for strings, complex numbers and formats that the IR has no element type for.
pub(crate) fn dtype(data_type: i32) -> Result<DType, ReadTensorError> {
    Ok(match data_type {
        0 => return Err(ReadTensorError::NoType),
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        16 => DType::BF16,
        17 => DType::F8E4M3,
        19 => DType::F8E5M2,
        21 => DType::U4,
        22 => DType::I4,
        other => return Err(ReadTensorError::Type { name: type_name(other) }),
    })
}

fn extents(dims: &[i64]) -> Result<(Vec<usize>, usize), ReadTensorError> {
    let mut shape = Vec::with_capacity(dims.len());
    for (axis, &extent) in dims.iter().enumerate() {
        shape
            .push(usize::try_from(extent).map_err(|_| ReadTensorError::Negative { axis, extent })?);
    }
    let count =
        element_count(&shape).ok_or_else(|| ReadTensorError::TooLarge { dims: dims.to_vec() })?;
    Ok((shape, count))
}

/// Reads a tensor; external bytes come from `external`.
///
/// # Errors
/// [`ReadTensorError`] when type, extents and bytes do not fit together or external data is refused.
pub(crate) fn read(
    proto: &TensorProto,
    external: &mut ExternalFiles,
) -> Result<Tensor, ReadTensorError> {
    let dtype = dtype(proto.data_type)?;
    let (shape, count) = extents(&proto.dims)?;
    if proto.segment.is_some() {
        return Err(ReadTensorError::Segment);
    }
    let expected = dtype.storage_bytes(count);
    let bytes = if proto.data_location == 1 {
        external.read(proto, expected)?
    } else if let Some(raw) = &proto.raw_data {
        raw.clone()
    } else {
        pack(proto, dtype, count)?
    };
    if bytes.len() != expected {
        let (dims, found) = (proto.dims.clone(), bytes.len());
        return Err(ReadTensorError::Size { dtype, dims, expected, unit: "bytes", found });
    }
    Ok(Tensor::new(dtype, shape, bytes)?)
}

/// Packs the typed data field of a tensor.
fn pack(proto: &TensorProto, dtype: DType, count: usize) -> Result<Bytes, ReadTensorError> {
    let wanted = if dtype.bits() < 8 { dtype.storage_bytes(count) } else { count };
    let check = |found: usize| {
        let dims = proto.dims.clone();
        let size = ReadTensorError::Size { dtype, dims, expected: wanted, unit: "elements", found };
        let other = proto.float_data.len()
            + proto.int32_data.len()
            + proto.int64_data.len()
            + proto.double_data.len()
            + proto.uint64_data.len();
        match found {
            _ if found == wanted => Ok(()),
            0 if other > 0 => Err(ReadTensorError::Field { dtype }),
            _ => Err(size),
        }
    };
    fn all<T: Copy, const N: usize>(data: &[T], bytes: impl Fn(T) -> [u8; N]) -> Bytes {
        data.iter().flat_map(|&x| bytes(x)).collect::<Vec<u8>>().into()
    }
    let ints = &proto.int32_data;
    Ok(match dtype {
        DType::F32 => {
            check(proto.float_data.len())?;
            all(&proto.float_data, f32::to_le_bytes)
        }
        DType::F64 => {
            check(proto.double_data.len())?;
            all(&proto.double_data, f64::to_le_bytes)
        }
        DType::I64 => {
            check(proto.int64_data.len())?;
            all(&proto.int64_data, i64::to_le_bytes)
        }
        DType::U64 => {
            check(proto.uint64_data.len())?;
            all(&proto.uint64_data, u64::to_le_bytes)
        }
        DType::U32 => {
            check(proto.uint64_data.len())?;
            all(&proto.uint64_data, |x| (x as u32).to_le_bytes())
        }
        DType::I32 => {
            check(ints.len())?;
            all(ints, i32::to_le_bytes)
        }
        DType::I16 | DType::U16 | DType::F16 | DType::BF16 => {
            check(ints.len())?;
            all(ints, |x| (x as u16).to_le_bytes())
        }
        DType::Bool => {
            check(ints.len())?;
            all(ints, |x| [u8::from(x != 0)])
        }
        DType::I8 | DType::U8 | DType::F8E4M3 | DType::F8E5M2 | DType::I4 | DType::U4 => {
            check(ints.len())?;
            all(ints, |x| [x as u8])
        }
    })
}

/// Writes a sparse tensor out as a dense one of at most `limit_bytes`.
///
/// # Errors
/// [`ReadTensorError`] when it is malformed, an index leaves its axis, or it is larger than the limit.
pub(crate) fn read_sparse(
    proto: &SparseTensorProto,
    external: &mut ExternalFiles,
    limit_bytes: usize,
) -> Result<Tensor, ReadTensorError> {
    let (Some(values), Some(indices)) = (&proto.values, &proto.indices) else {
        return Err(ReadTensorError::SparseForm);
    };
    let (values, indices) = (read(values, external)?, read(indices, external)?);
    let (shape, count) = extents(&proto.dims)?;
    let width = values.dtype().bytes().ok_or(ReadTensorError::SparseForm)?;
    if count.saturating_mul(width) > limit_bytes {
        return Err(ReadTensorError::SparseTooLarge { elements: count });
    }
    let stored = values.len();
    let at = indices.to_i64().ok_or(ReadTensorError::SparseForm)?;
    let per_value = if indices.shape().len() == 2 { shape.len() } else { 1 };
    if at.len() != stored.saturating_mul(per_value) {
        return Err(ReadTensorError::SparseForm);
    }
    let mut bytes = vec![0u8; count * width];
    for i in 0..stored {
        let position = &at[i * per_value..(i + 1) * per_value];
        let linear = linear_index(position, &shape, count).ok_or(ReadTensorError::SparseForm)?;
        bytes[linear * width..(linear + 1) * width]
            .copy_from_slice(&values.bytes()[i * width..(i + 1) * width]);
    }
    Ok(Tensor::new(values.dtype(), shape, bytes.into())?)
}

/// The row-major index of a position, or of an index that is linear already (one number).
fn linear_index(position: &[i64], shape: &[usize], count: usize) -> Option<usize> {
    if position.len() == 1 && shape.len() != 1 {
        return usize::try_from(position[0]).ok().filter(|&i| i < count);
    }
    let mut linear = 0usize;
    for (&p, &extent) in position.iter().zip(shape) {
        let p = usize::try_from(p).ok().filter(|&p| p < extent)?;
        linear = linear * extent + p;
    }
    Some(linear)
}

/// Reads a serialised `TensorProto`, the format of the ONNX test data sets; gives its name and the tensor.
///
/// # Errors
/// [`ReadTensorError`] when the bytes are no dense tensor of a supported element type.
pub fn read_tensor_pb(bytes: Bytes) -> Result<(String, Tensor), ReadTensorError> {
    let proto = TensorProto::decode(bytes)?;
    // A SequenceProto or OptionalProto decodes, too: its name reads as extents and its elements as a segment.
    if proto.segment.is_some() || proto.data_type == 0 || extents(&proto.dims).is_err() {
        return Err(ReadTensorError::NoType);
    }
    if proto.data_location == 1 {
        return Err(ReadTensorError::External(ExternalError::NoFolder {
            location: "external data".into(),
        }));
    }
    let mut none = crate::load::no_external_files();
    Ok((proto.name.clone(), read(&proto, &mut none)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> ExternalFiles {
        crate::load::no_external_files()
    }

    #[test]
    fn raw_bytes_are_shared_not_copied() {
        let tensor = TensorProto {
            dims: vec![2],
            data_type: 1,
            raw_data: Some(Bytes::from_static(&[0; 8])),
            ..Default::default()
        };
        let encoded = Bytes::from(tensor.encode_to_vec());
        let (start, end) = (encoded.as_ptr() as usize, encoded.as_ptr() as usize + encoded.len());
        let (_, tensor) = read_tensor_pb(encoded).unwrap();
        let at = tensor.bytes().as_ptr() as usize;
        assert!(at >= start && at < end);
    }

    #[test]
    fn huge_extents_are_refused_without_allocation() {
        for dims in [vec![1_000_000_000_000], vec![i64::MAX, i64::MAX], vec![-1]] {
            let proto = TensorProto { dims, data_type: 1, ..Default::default() };
            assert!(read(&proto, &mut none()).is_err());
        }
    }

    #[test]
    fn half_precision_stands_in_int32_data() {
        let proto = TensorProto {
            dims: vec![2],
            data_type: 10,
            int32_data: vec![0x3c00, 0xc000],
            ..Default::default()
        };
        assert_eq!(read(&proto, &mut none()).unwrap().to_f64(), vec![1.0, -2.0]);
    }

    #[test]
    fn sparse_tensors_are_written_out() {
        let ints = |dims: Vec<i64>, data: Vec<i64>| TensorProto {
            dims,
            data_type: 7,
            int64_data: data,
            ..Default::default()
        };
        let proto = SparseTensorProto {
            values: Some(ints(vec![2], vec![5, 6])),
            indices: Some(ints(vec![2, 2], vec![0, 1, 1, 0])),
            dims: vec![2, 2],
        };
        assert_eq!(
            read_sparse(&proto, &mut none(), 1 << 20).unwrap().to_i64(),
            Some(vec![0, 5, 6, 0])
        );
        assert!(read_sparse(&proto, &mut none(), 8).is_err());
    }
}
