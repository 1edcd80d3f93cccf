//! The keys of an API server's tokens, as it publishes them, and what they say of a token.
//!
//! Pure. Promises as those of [`Token`]: the algorithm is the key's word; keys are few, and none makes a forged token dear.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::token::{Claims, Fault, Judgement, Token};
use crate::error::{Error, Kind, Result};

/// Of what an API server says of its tokens, of either document.
pub const LONGEST_DOCUMENT: usize = 64 << 10;
/// API servers have one key, or two while they change it; issuers some more.
const MOST: usize = 16;
/// Keys with which a token is tried that names none.
const MOST_TRIES: usize = 4;
/// Of a key's name: an API server's is a digest.
const LONGEST_ID: usize = 1024;
/// Of an RSA key, in characters: 4096 bits. A longer one makes each forged token dear.
const LONGEST_MODULUS: usize = 683;
/// Bits of a shorter one, which is not understood here: Go's API servers take it.
const SHORTEST_MODULUS: usize = 2048;
/// Of its exponent, likewise: four bytes.
const LONGEST_EXPONENT: usize = 6;

/// Issuer and keys of one API server.
#[derive(Debug)]
pub struct Keys {
    issuer: String,
    keys: Vec<Key>,
    digest: [u8; 32],
}

/// Whether a token is signed with one of somebody's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// It is.
    Yes,
    /// Not with the key that it names, or by an algorithm that is not this key's.
    No,
    /// It names none of them.
    UnknownKey,
}

#[derive(Debug)]
struct Key {
    id: String,
    /// Its algorithm is said, and not its kind's first.
    is_exact: bool,
    /// Nothing: of a kind that is not understood here.
    verifies: Option<(Algorithm, DecodingKey)>,
}

#[derive(Deserialize)]
struct Configuration {
    issuer: String,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Written>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    kid: String,
    kty: String,
    alg: String,
    r#use: String,
    crv: String,
    n: String,
    e: String,
    x: String,
    y: String,
}

impl Keys {
    /// From `/.well-known/openid-configuration` and `/openid/v1/jwks`. Where the first says that the keys are is not looked
    /// at: nobody is asked but the API server itself.
    pub fn read(configuration: &[u8], set: &[u8]) -> Result<Self> {
        let unreadable = |error| refuse("cannot be read").because(error);
        let Configuration { issuer } = serde_json::from_slice(configuration).map_err(unreadable)?;
        let Set { keys } = serde_json::from_slice(set).map_err(unreadable)?;
        // An API server tries all of a name: of two, only it can say.
        let (mut names, mut doubled) = (HashSet::new(), HashSet::new());
        for key in &keys {
            if !names.insert(key.kid.clone()) {
                doubled.insert(key.kid.clone());
            }
        }
        Self::of(issuer, keys, &doubled, (configuration, set))
    }

    /// From the set that an issuer publishes.
    pub fn of_issuer(issuer: &str, set: &[u8]) -> Result<Self> {
        let Set { keys } = serde_json::from_slice(set).map_err(|error| refuse("cannot be read").because(error))?;
        // Other uses than signing are none of a token's.
        let keys = keys.into_iter().filter(|key| matches!(key.r#use.as_str(), "" | "sig")).collect();
        // All of a name are tried, as the API server tries those of its issuers.
        Self::of(issuer.to_owned(), keys, &HashSet::new(), (b"", set))
    }

    fn of(
        issuer: String,
        keys: Vec<Written>,
        doubled: &HashSet<String>,
        (configuration, set): (&[u8], &[u8]),
    ) -> Result<Self> {
        if issuer.is_empty() || keys.is_empty() || keys.len() > MOST {
            return Err(refuse("are none, or too many"));
        }
        if keys.iter().any(|key| key.kid.len() > LONGEST_ID) {
            return Err(refuse("have names that are too long"));
        }
        let digest = Sha256::new().chain_update(configuration).chain_update([0]).chain_update(set).finalize().into();
        let understood = |key: Written| {
            let verifies = if doubled.contains(&key.kid) { None } else { key.verifies() };
            Key { verifies, is_exact: !key.alg.is_empty(), id: key.kid }
        };
        let keys = keys.into_iter().map(understood).collect();
        Ok(Self { issuer, keys, digest })
    }

    /// Whether the API server says the same as before.
    pub fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    /// Judges a token. `beside` is what the API server accepts as audience beside its issuer (the default of KEP-1393);
    /// nothing where that is not known: such an audience is then nobody's fault.
    pub fn judge(&self, token: Token<'_>, beside: Option<&[&str]>, now: Timestamp) -> Judgement {
        // An API server asks its issuer first: another one's keys may have the same names.
        if token.claims.iss != self.issuer {
            return Judgement::Foreign;
        }
        let is_own = token.is_of_account();
        let key = match (token.head.kid.as_str(), self.keys.as_slice()) {
            // Of an API server that is not ours it is not known that it publishes all that it tries.
            ("", [only]) if is_own && beside.is_some() => only,
            ("", _) => return Judgement::Foreign,
            (id, keys) => match keys.iter().find(|key| key.id == id) {
                Some(key) => key,
                None if is_own => return Judgement::UnknownKey,
                None => return Judgement::Foreign,
            },
        };
        let Some((algorithm, key)) = &key.verifies else { return Judgement::Foreign };
        if word(*algorithm) != Some(token.head.alg.as_str()) {
            // go-jose lets a token choose within its key's family.
            let is_of_family = family(*algorithm).contains(&token.head.alg.as_str());
            return if is_of_family { Judgement::Foreign } else { Judgement::False(Fault::Algorithm) };
        }
        match crypto::verify(token.signature, token.message.as_bytes(), key, *algorithm) {
            Ok(true) => {}
            Ok(false) => return Judgement::False(Fault::Signature),
            // Go reads more forms of base64.
            Err(_) => return Judgement::Foreign,
        }
        // From here on it is the API server's own word, of whatever form.
        if !is_own || token.head.is_odd() {
            return Judgement::Foreign;
        }
        match self.fault(&token.claims, beside, now) {
            None => Judgement::True(token.claims.bearer()),
            Some(fault) => fault.map_or(Judgement::Foreign, Judgement::False),
        }
    }

    /// Whether a token is signed with one of these, which are all that its issuer signs with. One that names none is tried with
    /// those whose kind is its algorithm's.
    pub fn signed(&self, token: &Token<'_>) -> Signed {
        if token.head.is_odd() {
            return Signed::No;
        }
        let id = token.head.kid.as_str();
        let mut named = self.keys.iter().filter(|key| id.is_empty() || key.id == id).peekable();
        if named.peek().is_none() {
            return Signed::UnknownKey;
        }
        let tries = named.filter_map(|key| key.fitting(&token.head.alg)).take(MOST_TRIES);
        let is_signed = |(algorithm, key): (Algorithm, &DecodingKey)| {
            crypto::verify(token.signature, token.message.as_bytes(), key, algorithm) == Ok(true)
        };
        if tries.into_iter().any(is_signed) { Signed::Yes } else { Signed::No }
    }

    /// `Some(None)`: only the API server knows.
    fn fault(&self, claims: &Claims, beside: Option<&[&str]>, now: Timestamp) -> Option<Option<Fault>> {
        if let Err(fault) = claims.in_time(now) {
            return Some(Some(fault));
        }
        let audiences = claims.audiences();
        // One without any is for the API server.
        if audiences.is_empty() || audiences.contains(&self.issuer) {
            return None;
        }
        let Some(beside) = beside else { return Some(None) };
        if audiences.iter().any(|one| beside.contains(&one.as_str())) { None } else { Some(Some(Fault::Audience)) }
    }
}

impl Key {
    /// With what a token is verified that has this algorithm.
    fn fitting(&self, word: &str) -> Option<(Algorithm, &DecodingKey)> {
        let (algorithm, verifies) = self.verifies.as_ref()?;
        let wanted = chosen(word, *algorithm).filter(|one| !self.is_exact || one == algorithm)?;
        Some((wanted, verifies))
    }
}

impl Written {
    fn verifies(&self) -> Option<(Algorithm, DecodingKey)> {
        if !matches!(self.r#use.as_str(), "" | "sig") {
            return None;
        }
        let algorithm = self.algorithm()?;
        let key = match self.kty.as_str() {
            "RSA" if self.has_fitting_modulus() && self.e.len() <= LONGEST_EXPONENT => {
                DecodingKey::from_rsa_components(&self.n, &self.e).ok()?
            }
            "EC" => DecodingKey::from_ec_components(&self.x, &self.y).ok()?,
            _ => return None,
        };
        Some((algorithm, key))
    }

    /// A key that does not say it has its kind's first.
    fn algorithm(&self) -> Option<Algorithm> {
        match (self.kty.as_str(), self.crv.as_str(), self.alg.as_str()) {
            ("RSA", _, "" | "RS256") => Some(Algorithm::RS256),
            ("RSA", _, "RS384") => Some(Algorithm::RS384),
            ("RSA", _, "RS512") => Some(Algorithm::RS512),
            ("RSA", _, "PS256") => Some(Algorithm::PS256),
            ("RSA", _, "PS384") => Some(Algorithm::PS384),
            ("RSA", _, "PS512") => Some(Algorithm::PS512),
            ("EC", "P-256", "" | "ES256") if self.is_point(32) => Some(Algorithm::ES256),
            ("EC", "P-384", "" | "ES384") if self.is_point(48) => Some(Algorithm::ES384),
            _ => None,
        }
    }

    fn has_fitting_modulus(&self) -> bool {
        if self.n.len() > LONGEST_MODULUS {
            return false;
        }
        let Ok(modulus) = URL_SAFE_NO_PAD.decode(&self.n) else { return false };
        let zeros: usize = modulus.iter().position(|byte| *byte != 0).unwrap_or(modulus.len());
        let first = modulus.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
        (modulus.len() - zeros) * 8 - first >= SHORTEST_MODULUS
    }

    /// Whether both coordinates have so many bytes.
    fn is_point(&self, bytes: usize) -> bool {
        let characters = (bytes * 4).div_ceil(3);
        self.x.len() == characters && self.y.len() == characters
    }
}

fn word(algorithm: Algorithm) -> Option<&'static str> {
    match algorithm {
        Algorithm::RS256 => Some("RS256"),
        Algorithm::RS384 => Some("RS384"),
        Algorithm::RS512 => Some("RS512"),
        Algorithm::ES256 => Some("ES256"),
        Algorithm::ES384 => Some("ES384"),
        _ => None,
    }
}

/// What a token may choose of a key's kind: never a secret's, and never none.
fn chosen(word: &str, of: Algorithm) -> Option<Algorithm> {
    let is_rsa = !matches!(of, Algorithm::ES256 | Algorithm::ES384);
    match word {
        "RS256" if is_rsa => Some(Algorithm::RS256),
        "RS384" if is_rsa => Some(Algorithm::RS384),
        "RS512" if is_rsa => Some(Algorithm::RS512),
        "PS256" if is_rsa => Some(Algorithm::PS256),
        "PS384" if is_rsa => Some(Algorithm::PS384),
        "PS512" if is_rsa => Some(Algorithm::PS512),
        "ES256" if of == Algorithm::ES256 => Some(of),
        "ES384" if of == Algorithm::ES384 => Some(of),
        _ => None,
    }
}

/// What else such a key signs, as go-jose verifies it.
fn family(algorithm: Algorithm) -> &'static [&'static str] {
    match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => &["ES256", "ES384", "ES512"],
        _ => &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
    }
}

fn refuse(what: &str) -> Error {
    Error::backend(Kind::Protocol, format!("the keys of the API server's tokens {what}"))
}

#[cfg(test)]
mod tests;
