//! Which host object stands for which virtual one, both ways.

use std::collections::{BTreeMap, HashMap};

use crate::syncer::kind::ObjectKey;

/// Of one kind of one tenant.
#[derive(Debug, Default)]
pub struct HostIndex {
    by_key: BTreeMap<ObjectKey, String>,
    by_name: HashMap<String, ObjectKey>,
}

/// What a host object stood for before.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// The virtual object, if any.
    pub old: Option<ObjectKey>,
    /// Nothing stands for that one any more.
    pub is_bare: bool,
}

impl HostIndex {
    /// The host object of this name stands for `new` now. Of two copies of one object the preferred one counts, which has
    /// the name of today.
    pub fn set(&mut self, name: &str, new: Option<&ObjectKey>, is_preferred: bool) -> Moved {
        let mut moved = Moved { old: self.by_name.get(name).cloned(), is_bare: false };
        if let Some(old) = &moved.old
            && new != Some(old)
        {
            self.by_name.remove(name);
            if self.by_key.get(old).is_some_and(|n| n == name) {
                self.by_key.remove(old);
                moved.is_bare = true;
            }
        }
        if let Some(new) = new {
            self.by_name.insert(name.to_owned(), new.clone());
            if is_preferred || !self.by_key.contains_key(new) {
                self.by_key.insert(new.clone(), name.to_owned());
            }
        }
        moved
    }

    /// Name of the host object that stands for a virtual one.
    pub fn name_of(&self, key: &ObjectKey) -> Option<&String> {
        self.by_key.get(key)
    }

    /// The virtual object that a host object stands for.
    pub fn key_of(&self, name: &str) -> Option<&ObjectKey> {
        self.by_name.get(name)
    }

    /// How many have a host object.
    pub fn count(&self) -> usize {
        self.by_key.len()
    }

    /// All that have a host object, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &String)> {
        self.by_key.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_copies_the_preferred_counts() {
        let key = |name: &str| ObjectKey { namespace: "n".to_owned(), name: name.to_owned() };
        let mut index = HostIndex::default();
        assert_eq!(index.set("older", Some(&key("a")), false), Moved::default());
        index.set("today", Some(&key("a")), true);
        assert_eq!(index.name_of(&key("a")).map(String::as_str), Some("today"));
        let moved = index.set("older", None, false);
        assert_eq!(moved, Moved { old: Some(key("a")), is_bare: false }, "the other one still stands");
        let moved = index.set("today", Some(&key("b")), true);
        assert_eq!(moved, Moved { old: Some(key("a")), is_bare: true });
        assert!(index.name_of(&key("a")).is_none() && index.key_of("today") == Some(&key("b")));
    }
}
