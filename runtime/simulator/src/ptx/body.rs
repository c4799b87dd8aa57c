//! Function bodies: scopes, declarations and statements (PTX ISA, sections 4 and 5).

use rustc_hash::FxHashMap;

use super::ast::{Function, Instruction, Operand, Place, Register, Statement, Type};
use super::lexer::Token;
use super::parser::Parser;
use crate::error::PtxError;

/// Most registers of one function.
const REGISTERS_MAX: u64 = 1 << 18;
/// Deepest nesting of braces.
const DEPTH_MAX: usize = 64;

/// What a name of a scope stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Meaning {
    Register(Register),
    Variable(u32),
    Label(u32),
    Targets(u32),
}

/// Registers `stem0` to `stem{count-1}`.
struct Range<'a> {
    stem: &'a str,
    first: Register,
    count: u32,
}

/// Names by scope. Labels may be used before they stand, so every scope is kept and remembered by number.
pub(super) struct Scopes<'a> {
    names: Vec<FxHashMap<&'a str, Meaning>>,
    ranges: Vec<Vec<Range<'a>>>,
    parents: Vec<usize>,
    current: usize,
    depth: usize,
}

impl<'a> Scopes<'a> {
    pub(super) fn new() -> Scopes<'a> {
        let (names, ranges) = (vec![FxHashMap::default()], vec![Vec::new()]);
        Scopes { names, ranges, parents: vec![0], current: 0, depth: 0 }
    }

    pub(super) fn declare(&mut self, name: &'a str, meaning: Meaning) {
        self.names[self.current].insert(name, meaning);
    }

    fn open(&mut self) {
        self.names.push(FxHashMap::default());
        self.ranges.push(Vec::new());
        self.parents.push(self.current);
        self.current = self.names.len() - 1;
        self.depth += 1;
    }

    fn close(&mut self) {
        self.current = self.parents[self.current];
        self.depth -= 1;
    }

    pub(super) fn find(&self, name: &str) -> Option<Meaning> {
        self.find_from(self.current, name)
    }

    fn find_from(&self, mut scope: usize, name: &str) -> Option<Meaning> {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = name[stem.len()..].parse::<u32>().ok();
        loop {
            if let Some(meaning) = self.names[scope].get(name) {
                return Some(*meaning);
            }
            let range = self.ranges[scope].iter().find(|r| r.stem == stem);
            if let (Some(range), Some(number)) = (range, number)
                && number < range.count
            {
                return Some(Meaning::Register(range.first + number));
            }
            if scope == 0 {
                return None;
            }
            scope = self.parents[scope];
        }
    }
}

/// Uses of names that nothing had declared yet: statement, operand, scope.
type Unresolved<'a> = Vec<(usize, usize, usize, &'a str)>;

impl<'a> Parser<'_, 'a> {
    pub(super) fn body(
        &mut self,
        function: &mut Function<'a>,
        scopes: &mut Scopes<'a>,
    ) -> Result<(), PtxError> {
        self.expect(b'{')?;
        let mut place = None;
        let mut unresolved = Vec::new();
        loop {
            match (self.token(), self.token_after()) {
                (Token::Mark(b'{'), _) => {
                    self.bump();
                    scopes.open();
                    if scopes.depth > DEPTH_MAX {
                        return self.error("braces are nested too deeply");
                    }
                }
                (Token::Mark(b'}'), _) => {
                    self.bump();
                    if scopes.depth == 0 {
                        break;
                    }
                    scopes.close();
                }
                (Token::Mark(b';'), _) => {
                    self.bump();
                }
                (Token::Word(".loc"), _) => place = self.location()?,
                (Token::Word(".reg"), _) => self.registers(function, scopes)?,
                (Token::Word(".pragma"), _) => self.skip_statement()?,
                (Token::Word(".shared" | ".local" | ".param"), _) => {
                    self.local_variables(function, scopes)?;
                }
                (Token::Word(name), Token::Mark(b':')) => self.label(name, function, scopes)?,
                (Token::Word(_) | Token::Mark(b'@'), _) => {
                    self.instruction(function, scopes, place, &mut unresolved)?;
                }
                _ => return self.error("a statement is expected here"),
            }
        }
        resolve(function, scopes, &unresolved)
    }

    fn local_variables(
        &mut self,
        function: &mut Function<'a>,
        scopes: &mut Scopes<'a>,
    ) -> Result<(), PtxError> {
        for variable in self.variables(false)? {
            scopes.declare(variable.name, Meaning::Variable(function.variables.len() as u32));
            function.variables.push(variable);
        }
        self.expect(b';')
    }

    /// `.reg .b32 %r<20>;` or `.reg .pred p, q;`
    fn registers(
        &mut self,
        function: &mut Function<'a>,
        scopes: &mut Scopes<'a>,
    ) -> Result<(), PtxError> {
        self.bump();
        let Some(ty) = self.accept_type() else { return self.error("registers need a type") };
        loop {
            let name = self.word()?;
            if self.accept(b'<') {
                let count = self.integer()?;
                self.expect(b'>')?;
                if count.saturating_add(function.registers.len() as u64) > REGISTERS_MAX {
                    return self.error(format!("{count} registers `{name}`"));
                }
                let first = function.registers.len() as u32;
                scopes.ranges[scopes.current].push(Range {
                    stem: name,
                    first,
                    count: count as u32,
                });
                function.registers.extend((0..count).map(|_| ty));
            } else {
                scopes.declare(name, Meaning::Register(function.registers.len() as u32));
                function.registers.push(ty);
            }
            if !self.accept(b',') {
                return self.expect(b';');
            }
        }
    }

    /// `name:`, or `name: .branchtargets a, b;`
    fn label(
        &mut self,
        name: &'a str,
        function: &mut Function<'a>,
        scopes: &mut Scopes<'a>,
    ) -> Result<(), PtxError> {
        self.bump();
        self.bump();
        if self.accept_word(".branchtargets") {
            let mut labels = Vec::new();
            loop {
                labels.push(self.target(function, scopes)?);
                if !self.accept(b',') {
                    break;
                }
            }
            scopes.declare(name, Meaning::Targets(function.targets.len() as u32));
            function.targets.push(labels);
            return self.expect(b';');
        }
        if matches!(self.token(), Token::Word(".callprototype" | ".calltargets")) {
            return self.error("indirect calls are not executed");
        }
        let label = match scopes.names[scopes.current].get(name) {
            Some(Meaning::Label(label)) => *label,
            _ => {
                function.labels += 1;
                function.labels - 1
            }
        };
        scopes.declare(name, Meaning::Label(label));
        function.body.push(Statement::Label(label));
        Ok(())
    }

    /// A label of a table; tables stand before their labels, which are declared here then.
    fn target(
        &mut self,
        function: &mut Function<'a>,
        scopes: &mut Scopes<'a>,
    ) -> Result<u32, PtxError> {
        let name = self.word()?;
        if let Some(Meaning::Label(label)) = scopes.find(name) {
            return Ok(label);
        }
        function.labels += 1;
        scopes.declare(name, Meaning::Label(function.labels - 1));
        Ok(function.labels - 1)
    }

    /// `.loc file line column [, function_name label, inlined_at file line column]`
    fn location(&mut self) -> Result<Option<Place>, PtxError> {
        self.bump();
        let (file, line) = (self.small()?, self.small()?);
        self.small()?;
        let mut inlined_at = None;
        while self.accept(b',') {
            match self.word()? {
                "function_name" => {
                    self.word()?;
                    if self.accept(b'+') {
                        self.integer()?;
                    }
                }
                "inlined_at" => {
                    inlined_at = Some((self.small()?, self.small()?));
                    self.small()?;
                }
                other => return self.error(format!("`{other}` in a `.loc`")),
            }
        }
        Ok((line != 0).then_some(Place { file, line, inlined_at }))
    }

    fn instruction(
        &mut self,
        function: &mut Function<'a>,
        scopes: &Scopes<'a>,
        place: Option<Place>,
        unresolved: &mut Unresolved<'a>,
    ) -> Result<(), PtxError> {
        let line = self.line();
        let mut guard = None;
        if self.accept(b'@') {
            let negated = self.accept(b'!');
            let name = self.word()?;
            match scopes.find(name) {
                Some(Meaning::Register(r)) if function.registers[r as usize] == Type::Pred => {
                    guard = Some((r, negated));
                }
                _ => return self.error(format!("`{name}` is not a predicate")),
            }
        }
        let opcode = self.word()?;
        let mut operands = Vec::new();
        while !self.accept(b';') {
            if !operands.is_empty() {
                self.expect(b',')?;
            }
            let operand = self.operand(scopes)?;
            if let Operand::Symbol(super::ast::Base::Name(name), _) = operand {
                unresolved.push((function.body.len(), operands.len(), scopes.current, name));
            }
            operands.push(operand);
        }
        let instruction = Instruction { line, place, guard, opcode, operands };
        function.body.push(Statement::Instruction(instruction));
        Ok(())
    }
}

/// Turns names that were unknown when read into labels where they are labels.
fn resolve<'a>(
    function: &mut Function<'a>,
    scopes: &Scopes<'a>,
    unresolved: &Unresolved<'a>,
) -> Result<(), PtxError> {
    for (statement, operand, scope, name) in unresolved {
        let Some(meaning) = scopes.find_from(*scope, name) else { continue };
        if let Statement::Instruction(i) = &mut function.body[*statement] {
            i.operands[*operand] = match meaning {
                Meaning::Label(label) => Operand::Label(label),
                Meaning::Targets(table) => Operand::Targets(table),
                Meaning::Register(_) | Meaning::Variable(_) => {
                    return Err(PtxError::new(
                        i.line,
                        format!("`{name}` is used before it is declared"),
                    ));
                }
            };
        }
    }
    Ok(())
}
