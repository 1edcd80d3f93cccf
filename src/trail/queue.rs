//! Events that wait for the writer, in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::tab::Tab;
use crate::error::{Error, Kind};

/// A virtual cluster may have this part of it.
const PARTS: usize = 4;
/// Taken at once: events, and their bytes. The smallest file that there can be holds more.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 512 << 10;

/// One event of a virtual cluster.
#[derive(Debug)]
pub struct Event {
    /// Whose.
    pub tab: Arc<Tab>,
    /// With its end.
    pub line: Vec<u8>,
}

/// What the writer was given.
#[derive(Debug)]
pub struct Taken {
    /// In order.
    pub events: Vec<Event>,
    /// Nothing comes behind them.
    pub is_last: bool,
}

/// Why an event of a request would have no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The virtual cluster has too many.
    Own,
    /// Nothing can be written.
    All,
}

#[derive(Debug)]
pub(super) struct Queue {
    most: usize,
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    /// Of these, of those that are written now, and of what is promised.
    bytes: usize,
    /// Virtual clusters that have some of them.
    tabs: usize,
    is_closed: bool,
}

impl State {
    fn add(&mut self, tab: &Tab, bytes: usize) {
        self.bytes += bytes;
        if tab.waiting.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.tabs += 1;
        }
    }

    fn take_off(&mut self, tab: &Tab, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if tab.waiting.fetch_sub(bytes, Ordering::Relaxed) == bytes {
            self.tabs = self.tabs.saturating_sub(1);
        }
    }

    /// When all is full, whoever has less than an even part of a quarter more goes on: no number of others keeps him out, and what
    /// they have beyond the bound grows as the logarithm of their number.
    fn has_room(&self, tab: &Tab, bytes: usize, most: usize) -> Result<(), Full> {
        let own = tab.waiting.load(Ordering::Relaxed);
        if own + bytes > most / PARTS {
            return Err(Full::Own);
        }
        let tabs = self.tabs + usize::from(own == 0);
        if self.bytes + bytes > most && own + bytes > most / PARTS / tabs.max(1) {
            return Err(Full::All);
        }
        Ok(())
    }
}

impl Queue {
    pub(super) fn new(most: usize) -> Self {
        Self { most, state: Mutex::default(), ready: Condvar::new() }
    }

    pub(super) fn reserve(&self, tab: &Tab, bytes: usize) -> Result<(), Full> {
        let mut state = self.state.lock();
        state.has_room(tab, bytes, self.most)?;
        state.add(tab, bytes);
        Ok(())
    }

    pub(super) fn release(&self, tab: &Tab, bytes: usize) {
        self.state.lock().take_off(tab, bytes);
    }

    /// False when there is no room within `slack` times the whole.
    pub(super) fn push(&self, event: Event, slack: usize) -> bool {
        let mut state = self.state.lock();
        if state.is_closed || state.has_room(&event.tab, event.line.len(), self.most * slack).is_err() {
            return false;
        }
        state.add(&event.tab, event.line.len());
        state.events.push_back(event);
        drop(state);
        self.ready.notify_one();
        true
    }

    pub(super) fn take(&self, patience: Duration) -> Taken {
        let mut state = self.state.lock();
        if state.events.is_empty() && !state.is_closed {
            self.ready.wait_for(&mut state, patience);
        }
        let mut bytes = 0;
        let fits = state.events.iter().take(BATCH).take_while(|event| {
            bytes += event.line.len();
            bytes <= BATCH_BYTES
        });
        let number = fits.count();
        let events = state.events.drain(..number).collect();
        Taken { events, is_last: state.is_closed && state.events.is_empty() }
    }

    pub(super) fn done(&self, events: &[Event]) {
        let mut state = self.state.lock();
        for event in events {
            state.take_off(&event.tab, event.line.len());
        }
    }

    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.ready.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}

impl Full {
    /// As the client is told.
    pub fn error(self) -> Error {
        match self {
            Self::Own => Error::client(
                Kind::TooManyRequests,
                "this cluster makes more events for the audit log than are written, please try again later",
            ),
            Self::All => Error::own(
                Kind::Unavailable,
                "the audit log cannot be written, and this request would leave an event in it; please try again later",
            ),
        }
    }
}
