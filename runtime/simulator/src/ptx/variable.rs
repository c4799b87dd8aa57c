//! Declarations of variables with their initial values (PTX ISA, section 5.4).

use super::ast::{Function, Space, Type, Variable};
use super::body::{Meaning, Scopes};
use super::lexer::Token;
use super::parser::{Parser, VARIABLE_BYTES_MAX};
use crate::error::PtxError;

impl<'a> Parser<'_, 'a> {
    fn space(&mut self) -> Result<Space, PtxError> {
        Ok(match self.word()? {
            ".global" => Space::Global,
            ".const" => Space::Const,
            ".shared" => Space::Shared,
            ".local" => Space::Local,
            ".param" => Space::Param,
            other => return self.error(format!("`{other}` is not a state space of variables")),
        })
    }

    /// `.space .align n .type name[n] = …, name …`, up to what ends it.
    pub(super) fn variables(&mut self, external: bool) -> Result<Vec<Variable<'a>>, PtxError> {
        let space = self.space()?;
        let mut align = 0;
        let mut lanes = 1;
        let element = loop {
            match self.token() {
                Token::Word(".align") => {
                    self.bump();
                    align = self.integer()?;
                }
                Token::Word(".v2") => {
                    self.bump();
                    lanes = 2;
                }
                Token::Word(".v4") => {
                    self.bump();
                    lanes = 4;
                }
                Token::Word(".ptr" | ".attribute" | ".managed" | ".unified") => {
                    return self.error("attributes of variables are not executed");
                }
                _ => match self.accept_type() {
                    Some(found) => break found,
                    None => return self.error("a variable needs a type"),
                },
            }
        };
        if align > 1 << 12 || (align != 0 && !align.is_power_of_two()) {
            return self.error(format!("an alignment of {align} bytes"));
        }
        self.pointer_attributes()?;
        let unit = u64::from(element.bytes()) * lanes;
        let mut out = Vec::new();
        loop {
            let mut variable = self.declarator(space, unit, element, external)?;
            variable.align = align.max(unit).max(1);
            out.push(variable);
            if space == Space::Param || !self.accept(b',') {
                return Ok(out);
            }
        }
    }

    /// `.ptr .global .align 4` of a kernel parameter.
    fn pointer_attributes(&mut self) -> Result<(), PtxError> {
        if self.accept_word(".ptr") {
            while let Token::Word(".global" | ".const" | ".shared" | ".local" | ".align") =
                self.token()
            {
                if self.bump() == Token::Word(".align") {
                    self.integer()?;
                }
            }
        }
        Ok(())
    }

    fn declarator(
        &mut self,
        space: Space,
        unit: u64,
        element: Type,
        external: bool,
    ) -> Result<Variable<'a>, PtxError> {
        let line = self.line();
        let name = self.word()?;
        let mut bytes = unit;
        let mut dynamic = false;
        while self.accept(b'[') {
            let extent = if self.token() == Token::Mark(b']') { 0 } else { self.integer()? };
            dynamic |= extent == 0 && external;
            bytes = bytes.saturating_mul(extent);
            self.expect(b']')?;
        }
        if bytes > VARIABLE_BYTES_MAX {
            return self.error(format!("`{name}` has {bytes} bytes"));
        }
        let mut variable = Variable {
            name,
            space,
            align: 1,
            bytes,
            dynamic,
            init: Vec::new(),
            addresses: Vec::new(),
            line,
        };
        if self.accept(b'=') {
            self.initial_value(&mut variable, element)?;
            if variable.init.len() as u64 > bytes {
                return self.error(format!("`{name}` has more initial values than bytes"));
            }
        }
        Ok(variable)
    }

    fn initial_value(
        &mut self,
        variable: &mut Variable<'a>,
        element: Type,
    ) -> Result<(), PtxError> {
        let mut depth = 0u32;
        loop {
            match self.token() {
                Token::Mark(b'{') => {
                    depth += 1;
                    self.bump();
                }
                Token::Mark(b'}') if depth > 0 => {
                    depth -= 1;
                    self.bump();
                }
                Token::Mark(b',') if depth > 0 => {
                    self.bump();
                }
                Token::Word(_) => self.initial_address(variable, element)?,
                _ => self.initial_number(variable, element)?,
            }
            if depth == 0 {
                return Ok(());
            }
            if variable.init.len() as u64 > VARIABLE_BYTES_MAX {
                return self.error("too many initial values");
            }
        }
    }

    fn initial_number(
        &mut self,
        variable: &mut Variable<'a>,
        element: Type,
    ) -> Result<(), PtxError> {
        let negative = self.accept(b'-');
        let bits = match (self.bump(), element) {
            (Token::Integer(value), _) if negative => value.wrapping_neg(),
            (Token::Integer(value), _) => value,
            (Token::Single(bits), Type::F64) => f64::from(f32::from_bits(bits)).to_bits(),
            (Token::Single(bits), _) => u64::from(bits),
            (Token::Double(bits), Type::F32) => u64::from((f64::from_bits(bits) as f32).to_bits()),
            (Token::Double(bits), _) => bits,
            _ => return self.error("an initial value is a number or an address"),
        };
        variable.init.extend_from_slice(&bits.to_le_bytes()[..element.bytes().min(8) as usize]);
        Ok(())
    }

    /// `name`, `name + 8` or `generic(name)`.
    fn initial_address(
        &mut self,
        variable: &mut Variable<'a>,
        element: Type,
    ) -> Result<(), PtxError> {
        let mut name = self.word()?;
        let generic = name == "generic" && self.accept(b'(');
        if generic {
            name = self.word()?;
        }
        let added = if self.accept(b'+') { self.integer()? } else { 0 };
        if generic {
            self.expect(b')')?;
        }
        variable.addresses.push((variable.init.len(), name, added));
        variable.init.extend_from_slice(&[0; 8][..element.bytes().min(8) as usize]);
        Ok(())
    }

    /// `(.param .u64 a, .reg .f32 b)`; registers become variables of parameters too.
    pub(super) fn parameters(
        &mut self,
        function: &mut Function<'a>,
        scopes: &mut Scopes<'a>,
    ) -> Result<Vec<u32>, PtxError> {
        self.expect(b'(')?;
        let mut out = Vec::new();
        while !self.accept(b')') {
            if self.token() == Token::Word(".reg") {
                return self.error("parameters in registers are not executed, only `.param`");
            }
            for variable in self.variables(false)? {
                let id = function.variables.len() as u32;
                scopes.declare(variable.name, Meaning::Variable(id));
                function.variables.push(variable);
                out.push(id);
            }
            if self.token() != Token::Mark(b')') {
                self.expect(b',')?;
            }
        }
        Ok(out)
    }
}
