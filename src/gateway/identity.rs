//! Who calls: identities from client certificates and ServiceAccounts' tokens, how they are asserted to a backend, and which
//! headers nobody outside may send.
//!
//! Pure. Promises: what [`clean`] leaves holds no identity that we did not add, whatever its spelling; an identity that
//! cannot be written into headers exactly is refused, never altered. Must not know connections or tenants.

mod certificate;
mod headers;
mod keys;
#[cfg(test)]
#[path = "../../tests/support/tokens.rs"]
pub(crate) mod signed;
#[cfg(test)]
mod tests;
mod token;
mod user;

pub use certificate::end_of_validity;
pub use headers::{Cleaned, Credentials, clean, clean_response, credentials};
pub use keys::{Keys, LONGEST_DOCUMENT, Signed};
pub use token::{Bearer, Fault, Judgement, Token};
pub use user::Identity;
