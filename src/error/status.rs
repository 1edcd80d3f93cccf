//! `metav1.Status`: the one shape in which every failure leaves Portico.
//!
//! Owns the wire form and its constructors; knows nothing of tenants or HTTP.
//! Source: `k8s.io/apimachinery/pkg/apis/meta/v1` and `pkg/api/errors`.

use serde::{Deserialize, Serialize};

/// A Kubernetes `Status` object (kind and apiVersion are added when it is serialized).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Always `Status`.
    #[serde(default = "kind")]
    pub kind: String,
    /// Always `v1`.
    #[serde(default = "api_version")]
    pub api_version: String,
    /// Empty list metadata; clients expect the field.
    #[serde(default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// `Failure` or `Success`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For programs: `NotFound`, `Forbidden`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What the failure is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    /// HTTP code.
    #[serde(default)]
    pub code: u16,
}

/// `StatusDetails`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Object name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource (plural), by Kubernetes' own convention for errors.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Object uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Causes, each `{reason, message, field}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<serde_json::Value>,
    /// Seconds; a `Retry-After` header accompanies it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

impl Status {
    /// A failure with code, reason and message.
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: kind(),
            api_version: api_version(),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: reason.to_owned(),
            code,
            ..Self::default()
        }
    }

    /// There is no object of this name.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let dot = if group.is_empty() { "" } else { "." };
        let message = format!("{resource}{dot}{group} \"{name}\" not found");
        Self::failure(404, "NotFound", message).about(group, resource, name)
    }

    /// What an API server's answer that is no success says: its Status when the body is one, else the body's text.
    pub fn of_answer(code: u16, body: &[u8]) -> Self {
        let given = serde_json::from_slice::<Self>(body).ok().filter(|s| s.kind == "Status" && s.status == "Failure");
        let text = || Self::failure(code, reason(code), String::from_utf8_lossy(body).trim());
        Self { code, ..given.unwrap_or_else(text) }
    }

    /// Sets the resource and object the failure is about.
    #[must_use]
    pub fn about(mut self, group: &str, resource: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_with(Details::default);
        details.group = group.to_owned();
        details.kind = resource.to_owned();
        details.name = name.to_owned();
        self
    }

    /// Sets `retryAfterSeconds`; the response gains a `Retry-After` header.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_with(Details::default).retry_after_seconds = seconds;
        self
    }

    /// JSON bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn kind() -> String {
    "Status".to_owned()
}

fn api_version() -> String {
    "v1".to_owned()
}

/// `StatusReason` for a code that comes without one.
fn reason(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        406 => "NotAcceptable",
        409 => "Conflict",
        410 => "Gone",
        413 => "RequestEntityTooLarge",
        415 => "UnsupportedMediaType",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serializes_like_kubernetes() {
        let status = Status::failure(404, "NotFound", "pods \"x\" not found").about("", "pods", "x");
        let json: serde_json::Value = serde_json::from_slice(&status.to_json()).expect("json");
        assert_eq!(
            json,
            serde_json::json!({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
              "message":"pods \"x\" not found","reason":"NotFound","details":{"name":"x","kind":"pods"},"code":404})
        );
    }
}
