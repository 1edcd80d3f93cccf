//! What the gateway keeps of each tenant over its generations: counts, seats, what is known of tokens, shares of budgets;
//! and what tenants share in it: the budgets, the places for callers whom nobody knows, the seats of those whose admission
//! rules are followed.
//!
//! Promises: forgotten with the tenant. Must not know requests.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;

use super::admission::Admission;
use super::buffer::{Budget, Share};
use super::connections::Connections;
use super::jwt::Jwts;
use super::kubelet::{Allowance, Shared};
use super::limits::Limits;
use super::metrics::{TenantMetrics, collect_tenant};
use super::places::Places;
use super::tokens::Tokens;
use crate::config::GatewayConfig;
use crate::consumption::{Consumption, Tab};
use crate::names::TenantId;
use crate::runtime::pace::Pace;
use crate::runtime::telemetry::{Families, Source};
use crate::tenant::memory::{Account, Memory};
use crate::tenant::{Snapshot, Tenant};
use crate::trail::Tab as AuditTab;

/// Bytes for larger buffers of upgraded streams, of all tenants: 256 bulk transfers in one direction, a quarter of them of
/// one tenant. Others are slower, not refused.
const STREAM_BUFFERS: usize = 64 << 20;

/// What the gateway keeps of a tenant over its generations.
#[derive(Debug)]
pub(super) struct TenantState {
    pub(super) metrics: Arc<TenantMetrics>,
    pub(super) limits: Limits,
    /// What its own API server asks for as aggregator: apart, so that neither its users nor that keep the other out.
    pub(super) aggregator: Limits,
    pub(super) tokens: Tokens,
    /// Of other issuers.
    pub(super) jwts: Jwts,
    pub(super) kubelets: Allowance,
    pub(super) buffers: Arc<Share>,
    pub(super) stream_buffers: Arc<Share>,
    /// What it used.
    pub(super) tab: Arc<Tab>,
    /// How many of its requests may be traced.
    pub(super) traces: Pace,
    /// Its events of the audit log.
    pub(super) audit: Arc<AuditTab>,
    /// What its requests take of the memory, and whether that is too much.
    pub(super) account: Arc<Account>,
}

/// The state of one identity of a name.
#[derive(Debug)]
struct Kept {
    uid: String,
    /// Of the tenant for which it was made: a later one of another uid is its successor, an earlier one its predecessor.
    generation: u64,
    state: Arc<TenantState>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Tenants {
    states: RwLock<HashMap<TenantId, Kept>>,
    budget: Arc<Budget>,
    stream_budget: Arc<Budget>,
    memory: Memory,
    consumption: Arc<Consumption>,
    pub(super) connections: Connections,
    /// For callers with a token that their backend has not accepted yet.
    pub(super) unknown: Places,
    /// For callers without any credentials: they shall not keep the others out.
    pub(super) anonymous: Places,
    /// Who judges their streams.
    pub(super) admission: Admission,
    /// What they are shown of kubelets.
    pub(super) kubelets: Shared,
    /// There is an audit log.
    audits: bool,
}

impl Tenants {
    pub(super) fn new(
        config: &GatewayConfig,
        memory: &Memory,
        consumption: &Arc<Consumption>,
        audits: bool,
    ) -> Arc<Self> {
        let places = || Places::new(config.max_unknown, config.max_unknown_per_tenant);
        Arc::new(Self {
            budget: Arc::new(Budget::new(config.max_buffered_bytes)),
            stream_budget: Arc::new(Budget::new(STREAM_BUFFERS)),
            memory: memory.clone(),
            consumption: Arc::clone(consumption),
            connections: Connections::new(config),
            unknown: places(),
            anonymous: places(),
            admission: Admission::default(),
            kubelets: Shared::default(),
            audits,
            states: RwLock::default(),
        })
    }

    /// What is kept of a tenant. A cluster that is made again under its name begins with nothing; what its predecessor's
    /// last requests count is counted for nobody.
    pub(super) fn of(&self, tenant: &Tenant) -> Arc<TenantState> {
        self.state(&tenant.id, &tenant.uid, tenant.generation)
    }

    pub(super) fn state(&self, id: &TenantId, uid: &str, generation: u64) -> Arc<TenantState> {
        if let Some(kept) = self.states.read().get(id)
            && kept.uid == uid
        {
            return Arc::clone(&kept.state);
        }
        let account = self.memory.account(id, uid);
        let state = Arc::new(TenantState {
            metrics: Arc::default(),
            limits: Limits::default(),
            aggregator: Limits::default(),
            tokens: Tokens::default(),
            jwts: Jwts::default(),
            kubelets: Allowance::default(),
            buffers: Share::of(Arc::clone(&self.budget), Arc::clone(&account)),
            stream_buffers: Share::of(Arc::clone(&self.stream_budget), Arc::clone(&account)),
            tab: self.consumption.tab(id, uid),
            traces: Pace::default(),
            audit: Arc::default(),
            account,
        });
        let kept = Kept { uid: uid.to_owned(), generation, state };
        match self.states.write().entry(id.clone()) {
            Entry::Occupied(known) if known.get().uid == uid => Arc::clone(&known.get().state),
            Entry::Occupied(known) if known.get().generation > generation => kept.state,
            entry => Arc::clone(&entry.insert_entry(kept).get().state),
        }
    }

    /// Forgets the tenants that are gone.
    pub(super) fn retain(&self, snapshot: &Snapshot) {
        self.states.write().retain(|id, kept| snapshot.by_id(id).is_some_and(|tenant| tenant.uid == kept.uid));
        self.consumption.forget();
    }

    fn collect_state(&self, families: &mut Families, id: &TenantId, state: &TenantState) {
        let tenant = [("namespace", id.namespace().as_str()), ("cluster", id.name().as_str())];
        for (caller, places) in [("token", &self.unknown), ("anonymous", &self.anonymous)] {
            families.gauge(
                "portico_gateway_unknown_in_flight",
                "Requests of callers whom nobody knows yet.",
                &[tenant.as_slice(), &[("caller", caller)]].concat(),
                places.in_use(id) as f64,
            );
        }
        families.counter(
            "portico_gateway_unknown_refused_total",
            "Requests of unknown callers for whom there was no place (429).",
            &tenant,
            state.metrics.unknown_refused.load(Ordering::Relaxed),
        );
        state.tokens.collect(families, &tenant);
        state.jwts.collect(families, &tenant);
        if self.audits {
            state.audit.collect(families, &tenant);
        }
        let bytes = state.buffers.in_use() as f64;
        families.gauge("portico_gateway_buffered_bytes", "Bytes that whole bodies take now.", &tenant, bytes);
        families.counter(
            "portico_gateway_buffer_refused_total",
            "Bodies that were not read for want of budget (429).",
            &tenant,
            state.buffers.refused(),
        );
        let (known, unknown) = self.connections.of(id);
        for (caller, number) in [("known", known), ("unknown", unknown)] {
            families.gauge(
                "portico_gateway_tenant_connections",
                "Open connections on which somebody asked whom the cluster knows, and others that are bound to it.",
                &[tenant.as_slice(), &[("caller", caller)]].concat(),
                number as f64,
            );
        }
        let (short, long) = state.limits.in_use();
        let (short, long) = (short as f64, long as f64);
        families.gauge("portico_gateway_requests_in_flight", "Ordinary requests that run now.", &tenant, short);
        families.gauge("portico_gateway_long_running", "Watches and streams that run now.", &tenant, long);
    }
}

impl Source for Tenants {
    fn collect(&self, families: &mut Families) {
        let states: Vec<_> =
            self.states.read().iter().map(|(id, kept)| (id.clone(), Arc::clone(&kept.state))).collect();
        for (id, state) in states {
            collect_tenant(families, &id, &state.metrics);
            self.collect_state(families, &id, &state);
        }
        families.gauge(
            "portico_gateway_admission_followed",
            "Virtual clusters whose admission rules are followed, since they use streams.",
            &[],
            self.admission.followed() as f64,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::telemetry::Metrics;

    #[test]
    fn a_cluster_that_is_made_again_begins_with_nothing_of_its_predecessor() {
        let tenants = Tenants::new(&GatewayConfig::default(), &Memory::default(), &Arc::default(), false);
        let id = TenantId::parse("team-a", "dev").expect("valid");
        let of = |uid: &str, generation| tenants.state(&id, uid, generation);
        let first = of("1", 3);
        first.metrics.misdirected.fetch_add(1, Ordering::Relaxed);
        assert!(Arc::ptr_eq(&first, &of("1", 5)), "another generation of the same cluster");
        let second = of("2", 7);
        assert!(!Arc::ptr_eq(&first, &second) && second.metrics.misdirected.load(Ordering::Relaxed) == 0);
        assert!(!Arc::ptr_eq(&of("1", 5), &first), "a late request of the first one counts for nobody");
        assert!(Arc::ptr_eq(&second, &of("2", 7)), "and does not take the name back");
        let metrics = Metrics::default();
        metrics.register(Arc::clone(&tenants) as Arc<dyn Source>);
        let text = metrics.render().expect("renders");
        assert_eq!(text.matches("portico_gateway_requests_in_flight{").count(), 1, "{text}");
    }
}
