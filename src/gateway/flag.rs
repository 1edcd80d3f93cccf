//! Why a request did not end as it should: the word that stands as `flag` in the access log.

use super::identity::Fault;
use crate::error::Kind;

/// Such a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// It was refused, or failed.
    Failed(Kind),
    /// The answer or stream broke off after its head.
    Cut,
    /// A stream was ended by us: its tenant is gone, its user's certificate or token no longer holds, or the process ends.
    Ended,
    /// The answer was ended by us: its reader took nothing of it for too long.
    Unread,
    /// There was no place for a caller whom nobody knows yet.
    Unknown,
    /// The token is not one that the cluster accepts.
    Token(Fault),
    /// The token of an issuer is not one that the cluster accepts: why, in the log's word.
    Issuer(&'static str),
}

impl Flag {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed(kind) => kind.flag(),
            Self::Cut => "CUT",
            Self::Ended => "END",
            Self::Unread => "SLOW",
            Self::Unknown => "UNKN",
            Self::Token(fault) => fault.flag(),
            Self::Issuer(word) => word,
        }
    }
}
