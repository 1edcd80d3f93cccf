//! Results of scrapes, shared by all who ask within some seconds, and the pages that are put together from them.
//!
//! Promises: one flight for each virtual cluster, whoever waits for it, and however soon he leaves; results are forgotten when
//! nobody asks any more; a cluster that is made again under its name has nothing of its predecessor's; what is made for a page
//! about one tenant stands on that tenant's share, so nobody of it fills what the fleet has. Must not know who scrapes.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::asking::Asking;
use super::catalog::{Catalog, Head};
use super::counts::{Counts, Room};
use super::flights::{Flight, Flights};
use super::lines::{FamilyLines, Labelled};
use super::own::Own;
use super::page::{Format, Page, Section};
use super::pods;
use super::shown::{self, Outcome, Problem, Shown};
use crate::config::ScrapeConfig;
use crate::error::{Result, Side};
use crate::gateway::buffer::{Share, Written};
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::runtime::task::{self, Task};
use crate::runtime::telemetry::{Metrics, Source};
use crate::tenant::{Nodes, Snapshot, Tenant};
use crate::usage::Usage;

/// Virtual clusters whose pods' use is asked for at once, of one page.
const USES: usize = 8;
/// How soon what is old is let go.
const LOOK: Duration = Duration::from_secs(1);

/// All results, and who is being asked.
#[derive(Debug)]
pub(crate) struct Scrapes {
    pub(super) config: ScrapeConfig,
    pub(super) counts: Arc<Counts>,
    clock: Clock,
    heads: Arc<[Head]>,
    pod_heads: Arc<[Head]>,
    own: Own,
    /// Of the host, where there is one.
    usage: Option<Arc<Usage>>,
    asking: Arc<Asking>,
    flights: Flights,
    kept: Mutex<HashMap<TenantId, Kept>>,
    /// Which cluster has a name, as far as its counters began anew with it.
    served: Mutex<HashMap<TenantId, String>>,
    is_kept: Arc<Notify>,
    forgetting: OnceLock<Task>,
}

/// One scrape of one virtual cluster, under way or over.
#[derive(Debug)]
struct Kept {
    uid: String,
    flight: Flight<Arc<Shown>>,
}

impl Scrapes {
    /// Shows its counts from now on.
    pub(crate) fn new(
        config: &ScrapeConfig,
        metrics: &Metrics,
        usage: Option<&Arc<Usage>>,
        clock: &Clock,
    ) -> Arc<Self> {
        let catalog = Catalog::new(config);
        let counts = Arc::new(Counts::new(config.max_kept_bytes));
        metrics.register(Arc::clone(&counts) as Arc<dyn Source>);
        let scrapes = Arc::new(Self {
            config: config.clone(),
            clock: clock.clone(),
            heads: shown::about().chain(catalog.heads()).collect(),
            pod_heads: pods::heads().collect(),
            own: Own::new(metrics.clone(), &counts, config.fresh.0, clock),
            usage: usage.cloned(),
            asking: Arc::new(Asking::new(config, catalog, &counts, clock)),
            counts,
            flights: Flights::new(clock),
            kept: Mutex::default(),
            served: Mutex::default(),
            is_kept: Arc::default(),
            forgetting: OnceLock::new(),
        });
        let (weak, is_kept) = (Arc::downgrade(&scrapes), Arc::clone(&scrapes.is_kept));
        let forgetting = forget(weak, is_kept);
        scrapes.forgetting.get_or_init(|| task::spawn("scrape results", forgetting));
        scrapes
    }

    /// A page about all of these tenants, made as it is read. Those that did not answer `until` then are down.
    pub(super) async fn fleet(
        &self,
        tenants: Vec<Arc<Tenant>>,
        until: Instant,
        format: Format,
        turn: OwnedSemaphorePermit,
    ) -> Result<Page> {
        let sections = self.sections(tenants, self.config.pods_in_fleet, None, until).await?;
        Ok(Page::new(format, sections, Some(turn)))
    }

    /// A page about one of them, drawn on its share as long as any of it is there: there may be as many as somebody likes,
    /// and they may be read as slowly.
    pub(super) async fn one(
        &self,
        tenant: Arc<Tenant>,
        until: Instant,
        format: Format,
        share: &Arc<Share>,
    ) -> Result<Bytes> {
        let mut page = Page::new(format, self.sections(vec![tenant], true, Some(share), until).await?, None);
        let mut written = Written::new(usize::MAX, share);
        while let Some(piece) = page.next_piece() {
            written.add(&piece).map_err(|failure| failure.of(Side::Client))?;
        }
        Ok(written.into_bytes())
    }

    /// Forgets those that are gone, whoever has their names now.
    pub(crate) fn retain(&self, snapshot: &Snapshot) {
        let is_there = |id: &TenantId, uid: &str| snapshot.by_id(id).is_some_and(|tenant| tenant.uid == uid);
        self.asking.retain(|id| snapshot.by_id(id).is_some());
        self.kept.lock().retain(|id, kept| is_there(id, &kept.uid));
        let mut served = self.served.lock();
        if served.iter().any(|(id, uid)| !is_there(id, uid)) {
            self.own.forget();
        }
        *served = snapshot.tenants().map(|tenant| (tenant.id.clone(), tenant.uid.clone())).collect();
    }

    async fn sections(
        &self,
        mut tenants: Vec<Arc<Tenant>>,
        has_pods: bool,
        share: Option<&Arc<Share>>,
        until: Instant,
    ) -> Result<Vec<Section>> {
        tenants.sort_by(|a, b| a.id.cmp(&b.id));
        let asked: &[Arc<Tenant>] = if has_pods { &tenants } else { &[] };
        let (mine, scraped, used) =
            tokio::join!(self.owned(&tenants, until), self.all(&tenants, until), self.uses(asked, share, until));
        let section = |heads, tenants| Section { heads, tenants };
        let (own_heads, mine) = mine?;
        Ok(vec![
            section(Arc::clone(&self.heads), scraped),
            section(Arc::clone(&self.pod_heads), used?),
            section(own_heads, mine),
        ])
    }

    /// Portico's own series of these; none where they are not there in time.
    async fn owned(&self, tenants: &[Arc<Tenant>], until: Instant) -> Result<(Arc<[Head]>, Vec<Arc<Shown>>)> {
        // Before they are read: what was read of a predecessor is let go before its successor is served.
        let is_served = |tenant: &&Arc<Tenant>| self.served.lock().get(&tenant.id) == Some(&tenant.uid);
        let served: Vec<_> = tenants.iter().filter(is_served).collect();
        self.is_kept.notify_one();
        let Ok(series) = tokio::time::timeout_at(until, self.own.series(&self.flights)).await else {
            return Ok(Default::default());
        };
        let series = series?;
        let mine = served.iter().filter_map(|tenant| series.of(&tenant.id).cloned()).collect();
        Ok((Arc::clone(&series.heads), mine))
    }

    /// In the order of `tenants`.
    async fn all(&self, tenants: &[Arc<Tenant>], until: Instant) -> Vec<Arc<Shown>> {
        let began = self.clock.instant();
        let order = self.asking.in_order(tenants).into_iter();
        let waits: Vec<_> = order
            .filter_map(|at| tenants.get(at).map(|tenant| (at, tenant)))
            .map(|(at, tenant)| async move { (at, self.flight(tenant).result().await) })
            .collect();
        // A page holds up nobody who asks for one tenant meanwhile.
        let mut waits = futures::stream::iter(waits).buffer_unordered(self.asking.at_once());
        let mut shown: Vec<Option<Arc<Shown>>> = vec![None; tenants.len()];
        while let Ok(Some((at, result))) = tokio::time::timeout_at(until, waits.next()).await {
            if let Some(place) = shown.get_mut(at) {
                *place = result;
            }
        }
        let late = |tenant: &Tenant| {
            let seconds = self.clock.instant().saturating_duration_since(began).as_secs_f64();
            let outcome = Outcome { seconds, problem: Some(Problem::Late), dropped: 0 };
            Arc::new(Shown::scraped(&Labelled::new(&tenant.id), outcome, &FamilyLines::default(), None))
        };
        shown.into_iter().zip(tenants).map(|(shown, tenant)| shown.unwrap_or_else(|| late(tenant))).collect()
    }

    /// What the pods of those use of whom that is known in time, in their order.
    async fn uses(
        &self,
        tenants: &[Arc<Tenant>],
        share: Option<&Arc<Share>>,
        until: Instant,
    ) -> Result<Vec<Arc<Shown>>> {
        let uses: Vec<_> =
            (0..).zip(tenants).map(|(at, tenant)| async move { (at, self.use_of(tenant, share).await) }).collect();
        let mut uses = futures::stream::iter(uses).buffer_unordered(USES);
        let mut shown: Vec<(usize, Arc<Shown>)> = Vec::new();
        while let Ok(Some((at, one))) = tokio::time::timeout_at(until, uses.next()).await {
            shown.extend(one?.map(|one| (at, Arc::new(one))));
        }
        shown.sort_unstable_by_key(|(at, _)| *at);
        Ok(shown.into_iter().map(|(_, one)| one).collect())
    }

    /// `Err`: the share has no room for it.
    async fn use_of(&self, tenant: &Tenant, share: Option<&Arc<Share>>) -> Result<Option<Shown>> {
        let Some(usage) = self.usage.as_ref().filter(|_| tenant.nodes == Nodes::Host) else { return Ok(None) };
        let (id, uid) = (&tenant.id, &tenant.uid);
        let read = async { Ok((usage.pods(id, uid).await?, usage.placed(id, uid).await?)) };
        let read: Result<_> = read.await;
        let Ok((used, placed)) = read.inspect_err(|error| tracing::debug!(tenant = %id, %error, "no use of pods"))
        else {
            return Ok(None);
        };
        let lines = pods::lines(id, &used, &placed, self.config.max_pods_per_tenant);
        let room = match share {
            Some(share) => Some(Room::Tenant(share.draw(lines.text.len())?)),
            None => self.counts.room(lines.text.len()),
        };
        Ok(room.map(|room| Shown::new(lines, Some(room))))
    }

    fn flight(&self, tenant: &Arc<Tenant>) -> Flight<Arc<Shown>> {
        let mut all = self.kept.lock();
        if let Some(kept) = all.get(&tenant.id)
            && kept.uid == tenant.uid
            && !self.is_old(&kept.flight)
        {
            return kept.flight.clone();
        }
        let (asking, asked) = (Arc::clone(&self.asking), Arc::clone(tenant));
        let flight = self.flights.begin(async move { asking.scrape(&asked).await });
        all.insert(tenant.id.clone(), Kept { uid: tenant.uid.clone(), flight: flight.clone() });
        self.is_kept.notify_one();
        flight
    }

    fn is_old(&self, flight: &Flight<Arc<Shown>>) -> bool {
        flight.is_old(self.config.fresh.0, self.clock.instant())
    }

    /// Whether anything is left.
    fn forget_old(&self) -> bool {
        let own = self.own.forget_old();
        let mut kept = self.kept.lock();
        kept.retain(|_, kept| !self.is_old(&kept.flight));
        own || !kept.is_empty()
    }
}

/// Lets go what is old, as long as anything is kept.
async fn forget(scrapes: Weak<Scrapes>, is_kept: Arc<Notify>) {
    loop {
        is_kept.notified().await;
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(scrapes) = scrapes.upgrade() else { return };
            if !scrapes.forget_old() {
                break;
            }
        }
    }
}
