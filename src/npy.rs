//! NumPy's `.npy` and `.npz` files (format 1.0 to 3.0, C order, little endian).

use std::io::{Read as _, Write as _};
use std::path::Path;

use tgc_ir::{DType, Tensor};

/// (dtype, NumPy spelling).
const SPELLINGS: &[(DType, &str)] = &[
    (DType::Bool, "|b1"),
    (DType::I8, "|i1"),
    (DType::U8, "|u1"),
    (DType::I16, "<i2"),
    (DType::U16, "<u2"),
    (DType::I32, "<i4"),
    (DType::U32, "<u4"),
    (DType::I64, "<i8"),
    (DType::U64, "<u8"),
    (DType::F16, "<f2"),
    (DType::F32, "<f4"),
    (DType::F64, "<f8"),
];

/// Reads one array.
///
/// # Errors
/// What the bytes lack.
pub fn read(bytes: &[u8]) -> Result<Tensor, String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("no .npy magic")?;
    let (length, start) = match rest.first() {
        Some(1) => (usize::from(u16::from_le_bytes(take(rest, 2)?)), 4),
        Some(2 | 3) => (u32::from_le_bytes(take(rest, 2)?) as usize, 6),
        _ => return Err("unknown .npy version".into()),
    };
    let header = rest.get(start..start + length).ok_or("the header is cut")?;
    let header = std::str::from_utf8(header).map_err(|_| "the header is no text")?;
    let field = |key: &str| {
        let at =
            header.find(&format!("'{key}':")).ok_or_else(|| format!("no `{key}` in the header"))?;
        Ok::<&str, String>(header[at + key.len() + 3..].trim_start())
    };
    if field("fortran_order")?.starts_with("True") {
        return Err(
            "Fortran order is not supported; save a C-ordered copy (numpy.ascontiguousarray)"
                .into(),
        );
    }
    let descr = field("descr")?.trim_start_matches('\'');
    let descr = descr.split('\'').next().unwrap_or("");
    let dtype = SPELLINGS.iter().find(|(_, s)| *s == descr).map(|(d, _)| *d);
    let dtype = dtype.ok_or_else(|| format!("element type `{descr}` is not supported"))?;
    let shape =
        field("shape")?.strip_prefix('(').and_then(|s| s.split(')').next()).ok_or("no shape")?;
    let shape: Vec<usize> = shape
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(|s| s.parse().map_err(|_| format!("extent `{s}`")))
        .collect::<Result<_, _>>()?;
    Tensor::new(dtype, shape, rest[start + length..].to_vec().into()).map_err(|e| e.to_string())
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], String> {
    bytes
        .get(at..at + N)
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| "the header is cut".to_owned())
}

/// The bytes of one array; `None` for dtypes that NumPy lacks.
pub fn write(tensor: &Tensor) -> Option<Vec<u8>> {
    let descr = SPELLINGS.iter().find(|(d, _)| *d == tensor.dtype()).map(|(_, s)| *s)?;
    let shape: String = tensor.shape().iter().map(|d| format!("{d}, ")).collect();
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', padded - header.len() - 1));
    header.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(tensor.bytes());
    Some(out)
}

/// Reads every array of an archive, by name.
///
/// # Errors
/// What the archive lacks.
pub fn read_npz(path: &Path) -> Result<Vec<(String, Tensor)>, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|e| e.to_string())?;
        let name = entry.name().map_err(|e| e.to_string())?.trim_end_matches(".npy").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        out.push((name.clone(), read(&bytes).map_err(|e| format!("{name}: {e}"))?));
    }
    Ok(out)
}

/// Writes named arrays as one archive.
///
/// # Errors
/// From the file system, or for dtypes that NumPy lacks.
pub fn write_npz(path: &Path, tensors: &[(&str, &Tensor)]) -> Result<(), String> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut archive = zip::ZipWriter::new(&mut bytes);
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, tensor) in tensors {
        let array =
            write(tensor).ok_or_else(|| format!("{name}: NumPy has no {}", tensor.dtype()))?;
        archive.start_file(format!("{name}.npy"), options).map_err(|e| e.to_string())?;
        archive.write_all(&array).map_err(|e| e.to_string())?;
    }
    archive.finish().map_err(|e| e.to_string())?;
    tgc_runtime::engine::write_beside(path, bytes.get_ref()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_round_trip() {
        for tensor in [
            Tensor::from_f32(&[2, 3], &[1.0; 6]),
            Tensor::from_i64(&[], &[7]),
            Tensor::zeros(DType::Bool, &[0, 2]),
        ] {
            assert_eq!(read(&write(&tensor).expect("has a spelling")), Ok(tensor));
        }
        assert!(read(b"no").is_err());
        assert!(read(b"\x93NUMPY\x01\x00\xff\xff{}").is_err());
    }
}
