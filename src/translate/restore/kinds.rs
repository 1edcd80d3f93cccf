//! The kinds that come back, as [`OBJECT_KIND`](crate::names::keys::OBJECT_KIND) names them.

use super::super::{pod, service};
use crate::names::Limit;

/// Kinds in the order in which they are best restored: what is named comes before what names it.
pub const KINDS: &[&str] = &[CLAIM, CONFIG_MAP, SECRET, SERVICE, ENDPOINTS, SLICE, INGRESS, POD];

pub(super) const POD: &str = pod::KIND;
pub(super) const SERVICE: &str = service::KIND;
pub(super) const CLAIM: &str = "PersistentVolumeClaim";
pub(super) const CONFIG_MAP: &str = "ConfigMap";
pub(super) const SECRET: &str = "Secret";
pub(super) const ENDPOINTS: &str = "Endpoints";
pub(super) const SLICE: &str = "discovery.k8s.io/EndpointSlice";
pub(super) const INGRESS: &str = "networking.k8s.io/Ingress";

/// The kind as it is written here, and the limit of its host names.
pub(super) fn known(kind: &str) -> Option<(&'static str, Limit)> {
    let kind = KINDS.iter().find(|known| **known == kind)?;
    Some((kind, if matches!(*kind, SERVICE | ENDPOINTS) { Limit::Label } else { Limit::Subdomain }))
}
