//! A running watch.

use std::collections::VecDeque;
use std::time::Duration;

use futures::future::BoxFuture;
use portico::error::{Kind, Result, Side};
use portico::kubernetes::api::Events;
use portico::kubernetes::{ListOptions, WatchEvent};
use serde_json::Value;
use tokio::sync::watch;

use super::{Link, Server, State};

pub(super) fn applied(object: &Value) -> WatchEvent {
    WatchEvent::Applied(serde_json::to_vec(object).expect("json").into())
}

pub(super) struct Stream {
    pub(super) server: Server,
    pub(super) moved: watch::Receiver<u64>,
    pub(super) plural: &'static str,
    pub(super) namespace: Option<String>,
    pub(super) options: ListOptions,
    pub(super) position: u64,
    pub(super) life: u64,
    pub(super) cut: u64,
    pub(super) ready: VecDeque<WatchEvent>,
}

impl Events for Stream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<WatchEvent>>> {
        Box::pin(async move {
            loop {
                if let Some(event) = self.ready.pop_front() {
                    return Ok(Some(event));
                }
                self.moved.mark_unchanged();
                if !self.read()? {
                    return Ok(None);
                }
                if !self.ready.is_empty() {
                    self.misfortune().await?;
                    continue;
                }
                tokio::select! {
                    biased;
                    _ = self.moved.changed() => {}
                    () = tokio::time::sleep(Duration::from_secs(60)) => {
                        if *self.server.link.borrow() == Link::Silent {
                            continue;
                        }
                        let resource_version = self.position.to_string();
                        self.ready.push_back(WatchEvent::Bookmark { resource_version, initial_events_end: false });
                    }
                }
            }
        })
    }
}

impl Stream {
    /// False when the watch has ended in good order.
    fn read(&mut self) -> Result<bool> {
        match *self.server.link.borrow() {
            Link::Up => {}
            Link::Refused => return self.server.fail(Kind::Closed, "the connection broke"),
            Link::Silent => return Ok(true),
        }
        let mut state = self.server.state.lock();
        let state = &mut *state;
        if state.life != self.life {
            return self.server.fail(Kind::Closed, "the server went away");
        }
        if state.cut != self.cut {
            return if state.orders.polite {
                Ok(false)
            } else {
                self.server.fail(Kind::Closed, "the connection broke")
            };
        }
        if self.position < state.compacted || state.orders.short {
            return self.server.fail(Kind::Gone, "too old");
        }
        for change in state.log.iter().filter(|c| c.version > self.position) {
            let namespace = self.namespace.as_deref();
            if State::matches(&change.key, &change.object, self.plural, namespace, &self.options) {
                if state.orders.lost > 0 {
                    state.orders.lost -= 1;
                    continue;
                }
                let event = if change.deleted {
                    WatchEvent::Deleted(serde_json::to_vec(&change.object).expect("json").into())
                } else {
                    applied(&change.object)
                };
                if state.orders.repeats {
                    self.ready.push_back(event.clone());
                }
                self.ready.push_back(event);
            }
        }
        self.position = state.version;
        Ok(true)
    }

    /// Late, lost, repeated, or the end.
    async fn misfortune(&mut self) -> Result<()> {
        let faults = &self.server.faults;
        faults.latency().await;
        let lag = *faults.lag.lock();
        if self.server.side == Side::Host && !lag.is_zero() {
            tokio::time::sleep(lag).await;
        }
        if faults.strikes(40) {
            self.ready.pop_front();
        }
        if faults.strikes(20)
            && let Some(event) = self.ready.front().cloned()
        {
            self.ready.push_back(event);
        }
        if faults.strikes(20) {
            return self.server.fail(Kind::Closed, "the connection broke");
        }
        if faults.strikes(5) {
            return self.server.fail(Kind::Gone, "too old");
        }
        Ok(())
    }
}
