//! One VirtualCluster as the phases see it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::crd::{self, VirtualCluster, VirtualClusterSpec};
use crate::error::{Error, Kind, Result};
use crate::names::{TenantId, keys};

/// Annotation of a VirtualCluster: with the value `now` it takes part in no wave. Its updates come at once, and it holds
/// up nobody.
const PUSH: &str = "portico.dev/rollout";
/// A VirtualCluster whose name is valid.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub id: TenantId,
    pub uid: String,
    pub generation: i64,
    /// It is on its way out: nothing more is made for it.
    pub is_leaving: bool,
    /// A person wants it to take part in no wave of updates.
    pub is_pushed: bool,
    pub spec: VirtualClusterSpec,
    pub status: crd::VirtualClusterStatus,
}

impl Cluster {
    /// From the watched object.
    pub(crate) fn new(object: &VirtualCluster) -> Result<Self> {
        let metadata = &object.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let name = metadata.name.as_deref().unwrap_or_default();
        let id = TenantId::parse(namespace, name)
            .map_err(|e| Error::client(Kind::Invalid, format!("the name cannot be used: {e}")).because(e))?;
        Ok(Self {
            id,
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            is_leaving: metadata.deletion_timestamp.is_some(),
            is_pushed: is_pushed(metadata.annotations.as_ref()),
            spec: object.spec.clone(),
            status: object.status.clone().unwrap_or_default(),
        })
    }

    /// Host namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.id.namespace().as_str()
    }

    /// Name.
    pub(crate) fn name(&self) -> &str {
        self.id.name().as_str()
    }

    /// Name of the PKI Secret.
    pub(crate) fn pki_secret(&self) -> String {
        format!("{}-pki", self.name())
    }

    /// Name of the kubeconfig Secret.
    pub(crate) fn kubeconfig_secret(&self) -> String {
        format!("vc-{}", self.name())
    }

    /// Name that the backend's certificate carries: `{name}.{ns}.svc`.
    pub(crate) fn server_name(&self) -> String {
        format!("{}.{}.svc", self.name(), self.namespace())
    }

    /// Metadata of an object in the host namespace: owned by the VirtualCluster, so that it goes with it.
    pub(crate) fn metadata(&self, name: &str) -> Value {
        json!({
            "name": name,
            "namespace": self.namespace(),
            "labels": {
                keys::CONTROL_PLANE: self.name(),
                "app.kubernetes.io/name": "virtual-cluster",
                "app.kubernetes.io/instance": self.name(),
                "app.kubernetes.io/managed-by": "portico",
            },
            "ownerReferences": [{
                "apiVersion": format!("{}/v1alpha1", crd::GROUP),
                "kind": "VirtualCluster",
                "name": self.name(),
                "uid": self.uid,
                "controller": true,
                "blockOwnerDeletion": false,
            }],
        })
    }
}

/// Whether a person has taken this VirtualCluster out of the waves.
fn is_pushed(annotations: Option<&BTreeMap<String, String>>) -> bool {
    annotations.and_then(|all| all.get(PUSH)).is_some_and(|value| value == "now")
}
