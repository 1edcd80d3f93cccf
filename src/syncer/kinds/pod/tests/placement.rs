//! Where a pod may run, how soon, and by which DNS.

use super::*;

#[test]
fn a_preset_node_is_kept_when_it_is_the_tenants() {
    let mut world = world();
    world.change_virtual("Pod", "default", "web", |p| p["spec"]["nodeName"] = json!("node-9"));
    let plan = world.plan(&PodKind, "default", "web");
    assert_eq!(plan.again_after, Some(15));
    assert!(writes(&plan).is_empty());
    world.change_virtual("Pod", "default", "web", |p| p["spec"]["nodeName"] = json!("node-1"));
    world.settle(&PodKind, "default", "web");
    assert_eq!(host(&world)["spec"]["nodeName"], "node-1");
}

#[test]
fn affinity_stays_inside_the_tenant() {
    let mut world = world();
    for (name, team) in [("default", "a"), ("other", "b"), ("third", "b")] {
        world.put_virtual("Namespace", json!({"metadata": {"name": name, "labels": {"team": team}}}));
    }
    world.change_virtual("Pod", "default", "web", |p| {
        let selector = json!({"matchLabels": {"app": "web"}});
        p["spec"]["affinity"] = json!({"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "t", "labelSelector": selector, "matchLabelKeys": ["app"]},
            {"topologyKey": "t", "labelSelector": selector, "namespaces": ["x"],
                "namespaceSelector": {"matchLabels": {"team": "b"}}},
            {"topologyKey": "t", "labelSelector": selector, "namespaceSelector": {}},
        ]}});
        p["spec"]["topologySpreadConstraints"] = json!([{"topologyKey": "t", "labelSelector": selector}]);
    });
    world.settle(&PodKind, "default", "web");
    let spec = host(&world)["spec"].clone();
    let terms = &spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let cluster = "/labelSelector/matchLabels/portico.dev~1cluster";
    let namespace = "/labelSelector/matchLabels/portico.dev~1namespace";
    for term in
        terms.as_array().expect("terms").iter().chain(spec["topologySpreadConstraints"].as_array().expect("list"))
    {
        assert_eq!(term.pointer(cluster), Some(&json!("vc1")));
        assert!(term.get("namespaces").is_none() && term.get("namespaceSelector").is_none());
    }
    assert_eq!(terms[0].pointer(namespace), Some(&json!("default")));
    assert_eq!(
        terms[0]["labelSelector"]["matchExpressions"],
        json!([{"key": "app", "operator": "In", "values": ["web"]}])
    );
    assert!(terms[0].get("matchLabelKeys").is_none());
    assert_eq!(terms[1]["labelSelector"]["matchExpressions"][0]["values"], json!(["other", "third", "x"]));
    assert_eq!(terms[2].pointer(namespace), None);
    assert_eq!(spec["topologySpreadConstraints"][0].pointer(namespace), Some(&json!("default")));
}

#[test]
fn dns_options_of_the_user_are_kept() {
    let mut world = world();
    world.change_virtual("Pod", "default", "web", |p| {
        p["spec"]["dnsConfig"] = json!({"nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3"], "searches": ["example.org", "cluster.local"],
            "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}]});
    });
    world.settle(&PodKind, "default", "web");
    assert_eq!(
        host(&world)["spec"]["dnsConfig"],
        json!({"nameservers": ["10.96.0.51", "1.1.1.1", "2.2.2.2"], "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}],
            "searches": ["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"]})
    );
}

#[test]
fn priority_classes_are_kept_when_the_host_has_them() {
    for (class, on_host, kept) in [("high", true, true), ("high", false, false), ("system-node-critical", true, false)]
    {
        let mut world = world();
        world.view.policy = open_view().policy;
        if on_host {
            world.put_host("PriorityClass", json!({"metadata": {"name": class}}));
        }
        world.change_virtual("Pod", "default", "web", |p| p["spec"]["priorityClassName"] = json!(class));
        world.settle(&PodKind, "default", "web");
        assert_eq!(host(&world)["spec"].get("priorityClassName").is_some(), kept, "{class} {on_host}");
    }
}

#[test]
fn what_the_policy_does_not_list_is_refused_and_named() {
    for (field, value, setting) in [
        ("runtimeClassName", json!("kata"), "runtimeClasses"),
        ("schedulerName", json!("batch"), "schedulers"),
        ("volumes", json!([{"name": "v", "csi": {"driver": "secrets-store.csi.k8s.io"}}]), "csiDrivers"),
        ("volumes", json!([{"name": "v", "nfs": {"server": "s", "path": "/"}}]), "networkVolumes"),
        ("containers", json!([{"name": "c", "image": "elsewhere.example.com/x"}]), "images"),
        ("containers", json!([{"name": "c", "image": "registry.example.com/x:1"}]), "imageDigests"),
    ] {
        let mut world = world();
        let images = if setting.starts_with("image") { "registry.example.com/*" } else { "*" };
        let bounds = PolicyBounds {
            images: vec![images.to_owned()],
            image_digests: setting == "imageDigests",
            ..PolicyBounds::default()
        };
        world.view.policy = GrantedPolicy::of(bounds, Policy::default());
        world.change_virtual("Pod", "default", "web", |p| p["spec"][field] = value.clone());
        world.settle(&PodKind, "default", "web");
        assert!(world.host("Pod", HOST).is_none(), "{setting}");
        assert!(
            world.explained.iter().any(|(_, m)| m.contains(&format!("`{setting}`"))),
            "{setting} {:?}",
            world.explained
        );
        world.view.policy = open_view().policy;
        world.settle(&PodKind, "default", "web");
        assert!(world.host("Pod", HOST).is_some(), "{setting}");
    }
}

#[test]
fn what_portico_does_not_know_stays_inside_and_is_reported() {
    let mut world = world();
    world.change_virtual("Pod", "default", "web", |p| {
        p["spec"]["hostDevices"] = json!(["/dev/kvm"]);
        p["spec"]["securityContext"] = json!({"runAsUser": 7, "hostUserMap": "all"});
        p["spec"]["containers"][0]["devices"] = json!(["/dev/kvm"]);
        p["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 7, "unconfined": true});
        p["spec"]["terminationGracePeriodSeconds"] = json!(31_536_000);
    });
    world.settle(&PodKind, "default", "web");
    let text = host(&world)["spec"].to_string();
    assert!(!text.contains("evices") && !text.contains("hostUserMap") && !text.contains("unconfined"), "{text}");
    assert_eq!(host(&world)["spec"]["terminationGracePeriodSeconds"], 3600);
    let (_, message) = world.explained.iter().find(|(reason, _)| reason == "SyncLimited").expect("reported");
    for field in [
        "spec.hostDevices",
        "spec.securityContext.hostUserMap",
        "spec.containers[0].devices",
        "spec.containers[0].securityContext.unconfined",
    ] {
        assert!(message.contains(field), "{message}");
    }
}

#[test]
fn tolerations_and_named_nodes_do_not_open_foreign_nodes() {
    let mut world = world();
    let taint = json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]);
    world.change_host("Node", "node-1", |node| node["spec"] = json!({"taints": taint}));
    let tolerations = json!([
        {"operator": "Exists"},
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
    ]);
    world.change_virtual("Pod", "default", "web", |p| {
        p["spec"]["tolerations"] = tolerations.clone();
        p["spec"]["nodeName"] = json!("node-1");
    });
    world.settle(&PodKind, "default", "web");
    assert!(world.host("Pod", HOST).is_none(), "who names his node passes the scheduler by");
    assert!(world.explained.iter().any(|(_, m)| m.contains("node-1") && m.contains("`tolerations`")));
    world.change_virtual("Pod", "default", "web", |p| p["spec"]["nodeName"] = Value::Null);
    world.settle(&PodKind, "default", "web");
    assert_eq!(host(&world)["spec"]["tolerations"], json!([tolerations[2]]));
    assert!(world.explained.iter().any(|(reason, m)| reason == "SyncLimited" && m.contains("(all taints)")));
}

#[test]
fn labels_with_a_prefix_are_nobody_elses_business() {
    let mut world = world();
    world.change_virtual("Pod", "default", "web", |p| {
        p["metadata"]["labels"] = json!({"app": "web", "app.kubernetes.io/name": "web", "sidecar.istio.io/inject": "true"});
        p["metadata"]["annotations"] = json!({"k8s.v1.cni.cncf.io/networks": "host-net", "note": "n"});
        p["spec"]["containers"][0]["env"] = json!([
            {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['k8s.v1.cni.cncf.io/networks']"}}},
            {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['sidecar.istio.io/inject']"}}},
        ]);
        p["spec"]["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"sidecar.istio.io/inject": "true"}}}]}});
    });
    world.settle(&PodKind, "default", "web");
    let host = host(&world);
    let (labels, annotations) = (&host["metadata"]["labels"], &host["metadata"]["annotations"]);
    assert_eq!((&labels["app"], &labels["app.kubernetes.io/name"]), (&json!("web"), &json!("web")));
    let (label, annotation) =
        ("sidecar.istio.io.tenant.portico.dev/inject", "k8s.v1.cni.cncf.io.tenant.portico.dev/networks");
    assert_eq!((&labels[label], labels.get("sidecar.istio.io/inject")), (&json!("true"), None));
    assert_eq!((&annotations[annotation], annotations.get("k8s.v1.cni.cncf.io/networks")), (&json!("host-net"), None));
    let text = host["spec"].to_string();
    assert!(
        text.contains(&format!("metadata.annotations['{annotation}']"))
            && text.contains(&format!("metadata.labels['{label}']"))
    );
    let term =
        "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/labelSelector/matchLabels";
    assert_eq!(host.pointer(term).expect("term")[label], "true");
    world.change_virtual("Pod", "default", "web", |p| {
        p["metadata"]["labels"] = json!({"app": "web"});
        p["metadata"]["annotations"] = json!({});
    });
    world.settle(&PodKind, "default", "web");
    let metadata = self::host(&world)["metadata"].to_string();
    assert!(!metadata.contains("istio") && !metadata.contains("cncf"), "{metadata}");
}
