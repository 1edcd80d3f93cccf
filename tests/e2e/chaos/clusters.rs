//! VirtualClusters that come, change and go, and all want the same few names; and what must be true of those that are there
//! at the end.
//!
//! They are of `distro: external` with a Secret that is not there: who has which name and port is decided whether a cluster
//! is built or not, and a control plane each would not fit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use portico::kubernetes::resources::VIRTUAL_CLUSTERS;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::steps::Steps;

const SLOTS: usize = 5;
const NAMES: [&str; 3] = ["first.chaos.test", "second.chaos.test", "third.chaos.test"];
const PAUSE: Duration = Duration::from_secs(4);

/// uid by name of those that must be there.
pub(crate) type Accepted = Arc<Mutex<BTreeMap<String, String>>>;

pub(crate) struct Owner {
    pub(crate) steps: Steps,
    pub(crate) namespace: String,
    pub(crate) random: StdRng,
    pub(crate) accepted: Accepted,
    pub(crate) over: Arc<AtomicBool>,
}

impl Owner {
    /// Ends between two steps.
    pub(crate) async fn run(mut self) {
        let list = VIRTUAL_CLUSTERS.path(Some(&self.namespace), None, None);
        let mut step = 0_u64;
        while !self.over.load(Ordering::SeqCst) {
            step += 1;
            let name = format!("chaos-{}", self.random.random_range(0..SLOTS));
            let wanted: Vec<&str> = NAMES.into_iter().filter(|_| self.random.random_range(0..2) == 0).collect();
            let known = self.accepted.lock().get(&name).cloned();
            match known {
                None => {
                    let object = json!({"apiVersion": VIRTUAL_CLUSTERS.api_version(), "kind": VIRTUAL_CLUSTERS.kind,
                        "spec": {"distro": "external", "backend": {"kubeconfigSecret": {"name": "nowhere"}},
                            "expose": {"hosts": wanted}}});
                    if let Some(made) = self.steps.create(&list, &name, object, &step.to_string()).await {
                        self.accepted.lock().insert(name, text(&made["metadata"]["uid"]));
                    }
                }
                Some(uid) if self.random.random_range(0..3) == 0 => {
                    self.steps.delete(&list, &name, &uid).await;
                    self.accepted.lock().remove(&name);
                }
                Some(uid) => {
                    let patch = json!({"spec": {"expose": {"hosts": wanted}}});
                    if self.steps.change(&list, &name, &uid, patch).await.is_none() {
                        self.accepted.lock().remove(&name);
                    }
                }
            }
            let pause = self.random.random_range(0..PAUSE.as_millis());
            tokio::time::sleep(Duration::from_millis(u64::try_from(pause).expect("small"))).await;
        }
    }
}

/// What is not as it must be: `list` are all VirtualClusters of the host, `namespace` is the one that the accepted live in.
pub(crate) fn judge(accepted: &BTreeMap<String, String>, namespace: &str, list: &Value) -> Vec<String> {
    let all = list["items"].as_array().expect("a list");
    let mut wrong = Vec::new();
    let ours: BTreeMap<String, String> = all
        .iter()
        .filter(|cluster| cluster["metadata"]["namespace"] == namespace)
        .filter(|cluster| text(&cluster["metadata"]["name"]).starts_with("chaos-"))
        .map(|cluster| (text(&cluster["metadata"]["name"]), text(&cluster["metadata"]["uid"])))
        .collect();
    if ours != *accepted {
        wrong.push(format!("VirtualClusters: accepted {accepted:?}, there {ours:?}"));
    }
    let mut ports = BTreeMap::new();
    for cluster in all {
        let (name, status) = (id(cluster), &cluster["status"]);
        if status["observedGeneration"] != cluster["metadata"]["generation"] {
            wrong.push(format!("{name}: generation {} is not observed", cluster["metadata"]["generation"]));
        }
        match status["port"].as_u64() {
            None => wrong.push(format!("{name}: has no port")),
            Some(port) => {
                if let Some(other) = ports.insert(port, name.clone()) {
                    wrong.push(format!("port {port}: {name} and {other}"));
                }
            }
        }
        wrong.extend(names(all, cluster));
    }
    wrong
}

/// Whether the condition says the same about the names as the ages of those who want them.
fn names(all: &[Value], cluster: &Value) -> Option<String> {
    let oldest = |host: &str| {
        let wants = all.iter().filter(|other| hosts(other).any(|name| name == host));
        wants.min_by_key(|other| (text(&other["metadata"]["creationTimestamp"]), text(&other["metadata"]["uid"])))
    };
    // Only of these it is known that nothing else is against them.
    let contested = hosts(cluster).filter(|host| NAMES.contains(&host.as_str()));
    let others: Vec<(String, String)> = contested
        .filter_map(|host| oldest(&host).map(|owner| (host, id(owner))))
        .filter(|(_, owner)| *owner != id(cluster))
        .collect();
    if hosts(cluster).any(|host| !NAMES.contains(&host.as_str())) {
        return None;
    }
    let conditions = cluster["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let condition = conditions.into_iter().find(|c| c["type"] == "HostsAccepted").unwrap_or_default();
    let (status, message) = (text(&condition["status"]), text(&condition["message"]));
    let is_told =
        others.iter().all(|(host, owner)| message.contains(host.as_str()) && message.contains(owner.as_str()));
    let expected = if others.is_empty() { "True" } else { "False" };
    (status != expected || !is_told)
        .then(|| format!("{}: HostsAccepted is {status} {message:?}, others have {others:?}", id(cluster)))
}

/// Names in Portico's own namespace that serve VirtualClusters which are gone.
pub(crate) fn orphans(
    accepted: &BTreeMap<String, String>,
    tenants: &BTreeSet<String>,
    services: &Value,
) -> Vec<String> {
    let items = services["items"].as_array().expect("a list").iter();
    let of = |service: &Value| text(&service["metadata"]["labels"]["portico.dev/cluster"]);
    items
        .filter(|service| !accepted.contains_key(&of(service)) && !tenants.contains(&of(service)))
        .map(|service| format!("Service {} of {}", text(&service["metadata"]["name"]), of(service)))
        .collect()
}

fn hosts(cluster: &Value) -> impl Iterator<Item = String> {
    cluster["spec"]["expose"]["hosts"].as_array().into_iter().flatten().map(text)
}

fn id(cluster: &Value) -> String {
    format!("{}/{}", text(&cluster["metadata"]["namespace"]), text(&cluster["metadata"]["name"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str, created: &str, port: u64, refused: &str) -> Value {
        let status = if refused.is_empty() { "True" } else { "False" };
        json!({"metadata": {"namespace": "team", "name": name, "uid": name, "creationTimestamp": created, "generation": 2},
            "spec": {"expose": {"hosts": [NAMES[0]]}},
            "status": {"observedGeneration": 2, "port": port,
                "conditions": [{"type": "HostsAccepted", "status": status, "message": refused}]}})
    }

    fn judged(clusters: &[Value]) -> Vec<String> {
        let accepted = clusters.iter().map(|c| (text(&c["metadata"]["name"]), text(&c["metadata"]["uid"]))).collect();
        judge(&accepted, "team", &json!({"items": clusters}))
    }

    #[test]
    fn the_oldest_has_the_name_and_the_others_are_told_who() {
        let taken = format!("{} has team/chaos-0", NAMES[0]);
        let old = cluster("chaos-0", "2026-01-01T00:00:00Z", 20_000, "");
        let young = cluster("chaos-1", "2026-01-01T00:00:01Z", 20_002, &taken);
        assert_eq!(judged(&[old.clone(), young.clone()]), Vec::<String>::new());
        let both = cluster("chaos-1", "2026-01-01T00:00:01Z", 20_002, "");
        assert_eq!(judged(&[old.clone(), both]).len(), 1, "the younger one has it too");
        let unnamed = cluster("chaos-1", "2026-01-01T00:00:01Z", 20_002, "no");
        assert_eq!(judged(&[old, unnamed]).len(), 1, "it is not said who");
        assert_eq!(judged(&[young]).len(), 1, "refused to the only one");
    }

    #[test]
    fn ports_generations_and_who_is_there_are_judged() {
        let one = cluster("chaos-0", "2026-01-01T00:00:00Z", 20_000, "");
        let mut other = cluster("chaos-1", "2026-01-01T00:00:01Z", 20_000, "");
        other["spec"]["expose"]["hosts"] = json!([]);
        assert_eq!(judged(&[one.clone(), other.clone()]).len(), 1, "one port");
        other["status"]["port"] = Value::Null;
        assert_eq!(judged(&[one.clone(), other.clone()]).len(), 1, "no port");
        other["status"]["port"] = 20_002.into();
        assert!(judged(&[one.clone(), other.clone()]).is_empty());
        other["metadata"]["generation"] = 3.into();
        assert_eq!(judged(&[one.clone(), other]).len(), 1, "an old generation");
        let accepted = BTreeMap::from([("chaos-0".to_owned(), "chaos-0".to_owned())]);
        assert_eq!(judge(&accepted, "team", &json!({"items": []})).len(), 1, "lost");
        assert_eq!(judge(&BTreeMap::new(), "team", &json!({"items": [one]})).len(), 1, "left");
    }

    #[test]
    fn services_of_clusters_that_are_gone_are_orphans() {
        let of = |name: &str| json!({"metadata": {"name": "s", "labels": {"portico.dev/cluster": name}}});
        let services = json!({"items": [of("chaos-0"), of("one"), of("chaos-1")]});
        let accepted = BTreeMap::from([("chaos-0".to_owned(), "u".to_owned())]);
        assert_eq!(orphans(&accepted, &BTreeSet::from(["one".to_owned()]), &services), ["Service s of chaos-1"]);
    }
}
