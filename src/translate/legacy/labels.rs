//! The labels and annotations of vcluster's, what Portico adds to them at the adoption, and which of them an adopted pod
//! keeps because it reads them.

use std::collections::BTreeSet;

use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::super::pod::env;
use super::super::{View, identity, json};
use crate::names;

/// Label on every object that vcluster made: the cluster's name.
pub const MANAGED_BY: &str = "vcluster.loft.sh/managed-by";
/// Annotation of pods: what their downward API shows as labels.
pub(super) const SHOWN_LABELS: &str = "vcluster.loft.sh/labels";
/// What all its labels and annotations begin with.
pub(super) const PREFIX: &str = "vcluster.loft.sh/";
/// Annotation on everything that was adopted: from what.
pub const ADOPTED: &str = "portico.dev/adopted";
/// Annotation on an adopted pod: `Kind/host name` of what it uses and its virtual pod does not name, comma-separated.
pub const ALSO_USES: &str = "portico.dev/also-uses";

/// Keeps what an adopted pod reads of its own labels as vcluster kept it: hashed keys, and all of them as one annotation.
pub fn keep_current(wanted: &mut Map<String, Value>, pod: &Value, host: &Value, view: &View) {
    let of_tenant = json::strings(pod, "/metadata/labels");
    for (key, value) in &of_tenant {
        if let Some(old) = label_key(key, view).filter(|old| has(host, "labels", old)) {
            json::object(wanted, "labels").insert(old, json!(value));
        }
    }
    if has(host, "annotations", SHOWN_LABELS) && !has(pod, "annotations", SHOWN_LABELS) {
        let (shown, now) = (identity::annotation(host, SHOWN_LABELS), env::lines(&of_tenant));
        // It was written in any order; another order is no change that a pod should be told of.
        let same = shown.lines().collect::<BTreeSet<_>>() == now.lines().collect();
        let kept = if same { shown.to_owned() } else { now };
        json::object(wanted, "annotations").insert(SHOWN_LABELS.to_owned(), json!(kept));
    }
}

/// The key under which vcluster put a tenant's label on the host.
pub(super) fn label_key(key: &str, view: &View) -> Option<String> {
    let digest = HEXLOWER.encode(&Sha256::digest(key)[..5]);
    names::legacy_shortened(&format!("vcluster.loft.sh/label-{}-x-{digest}", view.cluster()))
}

fn has(object: &Value, map: &str, key: &str) -> bool {
    object.pointer("/metadata").and_then(|m| m.get(map)).is_some_and(|m| m.get(key).is_some())
}
