//! Objects on their way from the wire into a cache: projected and packed, of either side.

use serde_json::{Value, json};

use crate::syncer::cache::{Entry, Phase, mark, text};
use crate::syncer::catalog::Catalog;
use crate::syncer::kind::{Direction, ObjectKey, ResourceSyncer};
use crate::syncer::queue::Item;
use crate::syncer::{references, tokens};

/// An object on its way from the wire into a cache.
#[derive(Debug)]
pub struct Incoming {
    /// Namespace and name on its own side.
    pub key: ObjectKey,
    /// What is stored.
    pub entry: Entry,
    /// The projected object.
    pub value: Value,
    /// What a virtual object references; None when its kind cannot tell, and of host objects.
    pub references: Option<Vec<Item>>,
}

impl Incoming {
    /// It is there, and nothing more of it is kept.
    #[must_use]
    pub fn cut(self) -> Self {
        let entry = self.entry.cut(&self.key.namespace, &self.key.name);
        Self { entry, value: Value::Null, references: Some(Vec::new()), ..self }
    }
}

/// How a state became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the watch.
    Watch,
    /// From an answer to us.
    Answer,
}

/// Projects a virtual object and packs it for the store.
pub fn pack_virtual(catalog: &Catalog, kind: u16, object: Value) -> Incoming {
    let syncer = catalog.kind(kind);
    let mut value = syncer.project(object, Direction::Down);
    let lean = syncer.fetch_body_on_demand();
    let summary = syncer.summary(&value);
    let entry = Entry::new(&mut value, |kept| {
        if lean && let Some(map) = kept.as_object_mut() {
            for body in ["data", "binaryData", "stringData"] {
                map.remove(body);
            }
        }
    })
    .with_summary(summary)
    .in_phase(phase_of(syncer, &value));
    let references = references::found_in(catalog, kind, &value);
    Incoming { key: key_of(&value), entry, value, references }
}

/// Projects a host object and packs it for the store.
pub fn pack_host(syncer: &dyn ResourceSyncer, object: Value) -> Incoming {
    let is_token = mark(&object, "annotations", tokens::REFRESH_AT).is_some();
    // Token Secrets are ours, not the kind's: their projection is theirs too, and never holds a token.
    let mut value = if is_token { tokens::project(object) } else { syncer.project(object, Direction::Up) };
    let entry = Entry::new(&mut value, |_| {});
    Incoming { key: key_of(&value), entry, value, references: None }
}

/// The end of an object that its kind cannot read: all that matters then is which it was.
pub fn bare(object: &Value) -> Incoming {
    let metadata = &object["metadata"];
    let kept = ["name", "namespace", "uid", "resourceVersion", "labels", "annotations"];
    let kept: serde_json::Map<String, Value> =
        kept.iter().filter_map(|field| Some(((*field).to_owned(), metadata.get(field)?.clone()))).collect();
    let mut value = json!({"metadata": kept});
    let entry = Entry::new(&mut value, |_| {});
    Incoming { key: key_of(&value), entry, value, references: None }
}

fn phase_of(syncer: &dyn ResourceSyncer, object: &Value) -> Phase {
    let phases = syncer.counted().unwrap_or_default();
    let phase = object.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    let at = phases.iter().position(|known| *known == phase);
    at.and_then(|at| Phase::try_from(at + 1).ok()).unwrap_or_default()
}

/// Namespace and name as they stand in the object.
pub fn key_of(object: &Value) -> ObjectKey {
    ObjectKey { namespace: text(object, "namespace").to_owned(), name: text(object, "name").to_owned() }
}
