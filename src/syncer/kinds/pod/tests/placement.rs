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
        if on_host {
            world.put_host("PriorityClass", json!({"metadata": {"name": class}}));
        }
        world.change_virtual("Pod", "default", "web", |p| p["spec"]["priorityClassName"] = json!(class));
        world.settle(&PodKind, "default", "web");
        assert_eq!(host(&world)["spec"].get("priorityClassName").is_some(), kept, "{class} {on_host}");
    }
}
