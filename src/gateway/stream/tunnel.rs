//! Opaque bytes both ways, until one side is done, the tenant is gone or the process ends.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::gateway::context::Context;

/// Grown when full reads show a bulk transfer, so that an idle shell costs little.
const BUFFERS: [usize; 3] = [4 << 10, 32 << 10, 256 << 10];
/// After one side has ended, the other may finish what it is sending: a pause this long ends it.
const LINGER: Duration = Duration::from_secs(30);
/// The peers shall still see an orderly end.
const BEFORE_DEADLINE: Duration = Duration::from_secs(1);
/// Both 101s are out or on their way.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(30);

/// Joins the two upgraded connections. Read-ahead of both parsers comes first: [`Upgraded`] replays it.
pub(super) async fn run(context: Context, caller: OnUpgrade, host: OnUpgrade) {
    let both = tokio::time::timeout(UPGRADE_DEADLINE, futures::future::try_join(caller, host));
    let (caller, host) = match both.await {
        Ok(Ok((caller, host))) => (caller, host),
        Ok(Err(error)) => {
            tracing::debug!(tenant = %context.tenant.id, %error, "a stream did not begin");
            return context.record.flag("CLOS");
        }
        Err(_) => return context.record.flag("TIME"),
    };
    tokio::select! {
        outcome = relay(&context, caller, host) => if let Err(error) = outcome {
            tracing::debug!(tenant = %context.tenant.id, %error, "a stream broke off");
            context.record.flag("CUT");
        },
        () = end(&context) => context.record.flag("END"),
    }
}

/// Resolves when this request's stream must end: its tenant is gone, or the drain's deadline has come. A new
/// generation of the same cluster ends nothing.
pub(super) fn end(context: &Context) -> impl Future<Output = ()> + Send + 'static {
    let (registry, tenant) = (context.registry.clone(), context.tenant.clone());
    let mut drain = context.drain.clone();
    async move {
        let mut changed = registry.subscribe();
        let gone = async {
            loop {
                changed.mark_unchanged();
                if registry.load().by_id(&tenant.id).is_none_or(|now| now.uid != tenant.uid) {
                    return;
                }
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        let over = async {
            let deadline = drain.signaled().await;
            tokio::time::sleep_until(deadline.checked_sub(BEFORE_DEADLINE).unwrap_or(deadline)).await;
        };
        tokio::select! {
            () = gone => {}
            () = over => {}
        }
    }
}

async fn relay(context: &Context, caller: Upgraded, host: Upgraded) -> io::Result<()> {
    let (mut from_caller, mut to_caller) = tokio::io::split(TokioIo::new(caller));
    let (mut from_host, mut to_host) = tokio::io::split(TokioIo::new(host));
    let passed = AtomicU64::new(0);
    let mut up = std::pin::pin!(copy(&mut from_caller, &mut to_host, |bytes| {
        passed.fetch_add(bytes as u64, Ordering::Relaxed);
        context.record.add_received(bytes);
    }));
    let mut down = std::pin::pin!(copy(&mut from_host, &mut to_caller, |bytes| {
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

/// Copies to the end and passes the end on.
async fn copy<R, W>(from: &mut R, to: &mut W, count: impl Fn(usize)) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut sizes = BUFFERS.iter().skip(1);
    let mut buffer = vec![0; BUFFERS[0]];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..length).unwrap_or_default()).await?;
        to.flush().await?;
        count(length);
        if length == buffer.len()
            && let Some(size) = sizes.next()
        {
            buffer = vec![0; *size];
        }
    }
}
