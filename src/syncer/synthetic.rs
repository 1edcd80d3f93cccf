//! Host objects that may not be read, made up from those that may: nodes from the pods that run on them, volumes from the
//! claims that are bound to them.
//!
//! Promises: an object is there as long as something names it, under the name that the host itself uses, so that what
//! selects by name works; while the real ones may be read, nothing is made up. Does no IO.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::kubernetes::Resource;
use crate::syncer::cache::SourceState;
use crate::syncer::routes::Witness;
use crate::syncer::source::{Feed, StandIn};
use crate::translate::json;

/// Where this process itself runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnPlace {
    /// Node; empty when it is not known.
    pub node: String,
    /// Address of the node.
    pub node_ip: String,
    /// Kubernetes version of the host, such as `v1.34.4`.
    pub version: String,
}

/// Objects of one kind that are made up.
pub struct Synthetic {
    made_from: &'static str,
    derive: fn(&Value, &OwnPlace) -> Option<Value>,
    own_place: OwnPlace,
    /// Its owner is the source, which may own this.
    feed: Weak<dyn Feed>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    active: bool,
    /// What each source object leads to, by the source's name.
    from: BTreeMap<String, String>,
    /// What is made up, by its name: the object, and how many source objects lead to it.
    made: BTreeMap<String, (Value, usize)>,
}

/// Resources of a node that nobody may ask: enough that no tenant's own quota thinks it full.
const CAPACITY: [(&str, &str); 4] =
    [("cpu", "16"), ("memory", "32Gi"), ("ephemeral-storage", "100Gi"), ("pods", "110")];

impl Synthetic {
    /// None for kinds that cannot be made up.
    pub fn new(resource: &Resource, feed: &Arc<dyn Feed>, own_place: &OwnPlace) -> Option<Self> {
        let (made_from, derive): (_, fn(&Value, &OwnPlace) -> Option<Value>) = match resource.kind {
            "Node" => ("Pod", node_of),
            "PersistentVolume" => ("PersistentVolumeClaim", volume_of),
            _ => return None,
        };
        let mut state = State::default();
        if resource.kind == "Node" && !own_place.node.is_empty() {
            // The node of this process is always there: a cluster without nodes confuses people and tools.
            let own = node(&own_place.node, &own_place.node_ip, own_place);
            state.made.insert(own_place.node.clone(), (own, 1));
        }
        Some(Self {
            made_from,
            derive,
            own_place: own_place.clone(),
            feed: Arc::downgrade(feed),
            state: Mutex::new(state),
        })
    }

    /// Kind of object that it looks at.
    pub fn made_from(&self) -> &'static str {
        self.made_from
    }

    fn release(&self, state: &mut State, target: &str) {
        let Some((object, count)) = state.made.get_mut(target) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        let object = object.take();
        state.made.remove(target);
        if state.active
            && let Some(feed) = self.feed.upgrade()
        {
            feed.deleted(feed.pack(object));
        }
    }
}

impl Witness for Synthetic {
    fn saw(&self, name: &str, now: Option<&Value>) {
        let derived = now.and_then(|object| (self.derive)(object, &self.own_place));
        let target = derived.as_ref().map(|object| json::name(object).to_owned());
        let mut state = self.state.lock();
        let before = state.from.get(name).cloned();
        if let (Some(object), Some(target)) = (derived, &target) {
            let again = before.as_ref() == Some(target);
            let (known, count) = state.made.entry(target.clone()).or_insert_with(|| (Value::Null, 0));
            *count += usize::from(!again);
            // A pod that was just bound does not know its node's address yet; others do.
            let differs = *known != object && (knows_address(&object) || !knows_address(known));
            if differs {
                known.clone_from(&object);
            }
            state.from.insert(name.to_owned(), target.clone());
            if differs
                && state.active
                && let Some(feed) = self.feed.upgrade()
            {
                feed.applied(feed.pack(object));
            }
        } else {
            state.from.remove(name);
        }
        if let Some(before) = before.filter(|before| target.as_ref() != Some(before)) {
            self.release(&mut state, &before);
        }
    }
}

impl StandIn for Synthetic {
    fn begin(&self) {
        let mut state = self.state.lock();
        state.active = true;
        let Some(feed) = self.feed.upgrade() else { return };
        let list = state.made.values().map(|(object, _)| feed.pack(object.clone())).collect();
        feed.replaced(list, 0);
        drop(state);
        feed.state(SourceState::Synced);
    }

    fn end(&self) {
        self.state.lock().active = false;
    }
}

fn knows_address(node: &Value) -> bool {
    json::items(node, "/status/addresses").iter().any(|address| json::text(address, "/type") == "InternalIP")
}

fn node_of(pod: &Value, own_place: &OwnPlace) -> Option<Value> {
    let name = json::text(pod, "/spec/nodeName");
    (!name.is_empty()).then(|| {
        let ip = match json::text(pod, "/status/hostIP") {
            "" if name == own_place.node => own_place.node_ip.as_str(),
            ip => ip,
        };
        node(name, ip, own_place)
    })
}

/// A node as far as its pods tell. Its host name label is the host's, so affinity by it reaches the host's scheduler.
fn node(name: &str, ip: &str, own_place: &OwnPlace) -> Value {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let resources: BTreeMap<&str, &str> = CAPACITY.into();
    let mut addresses = vec![json!({"type": "Hostname", "address": name})];
    if !ip.is_empty() {
        addresses.insert(0, json!({"type": "InternalIP", "address": ip}));
    }
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2020-01-01T00:00:00Z"})
    };
    json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": architecture,
            "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": architecture,
        }},
        "spec": {},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [
                condition("Ready", "True", "MadeUp", "made up from its pods: the host's nodes may not be read"),
                condition("MemoryPressure", "False", "Unknown", ""),
                condition("DiskPressure", "False", "Unknown", ""),
                condition("PIDPressure", "False", "Unknown", ""),
            ],
            "addresses": addresses,
            "nodeInfo": {
                "architecture": architecture, "operatingSystem": "linux", "kubeletVersion": own_place.version,
                "kubeProxyVersion": own_place.version, "containerRuntimeVersion": "unknown://unknown",
                "kernelVersion": "unknown", "osImage": "unknown",
            },
        },
    })
}

fn volume_of(claim: &Value, _own_place: &OwnPlace) -> Option<Value> {
    let name = json::text(claim, "/spec/volumeName");
    if name.is_empty() || json::text(claim, "/status/phase") != "Bound" {
        return None;
    }
    let spec = claim.get("spec")?;
    let status = claim.get("status")?;
    let mut out = json::pick(spec, &["accessModes", "volumeMode", "storageClassName"]);
    out.extend(json::pick(status, &["capacity", "accessModes"]));
    out.insert("persistentVolumeReclaimPolicy".to_owned(), json!("Delete"));
    out.insert(
        "claimRef".to_owned(),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": json::namespace(claim),
            "name": json::name(claim), "uid": json::uid(claim)}),
    );
    Some(json!({"metadata": {"name": name}, "spec": out, "status": {"phase": "Bound"}}))
}

#[cfg(test)]
mod tests;
