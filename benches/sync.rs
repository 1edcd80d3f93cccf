//! A burst of pods into one tenant of the running local cluster, beside the same burst directly on the host.
//!
//! Down: until the tenant's API server accepted all, until the host has all, lag of each. Up: a status patched on each
//! host pod, until the tenant shows it. Then deletion. `benches/run` prepares the tenant and sets the variables; the
//! pods select a node that does not exist, so that no kubelet takes part.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "sync/cluster.rs"]
mod cluster;
#[path = "../tests/support/environment.rs"]
mod environment;

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use cluster::{Cluster, Watched, portico_cpu};
use environment::{number, variable};

/// Far longer than any result worth printing.
const PATIENCE: Duration = Duration::from_secs(300);
const CLIENTS: usize = 16;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    runtime.block_on(compare());
}

async fn compare() {
    let count: usize = number("BENCH_PODS", 300);
    let (host_config, tenant_config) = (variable("BENCH_HOST_KUBECONFIG"), variable("BENCH_TENANT_KUBECONFIG"));
    let (host_namespace, name) = (variable("BENCH_NAMESPACE"), variable("BENCH_CLUSTER"));
    let host = Cluster::new(&host_config, &host_namespace, CLIENTS);
    let tenant = Cluster::new(&tenant_config, "default", CLIENTS);
    let direct = Cluster::new(&host_config, &variable("BENCH_DIRECT_NAMESPACE"), CLIENTS);
    let selector = format!("portico.dev/cluster={name}");
    let prefix = format!("b{}", std::process::id());
    let names: Vec<String> = (0..count).map(|i| format!("{prefix}-{i}")).collect();

    let straight = burst(&direct, &direct, "", &names).await;
    let (gone, watch) = (names.clone(), direct.watch("").await);
    let begin = Instant::now();
    let deleted = watch.until(gone, |e| e.deleted, PATIENCE);
    let (_, deleted) = tokio::join!(direct.delete_all(&names), deleted);
    let straight_delete = last(&deleted) - begin;

    let before = portico_cpu();
    let synced = burst(&tenant, &host, &selector, &names).await;
    let middle = portico_cpu();
    let up = statuses(&tenant, &host, &selector, &names).await;
    let (watch, begin) = (host.watch(&selector).await, Instant::now());
    let deleted = watch.until(names.clone(), |e| e.deleted, PATIENCE);
    let (asked, deleted) = tokio::join!(tenant.delete_all(&names), deleted);
    let (synced_accepted, synced_delete) = (last(&asked) - begin, last(&deleted) - begin);
    let after = portico_cpu();

    println!(
        "\n{count} pods by {CLIENTS} clients | accepted by its API server | host has all | of accepted | of direct | lag p50 | lag p99"
    );
    println!("---|---|---|---|---|---|---");
    straight.print("direct", straight.seen);
    synced.print("tenant", straight.seen);
    println!("\n| | direct | through Portico | ratio |\n|---|---|---|---|");
    let seconds = |d: Duration| d.as_secs_f64();
    println!(
        "| statuses back, all | written in {:.2} s | {:.2} s, p50 {:.3} s, p99 {:.3} s | {:.2} |",
        seconds(up.accepted),
        seconds(up.seen),
        seconds(up.p50),
        seconds(up.p99),
        seconds(up.seen) / seconds(up.accepted)
    );
    // How long a tenant's own API server takes over a deletion differs more from run to run than all that comes after it.
    let (ratio, of_accepted) =
        (seconds(synced_delete) / seconds(straight_delete), seconds(synced_delete) / seconds(synced_accepted));
    println!(
        "| deleted on the host, all | {:.2} s | {:.2} s, {of_accepted:.2} of the {:.2} s that its API server took | {ratio:.2} |",
        seconds(straight_delete),
        seconds(synced_delete),
        seconds(synced_accepted)
    );
    let cpu = |from: Duration, to: Duration| (to - from).as_secs_f64() * 1e3 / count as f64;
    println!(
        "| Portico CPU per pod | - | create {:.1} ms, with status and delete {:.1} ms | |",
        cpu(before, middle),
        cpu(before, after)
    );
}

/// One burst.
struct Burst {
    accepted: Duration,
    seen: Duration,
    p50: Duration,
    p99: Duration,
}

impl Burst {
    fn new(begin: Instant, accepted: &HashMap<String, Instant>, seen: &HashMap<String, Instant>) -> Self {
        let mut lags: Vec<Duration> =
            seen.iter().map(|(name, at)| at.saturating_duration_since(accepted[name])).collect();
        lags.sort_unstable();
        let at = |share: f64| lags[((lags.len() - 1) as f64 * share) as usize];
        Self { accepted: last(accepted) - begin, seen: last(seen) - begin, p50: at(0.5), p99: at(0.99) }
    }

    fn print(&self, title: &str, direct: Duration) {
        let s = |d: Duration| d.as_secs_f64();
        println!(
            "{title} | {:.2} s | {:.2} s | {:.2} | {:.2} | {:.3} s | {:.3} s",
            s(self.accepted),
            s(self.seen),
            s(self.seen) / s(self.accepted),
            s(self.seen) / s(direct),
            s(self.p50),
            s(self.p99)
        );
    }
}

fn last(times: &HashMap<String, Instant>) -> Instant {
    *times.values().max().expect("at least one")
}

/// Creates in `from`, sees in `to`.
async fn burst(from: &Cluster, to: &Cluster, selector: &str, names: &[String]) -> Burst {
    let watch = to.watch(selector).await;
    let begin = Instant::now();
    let seen = watch.until(names.to_vec(), |_| true, PATIENCE);
    let (accepted, seen) = tokio::join!(from.create_all(names), seen);
    Burst::new(begin, &accepted, &seen)
}

/// Patches a status on every host pod, sees it in the tenant.
async fn statuses(tenant: &Cluster, host: &Cluster, selector: &str, names: &[String]) -> Burst {
    let hosts = host.names_by_virtual(selector).await;
    let targets: Vec<(String, String)> = names.iter().map(|n| (n.clone(), hosts[n].clone())).collect();
    let watch: Watched = tenant.watch("").await;
    let begin = Instant::now();
    let seen = watch.until(names.to_vec(), |e| e.message == cluster::MESSAGE, PATIENCE);
    let (patched, seen) = tokio::join!(host.patch_all(&targets), seen);
    Burst::new(begin, &patched, &seen)
}
