//! A look over the protobuf wire format before anything is allocated.
//!
//! Decoding turns two bytes of file into a few hundred bytes of message, so a hostile file could ask for far more
//! memory than it has bytes. [`survey`] walks the tags, counts the messages that decoding would build, checks that
//! every length stays inside its parent, and limits nesting. It knows the message tree of onnx-ml.proto and nothing of
//! the meaning of fields.

use thiserror::Error;

/// What is wrong with the bytes of a file.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WireError {
    #[error("the file ends inside a field at byte {at} (it is cut short or damaged)")]
    Truncated { at: usize },
    #[error("byte {at} does not start a protobuf field: this is not an ONNX file")]
    NotProtobuf { at: usize },
    #[error("messages nest deeper than {limit} levels")]
    TooDeep { limit: usize },
    #[error("more than {limit} messages")]
    TooMany { limit: usize },
}

/// Message kinds whose fields the survey follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    ValueInfo,
    Type,
    Function,
    /// Counted, not entered.
    Leaf,
}

/// Which kind of message a length-delimited field holds, or `None` for strings, bytes and packed numbers.
fn child(kind: Kind, field: u64) -> Option<Kind> {
    Some(match (kind, field) {
        (Kind::Model, 7) | (Kind::Attribute, 6 | 11) => Kind::Graph,
        (Kind::Model, 8) | (Kind::Tensor, 13) | (Kind::Function, 9) => Kind::Leaf,
        (Kind::Model, 25) => Kind::Function,
        (Kind::Graph, 1) | (Kind::Function, 7) => Kind::Node,
        (Kind::Graph, 5) | (Kind::Attribute, 5 | 10) | (Kind::Sparse, 1 | 2) => Kind::Tensor,
        (Kind::Graph, 11..=13) | (Kind::Function, 12) => Kind::ValueInfo,
        (Kind::Graph, 15) | (Kind::Attribute, 22 | 23) => Kind::Sparse,
        (Kind::Node, 5) | (Kind::Function, 11) => Kind::Attribute,
        (Kind::Attribute, 14 | 15) | (Kind::ValueInfo, 2) => Kind::Type,
        // Every field of a type is a message: tensor type, shape, dimension, element type.
        (Kind::Type, 1 | 4 | 5 | 8 | 9) => Kind::Leaf,
        (Kind::Node, 1 | 2) | (Kind::Tensor, 6) | (Kind::Attribute, 9) => Kind::Leaf,
        _ => return None,
    })
}

struct Survey<'a> {
    bytes: &'a [u8],
    messages: usize,
    max_messages: usize,
    max_depth: usize,
}

impl Survey<'_> {
    fn varint(&self, at: &mut usize, end: usize) -> Result<u64, WireError> {
        let start = *at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            if *at >= end {
                return Err(WireError::Truncated { at: start });
            }
            let byte = self.bytes[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::NotProtobuf { at: start })
    }

    fn skip(&self, at: &mut usize, end: usize, length: u64) -> Result<usize, WireError> {
        let start = *at;
        let length = usize::try_from(length).map_err(|_| WireError::Truncated { at: start })?;
        if length > end - start {
            return Err(WireError::Truncated { at: start });
        }
        *at = start + length;
        Ok(start)
    }

    fn message(
        &mut self,
        kind: Kind,
        mut at: usize,
        end: usize,
        depth: usize,
    ) -> Result<(), WireError> {
        if depth > self.max_depth {
            return Err(WireError::TooDeep { limit: self.max_depth });
        }
        self.messages += 1;
        if self.messages > self.max_messages {
            return Err(WireError::TooMany { limit: self.max_messages });
        }
        if kind == Kind::Leaf {
            return Ok(());
        }
        while at < end {
            let tag_at = at;
            let tag = self.varint(&mut at, end)?;
            let field = tag >> 3;
            if field == 0 {
                return Err(WireError::NotProtobuf { at: tag_at });
            }
            match tag & 7 {
                0 => {
                    self.varint(&mut at, end)?;
                }
                1 => {
                    self.skip(&mut at, end, 8)?;
                }
                5 => {
                    self.skip(&mut at, end, 4)?;
                }
                2 => {
                    let length = self.varint(&mut at, end)?;
                    let start = self.skip(&mut at, end, length)?;
                    if let Some(kind) = child(kind, field) {
                        self.message(kind, start, at, depth + 1)?;
                    }
                }
                _ => return Err(WireError::NotProtobuf { at: tag_at }),
            }
        }
        Ok(())
    }
}

/// Counts the messages that decoding `bytes` as a `ModelProto` would build.
///
/// # Errors
/// [`WireError`] when a length leaves its parent, a tag is no tag, or one of the limits is passed.
pub(crate) fn survey(
    bytes: &[u8],
    max_messages: usize,
    max_depth: usize,
) -> Result<usize, WireError> {
    let mut survey = Survey { bytes, messages: 0, max_messages, max_depth };
    survey.message(Kind::Model, 0, bytes.len(), 0)?;
    Ok(survey.messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_file_is_truncated() {
        // graph (field 7) of 5 bytes, of which 2 are there
        assert_eq!(survey(&[0x3a, 5, 0x0a, 0], 100, 10), Err(WireError::Truncated { at: 2 }));
    }

    #[test]
    fn text_is_not_protobuf() {
        let error = survey(b"<html>not a model</html>", 100, 10).unwrap_err();
        assert!(matches!(error, WireError::NotProtobuf { .. } | WireError::Truncated { .. }));
    }

    #[test]
    fn nesting_is_limited() {
        // graph -> node -> attribute -> graph -> ..., built from the inside
        let mut inner = Vec::new();
        for round in 0..30 {
            let tag = if round % 3 == 0 {
                0x32
            } else if round % 3 == 1 {
                0x2a
            } else {
                0x0a
            };
            let mut outer = vec![tag];
            let mut length = inner.len();
            while length >= 0x80 {
                outer.push((length as u8 & 0x7f) | 0x80);
                length >>= 7;
            }
            outer.push(length as u8);
            outer.extend(&inner);
            inner = outer;
        }
        let mut model = vec![0x3a, inner.len() as u8];
        model.extend(&inner);
        assert_eq!(survey(&model, 1000, 10), Err(WireError::TooDeep { limit: 10 }));
    }

    #[test]
    fn empty_nodes_are_counted() {
        let mut model = vec![0x3a, 20];
        model.extend([0x0a, 0].repeat(10));
        assert_eq!(survey(&model, 100, 10), Ok(12));
        assert_eq!(survey(&model, 5, 10), Err(WireError::TooMany { limit: 5 }));
    }
}
