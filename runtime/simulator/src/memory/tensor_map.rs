//! Tensor maps: what TMA copies take, with the checks of the driver's encoder (CUDA driver API,
//! `cuTensorMapEncodeTiled` and `cuTensorMapEncodeIm2col`).
//!
//! The 128 bytes are opaque on hardware; here they are this module's own form, with a mark and a digest, so
//! that a kernel given another object is found.

use thiserror::Error;

/// Size of an encoded map.
pub const TENSOR_MAP_BYTES: usize = 128;
/// First bytes of an encoded map.
const MARK: u32 = 0x7463_6d61;

/// Element types of tensor maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "names are those of the driver")]
pub enum TensorElement {
    U8,
    U16,
    U32,
    U64,
    F16,
    Bf16,
    F32,
    F64,
}

impl TensorElement {
    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            TensorElement::U8 => 1,
            TensorElement::U16 | TensorElement::F16 | TensorElement::Bf16 => 2,
            TensorElement::U32 | TensorElement::F32 => 4,
            TensorElement::U64 | TensorElement::F64 => 8,
        }
    }

    fn of(code: u8) -> Option<TensorElement> {
        use TensorElement::*;
        [U8, U16, U32, U64, F16, Bf16, F32, F64].get(usize::from(code)).copied()
    }
}

/// How 16-byte chunks of a box's rows are exchanged in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "names are those of the driver")]
pub enum Swizzle {
    None,
    B32,
    B64,
    B128,
}

impl Swizzle {
    /// Bytes of a row that is exchanged.
    pub fn span(self) -> u64 {
        match self {
            Swizzle::None => 16,
            Swizzle::B32 => 32,
            Swizzle::B64 => 64,
            Swizzle::B128 => 128,
        }
    }

    /// Where a byte of a tile goes: bits 4.. are exclusive-or'ed with bits 7.. of the address.
    #[inline(always)]
    pub(crate) fn apply(self, address: u32) -> u32 {
        let mask = match self {
            Swizzle::None => 0,
            Swizzle::B32 => 1,
            Swizzle::B64 => 3,
            Swizzle::B128 => 7,
        };
        address ^ (address >> 7 & mask) << 4
    }

    fn of(code: u8) -> Option<Swizzle> {
        [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128].get(usize::from(code)).copied()
    }
}

/// Interleaved layouts; only the plain one is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interleave {
    /// Rows as they are.
    None,
}

/// Why a map cannot be encoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("tensor map: {0}")]
pub struct TensorMapError(pub String);

/// A tensor in global memory and the box that one copy moves. Axes begin with the innermost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Address of the first element, aligned to 16.
    pub base: u64,
    /// Type of elements.
    pub element: TensorElement,
    /// Extents, 1 to 5.
    pub extents: Vec<u64>,
    /// Bytes between neighbours along each axis but the first; multiples of 16.
    pub strides: Vec<u64>,
    /// Extents of the box, each at most 256; im2col: channels and pixels.
    pub tile: Vec<u32>,
    /// Steps between elements of the box, 1 to 8.
    pub steps: Vec<u32>,
    /// Exchange of chunks in shared memory.
    pub swizzle: Swizzle,
    /// Corners of the im2col window, lower and upper, of each spatial axis; none for tiles.
    pub window: Option<(Vec<i32>, Vec<i32>)>,
    /// Elements outside become NaN instead of zero.
    pub fill_nan: bool,
}

impl TensorMap {
    /// A tiled map with unit steps.
    pub fn tiled(
        base: u64,
        element: TensorElement,
        extents: &[u64],
        strides: &[u64],
        tile: &[u32],
        swizzle: Swizzle,
    ) -> TensorMap {
        TensorMap {
            base,
            element,
            extents: extents.to_vec(),
            strides: strides.to_vec(),
            tile: tile.to_vec(),
            steps: vec![1; extents.len()],
            swizzle,
            window: None,
            fill_nan: false,
        }
    }

    /// Bytes that one copy writes to shared memory.
    pub(crate) fn box_bytes(&self) -> u64 {
        let elements: u64 = self.tile.iter().map(|t| u64::from(*t)).product();
        elements * self.element.bytes()
    }

    fn check(&self) -> Result<(), TensorMapError> {
        let fail = |why: String| Err(TensorMapError(why));
        let rank = self.extents.len();
        if !(1..=5).contains(&rank) || self.strides.len() + 1 != rank || self.steps.len() != rank {
            return fail(format!("a tensor of {rank} axes with {} strides", self.strides.len()));
        }
        if !self.base.is_multiple_of(16) {
            return fail(format!("the address {:#x} is not a multiple of 16", self.base));
        }
        if let Some(extent) = self.extents.iter().find(|e| **e == 0 || **e > 1 << 32) {
            return fail(format!("an extent of {extent}"));
        }
        let stride = self.strides.iter().find(|s| !s.is_multiple_of(16) || **s >= 1 << 40);
        if let Some(stride) = stride {
            return fail(format!("a stride of {stride} bytes is not a multiple of 16 below 2^40"));
        }
        if self.window.is_none() && self.tile.len() != rank {
            return fail(format!("a box of {} axes", self.tile.len()));
        }
        if let Some((lower, upper)) = &self.window
            && (rank < 3
                || lower.len() + 2 != rank
                || upper.len() + 2 != rank
                || self.tile.len() != 2)
        {
            return fail("im2col needs corners for each spatial axis, channels and pixels".into());
        }
        let most = |at: usize| if self.window.is_some() && at == 1 { 1024 } else { 256 };
        if let Some((_, t)) =
            self.tile.iter().enumerate().find(|(at, t)| **t == 0 || **t > most(*at))
        {
            return fail(format!("a box extent of {t}"));
        }
        if let Some(step) = self.steps.iter().find(|s| !(1..=8).contains(*s)) {
            return fail(format!("an element stride of {step}"));
        }
        let row = u64::from(self.tile[0]) * self.element.bytes();
        if !row.is_multiple_of(16) {
            return fail(format!("a box row of {row} bytes is not a multiple of 16"));
        }
        if self.swizzle != Swizzle::None && row > self.swizzle.span() {
            return fail(format!(
                "a box row of {row} bytes exceeds the swizzle of {}",
                self.swizzle.span()
            ));
        }
        Ok(())
    }

    /// The map as kernels take it.
    pub fn encode(&self) -> Result<[u8; TENSOR_MAP_BYTES], TensorMapError> {
        self.check()?;
        let mut out = [0; TENSOR_MAP_BYTES];
        out[0..4].copy_from_slice(&MARK.to_le_bytes());
        out[4] = self.element as u8;
        out[5] = self.extents.len() as u8;
        out[6] = self.swizzle as u8;
        out[7] = u8::from(self.fill_nan) | u8::from(self.window.is_some()) << 1;
        out[8..16].copy_from_slice(&self.base.to_le_bytes());
        for (at, extent) in self.extents.iter().enumerate() {
            // Extents reach 2^32, which as a count of at least one is kept less one.
            out[16 + 4 * at..20 + 4 * at].copy_from_slice(&((extent - 1) as u32).to_le_bytes());
        }
        for (at, stride) in self.strides.iter().enumerate() {
            out[36 + 5 * at..41 + 5 * at].copy_from_slice(&stride.to_le_bytes()[..5]);
        }
        for (at, extent) in self.tile.iter().enumerate() {
            out[56 + 2 * at..58 + 2 * at].copy_from_slice(&(*extent as u16).to_le_bytes());
        }
        for (at, step) in self.steps.iter().enumerate() {
            out[66 + at] = *step as u8;
        }
        if let Some((lower, upper)) = &self.window {
            for (at, corner) in lower.iter().chain(upper).enumerate() {
                out[72 + 4 * at..76 + 4 * at].copy_from_slice(&corner.to_le_bytes());
            }
        }
        let digest = digest(&out[..120]);
        out[120..].copy_from_slice(&digest.to_le_bytes());
        Ok(out)
    }

    /// The map that bytes hold; none when they hold no map.
    pub fn decode(bytes: &[u8; TENSOR_MAP_BYTES]) -> Option<TensorMap> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if word(0) != MARK || long(120) != digest(&bytes[..120]) {
            return None;
        }
        let rank = usize::from(bytes[5]);
        let axes = || 0..rank;
        let im2col = bytes[7] & 2 != 0;
        let stride = |at: usize| u64::from(word(36 + 5 * at)) | u64::from(bytes[40 + 5 * at]) << 32;
        let extent =
            |at: usize| u32::from(u16::from_le_bytes([bytes[56 + 2 * at], bytes[57 + 2 * at]]));
        let corners = |from: usize| -> Vec<i32> {
            (0..rank.saturating_sub(2)).map(|at| word(72 + 4 * (from + at)) as i32).collect()
        };
        let map = TensorMap {
            base: long(8),
            element: TensorElement::of(bytes[4])?,
            extents: axes().map(|at| u64::from(word(16 + 4 * at)) + 1).collect(),
            strides: (1..rank).map(|at| stride(at - 1)).collect(),
            tile: (0..if im2col { 2 } else { rank }).map(extent).collect(),
            steps: axes().map(|at| u32::from(bytes[66 + at])).collect(),
            swizzle: Swizzle::of(bytes[6])?,
            window: im2col.then(|| (corners(0), corners(rank.saturating_sub(2)))),
            fill_nan: bytes[7] & 1 != 0,
        };
        map.check().ok().map(|()| map)
    }
}

/// FNV-1a.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> TensorMap {
        TensorMap::tiled(0x1000, TensorElement::F16, &[136, 200], &[272], &[64, 128], Swizzle::B128)
    }

    #[test]
    fn encoding_round_trips() {
        assert_eq!(TensorMap::decode(&map().encode().unwrap()), Some(map()));
        let mut pixels = map();
        pixels.extents = vec![64, 14, 13, 2];
        pixels.strides = vec![128, 1792, 23296];
        pixels.tile = vec![64, 100];
        pixels.steps = vec![1; 4];
        pixels.window = Some((vec![-1, -1], vec![-1, -1]));
        assert_eq!(TensorMap::decode(&pixels.encode().unwrap()), Some(pixels));
    }

    #[test]
    fn what_the_driver_refuses_is_refused() {
        let refused = |change: fn(&mut TensorMap)| {
            let mut map = map();
            change(&mut map);
            map.encode().unwrap_err().0
        };
        assert!(refused(|m| m.base = 8).contains("multiple of 16"));
        assert!(refused(|m| m.strides[0] = 270).contains("270"));
        assert!(refused(|m| m.tile[1] = 257).contains("257"));
        assert!(refused(|m| m.tile[0] = 128).contains("swizzle"));
        assert!(refused(|m| m.steps[1] = 9).contains("element stride"));
    }

    #[test]
    fn a_changed_byte_is_no_map() {
        let mut bytes = map().encode().unwrap();
        bytes[20] ^= 1;
        assert_eq!(TensorMap::decode(&bytes), None);
    }
}
