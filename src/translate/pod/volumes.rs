//! Volumes: the downward API's fields, and service-account tokens, which come from a Secret on the host.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::{View, json};
use super::env;

/// Lifetime when the source names none: Kubernetes' own default.
const DEFAULT_EXPIRATION: u64 = 3600;
/// What a token file has on a real cluster.
const TOKEN_MODE: u32 = 0o644;

/// One projected service-account token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSpec {
    /// Key in the Secret.
    pub key: String,
    /// Audience; empty means the API server's own.
    pub audience: String,
    /// Seconds; at least 600.
    pub expiration_seconds: u64,
}

fn token_key(volume: usize, source: usize) -> String {
    format!("token-{volume}-{source}")
}

/// Places of the volume and of its source that a key in a token Secret is for.
pub(in crate::translate) fn token_place(key: &str) -> Option<(usize, usize)> {
    let (volume, source) = key.strip_prefix("token-")?.split_once('-')?;
    let place = (volume.parse().ok()?, source.parse().ok()?);
    (token_key(place.0, place.1) == key).then_some(place)
}

/// What a token Secret was made for, as text: `POD-UID ACCOUNT KEY=AUDIENCE@SECONDS,…`. Another text makes it anew.
pub fn token_spec<'a>(
    pod_uid: &str,
    service_account: &str,
    tokens: impl Iterator<Item = (&'a str, &'a str, u64)>,
) -> String {
    let tokens: Vec<String> = tokens.map(|(key, audience, seconds)| format!("{key}={audience}@{seconds}")).collect();
    format!("{pod_uid} {service_account} {}", tokens.join(","))
}

/// Audience and seconds of each token in such a text, by key. Audiences may hold any of its separators.
pub(in crate::translate) fn tokens_of_spec(spec: &str) -> BTreeMap<&str, (String, u64)> {
    let mut texts: Vec<(&str, String)> = Vec::new();
    for piece in spec.splitn(3, ' ').nth(2).unwrap_or_default().split(',') {
        match piece.split_once('=').filter(|(key, _)| token_place(key).is_some()) {
            Some((key, text)) => texts.push((key, text.to_owned())),
            None => texts.last_mut().into_iter().for_each(|(_, text)| text.extend([",", piece])),
        }
    }
    let mut out = BTreeMap::new();
    for (key, text) in texts {
        if let Some((audience, seconds)) = text.rsplit_once('@')
            && let Ok(seconds) = seconds.parse()
        {
            out.insert(key, (audience.to_owned(), seconds));
        }
    }
    out
}

/// The tokens that the volumes of a pod project.
pub(super) fn tokens(pod: &Value) -> Vec<TokenSpec> {
    let mut out = Vec::new();
    for (v, volume) in json::items(pod, "/spec/volumes").iter().enumerate() {
        for (s, source) in json::items(volume, "/projected/sources").iter().enumerate() {
            let Some(token) = source.get("serviceAccountToken").filter(|t| t.is_object()) else { continue };
            let seconds = token.get("expirationSeconds").and_then(Value::as_u64).unwrap_or(DEFAULT_EXPIRATION);
            out.push(TokenSpec {
                key: token_key(v, s),
                audience: json::text(token, "/audience").to_owned(),
                expiration_seconds: seconds.max(600),
            });
        }
    }
    out
}

/// How many tokens they project.
pub(super) fn count_tokens(pod: &Value) -> usize {
    let sources = json::items(pod, "/spec/volumes").iter().flat_map(|v| json::items(v, "/projected/sources"));
    sources.filter(|source| source.get("serviceAccountToken").is_some_and(Value::is_object)).count()
}

/// Rewrites what of volumes is no plain reference.
pub(super) fn translate(spec: &mut Map<String, Value>, token_secret: &str, view: &View) {
    let mut v = 0;
    if let Some(Value::Array(volumes)) = spec.get_mut("volumes") {
        for volume in volumes {
            if let Value::Object(volume) = volume {
                json::within(volume, "downwardAPI", |source| {
                    json::each(source, "items", |item| env::map_field(item, view));
                });
                json::within(volume, "projected", |projected| sources(projected, v, token_secret, view));
            }
            v += 1;
        }
    }
}

fn sources(projected: &mut Map<String, Value>, v: usize, token_secret: &str, view: &View) {
    let Some(Value::Array(sources)) = projected.get_mut("sources") else { return };
    for (s, source) in sources.iter_mut().enumerate() {
        let Value::Object(source) = source else { continue };
        json::within(source, "downwardAPI", |api| json::each(api, "items", |item| env::map_field(item, view)));
        if let Some(Value::Object(token)) = source.get("serviceAccountToken") {
            let path = token.get("path").and_then(Value::as_str).unwrap_or("token").to_owned();
            let items = json!([{"key": token_key(v, s), "path": path, "mode": TOKEN_MODE}]);
            source.remove("serviceAccountToken");
            source.insert("secret".to_owned(), json!({"name": token_secret, "items": items, "optional": false}));
        }
    }
}
