//! What is refused to a tenant that takes too much of the memory when that runs out ([`crate::tenant::memory`]).
//!
//! Promises: deletions, reads of single objects and of what an API server says of itself always pass, so that whoever is
//! refused can make room and look; what has begun goes on. Must not know who is refused, or why.

use http::Method;

use super::api::RequestInfo;
use super::tenants::TenantState;
use crate::error::status::Status;
use crate::error::{Error, Result, Side};

/// Seconds: the measurement is once a second, and memory comes back within ten.
const COME_AGAIN: u32 = 10;

/// 429 when the tenant is refused and the request takes memory.
pub(super) fn check(state: &TenantState, info: &RequestInfo, method: &Method) -> Result<()> {
    if !state.account.is_refused() || !takes_memory(info, method) {
        return Ok(());
    }
    state.metrics.refused_memory();
    let message = "this cluster takes too much of the gateway's memory at the moment: deletions and reads of single \
                   objects pass, please try others again later";
    Err(Error::from_status(Side::Client, Status::failure(429, "TooManyRequests", message).retry_after(COME_AGAIN)))
}

/// What has a body, a long answer, or stays.
fn takes_memory(info: &RequestInfo, method: &Method) -> bool {
    if info.is_long_running() {
        return true;
    }
    match info.verb {
        "delete" | "deletecollection" => false,
        "list" => true,
        _ => !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_memory() {
        let takes = |method: Method, path: &str, query: Option<&str>| {
            takes_memory(&RequestInfo::parse(&method, path, query).expect("a request"), &method)
        };
        for path in ["/livez", "/version", "/apis", "/openapi/v3", "/api/v1/namespaces/a/pods/b"] {
            assert!(!takes(Method::GET, path, None), "{path}");
        }
        let (pods, pod) = ("/api/v1/namespaces/a/pods", "/api/v1/namespaces/a/pods/b");
        assert!(!takes(Method::DELETE, pod, None) && !takes(Method::DELETE, pods, None));
        assert!(takes(Method::GET, pods, None) && takes(Method::GET, pods, Some("watch=1")));
        assert!(takes(Method::POST, pods, None) && takes(Method::PATCH, pod, None) && takes(Method::PUT, pod, None));
        for stream in ["exec", "log", "portforward", "attach"] {
            assert!(takes(Method::GET, &format!("{pod}/{stream}"), None), "{stream}");
        }
    }
}
