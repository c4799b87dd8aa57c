//! A kernel program bound to symbol values: which anchor runs how over which extents.

use std::sync::{Arc, Mutex};

use tgc_ir::DType;
use tgc_ir::dim::{Dim, DimError};
use tgc_ir::kernel_program::{Epilogue, KernelProgram, Operand};

use super::anchors::{Bound, bind_anchor};
use super::error::CpuError;
use super::exec::Exec;
use super::index::{Symbols, number};
use super::kernels::Isa;
use super::kernels::buffer::Buffer;
use super::kernels::region::Region;
use super::tile::{self, Program, Spec};

/// A kernel ready to run for one binding of the shape symbols.
#[derive(Debug)]
pub struct CpuProgram {
    name: String,
    bound: Bound,
}

impl CpuProgram {
    /// Binds a kernel. `constants[i]` is the memory of argument `i` when it is a weight: what derives from weights
    /// alone is computed once and kept in `packs`, which belongs to this kernel with these weights.
    ///
    /// # Errors
    /// When an extent has no value or the program is malformed.
    pub fn bind(
        kernel: &KernelProgram,
        symbols: &Symbols<'_>,
        isa: Isa,
        constants: &[Option<Region>],
        packs: &Packs,
    ) -> Result<Self, CpuError> {
        let cx = Binder::new(kernel, symbols, isa, constants, packs)?;
        Ok(Self { name: kernel.name.clone(), bound: bind_anchor(&cx, &kernel.anchor)? })
    }

    /// Name of the kernel.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs over one region per argument.
    pub fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        self.bound.run(exec, regions);
    }
}

/// What has been derived from one kernel's weights, by its part and the extents it was derived for. A part of a
/// kernel has at most one such operand.
#[derive(Debug, Default)]
pub struct Packs(Mutex<Vec<(Vec<i64>, Arc<Buffer>)>>);

/// What binding an anchor needs to know.
#[derive(Clone)]
pub struct Binder<'a> {
    /// The kernel.
    pub kernel: &'a KernelProgram,
    /// Values of shape symbols.
    pub symbols: &'a Symbols<'a>,
    /// Instruction set that will run it.
    pub isa: Isa,
    /// Memory of the arguments that are weights.
    pub constants: &'a [Option<Region>],
    /// What has been derived from the weights before.
    pub packs: &'a Packs,
    /// Element type and strides of each argument.
    pub buffers: Vec<(DType, Vec<i64>)>,
    /// Which part of a kernel that is bound in several.
    part: i64,
}

impl<'a> Binder<'a> {
    fn new(
        kernel: &'a KernelProgram,
        symbols: &'a Symbols<'a>,
        isa: Isa,
        constants: &'a [Option<Region>],
        packs: &'a Packs,
    ) -> Result<Self, CpuError> {
        let mut cx = Self { kernel, symbols, isa, constants, packs, buffers: Vec::new(), part: 0 };
        for buffer in &kernel.buffers {
            let strides = buffer.strides.iter().map(|d| cx.number(d)).collect::<Result<_, _>>()?;
            cx.buffers.push((buffer.dtype, strides));
        }
        Ok(cx)
    }

    /// The same for part number `part` of a kernel that is bound in several, each with a derived weight of its own.
    #[must_use]
    pub fn part(&self, part: i64) -> Self {
        Self { part, ..self.clone() }
    }

    /// The error of a dim without a value.
    pub fn dim_error(&self, source: DimError) -> CpuError {
        CpuError::Dim { kernel: self.kernel.name.clone(), source }
    }

    /// The error of a program that breaks its own rules.
    pub fn malformed(&self, why: impl Into<String>) -> CpuError {
        CpuError::Malformed { kernel: self.kernel.name.clone(), why: why.into() }
    }

    /// A dim's value.
    pub fn number(&self, dim: &Dim) -> Result<i64, CpuError> {
        number(dim, self.symbols).map_err(|e| self.dim_error(e))
    }

    /// Extents, none negative.
    pub fn extents(&self, dims: &[Dim]) -> Result<Vec<i64>, CpuError> {
        dims.iter().map(|d| self.number(d).map(|n| n.max(0))).collect()
    }

    /// One extent.
    pub fn extent(&self, dim: &Dim) -> Result<usize, CpuError> {
        self.number(dim).map(|n| n.max(0) as usize)
    }

    fn spec<'b>(
        &'b self,
        body: &'b tgc_ir::kernel_program::Body,
        axes: [&'b [i64]; 3],
    ) -> Spec<'b> {
        Spec {
            body,
            buffers: &self.buffers,
            fixed: axes[0],
            rows: axes[1],
            cols: axes[2],
            symbols: self.symbols,
            stores: &[],
            results: &[],
            given: 0,
            chunked: false,
        }
    }

    /// An operand as a tile program whose one result is the operand; axes are fixed, row and column extents.
    pub fn operand(
        &self,
        operand: &Operand,
        axes: [&[i64]; 3],
        given: u16,
    ) -> Result<Program, CpuError> {
        let results = [operand.value];
        let spec = Spec { results: &results, given, ..self.spec(&operand.body, axes) };
        tile::compile(&spec).map_err(|e| self.dim_error(e))
    }

    /// An epilogue as a tile program with `given` values in its first slots.
    pub fn epilogue(
        &self,
        e: &Epilogue,
        axes: [&[i64]; 3],
        given: u16,
        chunked: bool,
    ) -> Result<Program, CpuError> {
        let spec = Spec { stores: &e.stores, given, chunked, ..self.spec(&e.body, axes) };
        tile::compile(&spec).map_err(|e| self.dim_error(e))
    }

    /// A body with chosen results.
    pub fn values(
        &self,
        body: &tgc_ir::kernel_program::Body,
        results: &[u32],
        axes: [&[i64]; 3],
    ) -> Result<Program, CpuError> {
        let spec = Spec { results, ..self.spec(body, axes) };
        tile::compile(&spec).map_err(|e| self.dim_error(e))
    }

    /// True when every load of the operand reads weights.
    pub fn is_constant(&self, operand: &Operand) -> bool {
        operand.body.insts.iter().all(|inst| match &inst.kind {
            tgc_ir::kernel_program::InstKind::Load(load) => {
                self.constants.get(load.buffer as usize).is_some_and(Option::is_some)
            }
            _ => true,
        })
    }

    /// What `make` derives from a constant operand, kept for later bindings when it depends on no symbol but
    /// through `shape`.
    pub fn packed(
        &self,
        operand: &Operand,
        shape: &[i64],
        make: impl FnOnce() -> Buffer,
    ) -> Arc<Buffer> {
        let fixed = operand.body.dims().all(|d| {
            d.symbols().iter().all(|s| {
                tgc_ir::kernel_program::as_axis(s).is_some()
                    || tgc_ir::kernel_program::as_value(s).is_some()
            })
        });
        if !fixed {
            return Arc::new(make());
        }
        let shape = &[&[self.part], shape].concat();
        let mut packs = self.packs.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let found = packs.iter().find(|(key, _)| key == shape);
        if let Some((_, buffer)) = found {
            return Arc::clone(buffer);
        }
        let buffer = Arc::new(make());
        packs.push((shape.clone(), Arc::clone(&buffer)));
        buffer
    }

    /// One region per argument, empty where it is no weight.
    pub fn constant_regions(&self) -> Vec<Region> {
        self.constants.iter().map(|c| c.unwrap_or_else(Region::empty)).collect()
    }
}

/// Product of extents.
#[must_use]
pub fn count(extents: &[i64]) -> usize {
    extents.iter().product::<i64>().max(0) as usize
}
