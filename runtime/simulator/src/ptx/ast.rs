//! The tree of a PTX module. Registers and local variables are numbered per function; names that need the
//! whole module (functions, its variables) stay names.

/// Fundamental and packed types (PTX ISA, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "names are those of PTX")]
pub(crate) enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    E4m3,
    E5m2,
    E4m3x2,
    E5m2x2,
    F32,
    F64,
}

impl Type {
    /// The type of a modifier or a directive without its dot.
    pub(crate) fn named(name: &str) -> Option<Type> {
        use Type::*;
        Some(match name {
            "pred" => Pred,
            "b8" => B8,
            "b16" => B16,
            "b32" => B32,
            "b64" => B64,
            "b128" => B128,
            "u8" => U8,
            "u16" => U16,
            "u32" => U32,
            "u64" => U64,
            "s8" => S8,
            "s16" => S16,
            "s32" => S32,
            "s64" => S64,
            "f16" => F16,
            "f16x2" => F16x2,
            "bf16" => Bf16,
            "bf16x2" => Bf16x2,
            "tf32" => Tf32,
            "e4m3" => E4m3,
            "e5m2" => E5m2,
            "e4m3x2" => E4m3x2,
            "e5m2x2" => E5m2x2,
            "f32" => F32,
            "f64" => F64,
            _ => return None,
        })
    }

    /// Size in memory; a predicate has none.
    pub(crate) fn bytes(self) -> u32 {
        use Type::*;
        match self {
            Pred => 0,
            B8 | U8 | S8 | E4m3 | E5m2 => 1,
            B16 | U16 | S16 | F16 | Bf16 | E4m3x2 | E5m2x2 => 2,
            B32 | U32 | S32 | F32 | F16x2 | Bf16x2 | Tf32 => 4,
            B64 | U64 | S64 | F64 => 8,
            B128 => 16,
        }
    }

    /// Two's complement.
    pub(crate) fn is_signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64)
    }
}

/// Where a variable lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "names are those of PTX")]
pub(crate) enum Space {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// A variable of a module, of a function, or a parameter.
#[derive(Clone, Debug)]
pub(crate) struct Variable<'a> {
    pub(crate) name: &'a str,
    pub(crate) space: Space,
    pub(crate) align: u64,
    /// Whole size; zero for an unsized `extern` array.
    pub(crate) bytes: u64,
    /// Declared `extern` without a size: the launch's dynamic shared memory.
    pub(crate) dynamic: bool,
    /// Leading bytes; the rest is zero.
    pub(crate) init: Vec<u8>,
    /// Where in it the address of another variable stands: (offset, name, added).
    pub(crate) addresses: Vec<(usize, &'a str, u64)>,
    pub(crate) line: u32,
}

/// A register of a function.
pub(crate) type Register = u32;
/// A label of a function.
pub(crate) type Label = u32;

/// What an address or a symbol operand refers to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Base<'a> {
    /// Nothing: an absolute address.
    None,
    Register(Register),
    /// Index in the function's variables.
    Variable(u32),
    /// A variable or function of the module.
    Name(&'a str),
}

/// One operand of an instruction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand<'a> {
    Register(Register),
    /// `%tid.x` and its like, without the percent sign.
    Special(&'a str),
    Integer(u64),
    Single(u32),
    Double(u64),
    /// Address of a variable as a value, or the name of a function.
    Symbol(Base<'a>, i64),
    /// `[base + offset]`, with what follows a comma inside the brackets.
    Address {
        base: Base<'a>,
        offset: i64,
        rest: Vec<Operand<'a>>,
    },
    /// `{a, b}`
    Vector(Vec<Operand<'a>>),
    /// `(a, b)` of a call.
    List(Vec<Operand<'a>>),
    /// `a|b`
    Pair(Box<(Operand<'a>, Operand<'a>)>),
    /// `!a`
    Not(Box<Operand<'a>>),
    /// `_`
    Sink,
    Label(Label),
    /// A table of labels, of `brx.idx`.
    Targets(u32),
}

/// A place in the CUDA source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// Number of a `.file`.
    pub(crate) file: u32,
    pub(crate) line: u32,
    /// Where the function that holds it was inlined: file and line.
    pub(crate) inlined_at: Option<(u32, u32)>,
}

/// An instruction as written.
#[derive(Clone, Debug)]
pub(crate) struct Instruction<'a> {
    pub(crate) line: u32,
    pub(crate) place: Option<Place>,
    /// Predicate and whether it is negated.
    pub(crate) guard: Option<(Register, bool)>,
    pub(crate) opcode: &'a str,
    pub(crate) operands: Vec<Operand<'a>>,
}

/// What a body is made of.
#[derive(Clone, Debug)]
pub(crate) enum Statement<'a> {
    Label(Label),
    Instruction(Instruction<'a>),
}

/// A kernel or a device function.
#[derive(Clone, Debug, Default)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    pub(crate) is_entry: bool,
    /// Parameters and results are variables too: indices into `variables`.
    pub(crate) parameters: Vec<u32>,
    pub(crate) results: Vec<u32>,
    /// Results and parameters in registers of device functions: `.reg` instead of `.param`.
    pub(crate) variables: Vec<Variable<'a>>,
    pub(crate) registers: Vec<Type>,
    pub(crate) labels: u32,
    pub(crate) targets: Vec<Vec<Label>>,
    pub(crate) body: Vec<Statement<'a>>,
    /// `.maxntid`, or `.reqntid`.
    pub(crate) max_threads: Option<u32>,
    /// `.reqntid`
    pub(crate) required_threads: Option<[u32; 3]>,
    /// `.reqnctapercluster`
    pub(crate) cluster: Option<[u32; 3]>,
    pub(crate) line: u32,
    pub(crate) is_declaration: bool,
}

/// A whole text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Module<'a> {
    pub(crate) version: (u32, u32),
    pub(crate) target: &'a str,
    /// Number and path of each `.file`.
    pub(crate) files: Vec<(u32, &'a str)>,
    pub(crate) variables: Vec<Variable<'a>>,
    pub(crate) functions: Vec<Function<'a>>,
}
