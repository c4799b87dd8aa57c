//! A PTX text made ready: its kernels, and its variables once they are placed in a memory.

use crate::decode::decode_module;
use crate::decode::kernel::{Decoded, Kernel};
use crate::error::{MemoryError, PtxError};
use crate::memory::Memory;
use crate::ptx;

/// A decoded PTX text.
#[derive(Debug)]
pub struct Module {
    decoded: Decoded,
}

/// What a kernel needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInfo {
    /// Name of the entry.
    pub name: String,
    /// Line of the PTX text that begins it.
    pub line: u32,
    /// Offset and size of each parameter in the block of parameters.
    pub parameters: Vec<(u32, u32)>,
    /// Size of the block of parameters.
    pub parameter_bytes: u32,
    /// Bytes of static shared memory.
    pub static_shared: u32,
    /// Bytes of local memory of a thread.
    pub local_bytes: u32,
    /// Most threads of a block, when the kernel says so.
    pub max_threads: Option<u32>,
    /// Blocks of a cluster, when the kernel says so.
    pub cluster: Option<[u32; 3]>,
    /// Instructions after inlining.
    pub instructions: usize,
}

/// Addresses of a module's variables in one memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    names: Vec<String>,
    addresses: Vec<u64>,
    bytes: Vec<u64>,
}

impl Variables {
    /// Address and size of a variable.
    pub fn get(&self, name: &str) -> Option<(u64, u64)> {
        let at = self.names.iter().position(|n| n == name)?;
        Some((self.addresses[at], self.bytes[at]))
    }

    pub(crate) fn addresses(&self) -> &[u64] {
        &self.addresses
    }
}

impl Module {
    /// Reads and decodes a text. A fault names its line; an instruction that is not executed is a fault.
    pub fn parse(text: &str) -> Result<Module, PtxError> {
        let tree = ptx::parse(text)?;
        Ok(Module { decoded: decode_module(&tree)? })
    }

    pub(crate) fn decoded(&self) -> &Decoded {
        &self.decoded
    }

    /// `.version`, major and minor.
    pub fn version(&self) -> (u32, u32) {
        self.decoded.version
    }

    /// `.target`
    pub fn target(&self) -> &str {
        &self.decoded.target
    }

    /// All kernels, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = KernelInfo> + '_ {
        self.decoded.kernels.iter().map(info)
    }

    /// A kernel by its name.
    pub fn kernel(&self, name: &str) -> Option<KernelInfo> {
        self.decoded.kernels.iter().find(|k| k.name == name).map(info)
    }

    /// Allocates and fills the module's `.global` and `.const` variables.
    pub fn place_variables(&self, memory: &mut Memory) -> Result<Variables, MemoryError> {
        let mut out = Variables::default();
        for global in &self.decoded.globals {
            out.names.push(global.name.clone());
            out.addresses.push(memory.allocate(global.bytes)?);
            out.bytes.push(global.bytes);
        }
        for (global, address) in self.decoded.globals.iter().zip(&out.addresses) {
            // Variables without an initial value are zero.
            let mut contents = global.init.clone();
            contents.resize(global.bytes as usize, 0);
            for (offset, index, added) in &global.addresses {
                let value = out.addresses[*index as usize].wrapping_add(*added).to_le_bytes();
                let end = (*offset + 8).min(contents.len());
                contents[*offset..end].copy_from_slice(&value[..end - offset]);
            }
            memory.write(*address, &contents)?;
        }
        Ok(out)
    }
}

fn info(kernel: &Kernel) -> KernelInfo {
    KernelInfo {
        name: kernel.name.clone(),
        line: kernel.line,
        parameters: kernel.parameters.clone(),
        parameter_bytes: kernel.parameter_bytes,
        static_shared: kernel.static_shared,
        local_bytes: kernel.local_bytes,
        max_threads: kernel.max_threads,
        cluster: kernel.cluster,
        instructions: kernel.code.len(),
    }
}
