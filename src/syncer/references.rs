//! Who needs whom: references between a tenant's virtual objects, in both directions.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use crate::syncer::catalog::Catalog;
use crate::syncer::guard;
use crate::syncer::queue::Item;

/// The index of one tenant. Small sets: an object is referenced by few others.
#[derive(Debug, Default)]
pub struct References {
    forward: HashMap<Item, Box<[Item]>>,
    reverse: HashMap<Item, BTreeSet<Item>>,
}

impl References {
    /// Sets what `from` references now (empty when it is gone). Returns what began or ceased to be referenced by it.
    pub fn set(&mut self, from: &Item, mut to: Vec<Item>) -> Vec<Item> {
        to.sort();
        to.dedup();
        let old = if to.is_empty() {
            self.forward.remove(from)
        } else {
            self.forward.insert(from.clone(), to.clone().into_boxed_slice())
        };
        let old = old.unwrap_or_default();
        let mut changed = Vec::new();
        for gone in old.iter().filter(|item| to.binary_search(item).is_err()) {
            if let Some(referrers) = self.reverse.get_mut(gone) {
                referrers.remove(from);
                if referrers.is_empty() {
                    self.reverse.remove(gone);
                }
            }
            changed.push(gone.clone());
        }
        for new in to.into_iter().filter(|item| old.binary_search(item).is_err()) {
            self.reverse.entry(new.clone()).or_default().insert(from.clone());
            changed.push(new);
        }
        changed
    }

    /// Who references it.
    pub fn referrers(&self, to: &Item) -> Vec<Item> {
        self.reverse.get(to).map(|set| set.iter().cloned().collect()).unwrap_or_default()
    }

    /// Who of one kind references it, at most so many.
    pub fn referrers_of(&self, to: &Item, kind: u16, most: usize) -> Vec<Item> {
        let all = self.reverse.get(to).into_iter().flatten();
        all.filter(|item| item.kind == kind).take(most).cloned().collect()
    }

    /// Whether anybody references it.
    pub fn is_referenced(&self, to: &Item) -> bool {
        self.reverse.contains_key(to)
    }
}

/// What an object references; None when its kind cannot tell: what it referenced stays, or copies would be taken away.
pub fn found_in(catalog: &Catalog, kind: u16, object: &Value) -> Option<Vec<Item>> {
    let syncer = catalog.kind(kind);
    let found = guard::caught(
        "finding what it references",
        syncer.resource().kind,
        || guard::name(object),
        || syncer.references(object),
    );
    Some(found?.into_iter().filter_map(|reference| catalog.item(reference)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syncer::kind::ObjectKey;

    fn item(kind: u16, name: &str) -> Item {
        Item { kind, key: ObjectKey { namespace: "ns".to_owned(), name: name.to_owned() } }
    }

    #[test]
    fn both_directions_follow() {
        let mut references = References::default();
        let (pod, other, one, two) = (item(0, "pod"), item(0, "other"), item(1, "one"), item(1, "two"));
        assert_eq!(references.set(&pod, vec![one.clone(), one.clone()]), vec![one.clone()]);
        assert!(references.set(&pod, vec![one.clone()]).is_empty());
        assert_eq!(references.set(&other, vec![one.clone()]), vec![one.clone()]);
        assert_eq!(references.set(&pod, vec![two.clone()]), vec![one.clone(), two]);
        assert_eq!(references.referrers(&one), vec![other.clone()]);
        references.set(&other, vec![]);
        references.set(&pod, vec![]);
        assert!(!references.is_referenced(&one) && references.forward.is_empty() && references.reverse.is_empty());
    }
}
