//! What tenants and others do with it: Services without end, selectors that mean others' pods, names that are taken.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_tenant_that_changes_without_end_holds_up_nobody() {
    let world = host_with_networks();
    world.add("team-a", "one", json!({}));
    world.add("team-a", "two", json!({}));
    for number in 0..120 {
        service(&world, "team-a", "one", &format!("s{number:03}"), node_port("web", 8080));
    }
    let (_context, _running, _trigger) = start(&world);
    pass(30).await;
    assert_eq!(opening(&world).len(), 120, "all of them, in several steps");
    let before = world.host.writes();
    for round in 0..100 {
        service(&world, "team-a", "one", "s000", node_port("web", 9000 + round));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(world.host.writes() - before < 30, "a step a second: {}", world.host.writes() - before);
    service(&world, "team-a", "two", "web", node_port("web", 8080));
    pass(2).await;
    assert!(opening(&world).contains(&"web-x-default-x-two.exposed".to_owned()));
}

#[tokio::test]
async fn one_step_writes_so_often_and_no_more() {
    let world = host_with_networks();
    world.add("team-a", "one", json!({}));
    for number in 0..120 {
        service(&world, "team-a", "one", &format!("s{number:03}"), node_port("web", 8080));
    }
    for made in [50, 100, 120] {
        let before = world.host.writes();
        let stepped = expose(&world, "team-a", "one").await;
        assert_eq!(stepped.is_news, made == 120, "only then it is done");
        assert!(world.host.writes() - before <= 50);
        assert_eq!(opening(&world).len(), made);
    }
}

#[tokio::test(start_paused = true)]
async fn what_had_no_room_is_opened_when_there_is_some() {
    let world = host_with_networks();
    world.add("team-a", "one", json!({}));
    let many: Vec<(u16, Value)> = (1..=100).map(|port| (port, json!(port))).collect();
    let big = json!({"type": "ClusterIP", "selector": {"app": "web"}, "ports": ports(&many)});
    for number in 0..700 {
        service(&world, "team-a", "one", &format!("big{number:03}"), big.clone());
    }
    let web = json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": ports(&many)});
    service(&world, "team-a", "one", "web", web);
    let (_context, _running, _trigger) = start(&world);
    pass(10).await;
    assert!(opening(&world).is_empty(), "its other Services take all the room that it has");
    for number in 0..700 {
        world.host.remove(&SERVICES, "team-a", &host_name(&format!("big{number:03}"), "one"));
    }
    pass(10).await;
    world.host.0.cut_watches(true);
    pass(10).await;
    assert_eq!(opening(&world), ["web-x-default-x-one.exposed"]);
}

#[tokio::test]
async fn disabled_they_go_and_a_policy_of_somebody_elses_stays_and_is_said() {
    let mut world = host_with_networks();
    world.add("team-a", "one", json!({}));
    service(&world, "team-a", "one", "web", node_port("web", 8080));
    service(&world, "team-a", "one", "zoo", node_port("zoo", 8080));
    let theirs = json!({"metadata": {"name": "web-x-default-x-one.exposed"}, "spec": {"podSelector": {}}});
    world.host.put(&NETWORK_POLICIES, "team-a", theirs);
    expose(&world, "team-a", "one").await;
    let (_, status) = world.round("team-a", "one").await;
    assert_eq!(applied(&status), ("False".to_owned(), "NameTaken".to_owned()));
    assert_eq!(opening(&world), ["zoo-x-default-x-one.exposed"], "it keeps no other from being made");
    set(&mut world, |config| config.networks.enabled = false);
    expose(&world, "team-a", "one").await;
    world.round("team-a", "one").await;
    let left: Vec<Value> = world.host.all(&NETWORK_POLICIES).iter().map(|p| p["metadata"]["name"].clone()).collect();
    assert_eq!(left, ["web-x-default-x-one.exposed"]);
}

#[tokio::test]
async fn a_namesakes_services_open_nothing() {
    let world = host_with_networks();
    world.add("team-a", "one", json!({}));
    service(&world, "team-a", "one", "web", node_port("web", 8080));
    world.host.remove(&VIRTUAL_CLUSTERS, "team-a", "one");
    world.add("team-a", "one", json!({}));
    expose(&world, "team-a", "one").await;
    assert!(opening(&world).is_empty(), "what its predecessor left is not its own");
}

#[tokio::test]
async fn more_than_may_be_opened_is_said() {
    let world = host_with_networks();
    world.add("team-a", "one", json!({}));
    let many: Vec<(u16, Value)> = (1..=100).map(|port| (port, json!(port))).collect();
    for number in 0..21 {
        let spec = json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": ports(&many)});
        service(&world, "team-a", "one", &format!("s{number:02}"), spec);
    }
    expose(&world, "team-a", "one").await;
    let (_, status) = world.round("team-a", "one").await;
    assert_eq!(applied(&status), ("True".to_owned(), "NotAllExposed".to_owned()));
    assert_eq!(opening(&world).len(), 20);
}

#[tokio::test]
async fn nobody_hides_by_it_what_is_wrong_with_the_host() {
    let world = World::new();
    world.add("team-a", "one", json!({}));
    let many: Vec<(u16, Value)> = (1..=101).map(|port| (port, json!(port))).collect();
    let too_many = json!({"type": "NodePort", "selector": {"app": "web"}, "ports": ports(&many)});
    service(&world, "team-a", "one", "web", too_many);
    expose(&world, "team-a", "one").await;
    let (_, status) = world.round("team-a", "one").await;
    assert_eq!(applied(&status), ("True".to_owned(), "PodNetworksUnknown".to_owned()));
}

#[tokio::test]
async fn a_selector_that_names_another_tenants_pods_opens_none_of_them() {
    let world = host_with_networks();
    for cluster in ["one", "two"] {
        world.add("team-a", cluster, json!({}));
        world.round("team-a", cluster).await;
    }
    for (service_name, selector) in [
        ("web", json!({"app": "web", "portico.dev/cluster": "one", "portico.dev/namespace": "default"})),
        ("plane", json!({"portico.dev/control-plane": "one"})),
        ("all", json!({"portico.dev/cluster": "one"})),
    ] {
        service(&world, "team-a", "two", service_name, node_port("web", 8080));
        // Whatever came to stand there, by which way: translation would not write it.
        world.host.edit(&SERVICES, "team-a", &host_name(service_name, "two"), |object| {
            object["spec"]["selector"] = selector;
        });
    }
    expose(&world, "team-a", "two").await;
    world.round("team-a", "two").await;
    assert_eq!(opening(&world).len(), 3);
    let policies = world.host.all(&NETWORK_POLICIES);
    let reaches = |to: &End| connects(&policies, &outside("198.51.100.7"), to, WEB);
    assert!(!reaches(&labeled("team-a", "one", "web")), "a neighbour's pod");
    assert!(!reaches(&control_plane_of("team-a", "one", "10.244.1.9")), "a neighbour's control plane");
    assert!(!reaches(&control_plane_of("team-a", "two", "10.244.1.8")), "its own: that is no pod of the tenant's");
    assert!(reaches(&labeled("team-a", "two", "web")), "its own pods are its own business");
}

#[tokio::test]
async fn many_policies_of_others_keep_none_from_being_made() {
    let world = host_with_networks();
    world.add("team-a", "one", json!({}));
    for number in 0..60 {
        let name = format!("s{number:03}");
        service(&world, "team-a", "one", &name, node_port("web", 8080));
        let theirs = format!("{}.exposed", host_name(&name, "one"));
        let theirs = json!({"metadata": {"name": theirs}, "spec": {"podSelector": {}}});
        world.host.put(&NETWORK_POLICIES, "team-a", theirs);
    }
    service(&world, "team-a", "one", "zoo", node_port("zoo", 8080));
    expose(&world, "team-a", "one").await;
    let (_, status) = world.round("team-a", "one").await;
    assert_eq!(applied(&status), ("False".to_owned(), "NameTaken".to_owned()));
    assert_eq!(opening(&world), ["zoo-x-default-x-one.exposed"]);
}

#[tokio::test]
async fn another_number_of_what_is_left_out_is_no_news() {
    let world = host_with_networks();
    world.add("team-a", "one", json!({}));
    let many: Vec<(u16, Value)> = (1..=101).map(|port| (port, json!(port))).collect();
    let too_many = json!({"type": "NodePort", "selector": {"app": "web"}, "ports": ports(&many)});
    service(&world, "team-a", "one", "first", too_many.clone());
    assert!(expose(&world, "team-a", "one").await.is_news);
    service(&world, "team-a", "one", "second", too_many);
    assert!(!expose(&world, "team-a", "one").await.is_news, "a tenant could have a round for each of its writes");
    let (_, status) = world.round("team-a", "one").await;
    assert_eq!(applied(&status), ("True".to_owned(), "NotAllExposed".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_opened_for_one_that_leaves() {
    let world = host_with_networks();
    world.add("team-a", "one", json!({}));
    let (_context, running, _trigger) = start(&world);
    pass(10).await;
    // Somebody's finalizer holds it.
    world.host.edit(&VIRTUAL_CLUSTERS, "team-a", "one", |object| {
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
    });
    pass(1).await;
    service(&world, "team-a", "one", "web", node_port("web", 8080));
    world.host.remove(&NETWORK_POLICIES, "team-a", "one-pods");
    pass(120).await;
    assert!(opening(&world).is_empty());
    assert!(world.host.find(&NETWORK_POLICIES, "team-a", "one-pods").is_none(), "nor is anything mended");
    assert!(!running.is_finished());
}
