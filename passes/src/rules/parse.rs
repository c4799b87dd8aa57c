//! Reading `.rules` files.
//!
//! ```text
//! # sqrt(s)·q against k is s·(q·k): a contraction is linear in each operand.
//! rule contract.pull-scale-lhs : real phase recognise
//!   (contract (mul ?q ?s) ?k ?spec) => (mul (contract ?q ?k ?spec) ?s)
//!   if splat(?s)
//!   example zoo-llama-ts17
//! ```

use tgc_ir::attr::Attr;
use tgc_ir::op::Op;

use crate::rules::conditions::{Condition, Role};
use crate::rules::functions::Function;
use crate::rules::{Class, Rule, Term};

/// A rules file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct RuleError {
    /// File name.
    pub file: String,
    /// 1-based line.
    pub line: usize,
    /// What was expected.
    pub message: String,
}

/// Reads every rule of a file.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Rule>, RuleError> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut law = String::new();
    let mut pending: Option<Header> = None;
    let mut sides = String::new();
    for (index, raw) in text.lines().enumerate() {
        let fail = |message: String| RuleError { file: file.to_owned(), line: index + 1, message };
        let line = raw.trim();
        if let Some(comment) = line.strip_prefix('#') {
            law = format!("{law} {}", comment.trim()).trim().to_owned();
        } else if line.is_empty() {
            law.clear();
        } else if let Some(header) = line.strip_prefix("rule ") {
            if pending.is_some() {
                return Err(fail("the rule before has no `lhs => rhs`".to_owned()));
            }
            pending = Some(read_header(header, std::mem::take(&mut law)).map_err(fail)?);
            sides.clear();
        } else if line.starts_with('(') || (pending.is_some() && !sides.is_empty()) {
            sides = format!("{sides} {line}").trim().to_owned();
            let depth = sides.matches('(').count() == sides.matches(')').count();
            if depth && sides.contains("=>") && !sides.ends_with("=>") {
                let header =
                    pending.take().ok_or_else(|| fail("sides without a `rule` line".to_owned()))?;
                rules.push(read_sides(header, &sides).map_err(fail)?);
                sides.clear();
            }
        } else {
            let rule = rules.last_mut().filter(|_| pending.is_none());
            let rule = rule.ok_or_else(|| fail(format!("`{line}` stands before its rule")))?;
            read_clause(rule, line).map_err(fail)?;
        }
    }
    match pending {
        Some(header) => Err(RuleError {
            file: file.to_owned(),
            line: text.lines().count(),
            message: format!("`{}` has no sides", header.name),
        }),
        None => Ok(rules),
    }
}

struct Header {
    name: String,
    class: Class,
    is_recognise: bool,
    law: String,
}

fn read_header(text: &str, law: String) -> Result<Header, String> {
    let shape = "a rule line is `rule family.name : class phase recognise|search`";
    let (name, rest) = text.split_once(':').ok_or(shape)?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let [class, "phase", phase] = words.as_slice() else { return Err(shape.to_owned()) };
    let class = match *class {
        "exact" => Class::Exact,
        "real" => Class::Real,
        "approx" => Class::Approx,
        other => return Err(format!("`{other}` is no class; exact, real or approx")),
    };
    let is_recognise = match *phase {
        "recognise" => true,
        "search" => false,
        other => return Err(format!("`{other}` is no phase; recognise or search")),
    };
    Ok(Header { name: name.trim().to_owned(), class, is_recognise, law })
}

fn read_sides(header: Header, text: &str) -> Result<Rule, String> {
    let (lhs, rhs) = text.split_once("=>").ok_or("no `=>`")?;
    let mut numbers = 0;
    let lhs = read_term(&mut Words::new(lhs)?, None, &mut numbers)?;
    let rhs = read_term(&mut Words::new(rhs)?, None, &mut numbers)?;
    let (mut bound, mut used) = (Vec::new(), Vec::new());
    lhs.variables(&mut bound);
    rhs.variables(&mut used);
    if let Some(free) = used.iter().find(|v| !bound.contains(v)) {
        return Err(format!("`?{free}` stands on the right only"));
    }
    Ok(Rule {
        name: header.name,
        class: header.class,
        law: header.law,
        is_recognise: header.is_recognise,
        examples: Vec::new(),
        lhs,
        rhs,
        conditions: Vec::new(),
        text: text.split_whitespace().collect::<Vec<_>>().join(" "),
    })
}

fn read_clause(rule: &mut Rule, line: &str) -> Result<(), String> {
    let (keyword, rest) =
        line.split_once(' ').ok_or("a clause is `if …`, `when …` or `example …`")?;
    let role = match keyword {
        "if" => Role::If,
        "when" => Role::When,
        "example" => {
            rule.examples.extend(rest.split_whitespace().map(str::to_owned));
            return Ok(());
        }
        other => return Err(format!("`{other}` starts no clause; if, when or example")),
    };
    let lhs = rule.lhs.clone();
    let mut bound = Vec::new();
    lhs.variables(&mut bound);
    for question in tgc_ir::types::split_commas(rest) {
        let (name, args) =
            question.split_once('(').ok_or_else(|| format!("`{question}` is no condition"))?;
        let args = args.strip_suffix(')').ok_or_else(|| format!("`{question}` has no `)`"))?;
        let args: Vec<String> =
            args.split(',').map(|a| a.trim().trim_start_matches('?').to_owned()).collect();
        if let Some(free) = args.iter().find(|a| !bound.contains(&a.as_str())) {
            return Err(format!("`?{free}` is not bound by the left side"));
        }
        let condition = Condition::new(role, name.trim(), args);
        rule.conditions.push(
            condition.ok_or_else(|| format!("`{name}` is no condition with these arguments"))?,
        );
    }
    Ok(())
}

/// The words of an s-expression: parentheses and what stands between spaces.
struct Words<'a> {
    words: std::vec::IntoIter<&'a str>,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Result<Self, String> {
        let mut words = Vec::new();
        let mut start = None;
        let mut call = 0;
        for (i, c) in text.char_indices() {
            let in_word = start.is_some();
            match c {
                // `@f(?a, ?b)` is one word.
                '(' if in_word => call += 1,
                ')' if call > 0 => {
                    call -= 1;
                    if call == 0 {
                        words.push(&text[start.take().unwrap_or(i)..=i]);
                    }
                }
                '(' | ')' => {
                    if let Some(s) = start.take() {
                        words.push(&text[s..i]);
                    }
                    words.push(&text[i..=i]);
                }
                c if c.is_whitespace() && call == 0 => {
                    if let Some(s) = start.take() {
                        words.push(&text[s..i]);
                    }
                }
                _ if !in_word => start = Some(i),
                _ => {}
            }
        }
        if call > 0 {
            return Err("a function call has no `)`".to_owned());
        }
        if let Some(s) = start {
            words.push(&text[s..]);
        }
        Ok(Words { words: words.into_iter() })
    }
}

fn read_term(
    words: &mut Words<'_>,
    kind: Option<tgc_ir::attr::AttrKind>,
    numbers: &mut u32,
) -> Result<Term, String> {
    let word = words.words.next().ok_or("a term is missing")?;
    if word == "(" {
        return read_op(words, numbers);
    }
    if let Some(name) = word.strip_prefix('?') {
        return Ok(Term::Var(name.to_owned()));
    }
    if let Some(call) = word.strip_prefix('@') {
        let (name, args) = call.split_once('(').ok_or("a function is `@name(?a, …)`")?;
        let function = Function::named(name).ok_or_else(|| format!("`@{name}` is no function"))?;
        let args = args.trim_end_matches(')');
        let args: Vec<String> =
            args.split(',').map(|a| a.trim().trim_start_matches('?').to_owned()).collect();
        return if args.len() == function.arity {
            Ok(Term::Call(function, args))
        } else {
            Err(format!("`@{name}` takes {} arguments", function.arity))
        };
    }
    match kind {
        Some(kind) => Attr::parse(kind, word)
            .map(Term::Attr)
            .ok_or_else(|| format!("`{word}` is no {kind:?}")),
        None => {
            let value = word.parse::<f64>().map_err(|_| format!("`{word}` is no term"))?;
            *numbers += 1;
            Ok(Term::Number(*numbers, value))
        }
    }
}

fn read_op(words: &mut Words<'_>, numbers: &mut u32) -> Result<Term, String> {
    let name = words.words.next().ok_or("an op is missing")?;
    let schema =
        Op::schema(name).ok_or_else(|| format!("`{name}` is no op; `tgc ops` lists them"))?;
    let head = crate::egraph::head_of(name).ok_or("unknown op")?;
    let mut inner: Vec<Vec<&str>> = Vec::new();
    let mut depth = 0;
    for word in words.words.by_ref() {
        match word {
            ")" if depth == 0 => {
                let count = inner
                    .len()
                    .checked_sub(schema.len())
                    .ok_or_else(|| format!("`{name}` needs {} attributes", schema.len()))?;
                let mut terms = Vec::new();
                for (i, part) in inner.iter().enumerate() {
                    let kind = i.checked_sub(count).map(|a| schema[a].1);
                    let mut part = Words { words: part.clone().into_iter() };
                    terms.push(read_term(&mut part, kind, numbers)?);
                }
                let attrs = terms.split_off(count);
                return Ok(Term::Op(crate::egraph::name_of(head), terms, attrs));
            }
            "(" => {
                if depth == 0 {
                    inner.push(Vec::new());
                }
                depth += 1;
            }
            ")" => depth -= 1,
            _ if depth == 0 => inner.push(Vec::new()),
            _ => {}
        }
        inner.last_mut().ok_or("a misplaced `)`")?.push(word);
    }
    Err(format!("`({name}` has no `)`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_line() {
        for (text, want) in [
            ("rule a.b real", "1: a rule line"),
            ("rule a.b : real phase recognise\n  (foo ?x) => ?x", "2: `foo` is no op"),
            (
                "rule a.b : real phase recognise\n  (exp ?x) => ?y",
                "2: `?y` stands on the right only",
            ),
            (
                "rule a.b : real phase recognise\n  (exp ?x) => ?x\n  if splat(?z)",
                "3: `?z` is not bound",
            ),
            (
                "rule a.b : real phase recognise\n  (exp ?x) => ?x\n  if shiny(?x)",
                "3: `shiny` is no condition",
            ),
        ] {
            let error = parse("f", text).expect_err(text).to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
