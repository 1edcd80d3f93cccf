//! Who calls: identities from client certificates, how they are asserted to a backend, and which headers nobody
//! outside may send.
//!
//! Pure. Promises: what [`clean`] leaves holds no identity that we did not add, whatever its spelling; an identity that
//! cannot be written into headers exactly is refused, never altered. Must not know connections or tenants.

mod certificate;
mod headers;
#[cfg(test)]
mod tests;
mod user;

pub use certificate::end_of_validity;
pub use headers::{Cleaned, Credentials, clean, clean_response, credentials};
pub use user::Identity;
