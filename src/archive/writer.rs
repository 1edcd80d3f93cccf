//! The thread that writes: events in their order, to the file and to the spool.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::counts::{Counts, Sink};
use super::rotated::Rotated;
use super::spool::Spool;
use crate::trail::{Event, Loss, Trail};

/// The trail is looked at again after this, whatever happens.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Where events wait rather than being lost, it is tried again so often.
const TRY_AGAIN: Duration = Duration::from_millis(100);

pub(super) struct Writer {
    pub(super) trail: Arc<Trail>,
    pub(super) counts: Arc<Counts>,
    pub(super) file: Option<Rotated>,
    pub(super) spool: Option<Arc<Spool>>,
}

impl Writer {
    /// Until the trail is closed and all of it is written. A panic loses what was about to be written, and nothing else.
    pub(super) fn run(mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            tracing::error!("the writer of the audit log panicked, and goes on");
            std::thread::sleep(TRY_AGAIN);
        }
    }

    fn work(&mut self) {
        loop {
            let trail = Arc::clone(&self.trail);
            let taken = trail.take(LOOK_AGAIN);
            let is_last = taken.is_last;
            if !taken.events.is_empty() {
                let held = Held { trail: &trail, events: &taken.events };
                self.write(held.events);
            }
            if let Some(spool) = &self.spool {
                self.trail.crowded(spool.is_crowded());
            }
            if is_last {
                return;
            }
        }
    }

    fn write(&mut self, events: &[Event]) {
        let lines: Vec<u8> = events.iter().flat_map(|event| event.line.iter().copied()).collect();
        let (trail, counts) = (&self.trail, &self.counts);
        if let Some(file) = &mut self.file {
            let mut add = || file.add(&lines).map_err(|error| error.to_string());
            if !until_done(trail, || counts.outcome(Sink::File, add())) {
                lost(events, Loss::File);
            }
        }
        if let Some(spool) = &self.spool {
            let add = || match spool.has_room(lines.len() as u64) {
                true => spool.add(events, &lines).map_err(|error| error.to_string()),
                false => Err("it is full".to_owned()),
            };
            if !until_done(trail, || counts.outcome(Sink::Spool, add())) {
                lost(events, Loss::Spool);
            }
        }
    }
}

/// What is written now. However that ends, it takes no more of what may wait.
struct Held<'a> {
    trail: &'a Trail,
    events: &'a [Event],
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.trail.done(self.events);
    }
}

fn lost(events: &[Event], why: Loss) {
    for event in events {
        event.tab.lost(why);
    }
}

/// Once, or where events wait again and again, until the process ends.
fn until_done(trail: &Trail, mut step: impl FnMut() -> bool) -> bool {
    loop {
        if step() {
            return true;
        }
        if !trail.blocks() || trail.is_closed() {
            return false;
        }
        std::thread::sleep(TRY_AGAIN);
    }
}
