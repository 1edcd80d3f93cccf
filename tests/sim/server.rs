//! An API server in memory: resourceVersions, uids, lists, watches, apply, preconditions; with faults when asked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use portico::error::{Error, Kind, Result, Side};
use portico::kubernetes::api::{Cluster, Events, Listing};
use portico::kubernetes::{ListOptions, PatchKind, Resource, WatchEvent};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;

type Key = (&'static str, String, String);

/// One server.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

pub struct Inner {
    state: Mutex<State>,
    moved: watch::Sender<u64>,
    side: Side,
    faults: Arc<Faults>,
}

struct State {
    version: u64,
    uids: u64,
    /// Grows when all data is lost.
    life: u64,
    compacted: u64,
    objects: BTreeMap<Key, Value>,
    log: Vec<Change>,
    writes: u64,
    /// Lists by selector: plural, selector.
    lists: Vec<(String, String)>,
    name: String,
}

/// Data of a server at one moment.
pub struct Backup {
    version: u64,
    objects: BTreeMap<Key, Value>,
}

#[derive(Clone)]
struct Change {
    version: u64,
    key: Key,
    deleted: bool,
    object: Value,
}

/// Seeded misfortune, shared by all servers of one run.
pub struct Faults {
    random: Mutex<StdRng>,
    on: Mutex<bool>,
    /// How late watches of the host are.
    lag: Mutex<Duration>,
    /// Whether the host refuses reads that its rights allow, as while a Role is made again.
    refusing: Mutex<bool>,
    /// Whether the host's lists show nothing, whatever there is.
    blind: Mutex<bool>,
}

impl Faults {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            on: Mutex::new(true),
            lag: Mutex::default(),
            refusing: Mutex::default(),
            blind: Mutex::default(),
        })
    }

    pub fn stop(&self) {
        *self.on.lock() = false;
    }

    /// Every event of the host comes so late from now on.
    pub fn delay_watches(&self, lag: Duration) {
        *self.lag.lock() = lag;
    }

    /// The host answers every list and watch with 403.
    pub fn refuse_reads(&self, refusing: bool) {
        *self.refusing.lock() = refusing;
    }

    /// Lists of the host are empty, while single objects are found.
    pub fn empty_lists(&self, blind: bool) {
        *self.blind.lock() = blind;
    }

    fn hides(&self, side: Side) -> bool {
        side == Side::Host && *self.blind.lock()
    }

    fn read_right(&self, side: Side) -> Result<()> {
        if side == Side::Host && *self.refusing.lock() {
            return Err(Error::new(side, Kind::Forbidden, "no right to list"));
        }
        Ok(())
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.lock().random_range(0..bound)
    }

    fn strikes(&self, permille: u64) -> bool {
        *self.on.lock() && self.below(1000) < permille
    }

    async fn latency(&self) {
        let millis = self.below(8);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        if self.strikes(10) {
            let millis = self.below(5000);
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    async fn before(&self, side: Side, write: bool) -> Result<()> {
        self.latency().await;
        if self.strikes(20) {
            return Err(Error::new(side, Kind::Unavailable, "refused"));
        }
        if self.strikes(10) {
            return Err(Error::new(side, Kind::TooManyRequests, "slower"));
        }
        if write && self.strikes(10) {
            return Err(Error::new(side, Kind::Conflict, "somebody was faster"));
        }
        Ok(())
    }

    /// The effect has happened; the answer may still be lost.
    async fn after(&self, side: Side) -> Result<()> {
        self.latency().await;
        if self.strikes(20) { Err(Error::new(side, Kind::Timeout, "no answer")) } else { Ok(()) }
    }
}

impl std::ops::Deref for Server {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Server {
    pub fn new(name: &str, side: Side, faults: Arc<Faults>) -> Self {
        let server = Self(Arc::new(Inner {
            state: Mutex::new(State {
                version: 0,
                uids: 0,
                life: 0,
                compacted: 0,
                objects: BTreeMap::new(),
                log: Vec::new(),
                writes: 0,
                lists: Vec::new(),
                name: name.to_owned(),
            }),
            moved: watch::Sender::new(0),
            side,
            faults,
        }));
        server.begin();
        server
    }
}

impl Inner {
    fn begin(&self) {
        let mut state = self.state.lock();
        state
            .put(("namespaces", String::new(), "kube-system".to_owned()), json!({"metadata": {"name": "kube-system"}}));
    }

    /// All data is lost, as with an emptyDir whose pod was replaced.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.version = 0;
        state.life += 1;
        state.compacted = 0;
        state.objects.clear();
        state.log.clear();
        drop(state);
        self.begin();
        self.moved.send_modify(|n| *n += 1);
    }

    /// All data as it is now.
    pub fn backup(&self) -> Backup {
        let state = self.state.lock();
        Backup { version: state.version, objects: state.objects.clone() }
    }

    /// The server comes back with the data of a backup.
    pub fn restore(&self, backup: &Backup) {
        let mut state = self.state.lock();
        state.version = backup.version;
        state.objects = backup.objects.clone();
        state.life += 1;
        state.compacted = backup.version;
        state.log.clear();
        drop(state);
        self.moved.send_modify(|n| *n += 1);
    }

    /// Objects that no list shows any more, without a word to any watch: a fault.
    pub fn lose(&self, plural: &'static str, lost: impl Fn(&Value) -> bool) {
        let mut state = self.state.lock();
        state.objects.retain(|(p, ..), object| *p != plural || !lost(object));
        state.version += 1;
        state.compacted = state.version;
        state.log.clear();
        drop(state);
        self.moved.send_modify(|n| *n += 1);
    }

    /// Watches that lag have to list again.
    pub fn compact(&self) {
        let mut state = self.state.lock();
        state.compacted = state.version;
        state.log.clear();
    }

    /// Writes of the engine so far.
    pub fn writes(&self) -> u64 {
        self.state.lock().writes
    }

    /// Lists so far: plural, selector.
    pub fn lists(&self) -> Vec<(String, String)> {
        self.state.lock().lists.clone()
    }

    /// Direct access for actors and checks: no faults, no delay.
    pub fn objects(&self, plural: &'static str) -> Vec<Value> {
        let state = self.state.lock();
        state.objects.iter().filter(|((p, ..), _)| *p == plural).map(|(_, o)| o.clone()).collect()
    }

    pub fn read(&self, plural: &'static str, namespace: &str, name: &str) -> Option<Value> {
        self.state.lock().objects.get(&(plural, namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Creates or replaces; uid and version are the server's.
    pub fn put(&self, plural: &'static str, object: Value) {
        let key = (plural, field(&object, "namespace"), field(&object, "name"));
        self.state.lock().put(key, object);
        self.moved.send_modify(|n| *n += 1);
    }

    pub fn change(&self, plural: &'static str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let key = (plural, namespace.to_owned(), name.to_owned());
        let mut state = self.state.lock();
        if let Some(mut object) = state.objects.get(&key).cloned() {
            change(&mut object);
            state.put(key, object);
        }
        drop(state);
        self.moved.send_modify(|n| *n += 1);
    }

    /// As a user deletes: pods on a node only begin to end.
    pub fn delete_gracefully(&self, plural: &'static str, namespace: &str, name: &str, grace: Option<u64>) {
        let key = (plural, namespace.to_owned(), name.to_owned());
        self.state.lock().delete(&key, grace);
        self.moved.send_modify(|n| *n += 1);
    }

    fn write<T>(&self, plural: &str, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        let before = state.version;
        let result = change(&mut state);
        // What users are told is repeated now and then, on purpose.
        if state.version != before && plural != "events" {
            state.writes += 1;
        }
        drop(state);
        self.moved.send_modify(|n| *n += 1);
        result
    }

    fn fail<T>(&self, kind: Kind, message: &str) -> Result<T> {
        Err(Error::new(self.side, kind, message))
    }
}

impl State {
    fn put(&mut self, key: Key, mut object: Value) -> Value {
        self.version += 1;
        let old = self.objects.get(&key);
        let uid = old.map(|o| field(o, "uid")).unwrap_or_else(|| {
            self.uids += 1;
            format!("{}-{}", self.name, self.uids)
        });
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        metadata.insert("uid".to_owned(), json!(uid));
        metadata.insert("resourceVersion".to_owned(), json!(self.version.to_string()));
        metadata.insert("name".to_owned(), json!(key.2));
        if !key.1.is_empty() {
            metadata.insert("namespace".to_owned(), json!(key.1));
        }
        self.objects.insert(key.clone(), object.clone());
        self.log.push(Change { version: self.version, key, deleted: false, object: object.clone() });
        object
    }

    fn remove(&mut self, key: &Key) {
        if let Some(mut object) = self.objects.remove(key) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.log.push(Change { version: self.version, key: key.clone(), deleted: true, object });
        }
    }

    fn delete(&mut self, key: &Key, grace: Option<u64>) {
        let Some(object) = self.objects.get(key) else { return };
        let lingers = key.0 == "pods" && grace != Some(0) && !object["spec"]["nodeName"].is_null();
        if !lingers {
            self.remove(key);
        } else if object["metadata"]["deletionTimestamp"].is_null() {
            let mut object = object.clone();
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            self.put(key.clone(), object);
        }
    }

    fn matches(key: &Key, object: &Value, plural: &str, namespace: Option<&str>, options: &ListOptions) -> bool {
        key.0 == plural && namespace.is_none_or(|n| n == key.1) && selects(&options.label_selector, object)
    }
}

/// `a`, `!a` and `a=b`, with commas between.
fn selects(selector: &str, object: &Value) -> bool {
    let label = |key: &str| object["metadata"]["labels"][key].as_str();
    selector.split(',').filter(|term| !term.is_empty()).all(|term| {
        match (term.strip_prefix('!'), term.split_once('=')) {
            (Some(key), _) => label(key).is_none(),
            (None, Some((key, value))) => label(key) == Some(value),
            (None, None) => label(term).is_some(),
        }
    })
}

fn field(object: &Value, name: &str) -> String {
    object["metadata"][name].as_str().unwrap_or_default().to_owned()
}

fn key(resource: &Resource, namespace: Option<&str>, name: &str) -> Key {
    (resource.plural, namespace.unwrap_or_default().to_owned(), name.to_owned())
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let map = target.as_object_mut().expect("object");
    for (field, value) in patch {
        if value.is_null() {
            map.remove(field);
        } else {
            merge(map.entry(field.clone()).or_insert(Value::Null), value);
        }
    }
}

impl Cluster for Server {
    fn get<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Value>>> {
        Box::pin(async move {
            self.faults.before(self.side, false).await?;
            let found = self.state.lock().objects.get(&key(resource, namespace, name)).cloned();
            self.faults.after(self.side).await?;
            Ok(found)
        })
    }

    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        options: &'a ListOptions,
    ) -> BoxFuture<'a, Result<Listing>> {
        Box::pin(async move {
            self.faults.before(self.side, false).await?;
            self.faults.read_right(self.side)?;
            let listing = {
                let mut state = self.state.lock();
                state.lists.push((resource.plural.to_owned(), options.label_selector.clone()));
                let items = state.objects.iter();
                let hides = self.faults.hides(self.side);
                let items = items.filter(|(k, o)| !hides && State::matches(k, o, resource.plural, namespace, options));
                (items.map(|(_, o)| o.clone()).collect(), state.version.to_string())
            };
            self.faults.after(self.side).await?;
            Ok(listing)
        })
    }

    fn watch<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        options: &'a ListOptions,
        from: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Events>>> {
        Box::pin(async move {
            self.faults.before(self.side, false).await?;
            self.faults.read_right(self.side)?;
            if from.is_none() && self.faults.strikes(100) {
                return self.fail(Kind::Invalid, "sendInitialEvents is not known here");
            }
            let mut initial = VecDeque::new();
            let (position, life) = {
                let state = self.state.lock();
                let position = match from {
                    Some(from) => from.parse().unwrap_or(0),
                    None => {
                        for (key, object) in &state.objects {
                            if !self.faults.hides(self.side)
                                && State::matches(key, object, resource.plural, namespace, options)
                            {
                                initial.push_back(applied(object));
                            }
                        }
                        let resource_version = state.version.to_string();
                        initial.push_back(WatchEvent::Bookmark { resource_version, initial_events_end: true });
                        state.version
                    }
                };
                if position < state.compacted {
                    return self.fail(Kind::Gone, "too old");
                }
                (position, state.life)
            };
            Ok(Box::new(Stream {
                moved: self.moved.subscribe(),
                server: self.clone(),
                plural: resource.plural,
                namespace: namespace.map(str::to_owned),
                options: options.clone(),
                position,
                life,
                ready: initial,
            }) as Box<dyn Events>)
        })
    }

    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        (name, subresource): (&'a str, &'a str),
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(async move {
            self.faults.before(self.side, true).await?;
            let made = self.write(resource.plural, |state| match subresource {
                "token" => Ok(json!({"status": {"token": "t", "expirationTimestamp": "2026-01-01T01:00:00Z"}})),
                "binding" => {
                    let key = key(resource, namespace, name);
                    let Some(mut pod) = state.objects.get(&key).cloned() else {
                        return self.fail(Kind::NotFound, "no such pod");
                    };
                    if pod["metadata"]["uid"] != object["metadata"]["uid"] || !pod["spec"]["nodeName"].is_null() {
                        return self.fail(Kind::Conflict, "bound already or another pod");
                    }
                    pod["spec"]["nodeName"] = object["target"]["name"].clone();
                    Ok(state.put(key, pod))
                }
                _ => {
                    let key = key(resource, namespace, &field(object, "name"));
                    if state.objects.contains_key(&key) {
                        return self.fail(Kind::AlreadyExists, "exists");
                    }
                    Ok(state.put(key, object.clone()))
                }
            })?;
            self.faults.after(self.side).await?;
            Ok(made)
        })
    }

    fn apply<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(async move {
            self.faults.before(self.side, true).await?;
            let applied = self.write(resource.plural, |state| {
                let key = key(resource, namespace, name);
                let known = state.objects.get(&key);
                let wanted = &object["metadata"]["uid"];
                if !wanted.is_null() && known.is_none_or(|k| k["metadata"]["uid"] != *wanted) {
                    return self.fail(Kind::Conflict, "uid");
                }
                let mut object = object.clone();
                if let Some(known) = known {
                    for kept in ["status"] {
                        if object[kept].is_null() && !known[kept].is_null() {
                            object[kept] = known[kept].clone();
                        }
                    }
                    let same = |o: &Value| {
                        let mut o = o.clone();
                        for own in ["uid", "resourceVersion", "name", "namespace"] {
                            o["metadata"].as_object_mut().expect("metadata").remove(own);
                        }
                        o
                    };
                    if same(&object) == same(known) {
                        return Ok(known.clone());
                    }
                }
                Ok(state.put(key, object))
            })?;
            self.faults.after(self.side).await?;
            Ok(applied)
        })
    }

    fn patch<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        (name, subresource): (&'a str, &'a str),
        _kind: PatchKind,
        patch: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(async move {
            self.faults.before(self.side, true).await?;
            let patched = self.write(resource.plural, |state| {
                let key = key(resource, namespace, name);
                let Some(mut object) = state.objects.get(&key).cloned() else {
                    return self.fail(Kind::NotFound, "gone");
                };
                let wanted = &patch["metadata"]["uid"];
                if !wanted.is_null() && object["metadata"]["uid"] != *wanted {
                    return self.fail(Kind::Conflict, "uid");
                }
                match subresource {
                    "" => merge(&mut object, patch),
                    part => merge(&mut object[part], &patch[part]),
                }
                Ok(state.put(key, object))
            })?;
            self.faults.after(self.side).await?;
            Ok(patched)
        })
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
        uid: &'a str,
        grace: Option<u64>,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            self.faults.before(self.side, true).await?;
            let done = self.write(resource.plural, |state| {
                let key = key(resource, namespace, name);
                let fits = state.objects.get(&key).is_some_and(|o| uid.is_empty() || field(o, "uid") == uid);
                if fits {
                    state.delete(&key, grace);
                }
                Ok(fits)
            })?;
            self.faults.after(self.side).await?;
            Ok(done)
        })
    }
}

fn applied(object: &Value) -> WatchEvent {
    WatchEvent::Applied(serde_json::to_vec(object).expect("json").into())
}

struct Stream {
    server: Server,
    moved: watch::Receiver<u64>,
    plural: &'static str,
    namespace: Option<String>,
    options: ListOptions,
    position: u64,
    life: u64,
    ready: VecDeque<WatchEvent>,
}

impl Events for Stream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<WatchEvent>>> {
        Box::pin(async move {
            loop {
                if let Some(event) = self.ready.pop_front() {
                    return Ok(Some(event));
                }
                self.moved.mark_unchanged();
                self.read()?;
                if !self.ready.is_empty() {
                    self.misfortune().await?;
                    continue;
                }
                tokio::select! {
                    biased;
                    _ = self.moved.changed() => {}
                    () = tokio::time::sleep(Duration::from_secs(60)) => {
                        let resource_version = self.position.to_string();
                        self.ready.push_back(WatchEvent::Bookmark { resource_version, initial_events_end: false });
                    }
                }
            }
        })
    }
}

impl Stream {
    fn read(&mut self) -> Result<()> {
        let state = self.server.state.lock();
        if state.life != self.life {
            return self.server.fail(Kind::Closed, "the server went away");
        }
        if self.position < state.compacted {
            return self.server.fail(Kind::Gone, "too old");
        }
        for change in state.log.iter().filter(|c| c.version > self.position) {
            let namespace = self.namespace.as_deref();
            if State::matches(&change.key, &change.object, self.plural, namespace, &self.options) {
                let event = if change.deleted {
                    WatchEvent::Deleted(serde_json::to_vec(&change.object).expect("json").into())
                } else {
                    applied(&change.object)
                };
                self.ready.push_back(event);
            }
        }
        self.position = state.version;
        Ok(())
    }

    /// Late, lost, repeated, or the end.
    async fn misfortune(&mut self) -> Result<()> {
        let faults = &self.server.faults;
        faults.latency().await;
        let lag = *faults.lag.lock();
        if self.server.side == Side::Host && !lag.is_zero() {
            tokio::time::sleep(lag).await;
        }
        if faults.strikes(40) {
            self.ready.pop_front();
        }
        if faults.strikes(20)
            && let Some(event) = self.ready.front().cloned()
        {
            self.ready.push_back(event);
        }
        if faults.strikes(20) {
            return self.server.fail(Kind::Closed, "the connection broke");
        }
        if faults.strikes(5) {
            return self.server.fail(Kind::Gone, "too old");
        }
        Ok(())
    }
}
