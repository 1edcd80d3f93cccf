//! What there is in the group, as metrics-server says it.

use bytes::Bytes;
use serde_json::json;

pub(super) const GROUP: &str = "metrics.k8s.io";
pub(super) const VERSION: &str = "v1beta1";
/// The paths of the group and of its version.
pub(super) const GROUP_PATH: &str = "/apis/metrics.k8s.io";
pub(super) const VERSION_PATH: &str = "/apis/metrics.k8s.io/v1beta1";
/// The value of `apiVersion`.
pub(super) const API_VERSION: &str = "metrics.k8s.io/v1beta1";

pub(super) fn group() -> Bytes {
    let version = json!({"groupVersion": API_VERSION, "version": VERSION});
    let group = json!({"kind": "APIGroup", "apiVersion": "v1", "name": GROUP,
        "versions": [version], "preferredVersion": version});
    group.to_string().into()
}

pub(super) fn resources() -> Bytes {
    let resource = |name: &str, kind: &str, is_namespaced: bool| json!({"name": name, "singularName": "", "namespaced": is_namespaced, "kind": kind, "verbs": ["get", "list"]});
    let resources = [resource("nodes", "NodeMetrics", false), resource("pods", "PodMetrics", true)];
    let list =
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": resources});
    list.to_string().into()
}
