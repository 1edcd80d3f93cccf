//! Whether the caller may: the backend's answer, given for the caller's own credentials and impersonation.

use http::Method;
use serde_json::json;

use super::stream::Stream;
use crate::error::{Error, Kind, Result};
use crate::gateway::context::Context;
use crate::gateway::review::{self, Decision, Refused};

/// `create` for exec, attach and port-forward in every protocol, as API servers of 1.35 and later ask, and `get` too
/// when the method is GET, as the earlier ones do: stricter than an old backend, equal to a new one.
pub(super) async fn check(context: &Context, stream: Stream, method: &Method) -> Result<()> {
    let verbs: &[&str] = match (stream, method) {
        (Stream::Log, _) => &["get"],
        (_, &Method::GET) => &["get", "create"],
        _ => &["create"],
    };
    let asked = verbs.iter().map(|verb| Box::pin(allowed(context, stream, verb)));
    let answers = tokio::time::timeout(review::DEADLINE, futures::future::try_join_all(asked))
        .await
        .map_err(|_| Error::backend(Kind::Timeout, "the cluster's API server did not authorize in time"))??;
    match answers.into_iter().zip(verbs).find(|(answer, _)| !answer.allowed) {
        None => Ok(()),
        Some((answer, verb)) => {
            let (namespace, name) = (Some(context.info.namespace.as_str()), context.info.name.as_str());
            let refused = Refused { verb, resource: "pods", subresource: stream.subresource(), namespace, name };
            Err(refused.error(context, &answer.reason).await)
        }
    }
}

async fn allowed(context: &Context, stream: Stream, verb: &str) -> Result<Decision> {
    let attributes = json!({
        "namespace": context.info.namespace,
        "verb": verb,
        "group": "",
        "version": "v1",
        "resource": "pods",
        "subresource": stream.subresource(),
        "name": context.info.name,
    });
    review::access(context, &attributes).await
}
