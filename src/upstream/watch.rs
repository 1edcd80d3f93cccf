//! One watch: lines of JSON from an API server, one event at a time, nothing buffered beyond the current line.

use bytes::Bytes;

use crate::error::Result;

/// One line of a watch, still unparsed: the syncer projects it as it parses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// ADDED or MODIFIED: the whole object's JSON.
    Applied(Bytes),
    /// DELETED: the last known object's JSON.
    Deleted(Bytes),
    /// BOOKMARK: only a resourceVersion (and whether it ends the initial list of `sendInitialEvents`).
    Bookmark {
        /// Where to go on from.
        resource_version: String,
        /// `k8s.io/initial-events-end` was annotated.
        initial_events_end: bool,
    },
}

/// A running watch; dropped means cancelled.
#[derive(Debug)]
pub struct WatchStream {
    _private: (),
}

impl WatchStream {
    /// The next event; `Ok(None)` when the server ended the watch in good order. An ERROR event becomes an `Err`
    /// whose kind is [`crate::error::Kind::Gone`] for 410 (list again).
    pub async fn next(&mut self) -> Result<Option<WatchEvent>> {
        Ok(None)
    }
}
