//! Reading graphs.

use rustc_hash::FxHashMap;
use std::sync::Arc;

use crate::attr::{Attr, AttrKind};
use crate::dim::{Dim, Symbol};
use crate::facts::{Bounds, Relation, Require};
use crate::graph::{ElementSymbol, Graph, NodeId, State, Weight};
use crate::op::Op;
use crate::types::TensorType;

/// The text is no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct TextError {
    /// 1-based.
    pub line: usize,
    /// What was expected.
    pub message: String,
}

/// A piece of a line.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A bare word or a bracketed list.
    Word(String),
    /// A quoted string.
    Quoted(String),
    /// `key=` followed by its value.
    Pair(String, String),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Token::Word(t) | Token::Quoted(t) | Token::Pair(_, t) => t,
        }
    }
}

/// Reads one graph.
pub fn parse(text: &str) -> Result<Graph, TextError> {
    let mut graph: Option<Graph> = None;
    let mut closed = false;
    let mut names: FxHashMap<String, NodeId> = FxHashMap::default();
    let mut last = 0;
    for (index, raw) in text.lines().enumerate() {
        let line = raw.trim();
        last = index + 1;
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        let fail = |message: String| TextError { line: index + 1, message };
        if closed {
            return Err(fail("text after the closing `}`".to_owned()));
        }
        let Some(graph) = graph.as_mut() else {
            graph = Some(open_graph(line).map_err(fail)?);
            continue;
        };
        if line == "}" {
            closed = true;
            continue;
        }
        read_line(graph, &mut names, line).map_err(fail)?;
    }
    match graph {
        Some(graph) if closed => Ok(graph),
        _ => Err(TextError { line: last.max(1), message: "no closing `}`".to_owned() }),
    }
}

fn open_graph(line: &str) -> Result<Graph, String> {
    let rest = line.strip_prefix("graph ").ok_or("a graph starts with `graph \"name\" {`")?;
    let tokens = tokens(rest.strip_suffix('{').ok_or("no `{`")?)?;
    match tokens.as_slice() {
        [Token::Quoted(name) | Token::Word(name)] => Ok(Graph::new(name.clone())),
        _ => Err("a graph has one name".to_owned()),
    }
}

fn read_line(
    graph: &mut Graph,
    names: &mut FxHashMap<String, NodeId>,
    line: &str,
) -> Result<(), String> {
    if line.starts_with('%') {
        let (name, rest) = line.split_once(" = ").ok_or("a node is `%n = op …`")?;
        let node = read_node(graph, names, rest)?;
        names.insert(name.trim().to_owned(), node);
        return Ok(());
    }
    let (keyword, rest) = line.split_once(' ').ok_or("an incomplete line")?;
    if keyword == "weight" {
        return read_weight(graph, rest);
    }
    let tokens = tokens(rest)?;
    let node = |t: &Token| {
        names.get(t.text()).copied().ok_or_else(|| format!("`{}` is not defined", t.text()))
    };
    match (keyword, tokens.as_slice()) {
        ("symbol", [name, range, step @ ..]) => {
            let bounds = read_bounds(range.text(), step)?;
            graph.facts.bound(Symbol::new(name.text()), bounds);
        }
        ("require", [text, from, origin]) if from.text() == "from" => {
            let require = read_require(text.text(), origin.text())?;
            graph.facts.require(require);
        }
        ("element", [name, input, element]) => graph.element_symbols.push(ElementSymbol {
            symbol: Symbol::new(name.text()),
            input: number(input)?,
            element: number(element)?,
        }),
        ("data", [name, bound]) => graph.data_symbols.push((Symbol::new(name.text()), dim(bound)?)),
        ("output", [name, value]) => {
            let value = node(value)?;
            graph.output(name.text(), value);
        }
        ("state", [input, output, axis_word, axis, rest @ ..]) if axis_word.text() == "axis" => {
            let capacity = match rest {
                [] => None,
                [word, value] if word.text() == "capacity" => Some(dim(value)?),
                _ => {
                    return Err(
                        "a state is `state input output axis n [capacity \"dim\"]`".to_owned()
                    );
                }
            };
            let (input, output, axis) = (number(input)?, number(output)?, number(axis)?);
            graph.states.push(State { input, output, capacity, axis });
        }
        ("loc", [value, locations @ ..]) => {
            let value = node(value)?;
            graph.add_locations(value, locations.iter().map(|t| Arc::from(t.text())));
        }
        _ => return Err(format!("`{keyword}` starts no known line")),
    }
    Ok(())
}

fn number(token: &Token) -> Result<usize, String> {
    token.text().parse().map_err(|_| format!("`{}` is no index", token.text()))
}

fn dim(token: &Token) -> Result<Dim, String> {
    token.text().parse::<Dim>().map_err(|e| e.to_string())
}

fn read_bounds(range: &str, step: &[Token]) -> Result<Bounds, String> {
    let (low, high) = range.split_once("..").ok_or("bounds are `low..high`")?;
    let int = |t: &str| t.parse::<i64>().map_err(|_| format!("`{t}` is no number"));
    let multiple_of = match step {
        [] => 1,
        [word, value] if word.text() == "step" => int(value.text())?,
        _ => return Err("bounds are `low..high [step n]`".to_owned()),
    };
    let high = if high.is_empty() { None } else { Some(int(high)?) };
    Ok(Bounds { low: int(low)?, high, multiple_of })
}

fn read_require(text: &str, origin: &str) -> Result<Require, String> {
    let make = |lhs: &str, relation, rhs: &str| {
        let side = |t: &str| t.parse::<Dim>().map_err(|e| e.to_string());
        Ok(Require { lhs: side(lhs)?, relation, rhs: side(rhs)?, origin: origin.to_owned() })
    };
    if let Some(product) = text.strip_suffix(" == 0")
        && let Some((lhs, rhs)) = product.rsplit_once(" % ")
    {
        return make(lhs, Relation::MultipleOf, rhs);
    }
    for (sign, relation) in
        [(" == ", Relation::Equal), (" != ", Relation::NotEqual), (" <= ", Relation::AtMost)]
    {
        if let Some((lhs, rhs)) = text.split_once(sign) {
            return make(lhs, relation, rhs);
        }
    }
    Err(format!("`{text}` is no constraint"))
}

fn read_weight(graph: &mut Graph, rest: &str) -> Result<(), String> {
    let shape = "a weight is `weight n \"name\" type contents`";
    let (_, rest) = rest.split_once(' ').ok_or(shape)?;
    let (name, rest) = quoted(rest.trim()).ok_or(shape)?;
    let close = rest.find(']').ok_or(shape)?;
    let ty: TensorType =
        rest[..=close].trim().parse().map_err(|e: crate::types::TypeParseError| e.to_string())?;
    let contents = rest[close + 1..].trim();
    let data = match contents {
        "omitted" => None,
        _ => match Attr::parse(AttrKind::Tensor, &format!("{ty}{contents}")) {
            Some(Attr::Tensor(value)) => Some((*value.0).clone()),
            _ => return Err(format!("`{contents}` are no elements of {ty}")),
        },
    };
    graph.push_weight(Weight { name: Arc::from(name.as_str()), ty, data });
    Ok(())
}

fn read_node(
    graph: &mut Graph,
    names: &FxHashMap<String, NodeId>,
    text: &str,
) -> Result<NodeId, String> {
    let (body, declared) = split_type(text);
    let tokens = tokens(body)?;
    let Some((Token::Word(op_name), rest)) = tokens.split_first() else {
        return Err("no op".to_owned());
    };
    let mut operands = Vec::new();
    let mut pairs = Vec::new();
    for token in rest {
        match token {
            Token::Pair(key, value) => pairs.push((key.as_str(), value.as_str())),
            other => operands.push(
                *names
                    .get(other.text())
                    .ok_or_else(|| format!("operand `{}` is not defined before", other.text()))?,
            ),
        }
    }
    let op = read_op(op_name, &pairs)?;
    let is_input = matches!(op, Op::Input { .. });
    let node = match &op {
        Op::Input { name, ty } => graph.input(name, ty.clone()),
        _ => graph.add(op, &operands).map_err(|v| v.to_string())?,
    };
    if let Some(declared) = declared {
        let types: Vec<String> = graph.types(node).iter().map(ToString::to_string).collect();
        let want =
            declared.split("; ").map(|t| t.trim().parse::<TensorType>().map(|t| t.to_string()));
        let want: Vec<String> = want.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        if want != types && !is_input {
            return Err(format!(
                "declared as {}, but its operands give {}",
                want.join("; "),
                types.join("; ")
            ));
        }
    }
    Ok(node)
}

/// Splits at the last ` : ` outside quotes.
fn split_type(text: &str) -> (&str, Option<&str>) {
    let mut in_quotes = false;
    let mut escaped = false;
    let mut at = None;
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' => in_quotes = !in_quotes,
            ':' if !in_quotes && text[..i].ends_with(' ') && text[i + 1..].starts_with(' ') => {
                at = Some(i)
            }
            _ => {}
        }
    }
    match at {
        Some(i) => (text[..i].trim(), Some(text[i + 1..].trim())),
        None => (text.trim(), None),
    }
}

fn read_op(name: &str, pairs: &[(&str, &str)]) -> Result<Op, String> {
    let schema =
        Op::schema(name).ok_or_else(|| format!("`{name}` is no op; `tgc ops` lists them"))?;
    if let Some((key, _)) = pairs.iter().find(|(k, _)| schema.iter().all(|(n, _)| n != k)) {
        return Err(format!("`{name}` has no attribute `{key}`"));
    }
    let mut attrs = Vec::new();
    for (key, kind) in schema {
        let text = pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        let text = text.ok_or_else(|| format!("`{name}` needs attribute `{key}`"))?;
        attrs.push(
            Attr::parse(kind, text)
                .ok_or_else(|| format!("`{text}` is no {kind:?} for `{key}`"))?,
        );
    }
    Op::from_attrs(name, &attrs).map_err(|e| e.to_string())
}

/// A leading quoted string and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.strip_prefix('"')?.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[i + 2..])),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                '0' => out.push('\0'),
                'u' => {
                    let hex: String =
                        chars.by_ref().map(|(_, c)| c).skip(1).take_while(|c| *c != '}').collect();
                    out.push(u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32)?);
                }
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
    None
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if rest.starts_with('"') {
            let (value, after) = quoted(rest).ok_or("a quote is not closed")?;
            out.push(Token::Quoted(value));
            rest = after.trim_start();
            continue;
        }
        let end = word_end(rest);
        let (word, after) = rest.split_at(end);
        match word.split_once('=') {
            Some((key, "")) if after.starts_with('"') => {
                let (value, after) = quoted(after).ok_or("a quote is not closed")?;
                out.push(Token::Pair(key.to_owned(), value));
                rest = after.trim_start();
            }
            Some((key, value)) => {
                out.push(Token::Pair(key.to_owned(), value.to_owned()));
                rest = after.trim_start();
            }
            None => {
                out.push(Token::Word(word.to_owned()));
                rest = after.trim_start();
            }
        }
    }
    Ok(out)
}

/// End of a word: a space outside brackets or a quote.
fn word_end(text: &str) -> usize {
    let mut depth = 0i32;
    for (i, c) in text.char_indices() {
        match c {
            '[' | '(' | '{' => depth += 1,
            ']' | ')' | '}' => depth -= 1,
            '"' => return i,
            c if c.is_whitespace() && depth <= 0 => return i,
            _ => {}
        }
    }
    text.len()
}
