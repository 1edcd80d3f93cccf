//! What happens where a right is missing, in the words that `/readyz?verbose` and the log show.

use crate::kubernetes::Resource;
use crate::kubernetes::resources::{
    CLAIMS, CONFIG_MAPS, ENDPOINT_SLICES, EVENTS, INGRESS_CLASSES, INGRESSES, NODES, PODS, PRIORITY_CLASSES,
    RUNTIME_CLASSES, SECRETS, SERVICE_CIDRS, SERVICES, STORAGE_CLASSES, VOLUMES,
};
use crate::kubernetes::rights::Access;

/// A right and what is done without it.
struct Fallback {
    resource: Resource,
    /// Empty: to list and watch it.
    patched: &'static str,
    instead: &'static str,
}

const fn read(resource: Resource, instead: &'static str) -> Fallback {
    Fallback { resource, patched: "", instead }
}

const fn patch(subresource: &'static str, instead: &'static str) -> Fallback {
    Fallback { resource: PODS, patched: subresource, instead }
}

const FALLBACKS: [Fallback; 18] = [
    read(PODS, NOT_SYNCED),
    read(SERVICES, NOT_SYNCED),
    read(CONFIG_MAPS, NOT_SYNCED),
    read(SECRETS, NOT_SYNCED),
    read(CLAIMS, NOT_SYNCED),
    read(NODES, "nodes are made up from the pods that run on them"),
    read(VOLUMES, "volumes are made up from the claims that are bound to them"),
    read(STORAGE_CLASSES, "no StorageClass is shown; a claim's class is passed on as it is"),
    read(PRIORITY_CLASSES, "no PriorityClass is shown; pods run on the host without one"),
    read(RUNTIME_CLASSES, "no RuntimeClass is shown; a pod's class is passed on as it is"),
    read(INGRESS_CLASSES, "no IngressClass is shown; an Ingress' class is passed on as it is"),
    read(SERVICE_CIDRS, "the host's service range is found by dry runs"),
    read(ENDPOINT_SLICES, "Services without a selector get their addresses by Endpoints only"),
    read(INGRESSES, "Ingresses stay in the virtual cluster"),
    read(EVENTS, "events of the host are not shown"),
    patch("status", "readiness gates that the tenant sets do not reach the host"),
    patch("ephemeralcontainers", "kubectl debug cannot add containers to a pod"),
    patch("resize", "pods cannot be resized in place"),
];

const NOT_SYNCED: &str = "they stay in the virtual cluster, and nothing that needs them runs";

/// What makes the whole useless: without pods and Services on the host there is nothing to be ready for.
pub fn lacks_essentials(access: &Access) -> Option<String> {
    let lacking = FALLBACKS.iter().take(2).find(|fallback| !fallback.is_granted(access))?;
    Some(format!("{}; see the Role in deploy/sidecar/dev-cluster.yaml", lacking.line()))
}

/// Cluster-scoped resources whose rights are asked for.
pub fn cluster_resources() -> Vec<Resource> {
    FALLBACKS.iter().map(|fallback| fallback.resource).filter(|resource| !resource.namespaced).collect()
}

/// One line for each right that is missing now.
pub fn missing_rights(access: &Access) -> Vec<String> {
    FALLBACKS.iter().filter(|fallback| !fallback.is_granted(access)).map(Fallback::line).collect()
}

impl Fallback {
    fn is_granted(&self, access: &Access) -> bool {
        match self.patched {
            "" => access.read(&self.resource),
            subresource => access.allow("patch", &self.resource, subresource),
        }
    }

    fn line(&self) -> String {
        match self.patched {
            "" => format!("no right to list and watch {}: {}", self.resource.plural, self.instead),
            subresource => format!("no right to patch pods/{subresource}: {}", self.instead),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kubernetes::rights::Rules;

    #[test]
    fn every_missing_right_is_named_with_what_happens_instead() {
        let (_sender, rules) = tokio::sync::watch::channel(Arc::new(Rules::default()));
        let lines = missing_rights(&Access::followed(rules));
        assert_eq!(lines.len(), FALLBACKS.len());
        assert!(lacks_essentials(&Access::granted()).is_none());
        assert!(lines.iter().any(|l| l.contains("nodes") && l.contains("made up")));
        assert!(missing_rights(&Access::granted()).is_empty());
        assert_eq!(cluster_resources().len(), 7);
    }
}
