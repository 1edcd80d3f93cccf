//! Results of scrapes, shared by all who ask within some seconds, and how many API servers are asked at once.
//!
//! Promises: one flight for each virtual cluster, whoever waits for it; who takes long gives his seat to the others after a
//! moment and is asked last the next time; results are forgotten when nobody asks any more; a cluster that is made again under
//! its name has nothing of its predecessor's. Must not know who scrapes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::ask::{Bounds, ask};
use super::catalog::{Catalog, Head};
use super::counts::Counts;
use super::gather::Gathered;
use super::lines::{FamilyLines, Labelled};
use super::own::Own;
use super::page::{Format, Page, Section};
use super::pods;
use super::shown::{self, Outcome, Problem, Shown};
use crate::config::ScrapeConfig;
use crate::error::Result;
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::runtime::task::{self, Task};
use crate::runtime::telemetry::{Metrics, Source};
use crate::tenant::Tenant;
use crate::usage::Usage;

/// Who takes longer is slow: an API server writes its page within some ten milliseconds.
const BRISK: Duration = Duration::from_millis(500);
/// Slow ones under way for each seat.
const SLOW: usize = 4;
/// Virtual clusters whose pods' use is asked for at once, of one page.
const USES: usize = 8;

/// All results, and who is being asked.
#[derive(Debug)]
pub(crate) struct Scrapes {
    pub(super) config: ScrapeConfig,
    clock: Clock,
    catalog: Arc<Catalog>,
    heads: Arc<[Head]>,
    own: Own,
    usage: Arc<Usage>,
    pod_heads: Arc<[Head]>,
    pub(super) counts: Arc<Counts>,
    flights: Mutex<HashMap<TenantId, Arc<Flight>>>,
    /// Who was slow the last time.
    slow: Mutex<HashSet<TenantId>>,
    seats: Arc<Semaphore>,
    slow_seats: Arc<Semaphore>,
    forgetting: Mutex<Option<Task>>,
}

/// One scrape of one virtual cluster, under way or over.
#[derive(Debug)]
struct Flight {
    uid: String,
    result: OnceCell<(Instant, Arc<Shown>)>,
}

impl Scrapes {
    /// Shows its counts from now on.
    pub(crate) fn new(config: &ScrapeConfig, metrics: &Metrics, usage: &Arc<Usage>, clock: &Clock) -> Arc<Self> {
        let catalog = Arc::new(Catalog::new(config));
        let counts = Arc::new(Counts::new(config.max_kept_bytes));
        metrics.register(Arc::clone(&counts) as Arc<dyn Source>);
        Arc::new(Self {
            clock: clock.clone(),
            heads: shown::about().chain(catalog.heads()).collect(),
            catalog,
            own: Own::new(metrics.clone(), config.fresh.0),
            usage: Arc::clone(usage),
            pod_heads: pods::heads().collect(),
            counts,
            flights: Mutex::default(),
            slow: Mutex::default(),
            seats: Arc::new(Semaphore::new(config.at_once)),
            slow_seats: Arc::new(Semaphore::new(config.at_once.saturating_mul(SLOW))),
            forgetting: Mutex::default(),
            config: config.clone(),
        })
    }

    /// A page about these tenants. Those that did not answer `until` then are down. With the turn comes that it is about the
    /// whole fleet.
    pub(super) async fn page(
        self: &Arc<Self>,
        mut tenants: Vec<Arc<Tenant>>,
        until: Instant,
        format: Format,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Page> {
        tenants.sort_by(|a, b| a.id.cmp(&b.id));
        let own = self.own.series().await?;
        let mine = tenants.iter().filter_map(|tenant| own.of(&tenant.id).cloned()).collect();
        let asked: &[Arc<Tenant>] = if turn.is_none() || self.config.pods_in_fleet { &tenants } else { &[] };
        let (scraped, used) = tokio::join!(self.all(&tenants, until), self.uses(asked, until));
        self.forget_later();
        let sections = vec![
            Section { heads: Arc::clone(&self.heads), tenants: scraped },
            Section { heads: Arc::clone(&self.pod_heads), tenants: used },
            Section { heads: Arc::clone(&own.heads), tenants: mine },
        ];
        Ok(Page::new(format, sections, turn))
    }

    /// In the order of `tenants`.
    async fn all(self: &Arc<Self>, tenants: &[Arc<Tenant>], until: Instant) -> Vec<Arc<Shown>> {
        let began = self.clock.instant();
        let mut order: Vec<usize> = (0..tenants.len()).collect();
        {
            let slow = self.slow.lock();
            order.sort_by_key(|at| tenants.get(*at).is_some_and(|tenant| slow.contains(&tenant.id)));
        }
        let flights: Vec<_> = order
            .into_iter()
            .filter_map(|at| tenants.get(at).map(|tenant| (at, Arc::clone(tenant), Arc::clone(self))))
            .map(|(at, tenant, scrapes)| async move { (at, scrapes.one(tenant).await) })
            .collect();
        // As many as have seats of either kind: a page holds up nobody who asks for one tenant meanwhile.
        let at_once = self.config.at_once.saturating_mul(SLOW + 1);
        let mut flights = futures::stream::iter(flights).buffer_unordered(at_once);
        let mut shown: Vec<Option<Arc<Shown>>> = vec![None; tenants.len()];
        while let Ok(Some((at, result))) = tokio::time::timeout_at(until, flights.next()).await {
            if let Some(place) = shown.get_mut(at) {
                *place = Some(result);
            }
        }
        drop(flights);
        let late = |tenant: &Tenant| {
            self.slow.lock().insert(tenant.id.clone());
            let outcome = Outcome { seconds: began.elapsed().as_secs_f64(), problem: Some(Problem::Late), dropped: 0 };
            Arc::new(Shown::scraped(&Labelled::new(&tenant.id), outcome, &FamilyLines::default(), None))
        };
        shown.into_iter().zip(tenants).map(|(shown, tenant)| shown.unwrap_or_else(|| late(tenant))).collect()
    }

    /// What the pods of those use of whom that is known.
    async fn uses(self: &Arc<Self>, tenants: &[Arc<Tenant>], until: Instant) -> Vec<Arc<Shown>> {
        let uses: Vec<_> = tenants.iter().map(|tenant| Arc::clone(self).use_of(Arc::clone(tenant))).collect();
        let mut uses = futures::stream::iter(uses).buffered(USES);
        let mut shown = Vec::new();
        while let Ok(Some(one)) = tokio::time::timeout_at(until, uses.next()).await {
            shown.extend(one.map(Arc::new));
        }
        shown
    }

    async fn use_of(self: Arc<Self>, tenant: Arc<Tenant>) -> Option<Shown> {
        let (id, uid) = (&tenant.id, &tenant.uid);
        let read = async { Ok((self.usage.pods(id, uid).await?, self.usage.placed(id, uid).await?)) };
        let read: Result<_> = read.await;
        let (used, placed) = read.inspect_err(|error| tracing::debug!(tenant = %id, %error, "no use of pods")).ok()?;
        let lines = pods::lines(id, &used, &placed, self.config.max_pods_per_tenant);
        let room = self.counts.room(lines.text.len())?;
        Some(Shown::new(lines, Some(room)))
    }

    /// Boxed: there may be thousands.
    fn one(self: Arc<Self>, tenant: Arc<Tenant>) -> futures::future::BoxFuture<'static, Arc<Shown>> {
        Box::pin(async move {
            let flight = self.flight(&tenant);
            let (_, shown) = flight.result.get_or_init(|| self.scrape(&tenant)).await;
            Arc::clone(shown)
        })
    }

    fn flight(&self, tenant: &Tenant) -> Arc<Flight> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&tenant.id)
            && flight.uid == tenant.uid
            && !self.is_old(flight)
        {
            return Arc::clone(flight);
        }
        let flight = Arc::new(Flight { uid: tenant.uid.clone(), result: OnceCell::new() });
        flights.insert(tenant.id.clone(), Arc::clone(&flight));
        flight
    }

    fn is_old(&self, flight: &Flight) -> bool {
        flight.result.get().is_some_and(|(at, _)| at.elapsed() >= self.config.fresh.0)
    }

    async fn scrape(&self, tenant: &Tenant) -> (Instant, Arc<Shown>) {
        // They are never closed.
        let seat = Arc::clone(&self.seats).acquire_owned().await.ok();
        self.counts.asked.fetch_add(1, Ordering::Relaxed);
        let began = self.clock.instant();
        let (deadline, body) = (self.config.deadline.0, self.config.max_body);
        let bounds = Bounds { deadline, body, series: self.config.max_series_per_tenant };
        let mut asked = std::pin::pin!(ask(tenant, &self.catalog, bounds));
        let mut slow_seat = None;
        let outcome = tokio::select! {
            outcome = &mut asked => outcome,
            () = tokio::time::sleep(BRISK) => {
                let others = async {
                    slow_seat = Arc::clone(&self.slow_seats).acquire_owned().await.ok();
                    drop(seat);
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    outcome = &mut asked => outcome,
                    () = others => Err(Problem::Late),
                }
            }
        };
        drop(slow_seat);
        let took = began.elapsed();
        if took >= BRISK {
            self.slow.lock().insert(tenant.id.clone());
        } else {
            self.slow.lock().remove(&tenant.id);
        }
        let labelled = Labelled::new(&tenant.id);
        let mut outcome_of = Outcome { seconds: took.as_secs_f64(), problem: None, dropped: 0 };
        let gathered = match outcome {
            Ok(gathering) => gathering.finish(&labelled, self.config.max_bytes_per_tenant),
            Err(problem) => {
                outcome_of.problem = Some(problem);
                Gathered::default()
            }
        };
        (self.clock.instant(), Arc::new(self.keep(&labelled, outcome_of, &gathered)))
    }

    fn keep(&self, tenant: &Labelled, mut outcome: Outcome, gathered: &Gathered) -> Shown {
        outcome.dropped = gathered.dropped;
        if gathered.lines.text.is_empty() {
            return Shown::scraped(tenant, outcome, &gathered.lines, None);
        }
        match self.counts.room(gathered.lines.text.len()) {
            Some(room) => Shown::scraped(tenant, outcome, &gathered.lines, Some(room)),
            None => {
                outcome.problem = Some(Problem::NoRoom);
                outcome.dropped += gathered.series as u64;
                Shown::scraped(tenant, outcome, &FamilyLines::default(), None)
            }
        }
    }

    /// What nobody asked for again is let go as soon as it is old. A later page's waiting takes the place of this one's.
    fn forget_later(self: &Arc<Self>) {
        let (scrapes, fresh) = (Arc::downgrade(self), self.config.fresh.0);
        self.forget_old();
        let task = task::spawn("scrape results", async move {
            tokio::time::sleep(fresh).await;
            if let Some(scrapes) = scrapes.upgrade() {
                scrapes.forget_old();
                scrapes.own.forget_old().await;
            }
        });
        *self.forgetting.lock() = Some(task);
    }

    fn forget_old(&self) {
        self.flights.lock().retain(|_, flight| !self.is_old(flight));
    }

    /// Forgets those that are gone.
    pub(crate) fn retain(&self, is_there: impl Fn(&TenantId) -> bool) {
        self.slow.lock().retain(|id| is_there(id));
        self.flights.lock().retain(|id, _| is_there(id));
    }
}
