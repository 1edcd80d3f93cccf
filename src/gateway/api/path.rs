//! Paths: the tenant prefix, the roots that are forwarded, and decoding once.

use percent_encoding::percent_decode_str;

/// Roots of a Kubernetes API server, with everything below them. k3s serves more on its port (node bootstrap, tokens,
/// certificates), so this is a list of what passes. `/` is the list of paths, which client libraries probe.
const ROOTS: [&str; 10] = [
    "/api",
    "/apis",
    "/openapi",
    "/version",
    "/healthz",
    "/livez",
    "/readyz",
    "/metrics",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
];

/// A page of our own, where no API server has anything.
pub const OWN_METRICS: &str = "/portico/metrics";

const CLUSTERS: &str = "/clusters";

/// Why a request cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// `%zz`, or bytes that are no UTF-8 after decoding.
    #[error("the path has an invalid percent-encoding")]
    Encoding,
    /// NUL, other control characters or a backslash.
    #[error("the path has a character that no object's name can have")]
    Character,
    /// `.` or `..`: no object has this name, and proxies disagree on what it means.
    #[error("the path has a segment \".\" or \"..\"")]
    Dots,
    /// Not absolute.
    #[error("the path does not begin with \"/\"")]
    Relative,
    /// `/api/v1/watch` or `/api/v1/proxy` with nothing behind it.
    #[error("the path ends after its verb")]
    Incomplete,
}

/// A raw path, split into the tenant it names and what the backend shall see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathPrefix<'a> {
    /// Host namespace and cluster name as written, when the path begins with `/clusters`.
    pub tenant: Option<(&'a str, &'a str)>,
    /// The path behind the prefix; at least `/`.
    pub rest: &'a str,
}

impl<'a> PathPrefix<'a> {
    /// Splits without decoding: both names are DNS labels, so an encoded prefix is nobody's. `None` when the path
    /// begins with `/clusters` but names no tenant.
    pub fn split(raw: &'a str) -> Option<Self> {
        let Some(tail) = raw.strip_prefix(CLUSTERS) else { return Some(Self { tenant: None, rest: raw }) };
        if !tail.is_empty() && !tail.starts_with('/') {
            return Some(Self { tenant: None, rest: raw });
        }
        let tail = tail.strip_prefix('/')?;
        let (namespace, tail) = tail.split_once('/')?;
        let (name, rest) = match tail.find('/') {
            Some(at) => tail.split_at(at),
            None => (tail, "/"),
        };
        (!namespace.is_empty() && !name.is_empty()).then_some(Self { tenant: Some((namespace, name)), rest })
    }
}

/// Whether a raw path (without a tenant's prefix) is one that tenants may reach. The root must be written plainly:
/// no client encodes it, and what is encoded may be read differently behind us.
pub fn is_served_root(raw_path: &str) -> bool {
    raw_path == "/"
        || raw_path == OWN_METRICS
        || ROOTS
            .iter()
            .any(|root| raw_path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Decodes once and refuses what no API object can be named.
pub(super) fn decode(raw: &str) -> Result<String, BadRequest> {
    if !raw.starts_with('/') {
        return Err(BadRequest::Relative);
    }
    let bytes = raw.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let is_hex = |offset: usize| bytes.get(at + offset).is_some_and(u8::is_ascii_hexdigit);
        if *byte == b'%' && !(is_hex(1) && is_hex(2)) {
            return Err(BadRequest::Encoding);
        }
    }
    let decoded = percent_decode_str(raw).decode_utf8().map_err(|_| BadRequest::Encoding)?.into_owned();
    if decoded.chars().any(|c| c.is_control() || c == '\\') {
        return Err(BadRequest::Character);
    }
    if decoded.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(BadRequest::Dots);
    }
    Ok(decoded)
}
