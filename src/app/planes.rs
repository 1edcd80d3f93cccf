//! What all forms of the process are built from: one client of the host, where there is one, one registry, one eye on all tasks;
//! and the parts of each plane that are made of these. What differs between the forms, they say themselves.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;

use super::host::Host;
use crate::admin::{self, Readiness};
use crate::config::{DnsConfig, GatewayConfig, HostConfig, LogConfig, SyncerConfig, TracingConfig};
use crate::consumption::Consumption;
use crate::kubernetes::rights::Access;
use crate::kubernetes::{self, ApiClient, Kubelets};
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::runtime::task::Task;
use crate::runtime::telemetry::{self, Metrics, Source};
use crate::runtime::traces::{Sender, Sending, Traces};
use crate::runtime::watched::Watched;
use crate::syncer::catalog::Catalog;
use crate::syncer::kinds::{self, Switches};
use crate::syncer::{self, OwnPlace, Stats};
use crate::tenant::Registry;
use crate::tls::SharedCertificate;
use crate::trail::Trail;
use crate::upstream::Pool;
use crate::upstream::reach::Closed;
use crate::usage::Usage;
use crate::{dns, gateway};

/// What all planes of a process share.
pub(super) struct Planes {
    pub(super) clock: Clock,
    pub(super) registry: Arc<Registry>,
    pub(super) consumption: Arc<Consumption>,
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
    pub(super) shared: SharedCertificate,
    pub(super) watched: Watched,
    pub(super) traces: Traces,
}

impl Planes {
    /// Logging begins; what is watched is told to probes and to Prometheus.
    pub(super) fn new(log: &LogConfig) -> anyhow::Result<Self> {
        telemetry::init(log)?;
        let clock = Clock::system();
        let planes = Self {
            registry: Arc::default(),
            consumption: Arc::default(),
            metrics: Metrics::default(),
            readiness: Readiness::default(),
            shared: SharedCertificate::default(),
            watched: Watched::new(clock.clone()),
            traces: Traces::off(),
            clock,
        };
        planes.metrics.register(Arc::new(planes.watched.clone()));
        planes.metrics.register(Arc::clone(&planes.consumption) as Arc<dyn Source>);
        let (needed, others) = (planes.watched.clone(), planes.watched.clone());
        planes.readiness.check("tasks", move || needed.problem());
        planes.readiness.note(move || others.notes());
        Ok(planes)
    }

    /// A client of the host cluster, with Portico's own rights; how it answers is shown.
    pub(super) fn host(&self, config: &HostConfig) -> anyhow::Result<ApiClient> {
        let pool = Arc::new(Pool::new(kubernetes::host::target(config)?, self.clock.clone()));
        let host = ApiClient::new(pool, HeaderMap::new());
        self.metrics.register(Arc::new(Host::new(host.pool())));
        Ok(host)
    }

    /// Traces begin, where there are to be any; whoever ends the process closes what sends them.
    pub(super) fn trace(&mut self, config: &TracingConfig) -> anyhow::Result<Option<Sender>> {
        let (traces, sending) = Traces::new(config, self.clock.clone())?;
        if traces.is_on() {
            self.metrics.register(Arc::new(traces.clone()));
        }
        self.traces = traces;
        Ok(sending.map(Sending::start))
    }

    /// Health and metrics.
    pub(super) fn admin(&self, probes: SocketAddr, metrics_listen: SocketAddr, access: admin::Access) -> admin::Parts {
        admin::Parts {
            probes,
            metrics_listen,
            access,
            readiness: self.readiness.clone(),
            metrics: self.metrics.clone(),
            watched: self.watched.clone(),
        }
    }

    /// Where figures of pods and nodes come from: of the nodes with these labels, where kubelets are asked.
    pub(super) fn usage(
        &self,
        (host, config): (&ApiClient, &HostConfig),
        selector: &BTreeMap<String, String>,
    ) -> anyhow::Result<Arc<Usage>> {
        let kubelets = Arc::new(Kubelets::new(config, selector, host)?);
        Ok(Arc::new(Usage::new(host.clone(), kubelets, self.clock.clone())))
    }

    /// The gateway, of tenants whose pods run on a host or of others.
    pub(super) fn gateway(
        &self,
        config: GatewayConfig,
        host: Option<(&ApiClient, &Arc<Usage>)>,
        audit: Option<Arc<Trail>>,
        closed: Closed,
    ) -> gateway::Parts {
        let host = host.map(|(api, usage)| gateway::HostCluster {
            api: api.clone(),
            usage: Arc::clone(usage),
            figures: Arc::clone(usage) as Arc<_>,
        });
        gateway::Parts {
            config,
            registry: Arc::clone(&self.registry),
            shared: self.shared.clone(),
            host,
            closed,
            audit,
            consumption: Arc::clone(&self.consumption),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            watched: self.watched.clone(),
            traces: self.traces.clone(),
        }
    }

    /// Starts the tenants' DNS, on the address where the gateway listens.
    pub(super) async fn dns(&self, config: DnsConfig, address: IpAddr, drain: &Drain) -> anyhow::Result<Task> {
        let parts = dns::Parts {
            config,
            registry: Arc::clone(&self.registry),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            address,
            watched: self.watched.clone(),
        };
        Ok(dns::run(parts, drain).await?)
    }

    /// The syncer of a process that may do all on the host and runs anywhere; its numbers are shown from now on.
    pub(super) fn syncer(&self, host: &ApiClient, config: SyncerConfig, switches: &Switches) -> syncer::Parts {
        let catalog = Catalog::new(kinds::all(switches));
        let stats = Arc::new(Stats::new(&catalog));
        self.metrics.register(Arc::clone(&stats) as Arc<dyn Source>);
        syncer::Parts {
            config,
            catalog,
            registry: Arc::clone(&self.registry),
            host: Arc::new(host.clone()),
            backends: syncer::connected(),
            clock: self.clock.clone(),
            stats,
            access: Access::granted(),
            own_place: OwnPlace::default(),
            adopts: false,
            traces: self.traces.clone(),
        }
    }
}
