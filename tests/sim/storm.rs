//! The host's API server starts again: what it is asked for then grows with kinds and host namespaces, not with tenants.

use std::sync::Arc;
use std::time::Duration;

use portico::config::SyncerConfig;
use portico::error::Side;

use super::hostile::{Tenant, copies, member, pod, start};
use super::server::{Faults, Server};
use super::{DRIFT, run_paused, wrong_service};

const NAMESPACES: [&str; 2] = ["team-a", "team-b"];

/// How many lists the host is asked for after all watches broke off and none can go on, with so many tenants; and how many
/// watches there were.
async fn asked(tenants: usize) -> usize {
    let faults = Faults::none();
    let host = Server::new("host", Side::Host, Arc::clone(&faults));
    // So that each time somebody reads all anew is a list.
    host.streams_lists(false);
    let tenant = |n: usize| {
        let server = Server::new(&format!("t{n}"), Side::Backend, Arc::clone(&faults));
        wrong_service(&server);
        server.put("pods", pod("web", serde_json::json!({})));
        let (name, namespace) = (format!("t{n}"), NAMESPACES[n % NAMESPACES.len()]);
        let ip = format!("10.96.0.{}", n + 10).parse().unwrap();
        Tenant {
            view: super::kinds::view(namespace, &name, &super::virtual_cluster(&host, namespace, &name), ip),
            server,
        }
    };
    let tenants: Vec<Tenant> = (0..tenants).map(tenant).collect();
    let config = SyncerConfig { drift_interval: portico::config::Span(DRIFT * 1000), ..SyncerConfig::default() };
    let running = start(&host, config, 0);
    running.set_members(tenants.iter().map(member).collect());
    tokio::time::sleep(DRIFT).await;
    assert!(tenants.iter().all(|tenant| copies(&host, "pods", tenant).len() == 1));
    let before = host.lists().len();
    host.compact();
    host.cut_watches(false);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let after = host.lists().len() - before;
    // And it goes on.
    for tenant in &tenants {
        tenant.server.put("pods", pod("later", serde_json::json!({})));
    }
    tokio::time::sleep(DRIFT).await;
    assert!(tenants.iter().all(|tenant| copies(&host, "pods", tenant).len() == 2));
    running.stop().await;
    after
}

#[test]
fn a_restarted_host_is_asked_by_kinds_and_namespaces_not_by_tenants() {
    run_paused(async {
        let (few, many) = (asked(2).await, asked(40).await);
        assert!(few > 0, "nobody listed again");
        assert_eq!(few, many, "lists with 2 and with 40 tenants");
    });
}
