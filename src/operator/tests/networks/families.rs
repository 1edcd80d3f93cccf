//! IPv4 and IPv6: what is closed in one is closed in the other.

use super::*;

fn host(nodes: &[Value], api_server: &str) -> World {
    let world = World::new();
    for node in nodes {
        world.host.put(&NODES, "", node.clone());
    }
    let slice = json!({"metadata": {"name": "kubernetes"}, "endpoints": [{"addresses": [api_server]}]});
    world.host.put(&ENDPOINT_SLICES, "default", slice);
    world
}

fn node(name: &str, networks: &[&str], addresses: &[&str]) -> Value {
    let addresses: Vec<Value> = addresses.iter().map(|a| json!({"type": "InternalIP", "address": a})).collect();
    json!({"metadata": {"name": name}, "spec": {"podCIDRs": networks}, "status": {"addresses": addresses}})
}

async fn policies(world: &World) -> Vec<Value> {
    world.add("team-a", "one", json!({}));
    exposed::service(
        world,
        "team-a",
        "one",
        "web",
        json!({"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}),
    );
    exposed::expose(world, "team-a", "one").await;
    world.round("team-a", "one").await;
    world.host.all(&NETWORK_POLICIES)
}

#[tokio::test]
async fn an_api_server_is_closed_at_every_address_of_its_machine() {
    let control = node("control", &["10.244.0.0/24", "fd00:1::/64"], &["192.0.2.10", "2001:db8::10", "control"]);
    let worker = node("worker", &["10.244.1.0/24", "fd00:1:0:1::/64"], &["192.0.2.11", "2001:db8::11"]);
    for says in ["192.0.2.10", "2001:db8::10"] {
        let world = host(&[control.clone(), worker.clone()], says);
        let policies = policies(&world).await;
        let own = of("team-a", "one", "10.244.0.1");
        for closed in ["192.0.2.10", "2001:db8::10"] {
            assert!(!connects(&policies, &own, &outside(closed), (6443, "TCP")), "{closed}");
        }
        for open in ["192.0.2.11", "2001:db8::11", "2001:db8::12"] {
            assert!(connects(&policies, &own, &outside(open), (6443, "TCP")), "{open}");
        }
    }
}

#[tokio::test]
async fn a_host_of_ipv6_alone_is_closed_and_opened_like_one_of_ipv4() {
    let world = host(&[node("n", &["2001:db8:1::/64"], &["2001:db8::10"])], "2001:db8::10");
    let policies = policies(&world).await;
    let own = of("team-a", "one", "2001:db8:1::1");
    for closed in ["fd00:ec2::254", "fe80::1", "2001:db8::10", "2001:db8:1::77", "169.254.169.254"] {
        assert!(!connects(&policies, &own, &outside(closed), WEB), "{closed}");
    }
    assert!(connects(&policies, &own, &outside("2001:db8:2::1"), WEB));
    assert!(connects(&policies, &outside("2001:db8:2::1"), &own, WEB), "a client of its node port");
    assert!(!connects(&policies, &outside("2001:db8:2::1"), &own, (8081, "TCP")));
    assert!(!connects(&policies, &outside("2001:db8:1::77"), &own, WEB), "a pod");
}

#[tokio::test]
async fn of_a_family_that_no_node_names_private_addresses_are_closed() {
    let world = host(&[node("n", &["10.244.0.0/24"], &["192.0.2.10"])], "192.0.2.10");
    let policies = policies(&world).await;
    let own = of("team-a", "one", "10.244.0.1");
    assert!(!connects(&policies, &own, &outside("fd12:3456::1"), WEB), "perhaps another tenant's pod");
    assert!(!connects(&policies, &outside("fd12:3456::1"), &own, WEB));
    assert!(connects(&policies, &own, &outside("2001:db8::1"), WEB));
    assert!(connects(&policies, &own, &outside("10.1.2.3"), WEB), "of IPv4 they are known");
}
