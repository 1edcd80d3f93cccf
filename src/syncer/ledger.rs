//! Where it is recorded, on the host, which store a tenant has, why it is held and what a person decided: the status of
//! its VirtualCluster, or a ConfigMap where there is none.
//!
//! Promises: every write names the uid of what it belongs to, so a deleted namesake's record never reaches its successor.

use serde_json::{Value, json};

use crate::crd::{GROUP, HoldStatus};
use crate::error::{Error, Kind, Result};
use crate::kubernetes::PatchKind;
use crate::kubernetes::api::Cluster;
use crate::kubernetes::resources::{CONFIG_MAPS, VIRTUAL_CLUSTERS};
use crate::kubernetes::rights::Access;
use crate::names::keys;
use crate::syncer::cache::{mark, text};
use crate::syncer::kind::{Involved, ObjectKey, TenantView};
use crate::syncer::tenant::Member;
use crate::syncer::world::World;
use crate::translate::identity;

/// Keys of the ConfigMap.
const STORE: &str = "store";
const HOLD: &str = "hold";

/// Where a tenant's record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ledger {
    /// In the status of its VirtualCluster.
    VirtualCluster,
    /// In the ConfigMap `{name}-store` of the namespace of its copies: the sidecar form has no VirtualCluster.
    ConfigMap,
}

/// What is recorded of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// uid of its store; empty: none is known.
    pub store: String,
    /// Why it is not synced.
    pub hold: Option<HoldStatus>,
    /// What a person decided last, perhaps about something long settled.
    pub decision: Option<Decision>,
}

/// What is to be done about a hold: it names the hold's `found`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Write what stands on the host into the tenant.
    Adopt(String),
    /// Let what stands on the host go.
    Discard(String),
}

impl Decision {
    /// From the annotation [`keys::RECOVER`]: `adopt:{found}` or `discard:{found}`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            (_, "") => None,
            ("adopt", found) => Some(Self::Adopt(found.to_owned())),
            ("discard", found) => Some(Self::Discard(found.to_owned())),
            _ => None,
        }
    }

    /// Which hold it is about.
    pub fn about(&self) -> &str {
        match self {
            Self::Adopt(found) | Self::Discard(found) => found,
        }
    }

    /// One word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Adopt(_) => "adopt",
            Self::Discard(_) => "discard",
        }
    }
}

impl Ledger {
    /// Of a tenant: whoever has a VirtualCluster is owned by it.
    pub fn of(view: &TenantView) -> Self {
        match &view.owner {
            Some(owner) if owner.kind == "VirtualCluster" => Self::VirtualCluster,
            _ => Self::ConfigMap,
        }
    }

    /// Whether there is a right to it; what would be refused is not tried.
    pub(super) fn may_write(self, access: &Access) -> bool {
        match self {
            Self::VirtualCluster => true,
            Self::ConfigMap => access.allow("get", &CONFIG_MAPS, "") && access.allow("patch", &CONFIG_MAPS, ""),
        }
    }

    /// What a person has to type.
    pub fn how_to_decide(self, view: &TenantView, found: &str) -> String {
        let (name, namespace) = (view.cluster(), view.namespace());
        match self {
            Self::VirtualCluster => format!(
                "`portico recover {name} -n {namespace} --adopt` writes what stands on the host back into the virtual \
                 cluster; `portico recover {name} -n {namespace} --discard` removes it"
            ),
            Self::ConfigMap => {
                let (map, key) = (view.id.store_record(), keys::RECOVER);
                format!(
                    "`kubectl -n {namespace} annotate --overwrite configmap {map} {key}=adopt:{found}` writes what stands \
                     on the host back into the virtual cluster; {key}=discard:{found} removes it"
                )
            }
        }
    }

    /// What Events are about.
    pub(super) fn involved(self, view: &TenantView) -> Option<Involved> {
        let key = ObjectKey { namespace: view.namespace().to_string(), name: view.cluster().to_string() };
        let uid = view.uid.clone();
        match self {
            Self::VirtualCluster => {
                Some(Involved { api_version: format!("{GROUP}/v1alpha1"), kind: "VirtualCluster".to_owned(), key, uid })
            }
            Self::ConfigMap => None,
        }
    }
}

/// What is recorded now.
pub async fn read(host: &dyn Cluster, member: &Member) -> Result<Record> {
    let view = &member.view;
    let namespace = Some(view.namespace().as_str());
    let decision = |object: &Value| mark(object, "annotations", keys::RECOVER).and_then(Decision::parse);
    match Ledger::of(&member.view) {
        Ledger::VirtualCluster => {
            let found = host.get(&VIRTUAL_CLUSTERS, namespace, view.cluster().as_str()).await?;
            let Some(cluster) = found.filter(|cluster| text(cluster, "uid") == view.uid) else {
                return Err(Error::own(Kind::NotFound, "the VirtualCluster is gone"));
            };
            let hold = cluster.pointer("/status/hold").cloned().unwrap_or_default();
            Ok(Record {
                store: cluster.pointer("/status/store/uid").and_then(Value::as_str).unwrap_or_default().to_owned(),
                hold: serde_json::from_value(hold).ok(),
                decision: decision(&cluster),
            })
        }
        Ledger::ConfigMap => {
            let Some(map) = host.get(&CONFIG_MAPS, namespace, &view.id.store_record()).await? else {
                return Ok(Record::default());
            };
            if mark(&map, "labels", keys::SIDECAR) != Some(view.cluster().as_str()) {
                let name = view.id.store_record();
                let message = format!("ConfigMap {name:?} exists and was not made by Portico: rename it");
                return Err(Error::own(Kind::Conflict, message));
            }
            let data = |key: &str| map.pointer("/data").and_then(|data| data.get(key)).and_then(Value::as_str);
            Ok(Record {
                store: data(STORE).unwrap_or_default().to_owned(),
                hold: data(HOLD).and_then(|text| serde_json::from_str(text).ok()),
                decision: decision(&map),
            })
        }
    }
}

/// Records a store; a hold ends with it.
pub async fn write_store(world: &World, member: &Member, uid: &str) -> Result<()> {
    let since = world.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    match Ledger::of(&member.view) {
        Ledger::VirtualCluster => {
            patch_status(world, member, &json!({"store": {"uid": uid, "since": since}, "hold": null})).await
        }
        Ledger::ConfigMap => apply_map(world, member, &json!({STORE: uid, "since": since})).await,
    }
}

/// Records a hold, or its end.
pub async fn write_hold(world: &World, member: &Member, hold: Option<&HoldStatus>) -> Result<()> {
    match Ledger::of(&member.view) {
        Ledger::VirtualCluster => patch_status(world, member, &json!({"hold": hold})).await,
        Ledger::ConfigMap => {
            let store = read(&*world.host, member).await?.store;
            let mut data = json!({STORE: store});
            if let Some(hold) = hold {
                data[HOLD] = json!(serde_json::to_string(hold).unwrap_or_default());
            }
            apply_map(world, member, &data).await
        }
    }
}

/// Records what is not synced, where there is a VirtualCluster to say it on.
pub async fn write_unsynced(world: &World, member: &Member, message: Option<&str>) -> Result<()> {
    match Ledger::of(&member.view) {
        Ledger::VirtualCluster => patch_status(world, member, &json!({"unsynced": message})).await,
        Ledger::ConfigMap => Ok(()),
    }
}

async fn patch_status(world: &World, member: &Member, status: &Value) -> Result<()> {
    let view = &member.view;
    let patch = json!({"metadata": {"uid": view.uid}, "status": status});
    let (namespace, on) = (Some(view.namespace().as_str()), (view.cluster().as_str(), "status"));
    world.host.patch(&VIRTUAL_CLUSTERS, namespace, on, PatchKind::Merge, &patch).await.map(|_| ())
}

async fn apply_map(world: &World, member: &Member, data: &Value) -> Result<()> {
    let view = &member.view;
    let name = view.id.store_record();
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": view.namespace().as_str(),
            "labels": {keys::SIDECAR: view.cluster().as_str()},
        },
        "data": data,
    });
    if let Some(owner) = &view.owner {
        object["metadata"]["ownerReferences"] = json!([identity::owner_reference(owner)]);
    }
    world.host.apply(&CONFIG_MAPS, Some(view.namespace().as_str()), &name, &object).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_names_what_it_is_about() {
        assert_eq!(Decision::parse("adopt:u1"), Some(Decision::Adopt("u1".to_owned())));
        assert_eq!(Decision::parse("discard:u1").map(|d| d.about().to_owned()), Some("u1".to_owned()));
        for text in ["", "adopt", "adopt:", "ADOPT:u1", "keep:u1"] {
            assert_eq!(Decision::parse(text), None, "{text}");
        }
    }
}
