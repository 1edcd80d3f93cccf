//! A virtual object's own metadata: name, labels and annotations that came from the tenant.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::{identity, json, labels};
use super::back::{Back, is_adopted};
use super::origin::Fields;

/// Which keys are the tenant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// As the copy records itself: kinds that are updated by patches.
    Annotated,
    /// As the host's API server records it: kinds that are applied whole. Without that record all but the reserved ones.
    Applied,
}

/// Labels that vcluster put on its copies; they stay there while a pod reads them.
const OF_VCLUSTER: &str = "vcluster.loft.sh/";

/// Everything of a virtual object's metadata that its copy tells.
pub(super) fn restore(host: &Value, record: Record, back: &mut Back<'_>) -> Map<String, Value> {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(back.name));
    metadata.insert("namespace".to_owned(), json!(back.namespace));
    let mut own = Map::new();
    let tenants = Tenants::of(host, "labels", record);
    for (key, value) in json::strings(host, "/metadata/labels") {
        let Some(own_key) = labels::own_key(&key).filter(|_| tenants.has(&key)) else { continue };
        let original = labels::original(&own_key, &value, back.view).unwrap_or_else(|| {
            back.lost.push(format!("label {key}: its value on the host is not one that the tenant can have given it"));
            &value
        });
        own.insert(own_key, json!(original));
    }
    let tenants = Tenants::of(host, "annotations", record);
    let annotations = json::strings(host, "/metadata/annotations").into_iter().filter(|(key, _)| tenants.has(key));
    let annotations: Map<String, Value> = annotations
        .filter_map(|(key, value)| Some((labels::own_key(&key)?, json!(value))))
        .filter(|(key, _)| !identity::is_dropped_annotation(key))
        .collect();
    for (field, map) in [("labels", own), ("annotations", annotations)] {
        if !map.is_empty() {
            metadata.insert(field.to_owned(), Value::Object(map));
        }
    }
    metadata
}

/// The keys of labels or annotations that came from the tenant.
struct Tenants<'a> {
    listed: Option<BTreeSet<&'a str>>,
    adopted: bool,
}

impl<'a> Tenants<'a> {
    fn of(host: &'a Value, field: &str, record: Record) -> Self {
        let listed = match record {
            Record::Annotated => {
                let listed = if field == "labels" { identity::LABEL_KEYS } else { identity::ANNOTATION_KEYS };
                Some(identity::annotation(host, listed).split(',').collect())
            }
            Record::Applied => Fields::of(host).at("metadata").at(field).keys(),
        };
        Self { listed, adopted: is_adopted(host) }
    }

    fn has(&self, key: &str) -> bool {
        let left = self.adopted && key.starts_with(OF_VCLUSTER);
        !left && self.listed.as_ref().is_none_or(|listed| listed.contains(key))
    }
}
