//! Tenants made and removed by the hundred: what was kept of them is gone, as are their ports, tasks and series.

use std::sync::Arc;
use std::time::Duration;

use portico::names::TenantId;

use crate::support::port;
use crate::world::{Dial, PATIENCE, World, text};

const TENANTS: usize = 500;
/// One in so many is used.
const USED: usize = 5;

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// kcp#4071 and its kin, counted where others measure memory.
#[tokio::test]
async fn tenants_that_come_and_go_leave_nothing() {
    let world = World::start().await;
    let mut neighbour = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    text(neighbour.get("/api").await).await;
    text(world.by_name(&world.a).user(world.a.user("jane")).http(true).await.get("/api").await).await;
    world.metric_becomes("portico_gateway_tenant_connections", &world.a, 0.0).await;
    let series = || world.metrics.render().expect("metrics").lines().filter(|line| !line.starts_with('#')).count();
    let ports = || world.bound.ports().borrow().len();
    let (ports_before, tasks_before, series_before) = (ports(), tasks(), series());
    for n in 0..TENANTS {
        let id = TenantId::parse("churn", &format!("t{n}")).expect("id");
        let host = format!("t{n}.example.com");
        let mut tenant = world.a.tenant(1, &world.a.client_ca, &world.clock);
        (tenant.id, tenant.uid, tenant.hosts) = (id, format!("u{n}"), vec![host.clone()]);
        tenant.port = port::free([127, 0, 0, 1]);
        let serving = world.a.server_ca.server(&[&host]);
        tenant.server_tls =
            portico::tls::ServerTls::from_pem(serving.certificate.as_bytes(), serving.key.as_bytes()).expect("tls");
        world.registry.put(&Arc::new(tenant));
        if n % USED == 0 {
            let dial = Dial::to(world.address, &world.a.server_ca).sni(&host).user(world.a.user("jane"));
            assert_eq!(text(dial.http(true).await.get("/api").await).await, "alpha");
        }
    }
    assert!(series() > series_before + TENANTS / USED, "tenants that were used have series");
    world.bound.ports().wait_for(|open| open.len() == ports_before + TENANTS).await.expect("runs");
    for n in 0..TENANTS {
        world.registry.remove(&TenantId::parse("churn", &format!("t{n}")).expect("id"));
    }
    let same = async {
        while (ports(), tasks().saturating_sub(tasks_before), series()) != (ports_before, 0, series_before) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let is_same = tokio::time::timeout(PATIENCE, same).await.is_ok();
    let counts = [(ports_before, ports()), (tasks_before, tasks()), (series_before, series())];
    assert!(is_same, "ports, tasks and series before and after: {counts:?}");
    assert_eq!(world.registry.load().tenants().count(), 2);
    assert_eq!(text(neighbour.get("/api").await).await, "beta");
}
