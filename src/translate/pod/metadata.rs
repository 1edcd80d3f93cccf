//! Metadata of a host pod: what it records of its virtual pod, and fingerprints of what of it was last written.

use serde_json::{Map, Value, json};

use super::super::{View, diff, identity, json};
use super::allowed::tolerations;
use super::env;
use super::images::image;
use super::marks::{ANNOTATIONS, KIND, LABELS, RESOURCES, SERVICE_ACCOUNT, SUBDOMAIN};
use crate::names::Limit;

/// Whole metadata of the host pod, as it should be now.
pub fn metadata(pod: &Value, view: &View) -> Option<Map<String, Value>> {
    let mut metadata = identity::metadata(KIND, pod, view, Limit::Subdomain)?;
    let annotations = json::object(&mut metadata, "annotations");
    annotations.insert(SERVICE_ACCOUNT.to_owned(), json!(service_account(pod)));
    annotations.insert(identity::APPLIED.to_owned(), json!(diff::fingerprint(&mutable(pod, view))));
    annotations.insert(RESOURCES.to_owned(), json!(diff::fingerprint(&resources(pod))));
    let subdomain = json::text(pod, "/spec/subdomain");
    if !subdomain.is_empty() {
        annotations.insert(SUBDOMAIN.to_owned(), json!(subdomain));
    }
    if env::refers_to(pod, "metadata.labels") {
        annotations.insert(LABELS.to_owned(), json!(env::lines(&json::strings(pod, "/metadata/labels"))));
    }
    if env::refers_to(pod, "metadata.annotations") {
        let of_tenant = identity::tenant_annotations(pod);
        annotations.insert(ANNOTATIONS.to_owned(), json!(env::lines(&of_tenant)));
    }
    Some(metadata)
}

/// The service account of a pod.
pub fn service_account(pod: &Value) -> &str {
    match json::text(pod, "/spec/serviceAccountName") {
        "" => "default",
        name => name,
    }
}

/// The part of a virtual pod that can change later and is written by a patch of the pod itself.
fn mutable(pod: &Value, view: &View) -> Value {
    let images = |list: &str| -> Map<String, Value> {
        let containers = json::items(pod, &format!("/spec/{list}")).iter();
        containers.map(|c| (json::text(c, "/name").to_owned(), json!(image(json::text(c, "/image"), view)))).collect()
    };
    json!({
        "images": images("containers"),
        "initImages": images("initContainers"),
        "activeDeadlineSeconds": pod.pointer("/spec/activeDeadlineSeconds"),
        "tolerations": tolerations(pod, view),
        "schedulingGates": json::items(pod, "/spec/schedulingGates"),
    })
}

/// The container resources of a pod.
pub(super) fn resources(pod: &Value) -> Value {
    let list = |list: &str| -> Vec<Value> {
        let containers = json::items(pod, &format!("/spec/{list}")).iter();
        containers.map(|c| Value::Object(json::pick(c, &["name", "resources"]))).collect()
    };
    json!({"containers": list("containers"), "initContainers": list("initContainers")})
}
