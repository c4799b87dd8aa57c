//! The block of parameters of a launch: values at their natural alignment, as the ABI lays them out.

/// Parameters in the order of the kernel's signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    bytes: Vec<u8>,
}

impl Parameters {
    /// None yet.
    pub fn new() -> Parameters {
        Parameters::default()
    }

    /// Adds bytes at a multiple of an alignment.
    #[must_use]
    pub fn aligned(mut self, value: &[u8], align: usize) -> Parameters {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        self.bytes.extend_from_slice(value);
        self
    }

    /// Adds an address or another value of 64 bits.
    #[must_use]
    pub fn u64(self, value: u64) -> Parameters {
        self.aligned(&value.to_le_bytes(), 8)
    }

    /// Adds a value of 32 bits.
    #[must_use]
    pub fn u32(self, value: u32) -> Parameters {
        self.aligned(&value.to_le_bytes(), 4)
    }

    /// Adds a signed value of 32 bits.
    #[must_use]
    pub fn i32(self, value: i32) -> Parameters {
        self.aligned(&value.to_le_bytes(), 4)
    }

    /// Adds a float.
    #[must_use]
    pub fn f32(self, value: f32) -> Parameters {
        self.aligned(&value.to_le_bytes(), 4)
    }

    /// Adds a tensor map, which kernels take at a multiple of 64.
    #[must_use]
    pub fn tensor_map(self, map: &[u8; crate::memory::TENSOR_MAP_BYTES]) -> Parameters {
        self.aligned(map, 64)
    }

    /// The block.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
