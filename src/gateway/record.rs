//! One request's account: what is counted while it runs and the one line and the metrics that it leaves at its end.
//!
//! Promises: shared by everything that works on a request (phases, body, tunnel); the last holder's drop writes the line, so a
//! stream is in the log with its true length and time. What the request holds goes with the last byte that is written
//! (`reading.rs`). Never a query string (exec commands and tokens stand there), never a header.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::audited::{Audited, End};
use super::connection::Connection;
use super::flag::Flag;
use super::metrics::{TenantMetrics, VerbClass};
use super::reading::{Hold, Reading};
use super::shared::Gateway;
use super::traced;
use crate::consumption::{Amounts, Tab};
use crate::error::Kind;
use crate::runtime::telemetry::ACCESS;
use crate::runtime::traces::Trace;

/// Paths are cut here in the log.
const LONGEST_PATH: usize = 512;
/// Of a user's name and a resource.
const LONGEST_NAME: usize = 256;
/// Bytes of one direction that need not be counted before the end.
const UNCOUNTED: u64 = 64 << 10;

/// Shared account of one request.
#[derive(Debug)]
pub struct Record {
    started: Instant,
    connection: Arc<Connection>,
    reading: Arc<Reading>,
    received: AtomicU64,
    sent: AtomicU64,
    fields: Mutex<Fields>,
}

#[derive(Debug, Default)]
struct Fields {
    tenant: Option<Arc<TenantMetrics>>,
    tenant_name: String,
    audit_id: Option<HeaderValue>,
    /// What it leaves in the audit log.
    audited: Option<Box<Audited>>,
    user: String,
    method: String,
    path: String,
    verb: &'static str,
    resource: String,
    long_running: bool,
    upstream: &'static str,
    code: u16,
    flag: Option<Flag>,
    /// It had a seat of its tenant.
    is_known: bool,
    /// Where it counts as used, as far as it is of somebody who is known.
    tab: Option<Arc<Tab>>,
    namespace: String,
    /// Bytes that are counted there.
    counted: u64,
    trace: Option<Arc<Trace>>,
}

impl Record {
    /// Begins the account.
    pub(super) fn new(connection: &Arc<Connection>, reading: Arc<Reading>, method: &str, path: &str) -> Arc<Self> {
        connection.begin();
        let cut = path.char_indices().nth(LONGEST_PATH).map_or(path.len(), |(at, _)| at);
        let fields = Fields {
            method: method.to_owned(),
            path: path.get(..cut).unwrap_or_default().to_owned(),
            ..Fields::default()
        };
        Arc::new(Self {
            started: connection.gateway.clock.instant(),
            connection: Arc::clone(connection),
            reading,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            fields: Mutex::new(fields),
        })
    }

    /// Bytes from the client.
    pub fn add_received(&self, bytes: usize) {
        self.count(self.received.fetch_add(bytes as u64, Ordering::Relaxed), bytes);
    }

    /// Bytes to the client.
    pub fn add_sent(&self, bytes: usize) {
        self.count(self.sent.fetch_add(bytes as u64, Ordering::Relaxed), bytes);
    }

    /// How its answer is read.
    pub(super) fn reading(&self) -> &Arc<Reading> {
        &self.reading
    }

    /// Bytes from the client so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Notes why it failed; the first reason stays.
    pub fn flag(&self, flag: Flag) {
        self.fields.lock().flag.get_or_insert(flag);
    }

    /// Notes through what the answer came: the connections' class, `upgrade` or `host`.
    pub fn upstream(&self, class: &'static str) {
        self.fields.lock().upstream = class;
    }

    pub(super) fn tenant(&self, name: String, metrics: Arc<TenantMetrics>) {
        let mut fields = self.fields.lock();
        fields.tenant_name = name;
        fields.tenant = Some(metrics);
    }

    /// Where it counts as used, once its caller is known.
    pub(super) fn counted_on(&self, tab: Arc<Tab>, namespace: &str) {
        let mut fields = self.fields.lock();
        fields.tab = Some(tab);
        namespace.clone_into(&mut fields.namespace);
    }

    /// Long streams are counted while they last: a process that is killed loses so much of each.
    fn count(&self, before: u64, bytes: usize) {
        if before / UNCOUNTED != (before + bytes as u64) / UNCOUNTED {
            let mut fields = self.fields.lock();
            // Read under the lock, or an older sum could come after a newer one.
            let all = self.received() + self.sent.load(Ordering::Relaxed);
            fields.count_bytes(all);
        }
    }

    pub(super) fn audit_id(&self, audit_id: HeaderValue) {
        self.fields.lock().audit_id = Some(audit_id);
    }

    /// What names it in audit logs.
    pub(super) fn named(&self) -> Option<HeaderValue> {
        self.fields.lock().audit_id.clone()
    }

    /// It is traced.
    pub(super) fn traced(&self, trace: Arc<Trace>) {
        self.fields.lock().trace = Some(trace);
    }

    /// What it leaves in the audit log, where there is one.
    pub(super) fn audited(&self, audited: Option<Box<Audited>>) {
        self.fields.lock().audited = audited;
    }

    /// Changes that.
    pub(super) fn audit<T>(&self, change: impl FnOnce(&mut Audited) -> T) -> Option<T> {
        self.fields.lock().audited.as_deref_mut().map(change)
    }

    /// The answer's head goes out, and a stream or a watch begins.
    pub(super) fn begins(&self) {
        let mut fields = self.fields.lock();
        let end = fields.end((self.received(), self.sent.load(Ordering::Relaxed)), self.started.elapsed());
        if let Some(audited) = fields.audited.as_deref_mut().filter(|_| end.is_long) {
            let may_be_written = end.is_known || has_line(&self.connection.gateway);
            if !audited.started(end, may_be_written, &self.connection) {
                fields.audited = None;
            }
        }
    }

    pub(super) fn user(&self, user: &str) {
        user.clone_into(&mut self.fields.lock().user);
    }

    pub(super) fn meaning(&self, verb: &'static str, resource: String, long_running: bool) {
        let mut fields = self.fields.lock();
        (fields.verb, fields.resource, fields.long_running) = (verb, resource, long_running);
    }

    pub(super) fn code(&self, code: u16) {
        self.fields.lock().code = code;
    }

    /// Takes `hold` instead of what was held before.
    pub(super) fn hold(&self, hold: Hold) {
        if matches!(hold, Hold::Seat(_)) {
            self.known();
        }
        let before = self.reading.hold().lock().replace(hold);
        // Outside of the lock.
        drop(before);
    }

    /// Its caller is known, seat or not.
    pub(super) fn known(&self) {
        self.fields.lock().is_known();
    }

    /// Gives back a place, but no seat: all of the answer is in memory, and how slowly an unknown caller reads it is
    /// nobody's concern.
    pub(super) fn leave_place(&self) {
        let place = self.reading.hold().lock().take_if(|hold| matches!(hold, Hold::Place(_)));
        drop(place);
    }
}

impl Fields {
    fn is_known(&mut self) {
        let was_known = std::mem::replace(&mut self.is_known, true);
        if let Some(tab) = self.tab.as_ref().filter(|_| !was_known) {
            tab.add(&self.namespace, &Amounts { calls: 1, ..Amounts::default() });
        }
    }

    fn end(&self, (received, sent): (u64, u64), took: Duration) -> End {
        End {
            code: self.code,
            flag: self.flag,
            is_upstream: !self.upstream.is_empty(),
            is_long: self.long_running,
            is_known: self.is_known,
            received,
            sent,
            took,
        }
    }

    fn finish_trace(&mut self, began: Instant, bytes: (u64, u64)) {
        let Some(trace) = self.trace.take() else { return };
        let account = traced::Account {
            cluster: &self.tenant_name,
            user: &self.user,
            method: &self.method,
            path: &self.path,
            verb: self.verb,
            resource: &self.resource,
            code: self.code,
            flag: self.flag,
            audit_id: self.audit_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default(),
            bytes,
        };
        traced::finish(&trace, began, &account);
    }

    fn count_bytes(&mut self, all: u64) {
        let Some(tab) = self.tab.as_ref().filter(|_| self.is_known) else { return };
        let new = all.saturating_sub(self.counted);
        self.counted += new;
        let amounts = match VerbClass::of(self.verb, self.long_running) {
            VerbClass::Stream => Amounts { stream_bytes: new, ..Amounts::default() },
            _ => Amounts { call_bytes: new, ..Amounts::default() },
        };
        tab.add(&self.namespace, &amounts);
    }
}

/// Whoever is not known has so many lines a second together, or he fills the disks of others.
fn has_line(gateway: &Gateway) -> bool {
    let most = u32::try_from(gateway.config.max_unknown_log_lines_per_second).unwrap_or(u32::MAX);
    gateway.unknown_lines.pass(most, most.saturating_mul(5), gateway.clock.instant()).is_ok()
}

fn may_log(gateway: &Gateway) -> bool {
    let may = has_line(gateway);
    if !may {
        gateway.metrics.unlogged.fetch_add(1, Ordering::Relaxed);
    }
    may
}

impl Drop for Record {
    fn drop(&mut self) {
        let fields = self.fields.get_mut();
        let (received, sent) = (*self.received.get_mut(), *self.sent.get_mut());
        let took: Duration = self.started.elapsed();
        if fields.code == 0 && fields.flag.is_none() {
            // the client left before there was an answer
            fields.flag = Some(Flag::Failed(Kind::Closed));
        }
        self.reading.close();
        if self.reading.was_ended() {
            fields.flag = Some(Flag::Unread);
            if let Some(tenant) = &fields.tenant {
                tenant.unread.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.connection.end();
        if let Some(tenant) = &fields.tenant {
            let class = VerbClass::of(fields.verb, fields.long_running);
            tenant.finished(class, fields.code, took, received, sent);
        }
        fields.count_bytes(received + sent);
        fields.finish_trace(self.started, (received, sent));
        let may_be_written = fields.is_known || may_log(&self.connection.gateway);
        if let Some(audited) = fields.audited.take() {
            audited.ended(fields.end((received, sent), took), may_be_written, &self.connection);
        }
        if !may_be_written {
            return;
        }
        // What a client chose is a string of its own: the text format then quotes it, and escapes what would end the line.
        tracing::info!(
            target: ACCESS,
            parent: None,
            tenant = %fields.tenant_name,
            user = short(&fields.user),
            method = fields.method.as_str(),
            path = &*fields.path,
            verb = fields.verb,
            resource = short(&fields.resource),
            code = fields.code,
            flag = fields.flag.map_or("", Flag::word),
            bytes_in = received,
            bytes_out = sent,
            duration_ms = took.as_secs_f64() * 1000.0,
            upstream = fields.upstream,
            protocol = if self.connection.is_http2 { "h2" } else { "h1" },
            peer = %self.connection.peer,
            audit_id = fields.audit_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default(),
            "request"
        );
    }
}

fn short(name: &str) -> &str {
    name.get(..name.floor_char_boundary(LONGEST_NAME)).unwrap_or_default()
}
