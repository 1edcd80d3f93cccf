//! What is known of one kind's objects on one side: projected, as compact JSON, parsed again only when planned with.
//!
//! Promises: a state never goes back to an older one (late or repeated events, answers to our own writes and refetches
//! are ordered by resourceVersion against what the watch has delivered); a list replaces exactly what it is newer than.
//! Must not know kinds' meaning or tenants.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::Value;

use crate::translate::summary::Summary;

/// One object as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// uid.
    pub uid: Box<str>,
    /// resourceVersion; 0 when it is no number.
    pub version: u64,
    /// Of everything that plans look at, also of what is not kept.
    digest: u64,
    json: Box<[u8]>,
    /// About the bytes that the parsed object takes; of one that is cut, those that it would be kept in.
    weight: u32,
    is_cut: bool,
    phase: Phase,
    summary: Option<Summary>,
}

/// Which of the phases of its kind an object is in, counted from 1; 0: in none that is counted.
pub type Phase = u8;
/// No kind has as many that are counted.
pub const PHASES: usize = 8;

/// Objects of one kind on one side.
#[derive(Debug)]
pub struct Store<K> {
    entries: BTreeMap<K, Entry>,
    /// The newest resourceVersion that the watch is known to have delivered everything up to.
    delivered: u64,
    /// Held by all entries.
    bytes: usize,
    /// How many are in each phase.
    phases: [usize; PHASES],
}

/// Whether a source's objects are all known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceState {
    /// The first list is not complete.
    Starting,
    /// Complete, and followed by a watch.
    Synced,
    /// Not readable (no right, or not served): the kind rests until it is.
    Off,
}

/// A [`SourceState`] that many read.
#[derive(Debug)]
pub struct SharedState(AtomicU8);

impl Entry {
    /// From a projected object; `keep` is what is stored of it (the same, or less). The resourceVersion is stored
    /// beside it, so that it alone is never a difference.
    pub fn new(projected: &mut Value, keep: impl FnOnce(&mut Value)) -> Self {
        let uid = text(projected, "uid").into();
        let version = text(projected, "resourceVersion").parse().unwrap_or(0);
        if let Some(metadata) = projected.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
            metadata.remove("managedFields");
        }
        let bytes = serde_json::to_vec(projected).unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let digest = hasher.finish();
        keep(projected);
        let json = serde_json::to_vec(projected).unwrap_or_default().into_boxed_slice();
        let weight = u32::try_from(weight(projected)).unwrap_or(u32::MAX);
        Self { uid, version, digest, json, weight, is_cut: false, phase: 0, summary: None }
    }

    /// With what plans of other objects read of it.
    pub fn with_summary(self, summary: Option<Summary>) -> Self {
        Self { summary, ..self }
    }

    /// With the phase that it is in.
    pub fn in_phase(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }

    /// What plans of other objects read of it.
    pub fn summary(&self) -> Option<&Summary> {
        self.summary.as_ref()
    }

    /// What is left of it when there is no room: that it is there, and which it is. A later state differs as ever.
    pub fn cut(self, namespace: &str, name: &str) -> Self {
        let mut metadata = serde_json::json!({"name": name, "uid": self.uid});
        if !namespace.is_empty() {
            metadata["namespace"] = namespace.into();
        }
        let json = serde_json::to_vec(&serde_json::json!({"metadata": metadata})).unwrap_or_default();
        let weight = if self.is_cut { self.weight } else { u32::try_from(self.size()).unwrap_or(u32::MAX) };
        Self { json: json.into_boxed_slice(), weight, is_cut: true, summary: None, ..self }
    }

    /// Whether there was no room for it.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The object, with its resourceVersion.
    pub fn object(&self) -> Value {
        #[cfg(test)]
        PARSES.with(|count| count.set(count.get() + 1));
        let mut object: Value = serde_json::from_slice(&self.json).unwrap_or_default();
        if self.version > 0
            && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.insert("resourceVersion".to_owned(), Value::String(self.version.to_string()));
        }
        object
    }

    /// Whether a plan could see a difference.
    pub fn differs(&self, other: &Self) -> bool {
        self.digest != other.digest || self.uid != other.uid
    }

    /// About the bytes that [`Entry::object`] takes, known without a parse.
    pub fn weight(&self) -> usize {
        usize::try_from(self.weight).unwrap_or(usize::MAX)
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        self.json.len() + self.uid.len()
    }
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), delivered: 0, bytes: 0, phases: [0; PHASES] }
    }
}

impl<K: Ord + Clone> Store<K> {
    /// One object.
    pub fn get(&self, key: &K) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Entry)> {
        self.entries.iter()
    }

    /// Those from `first` on, in order.
    pub fn range_from(&self, first: K) -> impl Iterator<Item = (&K, &Entry)> {
        self.entries.range(first..)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many are in this phase.
    pub fn in_phase(&self, phase: Phase) -> usize {
        self.phases.get(usize::from(phase)).copied().unwrap_or_default()
    }

    /// Everything up to this resourceVersion is known.
    pub fn reached(&self) -> u64 {
        self.delivered
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A watch delivered this state. True when it differs from what was known.
    pub fn observe(&mut self, key: K, entry: Entry) -> bool {
        self.delivered = self.delivered.max(entry.version);
        self.put(key, entry)
    }

    /// A watch delivered the end of this object. True when it was known.
    pub fn forget(&mut self, key: &K, uid: &str, version: u64) -> bool {
        self.delivered = self.delivered.max(version);
        match self.entries.get(key) {
            Some(old) if &*old.uid == uid || old.version <= version => self.remove(key),
            _ => false,
        }
    }

    fn remove(&mut self, key: &K) -> bool {
        let gone = self.entries.remove(key);
        self.uncount(gone.as_ref());
        gone.is_some()
    }

    fn insert(&mut self, key: K, entry: Entry) {
        self.bytes += entry.size();
        if let Some(count) = self.phases.get_mut(usize::from(entry.phase)) {
            *count += 1;
        }
        let old = self.entries.insert(key, entry);
        self.uncount(old.as_ref());
    }

    fn uncount(&mut self, gone: Option<&Entry>) {
        let Some(gone) = gone else { return };
        self.bytes -= gone.size();
        if let Some(count) = self.phases.get_mut(usize::from(gone.phase)) {
            *count -= 1;
        }
    }

    /// There is room for an object that was cut. False when another state of it is known by now.
    pub fn refill(&mut self, key: K, entry: Entry) -> bool {
        let fits = self
            .entries
            .get(&key)
            .is_some_and(|old| old.is_cut && old.uid == entry.uid && old.version <= entry.version);
        if fits {
            self.insert(key, entry);
        }
        fits
    }

    /// A bookmark: everything up to here has been delivered.
    pub fn delivered(&mut self, version: u64) {
        self.delivered = self.delivered.max(version);
    }

    /// The answer to our own write or read. What the watch has passed already is older than what it delivered.
    /// True when it differs from what was known.
    pub fn learn(&mut self, key: K, entry: Entry) -> bool {
        if entry.version > 0 && entry.version <= self.delivered {
            return false;
        }
        self.put(key, entry)
    }

    /// Never goes back to an older state.
    fn put(&mut self, key: K, entry: Entry) -> bool {
        match self.entries.get(&key) {
            Some(old) if entry.version > 0 && old.version >= entry.version => false,
            Some(old) => {
                let differs = old.differs(&entry);
                self.insert(key, entry);
                differs
            }
            None => {
                self.insert(key, entry);
                true
            }
        }
    }

    /// A read found nothing: drops what was known before the read, if it is unchanged since.
    pub fn learn_gone(&mut self, key: &K, known: u64) -> bool {
        match self.entries.get(key) {
            Some(old) if old.version == known => self.remove(key),
            _ => false,
        }
    }

    /// Changes a kept object ahead of the event that will tell so.
    pub fn amend(&mut self, key: &K, change: impl FnOnce(&mut Value)) {
        if let Some(entry) = self.entries.get_mut(key).filter(|entry| !entry.is_cut) {
            self.bytes -= entry.size();
            let mut object: Value = serde_json::from_slice(&entry.json).unwrap_or_default();
            change(&mut object);
            entry.json = serde_json::to_vec(&object).unwrap_or_default().into_boxed_slice();
            let mut hasher = DefaultHasher::new();
            entry.json.hash(&mut hasher);
            entry.digest = hasher.finish();
            self.bytes += entry.size();
        }
    }

    /// Whether a list of this version would be of an older state than the watch has delivered: the history began anew.
    pub fn is_rewound(&self, version: u64) -> bool {
        version > 0 && version < self.delivered
    }

    /// A whole list. Returns the keys that changed, came or went (then with what they were). Own writes newer than the list stay, unless the
    /// server's history began anew (its versions are behind what it delivered once).
    pub fn replace(&mut self, list: Vec<(K, Entry)>, version: u64) -> Vec<(K, Option<Entry>)> {
        let reset = version < self.delivered;
        let mut changed = Vec::new();
        let mut old = std::mem::take(&mut self.entries);
        (self.bytes, self.phases) = (0, [0; PHASES]);
        for (key, entry) in list {
            let entry = match old.remove(&key) {
                Some(known) if !reset && known.version > version => known,
                Some(known) => {
                    if known.differs(&entry) {
                        changed.push((key.clone(), None));
                    }
                    entry
                }
                None => {
                    changed.push((key.clone(), None));
                    entry
                }
            };
            self.insert(key, entry);
        }
        for (key, entry) in old {
            if !reset && entry.version > version {
                self.insert(key, entry);
            } else {
                changed.push((key, Some(entry)));
            }
        }
        self.delivered = version;
        changed
    }
}

impl SharedState {
    /// In a state.
    pub fn new(state: SourceState) -> Self {
        let shared = Self(AtomicU8::new(0));
        shared.set(state);
        shared
    }

    /// The state at this moment.
    pub fn get(&self) -> SourceState {
        match self.0.load(Ordering::Acquire) {
            1 => SourceState::Synced,
            2 => SourceState::Off,
            _ => SourceState::Starting,
        }
    }

    /// Sets it; true when it was another.
    pub fn set(&self, state: SourceState) -> bool {
        let number = match state {
            SourceState::Starting => 0,
            SourceState::Synced => 1,
            SourceState::Off => 2,
        };
        self.0.swap(number, Ordering::AcqRel) != number
    }
}

/// About the bytes of memory that a value takes: a map is a tree whose smallest node has room for eleven entries.
fn weight(value: &Value) -> usize {
    const NODE: usize = 640;
    const ENTRY: usize = 112;
    const ITEM: usize = 40;
    const TEXT: usize = 16;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len() + TEXT,
        Value::Array(items) => items.iter().map(|item| ITEM + weight(item)).sum(),
        Value::Object(map) if map.is_empty() => 0,
        Value::Object(map) => {
            let entries: usize = map.iter().map(|(key, value)| key.len() + TEXT + weight(value)).sum();
            entries + NODE.max(map.len() * ENTRY)
        }
    }
}

#[cfg(test)]
thread_local! {
    /// How often this thread made a whole object of an entry.
    pub(crate) static PARSES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// `metadata.{field}` as text, `""` when it is missing.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// A label or annotation.
pub fn mark<'a>(object: &'a Value, map: &str, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get(map)?.get(key)?.as_str()
}

#[cfg(test)]
mod tests;
