//! Replaces calls of device functions by their bodies, so that a kernel is one list of instructions.
//!
//! A formal `.param` of the callee becomes the caller's variable; everything else gets fresh numbers.

use super::Body;
use crate::error::PtxError;
use crate::ptx::ast::{Base, Function, Instruction, Label, Operand, Statement, Variable};

/// Deepest chain of calls.
const DEPTH_MAX: u32 = 32;
/// Most instructions of a kernel after inlining.
const INSTRUCTIONS_MAX: usize = 1 << 21;

/// The body of a kernel without calls.
pub(super) fn inline<'a>(
    entry: &Function<'a>,
    functions: &[Function<'a>],
) -> Result<Body<'a>, PtxError> {
    let mut out = Inliner { functions, body: Body::default(), depth: 0 };
    let variables = out.fresh_variables(entry, &[]);
    out.copy(entry, &variables)?;
    Ok(out.body)
}

struct Inliner<'f, 'a> {
    functions: &'f [Function<'a>],
    body: Body<'a>,
    depth: u32,
}

/// How numbers of a function become numbers of the whole body.
struct Renaming<'v> {
    register: u32,
    label: u32,
    table: u32,
    variables: &'v [u32],
    /// Where a `ret` goes; none in the kernel itself.
    end: Option<Label>,
}

impl<'a> Inliner<'_, 'a> {
    /// Gives each variable of a function a number; the first are already given.
    fn fresh_variables(&mut self, function: &Function<'a>, given: &[(u32, u32)]) -> Vec<u32> {
        let mut out = Vec::with_capacity(function.variables.len());
        for (id, variable) in function.variables.iter().enumerate() {
            let known = given.iter().find(|(formal, _)| *formal as usize == id);
            out.push(known.map_or_else(|| self.add_variable(variable), |(_, actual)| *actual));
        }
        out
    }

    fn add_variable(&mut self, variable: &Variable<'a>) -> u32 {
        self.body.variables.push(variable.clone());
        self.body.variables.len() as u32 - 1
    }

    fn fresh_label(&mut self) -> Label {
        self.body.label_at.push(u32::MAX);
        self.body.label_at.len() as u32 - 1
    }

    fn copy(&mut self, function: &Function<'a>, variables: &[u32]) -> Result<(), PtxError> {
        let renaming = Renaming {
            register: self.body.registers.len() as u32,
            label: self.body.label_at.len() as u32,
            table: self.body.targets.len() as u32,
            variables,
            end: None,
        };
        self.copy_with(function, renaming, self.depth > 0)
    }

    fn copy_with(
        &mut self,
        function: &Function<'a>,
        mut renaming: Renaming<'_>,
        is_call: bool,
    ) -> Result<(), PtxError> {
        self.body.registers.extend_from_slice(&function.registers);
        self.body.label_at.extend((0..function.labels).map(|_| u32::MAX));
        for table in &function.targets {
            self.body.targets.push(table.iter().map(|l| l + renaming.label).collect());
        }
        if is_call {
            renaming.end = Some(self.fresh_label());
        }
        for statement in &function.body {
            match statement {
                Statement::Label(label) => self.place(*label + renaming.label, function.line)?,
                Statement::Instruction(i) => self.instruction(i, &renaming)?,
            }
        }
        match renaming.end {
            Some(end) => self.place(end, function.line),
            None => Ok(()),
        }
    }

    fn place(&mut self, label: Label, line: u32) -> Result<(), PtxError> {
        let at = self.body.instructions.len() as u32;
        let slot = &mut self.body.label_at[label as usize];
        if *slot != u32::MAX {
            return Err(PtxError::new(line, "a label of this function stands twice"));
        }
        *slot = at;
        Ok(())
    }

    fn instruction(
        &mut self,
        source: &Instruction<'a>,
        renaming: &Renaming<'_>,
    ) -> Result<(), PtxError> {
        if self.body.instructions.len() >= INSTRUCTIONS_MAX {
            return Err(PtxError::new(source.line, "the kernel is too long after inlining"));
        }
        let mut i = source.clone();
        i.guard = i.guard.map(|(register, negated)| (register + renaming.register, negated));
        i.operands.iter_mut().for_each(|o| rename(o, renaming));
        let base = i.opcode.split('.').next().unwrap_or_default();
        match (base, renaming.end) {
            ("call", _) => return self.call(&i),
            ("ret", Some(end)) => {
                i.opcode = if i.opcode.ends_with(".uni") { "bra.uni" } else { "bra" };
                i.operands = vec![Operand::Label(end)];
            }
            _ => {}
        }
        self.body.instructions.push(i);
        Ok(())
    }

    fn call(&mut self, i: &Instruction<'a>) -> Result<(), PtxError> {
        let error = |message: String| Err(PtxError::new(i.line, message));
        let (results, rest) = match i.operands.split_first() {
            Some((Operand::List(results), rest)) => (results.as_slice(), rest),
            _ => (&[][..], i.operands.as_slice()),
        };
        let Some((Operand::Symbol(Base::Name(name), 0), rest)) = rest.split_first() else {
            return error("only direct calls are executed".into());
        };
        let arguments = match rest {
            [] => &[][..],
            [Operand::List(arguments)] => arguments,
            _ => return error("only direct calls are executed".into()),
        };
        let found = self.functions.iter().find(|f| f.name == *name && !f.is_declaration);
        let Some(callee) = found.filter(|f| !f.is_entry) else {
            return error(format!("function `{name}` has no body in this module"));
        };
        if results.len() != callee.results.len() || arguments.len() != callee.parameters.len() {
            return error(format!("`{name}` is called with another number of parameters"));
        }
        if self.depth == DEPTH_MAX {
            return error(format!("calls of `{name}` are nested too deeply, or recursive"));
        }
        let mut given = Vec::new();
        let formals = callee.results.iter().chain(&callee.parameters);
        for (formal, actual) in formals.zip(results.iter().chain(arguments)) {
            match actual {
                Operand::Symbol(Base::Variable(id), 0) => given.push((*formal, *id)),
                _ => return error(format!("`{name}` takes `.param` variables")),
            }
        }
        self.depth += 1;
        let skip = i.guard.map(|guard| (guard, self.fresh_label()));
        if let Some(((register, negated), label)) = skip {
            let guard = Some((register, !negated));
            let operands = vec![Operand::Label(label)];
            self.body.instructions.push(Instruction {
                guard,
                opcode: "bra",
                operands,
                ..i.clone()
            });
        }
        let variables = self.fresh_variables(callee, &given);
        self.copy(callee, &variables)?;
        if let Some((_, label)) = skip {
            self.place(label, i.line)?;
        }
        self.depth -= 1;
        Ok(())
    }
}

fn rename(operand: &mut Operand<'_>, renaming: &Renaming<'_>) {
    let base = |base: &mut Base<'_>| match base {
        Base::Register(r) => *r += renaming.register,
        Base::Variable(v) => *v = renaming.variables[*v as usize],
        Base::None | Base::Name(_) => {}
    };
    match operand {
        Operand::Register(r) => *r += renaming.register,
        Operand::Label(l) => *l += renaming.label,
        Operand::Targets(t) => *t += renaming.table,
        Operand::Symbol(b, _) => base(b),
        Operand::Address { base: b, rest, .. } => {
            base(b);
            rest.iter_mut().for_each(|o| rename(o, renaming));
        }
        Operand::Vector(list) | Operand::List(list) => {
            list.iter_mut().for_each(|o| rename(o, renaming));
        }
        Operand::Pair(pair) => {
            rename(&mut pair.0, renaming);
            rename(&mut pair.1, renaming);
        }
        Operand::Not(inner) => rename(inner, renaming),
        _ => {}
    }
}
