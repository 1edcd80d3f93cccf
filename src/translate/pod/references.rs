//! Names of other objects inside a pod: found, and renamed to their host names.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::super::{View, identity, json};
use super::crossing::crossing;
use super::walk::{in_container, look, walk};

pub use super::walk::Referenced;
pub(in crate::translate) use super::walk::Rename;

/// Everything that a pod names, without doubles; of ephemeral containers those that cross.
pub fn of(pod: &Value) -> BTreeSet<(Referenced, String)> {
    let mut found = BTreeSet::new();
    look(pod, crossing(pod), &mut |kind, name| {
        found.insert((kind, name.to_owned()));
    });
    found
}

/// Renames everything that the pod's spec names; ephemeral volumes become references to the claim that the tenant's
/// controller makes for them.
pub fn rename(spec: &mut Map<String, Value>, pod: &Value, view: &View) {
    let namespace = json::namespace(pod);
    walk(spec, json::name(pod), &mut |kind, name| {
        identity::reference(kind.kind(), namespace, name, view, kind.limit())
    });
}

/// Renames everything that the pod's spec names as `rename` says.
pub(in crate::translate) fn rename_with(spec: &mut Map<String, Value>, pod_name: &str, rename: &mut Rename<'_>) {
    walk(spec, pod_name, rename);
}

/// Renames what one container names.
pub fn rename_in_container(container: &mut Map<String, Value>, namespace: &str, view: &View) {
    in_container(container, &mut |kind, name| identity::reference(kind.kind(), namespace, name, view, kind.limit()));
}
