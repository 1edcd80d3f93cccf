//! Virtual clusters scraped from outside: one page for each of them, one for all, and where to find them.
//!
//! A page's way: door (who may) → kept (shared with who asked a moment ago, by flights) → asking (who when) → ask (the API
//! server, bounded) → gather (series that are listed, added up) → shown (text, family by family) → page (all of it, as it is
//! read). Promises: nobody is asked
//! while nobody scrapes; names, types and the order of a page are Portico's and the configuration's, never a tenant's word;
//! what one tenant sends, or does not send, costs the others' part of a page nothing but its seat for a moment
//! (docs/adr/0019).

pub(super) mod door;
pub(super) mod fleet;
pub(super) mod kept;
pub(super) mod own_page;
pub(super) mod page;

mod ask;
mod asking;
mod catalog;
pub(super) mod counts;
mod flights;
mod gather;
mod lines;
#[cfg(test)]
pub(super) mod listed;
mod own;
mod pods;
mod shown;
mod targets;
#[cfg(test)]
mod tests;
