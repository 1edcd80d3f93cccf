//! The kinds that are synced, by index and by name.

use std::collections::HashMap;
use std::sync::Arc;

use crate::kubernetes::Resource;
use crate::syncer::kind::{Reference, ResourceSyncer};
use crate::syncer::queue::Item;

/// All kinds, in a fixed order; cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    kinds: Arc<[Arc<dyn ResourceSyncer>]>,
    by_name: Arc<HashMap<&'static str, u16>>,
}

impl Catalog {
    /// In registration order; a later kind of the same name is not reachable.
    pub fn new(kinds: Vec<Arc<dyn ResourceSyncer>>) -> Self {
        let mut by_name = HashMap::new();
        for (index, kind) in (0_u16..).zip(&kinds) {
            by_name.entry(kind.resource().kind).or_insert(index);
        }
        Self { kinds: kinds.into(), by_name: Arc::new(by_name) }
    }

    /// A kind by its index. Indices come from this catalog only.
    pub fn kind(&self, index: u16) -> &dyn ResourceSyncer {
        &*self.kinds[usize::from(index)]
    }

    /// Index of a kind by name.
    pub fn index(&self, name: &str) -> Option<u16> {
        self.by_name.get(name).copied()
    }

    /// Index of the kind that syncs exactly this resource.
    pub fn index_of(&self, resource: &Resource) -> Option<u16> {
        self.index(resource.kind).filter(|index| self.kind(*index).resource() == *resource)
    }

    /// All, with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &dyn ResourceSyncer)> {
        (0_u16..).zip(self.kinds.iter().map(|k| &**k))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// A reference as an item; None when its kind is not synced.
    pub fn item(&self, reference: Reference) -> Option<Item> {
        Some(Item { kind: self.index(reference.kind)?, key: reference.key })
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|(_, k)| k.resource().kind)).finish()
    }
}
