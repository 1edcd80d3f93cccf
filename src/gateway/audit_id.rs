//! What names a request in the audit logs behind the gateway: the virtual cluster's API server's, and the host's, where it stands
//! beside whose request it was.
//!
//! Promises: what a caller chose of it is short and cannot be taken for something else. Must not know what is asked.

use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::names::TenantId;
use crate::runtime::clock::Clock;

/// `Audit-ID`: API servers take what the caller says, and answer with it (`k8s.io/apiserver/pkg/endpoints/filters/audit_init.go`).
pub(super) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Of the caller's own: API servers cut longer ones (`maxAuditIDLength`).
const LONGEST: usize = 64;
/// Of a user's name, in what the host is told.
const LONGEST_USER: usize = 128;

/// The caller's own, or a new one.
pub(super) fn of(headers: &HeaderMap, clock: &Clock) -> HeaderValue {
    let is_plain = |value: &&HeaderValue| {
        let is_known = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        !value.is_empty() && value.len() <= LONGEST && value.as_bytes().iter().all(is_known)
    };
    let mut id = headers.get(AUDIT_ID).filter(is_plain).cloned().unwrap_or_else(|| random(clock));
    // Each is another one: in HPACK's tables it would only push out what comes again.
    id.set_sensitive(true);
    id
}

/// How Portico calls itself on the host when it calls there for somebody.
pub(super) fn agent(tenant: &TenantId, user: &str, impersonated: Option<&str>) -> HeaderValue {
    let (user, of) = (plain(user), impersonated.map(|other| format!(" as {}", plain(other))).unwrap_or_default());
    let text = format!("portico/{} ({tenant}; {user}{of})", env!("CARGO_PKG_VERSION"));
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("portico"))
}

/// A version 4 UUID (RFC 9562), as API servers make them.
fn random(clock: &Clock) -> HeaderValue {
    let mut bytes = clock.random_bytes(16);
    for (at, keep, set) in [(6, 0x0f, 0x40), (8, 0x3f, 0x80)] {
        if let Some(byte) = bytes.get_mut(at) {
            *byte = (*byte & keep) | set;
        }
    }
    let hex = HEXLOWER.encode(&bytes);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| hex.get(part).unwrap_or_default());
    HeaderValue::try_from(parts.join("-")).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

/// Without what could be taken for the end of the name, or be no header.
fn plain(user: &str) -> String {
    let is_known = |c: char| c.is_ascii_alphanumeric() || "-_.:@/+=,#~".contains(c);
    user.chars().take(LONGEST_USER).map(|c| if is_known(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_own_stays_and_others_are_uuids() {
        let clock = Clock::system();
        let of = |said: Option<&[u8]>| {
            let mut headers = HeaderMap::new();
            if let Some(said) = said {
                headers.insert(AUDIT_ID, HeaderValue::from_bytes(said).expect("a value"));
            }
            super::of(&headers, &clock).to_str().expect("text").to_owned()
        };
        assert_eq!(of(Some(b"8f2a-me_1.x")), "8f2a-me_1.x");
        let long = "a".repeat(65);
        for said in [None, Some(&b""[..]), Some(b"a b"), Some(b"a\"b"), Some(b"\xff"), Some(long.as_bytes())] {
            let made = of(said);
            assert_eq!((made.len(), made.as_bytes()[14]), (36, b'4'), "{made}");
            assert!(b"89ab".contains(&made.as_bytes()[19]), "{made}");
            assert_ne!(made, of(said));
        }
    }

    #[test]
    fn whose_it_is_cannot_be_forged_by_a_name() {
        let tenant = TenantId::parse("team", "dev").expect("a name");
        let agent = |user: &str, other: Option<&str>| agent(&tenant, user, other).to_str().expect("text").to_owned();
        let begin = concat!("portico/", env!("CARGO_PKG_VERSION"), " (team/dev; ");
        assert_eq!(agent("jane@example.com", None), format!("{begin}jane@example.com)"));
        assert_eq!(agent("jane", Some("system:admin")), format!("{begin}jane as system:admin)"));
        assert_eq!(agent("x) (other/dev; admin", None), format!("{begin}x???other/dev??admin)"));
        assert_eq!(agent("a as b\r\n\u{fc}", None), format!("{begin}a?as?b???)"));
        assert!(agent(&"n".repeat(5000), Some(&"m".repeat(5000))).len() < 400);
    }
}
