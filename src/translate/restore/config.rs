//! ConfigMaps, Secrets and PersistentVolumeClaims on the way back.

use serde_json::{Map, Value, json};

use super::super::{identity, json};
use super::back::{Back, is_adopted};
use super::kinds::{CLAIM, SECRET};
use super::metadata::{self, Record};
use crate::names::keys;

/// Annotations of volume controllers that make a claim with a volume count as bound.
const BOUND: &[&str] = &[
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
];
/// Annotations of the host's controllers on a claim that mean nothing elsewhere.
const OF_HOST: &[&str] = &["volume.kubernetes.io/selected-node", "volume.kubernetes.io/storage-resizer"];

/// A ConfigMap or a Secret.
pub(super) fn plain(host: &Value, back: &mut Back<'_>) -> Map<String, Value> {
    let mut object = json::pick(host, &["data", "binaryData", "immutable"]);
    if identity::annotation(host, keys::OBJECT_KIND) == SECRET {
        let kind = json::text(host, "/type");
        object.insert("type".to_owned(), json!(if kind.is_empty() { "Opaque" } else { kind }));
    }
    object.insert("metadata".to_owned(), Value::Object(metadata::restore(host, Record::Applied, back)));
    object
}

/// A claim, bound to the volume that its copy is bound to: the tenant is shown that volume under the same name.
pub(super) fn claim(host: &Value, back: &mut Back<'_>) -> Map<String, Value> {
    let source = host.get("spec").unwrap_or(&Value::Null);
    let fields = ["accessModes", "resources", "storageClassName", "volumeMode", "selector", "volumeName"];
    let mut spec = json::pick(source, &fields);
    let is_bound = !json::text(source, "/volumeName").is_empty();
    for field in ["dataSource", "dataSourceRef"] {
        let Some(data) = source.get(field).filter(|data| data.is_object()) else { continue };
        match data_source(data, host, back) {
            Some(own) => drop(spec.insert(field.to_owned(), own)),
            None => back.lose(format!("spec.{field}: what it was made from is not of this tenant")),
        }
    }
    let mut metadata = metadata::restore(host, Record::Applied, back);
    let annotations = json::object(&mut metadata, "annotations");
    annotations.retain(|key, _| !BOUND.contains(&key.as_str()) && !OF_HOST.contains(&key.as_str()));
    for key in BOUND.iter().filter(|_| is_bound) {
        let value = identity::annotation(host, key);
        if !value.is_empty() {
            annotations.insert((*key).to_owned(), json!(value));
        }
    }
    let mut object = Map::new();
    object.insert("metadata".to_owned(), Value::Object(metadata));
    object.insert("spec".to_owned(), Value::Object(spec));
    object
}

/// Only claims cross. What vcluster let cross beside them stays as it is: such a claim is written no more.
fn data_source(data: &Value, host: &Value, back: &Back<'_>) -> Option<Value> {
    if json::text(data, "/kind") != CLAIM {
        return is_adopted(host).then(|| data.clone());
    }
    let own = back.reference(CLAIM, json::text(data, "/name"))?;
    Some(json!({"kind": CLAIM, "name": own}))
}
