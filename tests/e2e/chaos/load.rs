//! Workers: each owns some names in a tenant, and creates, changes and deletes pods, Services and ConfigMaps there until it
//! is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use portico::kubernetes::Resource;
use portico::kubernetes::resources::{CONFIG_MAPS, PODS, SERVICES};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::model::{Key, Kind, Model, Version};
use super::steps::Steps;

/// Names of one worker.
const SLOTS: usize = 4;
/// Of the load's objects, and of nothing else in its namespace.
pub(crate) const PREFIX: &str = "chaos-";
/// The label that says what was last written.
pub(crate) const REVISION: &str = "chaos-revision";
const PAUSE: Duration = Duration::from_secs(2);

pub(crate) struct Worker {
    pub(crate) steps: Steps,
    pub(crate) tenant: String,
    /// In the tenant.
    pub(crate) namespace: String,
    pub(crate) number: usize,
    pub(crate) random: StdRng,
    pub(crate) model: Arc<Mutex<Model>>,
    pub(crate) over: Arc<AtomicBool>,
}

impl Worker {
    /// Ends between two steps.
    pub(crate) async fn run(mut self) {
        let mut step = 0_u64;
        while !self.over.load(Ordering::SeqCst) {
            step += 1;
            let kind = Kind::ALL[self.random.random_range(0..Kind::ALL.len())];
            let name = format!("{PREFIX}{}-{}", self.number, self.random.random_range(0..SLOTS));
            let key = Key { tenant: self.tenant.clone(), kind, name };
            let known = self.model.lock().get(&key).cloned();
            match known {
                None => self.create(key, step).await,
                Some(version) if self.random.random_range(0..2) == 0 => self.delete(&key, &version).await,
                Some(version) => self.change(key, version).await,
            }
            let pause = self.random.random_range(0..PAUSE.as_millis());
            tokio::time::sleep(Duration::from_millis(u64::try_from(pause).expect("small"))).await;
        }
    }

    async fn create(&self, key: Key, step: u64) {
        let step = format!("{}-{step}", self.number);
        let Some(made) = self.steps.create(&self.list(key.kind), &key.name, object(&key), &step).await else { return };
        let uid = made["metadata"]["uid"].as_str().expect("a uid").to_owned();
        self.model.lock().is(key, Version { uid, revision: 0 });
    }

    async fn change(&self, key: Key, version: Version) {
        let revision = version.revision + 1;
        let mut patch = json!({"metadata": {"labels": {REVISION: revision.to_string()}}});
        if key.kind == Kind::ConfigMap {
            patch["data"] = json!({"revision": revision.to_string()});
        }
        let changed = self.steps.change(&self.list(key.kind), &key.name, &version.uid, patch).await;
        match changed {
            Some(_) => self.model.lock().is(key, Version { revision, ..version }),
            // A finding; what is there is nothing that anybody could expect.
            None => self.model.lock().gone(&key),
        }
    }

    async fn delete(&self, key: &Key, version: &Version) {
        self.steps.delete(&self.list(key.kind), &key.name, &version.uid).await;
        self.model.lock().gone(key);
    }

    fn list(&self, kind: Kind) -> String {
        resource(kind).path(Some(&self.namespace), None, None)
    }
}

pub(crate) fn resource(kind: Kind) -> &'static Resource {
    match kind {
        Kind::Pod => &PODS,
        Kind::Service => &SERVICES,
        Kind::ConfigMap => &CONFIG_MAPS,
    }
}

fn object(key: &Key) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": key.kind.name(), "metadata": {"labels": {REVISION: "0"}}});
    match key.kind {
        Kind::Pod => {
            object["spec"] = json!({"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": crate::harness::AGNHOST, "command": ["/agnhost", "pause"],
                    "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
                    "volumeMounts": [{"name": "settings", "mountPath": "/settings"}]}],
                "volumes": [{"name": "settings", "configMap": {"name": key.name, "optional": true}}]});
        }
        Kind::Service => {
            object["spec"] = json!({"selector": {"app": key.name}, "ports": [{"port": 80, "targetPort": 8080}]});
        }
        Kind::ConfigMap => object["data"] = json!({"revision": "0"}),
    }
    object
}
