//! Reading dims from text: the inverse of their `Display`.

use std::str::FromStr;

use crate::dim::Dim;

/// The text is no dim expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no integer expression: {why} at byte {at}")]
pub struct DimParseError {
    /// What was read.
    pub text: String,
    /// Byte offset of the problem.
    pub at: usize,
    /// What was expected.
    pub why: &'static str,
}

/// Nesting of parentheses that is still read.
const DEPTH_MAX: usize = 64;

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn fail<T>(&self, why: &'static str) -> Result<T, DimParseError> {
        Err(DimParseError { text: self.text.to_owned(), at: self.at, why })
    }

    fn skip_space(&mut self) {
        while self.text[self.at..].starts_with(char::is_whitespace) {
            self.at += self.text[self.at..].chars().next().map_or(1, char::len_utf8);
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip_space();
        let hit = self.text[self.at..].starts_with(token);
        if hit {
            self.at += token.len();
        }
        hit
    }

    fn sum(&mut self) -> Result<Dim, DimParseError> {
        let mut total = if self.eat("-") { -self.product()? } else { self.product()? };
        loop {
            if self.eat("+") {
                total = total + self.product()?;
            } else if self.eat("-") {
                total = total - self.product()?;
            } else {
                return Ok(total);
            }
        }
    }

    fn product(&mut self) -> Result<Dim, DimParseError> {
        let mut total = self.factor()?;
        loop {
            if self.eat("*") {
                total = total * self.factor()?;
            } else if self.eat("//") || self.eat("/") {
                let by = self.factor()?;
                if by.is(0) {
                    return self.fail("a divisor other than zero");
                }
                total = total.floor_div(&by);
            } else if self.eat("%") {
                let by = self.factor()?;
                if by.is(0) {
                    return self.fail("a divisor other than zero");
                }
                total = total.modulo(&by);
            } else {
                return Ok(total);
            }
        }
    }

    fn factor(&mut self) -> Result<Dim, DimParseError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail("fewer nested parentheses");
        }
        let out = self.factor_inner();
        self.depth -= 1;
        out
    }

    fn factor_inner(&mut self) -> Result<Dim, DimParseError> {
        if self.eat("(") {
            let inner = self.sum()?;
            return if self.eat(")") { Ok(inner) } else { self.fail("`)`") };
        }
        if self.eat("-") {
            return Ok(-self.factor()?);
        }
        if self.eat("'") {
            let rest = &self.text[self.at..];
            let Some(end) = rest.find('\'') else { return self.fail("a closing quote") };
            let name = rest[..end].to_owned();
            self.at += end + 1;
            return Ok(Dim::symbol(name));
        }
        self.skip_space();
        let rest = &self.text[self.at..];
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        let sigil = usize::from(rest.starts_with(['$', '@']));
        let word: String =
            rest[..sigil].chars().chain(rest[sigil..].chars().take_while(plain)).collect();
        if word.len() == sigil {
            return self.fail("a number, a symbol or `(`");
        }
        self.at += word.len();
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return match word.parse::<i64>() {
                Ok(value) => Ok(Dim::Const(value)),
                Err(_) => self.fail("a number of 64 bits"),
            };
        }
        match word.as_str() {
            "min" | "max" if self.eat("(") => {
                let a = self.sum()?;
                if !self.eat(",") {
                    return self.fail("`,`");
                }
                let b = self.sum()?;
                if !self.eat(")") {
                    return self.fail("`)`");
                }
                Ok(if word == "min" { a.minimum(&b) } else { a.maximum(&b) })
            }
            _ => Ok(Dim::symbol(word)),
        }
    }
}

impl FromStr for Dim {
    type Err = DimParseError;
    fn from_str(text: &str) -> Result<Self, DimParseError> {
        let mut reader = Reader { text, at: 0, depth: 0 };
        let dim = reader.sum()?;
        reader.skip_space();
        if reader.at == text.len() { Ok(dim) } else { reader.fail("the end") }
    }
}
