//! Keys of labels and annotations that are Portico's alone. Tenant objects lose everything under `portico.dev/` and
//! `*.portico.dev/` on their way to the host.

use std::borrow::Cow;

/// Label on every host object made for a tenant: the VirtualCluster's name.
pub const CLUSTER: &str = "portico.dev/cluster";
/// Label: the virtual namespace (absent on cluster-scoped origins).
pub const NAMESPACE: &str = "portico.dev/namespace";
/// Label on control-plane objects: the VirtualCluster's name. Never on synced objects, so selectors cannot be joined by tenants.
pub const CONTROL_PLANE: &str = "portico.dev/control-plane";
/// Label on objects in Portico's own namespace that serve one tenant: the tenant's host namespace.
pub const HOST_NAMESPACE: &str = "portico.dev/host-namespace";
/// Label on a NetworkPolicy that opens pods behind a Service to the outside: the Service's name on the host.
pub const EXPOSES: &str = "portico.dev/exposes";
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
/// Label on a Secret of `spec.kubeconfigs`, and on a binding that goes with it inside: the VirtualCluster's name.
pub const KUBECONFIG: &str = "portico.dev/kubeconfig";
/// Annotation that a user gives a pod: the trace (W3C `traceparent`) of which its way through the syncer is a part.
pub const TRACEPARENT: &str = "portico.dev/traceparent";
/// Field manager of all server-side applies.
pub const FIELD_MANAGER: &str = "portico";

/// Ends the prefix of a tenant's label or annotation that stands on the host where no controller of the host looks for it.
const OF_TENANT: &str = "tenant.portico.dev";
/// Longest prefix of a key.
const LONGEST_PREFIX: usize = 253;

/// Where a tenant's key stands on the host that must not mean there what it means: `PREFIX.tenant.portico.dev/NAME`, or
/// `tenant.portico.dev/NAME`. None when that is too long for a key. Different keys stay different.
pub fn moved(key: &str) -> Option<String> {
    match key.split_once('/') {
        Some((prefix, name)) if prefix.len() + 1 + OF_TENANT.len() <= LONGEST_PREFIX => {
            Some(format!("{prefix}.{OF_TENANT}/{name}"))
        }
        Some(_) => None,
        None => Some(format!("{OF_TENANT}/{key}")),
    }
}

/// The tenant's key, when this is where [`moved`] puts one.
pub fn unmoved(key: &str) -> Option<String> {
    let (prefix, name) = key.split_once('/')?;
    match prefix.strip_suffix(OF_TENANT)? {
        "" => Some(name.to_owned()),
        own => Some(format!("{}/{name}", own.strip_suffix('.')?)),
    }
}

/// The tenant's key behind a key on the host, moved or not.
pub fn own(on_host: &str) -> Cow<'_, str> {
    unmoved(on_host).map_or(Cow::Borrowed(on_host), Cow::Owned)
}

/// Whether a key on the host is one of Portico's own marks there.
pub fn is_mark(key: &str) -> bool {
    is_reserved(key) && unmoved(key).is_none()
}

/// Whether a label or annotation key belongs to Portico.
pub fn is_reserved(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else { return false };
    prefix == "portico.dev" || prefix.ends_with(".portico.dev")
}
