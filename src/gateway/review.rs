//! What the backend is asked in the caller's name: who he is, and whether he may.
//!
//! Promises: asked with the caller's own credentials, so certificate, token, anonymity and impersonation are judged where
//! they are always judged; an answer of more than a few kilobytes is none. Must not know what is done with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::authenticate::Who;
use super::buffer;
use super::context::Context;
use super::identity::Identity;
use crate::error::status::Status;
use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::resources::SUBJECT_REVIEWS;
use crate::upstream::{self, ResponseBody};

/// For one review.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// Until the second question about a token by which something is open.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Reviews name a user and a reason.
const LONGEST: usize = 64 << 10;
/// A SelfSubjectReview is some hundred bytes; of a longer one the rest is left.
const LONGEST_SELF: usize = 16 << 10;
const ACCESS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
/// Kubernetes before 1.28 does not know it and says 404, which tells as much: it authenticates first.
const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Whether somebody may.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Decision {
    pub(super) allowed: bool,
    pub(super) reason: String,
}

/// What is read of a review; the rest of it is not even kept.
#[derive(Deserialize)]
struct Review<T> {
    status: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WhoIAm {
    user_info: UserInfo,
}

#[derive(Deserialize)]
struct UserInfo {
    username: String,
}

/// Has the backend judge a token, unless it did so a moment ago: for whatever needs a seat or a buffer before the request
/// itself can be judged. 401 when it does not accept it. Of no concern to other callers.
pub(super) async fn token(context: &Context) -> Result<()> {
    // By its signature alone it may have been taken back.
    if !matches!(context.caller.who, Who::Token(_)) || context.entry.is_accepted() {
        return Ok(());
    }
    let response = ask(context, SELF, &who_am_i()).await?;
    let status = response.status();
    // Only its status counts, but a stream that is cut off costs more than one that is read.
    buffer::read_short(response.into_body(), LONGEST_SELF, DEADLINE).await;
    if context.entry.is_known() && status != StatusCode::UNAUTHORIZED && context.entry.is_accepted() {
        return Ok(());
    }
    Err(match status {
        StatusCode::UNAUTHORIZED => Error::client(Kind::Unauthorized, "the cluster does not accept this token"),
        status => Error::backend(Kind::Unavailable, format!("the API server says {status} when asked who calls")),
    })
}

/// Whether the backend takes a token back by which something is open. Asked once for all that is open by it, and once more before
/// anything ends: API servers say 401 for whatever keeps them from judging, as at their start.
pub(super) async fn is_taken_back(context: &Arc<Context>) -> Result<bool> {
    let Some((token, said)) = context.entry.taken_back() else { return Ok(false) };
    let ask = || {
        let context = Arc::clone(context);
        async move {
            if !is_refused(&context).await? {
                return Ok(false);
            }
            tokio::time::sleep(context.clock().jitter(ASK_AGAIN)).await;
            is_refused(&context).await
        }
    };
    said.get(token, context.clock(), ask).await.map(|is_taken_back| *is_taken_back)
}

/// By connections of now: those of the generation in which something was opened end a minute behind it.
async fn is_refused(context: &Context) -> Result<bool> {
    let (request, tenant) = (request(context, SELF, &who_am_i())?, &context.tenant);
    let snapshot = context.connection.gateway.registry.load();
    let Some(now) = snapshot.by_id(&tenant.id).filter(|now| now.uid == tenant.uid).map(Arc::clone) else {
        return Ok(false);
    };
    let response = now.backend.pool.send(context.class(false), request, DEADLINE).await?;
    let status = response.status();
    context.entry.judged(&Method::GET, status)?;
    buffer::read_short(response.into_body(), LONGEST_SELF, DEADLINE).await;
    Ok(status == StatusCode::UNAUTHORIZED)
}

/// Whether the caller may do what these `resourceAttributes` say.
pub(super) async fn access(context: &Context, attributes: &Value) -> Result<Decision> {
    allowed(context, json!({"resourceAttributes": attributes})).await
}

/// Whether the caller may do this with a path that names no resource.
pub(super) async fn nonresource(context: &Context, path: &str, verb: &str) -> Result<Decision> {
    allowed(context, json!({"nonResourceAttributes": {"path": path, "verb": verb}})).await
}

async fn allowed(context: &Context, spec: Value) -> Result<Decision> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": spec,
    });
    match answer(context, ACCESS, &review).await {
        Ok(answer) => parse(&answer),
        // Who may not even ask (anonymous, or `system:basic-user` was taken away) is asked for.
        Err(error) if error.kind() == Kind::Forbidden && context.caller.impersonate.is_empty() => {
            match subject(context) {
                Some(identity) => access_of(context, &identity, spec).await,
                None => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// What an API server refuses, in its own words.
pub(super) struct Refused<'a> {
    pub(super) verb: &'a str,
    /// `pods`, `nodes`.
    pub(super) resource: &'static str,
    pub(super) subresource: &'a str,
    /// `None`: at the cluster scope.
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
}

impl Refused<'_> {
    /// To the caller, with the authorizer's reason.
    pub(super) async fn error(&self, context: &Context, reason: &str) -> Error {
        let Self { verb, resource, subresource, namespace, name } = self;
        let user = user_name(context).await;
        let scope = namespace.map_or("at the cluster scope".to_owned(), |name| format!("in the namespace \"{name}\""));
        let mut message = format!(
            "{resource} \"{name}\" is forbidden: User \"{user}\" cannot {verb} resource \"{resource}/{subresource}\" in API \
             group \"\" {scope}"
        );
        if !reason.is_empty() {
            message = format!("{message}: {reason}");
        }
        Error::from_status(Side::Client, Status::failure(403, "Forbidden", message).about("", resource, name))
    }
}

/// The caller's name, for a message; `""` when the backend does not tell.
pub(super) async fn user_name(context: &Context) -> String {
    if let Some(user) = context.caller.impersonate.get("impersonate-user").and_then(|v| v.to_str().ok()) {
        return user.to_owned();
    }
    if let Some(bearer) = context.entry.bearer() {
        return bearer.user.clone();
    }
    match &context.caller.who {
        Who::Certificate(_) | Who::Issued(_) => context.caller.who.name().to_owned(),
        Who::Anonymous => Identity::anonymous().user,
        Who::Token(_) => {
            let answer = Box::pin(answer(context, SELF, &who_am_i())).await;
            let me: Result<WhoIAm> = answer.and_then(|answer| parse(&answer));
            me.map(|me| me.user_info.username).unwrap_or_default()
        }
    }
}

fn who_am_i() -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
}

async fn access_of(context: &Context, identity: &Identity, mut spec: Value) -> Result<Decision> {
    let extra: serde_json::Map<String, Value> =
        identity.extra.iter().map(|(key, values)| (key.clone(), json!(values))).collect();
    spec["user"] = json!(identity.user);
    spec["groups"] = json!(identity.groups);
    spec["uid"] = json!(identity.uid);
    spec["extra"] = json!(extra);
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": spec,
    });
    let answer = context.tenant.api.create(&SUBJECT_REVIEWS, None, &review).await?;
    let status = answer.get("status").cloned().unwrap_or_default();
    serde_json::from_value(status).map_err(unreadable)
}

/// The caller as the backend knows it, where the gateway knows it too.
fn subject(context: &Context) -> Option<Identity> {
    match &context.caller.who {
        who @ (Who::Certificate(_) | Who::Issued(_)) => {
            let mut identity = who.identity()?.clone();
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

/// The body of a review's success, drawn on the tenant's budget; a refusal as an error.
async fn answer(context: &Context, path: &'static str, object: &Value) -> Result<Bytes> {
    let response = ask(context, path, object).await?;
    let (code, buffers) = (response.status(), context.entry.buffers());
    let read = buffer::read(response.into_body(), LONGEST, DEADLINE, buffers).await;
    let bytes = read.map_err(|failure| failure.of(Side::Backend))?;
    if code.is_success() {
        return Ok(bytes);
    }
    let _drawn = buffers.draw(buffer::weight(&bytes))?;
    Err(Error::from_status(Side::Backend, Status::of_answer(code.as_u16(), &bytes)))
}

async fn ask(context: &Context, path: &'static str, object: &Value) -> Result<Response<ResponseBody>> {
    context.send(request(context, path, object)?, &Method::GET, DEADLINE).await
}

fn request(context: &Context, path: &'static str, object: &Value) -> Result<Request<upstream::Body>> {
    let mut request = Request::new(upstream::Body::full(object.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    *request.headers_mut() = context.backend_headers()?;
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json.clone());
    request.headers_mut().insert(header::ACCEPT, json);
    Ok(request)
}

fn parse<T: DeserializeOwned>(review: &[u8]) -> Result<T> {
    serde_json::from_slice(review).map(|review: Review<T>| review.status).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::backend(Kind::Protocol, "a review cannot be read").because(error)
}
