//! Whether the API server that answers has the store that the tenant's pods were made from.
//!
//! A control plane that lost its store comes back empty. To believe its list would take every name from pods that still
//! run.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::kubernetes::{ApiClient, resources};
use crate::runtime::clock::Clock;

/// Its uid is the store's: it is made once, with the store, and cannot be deleted.
const NAMESPACE: &str = "kube-system";
const DEADLINE: Duration = Duration::from_secs(30);
/// Of one namespace; etcd's own limit is less.
const LARGEST: usize = 4 << 20;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What is expected, for all followers of one tenant.
#[derive(Debug)]
pub(super) struct Store {
    /// None: any.
    expected: Option<String>,
    said: AtomicBool,
}

#[derive(Deserialize)]
struct Namespace {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
}

impl Store {
    /// The store of this uid, or any.
    pub(super) fn new(expected: Option<String>) -> Self {
        Self { expected, said: AtomicBool::new(false) }
    }

    /// Waits until the expected store answers; at once when any will do.
    pub(super) async fn wait_for(&self, api: &ApiClient, clock: &Clock) -> Result<()> {
        self.wait(clock, || uid(api)).await
    }

    /// An error when another store answers by now: what it listed takes no name away.
    pub(super) async fn confirm(&self, api: &ApiClient) -> Result<()> {
        match &self.expected {
            Some(expected) if uid(api).await?.as_ref() != Some(expected) => {
                Err(Error::backend(Kind::Conflict, "another store came up behind the list"))
            }
            _ => Ok(()),
        }
    }

    async fn wait<F: Future<Output = Result<Option<String>>>>(&self, clock: &Clock, ask: impl Fn() -> F) -> Result<()> {
        let Some(expected) = &self.expected else { return Ok(()) };
        let mut wait = FIRST_WAIT;
        loop {
            let found = ask().await?;
            if found.as_ref() == Some(expected) {
                self.said.store(false, Ordering::Relaxed);
                return Ok(());
            }
            if !self.said.swap(true, Ordering::Relaxed) {
                let found = found.as_deref().unwrap_or("none").chars().take(64).collect::<String>();
                tracing::info!(%expected, %found, "another store answers: tenant DNS keeps the names it has");
            }
            tokio::time::sleep(clock.jitter(wait)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

/// The uid of the store that answers; none while it has no such namespace yet.
async fn uid(api: &ApiClient) -> Result<Option<String>> {
    let path = resources::NAMESPACES.path(None, Some(NAMESPACE), None);
    let bytes = match api.get_bounded(&path, DEADLINE, LARGEST).await {
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        outcome => outcome?,
    };
    let broken = |e| Error::new(api.side(), Kind::Protocol, "the namespace kube-system cannot be read").because(e);
    serde_json::from_slice::<Namespace>(&bytes).map(|namespace| Some(namespace.metadata.uid)).map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Answers that come one after the other, and how many were asked for.
    async fn asked(expected: Option<&str>, answers: &[Option<&str>]) -> (Result<()>, usize) {
        let store = Store::new(expected.map(str::to_owned));
        let count = Cell::new(0);
        let ask = || {
            let answer = answers[count.get()].map(str::to_owned);
            count.set(count.get() + 1);
            std::future::ready(Ok(answer))
        };
        (store.wait(&Clock::system(), ask).await, count.get())
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_expected_store_is_listed_from() {
        assert!(matches!(asked(None, &[]).await, (Ok(()), 0)), "nothing is asked");
        assert!(matches!(asked(Some("a"), &[Some("a")]).await, (Ok(()), 1)));
        let answers = [Some("b"), None, Some("c"), Some("b"), Some("b"), Some("b"), Some("b"), Some("a")];
        assert!(matches!(asked(Some("a"), &answers).await, (Ok(()), 8)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_fails_is_the_callers_to_wait_for() {
        let store = Store::new(Some("a".to_owned()));
        let failing = || std::future::ready(Err(Error::backend(Kind::Unavailable, "away")));
        assert!(store.wait(&Clock::system(), failing).await.is_err());
    }
}
