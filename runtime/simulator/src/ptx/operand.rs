//! Operands of instructions (PTX ISA, section 6).

use super::ast::{Base, Operand};
use super::body::{Meaning, Scopes};
use super::lexer::Token;
use super::parser::Parser;
use crate::error::PtxError;

/// Deepest nesting of brackets in one operand.
const DEPTH_MAX: u32 = 4;

impl<'a> Parser<'_, 'a> {
    pub(super) fn operand(&mut self, scopes: &Scopes<'a>) -> Result<Operand<'a>, PtxError> {
        self.nested_operand(scopes, 0)
    }

    fn nested_operand(&mut self, scopes: &Scopes<'a>, depth: u32) -> Result<Operand<'a>, PtxError> {
        if depth > DEPTH_MAX {
            return self.error("an operand is nested too deeply");
        }
        let first = self.single_operand(scopes, depth)?;
        if self.accept(b'|') {
            let second = self.single_operand(scopes, depth)?;
            return Ok(Operand::Pair(Box::new((first, second))));
        }
        Ok(first)
    }

    fn single_operand(&mut self, scopes: &Scopes<'a>, depth: u32) -> Result<Operand<'a>, PtxError> {
        match self.token() {
            Token::Integer(value) => {
                self.bump();
                Ok(Operand::Integer(value))
            }
            Token::Single(bits) => {
                self.bump();
                Ok(Operand::Single(bits))
            }
            Token::Double(bits) => {
                self.bump();
                Ok(Operand::Double(bits))
            }
            Token::Mark(b'-') => self.negative(),
            Token::Mark(b'!') => {
                self.bump();
                Ok(Operand::Not(Box::new(self.single_operand(scopes, depth + 1)?)))
            }
            Token::Mark(b'{') => {
                self.bump();
                Ok(Operand::Vector(self.operands_until(b'}', scopes, depth)?))
            }
            Token::Mark(b'(') => {
                self.bump();
                Ok(Operand::List(self.operands_until(b')', scopes, depth)?))
            }
            Token::Mark(b'[') => self.address(scopes, depth),
            Token::Word(_) => self.named(scopes),
            _ => self.error("an operand is expected here"),
        }
    }

    fn negative(&mut self) -> Result<Operand<'a>, PtxError> {
        self.bump();
        match self.bump() {
            Token::Integer(value) => Ok(Operand::Integer(value.wrapping_neg())),
            Token::Single(bits) => Ok(Operand::Single(bits ^ 1 << 31)),
            Token::Double(bits) => Ok(Operand::Double(bits ^ 1 << 63)),
            _ => self.error("a number is expected after `-`"),
        }
    }

    fn operands_until(
        &mut self,
        end: u8,
        scopes: &Scopes<'a>,
        depth: u32,
    ) -> Result<Vec<Operand<'a>>, PtxError> {
        let mut out = Vec::new();
        while !self.accept(end) {
            if !out.is_empty() {
                self.expect(b',')?;
            }
            out.push(self.nested_operand(scopes, depth + 1)?);
        }
        Ok(out)
    }

    fn named(&mut self, scopes: &Scopes<'a>) -> Result<Operand<'a>, PtxError> {
        let name = self.word()?;
        if name == "_" {
            return Ok(Operand::Sink);
        }
        match scopes.find(name) {
            Some(Meaning::Register(register)) => Ok(Operand::Register(register)),
            Some(Meaning::Label(label)) => Ok(Operand::Label(label)),
            Some(Meaning::Targets(table)) => Ok(Operand::Targets(table)),
            Some(Meaning::Variable(id)) => self.symbol(Base::Variable(id)),
            None => match name.strip_prefix('%') {
                Some(special) => Ok(Operand::Special(special)),
                None => self.symbol(Base::Name(name)),
            },
        }
    }

    fn symbol(&mut self, base: Base<'a>) -> Result<Operand<'a>, PtxError> {
        let offset = self.offset()?;
        Ok(Operand::Symbol(base, offset))
    }

    /// `+ 8`, `+-8`, `- 8` or nothing.
    fn offset(&mut self) -> Result<i64, PtxError> {
        if self.accept(b'+') {
            return Ok(self.integer()? as i64);
        }
        if self.token() == Token::Mark(b'-') {
            return Ok(self.integer()? as i64);
        }
        Ok(0)
    }

    fn address(&mut self, scopes: &Scopes<'a>, depth: u32) -> Result<Operand<'a>, PtxError> {
        self.bump();
        let (base, mut offset) = match self.token() {
            Token::Word(name) => {
                self.bump();
                (self.base(name, scopes)?, 0)
            }
            _ => (Base::None, self.integer()? as i64),
        };
        offset = offset.wrapping_add(self.offset()?);
        let rest = if self.accept(b',') {
            self.operands_until(b']', scopes, depth)?
        } else {
            self.expect(b']')?;
            Vec::new()
        };
        Ok(Operand::Address { base, offset, rest })
    }

    fn base(&self, name: &'a str, scopes: &Scopes<'a>) -> Result<Base<'a>, PtxError> {
        match scopes.find(name) {
            Some(Meaning::Register(register)) => Ok(Base::Register(register)),
            Some(Meaning::Variable(id)) => Ok(Base::Variable(id)),
            Some(_) => self.error(format!("`{name}` is a label, not an address")),
            None if name.starts_with('%') => self.error(format!("`{name}` is not declared")),
            None => Ok(Base::Name(name)),
        }
    }
}
