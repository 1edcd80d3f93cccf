//! What B sees: one client, one call after another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use kube::core::WatchEvent;
use portico::names::keys;
use serde_json::Value;

use crate::Kind;
use crate::percentile::percentile;
use crate::place::{self, Outcome, PATIENCE, Place};

/// Between two calls: B is no flood.
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) struct Neighbour {
    pub(crate) inside: Arc<Place>,
    pub(crate) host: Arc<Place>,
    /// Its name on the host.
    pub(crate) cluster: String,
}

#[derive(Debug, Default)]
pub(crate) struct Measured {
    times: Vec<Duration>,
    pub(crate) failed: usize,
}

impl Measured {
    pub(crate) fn p99(&self) -> f64 {
        self.at(99)
    }

    pub(crate) fn words(&self) -> String {
        format!("{:.2} / {:.2} ({})", self.at(50), self.at(99), self.times.len())
    }

    fn at(&self, share: usize) -> f64 {
        percentile(&self.times, share).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    fn take(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Answered(took) => self.times.push(took),
            Outcome::Refused => self.fails("refused"),
            Outcome::Failed(why) => self.fails(&why),
        }
    }

    fn fails(&mut self, why: &str) {
        if self.failed == 0 {
            eprintln!("  B's first failure: {why:.300}");
        }
        self.failed += 1;
    }
}

impl Neighbour {
    pub(crate) async fn measure(&self, kind: Kind, length: Duration, into: &mut Measured) {
        let until = Instant::now() + length;
        let resolver = self.inside.resolver().await;
        let mut n = 0_u64;
        match kind {
            Kind::Watch => self.watch(until, into).await,
            Kind::Pod => self.pods(until, into).await,
            Kind::Get | Kind::Exec | Kind::Dns => {
                while Instant::now() < until {
                    n += 1;
                    into.take(match kind {
                        Kind::Get => self.inside.get().await,
                        Kind::Exec => self.inside.exec().await,
                        _ => place::ask(&resolver, u16::try_from(n % 65_536).expect("16 bits")).await,
                    });
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// From the write until the event of it.
    async fn watch(&self, until: Instant, into: &mut Measured) {
        let Some(events) = open(&self.inside, "configmaps", "fieldSelector=metadata.name%3Dbench", into).await else {
            return;
        };
        let mut events = std::pin::pin!(events);
        let mut n = 0_u64;
        while Instant::now() < until {
            n += 1;
            let value = format!("{}-{n}", rand::random::<u64>());
            let began = Instant::now();
            let (written, seen) =
                tokio::join!(self.inside.write(&value), first(events.as_mut(), |object| object["data"]["n"] == *value));
            let outcome = match (written, seen) {
                (Outcome::Answered(_), Some(at)) => Outcome::Answered(at.duration_since(began)),
                (Outcome::Answered(_), None) => Outcome::Failed("no event".to_owned()),
                (other, _) => other,
            };
            let is_over = !matches!(outcome, Outcome::Answered(_));
            into.take(outcome);
            if is_over {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// From the creation inside until the host shows it.
    async fn pods(&self, until: Instant, into: &mut Measured) {
        let selector = format!("labelSelector=portico.dev%2Fcluster%3D{}", self.cluster);
        let Some(events) = open(&self.host, "pods", &selector, into).await else { return };
        let mut events = std::pin::pin!(events);
        let mut n = 0_u64;
        while Instant::now() < until {
            n += 1;
            let name = format!("sample-{:x}-{n}", rand::random::<u32>());
            let began = Instant::now();
            let is_it = |object: &Value| object["metadata"]["annotations"][keys::OBJECT_NAME] == *name;
            let (created, seen) = tokio::join!(self.inside.create_pod(&name), first(events.as_mut(), is_it));
            let outcome = match (created, seen) {
                (Outcome::Answered(_), Some(at)) => Outcome::Answered(at.duration_since(began)),
                (Outcome::Answered(_), None) => Outcome::Failed("not on the host".to_owned()),
                (other, _) => other,
            };
            let is_over = !matches!(outcome, Outcome::Answered(_));
            into.take(outcome);
            if let Outcome::Failed(why) = self.inside.delete_pod(&name).await {
                eprintln!("  pod {name} stays: {why:.300}");
            }
            if is_over {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn open(
    place: &Place,
    plural: &str,
    selector: &str,
    into: &mut Measured,
) -> Option<impl Stream<Item = Result<WatchEvent<Value>, kube::Error>> + use<>> {
    let opened = match place.now(plural, selector).await {
        Ok(request) => place.client.request_events::<Value>(request).await.map_err(|error| format!("{error:?}")),
        Err(why) => Err(why),
    };
    match opened {
        Ok(events) => Some(events),
        Err(why) => {
            into.fails(&why);
            None
        }
    }
}

/// When the first such event came; the others are passed by.
async fn first(
    mut events: std::pin::Pin<&mut impl Stream<Item = Result<WatchEvent<Value>, kube::Error>>>,
    is_it: impl Fn(&Value) -> bool,
) -> Option<Instant> {
    let found = async {
        while let Some(Ok(event)) = events.next().await {
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event
                && is_it(&object)
            {
                return Some(Instant::now());
            }
        }
        None
    };
    tokio::time::timeout(PATIENCE, found).await.ok().flatten()
}
