//! What a connection is for. Must not know connections.

/// Which connections a request may use; classes never share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Short requests under our own identity.
    Unary,
    /// Watches and other long-running requests under our own identity.
    Watch,
    /// Short requests with the caller's own token: no client certificate, and a 401 may close the connection.
    Token,
    /// Long-running requests with the caller's own token.
    TokenWatch,
    /// As [`Self::Token`], of callers whose token this server has not accepted yet: an API server closes the connection
    /// of a token that it refuses, and every request on it has to move.
    Unknown,
    /// The long-running ones of those.
    UnknownWatch,
    /// Short requests under our own identity for callers without any, whose connections API servers close just so.
    Anonymous,
    /// The long-running ones of those.
    AnonymousWatch,
}

impl Class {
    pub(super) fn index(self) -> usize {
        match self {
            Self::Unary => 0,
            Self::Watch => 1,
            Self::Token => 2,
            Self::TokenWatch => 3,
            Self::Unknown => 4,
            Self::UnknownWatch => 5,
            Self::Anonymous => 6,
            Self::AnonymousWatch => 7,
        }
    }

    pub(super) fn has_identity(self) -> bool {
        matches!(self, Self::Unary | Self::Watch | Self::Anonymous | Self::AnonymousWatch)
    }

    /// Watches, logs and the like.
    pub(super) fn stays(self) -> bool {
        matches!(self, Self::Watch | Self::TokenWatch | Self::UnknownWatch | Self::AnonymousWatch)
    }

    pub(super) fn is_known(self) -> bool {
        matches!(self, Self::Unary | Self::Watch | Self::Token | Self::TokenWatch)
    }

    /// For logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Watch => "watch",
            Self::Token => "token",
            Self::TokenWatch => "token-watch",
            Self::Unknown => "unknown",
            Self::UnknownWatch => "unknown-watch",
            Self::Anonymous => "anonymous",
            Self::AnonymousWatch => "anonymous-watch",
        }
    }
}
