use tgc_ir::kernel_program::Rnn;
use crate::cuda::emit::{Emitted, Request};
use crate::cuda::print::scope::{PrintError, Scope};
pub(super) fn emit(scope: &Scope<'_>, _: &Request<'_>, _: &Rnn) -> Result<Emitted, PrintError> { Err(scope.unsupported("rnn")) }
