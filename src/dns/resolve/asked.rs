//! A question.

use hickory_proto::rr::{Name, RecordType};

/// A question, and what its answer may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Name.
    pub(crate) name: &'a Name,
    /// Record type.
    pub(crate) kind: RecordType,
    /// Bytes that an answer may have: no more records are made than may fit.
    pub(crate) room: usize,
    /// Which of many endpoints comes first; any number. Spreads clients that take the first address.
    pub(crate) turn: u64,
}
