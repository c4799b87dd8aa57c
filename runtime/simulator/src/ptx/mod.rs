//! Reading PTX: tokens, then a tree with registers, variables and labels resolved by scope.
//!
//! Knows the grammar only; what an instruction means is the decoder's.

pub(crate) mod ast;
mod body;
mod lexer;
mod operand;
mod parser;
mod variable;

pub(crate) use parser::parse;
