//! What a running kernel does wrong: findings, and the shadow state that finds them.

mod clock;
mod finding;
mod global;
mod shared;

pub(crate) use clock::{Clock, Stamp};
pub use finding::{Finding, FindingKind, Site, SourcePlace};
pub(crate) use finding::{Findings, Key, Sighting};
pub(crate) use global::{GlobalShadow, Knowledge, OtherBlock, SyncTable};
pub(crate) use shared::{Accessor, Conflict, NO_EPOCH, Row, SEVERAL_LANES, SharedShadow};
