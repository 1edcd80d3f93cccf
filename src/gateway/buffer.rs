//! Bodies that the gateway reads as a whole, and the one budget in bytes for all of them. A second budget of the same make is for
//! the larger buffers of upgraded streams.
//!
//! Promises: what is read or parsed here is drawn on the tenant's share and on the process' budget before the memory is
//! taken, and given back with it; nobody waits for the budget: over it the request is refused, and may come again. Only
//! for callers who are known: see [`super::entry`]. Must not know what the bodies mean.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as HttpBody;
use http_body_util::{BodyExt as _, Limited};

use crate::error::{BoxError, Error, Kind, Result, Side};
use crate::tenant::memory::Account;

/// The first piece that a body takes; most Services are smaller.
const FIRST: usize = 4 << 10;
/// What `serde_json` takes for a value, the spare room of a growing list included.
const VALUE: usize = 96;
/// The same for the first member of an object: a whole node of a B-tree.
const OBJECT: usize = 704;

/// Bytes of the process.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

/// One tenant's share of it.
#[derive(Debug)]
pub struct Share {
    process: Arc<Budget>,
    own: Budget,
    account: Arc<Account>,
    refused: AtomicU64,
}

/// Bytes drawn, given back when dropped.
#[derive(Debug)]
pub struct Drawn {
    share: Arc<Share>,
    bytes: usize,
}

/// Why a body was not read.
#[derive(Debug)]
pub enum Failure {
    /// Longer than this, which is all that the caller of [`read`] takes.
    TooLong(usize),
    /// Not there in time.
    Late,
    /// It broke off.
    Broken(BoxError),
    /// No budget; the error is for the client.
    Full(Error),
}

/// What is written here piece by piece, each drawn on the budget before its memory is taken.
pub struct Written {
    held: Held,
    limit: usize,
}

/// A body and its part of the budget, together as long as anything refers to the bytes.
struct Held {
    bytes: Vec<u8>,
    _drawn: Drawn,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    /// Takes so many, if there are.
    pub(super) fn draw(&self, bytes: usize) -> bool {
        let within = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn in_use(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Share {
    /// A quarter of the process' budget.
    pub(super) fn of(process: Arc<Budget>, account: Arc<Account>) -> Arc<Self> {
        let own = Budget::new(process.limit / 4);
        Arc::new(Self { process, own, account, refused: AtomicU64::new(0) })
    }

    /// Bytes drawn now.
    pub(super) fn in_use(&self) -> usize {
        self.own.in_use()
    }

    /// How often there was no budget.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Draws `bytes`, or says 429; what never fits is 413.
    pub fn draw(self: &Arc<Self>, bytes: usize) -> Result<Drawn> {
        let mut drawn = Drawn { share: Arc::clone(self), bytes: 0 };
        drawn.grow(bytes)?;
        Ok(drawn)
    }
}

impl Drawn {
    fn grow(&mut self, bytes: usize) -> Result<()> {
        let share = &self.share;
        if self.bytes.saturating_add(bytes) > share.own.limit {
            return Err(Error::client(
                Kind::TooLarge,
                "Request entity too large: it has too many parts to be read here",
            ));
        }
        let own = share.own.draw(bytes);
        if own && share.process.draw(bytes) {
            share.account.take(bytes);
            self.bytes += bytes;
            return Ok(());
        }
        if own {
            share.own.give_back(bytes);
        }
        share.refused.fetch_add(1, Ordering::Relaxed);
        let message = "too much is being read for this cluster at the moment, please try again later";
        Err(Error::client(Kind::TooManyRequests, message))
    }
}

impl Failure {
    /// As an error, of a request's body or of a backend's answer.
    pub fn of(self, side: Side) -> Error {
        let is_request = side == Side::Client;
        let what = if is_request { "the request body" } else { "the API server's answer" };
        match self {
            Self::TooLong(limit) if is_request => {
                Error::client(Kind::TooLarge, format!("Request entity too large: limit is {limit}"))
            }
            Self::TooLong(_) => Error::new(side, Kind::Protocol, format!("{what} is too long")),
            Self::Late => Error::new(side, Kind::Timeout, format!("{what} did not arrive in time")),
            Self::Broken(error) => Error::new(side, Kind::Closed, format!("{what} broke off")).because(error),
            Self::Full(error) => error,
        }
    }
}

impl Written {
    /// Nothing yet; at most `limit` bytes.
    pub fn new(limit: usize, share: &Arc<Share>) -> Self {
        Self { held: Held { bytes: Vec::new(), _drawn: Drawn { share: Arc::clone(share), bytes: 0 } }, limit }
    }

    /// Adds a piece.
    pub fn add(&mut self, piece: &[u8]) -> Result<(), Failure> {
        let held = &mut self.held;
        let length = held.bytes.len() + piece.len();
        if length > self.limit {
            return Err(Failure::TooLong(self.limit));
        }
        let room = held.bytes.capacity();
        if length > room {
            let more = length.max(room.saturating_mul(2)).clamp(FIRST.min(self.limit), self.limit) - room;
            held._drawn.grow(more).map_err(Failure::Full)?;
            held.bytes.reserve_exact(room + more - held.bytes.len());
        }
        held.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// All of it; drawn as long as anything refers to it.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self.held)
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        self.share.own.give_back(self.bytes);
        self.share.process.give_back(self.bytes);
        self.share.account.give_back(self.bytes);
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a whole body of at most `limit` bytes within `deadline`. Copied piece by piece: frames of one byte would keep
/// whole read buffers alive.
pub async fn read<B>(body: B, limit: usize, deadline: Duration, share: &Arc<Share>) -> Result<Bytes, Failure>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    tokio::time::timeout(deadline, whole(body, limit, share)).await.unwrap_or(Err(Failure::Late))
}

/// A body that is short by its nature, such as a refusal's, and so is not drawn on the budget; `None` when it is longer,
/// late or breaks off.
pub async fn read_short<B>(body: B, limit: usize, deadline: Duration) -> Option<Bytes>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let body = std::pin::pin!(Limited::new(body, limit));
    Some(tokio::time::timeout(deadline, body.collect()).await.ok()?.ok()?.to_bytes())
}

async fn whole<B>(mut body: B, limit: usize, share: &Arc<Share>) -> Result<Bytes, Failure>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let mut written = Written::new(limit, share);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| Failure::Broken(error.into()))?.into_data() else { continue };
        written.add(&data)?;
    }
    Ok(written.into_bytes())
}

/// At most what a parsed `serde_json::Value` of this text takes: `[{"":0},…]` is a hundred times as large as its text.
pub fn weight(json: &[u8]) -> usize {
    let (mut quoted, mut escaped, mut weight) = (false, false, json.len() + VALUE);
    for (at, byte) in json.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted && json.get(at + 1) != Some(&b'}') => weight += OBJECT,
            b'[' | b',' | b':' if !quoted => weight += VALUE,
            _ => {}
        }
    }
    weight
}

#[cfg(test)]
mod tests;
