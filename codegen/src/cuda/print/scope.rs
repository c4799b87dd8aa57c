//! What a kernel's text may refer to: buffers, shape symbols, axes, and what is known about them.

use std::collections::{BTreeMap, BTreeSet};

use tgc_ir::facts::{Bounds, Facts};
use tgc_ir::kernel_program::{Access, KernelProgram, axis_symbol};
use tgc_ir::{Dim, Symbol};

use super::storage_type;

/// Why a program cannot be printed as CUDA.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrintError {
    /// The symbol table that the launch binds does not hold it.
    #[error("kernel `{kernel}` needs symbol `{symbol}`, which the symbol table does not hold")]
    UnknownSymbol {
        /// Kernel name.
        kernel: String,
        /// Symbol name.
        symbol: String,
    },
    /// A feature that no CUDA family covers.
    #[error("kernel `{kernel}`: {what} is not supported on cuda")]
    Unsupported {
        /// Kernel name.
        kernel: String,
        /// What it was.
        what: String,
    },
    /// The program contradicts itself (an index out of range, a missing slot).
    #[error("kernel `{kernel}` is malformed: {why}")]
    Malformed {
        /// Kernel name.
        kernel: String,
        /// What is wrong.
        why: String,
    },
}

/// Names and facts of one kernel.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    /// The kernel program.
    pub program: &'a KernelProgram,
    facts: &'a Facts,
    names: BTreeMap<Symbol, (String, usize)>,
    wide: bool,
}

/// True when every offset and count of the program provably fits 31 bits.
fn fits_31_bits(program: &KernelProgram, facts: &Facts) -> bool {
    let below = |dim: &Dim| facts.interval(dim).1.is_some_and(|high| high < i64::from(i32::MAX));
    let spans = program.buffers.iter().all(|buffer| {
        let last = buffer.shape.iter().zip(&buffer.strides);
        below(&last.fold(Dim::ONE, |sum, (extent, stride)| sum + extent.clone() * stride.clone()))
    });
    let space = program.extents().into_iter().try_fold(1i64, |product, dim| {
        facts.interval(dim).1.and_then(|high| product.checked_mul(high.max(1)))
    });
    spans && space.is_some_and(|points| points < i64::from(i32::MAX))
}

impl<'a> Scope<'a> {
    /// The scope of a program whose launch binds `table` (symbol i at index i) as first argument.
    ///
    /// # Errors
    /// [`PrintError::UnknownSymbol`], and [`PrintError::Unsupported`] for 4-bit buffers.
    pub fn new(
        program: &'a KernelProgram,
        facts: &'a Facts,
        table: &[Symbol],
    ) -> Result<Scope<'a>, PrintError> {
        let mut names = BTreeMap::new();
        let mut taken: BTreeSet<String> = BTreeSet::new();
        for symbol in program.symbols() {
            let at = table.iter().position(|known| *known == symbol).ok_or_else(|| {
                PrintError::UnknownSymbol {
                    kernel: program.name.clone(),
                    symbol: symbol.name().to_owned(),
                }
            })?;
            let name = unique(&identifier(symbol.name()), &mut taken);
            names.insert(symbol, (name, at));
        }
        if let Some(buffer) =
            program.buffers.iter().find(|buffer| storage_type(buffer.dtype).is_none())
        {
            let what = format!("a buffer of {}", buffer.dtype);
            return Err(PrintError::Unsupported { kernel: program.name.clone(), what });
        }
        Ok(Scope { program, facts, names, wide: !fits_31_bits(program, facts) })
    }

    /// The integer type of indices: `i32` where every offset provably fits, `i64` elsewhere.
    pub fn index_type(&self) -> &'static str {
        if self.wide { "i64" } else { "i32" }
    }

    /// True when indices are 64 bits wide.
    pub fn is_wide(&self) -> bool {
        self.wide
    }

    /// Facts about symbols alone.
    pub fn facts(&self) -> &Facts {
        self.facts
    }

    /// Facts about symbols and about axes `$0…` that run over `extents`.
    pub fn facts_with_axes(&self, extents: &[Dim]) -> Facts {
        let mut facts = self.facts.clone();
        for (n, extent) in extents.iter().enumerate() {
            let high = self.facts.interval(extent).1.map(|high| (high - 1).max(0));
            facts.bound(axis_symbol(n), Bounds { low: 0, high, multiple_of: 1 });
        }
        facts
    }

    /// The C++ name of a shape symbol.
    pub fn symbol_name(&self, symbol: &Symbol) -> Option<&str> {
        self.names.get(symbol).map(|(name, _)| name.as_str())
    }

    /// The C++ names of the program's symbols, in the order of their lines.
    pub fn symbol_names(&self) -> Vec<&str> {
        self.names.values().map(|(name, _)| name.as_str()).collect()
    }

    /// Lines that read the program's symbols out of the table `sym`.
    pub fn symbol_lines(&self) -> Vec<String> {
        let index = self.index_type();
        let cast = if self.wide { "" } else { "(i32)" };
        self.names
            .values()
            .map(|(name, at)| format!("const {index} {name} = {cast}sym[{at}];"))
            .collect()
    }

    /// The C++ name of a buffer: `x` read, `w` weights, `y` written, `s` updated in place.
    pub fn buffer_name(&self, buffer: u32) -> String {
        let letter = match self.program.buffers.get(buffer as usize) {
            Some(b) if b.access == Access::Read && b.constant => "w",
            Some(b) if b.access == Access::Read => "x",
            Some(b) if b.access == Access::Write => "y",
            _ => "s",
        };
        format!("{letter}{buffer}")
    }

    /// The C++ type and name of every buffer argument, in launch order.
    pub fn buffer_arguments(&self) -> Vec<(String, String)> {
        let buffers = self.program.buffers.iter().enumerate();
        buffers
            .map(|(n, buffer)| {
                let stored = storage_type(buffer.dtype).unwrap_or("u8");
                let kind = match buffer.access {
                    Access::Read => format!("const {stored} *__restrict__ "),
                    Access::Write => format!("{stored} *__restrict__ "),
                    Access::ReadWrite => format!("{stored} *"),
                };
                (kind, self.buffer_name(n as u32))
            })
            .collect()
    }

    /// An error about this program's structure.
    pub fn malformed(&self, why: impl Into<String>) -> PrintError {
        PrintError::Malformed { kernel: self.program.name.clone(), why: why.into() }
    }

    /// An error about something that cuda does not do.
    pub fn unsupported(&self, what: impl Into<String>) -> PrintError {
        PrintError::Unsupported { kernel: self.program.name.clone(), what: what.into() }
    }
}

/// Text made a C identifier: other characters become underscores, and a prefix goes in front.
pub fn identifier(text: &str) -> String {
    let body: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    // The prefix keeps symbols apart from axes, buffers and keywords.
    format!("n_{body}")
}

fn unique(name: &str, taken: &mut BTreeSet<String>) -> String {
    let mut candidate = name.to_owned();
    let mut count = 1;
    while !taken.insert(candidate.clone()) {
        count += 1;
        candidate = format!("{name}_{count}");
    }
    candidate
}
