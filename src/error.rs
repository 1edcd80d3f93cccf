//! The error model: what went wrong, whose fault it is, and the one table that turns it into a `metav1.Status`.
//!
//! Promises: an [`Error`] keeps its source, never carries a secret, and names no host object unless its side is
//! [`Side::Host`], whose message is for logs only and is never shown to a tenant.

pub mod status;

use std::error::Error as StdError;
use std::fmt;

use crate::error::status::Status;

/// Result with Portico's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any source error.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// Who is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The caller sent something that cannot be served.
    Client,
    /// A virtual cluster's API server.
    Backend,
    /// The host cluster's API server.
    Host,
    /// Portico itself.
    Own,
}

/// What happened. One flat list; each has a short flag for the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Malformed or self-contradictory request.
    BadRequest,
    /// No or bad credentials.
    Unauthorized,
    /// Credentials do not allow this.
    Forbidden,
    /// No such tenant, object or path.
    NotFound,
    /// The request names another tenant than its connection (421).
    Misdirected,
    /// Method not served here.
    MethodNotAllowed,
    /// Already exists.
    AlreadyExists,
    /// Version or uid conflict.
    Conflict,
    /// resourceVersion too old.
    Gone,
    /// Body larger than the limit.
    TooLarge,
    /// Semantically invalid object.
    Invalid,
    /// A limit was hit.
    TooManyRequests,
    /// No answer in time.
    Timeout,
    /// Cannot be reached (yet).
    Unavailable,
    /// The server's address is one that nobody is connected to.
    Refused,
    /// TLS handshake or certificate problem.
    Tls,
    /// The peer broke the protocol.
    Protocol,
    /// The peer or we went away.
    Closed,
    /// Shutting down.
    Draining,
    /// Anything else; ours to fix.
    Internal,
}

impl Kind {
    /// Two- to four-letter flag for access log and metrics.
    pub fn flag(self) -> &'static str {
        match self {
            Self::BadRequest => "BAD",
            Self::Unauthorized => "AUTH",
            Self::Forbidden => "DENY",
            Self::NotFound => "NF",
            Self::Misdirected => "MISD",
            Self::MethodNotAllowed => "METH",
            Self::AlreadyExists => "DUP",
            Self::Conflict => "CONF",
            Self::Gone => "GONE",
            Self::TooLarge => "BIG",
            Self::Invalid => "INV",
            Self::TooManyRequests => "LIM",
            Self::Timeout => "TIME",
            Self::Unavailable => "DOWN",
            Self::Refused => "ADDR",
            Self::Tls => "TLS",
            Self::Protocol => "PROT",
            Self::Closed => "CLOS",
            Self::Draining => "DRN",
            Self::Internal => "INT",
        }
    }

    /// Whether it says nothing of what was asked: the server is away, or will not be spoken with.
    pub fn is_of_the_server(self) -> bool {
        matches!(
            self,
            Self::Unavailable
                | Self::Refused
                | Self::Timeout
                | Self::Closed
                | Self::Tls
                | Self::Protocol
                | Self::Unauthorized
        )
    }
}

/// Portico's error: boxed, so a `Result` stays small.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    side: Side,
    message: String,
    status: Option<Status>,
    source: Option<BoxError>,
}

impl Error {
    /// A new error. `message` is what the person at fault may read.
    pub fn new(side: Side, kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, side, message: message.into(), status: None, source: None }))
    }

    /// The caller's fault.
    pub fn client(kind: Kind, message: impl Into<String>) -> Self {
        Self::new(Side::Client, kind, message)
    }

    /// A virtual API server's fault.
    pub fn backend(kind: Kind, message: impl Into<String>) -> Self {
        Self::new(Side::Backend, kind, message)
    }

    /// The host API server's fault; the message stays in the logs.
    pub fn host(kind: Kind, message: impl Into<String>) -> Self {
        Self::new(Side::Host, kind, message)
    }

    /// Our own fault.
    pub fn own(kind: Kind, message: impl Into<String>) -> Self {
        Self::new(Side::Own, kind, message)
    }

    /// Keeps the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// An API server's own answer; kind and code follow from it.
    pub fn from_status(side: Side, status: Status) -> Self {
        let kind = kind_of(&status);
        Self(Box::new(Inner { kind, side, message: status.message.clone(), status: Some(status), source: None }))
    }

    /// What happened.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whose fault it is.
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// The message without its causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The API server's Status, when the error came from one.
    pub fn api_status(&self) -> Option<&Status> {
        self.0.status.as_ref()
    }

    /// Moves the blame, for instance when a host answer is caused by the client's object.
    #[must_use]
    pub fn on_side(mut self, side: Side) -> Self {
        self.0.side = side;
        self
    }

    /// Seconds to wait before another try, when the server said so.
    pub fn retry_after(&self) -> Option<u32> {
        let seconds = self.0.status.as_ref()?.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then_some(seconds)
    }

    /// The one table from error to `metav1.Status`. A host-side message never leaves Portico, and a host 401/403
    /// is our configuration's fault, not the tenant user's.
    pub fn to_status(&self) -> Status {
        let message = self.0.message.as_str();
        match (self.0.side, self.0.kind) {
            (Side::Client | Side::Backend, _) if self.0.status.is_some() => self.0.status.clone().unwrap_or_default(),
            (_, Kind::BadRequest) => Status::failure(400, "BadRequest", message),
            (Side::Client | Side::Backend, Kind::Unauthorized) => Status::failure(401, "Unauthorized", "Unauthorized"),
            (Side::Client | Side::Backend | Side::Own, Kind::Forbidden) => Status::failure(403, "Forbidden", message),
            (Side::Client | Side::Own | Side::Backend, Kind::NotFound) => Status::failure(404, "NotFound", message),
            (_, Kind::Misdirected) => Status::failure(421, "BadRequest", message),
            (_, Kind::MethodNotAllowed) => Status::failure(405, "MethodNotAllowed", message),
            (Side::Client, Kind::AlreadyExists) => Status::failure(409, "AlreadyExists", message),
            (Side::Client, Kind::Conflict) => Status::failure(409, "Conflict", message),
            (_, Kind::Gone) => Status::failure(410, "Expired", message),
            (_, Kind::TooLarge) => Status::failure(413, "RequestEntityTooLarge", message),
            (_, Kind::Invalid) => Status::failure(422, "Invalid", message),
            (_, Kind::TooManyRequests) => Status::failure(429, "TooManyRequests", message).retry_after(1),
            (Side::Host, Kind::Timeout | Kind::Unavailable | Kind::Closed | Kind::Tls) => {
                Status::failure(503, "ServiceUnavailable", "the host cluster does not answer").retry_after(2)
            }
            (_, Kind::Timeout) => Status::failure(504, "Timeout", message),
            (_, Kind::Unavailable | Kind::Closed | Kind::Tls) => {
                Status::failure(503, "ServiceUnavailable", message).retry_after(2)
            }
            (_, Kind::Refused) => Status::failure(503, "ServiceUnavailable", message),
            (_, Kind::Draining) => {
                Status::failure(503, "ServiceUnavailable", "the gateway is shutting down").retry_after(1)
            }
            (Side::Host, _) => {
                Status::failure(500, "InternalError", "Internal error occurred: the host cluster refused")
            }
            _ => Status::failure(500, "InternalError", format!("Internal error occurred: {message}")),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}: {}", self.0.side, self.0.kind, self.0.message)?;
        let mut source = self.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

fn kind_of(status: &Status) -> Kind {
    match (status.code, status.reason.as_str()) {
        (_, "AlreadyExists") => Kind::AlreadyExists,
        (400, _) => Kind::BadRequest,
        (401, _) => Kind::Unauthorized,
        (403, _) => Kind::Forbidden,
        (404, _) => Kind::NotFound,
        (405, _) => Kind::MethodNotAllowed,
        (409, _) => Kind::Conflict,
        (410, _) => Kind::Gone,
        (413, _) => Kind::TooLarge,
        (422, _) => Kind::Invalid,
        (429, _) => Kind::TooManyRequests,
        (504, _) => Kind::Timeout,
        (502 | 503, _) => Kind::Unavailable,
        _ => Kind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_refusals_are_never_shown_as_the_users() {
        let refused = Status::failure(403, "Forbidden", "pods \"web-x-default-x-a\" is forbidden");
        let shown = Error::from_status(Side::Host, refused).to_status();
        assert_eq!(shown.code, 500);
        assert!(!shown.message.contains("web-x-default"));
    }

    #[test]
    fn backend_statuses_pass_unchanged() {
        let status = Status::failure(409, "AlreadyExists", "pods \"x\" already exists");
        assert_eq!(Error::from_status(Side::Backend, status.clone()).to_status(), status);
    }
}
