//! The virtual objects of a tenant: how what becomes known of them goes into its stores, as far as there is room.
//!
//! Promises: store, references and the bytes that are counted change together.

use std::collections::HashMap;

use serde_json::Value;

use super::{TenantState, Touched};
use crate::syncer::cache::Entry;
use crate::syncer::catalog::Catalog;
use crate::syncer::incoming::{Incoming, Origin};
use crate::syncer::kind::ObjectKey;
use crate::syncer::queue::Item;

impl TenantState {
    /// A virtual object was applied; store and references change together.
    pub fn absorb(&self, kind: u16, incoming: Incoming, origin: Origin) -> Touched {
        let mut objects = self.kind(kind).objects.write();
        let before = objects.bytes();
        let more = incoming.entry.size().saturating_sub(objects.get(&incoming.key).map_or(0, Entry::size));
        let incoming = if more > self.cached.room() { incoming.cut() } else { incoming };
        let Incoming { key, entry, references: to, .. } = incoming;
        let differs = match origin {
            Origin::Watch => objects.observe(key.clone(), entry),
            Origin::Answer => objects.learn(key.clone(), entry),
        };
        self.cached.moved(before, objects.bytes());
        if objects.get(&key).is_some() {
            self.kind(kind).ended.lock().remove(&key);
        }
        let references = match to {
            Some(to) if differs => self.references.lock().set(&Item { kind, key }, to),
            _ => Vec::new(),
        };
        Touched { differs, references }
    }

    /// There is room for one that was cut. Untouched when another state of it is known by now.
    pub fn refill(&self, kind: u16, incoming: Incoming) -> Touched {
        let mut objects = self.kind(kind).objects.write();
        let before = objects.bytes();
        let Incoming { key, entry, references: to, .. } = incoming;
        let differs = objects.refill(key.clone(), entry);
        self.cached.moved(before, objects.bytes());
        let references = match to {
            Some(to) if differs => self.references.lock().set(&Item { kind, key }, to),
            _ => Vec::new(),
        };
        Touched { differs, references }
    }

    /// Takes room for an object of a list under way, beyond what is kept of it already, so that what is kept whole stays so.
    /// None: there is not so much.
    pub fn list(&self, kind: u16, key: &ObjectKey, bytes: usize) -> Option<usize> {
        let kept = self.kind(kind).objects.read().get(key).map_or(0, Entry::size);
        let more = bytes.saturating_sub(kept);
        if more > self.cached.room() {
            return None;
        }
        self.cached.moved(0, more);
        Some(more)
    }

    /// Changes a kept object ahead of the event that will tell so.
    pub fn amend(&self, kind: u16, key: &ObjectKey, change: impl FnOnce(&mut Value)) {
        let mut objects = self.kind(kind).objects.write();
        let before = objects.bytes();
        objects.amend(key, change);
        self.cached.moved(before, objects.bytes());
    }

    /// A virtual object ended.
    pub fn release(&self, kind: u16, key: &ObjectKey, uid: &str, version: u64) -> Touched {
        let state = self.kind(kind);
        let mut objects = state.objects.write();
        let before = objects.bytes();
        let differs = objects.forget(key, uid, version);
        self.cached.moved(before, objects.bytes());
        if objects.get(key).is_none() && state.index.read().name_of(key).is_some() {
            state.ended.lock().insert(key.clone());
        }
        self.drop_references(kind, key, differs)
    }

    /// Whether the watch has shown the end of this virtual object, whose copy still stands.
    pub fn saw_end(&self, kind: u16, key: &ObjectKey) -> bool {
        self.kind(kind).ended.lock().contains(key)
    }

    /// Every copy of one kind: which virtual object, and its name on the host.
    pub fn copies(&self, kind: u16) -> Vec<(ObjectKey, String)> {
        self.kind(kind).index.read().iter().map(|(key, name)| (key.clone(), name.clone())).collect()
    }

    /// The virtual object that a host object of this name stands for.
    pub fn virtual_of(&self, kind: u16, host_name: &str) -> Option<ObjectKey> {
        self.kind(kind).index.read().key_of(host_name).cloned()
    }

    /// A read found that it is gone.
    pub fn release_unchanged(&self, kind: u16, key: &ObjectKey, known: u64) -> Touched {
        let mut objects = self.kind(kind).objects.write();
        let before = objects.bytes();
        let differs = objects.learn_gone(key, known);
        self.cached.moved(before, objects.bytes());
        self.drop_references(kind, key, differs)
    }

    /// How many objects of the counted kinds there are, by resource and phase; those in no phase that has a word under `""`.
    pub fn counted(&self, catalog: &Catalog) -> Vec<(&'static str, &'static str, usize)> {
        let mut counts = Vec::new();
        for (kind, syncer) in catalog.iter() {
            let Some(phases) = syncer.counted() else { continue };
            let (resource, objects) = (self.kind(kind).plural, self.kind(kind).objects.read());
            let none = objects.in_phase(0);
            if phases.is_empty() || none > 0 {
                counts.push((resource, "", none));
            }
            counts.extend((1..).zip(phases).map(|(at, phase)| (resource, *phase, objects.in_phase(at))));
        }
        counts
    }

    fn drop_references(&self, kind: u16, key: &ObjectKey, differs: bool) -> Touched {
        let references =
            if differs { self.references.lock().set(&Item { kind, key: key.clone() }, Vec::new()) } else { Vec::new() };
        Touched { differs, references }
    }

    /// A whole list of virtual objects. Returns what changed, and what began or ceased to be referenced.
    pub fn replace(&self, kind: u16, list: Vec<Incoming>, version: u64) -> (Vec<ObjectKey>, Vec<Item>) {
        let mut to = HashMap::new();
        let list: Vec<(ObjectKey, Entry)> = list
            .into_iter()
            .map(|incoming| {
                to.insert(incoming.key.clone(), incoming.references);
                (incoming.key, incoming.entry)
            })
            .collect();
        let mut objects = self.kind(kind).objects.write();
        if objects.is_rewound(version) {
            tracing::warn!(tenant = %self.id, kind = self.kind(kind).plural, version,
                "the versions of the API server went back: was it restored from a backup?");
            self.deletions.rewound(tokio::time::Instant::now());
        }
        let before = objects.bytes();
        let changed = objects.replace(list, version);
        self.cached.moved(before, objects.bytes());
        let mut references = self.references.lock();
        let mut touched = Vec::new();
        for (key, _) in &changed {
            // Gone: it references nothing any more.
            if let Some(to) = to.remove(key).unwrap_or(Some(Vec::new())) {
                touched.extend(references.set(&Item { kind, key: key.clone() }, to));
            }
        }
        (changed.into_iter().map(|(key, _)| key).collect(), touched)
    }
}
