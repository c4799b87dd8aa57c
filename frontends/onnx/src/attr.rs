//! Typed access to the attributes of one node.
//!
//! Every read checks the declared type; a wrong one is an error that names the attribute. References to the attributes
//! of an enclosing function are replaced before a node reaches this file (see `functions`).

use thiserror::Error;

use crate::proto::{AttributeProto, AttributeType, GraphProto, TensorProto};

/// Why an attribute could not be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AttrError {
    #[error("attribute `{name}` is missing")]
    Missing { name: String },
    #[error("attribute `{name}` should be {wanted} but is {found}")]
    Type { name: String, wanted: &'static str, found: &'static str },
    #[error("attribute `{name}` has the value {value}; allowed is {allowed}")]
    Value { name: String, value: String, allowed: String },
}

/// The attributes of one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attrs<'a>(pub &'a [AttributeProto]);

type Read<T> = Result<Option<T>, AttrError>;

/// The type of an attribute; files older than IR version 3 leave it out, and then the filled field tells.
#[must_use]
pub(crate) fn kind(a: &AttributeProto) -> AttributeType {
    match AttributeType::try_from(a.r#type) {
        Ok(AttributeType::Undefined) | Err(_) => guess(a),
        Ok(kind) => kind,
    }
}

fn guess(a: &AttributeProto) -> AttributeType {
    if a.t.is_some() {
        AttributeType::Tensor
    } else if a.g.is_some() {
        AttributeType::Graph
    } else if !a.ints.is_empty() {
        AttributeType::Ints
    } else if !a.floats.is_empty() {
        AttributeType::Floats
    } else if !a.strings.is_empty() {
        AttributeType::Strings
    } else if !a.s.is_empty() {
        AttributeType::String
    } else if a.f != 0.0 {
        AttributeType::Float
    } else {
        AttributeType::Int
    }
}

fn kind_name(kind: AttributeType) -> &'static str {
    match kind {
        AttributeType::Undefined => "undefined",
        AttributeType::Float => "a float",
        AttributeType::Int => "an int",
        AttributeType::String => "a string",
        AttributeType::Tensor => "a tensor",
        AttributeType::Graph => "a graph",
        AttributeType::Floats => "a list of floats",
        AttributeType::Ints => "a list of ints",
        AttributeType::Strings => "a list of strings",
        AttributeType::Tensors => "a list of tensors",
        AttributeType::Graphs => "a list of graphs",
        AttributeType::SparseTensor => "a sparse tensor",
        AttributeType::SparseTensors => "a list of sparse tensors",
        AttributeType::TypeProto => "a type",
        AttributeType::TypeProtos => "a list of types",
    }
}

impl<'a> Attrs<'a> {
    /// The attribute of this name, whatever its type.
    #[must_use]
    pub(crate) fn find(&self, name: &str) -> Option<&'a AttributeProto> {
        self.0.iter().find(|a| a.name == name)
    }

    /// True when the attribute is given.
    #[must_use]
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn typed(&self, name: &str, wanted: AttributeType) -> Read<&'a AttributeProto> {
        let Some(a) = self.find(name) else { return Ok(None) };
        let found = kind(a);
        // An empty list is written with no field filled, so its declared type may be missing.
        if found == wanted {
            return Ok(Some(a));
        }
        let (wanted, found) = (kind_name(wanted), kind_name(found));
        Err(AttrError::Type { name: name.to_owned(), wanted, found })
    }

    /// An integer.
    ///
    /// # Errors
    /// [`AttrError::Type`] when the attribute has another type.
    pub(crate) fn int(&self, name: &str) -> Read<i64> {
        Ok(self.typed(name, AttributeType::Int)?.map(|a| a.i))
    }

    /// An integer or its default.
    ///
    /// # Errors
    /// [`AttrError::Type`] when the attribute has another type.
    pub(crate) fn int_or(&self, name: &str, default: i64) -> Result<i64, AttrError> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    /// An integer that is 0 or 1, as a truth value; other integers count as true.
    ///
    /// # Errors
    /// [`AttrError::Type`] when the attribute has another type.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, AttrError> {
        Ok(self.int(name)?.map_or(default, |i| i != 0))
    }

    /// A float.
    ///
    /// # Errors
    /// [`AttrError::Type`] when the attribute has another type.
    pub(crate) fn float(&self, name: &str) -> Read<f32> {
        Ok(self.typed(name, AttributeType::Float)?.map(|a| a.f))
    }

    /// A float or its default, widened.
    ///
    /// # Errors
    /// [`AttrError::Type`] when the attribute has another type.
    pub(crate) fn float_or(&self, name: &str, default: f32) -> Result<f64, AttrError> {
        Ok(f64::from(self.float(name)?.unwrap_or(default)))
    }

    /// A list of integers.
    ///
    /// # Errors
    /// [`AttrError::Type`] when the attribute has another type.
    pub(crate) fn ints(&self, name: &str) -> Read<&'a [i64]> {
        Ok(self.typed(name, AttributeType::Ints)?.map(|a| a.ints.as_slice()))
    }

    /// A list of floats.
    ///
    /// # Errors
    /// [`AttrError::Type`] when the attribute has another type.
    pub(crate) fn floats(&self, name: &str) -> Read<&'a [f32]> {
        Ok(self.typed(name, AttributeType::Floats)?.map(|a| a.floats.as_slice()))
    }

    /// A string; bytes that are no UTF-8 are replaced.
    ///
    /// # Errors
    /// [`AttrError::Type`] when the attribute has another type.
    pub(crate) fn string(&self, name: &str) -> Read<String> {
        Ok(self
            .typed(name, AttributeType::String)?
            .map(|a| String::from_utf8_lossy(&a.s).into_owned()))
    }

    /// A string or its default.
    ///
    /// # Errors
    /// [`AttrError::Type`] when the attribute has another type.
    pub(crate) fn string_or(&self, name: &str, default: &str) -> Result<String, AttrError> {
        Ok(self.string(name)?.unwrap_or_else(|| default.to_owned()))
    }

    /// A list of strings.
    ///
    /// # Errors
    /// [`AttrError::Type`] when the attribute has another type.
    pub(crate) fn strings(&self, name: &str) -> Read<Vec<String>> {
        let list = self.typed(name, AttributeType::Strings)?;
        Ok(list
            .map(|a| a.strings.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect()))
    }

    /// A tensor.
    ///
    /// # Errors
    /// [`AttrError::Type`] when the attribute has another type.
    pub(crate) fn tensor(&self, name: &str) -> Read<&'a TensorProto> {
        Ok(self.typed(name, AttributeType::Tensor)?.and_then(|a| a.t.as_ref()))
    }

    /// A sub-graph.
    ///
    /// # Errors
    /// [`AttrError`] when the attribute is missing or has another type.
    pub(crate) fn graph(&self, name: &str) -> Result<&'a GraphProto, AttrError> {
        let graph = self.typed(name, AttributeType::Graph)?.and_then(|a| a.g.as_ref());
        graph.ok_or_else(|| AttrError::Missing { name: name.to_owned() })
    }

    /// An integer that must be given.
    ///
    /// # Errors
    /// [`AttrError`] when the attribute is missing or has another type.
    pub(crate) fn required_int(&self, name: &str) -> Result<i64, AttrError> {
        self.int(name)?.ok_or_else(|| AttrError::Missing { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(name: &str, kind: AttributeType) -> AttributeProto {
        AttributeProto {
            name: name.into(),
            r#type: kind as i32,
            i: 7,
            f: 0.5,
            ..Default::default()
        }
    }

    #[test]
    fn reads_are_typed() {
        let list = [attr("axis", AttributeType::Int), attr("alpha", AttributeType::Float)];
        let attrs = Attrs(&list);
        assert_eq!(attrs.int("axis"), Ok(Some(7)));
        assert_eq!(attrs.int("none"), Ok(None));
        assert_eq!(attrs.float_or("alpha", 0.1), Ok(0.5));
        let error = attrs.int("alpha").unwrap_err();
        assert_eq!(error.to_string(), "attribute `alpha` should be an int but is a float");
        assert!(matches!(attrs.graph("body"), Err(AttrError::Missing { .. })));
    }

    #[test]
    fn untyped_attributes_are_guessed() {
        let a = AttributeProto { name: "axes".into(), ints: vec![1], ..Default::default() };
        assert_eq!(Attrs(&[a]).ints("axes").unwrap(), Some(&[1i64][..]));
    }
}
