//! An API server in memory: resourceVersions, uids, generations, lists, pages, watches, apply, preconditions; with faults
//! when asked. For the simulation and for unit tests.
#![allow(dead_code, reason = "each of its users uses a part")]

#[path = "api_server/calls.rs"]
mod calls;
#[path = "api_server/faults.rs"]
mod faults;
#[path = "api_server/watch.rs"]
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub use faults::Faults;
use parking_lot::Mutex;
use portico::error::status::Status;
use portico::error::{Error, Kind, Result, Side};
use portico::kubernetes::{ListOptions, Resource};
use serde_json::{Value, json};
use tokio::sync::watch;

type Key = (&'static str, String, String);

/// One server, over one link.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
    link: watch::Sender<Link>,
}

/// How a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Up,
    /// Calls fail at once, watches break.
    Refused,
    /// Nothing is answered any more.
    Silent,
}

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
    /// Watches of an earlier one are broken.
    cut: u64,
    /// The list that pages are cut from, and its version; a token of another has expired.
    paged: (u64, Vec<Value>),
    orders: Orders,
    counts: Counts,
    /// What it says at paths that are no object's.
    said: BTreeMap<String, Value>,
}

/// What a test orders to go wrong, as opposed to what chance brings.
#[derive(Default)]
struct Orders {
    /// Every call fails.
    down: bool,
    /// Lists cannot be had as the beginning of a watch.
    no_streams: bool,
    /// Watches are answered, and are too old at once.
    short: bool,
    /// Watches end in good order when they are cut.
    polite: bool,
    /// Events that the watches of now will not be told.
    lost: usize,
    /// Events are told twice.
    repeats: bool,
    /// Single objects of these namespaces are not answered.
    hanging: BTreeSet<String>,
    /// Who asks for single objects of these namespaces panics.
    panicking: BTreeSet<String>,
    /// So many objects to a page, whatever is asked for.
    page: Option<usize>,
    /// What a page takes.
    page_takes: Duration,
    /// Namespaces (VirtualClusters aside) and kinds where nothing is allowed.
    forbidden: Vec<(Option<String>, Option<&'static str>)>,
    /// Services without an address get one.
    allocates: bool,
    /// Versions of kinds that are not served.
    absent: BTreeSet<(&'static str, &'static str)>,
}

/// How often what was asked.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Whole lists, streamed and in pages alike.
    pub lists: usize,
    /// Pages.
    pub pages: usize,
    /// Watches.
    pub watches: usize,
    /// Single objects.
    pub gets: usize,
    /// Calls that would change something, whether they did or not.
    pub writes: usize,
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

impl std::ops::Deref for Server {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl Server {
    pub fn new(name: &str, side: Side, faults: Arc<Faults>) -> Self {
        let inner = Arc::new(Inner {
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
                cut: 0,
                paged: (0, Vec::new()),
                orders: Orders::default(),
                counts: Counts::default(),
                said: BTreeMap::new(),
            }),
            moved: watch::Sender::new(0),
            side,
            faults,
        });
        inner.begin();
        Self { inner, link: watch::Sender::new(Link::Up) }
    }

    /// The same server over another link.
    pub fn over_another_link(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), link: watch::Sender::new(Link::Up) }
    }

    /// What becomes of this link.
    pub fn link(&self, link: Link) {
        self.link.send_replace(link);
        self.moved.send_modify(|n| *n += 1);
    }

    /// What it says at a path from now on; None: 404.
    pub fn say(&self, path: &str, said: Option<Value>) {
        let all = &mut self.state.lock().said;
        match said {
            Some(said) => all.insert(path.to_owned(), said),
            None => all.remove(path),
        };
    }

    async fn up(&self) -> Result<()> {
        let mut link = self.link.subscribe();
        let _ = link.wait_for(|link| *link != Link::Silent).await;
        if *link.borrow() == Link::Refused || self.state.lock().orders.down {
            return self.fail(Kind::Unavailable, "down");
        }
        Ok(())
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

    /// Every watch of now breaks off, or ends in good order.
    pub fn cut_watches(&self, polite: bool) {
        let mut state = self.state.lock();
        state.cut += 1;
        state.orders.polite = polite;
        drop(state);
        self.moved.send_modify(|n| *n += 1);
    }

    /// No call is answered, or all are again.
    pub fn down(&self, down: bool) {
        self.order(|orders| orders.down = down);
        self.cut_watches(false);
    }

    /// Whether lists can be streamed.
    pub fn streams_lists(&self, can: bool) {
        self.order(|orders| orders.no_streams = !can);
    }

    /// Whether watches end as soon as they begin, as too old.
    pub fn short_watches(&self, short: bool) {
        self.order(|orders| orders.short = short);
    }

    /// The next events are not told to any watch.
    pub fn lose_events(&self, count: usize) {
        self.order(|orders| orders.lost = count);
    }

    /// Whether events are told twice.
    pub fn repeat_events(&self, repeat: bool) {
        self.order(|orders| orders.repeats = repeat);
    }

    /// Single objects of this namespace are not answered until it is healed.
    pub fn hang(&self, namespace: &str) {
        self.order(|orders| orders.hanging.insert(namespace.to_owned()));
    }

    /// It answers again.
    pub fn heal(&self, namespace: &str) {
        self.order(|orders| orders.hanging.remove(namespace) | orders.panicking.remove(namespace));
    }

    /// Whoever asks for single objects there panics.
    pub fn panic_over(&self, namespace: &str) {
        self.order(|orders| orders.panicking.insert(namespace.to_owned()));
    }

    /// No rights in a namespace, VirtualClusters aside, or on a kind.
    pub fn forbid(&self, namespace: Option<&str>, plural: Option<&'static str>) {
        self.order(|orders| orders.forbidden.push((namespace.map(str::to_owned), plural)));
    }

    /// Whether a kind is served in this version.
    pub fn serves(&self, version: &'static str, plural: &'static str, serves: bool) {
        self.order(|orders| {
            if serves { orders.absent.remove(&(version, plural)) } else { orders.absent.insert((version, plural)) }
        });
    }

    /// Services without an address get one from now on.
    pub fn allocates_addresses(&self) {
        self.order(|orders| orders.allocates = true);
    }

    /// So many objects to a page.
    pub fn page_size(&self, size: usize) {
        self.order(|orders| orders.page = Some(size));
    }

    /// Each page takes so long.
    pub fn page_takes(&self, time: Duration) {
        self.order(|orders| orders.page_takes = time);
    }

    /// Tokens of pages that were given out are too old.
    pub fn expire_tokens(&self) {
        self.state.lock().paged = (0, Vec::new());
    }

    /// How often what was asked so far.
    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    fn order<T>(&self, change: impl FnOnce(&mut Orders) -> T) {
        change(&mut self.state.lock().orders);
        self.moved.send_modify(|n| *n += 1);
    }

    /// Until its namespace answers.
    async fn hanging(&self, namespace: Option<&str>) {
        let mut moved = self.moved.subscribe();
        let namespace = namespace.unwrap_or_default();
        let panics = self.state.lock().orders.panicking.contains(namespace);
        assert!(!panics, "as the test wants it");
        while self.state.lock().orders.hanging.contains(namespace) {
            let _ = moved.changed().await;
        }
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

    /// Everything there is, each with its kind's plural.
    pub fn everything(&self) -> Vec<(&'static str, Value)> {
        self.state.lock().objects.iter().map(|((plural, ..), object)| (*plural, object.clone())).collect()
    }

    pub fn read(&self, plural: &'static str, namespace: &str, name: &str) -> Option<Value> {
        self.state.lock().objects.get(&(plural, namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Creates or replaces; the version is the server's, and the uid unless a new object brings one.
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
        state.counts.writes += 1;
        let result = change(&mut state);
        // What users are told is repeated now and then, on purpose, and so is who leads.
        if state.version != before && !matches!(plural, "events" | "leases") {
            state.writes += 1;
        }
        drop(state);
        self.moved.send_modify(|n| *n += 1);
        result
    }

    fn fail<T>(&self, kind: Kind, message: &str) -> Result<T> {
        let (code, reason) = match kind {
            Kind::Forbidden => (403, "Forbidden"),
            Kind::NotFound => (404, "NotFound"),
            Kind::AlreadyExists => (409, "AlreadyExists"),
            Kind::Conflict => (409, "Conflict"),
            Kind::Gone => (410, "Expired"),
            Kind::Invalid => (422, "Invalid"),
            _ => return Err(Error::new(self.side, kind, message)),
        };
        Err(Error::from_status(self.side, Status::failure(code, reason, message)))
    }

    /// Whether the caller may do anything there.
    fn right(&self, resource: &Resource, namespace: Option<&str>) -> Result<()> {
        if self.state.lock().orders.absent.contains(&(resource.version, resource.plural)) {
            return self.fail(Kind::NotFound, "the server could not find the requested resource");
        }
        if self.allows(namespace, resource.plural) { Ok(()) } else { self.fail(Kind::Forbidden, "no rights") }
    }

    fn allows(&self, namespace: Option<&str>, plural: &str) -> bool {
        let of = namespace.unwrap_or_default();
        let is_forbidden = |(space, kind): &(Option<String>, Option<&'static str>)| {
            space.as_ref().is_none_or(|space| space == of && plural != "virtualclusters")
                && kind.is_none_or(|kind| kind == plural)
        };
        !self.state.lock().orders.forbidden.iter().any(is_forbidden)
    }
}

impl State {
    fn put(&mut self, key: Key, mut object: Value) -> Value {
        self.version += 1;
        let old = self.objects.get(&key);
        let brought = Some(field(&object, "uid")).filter(|uid| !uid.is_empty());
        let uid = old.map(|o| field(o, "uid")).or(brought).unwrap_or_else(|| {
            self.uids += 1;
            format!("{}-{}", self.name, self.uids)
        });
        let generation = old.map_or(0, |o| o["metadata"]["generation"].as_i64().unwrap_or(0));
        let is_other = old.is_none_or(|o| o["spec"] != object["spec"]);
        if self.orders.allocates && key.0 == "services" && object["spec"]["clusterIP"].is_null() {
            let kept = old.map(|o| o["spec"]["clusterIP"].clone()).filter(|ip| !ip.is_null());
            object["spec"]["clusterIP"] =
                kept.unwrap_or_else(|| json!(format!("10.96.{}.{}", 1 + self.version / 250, 1 + self.version % 250)));
        }
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        metadata.insert("generation".to_owned(), json!(generation + i64::from(is_other)));
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
        key.0 == plural
            && namespace.is_none_or(|n| n == key.1)
            && selects(&options.label_selector, object)
            && selects_address(&options.field_selector, object)
    }

    /// As an API server refuses to give a Service an address.
    fn refuses_address(&self, key: &Key, object: &Value) -> Option<String> {
        let address = object["spec"]["clusterIP"].as_str().filter(|address| *address != "None")?;
        if !address.starts_with("10.") {
            return Some(format!(
                "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. \
                 The range of valid IPs is 10.43.0.0/16"
            ));
        }
        let others = self.objects.iter().filter(|(other, _)| other.0 == "services" && *other != key);
        let is_taken = others.map(|(_, service)| &service["spec"]["clusterIP"]).any(|taken| taken == address);
        is_taken.then(|| format!("failed to allocate IP {address}: provided IP is already allocated"))
    }
}

/// `a`, `!a`, `a=b` and `a!=b`, with commas between.
fn selects(selector: &str, object: &Value) -> bool {
    let label = |key: &str| object["metadata"]["labels"][key].as_str();
    selector.split(',').filter(|term| !term.is_empty()).all(|term| {
        if let Some((key, value)) = term.split_once("!=") {
            return label(key) != Some(value);
        }
        match (term.strip_prefix('!'), term.split_once('=')) {
            (Some(key), _) => label(key).is_none(),
            (None, Some((key, value))) => label(key) == Some(value),
            (None, None) => label(term).is_some(),
        }
    })
}

/// The one field that Services are looked for by.
fn selects_address(selector: &str, object: &Value) -> bool {
    let wanted = selector.strip_prefix("spec.clusterIP=");
    wanted.is_none_or(|address| object["spec"]["clusterIP"] == address)
}

fn field(object: &Value, name: &str) -> String {
    object["metadata"][name].as_str().unwrap_or_default().to_owned()
}

fn key(resource: &Resource, namespace: Option<&str>, name: &str) -> Key {
    (resource.plural, namespace.unwrap_or_default().to_owned(), name.to_owned())
}
