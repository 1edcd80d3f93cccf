//! What is rendered, against files that a person has looked at and against what k3s understands.

use std::sync::LazyLock;

use serde_json::json;

use super::datastore::Datastore;
use super::manifests::{headless_service, service, service_account, stateful_set};
use super::plan::Plan;
use super::*;
use crate::config::OperatorConfig;
use crate::crd::{StorageKind, VirtualClusterSpec, VirtualClusterStatus, pki};
use crate::names::TenantId;

/// Data in the pod.
static IN_THE_POD: StorageStatus =
    StorageStatus { kind: StorageKind::Pod, size: String::new(), class: String::new(), reason: String::new() };

static CONFIG: LazyLock<OperatorConfig> = LazyLock::new(OperatorConfig::default);

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/operator/control_plane/golden");

fn cluster(distro: Distro) -> Cluster {
    let id = TenantId::parse("team-a", "dev").expect("id");
    let spec = VirtualClusterSpec { distro, ..VirtualClusterSpec::default() };
    let status = VirtualClusterStatus::default();
    Cluster { id, uid: "uid-1".to_owned(), generation: 1, is_leaving: false, is_pushed: false, spec, status }
}

fn plan(cluster: &Cluster) -> Plan<'_> {
    Plan {
        cluster,
        image: "example.com/control-plane:1",
        service_cidr: "10.96.0.0/16",
        service_ip: "10.96.0.7",
        gateway_ip: "10.96.0.8",
        pki_digest: "abc",
        datastore: None,
        storage: &IN_THE_POD,
        grown: None,
        config: &CONFIG,
    }
}

fn volume(class: &str) -> StorageStatus {
    let (size, class) = ("2Gi".to_owned(), class.to_owned());
    StorageStatus { kind: StorageKind::Volume, size, class, reason: String::new() }
}

fn with_datastore(cluster: &Cluster) -> Plan<'_> {
    Plan { datastore: Some(Datastore::example()), ..plan(cluster) }
}

fn golden(file: &str, objects: &[Value]) {
    let path = format!("{FOLDER}/{file}");
    let text: String = objects.iter().map(|o| format!("---\n{}", serde_saphyr::to_string(o).expect("yaml"))).collect();
    if std::env::var_os("PORTICO_BLESS").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == text, "{file} differs; look at the change, then run with PORTICO_BLESS=1:\n{text}");
}

fn containers(set: &Value) -> Vec<Value> {
    let spec = &set["spec"]["template"]["spec"];
    [&spec["initContainers"], &spec["containers"]]
        .iter()
        .flat_map(|c| c.as_array().cloned().unwrap_or_default())
        .collect()
}

fn arguments(plan: &Plan<'_>) -> Vec<String> {
    let set = stateful_set(plan);
    let args = set["spec"]["template"]["spec"]["containers"][0]["args"].as_array().expect("args").clone();
    args.iter().map(|arg| arg.as_str().expect("text").to_owned()).collect()
}

#[test]
fn ephemeral() {
    let cluster = cluster(Distro::K8s);
    let set = stateful_set(&plan(&cluster));
    golden("ephemeral.yaml", &[service_account(&cluster), service(&cluster), headless_service(&cluster), set]);
}

#[test]
fn with_a_claim_and_resources() {
    let mut cluster = cluster(Distro::K8s);
    cluster.spec.resources.requests = [("memory".to_owned(), "1Gi".to_owned())].into();
    cluster.spec.resources.limits = [("memory".to_owned(), "2Gi".to_owned())].into();
    golden("claim.yaml", &[stateful_set(&Plan { storage: &volume("fast"), ..plan(&cluster) })]);
}

/// Whoever may only edit a VirtualCluster can take less of the node, never more, whatever he writes.
#[test]
fn limits_are_within_what_the_configuration_allows() {
    let of = |limits: &[(&str, &str)], requests: &[(&str, &str)]| {
        let mut cluster = cluster(Distro::K8s);
        let map = |of: &[(&str, &str)]| of.iter().map(|(r, q)| ((*r).to_owned(), (*q).to_owned())).collect();
        cluster.spec.resources.limits = map(limits);
        cluster.spec.resources.requests = map(requests);
        let set = stateful_set(&plan(&cluster));
        let container = &set["spec"]["template"]["spec"]["containers"][0];
        let resources = container["resources"].clone();
        let memory = container["env"].as_array().expect("env").iter().find(|e| e["name"] == "GOMEMLIMIT").cloned();
        (resources["limits"].clone(), resources["requests"].clone(), memory.expect("GOMEMLIMIT")["value"].clone())
    };
    let (limits, requests, heap) = of(&[], &[]);
    assert_eq!(limits, json!({"cpu": "2", "memory": "2Gi", "ephemeral-storage": "4Gi"}));
    assert_eq!((requests, heap), (json!({"cpu": "50m", "memory": "256Mi"}), json!("1825361060")));
    let (limits, requests, _) = of(&[("memory", "128Mi"), ("cpu", "1000")], &[("cpu", "12")]);
    assert_eq!(limits, json!({"cpu": "8", "memory": "128Mi", "ephemeral-storage": "4Gi"}));
    assert_eq!(requests, json!({"cpu": "8", "memory": "128Mi"}), "no pod asks for more than its limit");
    let (limits, ..) = of(&[("memory", "999999999999999999999Ei"), ("cpu", "0x10")], &[]);
    assert_eq!(
        (&limits["memory"], &limits["cpu"]),
        (&json!("2Gi"), &json!("2")),
        "what cannot be read is no way around"
    );
}

/// Twice the bound is what a store takes that is deleted as a whole: that must fit.
#[test]
fn a_store_is_bounded_by_where_it_is() {
    let cluster = cluster(Distro::K8s);
    let (gibibyte, of) = (1_u64 << 30, |plan: &Plan<'_>| plan::store_bound(plan));
    let bound = of(&Plan { storage: &volume(""), ..plan(&cluster) }).expect("a bound of 2Gi");
    assert!(bound > gibibyte / 2 && bound * 21 / 10 < 2 * gibibyte, "{bound}");
    let bound = of(&plan(&cluster)).expect("a bound of the pod's 4Gi");
    assert!(bound > gibibyte && bound * 21 / 10 < 3 * gibibyte, "{bound}");
    assert_eq!(of(&with_datastore(&cluster)), None);
    let size = "as much as there is".to_owned();
    assert_eq!(of(&Plan { storage: &StorageStatus { size, ..volume("") }, ..plan(&cluster) }), None);
}

#[test]
fn two_replicas_with_a_database() {
    let mut cluster = cluster(Distro::K8s);
    cluster.spec.replicas = 2;
    golden("k8s-datastore.yaml", &[stateful_set(&with_datastore(&cluster))]);
}

#[test]
fn k3s_with_a_claim() {
    let cluster = cluster(Distro::K3s);
    golden("k3s.yaml", &[stateful_set(&Plan { storage: &volume(""), ..plan(&cluster) })]);
}

#[test]
fn k3s_two_replicas_with_a_database() {
    let mut cluster = cluster(Distro::K3s);
    cluster.spec.replicas = 2;
    golden("k3s-datastore.yaml", &[stateful_set(&with_datastore(&cluster))]);
}

#[test]
fn k3s_with_an_etcd_inside() {
    let mut cluster = cluster(Distro::K3s);
    cluster.spec.storage.embedded_etcd = true;
    let set = stateful_set(&plan(&cluster));
    golden("k3s-etcd.yaml", &[set]);
}

/// Every flag that is rendered is one of k3s' own, for all versions and stores.
#[test]
fn k3s_knows_its_flags() {
    let known = std::fs::read_to_string(format!("{FOLDER}/k3s-server-flags.txt")).expect("there");
    let known: Vec<&str> = known.lines().filter(|line| line.starts_with("--")).collect();
    assert!(known.len() > 50, "{known:?}");
    for version in ["", "v1.28.15-k3s1", "v1.34.4+k3s1"] {
        for embedded_etcd in [false, true] {
            let mut cluster = cluster(Distro::K3s);
            cluster.spec.version = version.to_owned();
            cluster.spec.storage.embedded_etcd = embedded_etcd;
            let args = arguments(&plan(&cluster));
            assert_eq!(args[0], "server");
            assert_eq!(args.contains(&"--cluster-init".to_owned()), embedded_etcd);
            for arg in &args[1..] {
                let flag = arg.split('=').next().expect("a name");
                assert!(known.contains(&flag), "{flag} is no flag of k3s server");
            }
        }
    }
}

/// Every file that our own control plane reads is mounted, the optional ones included.
#[test]
fn what_the_control_plane_reads_is_mounted() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/control-plane/arguments.go");
    let source = std::fs::read_to_string(source).expect("there");
    let read: Vec<&str> = source.split('"').filter(|text| is_pki_file(text)).collect();
    assert!(read.contains(&pki::API_SERVER) && read.contains(&pki::AGGREGATOR_KEY), "{read:?}");
    let set = stateful_set(&plan(&cluster(Distro::K8s)));
    let volumes = set["spec"]["template"]["spec"]["volumes"].as_array().expect("volumes").clone();
    let pki = volumes.iter().find(|v| v["name"] == "pki").expect("the PKI's volume");
    let mounted: Vec<&str> =
        pki["secret"]["items"].as_array().into_iter().flatten().filter_map(|i| i["path"].as_str()).collect();
    for file in read {
        assert!(mounted.contains(&file), "{file} is not mounted");
    }
}

fn is_pki_file(text: &str) -> bool {
    let stem = text.strip_suffix(".crt").or_else(|| text.strip_suffix(".key")).or_else(|| text.strip_suffix(".pub"));
    stem.is_some_and(|stem| !stem.is_empty() && stem.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
}

/// An older API server ends at a flag or controller that it does not know.
#[test]
fn older_versions_get_only_what_they_know() {
    let rendered = |version: &str| {
        let mut cluster = cluster(Distro::K3s);
        cluster.spec.version = version.to_owned();
        arguments(&plan(&cluster)).join(" ")
    };
    assert!(
        !rendered("v1.28.15-k3s1").contains("taint-eviction") && !rendered("v1.28.15-k3s1").contains("uid-headers")
    );
    assert!(rendered("v1.32.1-k3s1").contains(",-taint-eviction-controller"));
    assert!(!rendered("v1.32.1-k3s1").contains("device-taint") && !rendered("v1.32.1-k3s1").contains("uid-headers"));
    assert!(rendered("v1.33.0-k3s1").contains(",-device-taint-eviction-controller"));
    assert!(rendered("").contains("requestheader-uid-headers=X-Remote-Uid"));
}

/// Both distributions leave the same work to the host.
#[test]
fn k3s_disables_the_controllers_that_our_own_control_plane_disables() {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/control-plane/arguments.go");
    let ours = std::fs::read_to_string(ours).expect("there");
    let ours =
        ours.split_once("disabledControllers = []string{").expect("the list").1.split_once('}').expect("its end").0;
    let mut ours: Vec<&str> =
        ours.split(',').map(|name| name.trim().trim_matches('"')).filter(|n| !n.is_empty()).collect();
    let long = |short: &str| match short {
        "nodeipam" => "node-ipam-controller".to_owned(),
        "nodelifecycle" => "node-lifecycle-controller".to_owned(),
        "attachdetach" => "persistentvolume-attach-detach-controller".to_owned(),
        other if other.ends_with("-controller") => other.to_owned(),
        other => format!("{other}-controller"),
    };
    let cluster = cluster(Distro::K3s);
    let args = arguments(&plan(&cluster));
    let theirs =
        args.iter().find_map(|a| a.strip_prefix("--kube-controller-manager-arg=controllers=*,")).expect("flag");
    let mut theirs: Vec<String> = theirs.split(',').map(|name| long(name.strip_prefix('-').expect("off"))).collect();
    ours.sort_unstable();
    theirs.sort_unstable();
    assert_eq!(theirs, ours);
}

#[test]
fn no_container_has_more_rights_than_it_needs() {
    for distro in [Distro::K8s, Distro::K3s] {
        let mut cluster = cluster(distro);
        cluster.spec.storage.embedded_etcd = distro == Distro::K3s;
        let set = stateful_set(&with_datastore(&cluster));
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        for container in containers(&set) {
            assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]), "{container}");
            assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false, "{container}");
        }
    }
}

#[test]
fn keys_that_the_control_plane_does_not_need_are_not_mounted() {
    let k8s = stateful_set(&plan(&cluster(Distro::K8s))).to_string();
    for key in [pki::SERVER_CA_KEY, pki::FRONT_PROXY_CA_KEY, pki::FRONT_PROXY_KEY, pki::GATEWAY_KEY, pki::K3S_TOKEN] {
        assert!(!k8s.contains(&format!("\"{key}\"")), "{key}");
    }
    let k3s = stateful_set(&plan(&cluster(Distro::K3s))).to_string();
    for key in [pki::FRONT_PROXY_KEY, pki::GATEWAY_KEY] {
        assert!(!k3s.contains(&format!("\"{key}\"")), "{key}");
    }
}

#[test]
fn ready_only_in_the_newest_generation_and_revision() {
    let set = |observed: i64, ready: i64| json!({"metadata": {"generation": 2}, "status": {"observedGeneration": observed, "readyReplicas": ready}});
    assert!(is_ready(&set(2, 1)));
    assert!(!is_ready(&set(1, 1)));
    assert!(!is_ready(&set(2, 0)));
    assert!(!is_ready(&json!({"metadata": {"generation": 1}})));
    let mut rolling = set(2, 1);
    rolling["status"]["currentRevision"] = "dev-1".into();
    rolling["status"]["updateRevision"] = "dev-2".into();
    assert!(!is_ready(&rolling), "the pod that is ready is an old one");
    rolling["status"]["currentRevision"] = "dev-2".into();
    assert!(is_ready(&rolling));
}

#[test]
fn the_owner_reads_why_the_pod_does_not_start() {
    let failing = json!({"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}});
    let pod = json!({"status": {"containerStatuses": [failing]}});
    let (reason, message) = explain(std::slice::from_ref(&pod));
    assert_eq!(reason, "PodFailing");
    assert!(message.contains("ErrImagePull: no such image"));
    let mut init = json!({"status": {"initContainerStatuses": [failing],
        "containerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}]}});
    init["status"]["initContainerStatuses"][0]["ready"] = false.into();
    assert!(explain(&[init]).1.contains("ErrImagePull"));
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(explain(&[ready.clone(), pod]).0, "PodFailing", "the one that holds things up");
    assert_eq!(explain(&[ready]).0, "Updating");
    assert_eq!(explain(&[]).0, "NoPod");
}

/// An API server may leave a zero out, and what is left out differs from an intent that names it: it would be written again
/// in every round.
#[test]
fn no_zero_is_asked_for() {
    fn has_zero(value: &Value) -> bool {
        match value {
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::Array(items) => items.iter().any(has_zero),
            Value::Object(map) => map.values().any(has_zero),
            _ => false,
        }
    }
    assert!(has_zero(&json!({"a": [{"b": 0}]})), "the test sees one");
    for distro in [Distro::K8s, Distro::K3s] {
        let cluster = cluster(distro);
        for object in
            [stateful_set(&plan(&cluster)), service(&cluster), headless_service(&cluster), service_account(&cluster)]
        {
            assert!(!has_zero(&object), "{object}");
        }
    }
}
