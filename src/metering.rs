//! Metering: what virtual clusters use is measured, kept, and summed over replicas and restarts (ADR 21).
//!
//! The way of a number, top-down: `meter` (on the replica that syncs: pods, claims) and the gateway add to the tenants' tabs →
//! `journal` (each replica: one record for each hour, written again while the hour lasts) → `books` (the replica that syncs:
//! records of past hours go into the book of their day). Whoever asks adds the books and the records that are in none.
//!
//! Promises: all of it is in ConfigMaps of Portico's own namespace; a replica that is killed loses what it has not written, an
//! interval's worth; nothing is counted twice, whoever fails or leads when; what is kept is bounded in bytes and in days.

mod books;
mod claims;
mod journal;
mod meter;
mod network;
mod parts;
mod stored;
#[cfg(test)]
mod tests;

pub use self::journal::Journal;
pub use self::parts::{Metered, Parts, Sources, Tenants};
pub use self::stored::{Book, DAY, KIND, Record, kinds};
use crate::runtime::drain::Drain;

/// Measures, and keeps the books. On one replica at a time; two of them at once would measure twice, and keep the books right
/// all the same.
pub async fn lead(parts: Parts, sources: Sources, drain: Drain) {
    let books = books::Books::new(&parts);
    tokio::join!(meter::run(parts, sources, drain.clone()), books.run(drain));
}
