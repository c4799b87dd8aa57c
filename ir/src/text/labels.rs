//! Text of label groups, views and specs: `a:B b:S (c:12 d:64), c d e:768 -> a b e`.
//!
//! Labels are letters (then `l26`, …) in order of first appearance; an extent
//! follows a label where it first appears, in braces unless it is a plain
//! number or name. `1` is an axis without labels, `()` in an operand list is
//! an operand without axes.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use crate::dim::Dim;
use crate::spec::{ContractSpec, Group, Label};
use crate::view::{OutAtom, View};

/// The text is no spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}: {why}")]
pub struct SpecParseError {
    /// What was read.
    pub text: String,
    /// What was expected.
    pub what: &'static str,
    /// Why it is none.
    pub why: String,
}

fn label_name(label: Label) -> String {
    if label < 26 { char::from(b'a' + label as u8).to_string() } else { format!("l{label}") }
}

fn label_number(name: &str) -> Option<Label> {
    let mut chars = name.chars();
    match (chars.next()?, chars.as_str()) {
        (c @ 'a'..='z', "") => Some(c as u32 - 'a' as u32),
        ('l', rest) => rest.parse().ok(),
        _ => None,
    }
}

/// A dim as one word: in braces unless plain.
pub(crate) fn dim_word(dim: &Dim) -> String {
    let text = dim.to_string();
    if text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        text
    } else {
        format!("{{{text}}}")
    }
}

/// Writes operands' groups, stating extents at first appearance.
pub(crate) struct GroupPrinter<'a> {
    extents: &'a [Dim],
    seen: Vec<bool>,
}

impl<'a> GroupPrinter<'a> {
    pub(crate) fn new(extents: &'a [Dim]) -> Self {
        GroupPrinter { extents, seen: vec![false; extents.len()] }
    }

    fn label(&mut self, label: Label, out: &mut String) {
        out.push_str(&label_name(label));
        if !std::mem::replace(&mut self.seen[label as usize], true) {
            out.push(':');
            out.push_str(&dim_word(&self.extents[label as usize]));
        }
    }

    pub(crate) fn axes(&mut self, axes: &[Group]) -> String {
        let mut out = String::new();
        if axes.is_empty() {
            return "()".to_owned();
        }
        for (i, group) in axes.iter().enumerate() {
            if i > 0 {
                out.push(' ');
            }
            match group.as_slice() {
                [] => out.push('1'),
                [label] => self.label(*label, &mut out),
                labels => {
                    out.push('(');
                    for (j, label) in labels.iter().enumerate() {
                        if j > 0 {
                            out.push(' ');
                        }
                        self.label(*label, &mut out);
                    }
                    out.push(')');
                }
            }
        }
        out
    }
}

/// Splits at a character outside braces and parentheses.
pub(crate) fn split_outside(text: &str, at: char) -> Vec<&str> {
    let (mut depth, mut start, mut out) = (0i32, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            _ if c == at && depth == 0 => {
                out.push(text[start..i].trim());
                start = i + c.len_utf8();
            }
            _ => {}
        }
    }
    out.push(text[start..].trim());
    out
}

/// Words separated by spaces outside braces and parentheses.
fn words(text: &str) -> Vec<&str> {
    split_outside(text.trim(), ' ').into_iter().filter(|w| !w.is_empty()).collect()
}

fn parse_dim_word(text: &str) -> Result<Dim, String> {
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
    inner.parse::<Dim>().map_err(|e| e.to_string())
}

/// Reads operands' groups.
#[derive(Default)]
pub(crate) struct GroupReader {
    pub(crate) extents: Vec<Option<Dim>>,
}

impl GroupReader {
    fn label(&mut self, word: &str) -> Result<Label, String> {
        let (name, extent) = match word.split_once(':') {
            Some((name, extent)) => (name, Some(parse_dim_word(extent)?)),
            None => (word, None),
        };
        let label = label_number(name).ok_or_else(|| format!("`{name}` is no label"))?;
        if label > 1000 {
            return Err(format!("label `{name}` is too large"));
        }
        let slot = label as usize;
        if self.extents.len() <= slot {
            self.extents.resize(slot + 1, None);
        }
        if extent.is_some() {
            self.extents[slot] = extent;
        }
        Ok(label)
    }

    pub(crate) fn axes(&mut self, text: &str) -> Result<Vec<Group>, String> {
        if text.trim() == "()" {
            return Ok(Vec::new());
        }
        words(text)
            .into_iter()
            .map(|word| {
                if word == "1" {
                    return Ok(Vec::new());
                }
                match word.strip_prefix('(').and_then(|w| w.strip_suffix(')')) {
                    Some(inner) => words(inner).into_iter().map(|w| self.label(w)).collect(),
                    None => Ok(vec![self.label(word)?]),
                }
            })
            .collect()
    }

    pub(crate) fn finish(self) -> Result<Vec<Dim>, String> {
        let missing = |i: usize| format!("label `{}` has no extent", label_name(i as u32));
        self.extents.into_iter().enumerate().map(|(i, e)| e.ok_or_else(|| missing(i))).collect()
    }
}

impl fmt::Display for ContractSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printer = GroupPrinter::new(&self.extents);
        let (lhs, rhs) = (printer.axes(&self.lhs), printer.axes(&self.rhs));
        write!(f, "{lhs}, {rhs} -> {} : {}", printer.axes(&self.out), self.dtype)
    }
}

impl FromStr for ContractSpec {
    type Err = SpecParseError;
    fn from_str(text: &str) -> Result<Self, SpecParseError> {
        let fail = |why: String| SpecParseError { text: text.to_owned(), what: "contraction", why };
        let (axes, dtype) =
            text.rsplit_once(" : ").ok_or_else(|| fail("no ` : dtype`".to_owned()))?;
        let (operands, out) = axes.split_once("->").ok_or_else(|| fail("no `->`".to_owned()))?;
        let operands = split_outside(operands, ',');
        let [lhs, rhs] = operands.as_slice() else {
            return Err(fail("two operands are needed".to_owned()));
        };
        let mut reader = GroupReader::default();
        let lhs = reader.axes(lhs).map_err(fail)?;
        let rhs = reader.axes(rhs).map_err(fail)?;
        let out = reader.axes(out).map_err(fail)?;
        let dtype = dtype.trim().parse().map_err(|e| fail(format!("{e}")))?;
        let known = reader.extents.len();
        let extents = reader.finish().map_err(fail)?;
        if out.iter().flatten().any(|l| *l as usize >= known) {
            return Err(fail("a result label is in no operand".to_owned()));
        }
        Ok(ContractSpec { extents, lhs, rhs, out, dtype })
    }
}

/// `a:B b:S (c:12 d:64) -> a c b d`; a part of an atom is `d[start:step:extent]`,
/// a broadcast `*extent`, fixed atoms follow `at` as `b=0`.
impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extents: Vec<Dim> = self.input.iter().flatten().cloned().collect();
        let mut next = 0;
        let groups: Vec<Group> = self
            .input
            .iter()
            .map(|g| {
                next += g.len() as u32;
                (next - g.len() as u32..next).collect()
            })
            .collect();
        let mut out = format!("{} -> ", GroupPrinter::new(&extents).axes(&groups));
        if self.output.is_empty() {
            out.push_str("()");
        }
        for (i, parts) in self.output.iter().enumerate() {
            let words: Vec<String> = parts.iter().map(|p| part_word(p, &extents)).collect();
            let word = match words.as_slice() {
                [] => "1".to_owned(),
                [one] => one.clone(),
                _ => format!("({})", words.join(" ")),
            };
            let space = if i > 0 { " " } else { "" };
            let _ = write!(out, "{space}{word}");
        }
        if !self.fixed.is_empty() {
            out.push_str(" at");
            for (atom, index) in &self.fixed {
                let _ = write!(out, " {}={}", label_name(*atom), dim_word(index));
            }
        }
        f.write_str(&out)
    }
}

fn part_word(part: &OutAtom, extents: &[Dim]) -> String {
    match part {
        OutAtom::Broadcast(extent) => format!("*{}", dim_word(extent)),
        OutAtom::Take { atom, start, step, extent } => {
            let name = label_name(*atom);
            if start.is(0) && *step == 1 && *extent == extents[*atom as usize] {
                return name;
            }
            format!("{name}[{}:{step}:{}]", dim_word(start), dim_word(extent))
        }
    }
}

impl FromStr for View {
    type Err = SpecParseError;
    fn from_str(text: &str) -> Result<Self, SpecParseError> {
        parse_view(text).map_err(|why| SpecParseError { text: text.to_owned(), what: "view", why })
    }
}

fn parse_view(text: &str) -> Result<View, String> {
    let (input, rest) = text.split_once("->").ok_or("no `->`")?;
    let (output, fixed) = match rest.split_once(" at ") {
        Some((o, f)) => (o, f),
        None => (rest, ""),
    };
    let mut reader = GroupReader::default();
    let groups = reader.axes(input)?;
    let extents = reader.finish()?;
    let order: Vec<Label> = groups.iter().flatten().copied().collect();
    if !order.iter().copied().eq(0..extents.len() as u32) {
        return Err("input labels must be a, b, c, … in order, each once".to_owned());
    }
    let input =
        groups.iter().map(|g| g.iter().map(|l| extents[*l as usize].clone()).collect()).collect();
    let mut out = Vec::new();
    if output.trim() != "()" {
        for word in words(output) {
            let parts = match word.strip_prefix('(').and_then(|w| w.strip_suffix(')')) {
                _ if word == "1" => Vec::new(),
                Some(inner) => words(inner),
                None => vec![word],
            };
            out.push(
                parts
                    .into_iter()
                    .map(|w| parse_part(w, &extents))
                    .collect::<Result<Vec<_>, _>>()?,
            );
        }
    }
    let fixed = words(fixed)
        .into_iter()
        .map(|w| {
            let (name, at) = w.split_once('=').ok_or("no `=` after `at`")?;
            Ok((known_label(name, &extents)?, parse_dim_word(at)?))
        })
        .collect::<Result<Vec<_>, String>>()?;
    Ok(View { input, output: out, fixed })
}

fn known_label(name: &str, extents: &[Dim]) -> Result<Label, String> {
    label_number(name)
        .filter(|l| (*l as usize) < extents.len())
        .ok_or_else(|| format!("`{name}` is no input label"))
}

fn parse_part(word: &str, extents: &[Dim]) -> Result<OutAtom, String> {
    if let Some(extent) = word.strip_prefix('*') {
        return Ok(OutAtom::Broadcast(parse_dim_word(extent)?));
    }
    let Some((name, slice)) = word.split_once('[') else {
        let atom = known_label(word, extents)?;
        return Ok(OutAtom::Take {
            atom,
            start: Dim::ZERO,
            step: 1,
            extent: extents[atom as usize].clone(),
        });
    };
    let atom = known_label(name, extents)?;
    let slice = slice.strip_suffix(']').ok_or("no `]`")?;
    let parts = split_outside(slice, ':');
    let [start, step, extent] = parts.as_slice() else {
        return Err("a part is [start:step:extent]".to_owned());
    };
    let step = step.parse().map_err(|_| format!("step `{step}` is no number"))?;
    Ok(OutAtom::Take { atom, start: parse_dim_word(start)?, step, extent: parse_dim_word(extent)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_round_trip() {
        for text in [
            "a:B b:S (c:12 d:64) -> a c b d",
            "a:B 1 b:10 -> a *{S + 1} b[2:-2:4] 1",
            "a:4 b:5 -> (b a)",
            "a:4 b:5 -> a at b=3",
            "1 -> ()",
        ] {
            assert_eq!(text.parse::<View>().expect("view").to_string(), text);
        }
        assert!("a:4 c:5 -> a".parse::<View>().is_err());
    }

    #[test]
    fn contractions_round_trip() {
        for text in ["a:B b:S (c:12 d:64), a c e:{S + 1} d -> a c b e : f32", "a:4, a -> () : i32"]
        {
            assert_eq!(text.parse::<ContractSpec>().expect("spec").to_string(), text);
        }
        assert!("a:4, a -> b : f32".parse::<ContractSpec>().is_err());
    }
}
