//! Creating a Service: the host's is made first, so that both have the same cluster IP and node ports.
//!
//! A dry run in the backend comes first, as the caller: it authenticates, authorizes, validates and admits, and turns
//! any body form into JSON. Promises: nothing is made on the host for a request that the backend would refuse; a crash
//! between the two writes leaves a host Service marked [`keys::PENDING`], which a second try takes over and the syncer
//! removes when none comes; a refusal by the host is the caller's error, in the caller's names; every body that is read
//! here is of a caller who is known, and drawn on the budget of [`crate::gateway::buffer`] as text and as the objects made of it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use hyper::body::Incoming;
use serde_json::Value;

use crate::error::status::Status;
use crate::error::{Error, Kind, Result, Side};
use crate::gateway::api;
use crate::gateway::buffer::{self, Drawn};
use crate::gateway::context::Context;
use crate::gateway::respond::Body;
use crate::kubernetes::resources::SERVICES;
use crate::names::{Limit, keys};
use crate::translate::{View, identity, json, service};
use crate::upstream::{self, ResponseBody};

/// Longest wait for a whole request body.
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// Answers of the backend to a Service are read up to this size.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;
/// Objects of the size of the admitted one that are there at once: itself, the wanted one before and with its addresses.
const ADMITTED_COPIES: usize = 3;
/// And of the request's own: itself and the one that is sent.
const OWN_COPIES: usize = 2;
/// Headers of the request that concern its body or the answer's form.
const KEPT: &[&str] = &["user-agent", "kubectl-command", "kubectl-session", "traceparent"];

/// A Service that asks for no address.
const PLAIN_SERVICE: &[u8] =
    br#"{"apiVersion":"v1","kind":"Service","metadata":{"generateName":"address-"},"spec":{"ports":[{"port":1}]}}"#;

/// Serves `POST …/namespaces/{ns}/services`. `request` is clean, as in [`super::pods::serve`].
pub(crate) async fn create(context: &Context, request: Request<Incoming>) -> Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = buffer::read(body, context.config().max_body, BODY_DEADLINE, context.entry.buffers()).await;
    let body = body.map_err(|failure| failure.of(Side::Client))?;
    context.record.add_received(body.len());
    let post = Post { context, uri: head.uri, headers: head.headers, body };
    if api::parameter(post.uri.query().unwrap_or_default(), "dryRun").is_some() {
        return post.forward(post.body.clone(), None).await;
    }
    let answer = post.dry_run(post.body.clone(), None).await?;
    if !answer.status().is_success() {
        return post.relay(answer).await;
    }
    let (admitted, _drawn) = post.object(answer).await?;
    let _drawn_too = post.draw_own_object()?;
    if !needs_address(&admitted) {
        return post.forward(post.body.clone(), None).await;
    }
    let view = context.tenant.view();
    let (host, made) = post.host_service(&admitted, &view).await?;
    let outcome = post.forward_with_addresses(&admitted, &host).await;
    let refused = outcome.as_ref().map_or_else(
        |error| !matches!(error.kind(), Kind::Timeout | Kind::Closed),
        |response| !response.status().is_success(),
    );
    if refused && made {
        post.take_back(&host).await;
    }
    outcome
}

/// One create request, read whole.
struct Post<'a> {
    context: &'a Context,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Post<'_> {
    fn is_json(&self) -> bool {
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
        kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
    }

    /// A create as this request's caller, as a dry run, answered in JSON.
    async fn dry_run(&self, body: Bytes, content_type: Option<&'static str>) -> Result<Response<ResponseBody>> {
        let separator = if self.uri.query().is_some() { '&' } else { '?' };
        let uri = format!("{}{separator}dryRun=All", self.uri);
        let mut request = self.request(&uri, body, content_type)?;
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        request.headers_mut().remove(header::ACCEPT_ENCODING);
        self.send(request).await
    }

    /// The object of an answer, and what it takes of the budget.
    async fn object(&self, answer: Response<ResponseBody>) -> Result<(Value, Drawn)> {
        let buffers = self.context.entry.buffers();
        let bytes = buffer::read(answer.into_body(), LONGEST_ANSWER, BODY_DEADLINE, buffers).await;
        let bytes = bytes.map_err(|failure| failure.of(Side::Backend))?;
        let drawn = buffers.draw(ADMITTED_COPIES * buffer::weight(&bytes))?;
        let object = serde_json::from_slice(&bytes)
            .map_err(|e| Error::backend(Kind::Protocol, "the API server's answer is not readable").because(e))?;
        Ok((object, drawn))
    }

    /// What the request's own object takes once it is parsed.
    fn draw_own_object(&self) -> Result<Drawn> {
        let weight = if self.is_json() { buffer::weight(&self.body) } else { 0 };
        self.context.entry.buffers().draw(OWN_COPIES * weight)
    }

    /// The host Service for this one, and whether this request made it.
    async fn host_service(&self, admitted: &Value, view: &View) -> Result<(Value, bool)> {
        if let Some(why) = service::refusal(admitted, view) {
            return Err(Error::client(Kind::Invalid, format!("Service cannot be made on the host: {why}")));
        }
        let wanted = self.wanted(admitted)?;
        let intent = |object: &Value| {
            let mut intent = service::to_host(object, view)
                .ok_or_else(|| Error::client(Kind::Invalid, "the Service's name is not valid"))?;
            identity::set_annotation(&mut intent, keys::PENDING, self.context.clock().now().to_string());
            Ok::<Value, Error>(intent)
        };
        match self.create_on_host(&intent(&wanted)?, view).await {
            // The addresses in a body that is no JSON may be the user's or the dry run's choice: a second dry run tells.
            Err(error) if error.kind() == Kind::Invalid && !self.is_json() && !self.asked_for(admitted).await? => {
                self.create_on_host(&intent(&service::without_addresses(&wanted))?, view).await
            }
            outcome => outcome,
        }
        .map_err(|error| self.as_the_callers(error))
    }

    /// What is asked of the host: the admitted object with the addresses that the user named, if any.
    fn wanted(&self, admitted: &Value) -> Result<Value> {
        let mut wanted = admitted.clone();
        if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("uid");
        }
        if !self.is_json() {
            return Ok(wanted);
        }
        let original: Value = serde_json::from_slice(&self.body)
            .map_err(|e| Error::client(Kind::BadRequest, "the request body is not readable").because(e))?;
        Ok(service::adopt_addresses(&wanted, &original))
    }

    /// Whether the addresses are the user's: two dry runs choose the same, and not because every dry run gets that one
    /// (API servers since 1.33 answer the network's own address, older ones a random one).
    async fn asked_for(&self, admitted: &Value) -> Result<bool> {
        let (again, _drawn) = self.object(self.dry_run(self.body.clone(), None).await?).await?;
        if service::addresses(&again) != service::addresses(admitted) {
            return Ok(false);
        }
        let plain = Bytes::from_static(PLAIN_SERVICE);
        let (chosen, _drawn_too) = self.object(self.dry_run(plain, Some("application/json")).await?).await?;
        Ok(json::text(&chosen, "/spec/clusterIP") != json::text(admitted, "/spec/clusterIP"))
    }

    async fn create_on_host(&self, intent: &Value, view: &View) -> Result<(Value, bool)> {
        let namespace = Some(view.namespace().as_str());
        let api = self.context.host_for_caller()?;
        match api.create(&SERVICES, namespace, intent).await {
            Ok(host) => Ok((host, true)),
            Err(error) if error.kind() == Kind::AlreadyExists => {
                let found = api.get(&SERVICES, namespace, json::name(intent)).await?;
                match found {
                    Some(host) if is_left_over(&host, view) => Ok((host, false)),
                    _ => Err(busy()),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// A refusal by the host in the caller's names.
    fn as_the_callers(&self, error: Error) -> Error {
        let Some(status) = error.api_status().filter(|_| matches!(error.kind(), Kind::Invalid)) else { return error };
        let name = self.context.info.name.as_str();
        let causes: Vec<String> = status
            .details
            .iter()
            .flat_map(|d| &d.causes)
            .map(|c| format!("{}: {}", json::text(c, "/field"), json::text(c, "/message")))
            .collect();
        let message = format!("Service is invalid on the host cluster: {}", causes.join(", "));
        let mut shown = Status::failure(422, "Invalid", message).about("", "services", name);
        if let (Some(shown), Some(details)) = (&mut shown.details, &status.details) {
            shown.causes.clone_from(&details.causes);
        }
        Error::from_status(Side::Client, shown)
    }

    async fn forward_with_addresses(&self, admitted: &Value, host: &Value) -> Result<Response<Body>> {
        let object = if self.is_json() {
            let object = serde_json::from_slice(&self.body)
                .map_err(|e| Error::client(Kind::BadRequest, "the request body is not readable").because(e))?;
            named(object, admitted)
        } else {
            unadmitted(admitted)
        };
        let body = serde_json::to_vec(&service::adopt_addresses(&object, host))
            .map_err(|e| Error::own(Kind::Internal, "a Service cannot be written").because(e))?;
        self.forward(body.into(), Some("application/json")).await
    }

    async fn forward(&self, body: Bytes, content_type: Option<&'static str>) -> Result<Response<Body>> {
        let request = self.request(&self.uri.to_string(), body, content_type)?;
        let answer = self.send(request).await?;
        self.relay(answer).await
    }

    fn request(&self, uri: &str, body: Bytes, content_type: Option<&'static str>) -> Result<Request<upstream::Body>> {
        let mut headers = self.context.backend_headers()?;
        for name in KEPT.iter().copied().chain(["accept", "accept-encoding", "content-type"]) {
            for value in self.headers.get_all(name) {
                headers.append(header::HeaderName::from_static(name), value.clone());
            }
        }
        if let Some(content_type) = content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let mut request = Request::post(uri)
            .body(upstream::Body::full(body))
            .map_err(|e| Error::client(Kind::BadRequest, "the request target is not valid").because(e))?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn send(&self, request: Request<upstream::Body>) -> Result<Response<ResponseBody>> {
        self.context.send(request, &Method::POST, self.context.config().request_timeout.0).await
    }

    /// The backend's answer, unchanged but for what is between it and us.
    async fn relay(&self, answer: Response<ResponseBody>) -> Result<Response<Body>> {
        let (mut head, body) = answer.into_parts();
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
            head.headers.remove(name);
        }
        if head.status.is_redirection() {
            return Err(Error::backend(Kind::Protocol, "the API server answered a create with a redirect"));
        }
        Ok(Response::from_parts(head, Body::stream(body)))
    }

    /// Removes a host Service that the backend then refused. When that fails the syncer does it later.
    async fn take_back(&self, host: &Value) {
        let (namespace, name, uid) = (json::namespace(host), json::name(host), json::uid(host));
        let delete =
            async { self.context.host_for_caller()?.delete(&SERVICES, Some(namespace), name, Some(uid), None).await };
        if let Err(error) = delete.await {
            tracing::info!(%error, "a host Service without a virtual one is left to the syncer");
        }
    }
}

/// ExternalName and headless Services have no address to agree on: the syncer makes them.
fn needs_address(admitted: &Value) -> bool {
    json::text(admitted, "/spec/type") != "ExternalName" && json::text(admitted, "/spec/clusterIP") != "None"
}

/// Whether a host Service is this tenant's and was left by an earlier try of the same creation.
fn is_left_over(host: &Value, view: &View) -> bool {
    !json::is_deleting(host)
        && !identity::annotation(host, keys::PENDING).is_empty()
        && identity::virtual_key(service::KIND, host, view, Limit::Label).is_some()
}

/// The Service of this name that is just being removed must be gone first; clients try again by themselves.
fn busy() -> Error {
    let status =
        Status::failure(503, "ServiceUnavailable", "a Service of this name is still being removed on the host");
    Error::from_status(Side::Client, status.retry_after(1))
}

/// A generated name is settled by the dry run, for both sides.
fn named(mut object: Value, admitted: &Value) -> Value {
    if json::name(&object).is_empty()
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("name".to_owned(), json::name(admitted).into());
    }
    object
}

/// The admitted object as a request body: without what only the API server may set.
fn unadmitted(admitted: &Value) -> Value {
    let mut object = admitted.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "selfLink", "generation"] {
            metadata.remove(field);
        }
    }
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::GatewayConfig;

    /// With the managed fields that an API server adds, which are larger than the ports themselves.
    #[test]
    fn a_service_of_a_thousand_ports_fits_into_a_tenants_share() {
        let port = |n: u32| json!({"name": format!("port-{n}"), "port": n, "protocol": "TCP", "targetPort": n});
        let mut own = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": (1..=1000).map(port).collect::<Vec<_>>()}});
        let request = own.to_string();
        let fields = (1..=1000).map(|n| {
            let key = format!("k:{{\"port\":{n},\"protocol\":\"TCP\"}}");
            (key, json!({".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {}}))
        });
        let fields: serde_json::Map<String, Value> = fields.collect();
        own["metadata"]["managedFields"] = json!([{"fieldsV1": {"f:spec": {"f:ports": fields}}}]);
        let answer = own.to_string();
        let drawn = request.len()
            + OWN_COPIES * buffer::weight(request.as_bytes())
            + ADMITTED_COPIES * buffer::weight(answer.as_bytes());
        assert!(drawn < GatewayConfig::default().max_buffered_bytes / 4, "{drawn}");
    }
}
