//! What a hostile tenant asks of the host's controllers, schedulers and drivers by its objects: they hear nothing of it, and
//! an event names the setting that decides. What ordinary tenants do with the same fields works all the same.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{AGNHOST, Dump, Space, alpha, beta, eventually, eventually_is, sleeper};

fn sleeping(name: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut pod: Value = serde_saphyr::from_str(&sleeper(name)).expect("a pod");
    change(&mut pod);
    pod.to_string()
}

/// Findings S7 and S8.
#[test]
fn hostile_labels_and_annotations_ask_nothing_of_host_controllers() {
    let space = beta().space("asking");
    let _dump = Dump(vec![beta()]);
    let from = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    space.apply(&sleeping("box", |pod| {
        pod["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("true");
        pod["metadata"]["annotations"] =
            json!({"k8s.v1.cni.cncf.io/networks": "host-net", "iam.amazonaws.com/role": "admin"});
        pod["spec"]["containers"][0]["env"] = json!([
            from("NETWORKS", "metadata.annotations['k8s.v1.cni.cncf.io/networks']"),
            from("INJECT", "metadata.labels['sidecar.istio.io/inject']"),
        ]);
    }));
    space.wait("pod/box", "condition=Ready");
    let metadata = beta().on_host(&["get", "pod", &space.host_name("box"), "-o", "json"]).json()["metadata"].take();
    for (map, key) in [
        ("labels", "sidecar.istio.io/inject"),
        ("annotations", "k8s.v1.cni.cncf.io/networks"),
        ("annotations", "iam.amazonaws.com/role"),
    ] {
        assert!(metadata[map][key].is_null(), "{key}: {metadata}");
    }
    assert_eq!(space.sh("box", "echo $NETWORKS $INJECT").ok().trim(), "host-net true", "the pod reads its own");
    space.told("box", &["k8s.v1.cni.cncf.io/networks", "`podAnnotations`"]);
    let ingress = |name: &str, host: &str, annotations: Value| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name, "annotations": annotations},
            "spec": {"tls": [{"hosts": [host], "secretName": "minted"}], "rules": [{"host": host, "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}})
    };
    let own = format!("{}.example.test", space.name);
    for (name, host, annotations) in [
        ("bank", "bank.example.com", json!({})),
        ("snippet", &own, json!({"haproxy-ingress.github.io/config-backend": "http-request return"})),
        ("alias", &own, json!({"nginx.ingress.kubernetes.io/server-alias": "bank.example.com"})),
        ("group", &own, json!({"alb.ingress.kubernetes.io/group.name": "platform"})),
    ] {
        space.apply(&ingress(name, host, annotations).to_string());
        space.told(
            name,
            &["not made on the host", if name == "bank" { "`ingressDomains`" } else { "`ingressAnnotations`" }],
        );
    }
    space.apply(&ingress("minting", &own, json!({"cert-manager.io/cluster-issuer": "corp"})).to_string());
    let name = space.host_name("minting");
    eventually_is("the ordinary Ingress", || space.on_host("ingresses") == BTreeSet::from([name.clone()]));
    let found = beta().on_host(&["get", "ingress", &name, "-o", "json"]).json();
    assert!(found["metadata"]["annotations"]["cert-manager.io/cluster-issuer"].is_null(), "{found}");
}

/// Finding S10.
#[test]
fn hostile_endpoints_and_external_names_lead_no_deputy_to_others() {
    let (mine, theirs) = (alpha().space("endpoint-owner"), beta().space("endpoint-thief"));
    let _dump = Dump(vec![alpha(), beta()]);
    mine.pod("box");
    theirs.pod("own");
    let address = |space: &Space, pod: &str| {
        space.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"]).ok().trim().to_owned()
    };
    let (foreign, own) = (address(&mine, "box"), address(&theirs, "own"));
    let of =
        |pod: &str, ip: &str| json!({"ip": ip, "targetRef": {"kind": "Pod", "name": pod, "namespace": theirs.name}});
    let addresses = json!([{"ip": foreign}, of("own", &foreign), of("own", &own)]);
    theirs.apply(
        &json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}},
            {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"},
                "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "away"},
                "spec": {"type": "ExternalName", "externalName": "kubernetes.default.svc.cluster.local"}}]})
        .to_string(),
    );
    theirs.told("web", &[&foreign, "`endpoints`"]);
    let found = eventually("the Endpoints on the host", || {
        beta().on_host(&["get", "endpoints", &theirs.host_name("web"), "-o", "json"]).result()
    });
    assert!(found.contains(&format!("\"{own}\"")) && !found.contains(&format!("\"{foreign}\"")), "{found}");
    theirs.told("away", &["`serviceTypes`"]);
    assert_eq!(theirs.on_host("services"), BTreeSet::from([theirs.host_name("web")]));
    let line = "nslookup -type=a away.$(sed -n 's/^search \\([^ ]*\\).*/\\1/p' /etc/resolv.conf)";
    theirs.sh("own", line).ok();
}

#[test]
fn hostile_pods_get_no_driver_class_scheduler_or_node_of_the_host() {
    let space = beta().space("classes");
    let _dump = Dump(vec![beta()]);
    let volume = |source: Value| {
        let mut volume = source;
        volume["name"] = json!("v");
        json!([volume])
    };
    for (name, field, value, setting) in [
        ("csi", "volumes", volume(json!({"csi": {"driver": "secrets-store.csi.k8s.io"}})), "`csiDrivers`"),
        ("nfs", "volumes", volume(json!({"nfs": {"server": "192.0.2.1", "path": "/"}})), "`networkVolumes`"),
        ("scheduler", "schedulerName", json!("batch"), "`schedulers`"),
    ] {
        space.apply(&sleeping(name, |pod| pod["spec"][field] = value));
        space.told(name, &[setting]);
    }
    space.apply(
        &json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "theirs"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Mi"}}}})
        .to_string(),
    );
    space.told("theirs", &["`staticVolumes`"]);
    space.apply(&sleeping("everywhere", |pod| {
        pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        pod["spec"]["terminationGracePeriodSeconds"] = json!(31_536_000);
    }));
    space.wait("pod/everywhere", "condition=Ready");
    space.told("everywhere", &["`tolerations`"]);
    let spec = beta().on_host(&["get", "pod", &space.host_name("everywhere"), "-o", "json"]).json()["spec"].take();
    let all = spec["tolerations"].as_array().expect("the host's own");
    assert!(all.iter().all(|toleration| toleration["key"].is_string()), "{spec}");
    assert_eq!(spec["terminationGracePeriodSeconds"], 3600);
    space.kubectl(&["delete", "pod", "everywhere", "--grace-period=1"]).ok();
    assert_eq!(space.on_host("persistentvolumeclaims"), BTreeSet::new());
}

/// Operators select by labels of their own: these stand elsewhere on the host, and everything that selects follows.
#[test]
fn services_find_pods_by_any_label() {
    let space = alpha().space("operator");
    let _dump = Dump(vec![alpha()]);
    space.pod("box");
    space.apply(
        &json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db-1", "labels": {"cnpg.io/cluster": "db"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [
                    {"name": "main", "image": AGNHOST, "args": ["netexec", "--http-port=8080"]}]}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"},
                "spec": {"selector": {"cnpg.io/cluster": "db"}, "ports": [{"port": 80, "targetPort": 8080}]}}]})
        .to_string(),
    );
    space.wait("pod/db-1", "condition=Ready");
    let said = eventually("an answer by the Service", || {
        space.sh("box", "/bin/wget -q -O - -T 5 http://db/hostname").result()
    });
    assert_eq!(said.trim(), "db-1");
}
