//! A host API server in memory, as far as the operator uses one.

use std::collections::BTreeMap;

use http::HeaderMap;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::error::status::Status;
use crate::error::{Error, Result, Side};
use crate::kubernetes::Resource;
use crate::kubernetes::resources::{SELF_SUBJECT_REVIEWS, SERVICE_CIDRS};
use crate::operator::cluster::Backends;
use crate::operator::host::{Host, Pending, name_of};
use crate::upstream::Target;

type Key = (&'static str, String, String);

/// Objects by plural, namespace and name.
#[derive(Default)]
pub(super) struct FakeHost {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    version: u64,
    writes: usize,
    forbidden: Option<String>,
    forbidden_kind: Option<&'static str>,
    is_old: bool,
}

/// Backends that answer.
pub(super) struct Answers;

impl Backends for Answers {
    fn version<'a>(&'a self, _: Target, _: HeaderMap) -> Pending<'a, String> {
        Box::pin(async { Ok("v1.34.4".to_owned()) })
    }
}

impl FakeHost {
    /// Puts an object in, as somebody else would.
    pub(super) fn put(&self, resource: &Resource, namespace: &str, mut object: Value) {
        object["metadata"]["namespace"] = namespace.into();
        let mut state = self.state.lock();
        let stamped = state.stamp(object, None);
        state.objects.insert(key(resource, namespace, name_of(&stamped)), stamped);
    }

    pub(super) fn find(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Value> {
        self.state.lock().objects.get(&key(resource, namespace, name)).cloned()
    }

    pub(super) fn all(&self, resource: &Resource) -> Vec<Value> {
        let state = self.state.lock();
        state.objects.iter().filter(|((plural, ..), _)| *plural == resource.plural).map(|(_, o)| o.clone()).collect()
    }

    pub(super) fn edit(&self, resource: &Resource, namespace: &str, name: &str, change: impl Fn(&mut Value)) {
        change(self.state.lock().objects.get_mut(&key(resource, namespace, name)).expect("there"));
    }

    pub(super) fn remove(&self, resource: &Resource, namespace: &str, name: &str) {
        self.state.lock().objects.remove(&key(resource, namespace, name)).expect("there");
    }

    /// Changes of objects so far.
    pub(super) fn writes(&self) -> usize {
        self.state.lock().writes
    }

    /// No rights in this namespace, but for VirtualClusters.
    pub(super) fn forbid(&self, namespace: &str) {
        self.state.lock().forbidden = Some(namespace.to_owned());
    }

    /// No rights on this kind, whose plural is named.
    pub(super) fn forbid_kind(&self, plural: &'static str) {
        self.state.lock().forbidden_kind = Some(plural);
    }

    /// An API server before 1.33.
    pub(super) fn without_service_cidrs(&self) {
        self.state.lock().is_old = true;
    }
}

impl State {
    fn stamp(&mut self, mut object: Value, old: Option<&Value>) -> Value {
        self.version += 1;
        let fresh = format!("uid-{}", self.version);
        let uid = old.map_or(fresh, |old| old["metadata"]["uid"].as_str().unwrap_or_default().to_owned());
        object["metadata"]["uid"] = uid.into();
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let generation = old.and_then(|old| old["metadata"]["generation"].as_i64()).unwrap_or(0) + 1;
        object["metadata"]["generation"] = generation.into();
        if object["kind"] == "Service" && object["spec"]["clusterIP"].is_null() {
            object["spec"]["clusterIP"] = format!("10.96.0.{}", self.version).into();
        }
        object
    }

    fn check(&self, resource: &Resource, namespace: &str) -> Result<()> {
        let is_forbidden = self.forbidden.as_deref() == Some(namespace) && resource.plural != "virtualclusters";
        if is_forbidden || self.forbidden_kind == Some(resource.plural) {
            return Err(refusal(403, "Forbidden", "no rights"));
        }
        Ok(())
    }

    fn write(&mut self, resource: &Resource, namespace: &str, object: Value) -> Result<Value> {
        self.check(resource, namespace)?;
        self.writes += 1;
        let key = key(resource, namespace, name_of(&object));
        let old = self.objects.get(&key).cloned();
        let stamped = self.stamp(object, old.as_ref());
        self.objects.insert(key, stamped.clone());
        Ok(stamped)
    }
}

impl Host for FakeHost {
    fn get<'a>(&'a self, resource: &'a Resource, namespace: &'a str, name: &'a str) -> Pending<'a, Option<Value>> {
        Box::pin(async move {
            let state = self.state.lock();
            state.check(resource, namespace)?;
            if resource == &SERVICE_CIDRS {
                return Ok((!state.is_old).then(|| json!({"spec": {"cidrs": ["10.96.0.0/16"]}})));
            }
            Ok(state.objects.get(&key(resource, namespace, name)).cloned())
        })
    }

    fn list<'a>(&'a self, resource: &'a Resource, namespace: &'a str, labels: &'a str) -> Pending<'a, Vec<Value>> {
        Box::pin(async move {
            let state = self.state.lock();
            state.check(resource, namespace)?;
            Ok(state
                .objects
                .iter()
                .filter(|((plural, within, _), _)| *plural == resource.plural && within == namespace)
                .map(|(_, object)| object.clone())
                .filter(|object| match labels.split_once('=') {
                    Some((key, value)) => object["metadata"]["labels"][key] == value,
                    None => labels.is_empty() || !object["metadata"]["labels"][labels].is_null(),
                })
                .collect())
        })
    }

    fn create<'a>(&'a self, resource: &'a Resource, namespace: &'a str, object: &'a Value) -> Pending<'a, Value> {
        Box::pin(async move {
            let mut state = self.state.lock();
            if resource == &SELF_SUBJECT_REVIEWS {
                let asked = object["spec"]["resourceAttributes"]["namespace"].as_str().unwrap_or_default();
                return Ok(json!({"status": {"allowed": state.forbidden.as_deref() != Some(asked)}}));
            }
            if state.objects.contains_key(&key(resource, namespace, name_of(object))) {
                return Err(refusal(409, "AlreadyExists", "exists"));
            }
            state.write(resource, namespace, object.clone())
        })
    }

    fn replace<'a>(&'a self, resource: &'a Resource, namespace: &'a str, object: &'a Value) -> Pending<'a, Value> {
        Box::pin(async move {
            let mut state = self.state.lock();
            let old = state.objects.get(&key(resource, namespace, name_of(object))).cloned();
            let old = old.ok_or_else(|| refusal(404, "NotFound", "gone"))?;
            if old["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                return Err(refusal(409, "Conflict", "changed"));
            }
            state.write(resource, namespace, object.clone())
        })
    }

    fn apply<'a>(&'a self, resource: &'a Resource, namespace: &'a str, object: &'a Value) -> Pending<'a, Value> {
        Box::pin(async move {
            let mut state = self.state.lock();
            let mut next = state.objects.get(&key(resource, namespace, name_of(object))).cloned().unwrap_or_default();
            merge(&mut next, object);
            state.write(resource, namespace, next)
        })
    }

    fn patch_status<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
        patch: &'a Value,
    ) -> Pending<'a, Value> {
        Box::pin(async move {
            let mut state = self.state.lock();
            state.writes += 1;
            state.version += 1;
            let version = state.version.to_string();
            let object = state
                .objects
                .get_mut(&key(resource, namespace, name))
                .ok_or_else(|| refusal(404, "NotFound", "gone"))?;
            let wanted = &patch["metadata"];
            let is_that = wanted["uid"] == object["metadata"]["uid"]
                && (wanted["resourceVersion"].is_null()
                    || wanted["resourceVersion"] == object["metadata"]["resourceVersion"]);
            if !is_that {
                return Err(refusal(409, "Conflict", "another uid or version"));
            }
            object["metadata"]["resourceVersion"] = version.into();
            if object["status"].is_null() {
                object["status"] = json!({});
            }
            merge(&mut object["status"], &patch["status"]);
            Ok(object.clone())
        })
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
    ) -> Pending<'a, bool> {
        Box::pin(async move {
            let mut state = self.state.lock();
            let key = key(resource, namespace, name);
            let is_this = state.objects.get(&key).is_some_and(|object| object["metadata"]["uid"] == uid);
            if is_this {
                state.objects.remove(&key);
                state.writes += 1;
            }
            Ok(is_this)
        })
    }

    fn try_create<'a>(&'a self, _: &'a Resource, _: &'a str, _: &'a Value) -> Pending<'a, Value> {
        Box::pin(async {
            let message = "failed to allocate IP 1.1.1.1: the provided IP (1.1.1.1) is not in the valid range. \
                           The range of valid IPs is 10.43.0.0/16";
            Err(refusal(422, "Invalid", message))
        })
    }
}

fn key(resource: &Resource, namespace: &str, name: &str) -> Key {
    (resource.plural, namespace.to_owned(), name.to_owned())
}

fn refusal(code: u16, reason: &str, message: &str) -> Error {
    Error::from_status(Side::Host, Status::failure(code, reason, message))
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in changes {
        if value.is_null() {
            if let Some(map) = target.as_object_mut() {
                map.remove(key);
            }
        } else {
            merge(&mut target[key], value);
        }
    }
}
