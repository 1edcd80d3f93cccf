//! What waits in the spool, sent in batches, in its order, until it is taken.
//!
//! Promises: every wait has a deadline, and nothing but the head of an answer is needed; a batch is sent again until it is taken
//! or found unfit; what other processes left is sent within a minute, behind what waits here. A double is
//! the same line: an `auditID` alone is the caller's to choose.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::sync::watch;

use super::counts::{Counts, Sink};
use super::spool::{Batch, Spool};
use crate::config::audit::AuditWebhook;
use crate::error::{Error, Kind, Result, Side};
use crate::runtime::clock::Clock;
use crate::runtime::task::{self, Pauses};
use crate::tls;
use crate::upstream::{Body, Class, Credential, Pool, Reach, Target};

/// Events are gathered for so long.
const GATHER: Duration = Duration::from_secs(1);
/// For the whole of one batch, its answer's body included.
const DEADLINE: Duration = Duration::from_secs(10);
/// Of an answer's body, so that its connection can be used again.
const LONGEST_ANSWER: usize = 64 << 10;
/// Before a batch is sent again, at first.
const BACKOFF: Duration = Duration::from_secs(1);
/// How often others' spools are looked for.
const OTHERS: Duration = Duration::from_secs(60);
const HEAD: &[u8] = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;

/// Sends what is in this process' spool.
pub(super) struct Webhook {
    pool: Pool,
    path: Uri,
    spool: Arc<Spool>,
    /// Where all spools are.
    folder: String,
    counts: Arc<Counts>,
    clock: Clock,
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Taken,
    /// It is sent again.
    Failed(String),
    /// It would be refused again.
    Unfit(StatusCode),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dated {
    stage_timestamp: Timestamp,
}

impl Webhook {
    pub(super) fn new(
        config: &AuditWebhook,
        spool: &Arc<Spool>,
        folder: &str,
        counts: &Arc<Counts>,
        clock: &Clock,
    ) -> Result<Self> {
        let (target, path) = target(config)?;
        Ok(Self {
            pool: Pool::new(target, clock.clone()),
            path,
            spool: Arc::clone(spool),
            folder: folder.to_owned(),
            counts: Arc::clone(counts),
            clock: clock.clone(),
        })
    }

    /// Until the process ends, and then once more.
    pub(super) async fn run(self, ending: watch::Receiver<bool>) {
        let clock = self.clock.clone();
        // A fault of it ends none of what the others do.
        task::repeat("audit webhook", &clock, BACKOFF, || self.work(ending.clone())).await;
    }

    async fn work(&self, mut ending: watch::Receiver<bool>) -> Result<()> {
        let mut others = tokio::time::Instant::now();
        loop {
            let is_ending = *ending.borrow();
            self.send_all(&self.spool, &mut ending).await?;
            if is_ending {
                return Ok(());
            }
            // By the clock, not by idleness: a process that always has something of its own sends theirs too.
            if others <= tokio::time::Instant::now() {
                others = tokio::time::Instant::now() + OTHERS;
                self.send_others(&mut ending).await?;
            }
            let added = async {
                self.spool.added.notified().await;
                tokio::time::sleep(GATHER).await;
            };
            tokio::select! {
                () = added => {}
                () = ended(&mut ending) => {}
                () = tokio::time::sleep_until(others) => {}
            }
        }
    }

    /// Everything that waits there. At the end of the process a batch that fails is left.
    async fn send_all(&self, spool: &Arc<Spool>, ending: &mut watch::Receiver<bool>) -> Result<()> {
        while self.send_one(spool, ending).await? {}
        Ok(())
    }

    /// The next batch, again until it is taken. False: there is none, or it is the end.
    async fn send_one(&self, spool: &Arc<Spool>, ending: &mut watch::Receiver<bool>) -> Result<bool> {
        let mut pauses = Pauses::new(self.clock.clone(), BACKOFF);
        let read = with(spool, |spool| spool.read()).await;
        let batch = read.inspect_err(|error| _ = self.counts.outcome(Sink::Spool, Err(error.to_string())))?;
        let oldest = batch.lines.first().and_then(|line| serde_json::from_slice::<Dated>(line).ok());
        self.counts.oldest(oldest.map(|dated| dated.stage_timestamp));
        let next = batch.next;
        if batch.is_end {
            return Ok(false);
        }
        loop {
            pauses.run_begins();
            match self.offer(&batch).await {
                Ok(()) => {
                    self.counts.outcome(Sink::Webhook, Ok(()));
                    // Said, and no reason to send it again: it goes on behind it.
                    if let Err(error) = with(spool, move |spool| spool.taken(next)).await {
                        self.counts.outcome(Sink::Spool, Err(error.to_string()));
                    }
                    return Ok(true);
                }
                Err(why) => {
                    self.counts.outcome(Sink::Webhook, Err(why));
                    if *ending.borrow() {
                        return Ok(false);
                    }
                    tokio::select! {
                        () = tokio::time::sleep(pauses.run_ended()) => {}
                        () = ended(ending) => {}
                    }
                }
            }
        }
    }

    /// What processes left that are gone, one after the other, batch by batch: between two of theirs comes all of one's own.
    async fn send_others(&self, ending: &mut watch::Receiver<bool>) -> Result<()> {
        while !*ending.borrow() {
            let folder = self.folder.clone();
            let found = tokio::task::spawn_blocking(move || Spool::left(&folder)).await;
            let Some(left) = found.map_err(broken)? else { return Ok(()) };
            tracing::info!(bytes = left.bytes(), "events of a process that is gone are sent to the audit webhook");
            let left = Arc::new(left);
            while self.send_one(&left, ending).await? {
                self.send_all(&self.spool, ending).await?;
            }
            let is_empty = with(&left, |spool| spool.read().map(|batch| batch.is_end)).await?;
            let Some(left) = Arc::into_inner(left).filter(|_| is_empty) else { return Ok(()) };
            tokio::task::spawn_blocking(move || left.remove()).await.map_err(broken)?.map_err(broken)?;
        }
        Ok(())
    }

    /// Sends a batch. What is unfit in it is lost: the half that has it, and of that the half, down to a single event.
    async fn offer(&self, batch: &Batch) -> Result<(), String> {
        let mut parts = vec![batch.lines.as_slice()];
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            match self.post(part).await {
                Fate::Taken => self.counts.sent(part.len()),
                Fate::Failed(why) => return Err(why),
                Fate::Unfit(code) if part.len() == 1 => {
                    tracing::warn!(%code, "the audit webhook will not take an event: it is lost");
                    self.counts.rejected(1);
                }
                Fate::Unfit(_) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        Ok(())
    }

    async fn post(&self, lines: &[Vec<u8>]) -> Fate {
        let mut body = HEAD.to_vec();
        for (at, line) in lines.iter().enumerate() {
            body.extend((at > 0).then_some(b','));
            body.extend(line);
        }
        body.extend(b"]}");
        let mut request = Request::new(Body::full(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let exchange = async {
            let response = self.pool.send(Class::Unary, request, DEADLINE).await?;
            let status = response.status();
            let mut body = response.into_body();
            let mut left = LONGEST_ANSWER;
            // Its end is wanted, not what it says; one without an end costs the connection.
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, bytes::Bytes::len);
                let Some(rest) = left.checked_sub(length) else { break };
                left = rest;
            }
            Ok::<_, Error>(status)
        };
        match tokio::time::timeout(DEADLINE, exchange).await {
            Ok(Ok(status)) if status.is_success() => Fate::Taken,
            Ok(Ok(status)) if is_unfit(status) => Fate::Unfit(status),
            Ok(Ok(status)) => Fate::Failed(format!("it answers {status}")),
            Ok(Err(error)) => Fate::Failed(error.to_string()),
            Err(_) => Fate::Failed("it does not answer in time".to_owned()),
        }
    }
}

/// Returns whenever it is the end, however often that was seen before.
async fn ended(ending: &mut watch::Receiver<bool>) {
    // An owner that is gone is an end too.
    let _ = ending.wait_for(|ending| *ending).await;
}

/// What says something of the events themselves. Everything else, credentials and addresses above all, may become right.
fn is_unfit(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY)
}

async fn with<T: Send + 'static>(
    spool: &Arc<Spool>,
    work: impl FnOnce(&Spool) -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let spool = Arc::clone(spool);
    tokio::task::spawn_blocking(move || work(&spool)).await.map_err(broken)?.map_err(broken)
}

fn broken(error: impl Into<crate::error::BoxError>) -> Error {
    Error::own(Kind::Internal, "the spool of the audit log cannot be read").because(error)
}

fn target(config: &AuditWebhook) -> Result<(Target, Uri)> {
    let bad = |what: &str| Error::client(Kind::Invalid, format!("audit.webhook.url {:?} {what}", config.url));
    let url: Uri = config.url.parse().map_err(|e| bad("is no URL").because(e))?;
    let host = url.host().ok_or_else(|| bad("has no host"))?.trim_matches(['[', ']']).to_owned();
    let server_name = ServerName::try_from(host.clone()).map_err(|e| bad("has no usable host").because(e))?;
    let ca = std::fs::read(&config.ca_file).map_err(|e| {
        Error::own(Kind::Unavailable, format!("audit.webhook.caFile {} cannot be read", config.ca_file)).because(e)
    })?;
    let tls = tls::client_config(&ca, None)?;
    let credential = match config.token_file.as_str() {
        "" => Credential::Certificate,
        path => Credential::TokenFile(path.into()),
    };
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let path = path.parse().map_err(|e| bad("has no usable path").because(e))?;
    let port = url.port_u16().unwrap_or(443);
    let (tls_without_identity, side) = (Arc::clone(&tls), Side::Own);
    let (path_prefix, reach) = (String::new(), Reach::default());
    Ok((Target { side, host, port, server_name, tls, tls_without_identity, credential, path_prefix, reach }, path))
}
