//! `/stats/summary` as one tenant may see it.
//!
//! Promises: pods are looked at one by one, and only the tenant's own are taken apart, each once; of the node there is its
//! name, or its figures where they are shown. Pure.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

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

/// What the caller is asked before a part of this text is taken apart: whether its memory may be had.
pub(super) type Draw<'d> = &'d mut dyn FnMut(&[u8]) -> bool;

/// What is shown. `None`: it is no summary, or may not be taken apart.
pub(super) fn shown(body: &[u8], node: &str, shown: &Shown<'_>, whole_node: bool, draw: Draw<'_>) -> Option<Value> {
    let mut summary = Summary { shown, draw, refused: false, seen: Vec::new(), pods: Vec::new(), node: None };
    let mut reader = serde_json::Deserializer::from_slice(body);
    reader.deserialize_map(Fields { summary: &mut summary, whole_node }).ok()?;
    reader.end().ok()?;
    if summary.refused {
        return None;
    }
    let mut of_node = summary.node.unwrap_or_default();
    of_node.insert("nodeName".to_owned(), json!(node));
    Some(json!({"node": of_node, "pods": summary.pods}))
}

struct Summary<'s, 'd> {
    shown: &'s Shown<'s>,
    draw: Draw<'d>,
    refused: bool,
    /// uids on the host of those that are there already.
    seen: Vec<&'s str>,
    pods: Vec<Value>,
    node: Option<Map<String, Value>>,
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

impl<'s> Summary<'s, '_> {
    fn parse(&mut self, text: &str) -> Option<Map<String, Value>> {
        if !(self.draw)(text.as_bytes()) {
            self.refused = true;
            return None;
        }
        serde_json::from_str(text).ok()
    }

    fn pod(&mut self, text: &str) {
        let Ok(Pod { pod_ref }) = serde_json::from_str::<Pod>(text) else { return };
        let found = self.shown.pod(&pod_ref.namespace, &pod_ref.name).filter(|pod| pod.uid == pod_ref.uid);
        let Some(pod) = found.filter(|pod| !self.seen.contains(&&*pod.uid)) else { return };
        if let Some(whole) = self.parse(text) {
            self.seen.push(&pod.uid);
            self.pods.push(of_tenant(pod, whole));
        }
    }
}

/// The pod under its own name.
fn of_tenant(pod: &HostPod, whole: Map<String, Value>) -> Value {
    let mut out = pick(&Value::Object(whole), OF_A_POD);
    for (field, kept) in [("containers", OF_A_CONTAINER), ("volume", OF_A_VOLUME)] {
        if let Some(list) = out.get_mut(field).and_then(Value::as_array_mut) {
            for item in list {
                *item = Value::Object(pick(item, kept));
            }
        }
    }
    out.insert("podRef".to_owned(), json!({"name": pod.name, "namespace": pod.namespace, "uid": pod.virtual_uid}));
    Value::Object(out)
}

struct Fields<'f, 's, 'd> {
    summary: &'f mut Summary<'s, 'd>,
    whole_node: bool,
}

impl<'de> Visitor<'de> for Fields<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a summary")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match key.as_ref() {
                "pods" => map.next_value_seed(Pods { summary: self.summary })?,
                "node" if self.whole_node => {
                    let text = map.next_value::<&RawValue>()?.get();
                    let node = self.summary.parse(text).map(Value::Object);
                    self.summary.node = node.map(|node| pick(&node, OF_A_NODE));
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct Pods<'f, 's, 'd> {
    summary: &'f mut Summary<'s, 'd>,
}

impl<'de> DeserializeSeed<'de> for Pods<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pods<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of pods or null")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(pod) = list.next_element::<&RawValue>()? {
            self.summary.pod(pod.get());
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
        let of_node = Shown::on("n", &tenant, &placed);
        shown(body.to_string().as_bytes(), "n", &of_node, whole_node, &mut |_| true)
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
    fn what_may_not_be_taken_apart_is_not() {
        let (tenant, placed) = (TenantId::parse("team", "alpha").expect("id"), placed());
        let of_node = Shown::on("n", &tenant, &placed);
        let body = json!({"pods": [entry("team", "foreign", "u"), entry("team", "web-x-default-x-alpha", "host-uid")]});
        let mut asked = 0;
        let text = body.to_string();
        let refused = shown(text.as_bytes(), "n", &of_node, false, &mut |_| {
            asked += 1;
            false
        });
        assert_eq!((refused, asked), (None, 1), "nobody is asked for what is not shown");
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(body: Vec<u8>) {
            let (tenant, placed) = (TenantId::parse("team", "alpha").expect("id"), placed());
            let _ = shown(&body, "n", &Shown::on("n", &tenant, &placed), true, &mut |_| true);
        }
    }
}
