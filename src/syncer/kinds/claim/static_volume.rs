//! Static volumes: a claim that names its volume, and a volume of the tenant's own that names its claim. Neither works yet,
//! since nothing on the host is behind such a volume.
//!
//! Promises: no claim of this kind is made on the host, where it would get a new, empty volume; one that is there shows no
//! binding while its data is on another volume than it names; nothing on the host is deleted for it.
//! What Portico bound itself is told apart by both sides alone, so also after a restart: the host's claim was written for
//! this very object, and its volume is the one that the object names.

use serde_json::{Map, Value};

use super::super::super::kind::{Action, Lookup, ObjectKey, Reference};
use super::super::identity::key_of;
use super::super::writes::{explain, patch_virtual};
use crate::kubernetes::resources::{CLAIMS, VOLUMES};
use crate::translate::{identity, json, legacy};

/// Of the volumes that name one claim so many are looked at: one counts, and a tenant may make as many as it likes.
const LOOKED_AT: usize = 16;

/// Why a claim that has no copy on the host gets none.
pub(super) fn refusal(claim: &Value, lookup: &dyn Lookup) -> Option<Action> {
    let named = json::text(claim, "/spec/volumeName");
    let why = if named.is_empty() {
        let volume = reserving(claim, lookup)?;
        format!(
            "the volume {volume:?} is reserved for this claim (spec.claimRef), and volumes made inside a virtual cluster \
             have nothing behind them: delete that volume, and the claim gets a new one of its StorageClass"
        )
    } else {
        format!(
            "spec.volumeName names the volume {named:?}, and claims cannot choose their volume in a virtual cluster yet: \
             delete the claim and create it without spec.volumeName, and it gets a new volume of its StorageClass"
        )
    };
    Some(explain(&CLAIMS, claim, "SyncDenied", format!("not made on the host: {why}")))
}

/// What is done with a claim that names another volume than its copy on the host has (which may have none yet); None when
/// they agree.
pub(super) fn mismatch(claim: &Value, host: &Value) -> Option<Vec<Action>> {
    let (named, found) = (json::text(claim, "/spec/volumeName"), json::text(host, "/spec/volumeName"));
    if named.is_empty() || named == found {
        return None;
    }
    let message = if found.is_empty() {
        format!(
            "not bound: spec.volumeName names the volume {named:?}, and claims cannot choose their volume in a virtual \
             cluster yet: delete the claim and create it without spec.volumeName"
        )
    } else {
        format!(
            "not bound to {named:?}, which spec.volumeName names: what pods write to this claim is on another volume, \
             {found:?}. Copy what you need from a pod that uses it before you delete the claim; then create it without \
             spec.volumeName"
        )
    };
    let shown = unbound(claim).map(|status| patch_virtual(CLAIMS, claim, "status", ("status", status)));
    Some(shown.into_iter().chain([explain(&CLAIMS, claim, "SyncDenied", message)]).collect())
}

/// What is said of a volume that a user of the tenant made.
pub(super) fn unused(volume: &Value) -> Action {
    let message =
        "not used: a volume made inside a virtual cluster has nothing behind it on the host, and no claim is \
                   bound to it; claims get volumes of their StorageClass"
            .to_owned();
    explain(&VOLUMES, volume, "SyncDenied", message)
}

/// The claim that a volume of the tenant's own is reserved for: not to bring it to the host, but to be found from there.
pub(super) fn reserved(volume: &Value) -> Option<Reference> {
    let name = json::text(volume, "/spec/claimRef/name");
    if name.is_empty() || !is_of_the_tenant(volume) {
        return None;
    }
    let namespace = json::text(volume, "/spec/claimRef/namespace").to_owned();
    Some(Reference { kind: CLAIMS.kind, key: ObjectKey { namespace, name: name.to_owned() } })
}

/// Whether a user of the tenant made this volume.
pub(super) fn is_of_the_tenant(volume: &Value) -> bool {
    !identity::is_from_host(volume) && !legacy::is_made_up(volume)
}

/// The first volume of the tenant's own that is reserved for this claim.
fn reserving(claim: &Value, lookup: &dyn Lookup) -> Option<String> {
    let key = key_of(claim);
    let volumes = lookup.referrers(CLAIMS.kind, &key, VOLUMES.kind, LOOKED_AT);
    let is_reserved = |volume: &ObjectKey| {
        lookup.virtual_object(VOLUMES.kind, volume).is_some_and(|volume| {
            let uid = json::text(&volume, "/spec/claimRef/uid");
            // A volume of a namesake that is gone is nobody's.
            reserved(&volume).is_some_and(|r| r.key == key)
                && !json::is_deleting(&volume)
                && (uid.is_empty() || uid == json::uid(claim))
        })
    };
    volumes.into_iter().find(is_reserved).map(|volume| volume.name)
}

/// The patch by which a claim's status says that it is not bound; None when it does.
fn unbound(claim: &Value) -> Option<Value> {
    let mut patch = Map::new();
    if json::text(claim, "/status/phase") != "Pending" {
        patch.insert("phase".to_owned(), Value::String("Pending".to_owned()));
    }
    for field in ["accessModes", "capacity", "conditions"] {
        if json::has(claim, &format!("/status/{field}")) {
            patch.insert(field.to_owned(), Value::Null);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}
