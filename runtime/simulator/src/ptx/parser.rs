//! The module level of a PTX text, and the helpers that every part of the parser uses.

use super::ast::{Function, Module, Type};
use super::lexer::{Lexeme, Token, lex};
use crate::error::PtxError;

/// Most bytes of one variable.
pub(super) const VARIABLE_BYTES_MAX: u64 = 1 << 28;

/// Reads a text.
pub(crate) fn parse(text: &str) -> Result<Module<'_>, PtxError> {
    let lexemes = lex(text)?;
    let mut parser = Parser { lexemes: &lexemes, at: 0 };
    let mut module = Module::default();
    while parser.token() != Token::End {
        parser.module_item(&mut module)?;
    }
    if module.target.is_empty() {
        return Err(PtxError::new(1, "no `.target`: this is not a PTX text"));
    }
    Ok(module)
}

/// A position in the tokens.
pub(super) struct Parser<'t, 'a> {
    lexemes: &'t [Lexeme<'a>],
    at: usize,
}

impl<'a> Parser<'_, 'a> {
    fn lexeme(&self, ahead: usize) -> Lexeme<'a> {
        let last = self.lexemes.len() - 1;
        self.lexemes[(self.at + ahead).min(last)]
    }

    pub(super) fn token(&self) -> Token<'a> {
        self.lexeme(0).token
    }

    pub(super) fn token_after(&self) -> Token<'a> {
        self.lexeme(1).token
    }

    pub(super) fn line(&self) -> u32 {
        self.lexeme(0).line
    }

    pub(super) fn bump(&mut self) -> Token<'a> {
        let token = self.token();
        self.at += 1;
        token
    }

    pub(super) fn error<T>(&self, message: impl Into<String>) -> Result<T, PtxError> {
        Err(PtxError::new(self.line(), message))
    }

    fn expected<T>(&self, what: &str) -> Result<T, PtxError> {
        self.error(match self.token() {
            Token::Word(word) => format!("expected {what}, found `{word}`"),
            Token::Mark(mark) => format!("expected {what}, found `{}`", mark as char),
            Token::End => format!("expected {what}, found the end of the text"),
            _ => format!("expected {what}, found a literal"),
        })
    }

    pub(super) fn accept(&mut self, mark: u8) -> bool {
        let found = self.token() == Token::Mark(mark);
        self.at += usize::from(found);
        found
    }

    pub(super) fn accept_word(&mut self, word: &str) -> bool {
        let found = self.token() == Token::Word(word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, mark: u8) -> Result<(), PtxError> {
        if self.accept(mark) { Ok(()) } else { self.expected(&format!("`{}`", mark as char)) }
    }

    pub(super) fn word(&mut self) -> Result<&'a str, PtxError> {
        match self.token() {
            Token::Word(word) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.expected("a name"),
        }
    }

    pub(super) fn integer(&mut self) -> Result<u64, PtxError> {
        let negative = self.accept(b'-');
        match self.token() {
            Token::Integer(value) => {
                self.at += 1;
                Ok(if negative { value.wrapping_neg() } else { value })
            }
            _ => self.expected("an integer"),
        }
    }

    pub(super) fn small(&mut self) -> Result<u32, PtxError> {
        let value = self.integer()?;
        u32::try_from(value).or_else(|_| self.error(format!("{value} is too large here")))
    }

    /// A type directive such as `.u32`, when one is next.
    pub(super) fn accept_type(&mut self) -> Option<Type> {
        let Token::Word(word) = self.token() else { return None };
        let found = Type::named(word.strip_prefix('.')?)?;
        self.at += 1;
        Some(found)
    }

    /// Up to three integers between commas; missing ones are 1.
    fn extents(&mut self) -> Result<[u32; 3], PtxError> {
        let mut out = [self.small()?, 1, 1];
        for extent in &mut out[1..] {
            if self.accept(b',') {
                *extent = self.small()?;
            }
        }
        Ok(out)
    }

    /// Passes over everything up to the brace that closes the next one.
    fn skip_braces(&mut self) -> Result<(), PtxError> {
        self.expect(b'{')?;
        let mut depth = 1;
        while depth > 0 {
            match self.bump() {
                Token::Mark(b'{') => depth += 1,
                Token::Mark(b'}') => depth -= 1,
                Token::End => return self.error("a section is never closed"),
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn skip_statement(&mut self) -> Result<(), PtxError> {
        loop {
            match self.bump() {
                Token::Mark(b';') => return Ok(()),
                Token::End => return self.error("a statement is never ended by `;`"),
                _ => {}
            }
        }
    }

    fn module_item(&mut self, module: &mut Module<'a>) -> Result<(), PtxError> {
        let Token::Word(word) = self.token() else { return self.expected("a directive") };
        match word {
            ".version" => {
                self.at += 1;
                module.version = self.version()?;
            }
            ".target" => {
                self.at += 1;
                module.target = self.word()?;
                while self.accept(b',') {
                    self.word()?;
                }
            }
            ".address_size" => {
                self.at += 1;
                if self.integer()? != 64 {
                    return self.error("only 64-bit addresses are executed");
                }
            }
            ".file" => {
                self.at += 1;
                self.file(module)?;
            }
            ".section" => {
                self.at += 1;
                self.word()?;
                self.skip_braces()?;
            }
            ".pragma" => self.skip_statement()?,
            ".visible" | ".extern" | ".weak" | ".common" | ".entry" | ".func" => {
                self.linked_item(module)?;
            }
            ".global" | ".const" | ".shared" | ".tex" => self.module_variable(module, false)?,
            _ => return self.error(format!("`{word}` is not expected between functions")),
        }
        Ok(())
    }

    /// `7.8` comes as a fraction.
    fn version(&mut self) -> Result<(u32, u32), PtxError> {
        match self.bump() {
            Token::Single(bits) => {
                let value = f32::from_bits(bits);
                Ok((value as u32, ((value * 10.0).round() as u32) % 10))
            }
            _ => self.error("`.version` needs major.minor"),
        }
    }

    fn file(&mut self, module: &mut Module<'a>) -> Result<(), PtxError> {
        let number = self.small()?;
        let Token::Text(path) = self.bump() else { return self.expected("a path") };
        while self.accept(b',') {
            self.integer()?;
        }
        module.files.push((number, path));
        Ok(())
    }

    fn linked_item(&mut self, module: &mut Module<'a>) -> Result<(), PtxError> {
        let mut external = false;
        loop {
            match self.token() {
                Token::Word(".visible" | ".weak" | ".common") => self.at += 1,
                Token::Word(".extern") => {
                    external = true;
                    self.at += 1;
                }
                Token::Word(".entry") => return self.function(module, true),
                Token::Word(".func") => return self.function(module, false),
                _ => return self.module_variable(module, external),
            }
        }
    }

    fn module_variable(&mut self, module: &mut Module<'a>, external: bool) -> Result<(), PtxError> {
        let variables = self.variables(external)?;
        self.expect(b';')?;
        module.variables.extend(variables);
        Ok(())
    }

    fn function(&mut self, module: &mut Module<'a>, is_entry: bool) -> Result<(), PtxError> {
        let mut function = Function { is_entry, line: self.line(), ..Function::default() };
        self.at += 1;
        let mut scopes = super::body::Scopes::new();
        if self.token() == Token::Mark(b'(') {
            function.results = self.parameters(&mut function, &mut scopes)?;
        }
        function.name = self.word()?;
        if self.token() == Token::Mark(b'(') {
            function.parameters = self.parameters(&mut function, &mut scopes)?;
        }
        self.function_directives(&mut function)?;
        if self.accept(b';') {
            function.is_declaration = true;
        } else {
            self.body(&mut function, &mut scopes)?;
        }
        module.functions.push(function);
        Ok(())
    }

    fn function_directives(&mut self, function: &mut Function<'a>) -> Result<(), PtxError> {
        while let Token::Word(word) = self.token() {
            self.at += 1;
            match word {
                ".maxntid" => {
                    let extents = self.extents()?;
                    function.max_threads =
                        Some(extents.iter().fold(1u32, |n, e| n.saturating_mul(*e)));
                }
                ".reqntid" => function.required_threads = Some(self.extents()?),
                ".reqnctapercluster" => function.cluster = Some(self.extents()?),
                ".minnctapersm"
                | ".maxnctapersm"
                | ".maxnreg"
                | ".maxclusterrank"
                | ".abi_preserve"
                | ".abi_preserve_control" => {
                    self.integer()?;
                }
                ".explicitcluster" | ".noreturn" | ".blocksareclusters" => {}
                ".pragma" => self.skip_statement()?,
                _ => return self.error(format!("`{word}` is not known before a body")),
            }
        }
        Ok(())
    }
}
