//! Whose a token is, by its claims and its issuer's mappings.

use super::claims::Claims;
use super::issuer::Issuer;
use crate::names::credentials;

/// Of a user's name, a group's or another value.
pub const LONGEST_NAME: usize = 256;
/// Groups and values of one user, and bytes of all of them: they are headers of each of his requests.
const MOST_VALUES: usize = 256;
const MOST_BYTES: usize = 8 << 10;
/// Seconds that go-oidc grants for `nbf`; none for `exp`.
const EARLY: i64 = 300;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Never empty.
    pub name: String,
    /// Without `system:authenticated`, which API servers add.
    pub groups: Vec<String>,
    /// If the issuer says one.
    pub uid: Option<String>,
    /// Further attributes.
    pub extra: Vec<(String, Vec<String>)>,
    /// The last second in which he is one, since the epoch.
    pub ends: i64,
}

/// Why a token makes nobody a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its time is over, or it has no end.
    Expired,
    /// Its time has not come.
    Early,
    /// It is for somebody else.
    Audience,
    /// It does not say what is required.
    Rule,
    /// It says no name, or one that nobody can have.
    Username,
    /// Its groups or other values are no strings, or too many.
    Values,
    /// Kubernetes' own names are not an issuer's to give.
    Reserved,
}

impl Issuer {
    /// Whose a token of this issuer is at `now`, in seconds. Its signature was proven by others.
    pub fn user(&self, claims: &Claims, now: i64) -> Result<User, Refusal> {
        let ends = claims.moment("exp").filter(|ends| now <= *ends).ok_or(Refusal::Expired)?;
        if claims.get("nbf").is_some() && claims.moment("nbf").is_none_or(|begin| now.saturating_add(EARLY) < begin) {
            return Err(Refusal::Early);
        }
        let audiences = claims.texts("aud").ok_or(Refusal::Audience)?;
        if !audiences.iter().any(|audience| self.audiences.iter().any(|own| own == audience)) {
            return Err(Refusal::Audience);
        }
        if self.rules.iter().any(|(claim, required)| claims.text(claim) != Some(required)) {
            return Err(Refusal::Rule);
        }
        let name = self.name(claims)?;
        let groups = match &self.groups {
            Some((claim, prefix)) => {
                claims.texts(claim).ok_or(Refusal::Values)?.iter().map(|g| format!("{prefix}{g}")).collect()
            }
            None => Vec::new(),
        };
        let uid = match &self.uid {
            Some(claim) => Some(claims.text(claim).filter(|uid| !uid.is_empty()).ok_or(Refusal::Values)?.to_owned()),
            None => None,
        };
        let texts = |claim: &str| Some(claims.texts(claim)?.into_iter().map(str::to_owned).collect::<Vec<_>>());
        let mut extra = Vec::with_capacity(self.extra.len());
        for (key, claim) in &self.extra {
            let values = texts(claim).ok_or(Refusal::Values)?;
            if !values.is_empty() {
                extra.push((key.clone(), values));
            }
        }
        let user = User { name, groups, uid, extra, ends };
        self.check(&user)?;
        Ok(user)
    }

    fn name(&self, claims: &Claims) -> Result<String, Refusal> {
        let (claim, prefix) = &self.username;
        let said = claims.text(claim).filter(|name| !name.is_empty()).ok_or(Refusal::Username)?;
        let is_unverified = claims.get("email_verified").is_some_and(|is| is.as_bool() != Some(true));
        if claim == "email" && is_unverified {
            return Err(Refusal::Username);
        }
        Ok(format!("{prefix}{said}"))
    }

    /// Whether he can be said to an API server, and may be.
    fn check(&self, user: &User) -> Result<(), Refusal> {
        let User { name, groups, uid, extra, .. } = user;
        let named = std::iter::once(name.as_str()).chain(groups.iter().map(String::as_str));
        if !self.bounds.allow_system_names && named.clone().any(credentials::is_reserved) {
            return Err(Refusal::Reserved);
        }
        let (mut count, mut bytes) = (0, 0);
        let values = extra.iter().flat_map(|(_, values)| values.iter().map(String::as_str));
        for value in named.chain(uid.as_deref()).chain(values) {
            if value.is_empty()
                || value.len() > LONGEST_NAME
                || value.chars().any(char::is_control)
                || value.trim() != value
            {
                return Err(if value == name { Refusal::Username } else { Refusal::Values });
            }
            count += 1;
            bytes += value.len();
        }
        if count > MOST_VALUES || bytes > MOST_BYTES {
            return Err(Refusal::Values);
        }
        Ok(())
    }
}

impl Refusal {
    /// All, as metrics name them.
    pub const WORDS: [&'static str; 7] = ["expired", "early", "audience", "rule", "username", "values", "reserved"];

    /// For metrics.
    pub fn word(self) -> &'static str {
        let [expired, early, audience, rule, username, values, reserved] = Self::WORDS;
        match self {
            Self::Expired => expired,
            Self::Early => early,
            Self::Audience => audience,
            Self::Rule => rule,
            Self::Username => username,
            Self::Values => values,
            Self::Reserved => reserved,
        }
    }

    /// For the log.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Expired => "JEXP",
            Self::Early => "JNBF",
            Self::Audience => "JAUD",
            Self::Rule => "JRUL",
            Self::Username => "JUSR",
            Self::Values => "JVAL",
            Self::Reserved => "JSYS",
        }
    }
}
