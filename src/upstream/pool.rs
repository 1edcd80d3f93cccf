//! Connections to one API server, kept by class.
//!
//! Promises: classes never share a connection; a connection never carries more streams than the peer allows (a watch
//! too many would hang, not fail); a request that was not sent is sent again on another connection; no lock is held
//! across an await; no task outlives the pool and the bodies that came from it.

mod breaker;
mod class;
mod connection;
mod dial;
mod lease;
mod open;
mod replay;
mod token;
mod upgrade;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use hyper::body::Body as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::breaker::{Breaker, Pass};
pub use self::class::Class;
use self::connection::{Connections, Found, first};
use self::dial::{Address, Dialer};
pub use self::dial::{LONG_STREAM_WINDOW, STREAM_WINDOW};
use self::lease::Lease;
pub use self::lease::ResponseBody;
use self::open::Dialing;
use self::replay::Replay;
use self::token::TokenCache;
pub use self::upgrade::UpgradeConnection;
use crate::error::{Error, Kind, Result, Side};
use crate::runtime::clock::Clock;
use crate::runtime::task::{self, Task};
use crate::upstream::{Body, Target};

/// Connecting, TLS and the HTTP preface together.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// An apiserver closes idle connections after 90 s as well; whoever is first matters little.
const IDLE_LIMIT: Duration = Duration::from_secs(90);
const REAP_INTERVAL: Duration = Duration::from_secs(15);
/// Sending anew after a connection turned out to be going away: enough for a rolling restart, no storm.
const ATTEMPTS: usize = 3;

/// A pool of connections to one [`Target`].
pub struct Pool {
    target: Target,
    clock: Clock,
    address: Address,
    dialer: Dialer,
    classes: [Arc<Connections>; 8],
    token: TokenCache,
    breaker: Breaker,
    closed: AtomicBool,
    /// After this nothing new begins.
    ends: OnceLock<Instant>,
    reachable: AtomicBool,
    throttled: AtomicU64,
    last_error: Mutex<Option<String>>,
    reaper: Mutex<Option<Task>>,
}

impl Pool {
    /// A pool without connections; the first request dials.
    pub fn new(target: Target, clock: Clock) -> Self {
        Self {
            address: Address::new(&target),
            dialer: Dialer::new(&target),
            token: TokenCache::new(target.credential.clone(), target.side),
            classes: std::array::from_fn(|_| Arc::new(Connections::default())),
            breaker: Breaker::default(),
            target,
            clock,
            closed: AtomicBool::new(false),
            ends: OnceLock::new(),
            reachable: AtomicBool::new(false),
            throttled: AtomicU64::new(0),
            last_error: Mutex::new(None),
            reaper: Mutex::new(None),
        }
    }

    /// Where it leads.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Time and randomness.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Sends a request (path and query only in the URI, or full; `Host`/authority and our credential are set here) and
    /// waits at most `head_deadline` for the response head. The body is the caller's to read and to time; until it
    /// ends or is dropped it counts against its connection.
    pub async fn send(
        &self,
        class: Class,
        mut request: Request<Body>,
        head_deadline: Duration,
    ) -> Result<Response<ResponseBody>> {
        let pass = self.pass()?;
        // An answer that does not come says nothing of the server while it may still wait for the rest of the request, or
        // when anybody could have sent it.
        let is_telling = class.is_known() && request.body().is_end_stream();
        self.address.prepare(&mut request)?;
        if class.has_identity()
            && !request.headers().contains_key(header::AUTHORIZATION)
            && let Some(value) = self.token.current(&self.clock).await?
        {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        match tokio::time::timeout(head_deadline, self.attempt(class, request)).await {
            Ok(Ok(response)) => {
                self.note_success();
                if response.status() == StatusCode::TOO_MANY_REQUESTS {
                    self.throttled.fetch_add(1, Ordering::Relaxed);
                }
                Ok(response)
            }
            Ok(Err(error)) => {
                self.note_failure(&error);
                self.note_away(pass, &error);
                Err(error)
            }
            Err(_) => {
                let error = Error::new(self.target.side, Kind::Timeout, "the API server did not answer in time");
                if is_telling {
                    self.note_failure(&error);
                    self.note_away(pass, &error);
                }
                Err(error)
            }
        }
    }

    /// Dials an HTTP/1.1 connection for one upgrade. `with_identity` false leaves our certificate and credential out.
    pub async fn dial_upgrade(&self, with_identity: bool, deadline: Duration) -> Result<UpgradeConnection> {
        self.check_open()?;
        let pass = self.pass()?;
        let credential = if with_identity { self.token.current(&self.clock).await? } else { None };
        let dial = Box::pin(self.dialer.upgrade(with_identity));
        let dialed = match tokio::time::timeout(deadline.min(DIAL_DEADLINE), dial).await {
            Ok(outcome) => outcome.inspect_err(|e| self.note_failure(e)),
            Err(_) => Err(self.dial_timed_out()),
        };
        let sender = dialed.inspect_err(|e| self.note_away(pass, e))?;
        self.note_success();
        Ok(UpgradeConnection::new(sender, self.address.clone(), self.target.clone(), credential))
    }

    /// Whether the last dial or request reached the server; for readiness and `describe`.
    pub fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    /// What the last failure was, while the server is not reachable.
    pub fn last_error(&self) -> Option<String> {
        if self.is_reachable() { None } else { self.last_error.lock().clone() }
    }

    /// Whether it did not answer lately, so that requests are refused until one gets through. Of one that nobody has asked
    /// for some seconds that is not known.
    pub fn is_away(&self) -> bool {
        self.breaker.is_open(self.clock.instant())
    }

    /// Answers with 429: the server wants to be asked less.
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// Open connections of a class, for metrics and tests.
    pub fn connections(&self, class: Class) -> usize {
        self.of(class).count()
    }

    /// Another pool has taken this one's place. Whoever holds it may begin requests for `grace` more; connections close as
    /// they become idle, the last ones when the last holder and the last answer are gone. A second call changes nothing.
    pub fn retire(&self, grace: Duration) {
        self.ends.get_or_init(|| self.clock.instant() + grace);
    }

    /// Closes idle connections and lets running requests finish; further sends fail.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for connections in &self.classes {
            connections.clear();
        }
        self.reaper.lock().take();
    }

    async fn attempt(&self, class: Class, mut request: Request<Body>) -> Result<Response<ResponseBody>> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut lease = self.lease(class).await?;
            self.address.fit(&mut request, lease.is_http2());
            let replay = Replay::of(&request);
            let failed = match lease.send(request).await {
                Ok(response) => return Ok(response.map(|body| ResponseBody::new(body, lease))),
                Err(failed) => failed,
            };
            lease.retire();
            let (error, unsent) = failed;
            match unsent.or_else(|| replay.after(&error)) {
                Some(again) if attempts < ATTEMPTS => request = again,
                _ => return Err(dial::hyper_error(self.target.side, error)),
            }
        }
    }

    async fn lease(&self, class: Class) -> Result<Lease> {
        let connections = self.of(class);
        let seen = connections.failures();
        loop {
            self.check_open()?;
            match connections.find(&self.target)? {
                Found::Lease(mut lease) => {
                    if lease.ready().await {
                        return Ok(lease);
                    }
                }
                Found::DialHttp1(dialing) => return self.dial(class, dialing).await,
                Found::Dial => {
                    // One dial at a time: the others share its outcome, good or bad.
                    let turn = connections.dialing.lock().await;
                    match connections.find(&self.target)? {
                        Found::Lease(mut lease) => {
                            drop(turn);
                            if lease.ready().await {
                                return Ok(lease);
                            }
                        }
                        Found::DialHttp1(dialing) => {
                            drop(turn);
                            return self.dial(class, dialing).await;
                        }
                        Found::Dial => {
                            connections.failed_since(seen)?;
                            return self.dial(class, connections.dial(&self.target)?).await;
                        }
                    }
                }
            }
        }
    }

    async fn dial(&self, class: Class, dialing: Dialing) -> Result<Lease> {
        self.start_reaper();
        let connections = self.of(class);
        // Boxed: cold, and ten times as large as the rest of a request's future.
        let dial = Box::pin(self.dialer.pooled(class));
        let dialed = match tokio::time::timeout(DIAL_DEADLINE, dial).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.dial_timed_out()),
        };
        match dialed {
            Ok(connection) => {
                self.check_open()?;
                Ok(first(connection, dialing))
            }
            Err(error) => {
                connections.note_failure(&error);
                Err(error)
            }
        }
    }

    fn of(&self, class: Class) -> &Arc<Connections> {
        &self.classes[class.index()]
    }

    fn check_open(&self) -> Result<()> {
        let is_over = self.ends.get().is_some_and(|end| self.clock.instant() >= *end);
        if is_over || self.closed.load(Ordering::Acquire) {
            return Err(Error::new(self.target.side, Kind::Closed, "the cluster's configuration has just changed"));
        }
        Ok(())
    }

    fn dial_timed_out(&self) -> Error {
        let error = Error::new(self.target.side, Kind::Unavailable, "the API server cannot be reached: no answer");
        self.note_failure(&error);
        error
    }

    /// The host is asked by Portico alone, which spaces its tries itself.
    fn pass(&self) -> Result<Pass> {
        if self.target.side != Side::Backend {
            return Ok(Pass::Closed);
        }
        self.breaker.pass(self.clock.instant()).ok_or_else(|| {
            let message = "the API server does not answer; it is asked again in a moment";
            Error::new(self.target.side, Kind::Unavailable, message)
        })
    }

    /// Dials that fail say that the server is away; what fails later may be the request's own.
    fn note_away(&self, pass: Pass, error: &Error) {
        if matches!(error.kind(), Kind::Unavailable | Kind::Timeout | Kind::Tls) {
            self.breaker.failed(pass, self.clock.instant());
        }
    }

    fn note_success(&self) {
        self.breaker.succeeded();
        if !self.reachable.load(Ordering::Relaxed) {
            self.reachable.store(true, Ordering::Relaxed);
        }
    }

    fn note_failure(&self, error: &Error) {
        if error.side() == self.target.side {
            *self.last_error.lock() = Some(error.to_string());
            self.reachable.store(false, Ordering::Relaxed);
        }
    }

    /// Started by the first dial, since a pool may be made outside a runtime; and by a later one if it ended.
    fn start_reaper(&self) {
        let mut reaper = self.reaper.lock();
        let runs = reaper.as_ref().is_some_and(|task| !task.is_finished());
        if runs || self.closed.load(Ordering::Acquire) {
            return;
        }
        let classes = self.classes.clone();
        *reaper = Some(task::spawn("upstream idle connections", async move {
            loop {
                tokio::time::sleep(REAP_INTERVAL).await;
                for connections in &classes {
                    connections.reap(IDLE_LIMIT);
                }
            }
        }));
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("target", &self.target).finish_non_exhaustive()
    }
}
