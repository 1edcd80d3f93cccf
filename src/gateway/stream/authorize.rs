//! Whether the caller may: the backend's answer, given for the caller's own credentials and impersonation.

use std::time::Duration;

use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};

use super::Stream;
use crate::error::{Error, Kind, Result, Side};
use crate::gateway::context::{Context, Who};
use crate::identity::Identity;
use crate::status::Status;
use crate::upstream;
use crate::upstream::resources::SUBJECT_REVIEWS;

const DEADLINE: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 1 << 20;
const SELF_REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const WHO_AM_I: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// `create` for exec, attach and port-forward in every protocol, as API servers of 1.35 and later ask, and `get` too
/// when the method is GET, as the earlier ones do: stricter than an old backend, equal to a new one.
pub(super) async fn check(context: &Context, stream: Stream, method: &Method) -> Result<()> {
    let verbs: &[&str] = match (stream, method) {
        (Stream::Log, _) => &["get"],
        (_, &Method::GET) => &["get", "create"],
        _ => &["create"],
    };
    let asked = verbs.iter().map(|verb| Box::pin(allowed(context, stream, verb)));
    let answers = tokio::time::timeout(DEADLINE, futures::future::try_join_all(asked))
        .await
        .map_err(|_| Error::backend(Kind::Timeout, "the cluster's API server did not authorize in time"))??;
    match answers.into_iter().zip(verbs).find(|(answer, _)| !answer.allowed) {
        None => Ok(()),
        Some((answer, verb)) => Err(forbidden(context, stream, verb, &answer.reason).await),
    }
}

struct Decision {
    allowed: bool,
    reason: String,
}

impl Decision {
    fn of(review: &Value) -> Self {
        let text = |key: &str| review.pointer(&format!("/status/{key}")).and_then(Value::as_str).unwrap_or_default();
        let allowed = review.pointer("/status/allowed").and_then(Value::as_bool).unwrap_or_default();
        Self { allowed, reason: text("reason").to_owned() }
    }
}

/// Asked as the caller, so certificate, token, anonymity and impersonation are judged where they are always judged.
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
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    });
    match ask(context, SELF_REVIEWS, &review).await {
        Ok(answer) => Ok(Decision::of(&answer)),
        // Who may not even ask (anonymous, or `system:basic-user` was taken away) is asked for.
        Err(error) if error.kind() == Kind::Forbidden && context.caller.impersonate.is_empty() => {
            match subject(context) {
                Some(identity) => allowed_for(context, &identity, &attributes).await,
                None => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

async fn allowed_for(context: &Context, identity: &Identity, attributes: &Value) -> Result<Decision> {
    let extra: serde_json::Map<String, Value> =
        identity.extra.iter().map(|(key, values)| (key.clone(), json!(values))).collect();
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": identity.user, "groups": identity.groups, "uid": identity.uid, "extra": extra,
            "resourceAttributes": attributes,
        },
    });
    let answer = context.tenant.api.create(&SUBJECT_REVIEWS, None, &review).await?;
    Ok(Decision::of(&answer))
}

/// The caller as the backend knows it, where the gateway knows it too.
fn subject(context: &Context) -> Option<Identity> {
    match &context.caller.who {
        Who::Certificate(identity) => {
            let mut identity = identity.clone();
            let all = "system:authenticated";
            if identity.user != "system:anonymous" && !identity.groups.iter().any(|g| g == all) {
                identity.groups.push(all.to_owned());
            }
            Some(identity)
        }
        Who::Anonymous => Some(Identity::anonymous()),
        Who::Token(_) => None,
    }
}

async fn ask(context: &Context, path: &'static str, object: &Value) -> Result<Value> {
    let mut request = Request::new(upstream::Body::full(object.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json.clone());
    request.headers_mut().insert(header::ACCEPT, json);
    let response = context.ask_backend(request, DEADLINE).await?;
    let code = response.status();
    let bytes = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|e| Error::backend(Kind::Closed, "the cluster's API server broke off").because(e))?
        .to_bytes();
    if code.is_success() {
        return serde_json::from_slice(&bytes)
            .map_err(|e| Error::backend(Kind::Protocol, "a review cannot be read").because(e));
    }
    let mut status = serde_json::from_slice::<Status>(&bytes)
        .unwrap_or_else(|_| Status::failure(code.as_u16(), "", String::from_utf8_lossy(&bytes).trim()));
    status.code = code.as_u16();
    if status.status.is_empty() {
        "Failure".clone_into(&mut status.status);
    }
    Err(Error::from_status(Side::Backend, status))
}

/// The refusal in Kubernetes' own words.
async fn forbidden(context: &Context, stream: Stream, verb: &str, reason: &str) -> Error {
    let (namespace, name) = (&context.info.namespace, &context.info.name);
    let user = user_name(context).await;
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

async fn user_name(context: &Context) -> String {
    if let Some(user) = context.caller.impersonate.get("impersonate-user").and_then(|v| v.to_str().ok()) {
        return user.to_owned();
    }
    match &context.caller.who {
        Who::Certificate(identity) => identity.user.clone(),
        Who::Anonymous => Identity::anonymous().user,
        Who::Token(_) => {
            let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
            let answer = Box::pin(ask(context, WHO_AM_I, &review)).await.unwrap_or_default();
            answer.pointer("/status/userInfo/username").and_then(Value::as_str).unwrap_or_default().to_owned()
        }
    }
}
