//! Whether the caller may: the backend's answer, given for the caller's own credentials and impersonation.

use http::Method;
use serde_json::json;

use super::stream::Stream;
use crate::error::status::Status;
use crate::error::{Error, Kind, Result, Side};
use crate::gateway::context::Context;
use crate::gateway::review::{self, Decision};

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
        Some((answer, verb)) => Err(forbidden(context, stream, verb, &answer.reason).await),
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

/// The refusal in Kubernetes' own words.
async fn forbidden(context: &Context, stream: Stream, verb: &str, reason: &str) -> Error {
    let (namespace, name) = (&context.info.namespace, &context.info.name);
    let user = review::user_name(context).await;
    let resource = stream.subresource();
    let mut message = format!(
        "pods \"{name}\" is forbidden: User \"{user}\" cannot {verb} resource \"pods/{resource}\" in API group \"\" \
         in the namespace \"{namespace}\""
    );
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    let status = Status::failure(403, "Forbidden", message).about("", "pods", name);
    Error::from_status(Side::Client, status)
}
