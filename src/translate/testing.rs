//! Views and hostile objects for the tests of this module and of the kinds.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::View;
use super::legacy::vcluster::Vcluster;
use crate::config::PolicyBounds;
use crate::crd::policy::{GrantedPolicy, Policy};
use crate::names::TenantId;

/// Tenant `team-a/vc1` with an owner.
pub(crate) fn view() -> View {
    View {
        id: TenantId::parse("team-a", "vc1").expect("valid"),
        uid: "vc-uid".to_owned(),
        owner: Some(super::Owner::virtual_cluster("vc1", "vc-uid")),
        placement: super::Placement::default(),
        api_service_ip: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 50)),
        dns_service_ip: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 51)),
        cluster_domain: "cluster.local".to_owned(),
        policy: GrantedPolicy::default(),
        translate_images: std::collections::BTreeMap::new(),
        node_selector: std::collections::BTreeMap::new(),
        api_ca: String::new(),
    }
}

/// The same with a policy that names nothing.
pub(crate) fn open_view() -> View {
    let all = || vec!["*".to_owned()];
    let bounds = PolicyBounds {
        pod_annotations: all(),
        service_annotations: all(),
        ingress_annotations: all(),
        other_annotations: all(),
        labels: all(),
        ingress_domains: all(),
        static_volumes: true,
        priority_classes: all(),
        runtime_classes: all(),
        schedulers: all(),
        csi_drivers: all(),
        network_volumes: all(),
        tolerations: all(),
        service_types: all(),
        load_balancer_addresses: true,
        endpoints: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
        ..PolicyBounds::default()
    };
    View { policy: GrantedPolicy::of(bounds, Policy::default()), ..view() }
}

/// The StatefulSet that owns what `portico syncer` makes for [`view`]'s tenant.
pub(crate) fn stateful_set() -> super::Owner {
    super::Owner {
        api_version: "apps/v1".to_owned(),
        kind: "StatefulSet".to_owned(),
        name: "vc1".to_owned(),
        uid: "sts-uid".to_owned(),
        controller: false,
    }
}

/// The vcluster that [`view`]'s tenant was before.
pub(crate) fn old_vcluster() -> Vcluster {
    Vcluster {
        suffix: "vc1".to_owned(),
        namespace: "team-a".to_owned(),
        stateful_set: ("vc1".to_owned(), "sts-uid".to_owned()),
        api: "10.96.0.50".to_owned(),
        dns: "10.96.0.10".to_owned(),
    }
}

/// Keys that the code looks for, so that hostile shapes are met at every place.
const KEYS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "name",
    "namespace",
    "uid",
    "labels",
    "annotations",
    "containers",
    "initContainers",
    "ephemeralContainers",
    "volumes",
    "projected",
    "sources",
    "serviceAccountToken",
    "downwardAPI",
    "items",
    "fieldRef",
    "fieldPath",
    "env",
    "envFrom",
    "configMapKeyRef",
    "valueFrom",
    "configMap",
    "secret",
    "secretName",
    "ports",
    "port",
    "nodePort",
    "clusterIP",
    "clusterIPs",
    "selector",
    "matchLabels",
    "matchExpressions",
    "key",
    "operator",
    "values",
    "affinity",
    "podAffinity",
    "requiredDuringSchedulingIgnoredDuringExecution",
    "labelSelector",
    "namespaceSelector",
    "namespaces",
    "topologySpreadConstraints",
    "securityContext",
    "capabilities",
    "add",
    "privileged",
    "sysctls",
    "hostAliases",
    "dnsConfig",
    "options",
    "tolerations",
    "conditions",
    "type",
    "containerStatuses",
    "image",
    "resources",
    "requests",
    "limits",
    "subsets",
    "addresses",
    "endpoints",
    "ip",
    "claimRef",
    "rules",
    "http",
    "paths",
    "backend",
    "service",
    "tls",
    "involvedObject",
    "message",
    "data",
    "lastTimestamp",
    "deletionTimestamp",
    "portico.dev/cluster",
];

/// Any JSON, often with the keys of real objects in the wrong places and of the wrong types.
pub(crate) fn hostile() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~é\\n]{0,12}".prop_map(Value::from),
        prop::sample::select(KEYS.to_vec()).prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 96, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(KEYS.to_vec()), inner), 0..8).prop_map(|pairs| Value::Object(
                pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>()
            )),
        ]
    })
}

/// A real object with hostile JSON at one random place: gets further into the code than noise alone.
pub(crate) fn poisoned(base: Value) -> impl Strategy<Value = Value> {
    (hostile(), any::<u32>()).prop_map(move |(poison, seed)| {
        let mut object = base.clone();
        let mut seed = seed;
        poison_at(&mut object, poison, &mut seed);
        object
    })
}

fn poison_at(place: &mut Value, poison: Value, seed: &mut u32) {
    let roll = *seed % 7;
    *seed /= 7;
    let inner = match place {
        Value::Object(map) if roll != 0 && !map.is_empty() => {
            map.values_mut().nth(*seed as usize % 5).into_iter().next()
        }
        Value::Array(items) if roll != 0 && !items.is_empty() => items.first_mut(),
        _ => None,
    };
    match inner {
        Some(inner) => poison_at(inner, poison, seed),
        None => *place = poison,
    }
}
