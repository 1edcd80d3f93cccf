//! A user as Kubernetes knows one, and the headers that assert him to a backend.

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::error::{Error, Kind, Result};

/// A user as Kubernetes knows one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User name; never empty.
    pub user: String,
    /// Groups; `system:authenticated` is added by the backend.
    pub groups: Vec<String>,
    /// uid, when the certificate has one.
    pub uid: Option<String>,
    /// Further attributes, each with its values.
    pub extra: Vec<(String, Vec<String>)>,
}

impl Identity {
    /// The caller without credentials, where a tenant allows one.
    pub fn anonymous() -> Self {
        Self {
            user: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            uid: None,
            extra: Vec::new(),
        }
    }

    /// `X-Remote-*`, for a connection that the backend trusts as its front proxy.
    pub fn front_proxy_headers(&self) -> Result<HeaderMap> {
        self.headers("x-remote-")
    }

    /// `Impersonate-*`, for a connection whose own identity may impersonate.
    pub fn impersonation_headers(&self) -> Result<HeaderMap> {
        self.headers("impersonate-")
    }

    fn headers(&self, prefix: &str) -> Result<HeaderMap> {
        let mut map = HeaderMap::with_capacity(2 + self.groups.len() + self.extra.len());
        map.insert(name(prefix, "user")?, value(&self.user)?);
        for group in &self.groups {
            map.append(name(prefix, "group")?, value(group)?);
        }
        if let Some(uid) = &self.uid {
            map.insert(name(prefix, "uid")?, value(uid)?);
        }
        for (key, values) in &self.extra {
            // the receiver lower-cases, then decodes: what is not a token character of a header name must be encoded
            let key = utf8_percent_encode(&key.to_ascii_lowercase(), NOT_TOKEN).to_string();
            let name = name(prefix, &format!("extra-{key}"))?;
            for text in values {
                map.append(&name, value(text)?);
            }
        }
        Ok(map)
    }
}

/// Everything that is no `tchar` of RFC 9110, and `%` itself.
const NOT_TOKEN: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b'(')
    .add(b')')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'{')
    .add(b'}');

fn name(prefix: &str, rest: &str) -> Result<HeaderName> {
    HeaderName::try_from(format!("{prefix}{rest}")).map_err(|e| unspeakable().because(e))
}

/// White space at the ends would be trimmed on the way and make another user of this one.
fn value(text: &str) -> Result<HeaderValue> {
    if text.is_empty() || text.trim() != text {
        return Err(unspeakable());
    }
    let mut value = HeaderValue::from_bytes(text.as_bytes()).map_err(|e| unspeakable().because(e))?;
    value.set_sensitive(false);
    Ok(value)
}

fn unspeakable() -> Error {
    Error::client(Kind::Unauthorized, "the client certificate's names cannot be expressed in a header")
}
