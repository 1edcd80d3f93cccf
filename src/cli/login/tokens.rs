//! What an issuer's token endpoint says. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::cli::failure::{Failure, Outcome};
use crate::issuers::Claims;

/// Tokens of one login.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) id_token: String,
    pub(super) refresh_token: Option<String>,
    /// Of the id token, in seconds.
    pub(super) ends: i64,
}

/// What is expected of an id token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client: &'a str,
    /// What was sent with the request, if anything was.
    pub(super) nonce: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer {
    id_token: Option<String>,
    refresh_token: Option<String>,
}

/// Why an endpoint refuses (RFC 6749, 5.2; RFC 8628, 3.5).
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Refusal {
    pub(super) error: String,
    error_description: String,
}

impl Tokens {
    /// Out of an answer. Its signature is not verified: it came by TLS from the issuer itself (OpenID Connect Core 3.1.3.7), and the
    /// gateway verifies it.
    pub(super) fn read(answer: &[u8], expected: Expected<'_>) -> Outcome<Self> {
        let wrong = |what: &str| {
            Failure::new(format!("the issuer's answer {what}"), "is this the right --issuer and --client-id?")
        };
        let answer: Answer = serde_json::from_slice(answer).map_err(|_| wrong("cannot be read"))?;
        let id_token =
            answer.id_token.ok_or_else(|| wrong("has no id token: does the client have the scope openid?"))?;
        let claims = id_token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let claims =
            claims.and_then(|json| Claims::parse(&json)).ok_or_else(|| wrong("has an id token that is none"))?;
        if claims.text("iss") != Some(expected.issuer) {
            return Err(wrong("is another issuer's"));
        }
        if !claims.texts("aud").unwrap_or_default().contains(&expected.client) {
            return Err(wrong("is for another client"));
        }
        if expected.nonce.is_some_and(|nonce| claims.text("nonce") != Some(nonce)) {
            return Err(wrong("belongs to another login"));
        }
        let ends = claims.moment("exp").ok_or_else(|| wrong("has an id token without an end"))?;
        Ok(Self { id_token, refresh_token: answer.refresh_token, ends })
    }
}

impl Refusal {
    pub(super) fn read(answer: &[u8]) -> Self {
        serde_json::from_slice(answer).unwrap_or_default()
    }

    /// For a person: what the issuer wrote, without what a terminal would obey.
    pub(super) fn text(&self) -> String {
        let of = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
        match (self.error.is_empty(), self.error_description.is_empty()) {
            (true, _) => "without a reason".to_owned(),
            (false, true) => of(&self.error),
            (false, false) => format!("{}: {}", of(&self.error), of(&self.error_description)),
        }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("ends", &self.ends).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answer(claims: &Value) -> Vec<u8> {
        let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims.to_string()));
        json!({"id_token": token, "refresh_token": "r", "access_token": "a"}).to_string().into_bytes()
    }

    #[test]
    fn only_the_token_of_this_login_counts() {
        let expected = Expected { issuer: "https://a", client: "kubectl", nonce: Some("n") };
        let good = json!({"iss": "https://a", "aud": ["x", "kubectl"], "nonce": "n", "exp": 5});
        let tokens = Tokens::read(&answer(&good), expected).expect("good");
        assert_eq!((tokens.ends, tokens.refresh_token.as_deref()), (5, Some("r")));
        assert!(!format!("{tokens:?}").contains("e30"), "no token in a message");
        for (name, value) in
            [("iss", json!("https://b")), ("aud", json!("x")), ("nonce", json!("m")), ("exp", json!(null))]
        {
            let mut bad = good.clone();
            bad[name] = value;
            assert!(Tokens::read(&answer(&bad), expected).is_err(), "{name}");
        }
        assert!(Tokens::read(b"{}", expected).is_err() && Tokens::read(b"<html>", expected).is_err());
        let refusal = Refusal::read(br#"{"error": "invalid_grant", "error_description": "over\u001b[31m"}"#);
        assert_eq!(refusal.text(), "invalid_grant: over[31m");
    }
}
