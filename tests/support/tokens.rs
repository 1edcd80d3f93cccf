//! Keys of API servers, and tokens by them: as honest or as hostile as a test wants.
#![allow(dead_code, unreachable_pub, clippy::expect_used)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// All virtual clusters have the same.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
pub const CONFIGURATION: &str = "/.well-known/openid-configuration";
pub const SET: &str = "/openid/v1/jwks";

/// Where the length of the modulus of a public key of 2048 bits ends in its DER, and the number itself.
const MODULUS: std::ops::Range<usize> = 9..265;

/// One signing key.
pub struct Key {
    pub id: String,
    algorithm: &'static str,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
}

impl Key {
    pub fn rsa() -> Self {
        Self::new("RS256", Pair::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"))))
    }

    /// What a control plane of Portico's has.
    pub fn ec() -> Self {
        Self::new("ES256", Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key")))
    }

    pub fn long_ec() -> Self {
        Self::new("ES384", Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key")))
    }

    fn new(algorithm: &'static str, pair: Pair) -> Self {
        let mut key = Self { id: String::new(), algorithm, pair };
        key.id = encode(digest::digest(&digest::SHA256, key.public()));
        key
    }

    /// As it is published: DER, or the point itself.
    pub fn public(&self) -> &[u8] {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref(),
            Pair::Ec(pair) => pair.public_key().as_ref(),
        }
    }

    /// As an API server publishes it.
    pub fn published(&self) -> Value {
        let public = self.public();
        let mut key = json!({"use": "sig", "kid": self.id, "alg": self.algorithm});
        match &self.pair {
            Pair::Rsa(_) => {
                key["kty"] = json!("RSA");
                key["n"] = json!(encode(&public[MODULUS]));
                key["e"] = json!("AQAB");
            }
            Pair::Ec(_) => {
                let (x, y) = public[1..].split_at((public.len() - 1) / 2);
                key["kty"] = json!("EC");
                key["crv"] = json!(if x.len() == 32 { "P-256" } else { "P-384" });
                key["x"] = json!(encode(x));
                key["y"] = json!(encode(y));
            }
        }
        key
    }

    pub fn head(&self) -> Value {
        json!({"alg": self.algorithm, "kid": self.id})
    }

    pub fn sign(&self, message: &str) -> String {
        let (random, message) = (SystemRandom::new(), message.as_bytes());
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("signed");
                encode(signature)
            }
            Pair::Ec(pair) => encode(pair.sign(&random, message).expect("signed")),
        }
    }

    /// Head and claims as they are written, signed.
    pub fn written(&self, head: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(head), encode(claims));
        format!("{message}.{}", self.sign(&message))
    }

    pub fn token(&self, head: &Value, claims: &Value) -> String {
        self.written(&head.to_string(), &claims.to_string())
    }

    /// A good one.
    pub fn of(&self, claims: &Value) -> String {
        self.token(&self.head(), claims)
    }
}

/// What a good one of `default/NAME` says, good for an hour from `now` on, in seconds.
pub fn claims(name: &str, now: i64) -> Value {
    json!({
        "iss": ISSUER, "sub": format!("system:serviceaccount:default:{name}"), "aud": [ISSUER],
        "iat": now, "nbf": now, "exp": now + 3600,
        "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": name, "uid": "1"}},
    })
}

/// With some claims otherwise, and without those that are null.
pub fn but(mut claims: Value, others: &Value) -> Value {
    for (name, value) in others.as_object().expect("an object") {
        claims[name] = value.clone();
        if value.is_null() {
            claims.as_object_mut().expect("an object").remove(name);
        }
    }
    claims
}

/// Both documents of an API server with these keys.
pub fn documents(keys: &[&Key]) -> [Value; 2] {
    let keys: Vec<_> = keys.iter().map(|key| key.published()).collect();
    [json!({"issuer": ISSUER, "jwks_uri": "https://elsewhere.example.com/keys"}), json!({"keys": keys})]
}

/// Signed as if the public key were a secret.
pub fn by_secret(secret: &[u8], head: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", encode(head.to_string()), encode(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", encode(tag))
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
