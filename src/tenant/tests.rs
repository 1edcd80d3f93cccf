mod life;
mod sim;

use std::time::Duration;

use serde_json::{Value, json};

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::testing::tenant;
use super::*;
use crate::kubernetes::Reaches;
use crate::names::TenantId;
use crate::names::claims::{Claims, Owners};
use crate::names::reserved::Reserved;
use crate::runtime::clock::Clock;

/// A VirtualCluster as the API server shows it.
fn object(name: &str, day: u32, hosts: &[&str], port: u16) -> Value {
    json!({"metadata": {"namespace": "team", "name": name, "uid": name, "creationTimestamp": format!("2026-01-{day:02}T00:00:00Z")},
        "spec": {"expose": {"hosts": hosts}}, "status": {"port": port}})
}

fn owners(objects: &[Value]) -> Owners {
    let mut config = crate::config::Config::default();
    config.gateway.public_url = "https://portico.example.com".to_owned();
    let mut claims = Claims::default();
    claims.replace(objects);
    claims.owners(&Arc::new(Reserved::new(&config)))
}

fn holder(registry: &Registry, host: &str) -> Option<String> {
    registry.load().by_host(host).map(|tenant| tenant.id.name().to_string())
}

#[tokio::test]
async fn ten_starts_in_any_order_give_contested_names_to_the_oldest() {
    let objects = [
        object("old", 1, &["app.example.com"], 20_000),
        object("young", 2, &["app.example.com", "old.team.portico.local", "portico.example.com"], 20_000),
        object("youngest", 3, &["app.example.com", "old.team.portico.local"], 20_002),
    ];
    let wanted = ["app.example.com", "old.team.portico.local", "portico.example.com"];
    for start in 0..10 {
        let registry = Registry::default();
        let mut tenants = [("old", 20_000), ("young", 20_000), ("youngest", 20_002)].map(|(name, port)| {
            let mut tenant = tenant(name, registry.next_generation(), wanted[0], port);
            Arc::get_mut(&mut tenant).expect("fresh").hosts = wanted.map(str::to_owned).into();
            tenant
        });
        tenants.rotate_left(start % 3);
        if start > 5 {
            tenants.reverse();
        }
        // What is listed first may come before, between or behind the tenants' being built.
        for (at, tenant) in tenants.iter().enumerate() {
            if at == start % 4 {
                registry.own(owners(&objects));
            }
            registry.put(tenant);
        }
        registry.own(owners(&objects));
        assert_eq!(holder(&registry, "APP.example.com.").as_deref(), Some("old"), "start {start}");
        assert_eq!(holder(&registry, "old.team.portico.local").as_deref(), Some("old"), "start {start}");
        assert_eq!(holder(&registry, "portico.example.com"), None, "start {start}");
        assert_eq!(registry.load().by_port(20_000).expect("held").id.name().as_str(), "old");
        assert_eq!(registry.load().by_port(20_002).expect("held").id.name().as_str(), "youngest");
    }
}

#[tokio::test]
async fn a_held_name_or_port_cannot_be_taken_while_its_holder_is_not_served() {
    let registry = Registry::default();
    registry.own(owners(&[
        object("victim", 1, &["app.example.com"], 20_000),
        object("attacker", 2, &["app.example.com"], 20_000),
    ]));
    assert_eq!(registry.put(&tenant("attacker", 1, "app.example.com", 20_000)), ["app.example.com"]);
    assert_eq!(holder(&registry, "app.example.com"), None);
    assert!(registry.load().by_port(20_000).is_none());
    assert!(registry.put(&tenant("victim", 2, "app.example.com", 20_000)).is_empty());
    assert_eq!(holder(&registry, "app.example.com").as_deref(), Some("victim"));
}

#[tokio::test]
async fn a_name_is_free_again_when_its_holder_leaves() {
    let (one, two) = (object("one", 1, &["app.example.com"], 20_000), object("two", 2, &["app.example.com"], 20_002));
    let registry = Registry::default();
    registry.own(owners(&[one, two.clone()]));
    registry.put(&tenant("one", 1, "app.example.com", 20_000));
    registry.put(&tenant("two", 2, "app.example.com", 20_002));
    let mut changes = registry.subscribe();
    registry.own(owners(&[two]));
    registry.remove(&TenantId::parse("team", "one").expect("id"));
    assert!(changes.has_changed().expect("alive"));
    changes.mark_unchanged();
    assert_eq!(holder(&registry, "app.example.com").as_deref(), Some("two"));
    assert!(registry.load().by_port(20_000).is_none());
}

#[tokio::test]
async fn a_loaded_snapshot_keeps_its_generation() {
    let registry = Registry::default();
    registry.put(&tenant("one", 1, "a.example.com", 20_000));
    let before = registry.load();
    registry.put(&tenant("one", 2, "a.example.com", 20_000));
    assert_eq!(before.by_port(20_000).expect("old").generation, 1);
    assert_eq!(registry.load().by_port(20_000).expect("new").generation, 2);
}

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn changes_of_one_tenant_wake_nobody_who_follows_another() {
    let registry = Registry::default();
    let (one, two) = (tenant("one", 1, "a.example.com", 20_000), tenant("two", 2, "b.example.com", 20_002));
    registry.put(&one);
    registry.put(&two);
    let wakes = Arc::new(Wakes::default());
    let waker = std::task::Waker::from(Arc::clone(&wakes));
    let mut context = std::task::Context::from_waker(&waker);
    let mut follower = two.life.follow(2);
    let mut gone = Box::pin(follower.is_gone());
    let mut poll = || gone.as_mut().poll(&mut context).is_ready();
    assert!(!poll());
    registry.put(&tenant("one", 3, "a.example.com", 20_000));
    registry.own(owners(&[object("one", 1, &[], 20_000), object("two", 2, &[], 20_002)]));
    registry.remove(&one.id);
    registry.put(&tenant("three", 4, "c.example.com", 20_004));
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
    registry.put(&tenant("two", 5, "b.example.com", 20_002));
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    assert!(!poll(), "a new generation is no end");
    registry.remove(&two.id);
    assert!(poll());
}

#[tokio::test]
async fn who_is_made_again_under_the_same_name_has_another_life() {
    use futures::FutureExt as _;
    let registry = Registry::default();
    let first = tenant("one", 1, "a.example.com", 20_000);
    registry.put(&first);
    let mut of_first = first.life.follow(1);
    let mut again = tenant("one", 2, "a.example.com", 20_000);
    Arc::get_mut(&mut again).expect("fresh").uid = "another".to_owned();
    // No removal was heard of.
    registry.put(&again);
    assert_eq!(of_first.is_gone().now_or_never(), Some(()));
    let mut of_second = again.life.follow(2);
    assert_eq!(of_second.is_gone().now_or_never(), None);
    registry.remove(&again.id);
    assert_eq!(of_second.is_gone().now_or_never(), Some(()));
    // Whoever has been told of an end stays told, also when the same tenant comes back.
    registry.put(&again);
    assert_eq!(of_second.is_gone().now_or_never(), Some(()));
    assert_eq!(again.life.follow(2).is_gone().now_or_never(), None);
}
