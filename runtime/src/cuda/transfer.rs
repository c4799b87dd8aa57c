//! Strided tensors as dense bytes and back, on the host, for what the host
//! reads and writes between segments. Knows no driver.

use bytes::Bytes;
use tgc_ir::plan::{Plan, PlanBuffer};
use tgc_ir::tensor::Tensor;

use super::error::{CudaError, malformed};
use super::launch::{Values, element_offsets, is_dense};

/// A buffer's place under current symbols.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) extents: Vec<usize>,
    pub(super) strides: Vec<usize>,
    /// Bytes from the first to the last element inclusive.
    pub(super) bytes: usize,
}

impl Shape {
    /// Of a buffer that has `room` bytes.
    pub(super) fn of(
        plan: &Plan,
        table: &[i64],
        buffer: u32,
        room: usize,
    ) -> Result<Shape, CudaError> {
        let values = Values { plan, table };
        let found = &plan.buffers[buffer as usize];
        let extents = values.list(&found.shape, &found.name)?;
        let strides = values.list(&found.strides, &found.name)?;
        let bytes = values.bytes(&found.bytes, &found.name)?;
        let bytes = if extents.contains(&0) { 0 } else { bytes };
        if bytes > room {
            let why = format!("it needs {bytes} bytes where {room} were planned");
            return Err(malformed(format!("buffer `{}`", found.name), why));
        }
        Ok(Shape { extents, strides, bytes })
    }
}

/// A dense tensor from the bytes of a buffer.
pub(super) fn gather(buffer: &PlanBuffer, shape: Shape, bytes: &[u8]) -> Result<Tensor, CudaError> {
    let fail = |why: String| malformed(format!("buffer `{}`", buffer.name), why);
    let dense = match buffer.dtype.bytes() {
        _ if is_dense(&shape.extents, &shape.strides) => {
            let count = buffer.dtype.storage_bytes(shape.extents.iter().product());
            let part = bytes.get(..count).ok_or_else(|| fail("it is too short".into()))?;
            Bytes::copy_from_slice(part)
        }
        None => return Err(fail("packed elements are strided".into())),
        Some(width) => {
            let mut dense = Vec::new();
            for at in element_offsets(&shape.extents, &shape.strides, width) {
                let element = bytes.get(at..at + width);
                dense.extend_from_slice(element.ok_or_else(|| fail("it is too short".into()))?);
            }
            dense.into()
        }
    };
    Tensor::new(buffer.dtype, shape.extents, dense).map_err(|e| fail(e.to_string()))
}

/// Puts a dense tensor's elements into the bytes of a buffer.
pub(super) fn scatter(
    buffer: &PlanBuffer,
    shape: &Shape,
    tensor: &Tensor,
    bytes: &mut [u8],
) -> Result<(), CudaError> {
    let fail = |why: &str| malformed(format!("buffer `{}`", buffer.name), why);
    if shape.extents != tensor.shape() || buffer.dtype != tensor.dtype() {
        return Err(fail("a host step gives another type"));
    }
    let width = buffer.dtype.bytes().ok_or_else(|| fail("packed elements are strided"))?;
    let offsets = element_offsets(&shape.extents, &shape.strides, width);
    for (at, element) in offsets.zip(tensor.bytes().chunks_exact(width)) {
        let place = bytes.get_mut(at..at + width).ok_or_else(|| fail("it is too short"))?;
        place.copy_from_slice(element);
    }
    Ok(())
}
