//! Who is asked when: how many API servers at once, and what becomes of their answers.
//!
//! Promises: who takes long gives his seat to the others after a moment, and is asked last the next time; who was never
//! asked is not slow. Must not know who scrapes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::ask::{Bounds, ask};
use super::catalog::Catalog;
use super::counts::Counts;
use super::gather::{Gathered, Gathering};
use super::lines::{FamilyLines, Labelled};
use super::shown::{Outcome, Problem, Shown};
use crate::config::ScrapeConfig;
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::tenant::Tenant;

/// Who takes longer is slow: an API server writes its page within some ten milliseconds.
const BRISK: Duration = Duration::from_millis(500);
/// Slow ones under way for each seat.
const SLOW: usize = 4;

/// The seats.
#[derive(Debug)]
pub(super) struct Asking {
    config: ScrapeConfig,
    clock: Clock,
    catalog: Arc<Catalog>,
    counts: Arc<Counts>,
    /// Who was slow the last time.
    slow: Mutex<HashSet<TenantId>>,
    seats: Arc<Semaphore>,
    slow_seats: Arc<Semaphore>,
}

impl Asking {
    pub(super) fn new(config: &ScrapeConfig, catalog: Catalog, counts: &Arc<Counts>, clock: &Clock) -> Self {
        Self {
            config: config.clone(),
            clock: clock.clone(),
            catalog: Arc::new(catalog),
            counts: Arc::clone(counts),
            slow: Mutex::default(),
            seats: Arc::new(Semaphore::new(config.at_once)),
            slow_seats: Arc::new(Semaphore::new(config.at_once.saturating_mul(SLOW))),
        }
    }

    /// As many as have seats of either kind.
    pub(super) fn at_once(&self) -> usize {
        self.config.at_once.saturating_mul(SLOW + 1)
    }

    /// Places of `tenants`, the slow ones last.
    pub(super) fn in_order(&self, tenants: &[Arc<Tenant>]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..tenants.len()).collect();
        let slow = self.slow.lock();
        order.sort_by_key(|at| tenants.get(*at).is_some_and(|tenant| slow.contains(&tenant.id)));
        order
    }

    /// Forgets those that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(&TenantId) -> bool) {
        self.slow.lock().retain(|id| is_there(id));
    }

    /// Asks one of them, as soon as there is a seat.
    pub(super) async fn scrape(&self, tenant: &Tenant) -> Arc<Shown> {
        // They are never closed.
        let seat = Arc::clone(&self.seats).acquire_owned().await.ok();
        self.counts.asked.fetch_add(1, Ordering::Relaxed);
        let began = self.clock.instant();
        let (deadline, body) = (self.config.deadline.0, self.config.max_body);
        let bounds = Bounds { deadline, body, series: self.config.max_series_per_tenant };
        let mut asked = std::pin::pin!(ask(tenant, &self.catalog, bounds));
        let outcome = tokio::select! {
            outcome = &mut asked => {
                self.slow.lock().remove(&tenant.id);
                outcome
            }
            () = tokio::time::sleep(BRISK) => {
                self.slow.lock().insert(tenant.id.clone());
                let beside = async {
                    let slow_seat = Arc::clone(&self.slow_seats).acquire_owned().await.ok();
                    drop(seat);
                    let _held = slow_seat;
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    outcome = &mut asked => outcome,
                    () = beside => Err(Problem::Late),
                }
            }
        };
        let took = self.clock.instant().saturating_duration_since(began);
        Arc::new(self.shown(&Labelled::new(&tenant.id), took, outcome))
    }

    fn shown(&self, tenant: &Labelled, took: Duration, outcome: Result<Gathering, Problem>) -> Shown {
        let mut about = Outcome { seconds: took.as_secs_f64(), problem: None, dropped: 0 };
        let gathered = match outcome {
            Ok(gathering) => gathering.finish(tenant, self.config.max_bytes_per_tenant),
            Err(problem) => {
                about.problem = Some(problem);
                Gathered::default()
            }
        };
        about.dropped = gathered.dropped;
        if gathered.lines.text.is_empty() {
            return Shown::scraped(tenant, about, &gathered.lines, None);
        }
        match self.counts.room(gathered.lines.text.len()) {
            Some(room) => Shown::scraped(tenant, about, &gathered.lines, Some(room)),
            None => {
                about.problem = Some(Problem::NoRoom);
                about.dropped += gathered.series as u64;
                Shown::scraped(tenant, about, &FamilyLines::default(), None)
            }
        }
    }
}
