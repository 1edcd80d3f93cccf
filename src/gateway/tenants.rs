//! What the gateway keeps of each tenant over its generations: counts, seats, tokens that were accepted, shares of budgets;
//! and what tenants share in it, the budgets and the places for callers whom nobody knows.
//!
//! Promises: forgotten with the tenant. Must not know requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;

use super::buffer::{Budget, Share};
use super::known::Accepted;
use super::limits::Limits;
use super::metrics::{TenantMetrics, collect_tenant};
use super::places::Places;
use crate::config::GatewayConfig;
use crate::names::TenantId;
use crate::runtime::telemetry::{Families, Source};
use crate::tenant::Snapshot;

/// Bytes for larger buffers of upgraded streams, of all tenants: 256 bulk transfers in one direction, a quarter of them of
/// one tenant. Others are slower, not refused.
const STREAM_BUFFERS: usize = 64 << 20;

/// What the gateway keeps of a tenant over its generations.
#[derive(Debug)]
pub(super) struct TenantState {
    pub(super) metrics: Arc<TenantMetrics>,
    pub(super) limits: Limits,
    pub(super) accepted: Accepted,
    pub(super) buffers: Arc<Share>,
    pub(super) stream_buffers: Arc<Share>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Tenants {
    config: GatewayConfig,
    states: RwLock<HashMap<TenantId, Arc<TenantState>>>,
    budget: Arc<Budget>,
    stream_budget: Arc<Budget>,
    /// For callers with a token that their backend has not accepted yet.
    pub(super) unknown: Places,
    /// For callers without any credentials: they shall not keep the others out.
    pub(super) anonymous: Places,
}

impl Tenants {
    pub(super) fn new(config: GatewayConfig) -> Arc<Self> {
        let places = || Places::new(config.max_unknown, config.max_unknown_per_tenant);
        Arc::new(Self {
            budget: Arc::new(Budget::new(config.max_buffered_bytes)),
            stream_budget: Arc::new(Budget::new(STREAM_BUFFERS)),
            unknown: places(),
            anonymous: places(),
            config,
            states: RwLock::default(),
        })
    }

    /// What is kept of a tenant that is in the registry.
    pub(super) fn of(&self, id: &TenantId) -> Arc<TenantState> {
        if let Some(state) = self.states.read().get(id) {
            return Arc::clone(state);
        }
        let mut states = self.states.write();
        let fresh = || {
            Arc::new(TenantState {
                metrics: Arc::default(),
                limits: Limits::new(&self.config),
                accepted: Accepted::default(),
                buffers: Share::of(Arc::clone(&self.budget)),
                stream_buffers: Share::of(Arc::clone(&self.stream_budget)),
            })
        };
        Arc::clone(states.entry(id.clone()).or_insert_with(fresh))
    }

    /// Forgets the tenants that are gone.
    pub(super) fn retain(&self, snapshot: &Snapshot) {
        self.states.write().retain(|id, _| snapshot.by_id(id).is_some());
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
        let bytes = state.buffers.in_use() as f64;
        families.gauge("portico_gateway_buffered_bytes", "Bytes that whole bodies take now.", &tenant, bytes);
        families.counter(
            "portico_gateway_buffer_refused_total",
            "Bodies that were not read for want of budget (429).",
            &tenant,
            state.buffers.refused(),
        );
        let (short, long) = state.limits.in_use();
        let (short, long) = (short as f64, long as f64);
        families.gauge("portico_gateway_requests_in_flight", "Ordinary requests that run now.", &tenant, short);
        families.gauge("portico_gateway_long_running", "Watches and streams that run now.", &tenant, long);
    }
}

impl Source for Tenants {
    fn collect(&self, families: &mut Families) {
        let states: Vec<_> = self.states.read().iter().map(|(id, state)| (id.clone(), Arc::clone(state))).collect();
        for (id, state) in states {
            collect_tenant(families, &id, &state.metrics);
            self.collect_state(families, &id, &state);
        }
    }
}
