//! Splits a PTX text into tokens with their lines (PTX ISA, section 4).
//!
//! An opcode with its modifiers (`ld.global.v4.u32`) is one word, as is `%tid.x`. Knows no instruction.

use crate::error::PtxError;

/// One token; words borrow from the text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    /// Identifier, opcode or directive.
    Word(&'a str),
    /// Bits of an integer; negative numbers are a minus and an integer.
    Integer(u64),
    /// Bits of `0f…` or of a decimal fraction in single precision.
    Single(u32),
    /// Bits of `0d…`.
    Double(u64),
    /// Text between quotes.
    Text(&'a str),
    /// Punctuation.
    Mark(u8),
    /// End of the text.
    End,
}

/// A token and its line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lexeme<'a> {
    pub(crate) token: Token<'a>,
    pub(crate) line: u32,
}

/// All tokens of a text, `End` last.
pub(crate) fn lex(text: &str) -> Result<Vec<Lexeme<'_>>, PtxError> {
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0, line: 1 };
    let mut out = Vec::with_capacity(text.len() / 4);
    loop {
        let lexeme = lexer.next()?;
        out.push(lexeme);
        if lexeme.token == Token::End {
            return Ok(out);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: u32,
}

fn in_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

impl<'a> Lexer<'a> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn error(&self, message: impl Into<String>) -> PtxError {
        PtxError::new(self.line, message)
    }

    fn skip_space(&mut self) -> Result<(), PtxError> {
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'\n', _) => {
                    self.line += 1;
                    self.at += 1;
                }
                (b'/', b'/') => {
                    while self.at < self.bytes.len() && self.peek(0) != b'\n' {
                        self.at += 1;
                    }
                }
                (b'/', b'*') => self.skip_comment()?,
                // NVRTC ends its text with a zero byte.
                (c, _) if c.is_ascii_whitespace() || c == 0 => self.at += 1,
                _ => break,
            }
        }
        Ok(())
    }

    fn skip_comment(&mut self) -> Result<(), PtxError> {
        let opened = self.line;
        self.at += 2;
        while !(self.peek(0) == b'*' && self.peek(1) == b'/') {
            if self.at >= self.bytes.len() {
                return Err(PtxError::new(opened, "a comment is never closed"));
            }
            self.line += u32::from(self.peek(0) == b'\n');
            self.at += 1;
        }
        self.at += 2;
        Ok(())
    }

    fn next(&mut self) -> Result<Lexeme<'a>, PtxError> {
        self.skip_space()?;
        let line = self.line;
        let c = self.peek(0);
        let token = if self.at >= self.bytes.len() {
            Token::End
        } else if c.is_ascii_digit() {
            self.number()?
        } else if c == b'"' {
            self.quoted()?
        } else if in_word(c) {
            Token::Word(self.word())
        } else if c.is_ascii() {
            self.at += 1;
            Token::Mark(c)
        } else {
            return Err(self.error("a character outside ASCII"));
        };
        Ok(Lexeme { token, line })
    }

    fn word(&mut self) -> &'a str {
        let start = self.at;
        while in_word(self.peek(0)) || self.peek(0) == b':' {
            // `shared::cta` is one word, `label:` is a word and a mark.
            let colons = self.peek(0) == b':';
            if colons && !(self.peek(1) == b':' && in_word(self.peek(2))) {
                break;
            }
            self.at += if colons { 2 } else { 1 };
        }
        &self.text[start..self.at]
    }

    fn quoted(&mut self) -> Result<Token<'a>, PtxError> {
        let start = self.at + 1;
        self.at = start;
        while !matches!(self.peek(0), b'"' | b'\n' | 0) {
            self.at += 1;
        }
        if self.peek(0) != b'"' {
            return Err(self.error("a quoted text is never closed"));
        }
        self.at += 1;
        self.text
            .get(start..self.at - 1)
            .map(Token::Text)
            .ok_or_else(|| self.error("a quoted text is not UTF-8"))
    }

    fn number(&mut self) -> Result<Token<'a>, PtxError> {
        let start = self.at;
        while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == b'.' {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        let bad = || self.error(format!("`{text}` is not a number"));
        let lower = text.to_ascii_lowercase();
        let digits = |radix, s: &str| {
            u64::from_str_radix(s.strip_suffix('u').unwrap_or(s), radix).map_err(|_| bad())
        };
        if let Some(hex) = lower.strip_prefix("0f") {
            return u32::from_str_radix(hex, 16).map(Token::Single).map_err(|_| bad());
        }
        if let Some(hex) = lower.strip_prefix("0d") {
            return u64::from_str_radix(hex, 16).map(Token::Double).map_err(|_| bad());
        }
        if let Some(hex) = lower.strip_prefix("0x") {
            return Ok(Token::Integer(digits(16, hex)?));
        }
        if lower.contains('.') {
            return lower.parse::<f32>().map(|x| Token::Single(x.to_bits())).map_err(|_| bad());
        }
        if let Some(binary) = lower.strip_prefix("0b") {
            return Ok(Token::Integer(digits(2, binary)?));
        }
        let octal = lower.len() > 1 && lower.starts_with('0') && lower != "0u";
        Ok(Token::Integer(if octal { digits(8, &lower[1..])? } else { digits(10, &lower)? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        lex(text).unwrap().into_iter().map(|l| l.token).collect()
    }

    #[test]
    fn words_keep_dots_and_double_colons_but_not_the_colon_of_a_label() {
        assert_eq!(
            tokens("ld.shared::cta.u32 %tid.x $L__1:")[..3],
            [Token::Word("ld.shared::cta.u32"), Token::Word("%tid.x"), Token::Word("$L__1"),]
        );
    }

    #[test]
    fn numbers_of_every_spelling_have_their_bits() {
        let expected = [
            Token::Integer(255),
            Token::Integer(8),
            Token::Single(0x3f80_0000),
            Token::Double(0x3ff0_0000_0000_0000),
            Token::Integer(3),
            Token::Integer(7),
            Token::End,
        ];
        assert_eq!(tokens("0xFFU 010 0f3F800000 0d3FF0000000000000 0b11 7U"), expected);
    }

    #[test]
    fn unclosed_texts_and_comments_are_errors_with_a_line() {
        assert_eq!(lex("\n/* ").unwrap_err().line, 2);
        assert_eq!(lex("\n\n\"abc").unwrap_err().line, 3);
    }
}
