//! Where names of other objects stand inside a pod: one walk, by which they are found, counted and renamed.

use serde_json::{Map, Value};

use super::super::json;
use crate::names::Limit;

/// Kind of object that a pod names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Referenced {
    /// ConfigMap.
    ConfigMap,
    /// Secret.
    Secret,
    /// PersistentVolumeClaim.
    Claim,
    /// Endpoints (glusterfs).
    Endpoints,
}

impl Referenced {
    /// Kind name as registered.
    pub fn kind(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::Claim => "PersistentVolumeClaim",
            Self::Endpoints => "Endpoints",
        }
    }

    /// Limit of its names.
    pub fn limit(self) -> Limit {
        if self == Self::Endpoints { Limit::Label } else { Limit::Subdomain }
    }
}

/// Volume sources that name a Secret in `secretRef.name`.
const SECRET_REFS: &[&str] = &["iscsi", "rbd", "flexVolume", "cinder", "cephfs", "scaleIO", "storageos"];

/// How often a pod names anything, ephemeral containers left out.
pub(super) fn count(pod: &Value) -> usize {
    let mut count = 0;
    look(pod, 0, &mut |_, _| count += 1);
    count
}

/// How often one container names anything.
pub(super) fn count_in_container(container: &Value) -> usize {
    let mut copy = container.as_object().cloned().unwrap_or_default();
    let mut count = 0;
    in_container(&mut copy, &mut |_, name| {
        count += 1;
        name.to_owned()
    });
    count
}

/// Each name in a pod's spec; of its ephemeral containers that many.
pub(super) fn look(pod: &Value, ephemeral: usize, found: &mut dyn FnMut(Referenced, &str)) {
    let mut spec = pod.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(Value::Array(containers)) = spec.get_mut("ephemeralContainers") {
        containers.truncate(ephemeral);
    }
    walk(&mut spec, json::name(pod), &mut |kind, name| {
        found(kind, name);
        name.to_owned()
    });
}

/// From the kind and the name that stands there to the name that shall.
pub(in crate::translate) type Rename<'a> = dyn FnMut(Referenced, &str) -> String + 'a;

/// Each name in a pod's spec, changed as `rename` says.
pub(super) fn walk(spec: &mut Map<String, Value>, pod_name: &str, rename: &mut Rename<'_>) {
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        json::each(spec, list, |container| in_container(container, rename));
    }
    json::each(spec, "imagePullSecrets", |secret| named(secret, "name", Referenced::Secret, rename));
    json::each(spec, "volumes", |volume| in_volume(volume, pod_name, rename));
}

fn named(map: &mut Map<String, Value>, field: &str, kind: Referenced, rename: &mut Rename<'_>) {
    json::rename(map, field, |name| rename(kind, name));
}

/// The same in one container.
pub(super) fn in_container(container: &mut Map<String, Value>, rename: &mut Rename<'_>) {
    json::each(container, "env", |variable| {
        json::within(variable, "valueFrom", |from| {
            json::within(from, "configMapKeyRef", |r| named(r, "name", Referenced::ConfigMap, rename));
            json::within(from, "secretKeyRef", |r| named(r, "name", Referenced::Secret, rename));
        });
    });
    json::each(container, "envFrom", |source| {
        json::within(source, "configMapRef", |r| named(r, "name", Referenced::ConfigMap, rename));
        json::within(source, "secretRef", |r| named(r, "name", Referenced::Secret, rename));
    });
}

fn in_volume(volume: &mut Map<String, Value>, pod_name: &str, rename: &mut Rename<'_>) {
    json::within(volume, "configMap", |s| named(s, "name", Referenced::ConfigMap, rename));
    json::within(volume, "secret", |s| named(s, "secretName", Referenced::Secret, rename));
    json::within(volume, "azureFile", |s| named(s, "secretName", Referenced::Secret, rename));
    json::within(volume, "persistentVolumeClaim", |s| named(s, "claimName", Referenced::Claim, rename));
    json::within(volume, "glusterfs", |s| named(s, "endpoints", Referenced::Endpoints, rename));
    json::within(volume, "csi", |csi| {
        json::within(csi, "nodePublishSecretRef", |r| named(r, "name", Referenced::Secret, rename));
    });
    for source in SECRET_REFS {
        json::within(volume, source, |s| {
            json::within(s, "secretRef", |r| named(r, "name", Referenced::Secret, rename));
        });
    }
    json::within(volume, "projected", |projected| {
        json::each(projected, "sources", |source| {
            json::within(source, "configMap", |s| named(s, "name", Referenced::ConfigMap, rename));
            json::within(source, "secret", |s| named(s, "name", Referenced::Secret, rename));
        });
    });
    if volume.get("ephemeral").is_some_and(Value::is_object) {
        volume.remove("ephemeral");
        let name = volume.get("name").and_then(Value::as_str).unwrap_or_default();
        let claim = rename(Referenced::Claim, &format!("{pod_name}-{name}"));
        volume.insert("persistentVolumeClaim".to_owned(), serde_json::json!({"claimName": claim}));
    }
}
