//! The metrics API of tenants: made where their control planes relay it, gone where they do not, and its users' to replace.

use serde_json::{Value, json};
use tokio::time::{Duration, sleep};

use super::server::{Faults, Server};
use super::{World, kinds, run_paused};

const NAME: &str = "v1beta1.metrics.k8s.io";
const RELAY: &str = "/portico/metrics-relay";
/// Longer than it is left alone without a reason.
const LOOK: Duration = Duration::from_secs(400);

fn leads_to(server: &Server) -> Option<Value> {
    server.read("apiservices", "", NAME).map(|object| object["spec"]["service"]["name"].clone())
}

fn world(relays: bool) -> (World, Server) {
    let mut world = World::with(0, Faults::none(), kinds::catalog());
    world.running = None;
    let server = world.tenants[0].server.clone();
    server.say(RELAY, relays.then(|| json!({"port": 6440})));
    world.start();
    (world, server)
}

#[test]
fn it_comes_with_a_relay_and_goes_with_it() {
    run_paused(async {
        let (world, server) = world(false);
        sleep(LOOK).await;
        assert_eq!(leads_to(&server), None);
        server.say(RELAY, Some(json!({"port": 6440})));
        sleep(LOOK).await;
        assert_eq!(leads_to(&server), Some(json!("portico-metrics")));
        assert_eq!(leads_to(&world.tenants[1].server), None, "its neighbour has no relay");
        assert!(world.host.objects("services").iter().all(|object| !object.to_string().contains("portico-metrics")));
        server.say(RELAY, None);
        sleep(LOOK).await;
        assert_eq!(leads_to(&server), None);
        assert_eq!(server.read("services", "kube-system", "portico-metrics"), None);
    });
}

/// Beside what is asked of every tenant, of which its neighbour without a relay has as much.
#[test]
fn an_idle_tenant_is_asked_for_little_more() {
    run_paused(async {
        let (world, server) = world(true);
        sleep(LOOK).await;
        let counts = || (server.counts(), world.tenants[1].server.counts());
        let before = counts();
        sleep(Duration::from_secs(3600)).await;
        let after = counts();
        let more = (after.0.gets - before.0.gets) as f64 - (after.1.gets - before.1.gets) as f64;
        // Three objects in each look, and twelve looks.
        assert!(more < 3.0 * 15.0, "{more} reads in an hour");
        assert_eq!(after.0.writes, before.0.writes);
    });
}

#[test]
fn whoever_takes_it_away_has_a_minute_for_his_own() {
    run_paused(async {
        let (_world, server) = world(true);
        sleep(LOOK).await;
        for takes_the_service in [true, false] {
            if takes_the_service {
                server.delete_gracefully("services", "kube-system", "portico-metrics", None);
            }
            server.delete_gracefully("apiservices", "", NAME, None);
            for _ in 0..40 {
                sleep(Duration::from_secs(1)).await;
                assert_eq!(leads_to(&server), None, "within a minute");
            }
            sleep(LOOK * 2).await;
            assert_eq!(leads_to(&server), Some(json!("portico-metrics")), "nobody came");
        }
        server.delete_gracefully("apiservices", "", NAME, None);
        let spec = json!({"service": {"namespace": "kube-system", "name": "metrics-server"}});
        server.put("apiservices", json!({"metadata": {"name": NAME}, "spec": spec}));
        sleep(LOOK * 2).await;
        assert_eq!(leads_to(&server), Some(json!("metrics-server")), "his own is kept");
        assert_eq!(server.read("services", "kube-system", "portico-metrics"), None);
    });
}
