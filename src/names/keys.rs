//! Keys of labels and annotations that are Portico's alone. Tenant objects lose everything under `portico.dev/` and
//! `*.portico.dev/` on their way to the host.

/// Label on every host object made for a tenant: the VirtualCluster's name.
pub const CLUSTER: &str = "portico.dev/cluster";
/// Label: the virtual namespace (absent on cluster-scoped origins).
pub const NAMESPACE: &str = "portico.dev/namespace";
/// Label on control-plane objects: the VirtualCluster's name. Never on synced objects, so selectors cannot be joined by tenants.
pub const CONTROL_PLANE: &str = "portico.dev/control-plane";
/// Label on objects in Portico's own namespace that serve one tenant: the tenant's host namespace.
pub const HOST_NAMESPACE: &str = "portico.dev/host-namespace";
/// Annotation: virtual object's name.
pub const OBJECT_NAME: &str = "portico.dev/object-name";
/// Annotation: virtual object's namespace.
pub const OBJECT_NAMESPACE: &str = "portico.dev/object-namespace";
/// Annotation: virtual object's uid.
pub const OBJECT_UID: &str = "portico.dev/object-uid";
/// Annotation: virtual object's kind, `group/Kind` (core: `Kind`).
pub const OBJECT_KIND: &str = "portico.dev/object-kind";
/// Annotation on a host Service made by the gateway before the virtual one exists: RFC 3339 time of the attempt.
pub const PENDING: &str = "portico.dev/pending-since";
/// Annotation on a VirtualCluster (or on the ConfigMap that stands for it): `adopt:{found}` or `discard:{found}`, a
/// person's decision about the hold whose `found` it names.
pub const RECOVER: &str = "portico.dev/recover";
/// Label on a claim that was let go with a lost store: the VirtualCluster's name.
pub const ABANDONED: &str = "portico.dev/abandoned";
/// Annotation beside it: RFC 3339 time of its deletion.
pub const DELETE_AFTER: &str = "portico.dev/delete-after";
/// Label on the kubeconfig Secret of the sidecar form: the cluster's name.
pub const SIDECAR: &str = "portico.dev/sidecar";
/// Annotation on a kubeconfig Secret of the sidecar form: names and IPs in the serving certificate, comma-separated.
pub const CERTIFICATE_NAMES: &str = "portico.dev/certificate-names";
/// Field manager of all server-side applies.
pub const FIELD_MANAGER: &str = "portico";

/// Whether a label or annotation key belongs to Portico.
pub fn is_reserved(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else { return false };
    prefix == "portico.dev" || prefix.ends_with(".portico.dev")
}
