//! Upgraded connections: opaque bytes both ways, until one side is done, the tenant is gone or the process ends.
//!
//! Promises: owned by the drain and over before its deadline; a side that ends is half-closed on the other, which may
//! finish; what passed is on the request's record as it passes. Must not know what the bytes mean or who is at the other
//! end.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::buffer::{Drawn, Share};
use super::context::Context;
use super::ending;
use super::flag::Flag;
use crate::error::Kind;
use crate::runtime::task;

/// Grown when full reads show a bulk transfer, so that an idle shell costs little. What is above the first is drawn on a
/// budget: a tenant chooses how many streams it has, and how many of them are bulk transfers.
const BUFFERS: [usize; 3] = [4 << 10, 32 << 10, 256 << 10];
/// After one side has ended, the other may finish what it is sending: a pause this long ends it.
const LINGER: Duration = Duration::from_secs(30);
/// Both 101s are out or on their way.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(30);

/// Joins the caller's connection and the one to where it goes, both behind their 101. Read-ahead of both parsers comes
/// first: [`Upgraded`] replays it.
pub(super) fn start(context: &Arc<Context>, caller: OnUpgrade, far: OnUpgrade) {
    let work = run(Arc::clone(context), caller, far);
    task::spawn("gateway tunnel", work).owned_by_drain(context.drain());
}

async fn run(context: Arc<Context>, caller: OnUpgrade, far: OnUpgrade) {
    tokio::select! {
        () = joined(&context, caller, far) => {}
        () = ending::of_stream(&context) => context.record.flag(Flag::Ended),
    }
}

async fn joined(context: &Context, caller: OnUpgrade, far: OnUpgrade) {
    let both = tokio::time::timeout(UPGRADE_DEADLINE, futures::future::try_join(caller, far));
    let (caller, far) = match both.await {
        Ok(Ok(both)) => both,
        Ok(Err(error)) => {
            tracing::debug!(tenant = %context.tenant.id, %error, "a stream did not begin");
            return context.record.flag(Flag::Failed(Kind::Closed));
        }
        Err(_) => return context.record.flag(Flag::Failed(Kind::Timeout)),
    };
    if let Err(error) = relay(context, caller, far).await {
        tracing::debug!(tenant = %context.tenant.id, %error, "a stream broke off");
        context.record.flag(Flag::Cut);
    }
}

async fn relay(context: &Context, caller: Upgraded, far: Upgraded) -> io::Result<()> {
    let (mut from_caller, mut to_caller) = tokio::io::split(TokioIo::new(caller));
    let (mut from_far, mut to_far) = tokio::io::split(TokioIo::new(far));
    let (passed, buffers) = (AtomicU64::new(0), context.entry.stream_buffers());
    let mut up = std::pin::pin!(copy(&mut from_caller, &mut to_far, buffers, |bytes| {
        passed.fetch_add(bytes as u64, Ordering::Relaxed);
        context.record.add_received(bytes);
    }));
    let mut down = std::pin::pin!(copy(&mut from_far, &mut to_caller, buffers, |bytes| {
        passed.fetch_add(bytes as u64, Ordering::Relaxed);
        context.record.add_sent(bytes);
    }));
    tokio::select! {
        outcome = up.as_mut() => { outcome?; after_the_end(linger(down, &passed).await) }
        outcome = down.as_mut() => { outcome?; after_the_end(linger(up, &passed).await) }
    }
}

/// Once one half has ended in good order, a peer that just goes away has not broken anything off.
fn after_the_end(outcome: io::Result<()>) -> io::Result<()> {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    match outcome {
        Err(error)
            if matches!(
                error.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
            ) =>
        {
            Ok(())
        }
        outcome => outcome,
    }
}

/// The other half, as long as it moves.
async fn linger(mut rest: impl Future<Output = io::Result<()>> + Unpin, passed: &AtomicU64) -> io::Result<()> {
    loop {
        let before = passed.load(Ordering::Relaxed);
        match tokio::time::timeout(LINGER, &mut rest).await {
            Ok(outcome) => return outcome,
            Err(_) if passed.load(Ordering::Relaxed) != before => {}
            Err(_) => return Ok(()),
        }
    }
}

/// Copies to the end and passes the end on. Without budget for a larger buffer it goes on with the one that it has.
async fn copy<R, W>(from: &mut R, to: &mut W, budget: &Arc<Share>, count: impl Fn(usize)) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut sizes = BUFFERS.iter().skip(1).peekable();
    let mut buffer = vec![0; BUFFERS[0]];
    let mut drawn: Option<Drawn> = None;
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..length).unwrap_or_default()).await?;
        to.flush().await?;
        count(length);
        if length == buffer.len()
            && let Some(size) = sizes.peek()
            && let Ok(larger) = budget.draw(**size)
        {
            buffer = vec![0; **size];
            // The smaller one is gone, and with this what was drawn for it.
            drawn.replace(larger);
            sizes.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::buffer::Budget;

    /// Copies as much as wanted from an endless source; yields the longest piece and the most that was drawn.
    async fn bulk(budget: &Arc<Share>) -> (usize, usize) {
        let mut source = tokio::io::repeat(b'x').take(4 << 20);
        let longest = parking_lot::Mutex::new((0, 0));
        let mut sink = tokio::io::sink();
        let copied = copy(&mut source, &mut sink, budget, |length| {
            let mut longest = longest.lock();
            *longest = (longest.0.max(length), longest.1.max(budget.in_use()));
        });
        copied.await.expect("copied");
        longest.into_inner()
    }

    #[tokio::test]
    async fn a_bulk_transfer_gets_a_large_buffer_and_gives_it_back() {
        let budget = Share::of(Arc::new(Budget::new(4 << 20)), Arc::default());
        assert_eq!(bulk(&budget).await, (BUFFERS[2], BUFFERS[2]));
        assert_eq!(budget.in_use(), 0);
    }

    #[tokio::test]
    async fn bulk_transfers_beyond_the_budget_go_on_with_small_buffers() {
        // While a buffer grows both are there, so one transfer needs a little more than its largest.
        let process = Arc::new(Budget::new(8 * BUFFERS[2]));
        let (hostile, other) = (Share::of(Arc::clone(&process), Arc::default()), Share::of(process, Arc::default()));
        let _all = hostile.draw(2 * BUFFERS[2]).expect("its share");
        assert_eq!(bulk(&hostile).await, (BUFFERS[0], 2 * BUFFERS[2]), "one past the share");
        assert_eq!(bulk(&other).await, (BUFFERS[2], BUFFERS[2]), "and nobody else notices");
    }
}
