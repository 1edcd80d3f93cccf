//! Volumes: the downward API's fields, and service-account tokens, which come from a Secret on the host.

use serde_json::{Map, Value, json};

use super::super::json;
use super::Token;
use super::env;

/// Lifetime when the source names none: Kubernetes' own default.
const DEFAULT_EXPIRATION: u64 = 3600;
/// What a token file has on a real cluster.
const TOKEN_MODE: u32 = 0o644;

fn token_key(volume: usize, source: usize) -> String {
    format!("token-{volume}-{source}")
}

/// The tokens that the volumes of a pod project.
pub(super) fn tokens(pod: &Value) -> Vec<Token> {
    let mut out = Vec::new();
    for (v, volume) in json::items(pod, "/spec/volumes").iter().enumerate() {
        for (s, source) in json::items(volume, "/projected/sources").iter().enumerate() {
            let Some(token) = source.get("serviceAccountToken").filter(|t| t.is_object()) else { continue };
            let seconds = token.get("expirationSeconds").and_then(Value::as_u64).unwrap_or(DEFAULT_EXPIRATION);
            out.push(Token {
                key: token_key(v, s),
                audience: json::text(token, "/audience").to_owned(),
                expiration_seconds: seconds.max(600),
            });
        }
    }
    out
}

/// Rewrites what of volumes is no plain reference.
pub(super) fn translate(spec: &mut Map<String, Value>, pod: &Value, token_secret: &str) {
    let _ = pod;
    let mut v = 0;
    if let Some(Value::Array(volumes)) = spec.get_mut("volumes") {
        for volume in volumes {
            if let Value::Object(volume) = volume {
                json::within(volume, "downwardAPI", |source| json::each(source, "items", env::map_field));
                json::within(volume, "projected", |projected| sources(projected, v, token_secret));
            }
            v += 1;
        }
    }
}

fn sources(projected: &mut Map<String, Value>, v: usize, token_secret: &str) {
    let Some(Value::Array(sources)) = projected.get_mut("sources") else { return };
    for (s, source) in sources.iter_mut().enumerate() {
        let Value::Object(source) = source else { continue };
        json::within(source, "downwardAPI", |api| json::each(api, "items", env::map_field));
        if let Some(Value::Object(token)) = source.get("serviceAccountToken") {
            let path = token.get("path").and_then(Value::as_str).unwrap_or("token").to_owned();
            let items = json!([{"key": token_key(v, s), "path": path, "mode": TOKEN_MODE}]);
            source.remove("serviceAccountToken");
            source.insert("secret".to_owned(), json!({"name": token_secret, "items": items, "optional": false}));
        }
    }
}
