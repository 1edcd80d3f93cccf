//! Panics over single objects: what one tenant wrote must not end the work for its others, nor for other tenants.
//!
//! Promises: who panics over an object changes nothing that is known of it; it is said, with what it was about.

use std::panic::AssertUnwindSafe;

use serde_json::Value;

use crate::syncer::cache::text;

/// What `work` made of an object, or None when it panicked.
pub fn caught<T>(
    what: &'static str,
    kind: &'static str,
    name: impl FnOnce() -> String,
    work: impl FnOnce() -> T,
) -> Option<T> {
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(work));
    if outcome.is_err() {
        let object = name();
        tracing::error!(kind, object, "{what} panicked; what is known of the object stays. Please report this");
    }
    outcome.ok()
}

/// Name of an object, for what is said of it.
pub fn name(object: &Value) -> String {
    format!("{}/{}", text(object, "namespace"), text(object, "name"))
}
