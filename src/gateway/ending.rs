//! When something that takes long must end although neither side is done: its tenant is gone, the tenant's CA or issuers no longer
//! vouch for the caller, the caller's certificate or token has come to the end of its time or is taken back, or the process ends. A new generation of
//! the same cluster ends nothing by itself.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::authenticate::{Certificates, Who};
use super::context::Context;
use super::review;

/// Watches end spread over this part of the drain, so that clients do not come back all at once.
const WATCH_SPREAD: f64 = 0.5;
/// Before the drain's deadline, so that the peers of a stream still see an orderly end.
const BEFORE_DEADLINE: Duration = Duration::from_secs(1);

/// The verdict of just before the end has gone by then, though its clock is another one.
const BEHIND_THE_END: Duration = Duration::from_millis(100);
/// How often the backend is asked whether it still accepts the token by which something is open.
const JUDGE_AGAIN: Duration = Duration::from_secs(300);
/// The same, when it did not answer: that takes nothing back.
const JUDGE_SOON: Duration = Duration::from_secs(60);
/// A clock that is set counts after this at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// Of a watch: early in the drain, since its client watches again from where it was.
pub(super) fn of_watch(context: &Arc<Context>) -> impl Future<Output = ()> + Send + 'static {
    let context = Arc::clone(context);
    async move {
        let mut drain = context.drain().clone();
        let drained = async {
            let left = drain.signaled().await.saturating_duration_since(context.clock().instant());
            let spread = u64::try_from(left.mul_f64(WATCH_SPREAD).as_millis()).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(context.clock().random_below(spread))).await;
        };
        tokio::select! {
            () = drained => {}
            () = revoked(&context) => {}
        }
    }
}

/// Of what cannot be taken up again: as late in the drain as possible.
pub(super) fn of_stream(context: &Arc<Context>) -> impl Future<Output = ()> + Send + 'static {
    let context = Arc::clone(context);
    async move {
        let mut drain = context.drain().clone();
        let drained = async {
            let deadline = drain.signaled().await;
            tokio::time::sleep_until(deadline.checked_sub(BEFORE_DEADLINE).unwrap_or(deadline)).await;
        };
        tokio::select! {
            () = drained => {}
            () = revoked(&context) => {}
        }
    }
}

async fn revoked(context: &Arc<Context>) {
    let certificates = matches!(context.caller.who, Who::Certificate(_)).then_some(&context.connection.certificates);
    let mut life = context.tenant.life.follow(context.tenant.generation);
    let mut taken_back = std::pin::pin!(taken_back(context));
    loop {
        tokio::select! {
            () = taken_back.as_mut() => return,
            next = life.next_generation() => if next.is_none() { return },
            () = end_of(context, certificates) => {}
        }
        let snapshot = context.connection.gateway.registry.load();
        let Some(now) = snapshot.by_id(&context.tenant.id).filter(|now| now.uid == context.tenant.uid) else { return };
        if certificates.is_some_and(|certificates| !certificates.still_hold(now, context.clock())) {
            return;
        }
        if context.entry.bearer().is_some_and(|bearer| bearer.is_over(context.clock().now())) {
            return;
        }
        if let Who::Issued(bearer) = &context.caller.who
            && !bearer.holds(&now.issuers, context.clock().now())
        {
            return;
        }
    }
}

/// Resolves when the backend has taken back the token; never where there is none.
async fn taken_back(context: &Arc<Context>) {
    if !matches!(context.caller.who, Who::Token(_)) {
        return std::future::pending().await;
    }
    let mut pause = JUDGE_AGAIN;
    loop {
        tokio::time::sleep(context.clock().jitter(pause)).await;
        pause = match Box::pin(review::is_taken_back(context)).await {
            Ok(true) => return,
            Ok(false) => JUDGE_AGAIN,
            Err(_) => JUDGE_SOON,
        };
    }
}

/// Resolves when one of the certificates, or the token, may have come to the end of its time; never where neither has one.
async fn end_of(context: &Context, certificates: Option<&Certificates>) {
    let clock = context.clock();
    if let Who::Issued(bearer) = &context.caller.who {
        let left = bearer.left(clock.now());
        return tokio::time::sleep((left + BEHIND_THE_END).min(LOOK_AGAIN)).await;
    }
    let left = match (certificates, context.entry.bearer()) {
        (Some(certificates), _) => certificates.until_next_end(clock).unwrap_or(LOOK_AGAIN),
        (None, Some(bearer)) => bearer.left(clock.now()).unwrap_or(LOOK_AGAIN),
        (None, None) => return std::future::pending().await,
    };
    tokio::time::sleep((left + BEHIND_THE_END).min(LOOK_AGAIN)).await;
}
