//! What the importer says about a model: diagnostics with stable codes, collected and printed together.
//!
//! The first line of each speaks the user's words (operator, node, types), then why, then what to do. It must not know
//! how any operator is lowered.

use std::fmt;

/// The kind of a problem; its number is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Code {
    /// An operator that the importer does not know.
    UnknownOperator,
    /// A known operator in a form, type or opset that is not supported.
    Unsupported,
    /// Operands or attributes that the operator does not allow.
    Invalid,
    /// A value is used that nothing defines before.
    UndefinedValue,
    /// A value is defined twice.
    DuplicateValue,
    /// A tensor whose bytes and type disagree, or whose external data is not readable.
    Tensor,
    /// A graph input or output with a missing or unsupported type.
    Signature,
    /// An operator set that is missing or outside the supported range.
    Opset,
    /// A value that must be known at import depends on data.
    NotConstant,
    /// Function definitions that call themselves, or too many nodes after inlining.
    Limit,
}

impl Code {
    /// The stable code.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::UnknownOperator => "E2101",
            Self::Unsupported => "E2102",
            Self::Invalid => "E2103",
            Self::UndefinedValue => "E2104",
            Self::DuplicateValue => "E2105",
            Self::Tensor => "E2106",
            Self::Signature => "E2107",
            Self::Opset => "E2108",
            Self::NotConstant => "E2109",
            Self::Limit => "E2110",
        }
    }
}

/// Which node of the model a diagnostic is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRef {
    /// The node's name, or that of its first output.
    pub name: String,
    /// Operator name.
    pub op_type: String,
    /// Operator domain; empty for `ai.onnx`.
    pub domain: String,
    /// The opset version that the model imports for the domain.
    pub opset: i64,
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.domain.is_empty() {
            write!(f, "{}::", self.domain)?;
        }
        write!(f, "{} `{}`", self.op_type, self.name)
    }
}

/// One problem of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind of problem.
    pub code: Code,
    /// Where, when it is about a node.
    pub node: Option<NodeRef>,
    /// What is wrong; follows the node in the first line.
    pub message: String,
    /// One line per operand: type and producer.
    pub operands: Vec<String>,
    /// What would be supported, or what to do.
    pub help: Option<String>,
    /// Names of further nodes with the same problem.
    pub also: Vec<String>,
}

impl Diagnostic {
    /// A problem of the model as a whole.
    #[must_use]
    pub fn of_model(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            node: None,
            message: message.into(),
            operands: Vec::new(),
            help: None,
            also: Vec::new(),
        }
    }

    fn same_problem(&self, other: &Self) -> bool {
        let operator =
            |d: &Self| d.node.as_ref().map(|n| (n.op_type.clone(), n.domain.clone(), n.opset));
        self.code == other.code
            && self.message == other.message
            && operator(self) == operator(other)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: ", self.code.text())?;
        if let Some(node) = &self.node {
            write!(f, "{node} ")?;
        }
        f.write_str(&self.message)?;
        if let Some(node) = &self.node {
            let domain = if node.domain.is_empty() { "ai.onnx" } else { &node.domain };
            write!(f, " (opset {domain} {})", node.opset)?;
        }
        for operand in &self.operands {
            write!(f, "\n  {operand}")?;
        }
        if !self.also.is_empty() {
            let shown: Vec<String> = self.also.iter().take(4).map(|n| format!("`{n}`")).collect();
            let more = self.also.len().saturating_sub(shown.len());
            write!(f, "\n  the same at {}", shown.join(", "))?;
            if more > 0 {
                write!(f, " and {more} more")?;
            }
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// Every problem that import found, in the order of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportErrors {
    /// The problems, equal ones merged.
    pub diagnostics: Vec<Diagnostic>,
}

impl ImportErrors {
    /// Adds a problem; one that says the same of the same operator is merged with the first.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        match self.diagnostics.iter_mut().find(|d| d.same_problem(&diagnostic)) {
            Some(first) => first.also.extend(diagnostic.node.map(|n| n.name)),
            None => self.diagnostics.push(diagnostic),
        }
    }

    /// True when nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }
}

impl fmt::Display for ImportErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.diagnostics.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ImportErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(name: &str) -> Diagnostic {
        let node = NodeRef {
            name: name.into(),
            op_type: "Mish2".into(),
            domain: String::new(),
            opset: 18,
        };
        Diagnostic {
            node: Some(node),
            help: Some("write it as a model-local function".into()),
            ..Diagnostic::of_model(Code::UnknownOperator, "is not an operator that tgc knows")
        }
    }

    #[test]
    fn equal_problems_are_one_line() {
        let mut errors = ImportErrors::default();
        errors.push(unknown("a"));
        errors.push(unknown("b"));
        assert_eq!(
            errors.to_string(),
            "error[E2101]: Mish2 `a` is not an operator that tgc knows (opset ai.onnx 18)\n  the same at `b`\n  \
             help: write it as a model-local function"
        );
    }
}
