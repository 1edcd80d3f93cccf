//! What browsers make of the gateway: whose place in a browser an address is, what an answer may leave there, and whose pages
//! may ask with a user's certificate.
//!
//! Promises: a document that comes by path is none of the origin that all tenants share there, and runs nothing; where a host
//! name is shared, no cookie and nothing else that a browser keeps for the whole name passes; a page of another origin neither
//! changes anything nor begins a stream by a certificate, which browsers show whoever's page asks. Pure; must not know what is
//! asked for.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::authenticate::Who;
use crate::error::{Error, Kind, Result};

/// Whose place in a browser the address is that a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    /// A name of the tenant's own: nobody else's pages are there.
    Own,
    /// A tenant's port under another name: an origin of its own, on a host of many. Browsers keep cookies by host.
    Port,
    /// A name of the shared listener: one origin for all tenants.
    Shared,
}

/// What browsers keep of an answer for the whole origin or host: cookies and what takes them away, ways to the host, where to
/// report what is asked there, a wider reach of workers.
static KEPT_FOR_ALL: [HeaderName; 7] = [
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    HeaderName::from_static("clear-site-data"),
    header::ALT_SVC,
    HeaderName::from_static("report-to"),
    HeaderName::from_static("nel"),
    HeaderName::from_static("service-worker-allowed"),
];
static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
static SERVICE_WORKER: HeaderName = HeaderName::from_static("service-worker");
/// Of no origin, and without scripts and forms. Beside it another policy can only forbid more.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// What is looked at of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    /// Host and port that it names.
    pub(super) authority: &'a str,
    pub(super) wants_upgrade: bool,
    /// Relays say so (`kubectl proxy`, dashboards on the desktop). A page can only after asking leave, which it gets of nobody.
    pub(super) is_relayed: bool,
}

/// Refuses what a page must not ask for in this caller's name.
pub(super) fn check(site: Site, who: &Who, asked: Asked<'_>) -> Result<()> {
    if site == Site::Shared && asked.headers.contains_key(&SERVICE_WORKER) {
        return Err(Error::client(Kind::Forbidden, "no service worker is served by path: use the cluster's own name"));
    }
    // A token is shown by whoever has it, and by no browser of itself.
    let is_shown_by_itself = matches!(who, Who::Certificate(_));
    // Reading is safe: without a word of the API server no other origin sees the answer. WebSockets have no such rule.
    let is_safe = asked.method.is_safe() && !asked.wants_upgrade;
    if is_shown_by_itself && !is_safe && !asked.is_relayed && is_of_another_origin(asked.headers, asked.authority) {
        let message =
            "a page of another origin asks by the browser's client certificate; use a token, or the cluster's own name";
        return Err(Error::client(Kind::Forbidden, message));
    }
    Ok(())
}

/// Takes out of a request what another tenant's pages may have left in the browser.
pub(super) fn clean_request(site: Site, headers: &mut HeaderMap) {
    if site != Site::Own {
        headers.remove(header::COOKIE);
    }
}

/// Keeps an answer apart from those of other tenants.
pub(super) fn clean_answer(site: Site, headers: &mut HeaderMap) {
    if site == Site::Own {
        return;
    }
    for name in &KEPT_FOR_ALL {
        headers.remove(name);
    }
    if site == Site::Shared {
        headers.append(header::CONTENT_SECURITY_POLICY, SANDBOX);
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    }
}

/// What the browser says of the page that asks, which no page can say in its place; of older browsers its origin. Other
/// programs say nothing, or name the server itself.
fn is_of_another_origin(headers: &HeaderMap, authority: &str) -> bool {
    if headers.contains_key(&SEC_FETCH_SITE) {
        return headers
            .get_all(&SEC_FETCH_SITE)
            .iter()
            .any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    }
    headers.get_all(header::ORIGIN).iter().any(|origin| !is_origin_of(origin, authority))
}

fn is_origin_of(origin: &HeaderValue, authority: &str) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    if let Some(host) = origin.strip_prefix("https://") {
        return without_default_port(host).eq_ignore_ascii_case(without_default_port(authority));
    }
    // Older WebSocket libraries of Python say `http` whatever they use. A page has that origin where it came from this very port
    // without TLS, which nobody serves.
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse().is_ok_and(|port: u16| port != 80));
    has_port && origin.strip_prefix("http://").is_some_and(|host| host.eq_ignore_ascii_case(authority))
}

fn without_default_port(authority: &str) -> &str {
    authority.strip_suffix(":443").unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_other(fields: &[(&'static str, &'static str)], authority: &str) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        is_of_another_origin(&headers, authority)
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (origin, authority) in [
            ("https://a.example.com", "a.example.com"),
            ("https://a.example.com", "A.example.com:443"),
            ("https://a.example.com:443", "a.example.com"),
            ("https://a.example.com:8443", "a.example.com:8443"),
            ("https://[::1]:8443", "[::1]:8443"),
            ("http://a.example.com:8443", "a.example.com:8443"),
        ] {
            assert!(!is_other(&[("origin", origin)], authority), "{origin} at {authority}");
        }
        for (origin, authority) in [
            ("null", "a.example.com"),
            ("", "a.example.com"),
            ("http://a.example.com", "a.example.com"),
            ("http://a.example.com:80", "a.example.com:80"),
            ("http://[::1]", "[::1]"),
            ("http://a.example.com:8443", "a.example.com:8444"),
            ("https://a.example.com:8443", "a.example.com"),
            ("https://a.example.com", "a.example.com:8443"),
            ("https://a.example.com.evil.test", "a.example.com"),
            ("https://b.example.com", "a.example.com"),
        ] {
            assert!(is_other(&[("origin", origin)], authority), "{origin} at {authority}");
        }
        assert!(!is_other(&[], "a.example.com"), "no browser says nothing");
    }

    #[test]
    fn what_the_browser_says_of_a_page_goes_before_its_origin() {
        let own = ("origin", "https://a.example.com");
        for site in ["cross-site", "same-site", "", "Same-Origin"] {
            assert!(is_other(&[("sec-fetch-site", site), own], "a.example.com"), "{site}");
        }
        for site in ["same-origin", "none"] {
            assert!(
                !is_other(&[("sec-fetch-site", site), ("origin", "http://localhost:8001")], "a.example.com"),
                "{site}"
            );
        }
        assert!(is_other(&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], "a.example.com"));
    }
}
