//! The host as far as tenants come from it, in memory, with seeded misfortune: for tests of whoever follows
//! VirtualClusters.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::origin::{Events, Origin};
use crate::error::{Error, Kind, Result};
use crate::kubernetes::{Secret, WatchEvent};
use crate::names::TenantId;

/// VirtualClusters and one Secret for all of them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FakeOrigin(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    moved: watch::Sender<u64>,
}

struct State {
    version: u64,
    compacted: u64,
    /// Watches of an earlier one are broken.
    epoch: u64,
    objects: BTreeMap<TenantId, Value>,
    log: Vec<Logged>,
    secret: Value,
    hanging: HashSet<String>,
    lists: usize,
    secrets: usize,
    random: StdRng,
    trouble: bool,
    /// Watches end as soon as they begin.
    short: bool,
    down: bool,
}

#[derive(Clone)]
struct Logged {
    version: u64,
    deleted: bool,
    object: Value,
}

struct FakeEvents {
    origin: FakeOrigin,
    at: u64,
    epoch: u64,
    moved: watch::Receiver<u64>,
}

impl FakeOrigin {
    /// `secret` is every tenant's PKI.
    pub(crate) fn new(seed: u64, secret: Value) -> Self {
        let state = State {
            version: 1,
            compacted: 0,
            epoch: 0,
            objects: BTreeMap::new(),
            log: Vec::new(),
            secret,
            hanging: HashSet::new(),
            lists: 0,
            secrets: 0,
            random: StdRng::seed_from_u64(seed),
            trouble: false,
            short: false,
            down: false,
        };
        Self(Arc::new(Inner { state: Mutex::new(state), moved: watch::Sender::new(0) }))
    }

    pub(crate) fn apply(&self, mut object: Value) {
        let id = TenantId::of(&object).expect("id");
        self.change(|state| {
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            state.objects.insert(id, object.clone());
            (false, object)
        });
    }

    pub(crate) fn edit(&self, id: &TenantId, change: impl FnOnce(&mut Value)) {
        let Some(mut object) = self.get(id) else { return };
        change(&mut object);
        self.apply(object);
    }

    pub(crate) fn delete(&self, id: &TenantId) {
        if self.get(id).is_some() {
            self.change(|state| (true, state.objects.remove(id).expect("there")));
        }
    }

    pub(crate) fn get(&self, id: &TenantId) -> Option<Value> {
        self.0.state.lock().objects.get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Value> {
        self.0.state.lock().objects.values().cloned().collect()
    }

    /// Every watch of now breaks off; what happens before the next list is in no watch.
    pub(crate) fn break_watches(&self) {
        let mut state = self.0.state.lock();
        state.epoch += 1;
        drop(state);
        self.wake();
    }

    /// Watches from before now are answered 410.
    pub(crate) fn compact(&self) {
        let mut state = self.0.state.lock();
        state.compacted = state.version;
        state.log.clear();
        drop(state);
        self.wake();
    }

    /// Lists and watches fail, or do not any more.
    pub(crate) fn down(&self, is_down: bool) {
        self.0.state.lock().down = is_down;
        self.break_watches();
    }

    /// Secrets of this namespace are not answered until it is healed.
    pub(crate) fn hang(&self, namespace: &str) {
        self.0.state.lock().hanging.insert(namespace.to_owned());
    }

    pub(crate) fn heal(&self, namespace: &str) {
        self.0.state.lock().hanging.remove(namespace);
        self.wake();
    }

    /// Whether calls fail, hang, panic or come late by chance.
    pub(crate) fn trouble(&self, on: bool) {
        self.0.state.lock().trouble = on;
    }

    /// Whether watches end as soon as they begin.
    pub(crate) fn short_watches(&self, on: bool) {
        self.0.state.lock().short = on;
    }

    pub(crate) fn lists(&self) -> usize {
        self.0.state.lock().lists
    }

    pub(crate) fn secrets(&self) -> usize {
        self.0.state.lock().secrets
    }

    fn change(&self, change: impl FnOnce(&mut State) -> (bool, Value)) {
        let mut state = self.0.state.lock();
        state.version += 1;
        let (deleted, object) = change(&mut state);
        let version = state.version;
        state.log.push(Logged { version, deleted, object });
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        self.0.moved.send_modify(|n| *n += 1);
    }

    /// One of `sides`, by chance; 0 while all is well.
    fn fate(&self, sides: u32) -> u32 {
        let mut state = self.0.state.lock();
        if state.trouble { state.random.random_range(0..sides) } else { 0 }
    }
}

fn failed(kind: Kind) -> Error {
    Error::host(kind, "as the test wants it")
}

impl Origin for FakeOrigin {
    fn list(&self) -> BoxFuture<'_, Result<(Vec<Value>, String)>> {
        Box::pin(async move {
            match self.fate(12) {
                1 => tokio::time::sleep(Duration::from_secs(3)).await,
                2 => return Err(failed(Kind::Unavailable)),
                3 => panic!("as the test wants it"),
                _ => {}
            }
            let mut state = self.0.state.lock();
            state.lists += 1;
            if state.down {
                return Err(failed(Kind::Unavailable));
            }
            Ok((state.objects.values().cloned().collect(), state.version.to_string()))
        })
    }

    fn watch<'a>(&'a self, version: &'a str) -> BoxFuture<'a, Result<Box<dyn Events>>> {
        Box::pin(async move {
            if self.fate(8) == 1 {
                // What happens now is older than the watch when it begins: it must come from the log, or as a 410.
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            let state = self.0.state.lock();
            if state.down {
                return Err(failed(Kind::Unavailable));
            }
            let at = version.parse().expect("a version");
            let moved = self.0.moved.subscribe();
            Ok(Box::new(FakeEvents { origin: self.clone(), at, epoch: state.epoch, moved }) as Box<dyn Events>)
        })
    }

    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Secret>> {
        Box::pin(async move {
            self.0.state.lock().secrets += 1;
            let mut moved = self.0.moved.subscribe();
            while self.0.state.lock().hanging.contains(namespace) {
                moved.changed().await.expect("the test goes on");
            }
            match self.fate(12) {
                1 => tokio::time::sleep(Duration::from_secs(4)).await,
                2 => return Err(failed(Kind::Unavailable)),
                3 => panic!("as the test wants it"),
                4 => std::future::pending().await,
                _ => {}
            }
            Ok(Secret::new(name, self.0.state.lock().secret.clone()))
        })
    }
}

impl Events for FakeEvents {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<WatchEvent>>> {
        Box::pin(async move {
            loop {
                self.moved.mark_unchanged();
                if let Some(outcome) = self.look() {
                    return outcome;
                }
                self.moved.changed().await.expect("the test goes on");
            }
        })
    }
}

impl FakeEvents {
    fn look(&mut self) -> Option<Result<Option<WatchEvent>>> {
        let fate = self.origin.fate(10);
        let state = self.origin.0.state.lock();
        if self.epoch != state.epoch {
            return Some(if fate == 1 { Ok(None) } else { Err(failed(Kind::Closed)) });
        }
        if state.short || self.at < state.compacted {
            return Some(Err(failed(Kind::Gone)));
        }
        let next = state.log.iter().find(|logged| logged.version > self.at)?.clone();
        drop(state);
        if fate != 2 {
            // Otherwise it comes once more.
            self.at = next.version;
        }
        let bytes = Bytes::from(next.object.to_string());
        Some(Ok(Some(if next.deleted { WatchEvent::Deleted(bytes) } else { WatchEvent::Applied(bytes) })))
    }
}
