//! Global memory: allocations with guard space between them, bytes that were written, and host access.
//!
//! Words are atomics, so that blocks on several cores share them without locks; a plain access is a relaxed
//! one. Device addresses are no host addresses.

mod allocation;
mod tensor_map;

pub(crate) use allocation::Allocation;
pub use tensor_map::{
    Interleave, Swizzle, TENSOR_MAP_BYTES, TensorElement, TensorMap, TensorMapError,
};

use crate::error::MemoryError;

/// First device address.
const BASE: u64 = 0x7000_0000_0000;
/// Alignment of allocations, that of the CUDA driver.
const ALIGN: u64 = 256;
/// Bytes after each allocation that belong to none.
const GUARD: u64 = 4096;

/// Memory of a simulated device.
#[derive(Debug)]
pub struct Memory {
    /// By address.
    allocations: Vec<Allocation>,
    next: u64,
    used: u64,
    limit: u64,
}

impl Memory {
    /// Memory of which at most `limit` bytes can be allocated. Each byte costs about 1.2 bytes of the host.
    pub fn new(limit: u64) -> Memory {
        Memory { allocations: Vec::new(), next: BASE, used: 0, limit }
    }

    /// Allocates uninitialised bytes; the address is aligned to 256.
    pub fn allocate(&mut self, bytes: u64) -> Result<u64, MemoryError> {
        let limit = MemoryError::Limit { bytes, used: self.used, limit: self.limit };
        if self.used.checked_add(bytes).is_none_or(|total| total > self.limit) {
            return Err(limit);
        }
        let address = self.next;
        self.next += bytes.next_multiple_of(ALIGN) + GUARD;
        self.next = self.next.next_multiple_of(ALIGN);
        self.used += bytes;
        self.allocations.push(Allocation::new(address, bytes));
        Ok(address)
    }

    /// Allocates bytes with contents.
    pub fn allocate_from(&mut self, contents: &[u8]) -> Result<u64, MemoryError> {
        let address = self.allocate(contents.len() as u64)?;
        self.write(address, contents)?;
        Ok(address)
    }

    /// Gives an allocation back. Its address is never given again, so later uses are found.
    pub fn free(&mut self, address: u64) -> Result<(), MemoryError> {
        match self.allocations.binary_search_by_key(&address, |a| a.base) {
            Ok(at) => {
                self.used -= self.allocations[at].bytes;
                self.allocations.remove(at);
                Ok(())
            }
            Err(_) => Err(MemoryError::Range { address, bytes: 0 }),
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used
    }

    fn host_range(&self, address: u64, bytes: u64) -> Result<(&Allocation, u64), MemoryError> {
        let found = self.find(address, bytes).map(|at| &self.allocations[at]);
        found.map(|a| (a, address - a.base)).ok_or(MemoryError::Range { address, bytes })
    }

    /// Copies from the host; the bytes become initialised.
    pub fn write(&mut self, address: u64, contents: &[u8]) -> Result<(), MemoryError> {
        let (allocation, offset) = self.host_range(address, contents.len() as u64)?;
        allocation.write(offset, contents);
        Ok(())
    }

    /// Copies to the host.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let (allocation, offset) = self.host_range(address, into.len() as u64)?;
        allocation.read(offset, into);
        Ok(())
    }

    /// Forgets that bytes were written, as when a memory plan gives them to another tensor.
    pub fn mark_uninitialised(&mut self, address: u64, bytes: u64) -> Result<(), MemoryError> {
        let (allocation, offset) = self.host_range(address, bytes)?;
        allocation.forget(offset, bytes);
        Ok(())
    }

    /// The first byte of a range that nothing has written, if any.
    pub fn first_uninitialised(
        &self,
        address: u64,
        bytes: u64,
    ) -> Result<Option<u64>, MemoryError> {
        let (allocation, offset) = self.host_range(address, bytes)?;
        Ok(allocation.first_unwritten(offset, bytes).map(|at| allocation.base + at))
    }

    /// Index of the allocation that holds a range.
    pub(crate) fn find(&self, address: u64, bytes: u64) -> Option<usize> {
        let at = self.allocations.partition_point(|a| a.base <= address).checked_sub(1)?;
        let end = address.checked_add(bytes)?;
        (end <= self.allocations[at].base + self.allocations[at].bytes).then_some(at)
    }

    pub(crate) fn allocation(&self, at: usize) -> &Allocation {
        &self.allocations[at]
    }

    pub(crate) fn allocations(&self) -> &[Allocation] {
        &self.allocations
    }

    /// What lies around an address, for messages.
    pub(crate) fn neighbourhood(&self, address: u64) -> String {
        let at = self.allocations.partition_point(|a| a.base <= address);
        match at.checked_sub(1).map(|at| &self.allocations[at]) {
            Some(a) if address < a.base + a.bytes => {
                format!(
                    "{} bytes before the end of an allocation of {} bytes",
                    a.base + a.bytes - address,
                    a.bytes
                )
            }
            Some(a) if address - a.base - a.bytes < 1 << 20 => {
                format!(
                    "{} bytes past an allocation of {} bytes",
                    address - a.base - a.bytes,
                    a.bytes
                )
            }
            _ => "in no allocation".to_owned(),
        }
    }
}
