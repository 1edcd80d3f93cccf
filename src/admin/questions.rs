//! Questions to the host about scrapers' tokens.
//!
//! Promises: a question is asked to its end, and where its bearer may not costs a second, whether he waits for it or not;
//! tokens that were not accepted lately have a bounded number of questions at a time, one address few of them, so whoever
//! closes connections at once has the host asked no more often; a token that was accepted lately waits for no place. Must not
//! know what is shown.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::kubernetes::{Reviews, Verdict};
use crate::runtime::source::source;
use crate::runtime::task::{self, Task};

/// Of tokens that were not accepted lately.
const STRANGERS: usize = 8;
/// Of them about tokens from one address.
const OF_ONE: usize = 2;
/// What a refusal costs: so many questions to the host strangers can cause.
const REFUSAL: Duration = Duration::from_secs(1);

/// What became of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The host's judgement.
    Judged(Verdict),
    /// The host could not be asked.
    Failed,
    /// As many strangers are judged as may be.
    Full,
}

/// Those under way.
#[derive(Debug)]
pub(super) struct Questions {
    reviews: Arc<Reviews>,
    path: &'static str,
    /// One for each token: of strangers as many as they have places, of others as many as are remembered.
    flights: Mutex<Vec<Flight>>,
    strangers: Strangers,
}

/// One question, for all who show the token meanwhile.
#[derive(Debug)]
struct Flight {
    token: [u8; 32],
    told: watch::Receiver<Option<Outcome>>,
    task: Task,
}

/// From where each stranger comes who has a place.
#[derive(Debug, Clone, Default)]
struct Strangers(Arc<Mutex<Vec<IpAddr>>>);

/// A place, given back when dropped.
struct Place {
    of: Strangers,
    source: IpAddr,
}

impl Questions {
    /// About this path.
    pub(super) fn new(reviews: Reviews, path: &'static str) -> Self {
        Self { reviews: Arc::new(reviews), path, flights: Mutex::default(), strangers: Strangers::default() }
    }

    /// Whether the bearer of this token may, as the host judges.
    pub(super) async fn judge(&self, token: &str, peer: IpAddr) -> Outcome {
        let Some(mut told) = self.flight(token, peer) else { return Outcome::Full };
        let outcome = told.wait_for(Option::is_some).await.ok().and_then(|outcome| *outcome);
        // Without an outcome it panicked.
        outcome.unwrap_or(Outcome::Failed)
    }

    /// The question about a token: the one under way, or a new one.
    fn flight(&self, token: &str, peer: IpAddr) -> Option<watch::Receiver<Option<Outcome>>> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut flights = self.flights.lock();
        flights.retain(|flight| !flight.task.is_finished());
        if let Some(flight) = flights.iter().find(|flight| flight.token == digest) {
            return Some(flight.told.clone());
        }
        let is_known = self.reviews.was_accepted(token, &[self.path]);
        let place = if is_known { None } else { Some(self.strangers.enter(source(peer))?) };
        let (tell, told) = watch::channel(None);
        let (reviews, token, path) = (Arc::clone(&self.reviews), token.to_owned(), self.path);
        let task = task::spawn("judging of a scraper", async move {
            let outcome = match reviews.judge(&token, &[path]).await {
                Ok(verdict) => Outcome::Judged(verdict),
                Err(error) => {
                    tracing::warn!(%error, "a scraper's token cannot be judged");
                    Outcome::Failed
                }
            };
            if outcome != Outcome::Judged(Verdict::Allowed) {
                tokio::time::sleep(REFUSAL).await;
            }
            drop(place);
            // Nobody may be waiting any more.
            tell.send_replace(Some(outcome));
        });
        flights.push(Flight { token: digest, told: told.clone(), task });
        Some(told)
    }
}

impl Strangers {
    fn enter(&self, source: IpAddr) -> Option<Place> {
        let mut taken = self.0.lock();
        let own = taken.iter().filter(|other| **other == source).count();
        if taken.len() >= STRANGERS || own >= OF_ONE {
            return None;
        }
        taken.push(source);
        Some(Place { of: self.clone(), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.0.lock();
        if let Some(at) = taken.iter().position(|source| *source == self.source) {
            taken.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_few_and_one_address_has_few_of_them() {
        let strangers = Strangers::default();
        let from = |text: &str| source(text.parse().expect("an address"));
        let mut taken: Vec<Place> = (0..OF_ONE).filter_map(|_| strangers.enter(from("2001:db8::1"))).collect();
        assert!(strangers.enter(from("2001:db8::2")).is_none(), "the same host's network");
        assert!(strangers.enter(from("10.0.0.1")).is_some());
        assert_eq!(from("::ffff:10.0.0.1"), from("10.0.0.1"));
        taken.extend((OF_ONE..STRANGERS).filter_map(|n| strangers.enter(from(&format!("10.0.1.{n}")))));
        assert_eq!(taken.len(), STRANGERS);
        assert!(strangers.enter(from("10.0.0.1")).is_none(), "all are taken");
        taken.pop();
        assert!(strangers.enter(from("10.0.0.1")).is_some());
    }
}
