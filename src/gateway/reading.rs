//! How an answer is read: what of it waits for its reader, and the end of an answer of which nothing is taken.
//!
//! hyper does not ask a body again while its reader's window is shut, so no body can notice that. What is handed to hyper is
//! therefore counted until it is written, and whoever drives the answer looks at these counts.
//!
//! Promises: an answer ends only when bytes of it waited and none was taken for the whole time that it had; what the
//! request holds (its seat) is held until the last byte is written, though its account is closed by then; a frame costs a
//! few counters; a timer is armed once for each period, and on h2 only while something waits. Must not know requests.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use tokio::time::Sleep;

use super::limits::Seat;
use super::places::Place;
use crate::tenant::memory::Account;
use crate::upstream;

/// Watches and logs have so many times the patience of other answers: there may be a person behind them who stopped his
/// terminal, and a log that ends cannot be taken up again where it was.
const LONG_RUNNING: u32 = 10;

/// What the API server may send meanwhile counts as waiting on the tenant's account, since it is not asked for and cannot be seen.
const BEHIND: usize = upstream::STREAM_WINDOW as usize;
const LONG_BEHIND: usize = upstream::LONG_STREAM_WINDOW as usize;

tokio::task_local! {
    /// Of the h2 stream that is driven.
    static CURRENT: Arc<Reading>;
}

/// One answer.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Bytes that hyper has and that are not written.
    waiting: AtomicUsize,
    /// How often something was taken.
    taken: AtomicU64,
    is_long_running: AtomicBool,
    /// The request's account is closed; what it holds goes with the last byte.
    is_closed: AtomicBool,
    was_ended: AtomicBool,
    hold: Mutex<Option<Hold>>,
    /// Where what waits is counted as well.
    account: OnceLock<Arc<Account>>,
}

/// What a request holds until the last byte of its answer is written.
#[derive(Debug)]
pub(super) enum Hold {
    /// A seat of its tenant.
    Seat(#[expect(dead_code, reason = "released by its drop")] Seat),
    /// A place among the callers whom nobody knows yet.
    Place(#[expect(dead_code, reason = "released by its drop")] Place),
}

/// Bytes of an answer on their way through hyper.
#[derive(Debug)]
pub struct Piece {
    bytes: Bytes,
    reading: Option<Arc<Reading>>,
}

/// What was seen of an answer when somebody looked last.
#[derive(Debug, Default)]
struct Look {
    taken: u64,
    /// Something waited then.
    waited: bool,
    /// How often in a row nothing had been taken of what waits.
    still: u32,
}

/// Drives the streams of h2 connections, and ends those whose answers stand still: a stream that is dropped is reset with
/// CANCEL, and what waits in it is let go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams {
    pub(super) patience: Duration,
}

impl Reading {
    /// Of the stream that this runs in.
    pub(super) fn current() -> Arc<Self> {
        CURRENT.try_with(Arc::clone).unwrap_or_default()
    }

    /// Bytes that hyper takes now.
    pub(super) fn hand(self: &Arc<Self>, bytes: Bytes) -> Piece {
        if bytes.is_empty() {
            return Piece::loose(bytes);
        }
        let before = self.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        if let Some(account) = self.account.get() {
            account.take(bytes.len() + if before == 0 { self.behind() } else { 0 });
        }
        Piece { bytes, reading: Some(Arc::clone(self)) }
    }

    /// Says what it is, before there is an answer.
    pub(super) fn may_take_long(&self, is_long_running: bool) {
        self.is_long_running.store(is_long_running, Ordering::Relaxed);
    }

    /// Says whose it is, before there is an answer, and only where the caller is known: strangers could have any tenant
    /// refused by what they leave unread.
    pub(super) fn is_of(&self, account: &Arc<Account>) {
        self.account.get_or_init(|| Arc::clone(account));
    }

    /// The account of its request is closed: what that holds is let go, now or with the last byte.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) == 0 {
            self.let_go();
        }
    }

    /// What its request holds; put in and taken out by the request's account.
    pub(super) fn hold(&self) -> &Mutex<Option<Hold>> {
        &self.hold
    }

    /// Whether it was ended here because nothing was taken.
    pub(super) fn was_ended(&self) -> bool {
        self.was_ended.load(Ordering::Relaxed)
    }

    fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    fn gone(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        // In one order with `close`: one of both sees what the other did.
        let is_last = self.waiting.fetch_sub(bytes, Ordering::SeqCst) == bytes;
        if is_last && self.is_closed.load(Ordering::SeqCst) {
            self.let_go();
        }
        if let Some(account) = self.account.get() {
            account.give_back(bytes + if is_last { self.behind() } else { 0 });
        }
    }

    /// What it is does not change while it is answered.
    fn behind(&self) -> usize {
        if self.is_long_running.load(Ordering::Relaxed) { LONG_BEHIND } else { BEHIND }
    }

    fn let_go(&self) {
        let hold = self.hold.lock().take();
        drop(hold);
    }
}

impl Piece {
    /// Of an answer that nobody accounts for.
    pub(super) fn loose(bytes: Bytes) -> Self {
        Self { bytes, reading: None }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(reading) = &self.reading
            && count > 0
        {
            reading.taken.fetch_add(1, Ordering::Relaxed);
            reading.gone(count);
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            reading.gone(self.bytes.len());
        }
    }
}

impl Look {
    /// Looks for the first time in a while, at what waits.
    fn begin(&mut self, reading: &Reading) {
        (self.taken, self.waited) = (reading.taken.load(Ordering::Relaxed), true);
    }

    /// Looks again, one period later. Whether it is over: something waited at each of so many looks, and as nothing was
    /// taken between them, all the time.
    fn again(&mut self, reading: &Reading) -> bool {
        let (taken, waits) = (reading.taken.load(Ordering::Relaxed), reading.is_waiting());
        self.still = if self.waited && waits && taken == self.taken { self.still + 1 } else { 0 };
        (self.taken, self.waited) = (taken, waits);
        let most = if reading.is_long_running.load(Ordering::Relaxed) { LONG_RUNNING } else { 1 };
        let is_over = self.still >= most;
        if is_over {
            reading.was_ended.store(true, Ordering::Relaxed);
        }
        is_over
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let (reading, patience) = (Arc::<Reading>::default(), self.patience);
        let driven = Box::pin(CURRENT.scope(Arc::clone(&reading), stream));
        TokioExecutor::new().execute(while_taken(driven, reading, patience));
    }
}

/// Drives a stream to its end, or until its answer stands still. No `async`: that would hold the stream three times over.
fn while_taken(
    mut stream: Pin<Box<impl Future<Output = ()>>>,
    reading: Arc<Reading>,
    patience: Duration,
) -> impl Future<Output = ()> {
    let mut period: Option<Pin<Box<Sleep>>> = None;
    let mut look = Look::default();
    poll_fn(move |context| {
        if stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        loop {
            if let Some(running) = &mut period {
                ready!(running.as_mut().poll(context));
                period = None;
                if look.again(&reading) {
                    return Poll::Ready(());
                }
            }
            if !reading.is_waiting() {
                return Poll::Pending;
            }
            look.begin(&reading);
            period = Some(Box::pin(tokio::time::sleep(patience)));
        }
    })
}

/// Resolves when the answer that is under way on an h1 connection stands still. It has no streams to reset, so the
/// connection is what must end.
pub(super) async fn stands_still(newest: &Mutex<Arc<Reading>>, patience: Duration) {
    let mut of = Arc::clone(&newest.lock());
    let mut look = Look::default();
    loop {
        tokio::time::sleep(patience).await;
        let now = Arc::clone(&newest.lock());
        if !Arc::ptr_eq(&of, &now) {
            (of, look) = (now, Look::default());
        }
        if look.again(&of) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn bytes(count: usize) -> Bytes {
        Bytes::from(vec![0; count])
    }

    /// A stream that never ends by itself.
    fn driven(reading: &Arc<Reading>) -> impl Future<Output = ()> {
        while_taken(Box::pin(std::future::pending()), Arc::clone(reading), PATIENCE)
    }

    /// Whether it is ended within so many periods.
    async fn is_ended(reading: &Arc<Reading>, periods: u32) -> bool {
        tokio::time::timeout(PATIENCE * periods + PATIENCE / 2, driven(reading)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_nothing_is_taken_of_what_waits() {
        let reading: Arc<Reading> = Arc::default();
        assert!(!is_ended(&reading, 100).await, "nothing waits");
        let piece = reading.hand(bytes(10));
        assert!(is_ended(&reading, 1).await && reading.was_ended());
        drop(piece);
        assert!(!reading.is_waiting());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_something_now_and_then_goes_on() {
        let reading: Arc<Reading> = Arc::default();
        let mut piece = reading.hand(bytes(100));
        let slow = async {
            for _ in 0..50 {
                tokio::time::sleep(PATIENCE - Duration::from_millis(1)).await;
                piece.advance(1);
            }
        };
        tokio::select! {
            () = slow => {}
            () = driven(&reading) => panic!("ended"),
        }
        assert!(!reading.was_ended());
        assert!(is_ended(&reading, 1).await, "and who stops then is ended all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn watches_and_logs_have_longer() {
        let reading: Arc<Reading> = Arc::default();
        reading.may_take_long(true);
        let piece = reading.hand(bytes(1));
        assert!(!is_ended(&reading, LONG_RUNNING - 1).await);
        assert!(is_ended(&reading, LONG_RUNNING).await);
        drop(piece);
    }

    #[tokio::test(start_paused = true)]
    async fn on_h1_each_answer_has_its_own_time() {
        let newest = Mutex::new(Arc::<Reading>::default());
        let piece = newest.lock().hand(bytes(1));
        let next = async {
            tokio::time::sleep(PATIENCE / 2).await;
            let next = Arc::<Reading>::default();
            let piece = next.hand(bytes(1));
            *newest.lock() = next;
            tokio::time::sleep(PATIENCE).await;
            piece
        };
        let (still, next) = (stands_still(&newest, PATIENCE), pin!(next));
        let mut still = pin!(still);
        let next = tokio::select! { biased; next = next => next, () = &mut still => panic!("ended too early") };
        still.await;
        drop((piece, next));
    }

    #[test]
    fn what_waits_is_on_the_tenants_account_until_it_is_written_or_let_go() {
        let (reading, account) = (Arc::<Reading>::default(), Arc::<Account>::default());
        reading.is_of(&account);
        let (mut first, second) = (reading.hand(bytes(10)), reading.hand(bytes(5)));
        drop(reading.hand(Bytes::new()));
        first.advance(4);
        assert_eq!((account.moving(), reading.taken.load(Ordering::Relaxed)), (BEHIND + 11, 1));
        first.advance(6);
        assert_eq!(account.moving(), BEHIND + 5);
        drop((first, second));
        assert_eq!((account.moving(), reading.is_waiting()), (0, false));
        reading.may_take_long(true);
        let watch = reading.hand(bytes(10));
        assert_eq!(account.moving(), LONG_BEHIND + 10, "less is sent ahead of it");
        drop(watch);
        assert_eq!(account.moving(), 0);
    }
}
