//! ServiceAccount tokens, judged as a Kubernetes API server judges its own (`pkg/serviceaccount/jwt.go`, `claims.go`), as far
//! as its keys and the time of day tell.
//!
//! Promises: the algorithm is the key's word, never the token's; what is called false no API server with these keys accepts;
//! what is called true is signed with one of them, for that API server, and in time; all else is left to the API server. Lengths
//! and numbers are bounded before anything is computed. Must not know whose keys these are, or what hangs on the outcome.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

/// Of a token that is judged: an API server's own are some thousand bytes.
const LONGEST: usize = 16 << 10;
/// Seconds that an API server grants: `jwt.DefaultLeeway` of go-jose, for `exp`, `nbf` and `iat` alike.
const LEEWAY: i64 = 60;
/// How the name of a ServiceAccount's user begins.
const ACCOUNT: &str = "system:serviceaccount:";

/// A token as it says of itself: nothing of it is proven.
pub struct Token<'a> {
    pub(super) head: Head,
    pub(super) claims: Claims,
    pub(super) message: &'a str,
    pub(super) signature: &'a str,
}

/// Whose a token is, proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// The last moment at which an API server accepts it.
    ends: Option<Timestamp>,
}

/// What can be said of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It is good, unless the API server took it back.
    True(Bearer),
    /// The API server does not accept it.
    False(Fault),
    /// It says that it is of this issuer, by a key that is not among these.
    UnknownKey,
    /// Only the API server can say.
    Foreign,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It names a key and another algorithm than that key's.
    Algorithm,
    /// It is not signed with the key that it names.
    Signature,
    /// By a key that the API server does not have.
    Key,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    Early,
    /// It is for somebody else than the API server.
    Audience,
}

/// Headers that say nothing here (`jwk`, `jku`, `x5u` …) are not looked at: no key comes from a token.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    pub(super) alg: String,
    #[serde(default)]
    pub(super) kid: String,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
    b64: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    /// Whoever is no ServiceAccount need not have one.
    #[serde(default)]
    sub: String,
    #[serde(default)]
    aud: Audiences,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Audiences {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl std::fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl<'a> Token<'a> {
    /// Whether it has the form of one: asked of everything that is shown, so it takes nothing.
    pub fn is_one(text: &str) -> bool {
        text.len() <= LONGEST && text.bytes().filter(|byte| *byte == b'.').count() == 2
    }

    /// Reads it. `None` for what has another form, is too long, or says something twice: the API server's to judge.
    pub fn read(text: &'a str) -> Option<Self> {
        if !Self::is_one(text) {
            return None;
        }
        let (message, signature) = text.rsplit_once('.')?;
        let (head, claims) = message.split_once('.')?;
        Some(Self { head: decode(head)?, claims: decode(claims)?, message, signature })
    }

    /// Whether it says that it is a ServiceAccount's. Others are never of the keys that are asked for here.
    pub fn is_of_account(&self) -> bool {
        is_account(&self.claims.sub)
    }
}

impl Bearer {
    /// Whether its time is over.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.ends.is_some_and(|ends| now > ends)
    }

    /// How long until it is; nothing where it never is.
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        self.ends.map(|ends| Duration::try_from(ends.duration_since(now)).unwrap_or_default())
    }
}

#[cfg(test)]
impl Bearer {
    /// For tests.
    pub fn until(user: &str, ends: Timestamp) -> Self {
        Self { user: user.to_owned(), ends: Some(ends) }
    }
}

impl Fault {
    /// All, as metrics name them.
    pub const WORDS: [&'static str; 6] = ["algorithm", "signature", "key", "expired", "early", "audience"];

    /// For metrics.
    pub fn word(self) -> &'static str {
        let [algorithm, signature, key, expired, early, audience] = Self::WORDS;
        match self {
            Self::Algorithm => algorithm,
            Self::Signature => signature,
            Self::Key => key,
            Self::Expired => expired,
            Self::Early => early,
            Self::Audience => audience,
        }
    }

    /// For the log.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Algorithm => "TALG",
            Self::Signature => "TSIG",
            Self::Key => "TKEY",
            Self::Expired => "TEXP",
            Self::Early => "TNBF",
            Self::Audience => "TAUD",
        }
    }
}

impl Head {
    /// Whether it says something that an API server's own never do, and that would change what is to be checked.
    pub(super) fn is_odd(&self) -> bool {
        let is_jwt = self.typ.as_ref().is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"));
        !is_jwt || self.crit.is_some() || self.b64.is_some()
    }
}

impl Claims {
    /// Its fault at `now`, if there is one.
    pub(super) fn in_time(&self, now: Timestamp) -> Result<(), Fault> {
        let now = now.as_second();
        if self.exp.is_some_and(|exp| now.saturating_sub(LEEWAY) > seconds(exp)) {
            return Err(Fault::Expired);
        }
        let begins = |begin: &f64| seconds(*begin) > now.saturating_add(LEEWAY);
        if self.nbf.iter().chain(&self.iat).any(begins) { Err(Fault::Early) } else { Ok(()) }
    }

    /// For whom it is.
    pub(super) fn audiences(&self) -> &[String] {
        match &self.aud {
            Audiences::None => &[],
            Audiences::One(one) => std::slice::from_ref(one),
            Audiences::Many(many) => many,
        }
    }

    /// Whose it is.
    pub(super) fn bearer(self) -> Bearer {
        let last = self.exp.map(|exp| seconds(exp).saturating_add(LEEWAY));
        // Beyond the calendar it has no end.
        Bearer { user: self.sub, ends: last.and_then(|last| Timestamp::from_second(last).ok()) }
    }
}

/// As go-jose reads a `NumericDate`.
fn seconds(written: f64) -> i64 {
    written as i64
}

fn is_account(user: &str) -> bool {
    let Some((namespace, name)) = user.strip_prefix(ACCOUNT).and_then(|rest| rest.split_once(':')) else {
        return false;
    };
    let is_name = |text: &str| {
        let is_known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        !text.is_empty() && text.len() <= 253 && text.bytes().all(is_known)
    };
    is_name(namespace) && is_name(name)
}

fn decode<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}
