//! Figures that a test chose.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use portico::error::{Error, Kind, Result};
use portico::gateway::metrics_api::{Figures, NodeFigures, PodFigures};
use portico::names::{HostName, TenantId};
use portico::tenant::Tenant;
use portico::usage::{ContainerUsage, NodeUsage, PodUsage};

/// None, until a test puts some in.
#[derive(Debug, Default)]
pub struct FakeFigures {
    pods: Mutex<BTreeMap<String, BTreeMap<HostName, PodUsage>>>,
    nodes: Mutex<BTreeMap<String, NodeUsage>>,
    /// Nobody can be asked.
    pub away: AtomicBool,
    /// Nobody answers.
    pub silent: AtomicBool,
    /// Questions that are not answered yet.
    pub waiting: AtomicUsize,
}

const WINDOW: Duration = Duration::from_millis(15_250);

impl FakeFigures {
    /// A pod of a tenant, by its name on the host; of each container nanocores and bytes.
    pub fn pod(&self, tenant: &TenantId, host_name: &str, node: &str, containers: &[(&str, u64, u64)]) {
        let containers = containers.iter().map(|(name, cpu_nanocores, memory_bytes)| ContainerUsage {
            name: (*name).to_owned(),
            cpu_nanocores: *cpu_nanocores,
            memory_bytes: *memory_bytes,
        });
        let at = "2026-01-02T03:04:05.678Z".parse().expect("a time");
        let usage = PodUsage { node: node.to_owned(), at, window: WINDOW, containers: containers.collect() };
        let name = HostName::parse(host_name).expect("a name");
        self.pods.lock().entry(tenant.to_string()).or_default().insert(name, usage);
    }

    /// A node of the host.
    pub fn node(&self, name: &str, cpu_nanocores: u64, memory_bytes: u64) {
        let at = "2026-01-02T03:04:05Z".parse().expect("a time");
        self.nodes.lock().insert(name.to_owned(), NodeUsage { at, window: WINDOW, cpu_nanocores, memory_bytes });
    }

    async fn ask(&self) -> Result<()> {
        if self.silent.load(Ordering::SeqCst) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        if self.away.load(Ordering::SeqCst) {
            return Err(Error::own(Kind::Unavailable, "neither the host's metrics API nor its kubelets can be asked"));
        }
        Ok(())
    }
}

impl Figures for FakeFigures {
    fn pods<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<PodFigures>> {
        Box::pin(async move {
            self.ask().await?;
            Ok(Arc::new(self.pods.lock().get(&tenant.id.to_string()).cloned().unwrap_or_default()))
        })
    }

    fn nodes(&self) -> BoxFuture<'_, Result<NodeFigures>> {
        Box::pin(async move {
            self.ask().await?;
            Ok(Arc::new(self.nodes.lock().clone()))
        })
    }
}
