//! Which parts of a copy Portico wrote, by the API server's own record of it (`managedFields`): all else in it is of the
//! host's webhooks and controllers, and no tenant's business.
//!
//! An API server records a create before its webhooks change the object, so what they inject is nobody's there or theirs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::super::json;
use crate::names::keys;

/// The fields that Portico owns below one place of an object.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields<'a>(Vec<&'a Map<String, Value>>);

impl<'a> Fields<'a> {
    /// Of a whole object.
    pub(super) fn of(object: &'a Value) -> Self {
        let entries = json::items(object, "/metadata/managedFields").iter();
        let own = entries.filter(|entry| {
            json::text(entry, "/manager") == keys::FIELD_MANAGER && json::text(entry, "/subresource").is_empty()
        });
        Self(own.filter_map(|entry| entry.get("fieldsV1")?.as_object()).collect())
    }

    /// Below a field.
    pub(super) fn at(&self, field: &str) -> Self {
        let key = format!("f:{field}");
        Self(self.0.iter().filter_map(|map| map.get(&key)?.as_object()).collect())
    }

    /// The items of a list by the value of their key field, as far as Portico made them: a later write of some field of an
    /// item does not own its key.
    fn items(&self, key: &str) -> BTreeMap<String, Self> {
        let owns_key = format!("f:{key}");
        let mut found: BTreeMap<String, Self> = BTreeMap::new();
        for (path, fields) in self.0.iter().flat_map(|map| map.iter()) {
            let named = path.strip_prefix("k:").and_then(|text| serde_json::from_str::<Value>(text).ok());
            if let Some(value) = named.as_ref().and_then(|named| named.get(key)?.as_str())
                && let Value::Object(fields) = fields
            {
                found.entry(value.to_owned()).or_default().0.push(fields);
            }
        }
        found.retain(|_, item| item.0.iter().any(|fields| fields.contains_key(&owns_key)));
        found
    }

    /// Keys of a map; None when nothing of it is recorded as Portico's.
    pub(super) fn keys(&self) -> Option<BTreeSet<&'a str>> {
        let paths = self.0.iter().flat_map(|map| map.keys());
        let keys: BTreeSet<&str> = paths.filter_map(|path| path.strip_prefix("f:")).collect();
        (!keys.is_empty()).then_some(keys)
    }
}

/// The lists of a pod's spec whose items can be told apart by who made them.
#[derive(Debug, Clone)]
pub(super) struct Pod<'a>(Option<Fields<'a>>);

/// Items of a list that Portico made, by the value of their key field.
#[derive(Debug, Clone)]
pub(super) struct Made<'a>(Option<BTreeMap<String, Fields<'a>>>);

impl<'a> Pod<'a> {
    /// Nothing can be told of a pod that somebody else made, or whose record is missing.
    pub(super) fn of(host: &'a Value) -> Self {
        let spec = Fields::of(host).at("spec");
        let made = !spec.at("containers").items("name").is_empty();
        Self(made.then_some(spec))
    }

    /// Of a list that is keyed by name.
    pub(super) fn list(&self, list: &str) -> Made<'a> {
        Made(self.0.as_ref().map(|spec| spec.at(list).items("name")))
    }
}

impl<'a> Made<'a> {
    /// Whether it is among them, or nothing can be told.
    pub(super) fn has(&self, value: &str) -> bool {
        self.0.as_ref().is_none_or(|items| items.contains_key(value))
    }

    /// Of a list in one of them.
    pub(super) fn list(&self, value: &str, list: &str, key: &str) -> Self {
        let item =
            |items: &BTreeMap<String, Fields<'a>>| items.get(value).map(|i| i.at(list).items(key)).unwrap_or_default();
        Self(self.0.as_ref().map(item))
    }
}
