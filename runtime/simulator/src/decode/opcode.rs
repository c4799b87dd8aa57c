//! An opcode taken apart at its dots, with every modifier accounted for.

use crate::error::PtxError;
use crate::exec::float::{Round, flags};
use crate::ptx::ast::Type;

/// The parts of an opcode.
pub(super) struct Opcode<'a> {
    pub(super) text: &'a str,
    pub(super) base: &'a str,
    modifiers: Vec<&'a str>,
    pub(super) line: u32,
}

impl<'a> Opcode<'a> {
    pub(super) fn new(text: &'a str, line: u32) -> Opcode<'a> {
        let mut parts = text.split('.');
        let base = parts.next().unwrap_or_default();
        Opcode { text, base, modifiers: parts.collect(), line }
    }

    pub(super) fn error<T>(&self, why: impl std::fmt::Display) -> Result<T, PtxError> {
        Err(PtxError::new(self.line, format!("`{}`: {why}", self.text)))
    }

    /// An instruction that is not executed.
    pub(super) fn unknown<T>(&self) -> Result<T, PtxError> {
        self.error("this instruction is not executed")
    }

    pub(super) fn has(&self, modifier: &str) -> bool {
        self.modifiers.contains(&modifier)
    }

    pub(super) fn any(&self, modifiers: &[&str]) -> bool {
        modifiers.iter().any(|m| self.has(m))
    }

    /// The first modifier with a prefix, without it.
    pub(super) fn after(&self, prefix: &str) -> Option<&'a str> {
        self.modifiers.iter().find_map(|m| m.strip_prefix(prefix))
    }

    /// The modifiers that are types, in order.
    pub(super) fn types(&self) -> Vec<Type> {
        self.modifiers.iter().filter_map(|m| Type::named(m)).collect()
    }

    /// The last type.
    pub(super) fn ty(&self) -> Result<Type, PtxError> {
        match self.types().last() {
            Some(ty) => Ok(*ty),
            None => self.error("a type is missing"),
        }
    }

    /// Fails on a modifier that is neither a type nor in a list.
    pub(super) fn allow(&self, known: &[&str]) -> Result<(), PtxError> {
        let stray = self.modifiers.iter().find(|m| Type::named(m).is_none() && !known.contains(m));
        match stray {
            Some(stray) => self.error(format!("`.{stray}` is not executed here")),
            None => Ok(()),
        }
    }

    /// Direction of rounding, when said.
    pub(super) fn round(&self) -> Option<Round> {
        self.modifiers.iter().find_map(|m| {
            Some(match *m {
                "rn" | "rni" => Round::Nearest,
                "rz" | "rzi" => Round::Zero,
                "rm" | "rmi" => Round::Down,
                "rp" | "rpi" => Round::Up,
                "rna" => Round::Away,
                _ => return None,
            })
        })
    }

    /// Bits of [`flags`] that the modifiers ask for.
    pub(super) fn flags(&self) -> u32 {
        let table = [
            ("ftz", flags::FTZ),
            ("sat", flags::SAT),
            ("NaN", flags::NAN),
            ("relu", flags::RELU),
            ("xorsign", flags::XORSIGN),
            ("satfinite", flags::SATFINITE),
        ];
        let set = table.iter().filter(|(name, _)| self.has(name)).fold(0, |bits, (_, b)| bits | b);
        set | self.round().map_or(0, Round::bits)
    }
}
