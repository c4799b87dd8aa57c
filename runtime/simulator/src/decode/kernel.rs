//! What a decoded kernel is, and where its variables lie.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::Body;
use super::inst::{Inst, NONE, Op, Special, Window};
use crate::error::PtxError;
use crate::ptx::ast::{Function, Module as Tree, Place, Space, Variable};

/// Largest static shared, local or parameter space.
const SPACE_BYTES_MAX: u64 = 1 << 24;

/// A value that a slot has from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Constant {
    Bits(u64),
    /// Address of a variable of the module, by index, plus an offset.
    Global(u32, i64),
    Special(Special),
}

/// A kernel ready to run.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) line: u32,
    pub(crate) code: Vec<Inst>,
    /// PTX line of each instruction.
    pub(crate) lines: Vec<u32>,
    /// Place in the CUDA source of each instruction.
    pub(crate) places: Vec<Option<Place>>,
    /// Operand lists of instructions with many operands.
    pub(crate) lists: Vec<u32>,
    pub(crate) word_constants: Vec<(u32, Constant)>,
    pub(crate) double_constants: Vec<(u32, Constant)>,
    /// Slots per class: words, doubles, predicates.
    pub(crate) slots: [u32; 3],
    /// Offset and size of each parameter.
    pub(crate) parameters: Vec<(u32, u32)>,
    pub(crate) parameter_bytes: u32,
    pub(crate) static_shared: u32,
    pub(crate) local_bytes: u32,
    pub(crate) max_threads: Option<u32>,
    pub(crate) required_threads: Option<[u32; 3]>,
    pub(crate) cluster: Option<[u32; 3]>,
    /// Smallest access to shared memory: 1, 2 or 4 bytes.
    pub(crate) granule: u32,
    /// Smallest plain store that may reach shared memory, at most 16 bytes.
    pub(crate) stored: u32,
    /// Warps are ordered by other things than barriers of the whole block.
    pub(crate) fine_order: bool,
}

/// A variable of the module in global memory.
#[derive(Debug)]
pub(crate) struct Global {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) init: Vec<u8>,
    /// Where in it addresses of other variables stand.
    pub(crate) addresses: Vec<(usize, u32, u64)>,
}

/// A text ready to run: its kernels, variables and source files.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) version: (u32, u32),
    pub(crate) target: String,
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) globals: Vec<Global>,
    pub(crate) files: BTreeMap<u32, String>,
}

/// Decodes all kernels of a module.
pub(crate) fn decode_module(tree: &Tree<'_>) -> Result<Decoded, PtxError> {
    let in_memory = |v: &&Variable<'_>| matches!(v.space, Space::Global | Space::Const);
    let mut names: FxHashMap<&str, u32> = FxHashMap::default();
    let globals: Vec<&Variable<'_>> = tree.variables.iter().filter(in_memory).collect();
    for (at, variable) in globals.iter().enumerate() {
        names.insert(variable.name, at as u32);
    }
    let mut shared = Layout::default();
    for variable in tree.variables.iter().filter(|v| v.space == Space::Shared) {
        shared.place_named(variable)?;
    }
    let mut kernels = Vec::new();
    for entry in tree.functions.iter().filter(|f| f.is_entry && !f.is_declaration) {
        kernels.push(super::decode(tree, entry, &names, &shared)?);
    }
    let globals = globals.iter().map(|v| global(v, &names)).collect::<Result<_, _>>()?;
    Ok(Decoded {
        version: tree.version,
        target: tree.target.to_owned(),
        kernels,
        globals,
        files: tree.files.iter().map(|(n, path)| (*n, (*path).to_owned())).collect(),
    })
}

fn global(variable: &Variable<'_>, names: &FxHashMap<&str, u32>) -> Result<Global, PtxError> {
    let mut addresses = Vec::new();
    for (offset, name, added) in &variable.addresses {
        let Some(index) = names.get(name) else {
            return Err(PtxError::new(
                variable.line,
                format!("`{name}` is not a variable in memory"),
            ));
        };
        addresses.push((*offset, *index, *added));
    }
    Ok(Global {
        name: variable.name.to_owned(),
        bytes: variable.bytes,
        init: variable.init.clone(),
        addresses,
    })
}

/// Offsets of a kernel's variables in their spaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout<'a> {
    /// Shared variables of the module.
    pub(crate) named: FxHashMap<&'a str, u32>,
    /// Unsized shared arrays, which begin where the static ones end.
    pub(crate) dynamic: Vec<&'a str>,
    /// Space and offset of each variable of the body.
    pub(crate) local: Vec<(Space, u32)>,
    pub(crate) shared_bytes: u32,
    pub(crate) local_bytes: u32,
    pub(crate) dynamic_align: u32,
}

fn placed(at: u32, variable: &Variable<'_>) -> Result<(u32, u32), PtxError> {
    let start = u64::from(at).next_multiple_of(variable.align);
    let end = start + variable.bytes;
    if end > SPACE_BYTES_MAX {
        let why = format!("`{}` does not fit in its space", variable.name);
        return Err(PtxError::new(variable.line, why));
    }
    Ok((start as u32, end as u32))
}

impl<'a> Layout<'a> {
    fn place_named(&mut self, variable: &Variable<'a>) -> Result<(), PtxError> {
        if variable.dynamic {
            self.dynamic.push(variable.name);
            self.dynamic_align = self.dynamic_align.max(variable.align as u32);
            return Ok(());
        }
        let (start, end) = placed(self.shared_bytes, variable)?;
        self.named.insert(variable.name, start);
        self.shared_bytes = end;
        Ok(())
    }

    /// Where a name of the module lies in shared memory.
    pub(crate) fn shared_offset(&self, name: &str) -> Option<u32> {
        let dynamic = self.dynamic.contains(&name);
        self.named.get(name).copied().or(dynamic.then_some(self.shared_bytes))
    }
}

/// Places the variables of a kernel's body.
pub(super) fn prepare<'a>(
    entry: &Function<'a>,
    body: &Body<'a>,
    shared: &Layout<'a>,
) -> Result<(Layout<'a>, Kernel), PtxError> {
    let mut layout = shared.clone();
    let mut kernel = Kernel {
        name: entry.name.to_owned(),
        line: entry.line,
        max_threads: entry.max_threads,
        required_threads: entry.required_threads,
        cluster: entry.cluster,
        ..Kernel::default()
    };
    let mut parameter_bytes = 0;
    for (id, variable) in body.variables.iter().enumerate() {
        let is_parameter = entry.parameters.contains(&(id as u32));
        let (space, used) = match variable.space {
            Space::Param if is_parameter => (Space::Param, &mut parameter_bytes),
            // Variables between a call and its callee are the thread's own.
            Space::Param | Space::Local => (Space::Local, &mut layout.local_bytes),
            Space::Shared => (Space::Shared, &mut layout.shared_bytes),
            Space::Global | Space::Const => {
                return Err(PtxError::new(variable.line, "a global variable inside a function"));
            }
        };
        let (start, end) = placed(*used, variable)?;
        *used = end;
        if is_parameter {
            kernel.parameters.push((start, end - start));
        }
        layout.local.push((space, start));
    }
    let align = layout.dynamic_align.max(16);
    if !layout.dynamic.is_empty() {
        layout.shared_bytes = layout.shared_bytes.next_multiple_of(align);
    }
    kernel.parameter_bytes = parameter_bytes;
    kernel.static_shared = layout.shared_bytes;
    kernel.local_bytes = layout.local_bytes.next_multiple_of(8);
    Ok((layout, kernel))
}

/// Smallest access that may reach shared memory.
pub(super) fn granule(code: &[Inst]) -> u32 {
    let reaches = |w: Window| matches!(w, Window::Shared | Window::Cluster | Window::Generic);
    let sizes = code.iter().filter_map(|i| match i.op {
        Op::Load(access) | Op::Store(access) if reaches(access.window) => {
            Some(u32::from(access.bytes))
        }
        Op::Atomic(atomic) if reaches(atomic.window) => Some(atomic.ty.bytes()),
        _ => None,
    });
    sizes.min().unwrap_or(4).min(4)
}

/// Smallest plain store to shared memory; asynchronous copies move 16 bytes or are stores here.
pub(super) fn stored(code: &[Inst]) -> u32 {
    let reaches = |w: Window| matches!(w, Window::Shared | Window::Cluster | Window::Generic);
    let sizes = code.iter().filter_map(|i| match i.op {
        Op::Store(access) if reaches(access.window) => Some(access.size()),
        Op::Atomic(atomic) if reaches(atomic.window) => Some(atomic.ty.bytes()),
        Op::CpAsync { bytes, .. } => Some(u32::from(bytes)),
        _ => None,
    });
    sizes.min().unwrap_or(16).min(16)
}

/// Whether anything but barriers of the whole block orders the warps of a block.
pub(super) fn fine_order(code: &[Inst]) -> bool {
    code.iter().any(|i| match i.op {
        Op::Barrier { waits, .. } => i.b != NONE || !waits,
        Op::Mbarrier { .. } | Op::ClusterWait | Op::Atomic(_) => true,
        _ => false,
    })
}
