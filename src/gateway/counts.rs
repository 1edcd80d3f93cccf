//! Counts by key without zeros, so that only those who are here take memory.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Such counts.
#[derive(Debug)]
pub(super) struct Counts<K>(HashMap<K, usize>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Counts<K> {
    /// The count of one.
    pub(super) fn of<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.entry(key).map_or(0, |(_, count)| count)
    }

    /// The same with the key that is kept.
    pub(super) fn entry<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<(&K, usize)>
    where
        K: Borrow<Q>,
    {
        self.0.get_key_value(key).map(|(key, count)| (key, *count))
    }

    /// One more.
    pub(super) fn increase(&mut self, key: K) {
        *self.0.entry(key).or_default() += 1;
    }

    /// One less.
    pub(super) fn decrease<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if let Some(count) = self.0.get_mut(key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }

    /// Whether nobody is here.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
