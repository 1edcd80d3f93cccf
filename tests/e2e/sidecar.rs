//! The original form: k3s (its stand-in) and Portico in one pod, in one namespace, with the rights of the original Role.
//!
//! Everything that a tenant does is tested by the same files as the shared form, with `PORTICO_E2E_FORM=sidecar`; here is
//! what this form alone promises.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::sidecar::{self, SYNCER, manifest, original};
use crate::harness::{
    BUSYBOX, Dump, Invocation, Tenant, eventually, eventually_is, host, host_kubeconfig, kill_containers, names, node,
    portico, raw, restarts, run_id, sleeper, with_user,
};

fn create(name: &str, topic: &str) -> &'static Tenant {
    let namespace = format!("e2e-{topic}-{}", run_id());
    Box::leak(Box::new(Tenant::sidecar(name, &namespace)))
}

fn done(tenant: &Tenant) {
    host(&["delete", "namespace", &tenant.namespace, "--wait=false"]);
}

#[test]
fn the_manifest_differs_by_two_image_names() {
    let (before, after) = (original("dev-cluster.yaml"), manifest("dev-cluster"));
    let differing: Vec<(&str, &str)> = before.lines().zip(after.lines()).filter(|(a, b)| a != b).collect();
    assert_eq!(before.lines().count(), after.lines().count());
    assert_eq!(differing.len(), 2, "{differing:?}");
    assert!(differing.iter().all(|(a, b)| a.contains("image:") && b.contains("image:")), "{differing:?}");
}

/// The manifest that new users are given is the original with today's images.
#[test]
fn the_manifest_of_today_is_the_original_but_for_the_images() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/sidecar/dev-cluster.yaml");
    let today = std::fs::read_to_string(path).expect("a manifest");
    let images = |text: &str| text.lines().filter(|l| l.contains("image:")).map(str::to_owned).collect::<Vec<_>>();
    let rest = |text: &str| text.lines().filter(|l| !l.contains("image:")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(rest(&today), rest(&original("dev-cluster.yaml")));
    assert!(images(&today)[0].contains("rancher/k3s:v1.") && images(&today)[1].contains("portico/syncer:"), "{today}");
}

#[test]
fn the_original_manifest_is_a_working_cluster() {
    let tenant = create("dev-cluster", "original");
    let _dump = Dump(vec![tenant]);
    let space = tenant.space("work");
    // A node made up from pods, under the host's own name.
    space.pod("box");
    let nodes = tenant.kubectl(&["get", "nodes", "-o", "json"]).json();
    let real = names(&host(&["get", "nodes", "-o", "json"]).json());
    assert_eq!(names(&nodes), real);
    for node in nodes["items"].as_array().expect("nodes") {
        assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], node["metadata"]["name"]);
    }
    let mut pinned: Value = serde_saphyr::from_str(&sleeper("pinned")).expect("a pod");
    pinned["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": real.first()});
    space.apply(&pinned.to_string());
    space.wait("pod/pinned", "condition=Ready");
    // A volume made up from its claim.
    space.apply(
        &json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
        .to_string(),
    );
    space.wait("pvc/data", "jsonpath={.status.phase}=Bound");
    let volume = space.kubectl(&["get", "pvc", "data", "-o", "jsonpath={.spec.volumeName}"]).ok();
    let volume = tenant.kubectl(&["get", "pv", &volume, "-o", "json"]).json();
    assert_eq!(volume["spec"]["capacity"]["storage"], "1Gi");
    // Everything on the host goes with the StatefulSet, and nothing of it is controlled by it.
    let owner = tenant.on_host(&["get", "statefulset", "dev-cluster", "-o", "jsonpath={.metadata.uid}"]).ok();
    let labels = "portico.dev/cluster=dev-cluster";
    let copies = tenant.on_host(&["get", "pods,pvc,services,configmaps,secrets", "-l", labels, "-o", "json"]).json();
    for copy in copies["items"].as_array().expect("a list") {
        let owners = copy["metadata"]["ownerReferences"].as_array().expect("an owner");
        let of_pod = owners.iter().any(|o| o["kind"] == "Pod");
        assert!(of_pod || owners.iter().any(|o| o["uid"] == owner.as_str() && o["controller"].is_null()), "{copy}");
    }
    done(tenant);
}

#[test]
fn what_is_missing_is_said_and_a_right_that_appears_is_used() {
    let tenant = create("grow", "rights");
    let _dump = Dump(vec![tenant]);
    eventually_is("k3s is asked for its range", || tenant.readyz().contains("service range"));
    let told = tenant.readyz();
    for line in [
        "nodes: nodes are made up",
        "endpointslices: Services",
        "pods/ephemeralcontainers",
        "service range: 10.96.0.0/16",
    ] {
        assert!(told.contains(line), "{line:?} in {told}");
    }
    assert!(told.contains("readyz check passed"), "{told}");
    let space = tenant.space("rights");
    space.pod("box");
    // kubectl debug: said in an event, and nothing is tried at the host.
    let debug = |name: &str| {
        let arguments =
            ["debug", "box", "--image=docker.io/portico/busybox:1", "-c", name, "--attach=false", "--", "sleep", "60"];
        space.kubectl(&arguments)
    };
    debug("early").ok();
    let selector = "--field-selector=involvedObject.name=box,reason=SyncLimited";
    eventually("the event", || {
        let said = space.kubectl(&["get", "events", selector, "-o", "jsonpath={.items[*].message}"]).result()?;
        if said.contains("pods/ephemeralcontainers") { Ok(()) } else { Err(said) }
    });
    let (role, account) = (format!("e2e-{}", tenant.namespace), format!("{}:grow", tenant.namespace));
    host(&["create", "clusterrole", &role, "--verb=get,list,watch", "--resource=nodes"]).ok();
    let subject = format!("--serviceaccount={account}");
    host(&["create", "clusterrolebinding", &role, &format!("--clusterrole={role}"), &subject]).ok();
    tenant.on_host(&["create", "role", "more", "--verb=patch", "--resource=pods/ephemeralcontainers"]).ok();
    tenant.on_host(&["create", "rolebinding", "more", "--role=more", &subject]).ok();
    let node = names(&host(&["get", "nodes", "-o", "json"]).json()).pop_first().expect("a node");
    let real = host(&["get", "node", &node, "-o", "jsonpath={.status.nodeInfo.kernelVersion}"]).ok();
    let shown = || tenant.kubectl(&["get", "node", &node, "-o", "jsonpath={.status.nodeInfo.kernelVersion}"]).out();
    assert_ne!(shown(), real);
    eventually_is("the real node is shown", || shown() == real);
    eventually_is("and the container runs", || {
        let names = ["get", "pod", &space.host_name("box"), "-o", "jsonpath={.spec.ephemeralContainers[*].name}"];
        tenant.on_host(&names).out() == "early"
    });
    assert!(!tenant.readyz().contains("made up from the pods"), "{}", tenant.readyz());
    assert_eq!(restarts(&tenant.namespace, "app=grow"), 0, "without a restart");
    host(&["delete", "clusterrolebinding,clusterrole", &role]).ok();
    eventually_is("a right that goes is not missed", || tenant.readyz().contains("nodes are made up"));
    eventually_is("the node is made up again", || shown() == "unknown");
    space.kubectl(&["get", "pod", "box"]).ok();
    done(tenant);
}

/// The rights of the original Role are enough, and nothing else is ever tried.
#[test]
fn no_request_is_refused() {
    // The namespace that `tests/cluster/up` has audited; an earlier run's may still be going.
    host(&["delete", "namespace", "e2e-audited", "--ignore-not-found", "--timeout=120s"]).ok();
    let earlier = sidecar::audited("e2e-audited").len();
    let tenant: &'static Tenant = Box::leak(Box::new(Tenant::sidecar("quiet", "e2e-audited")));
    let _dump = Dump(vec![tenant]);
    let space = tenant.space("work");
    space.pod("box");
    space.sh("box", "true").ok();
    space.kubectl(&["create", "service", "clusterip", "web", "--tcp=80:8080"]).ok();
    space.kubectl(&["delete", "pod", "box"]).ok();
    eventually_is("the host follows", || space.on_host("pods").is_empty());
    let entries = sidecar::audited("e2e-audited").split_off(earlier);
    assert!(entries.len() > 20, "{} entries", entries.len());
    let mut refused = BTreeMap::new();
    let mut used = BTreeSet::new();
    for entry in &entries {
        let object = &entry["objectRef"];
        let sub = object["subresource"].as_str().map(|s| format!("/{s}")).unwrap_or_default();
        let what =
            format!("{} {}{sub}", entry["verb"].as_str().unwrap_or(""), object["resource"].as_str().unwrap_or(""));
        if matches!(entry["responseStatus"]["code"].as_i64(), Some(401 | 403)) {
            *refused.entry(what.clone()).or_insert(0) += 1;
        }
        used.insert(what);
    }
    assert_eq!(refused, BTreeMap::new(), "refused; used were {used:#?}");
    done(tenant);
}

#[test]
fn hostile_pods_do_not_come_behind_the_control_planes_service() {
    let tenant = create("guard", "guard");
    let _dump = Dump(vec![tenant]);
    let space = tenant.space("hostile");
    let mut pod: Value = serde_saphyr::from_str(&sleeper("impostor")).expect("a pod");
    pod["metadata"]["labels"] = json!({"app": "guard", "portico.dev/control-plane": "guard"});
    space.apply(&pod.to_string());
    space.wait("pod/impostor", "condition=Ready");
    // Inside, the label is as it was given, and Services select by it.
    space.kubectl(&["create", "service", "clusterip", "guard", "--tcp=80:8080"]).ok();
    let ip = space.kubectl(&["get", "pod", "impostor", "-o", "jsonpath={.status.podIP}"]).ok();
    eventually("the tenant's own Service finds it", || {
        let get = ["get", "endpoints", &space.host_name("guard"), "-o", "jsonpath={.subsets[*].addresses[*].ip}"];
        let found = tenant.on_host(&get).result()?;
        if found == ip { Ok(()) } else { Err(format!("{found} instead of {ip}")) }
    });
    let own = tenant.on_host(&["get", "pod", "guard-0", "-o", "jsonpath={.status.podIP}"]).ok();
    for service in ["guard", "guard-headless", "guard-nodeport"] {
        let get = ["get", "endpoints", service, "-o", "jsonpath={.subsets[*].addresses[*].ip}"];
        assert_eq!(tenant.on_host(&get).ok(), own, "{service}");
    }
    done(tenant);
}

/// `--target-namespace`: the copies land beside strangers, whose Services no tenant gets behind either.
#[test]
fn copies_in_another_namespace_are_guarded_there() {
    let (own, target) = (format!("e2e-away-{}", run_id()), format!("e2e-away-target-{}", run_id()));
    host(&["create", "namespace", &target]).ok();
    host(&["-n", &target, "create", "service", "clusterip", "shop", "--tcp=80:8080"]).ok();
    let manifest = manifest("away")
        .replace("- --suffix=away", &format!("- --suffix=away\n          - --target-namespace={target}"));
    // The Role has to be there as well.
    let role: Vec<&str> = manifest.split("\n---\n").filter(|part| part.starts_with("kind: Role\n")).collect();
    sidecar::apply(&target, role.first().expect("a Role"));
    let account = format!("--serviceaccount={own}:away");
    host(&["-n", &target, "create", "rolebinding", "away", "--role=away", &account]).ok();
    let tenant: &Tenant = Box::leak(Box::new(Tenant::sidecar_of("away", &own, &manifest)));
    let _dump = Dump(vec![tenant]);
    let mut pod: Value = serde_saphyr::from_str(&sleeper("impostor")).expect("a pod");
    pod["metadata"]["labels"] = json!({"app": "shop"});
    Invocation::kubectl(&tenant.kubeconfig, &["apply", "-f", "-"]).stdin(pod.to_string().as_bytes()).run().ok();
    tenant.kubectl(&["wait", "pod/impostor", "--for=condition=Ready", "--timeout=90s"]).ok();
    host(&["-n", &target, "get", "pod", "impostor-x-default-x-away"]).ok();
    // A pod of the namespace's own comes behind it; when that one is there, the other would be as well.
    let honest = ["run", "shop", "--labels=app=shop", "--image", BUSYBOX, "--", "sleep", "3600"];
    host(&[&["-n", &target], &honest[..]].concat()).ok();
    let text = |kind: &str, path: &str| host(&["-n", &target, "get", kind, "shop", "-o", path]).ok();
    let behind = || text("endpoints", "jsonpath={.subsets[*].addresses[*].ip}");
    eventually_is("the namespace's own pod is behind it", || !behind().is_empty());
    assert_eq!(behind(), text("pod", "jsonpath={.status.podIP}"));
    done(tenant);
    host(&["delete", "namespace", &target, "--wait=false"]);
}

#[test]
fn two_in_one_namespace_do_not_meet() {
    let namespace = format!("e2e-two-{}", run_id());
    let both: Vec<&'static Tenant> =
        ["mine", "theirs"].map(|name| &*Box::leak(Box::new(Tenant::sidecar(name, &namespace)))).into();
    let _dump = Dump(both.clone());
    for tenant in &both {
        Invocation::kubectl(&tenant.kubeconfig, &["apply", "-f", "-"]).stdin(sleeper("web").as_bytes()).run().ok();
    }
    for tenant in &both {
        tenant.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=90s"]).ok();
        tenant.kubectl(&["exec", "web", "--", "true"]).ok();
        tenant.on_host(&["get", "pod", &format!("web-x-default-x-{}", tenant.name)]).ok();
    }
    // Nor does a pod of one come behind the other's API or DNS.
    let mut pod: Value = serde_saphyr::from_str(&sleeper("impostor")).expect("a pod");
    pod["metadata"]["labels"] = json!({"app": "mine"});
    Invocation::kubectl(&both[1].kubeconfig, &["apply", "-f", "-"]).stdin(pod.to_string().as_bytes()).run().ok();
    both[1].kubectl(&["wait", "pod/impostor", "--for=condition=Ready", "--timeout=90s"]).ok();
    let own = both[0].on_host(&["get", "pod", "mine-0", "-o", "jsonpath={.status.podIP}"]).ok();
    let behind = ["get", "endpoints", "mine", "-o", "jsonpath={.subsets[*].addresses[*].ip}"];
    assert_eq!(both[0].on_host(&behind).ok(), own);
    // The credentials of one are worth nothing at the other.
    let thief = with_user(&both[0].kubeconfig, &crate::harness::user_of(&both[1].kubeconfig), "theirs-at-mine");
    crate::harness::kubectl(&thief, &["get", "pods"]).fails(&["unauthorized", "logged in", "not valid"]);
    // Deleting one StatefulSet takes what is its, and only that.
    both[1].on_host(&["delete", "statefulset", "theirs"]).ok();
    eventually("all of theirs goes", || {
        let label = "portico.dev/cluster=theirs";
        let left = both[1].on_host(&["get", "pods,services,configmaps,secrets,pvc", "-l", label, "-o", "name"]).ok();
        let secret = both[1].on_host(&["get", "secret", "theirs", "--ignore-not-found", "-o", "name"]).ok();
        if left.is_empty() && secret.is_empty() { Ok(()) } else { Err(left + &secret) }
    });
    both[0].kubectl(&["exec", "web", "--", "true"]).ok();
    host(&["delete", "namespace", &namespace, "--timeout=120s"]).ok();
}

#[test]
fn a_killed_syncer_goes_on_at_once_and_doubles_nothing() {
    let tenant = create("phoenix", "kill");
    let _dump = Dump(vec![tenant]);
    let space = tenant.space("kill");
    space.pod("before");
    let uid = || tenant.on_host(&["get", "pod", &space.host_name("before"), "-o", "jsonpath={.metadata.uid}"]).ok();
    let first = uid();
    // Both containers: the kubelet starts them again in the same pod.
    kill_containers(&tenant.namespace, "app=phoenix");
    eventually_is("both are started again", || restarts(&tenant.namespace, "app=phoenix") >= 2);
    eventually("the API answers again", || tenant.kubectl(&["get", "--raw", "/readyz"]).result());
    space.pod("after");
    assert_eq!(uid(), first);
    let lock = tenant.on_host(&["get", "configmap", "vcluster-phoenix-controller", "-o", "json"]).json();
    assert!(lock["metadata"]["annotations"]["control-plane.alpha.kubernetes.io/leader"].is_string(), "{lock}");
    done(tenant);
}

#[test]
fn whoever_comes_through_a_tls_ending_proxy_is_told_that_only_tokens_pass() {
    let tenant = create("edge", "edge");
    let _dump = Dump(vec![tenant]);
    let bare = with_user(&tenant.kubeconfig, &json!({}), "edge-bare");
    let forwarded = [("x-forwarded-for", "192.0.2.9"), ("x-forwarded-proto", "https")];
    let answer = raw(&bare, "/api/v1/namespaces", &forwarded, |_| {}).expect("an answer");
    answer.is_status(401);
    assert!(answer.text().contains("TLS passthrough") && answer.text().contains("token"), "{}", answer.text());
    // kubectl shows no text of a 401 but this.
    let warning = answer.headers.get("warning").and_then(|w| w.to_str().ok()).unwrap_or_default();
    assert!(warning.starts_with("299 - \"no credentials arrived"), "{warning}");
    let direct = raw(&bare, "/api/v1/namespaces", &[], |_| {}).expect("an answer");
    assert!(!direct.headers.contains_key("warning"));
    direct.is_status(401);
    assert!(!direct.text().contains("passthrough"), "{}", direct.text());
    // A token passes.
    let space = tenant.space("token");
    let account = space.account("reader", &json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]));
    let path = format!("/api/v1/namespaces/{}/pods", space.name);
    assert_eq!(raw(&account, &path, &forwarded, |_| {}).expect("an answer").code, 200);
    // k3s' own paths are not served, whoever asks.
    for path in ["/v1-k3s/server-bootstrap", "/cacerts", "/ping", "/db/info"] {
        let answer = raw(&tenant.kubeconfig, path, &[], |_| {}).expect("an answer");
        answer.is_status(404);
    }
    done(tenant);
}

/// A load balancer's address that comes later is in the certificate without a restart, and nothing that runs notices.
#[test]
fn a_load_balancers_address_comes_into_the_certificate() {
    let tenant = create("balanced", "balanced");
    let _dump = Dump(vec![tenant]);
    let space = tenant.space("balanced");
    let watch = space.invocation(&["get", "configmaps", "-w", "-o", "name"]).start();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "outside"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "balanced"}, "ports": [{"port": 443, "targetPort": 8443}]}});
    sidecar::apply(&tenant.namespace, &service.to_string());
    // What a cloud's controller would write; here an address of the node itself, so that it can be called.
    let node = node();
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": node}, {"hostname": "lb.example.test"}]}}});
    let patch = ["patch", "service", "outside", "--subresource=status", "--type=merge", "-p", &status.to_string()];
    tenant.on_host(&patch).ok();
    let names = ["get", "secret", "balanced", "-o", "jsonpath={.metadata.annotations.portico\\.dev/certificate-names}"];
    eventually_is("the certificate has it", || tenant.on_host(&names).out().contains("lb.example.test"));
    let port = tenant.on_host(&["get", "service", "outside", "-o", "jsonpath={.spec.ports[0].nodePort}"]).ok();
    let answer = raw(&tenant.kubeconfig, "/version", &[], |config| {
        config.cluster_url = format!("https://{node}:{port}").parse().expect("a URL");
        // Verified by the name of the load balancer.
        config.tls_server_name = Some("lb.example.test".to_owned());
    });
    assert_eq!(answer.expect("a TLS connection").code, 200);
    space.kubectl(&["create", "configmap", "still", "--from-literal=a=b"]).ok();
    watch.line_with("configmap/still");
    assert_eq!(restarts(&tenant.namespace, "app=balanced"), 0);
    done(tenant);
}

#[test]
fn connect_forwards_a_port_without_an_address() {
    let tenant = create("local", "connect");
    let _dump = Dump(vec![tenant]);
    let space = tenant.space("connect");
    space.pod("box");
    let run = |command: &[&str]| portico(&[&["connect", "local", "-n", &tenant.namespace, "--"], command].concat());
    assert!(run(&["kubectl", "get", "namespaces", "-o", "name"]).ok().contains(&space.name));
    assert_eq!(run(&["kubectl", "-n", &space.name, "exec", "box", "--", "echo", "inside"]).ok(), "inside\n");
    // A name that is there no more is said to be missing, not Portico.
    portico(&["connect", "nobody", "-n", &tenant.namespace]).fails(&["there is no virtual cluster nobody"]);
    done(tenant);
}

#[test]
fn names_resolve_whether_or_not_k3s_brings_its_own_dns() {
    let tenant = create("names", "dns");
    let _dump = Dump(vec![tenant]);
    // What k3s' own manifest makes: a Service with a fixed address that the host's own DNS has.
    let kept = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": "10.96.0.10", "selector": {"k8s-app": "kube-dns"}, "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}});
    Invocation::kubectl(&tenant.kubeconfig, &["apply", "-f", "-"]).stdin(kept.to_string().as_bytes()).run().ok();
    let space = tenant.space("dns");
    space.kubectl(&["create", "service", "clusterip", "web", "--tcp=80:8080"]).ok();
    space.pod("box");
    let resolv = space.sh("box", "cat /etc/resolv.conf").ok();
    let address = tenant.on_host(&["get", "service", "names", "-o", "jsonpath={.spec.clusterIP}"]).ok();
    assert!(resolv.contains(&format!("nameserver {address}")), "{resolv}");
    let web = space.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]).ok();
    eventually("the Service's name", || {
        let said = space.sh("box", &format!("nslookup web.{}.svc.cluster.local", space.name)).result()?;
        if said.contains(&web) { Ok(()) } else { Err(said) }
    });
    done(tenant);
}

#[test]
fn deleting_the_namespace_leaves_nothing() {
    let tenant = create("gone", "gone");
    let _dump = Dump(vec![tenant]);
    let space = tenant.space("gone");
    space.pod("box");
    assert!(tenant.on_host(&["get", "pod", "gone-0", "-o", "json"]).ok().contains(SYNCER));
    host(&["delete", "namespace", &tenant.namespace, "--timeout=120s"]).ok();
    let kinds = "clusterroles,clusterrolebindings,customresourcedefinitions,persistentvolumes";
    eventually("nothing of it is in the cluster's own scope", || {
        let left = host(&["get", kinds, "-o", "json"]).json();
        let mentions = |o: &&Value| o.to_string().contains(&tenant.namespace);
        let left: Vec<String> =
            left["items"].as_array().into_iter().flatten().filter(mentions).map(Value::to_string).collect();
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    });
    assert!(host_kubeconfig().exists());
}
