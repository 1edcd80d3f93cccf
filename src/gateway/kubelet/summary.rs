//! `/stats/summary` as one tenant may see it.
//!
//! Promises: pods are looked at one by one, and only the tenant's own are taken apart, each once, whenever the caller comes to it;
//! of the node there is its name, or its figures where they are shown. Pure.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::shown::Shown;
use crate::translate::json::pick;
use crate::usage::HostPod;

/// Of a pod.
const OF_A_POD: &[&str] = &[
    "startTime",
    "containers",
    "cpu",
    "memory",
    "network",
    "volume",
    "ephemeral-storage",
    "process_stats",
    "swap",
    "io",
];
/// Of a container.
const OF_A_CONTAINER: &[&str] = &["name", "startTime", "cpu", "memory", "rootfs", "logs", "swap", "io"];
/// Of a volume: its claim has another name inside, which is not known here.
const OF_A_VOLUME: &[&str] = &[
    "name",
    "time",
    "availableBytes",
    "capacityBytes",
    "usedBytes",
    "inodes",
    "inodesFree",
    "inodesUsed",
    "volumeHealthStats",
];
/// Of a node whose figures are shown.
const OF_A_NODE: &[&str] =
    &["nodeName", "startTime", "systemContainers", "cpu", "memory", "network", "fs", "runtime", "rlimit", "swap", "io"];

/// What of a summary is shown, as it is written.
#[derive(Debug, Default)]
pub(super) struct Parts<'p, 'b> {
    pub(super) node: Option<&'b str>,
    /// The tenant's pods.
    pub(super) pods: Vec<(&'p HostPod, &'b str)>,
}

/// Finds them. `None`: it is no summary.
pub(super) fn parts<'p, 'b>(body: &'b [u8], shown: &Shown<'p>, whole_node: bool) -> Option<Parts<'p, 'b>> {
    let mut parts = Parts::default();
    let mut reader = serde_json::Deserializer::from_slice(body);
    reader.deserialize_map(Fields { shown, parts: &mut parts, whole_node }).ok()?;
    reader.end().ok()?;
    Some(parts)
}

/// The node by its name, and what else is shown of it.
pub(super) fn of_node(name: &str, text: Option<&str>) -> Value {
    let node: Option<Value> = text.and_then(|text| serde_json::from_str(text).ok());
    let mut node = node.map(|node| pick(&node, OF_A_NODE)).unwrap_or_default();
    node.insert("nodeName".to_owned(), json!(name));
    Value::Object(node)
}

/// A pod under its own name.
pub(super) fn of_pod(pod: &HostPod, text: &str) -> Option<Value> {
    let mut out = pick(&serde_json::from_str(text).ok()?, OF_A_POD);
    for (field, kept) in [("containers", OF_A_CONTAINER), ("volume", OF_A_VOLUME)] {
        if let Some(list) = out.get_mut(field).and_then(Value::as_array_mut) {
            for item in list {
                *item = Value::Object(pick(item, kept));
            }
        }
    }
    out.insert("podRef".to_owned(), json!({"name": pod.name, "namespace": pod.namespace, "uid": pod.virtual_uid}));
    Some(Value::Object(out))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    pod_ref: PodRef,
}

#[derive(Deserialize)]
struct PodRef {
    name: String,
    namespace: String,
    uid: String,
}

impl<'p, 'b> Parts<'p, 'b> {
    fn pod(&mut self, shown: &Shown<'p>, text: &'b str) {
        // A list of fields would read as one too.
        let is_an_object = text.starts_with('{');
        let Some(Pod { pod_ref }) = is_an_object.then(|| serde_json::from_str(text).ok()).flatten() else { return };
        let found = shown.pod(&pod_ref.namespace, &pod_ref.name).filter(|pod| pod.uid == pod_ref.uid);
        let is_new = |pod: &&HostPod| self.pods.iter().all(|(other, _)| other.uid != pod.uid);
        if let Some(pod) = found.filter(is_new) {
            self.pods.push((pod, text));
        }
    }
}

struct Fields<'f, 'p, 'b> {
    shown: &'f Shown<'p>,
    parts: &'f mut Parts<'p, 'b>,
    whole_node: bool,
}

impl<'b> Visitor<'b> for Fields<'_, '_, 'b> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a summary")
    }

    fn visit_map<A: MapAccess<'b>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'b, str>>()? {
            match key.as_ref() {
                "pods" => map.next_value_seed(Pods { shown: self.shown, parts: self.parts })?,
                "node" if self.whole_node => self.parts.node = Some(map.next_value::<&RawValue>()?.get()),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct Pods<'f, 'p, 'b> {
    shown: &'f Shown<'p>,
    parts: &'f mut Parts<'p, 'b>,
}

impl<'b> DeserializeSeed<'b> for Pods<'_, '_, 'b> {
    type Value = ();

    fn deserialize<D: Deserializer<'b>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'b> Visitor<'b> for Pods<'_, '_, 'b> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of pods or null")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'b>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(pod) = list.next_element::<&RawValue>()? {
            self.parts.pod(self.shown, pod.get());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::names::{HostName, TenantId};
    use crate::usage::Placed;

    use super::*;

    fn placed() -> Placed {
        let pod = HostPod {
            node: "n".to_owned(),
            uid: "host-uid".to_owned(),
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            virtual_uid: "virtual-uid".to_owned(),
        };
        Placed::from([(HostName::parse("web-x-default-x-alpha").expect("name"), pod)])
    }

    fn entry(namespace: &str, name: &str, uid: &str) -> Value {
        json!({
            "podRef": {"namespace": namespace, "name": name, "uid": uid}, "secret": name,
            "cpu": {"usageNanoCores": 7}, "containers": [{"name": "c", "cpu": {}, "userDefinedMetrics": [name]}],
            "volume": [{"name": "data", "usedBytes": 1, "pvcRef": {"name": "data-x-default-x-alpha", "namespace": "team"}}],
        })
    }

    fn filtered(body: &Value, whole_node: bool) -> Option<Value> {
        let (tenant, placed) = (TenantId::parse("team", "alpha").expect("id"), placed());
        let on_node = Shown::on("n", &tenant, &placed);
        let text = body.to_string();
        let parts = parts(text.as_bytes(), &on_node, whole_node)?;
        let pods: Vec<Value> = parts.pods.iter().filter_map(|(pod, text)| of_pod(pod, text)).collect();
        Some(json!({"node": of_node("n", parts.node), "pods": pods}))
    }

    #[test]
    fn own_pods_under_their_own_names_and_nothing_else() {
        let own = entry("team", "web-x-default-x-alpha", "host-uid");
        let mut another = entry("team", "web-x-default-x-alpha", "another");
        another["cpu"] = json!({"usageNanoCores": 8});
        let body = json!({"node": {"nodeName": "n", "cpu": {"usageNanoCores": 99}, "machine": "id"}, "pods": [
            another, own, own,
            entry("other", "web-x-default-x-alpha", "host-uid"),
            entry("team", "web-x-default-x-alphabet", "host-uid-2"),
            entry("TEAM", "web-x-default-x-alpha", "host-uid"),
            {"podRef": 7}, 7, null,
        ]});
        let pod = json!({
            "podRef": {"namespace": "default", "name": "web", "uid": "virtual-uid"}, "cpu": {"usageNanoCores": 7},
            "containers": [{"name": "c", "cpu": {}}], "volume": [{"name": "data", "usedBytes": 1}],
        });
        assert_eq!(filtered(&body, false), Some(json!({"node": {"nodeName": "n"}, "pods": [pod]})));
        let whole = json!({"node": {"nodeName": "n", "cpu": {"usageNanoCores": 99}}, "pods": [pod]});
        assert_eq!(filtered(&body, true), Some(whole));
        assert_eq!(filtered(&json!({"pods": null}), true), Some(json!({"node": {"nodeName": "n"}, "pods": []})));
        for broken in [json!([]), json!({"pods": 7}), json!("pods")] {
            assert_eq!(filtered(&broken, true), None, "{broken}");
        }
    }

    #[test]
    fn what_is_not_shown_is_not_taken_apart() {
        let (tenant, placed) = (TenantId::parse("team", "alpha").expect("id"), placed());
        let body = json!({"node": {}, "pods": [
            entry("team", "foreign", "u"),
            [{"name": "web-x-default-x-alpha", "namespace": "team", "uid": "host-uid"}],
            entry("team", "web-x-default-x-alpha", "host-uid"),
        ]});
        let text = body.to_string();
        let found = parts(text.as_bytes(), &Shown::on("n", &tenant, &placed), false).expect("a summary");
        let own: Vec<&str> = found.pods.iter().map(|(_, text)| *text).collect();
        assert_eq!((own, found.node), (vec![body["pods"][2].to_string().as_str()], None));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(body: Vec<u8>) {
            let (tenant, placed) = (TenantId::parse("team", "alpha").expect("id"), placed());
            let _ = parts(&body, &Shown::on("n", &tenant, &placed), true);
        }
    }
}
