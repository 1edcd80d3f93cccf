//! The kubelet of a node as a tenant may see it: below `nodes/{name}/proxy`, figures of its own pods and whether the kubelet
//! is well.
//!
//! A request's way: asked → the caller's rights and the tenant's admission → its allowance → the node is one of the tenant's
//! → read and filtered → answered. Promises: nothing is sent to a kubelet that a tenant wrote, but which of seven things it
//! wants; what runs on the node and is not the tenant's is not shown, however the kubelet names it; the kubelet is let go
//! before the tenant reads, so that nobody's reading takes a kubelet's time; a tenant asks as often as it may, and what many
//! of its callers ask at once is asked once. Must not know how kubelets are reached.

mod access;
mod allowance;
mod asked;
mod figures;
mod read;
mod series;
mod shown;
mod summary;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use self::asked::{Asked, What};
use self::figures::Figures;
use self::read::Reading;
use super::context::Context;
use super::respond::{self, Body};
use crate::error::status::Status;
use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::resources::{NODES, PODS};
use crate::kubernetes::{ListOptions, Place, listed_path};
use crate::upstream::{self, Class};

pub(super) use self::allowance::{Allowance, Shared};

/// For an answer: two questions to the tenant's API server, the node, and what the kubelet says.
const DEADLINE: Duration = Duration::from_secs(45);
/// Longest answer about a Node's metadata.
const LONGEST_NODE: usize = 1 << 20;
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";

/// Serves everything below `nodes/{name}/proxy`. `request` is clean, its path without the tenant's prefix.
pub(super) async fn serve(context: &Arc<Context>, request: &Request<Incoming>) -> Result<Response<Body>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let asked = Asked::parse(request.uri().path()).filter(|_| is_read && context.upgrade.is_none());
    let Some(asked) = asked else {
        // Behind it is the host's kubelet, which would run commands in anyone's pods.
        let message = "nodes/proxy of a virtual cluster has GET of metrics, metrics/cadvisor, metrics/resource, \
                       metrics/probes, stats/summary, pods and healthz, and nothing else";
        return Err(Error::client(Kind::Forbidden, message));
    };
    context.record.upstream("kubelet");
    let late = |_| Error::own(Kind::Timeout, "the node's kubelet could not be read in time");
    tokio::time::timeout(DEADLINE, Box::pin(answered(context, &asked, request.method()))).await.map_err(late)?
}

async fn answered(context: &Arc<Context>, asked: &Asked, method: &Method) -> Result<Response<Body>> {
    access::check(context).await?;
    // First: a node that the tenant made up is asked for at the host.
    let seat = context.entry.kubelets().enter(context.clock().instant())?;
    let place = place(context, asked).await?;
    if asked.port.is_some_and(|port| port != place.port) {
        return Err(Error::client(Kind::Forbidden, "of a node only the kubelet's port is served"));
    }
    if asked.what == What::Pods {
        return pods(context, asked, method).await;
    }
    let (tenant, whole_node) = (&context.tenant, read::shows_whole_node(&context.tenant));
    let key = (tenant.id.clone(), tenant.uid.clone(), asked.node.to_string(), asked.what, whole_node);
    let shared = &context.connection.gateway.tenants.kubelets;
    let reading = Reading::new(context, asked)?;
    let figures = shared.get(&key, context.clock(), || reading.figures()).await?;
    drop(seat);
    Ok(answer(&figures))
}

/// Where the node's kubelet is. The node must be one that the tenant has, and one that the host shows tenants.
async fn place(context: &Context, asked: &Asked) -> Result<Place> {
    let kubelets = context.usage()?.kubelets();
    if !kubelets.is_enabled() {
        let message = "the kubelets behind this cluster's nodes are not shown: whoever runs Portico can switch that on \
                       (kubelets.enabled of its chart)";
        return Err(Error::client(Kind::Unavailable, message));
    }
    let name = asked.node.as_str();
    let path = NODES.path(None, Some(name), None);
    context
        .tenant
        .api
        .get_as(&path, METADATA, access::DEADLINE, LONGEST_NODE)
        .await
        .map_err(|error| if error.kind() == Kind::NotFound { not_found(name) } else { error })?;
    kubelets.place(name).await?.ok_or_else(|| not_found(name))
}

fn not_found(name: &str) -> Error {
    Error::from_status(Side::Client, Status::not_found("", "nodes", name))
}

fn answer(figures: &Figures) -> Response<Body> {
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    let (kind, bytes) = match figures {
        Figures::Text(bytes) => (text, bytes.clone()),
        Figures::Json(bytes) => return respond::json(StatusCode::OK, bytes.clone()),
        Figures::Well => (HeaderValue::from_static("text/plain; charset=utf-8"), Bytes::from_static(b"ok")),
        Figures::Unwell => {
            let mut answer = Response::new(Body::full("healthz check failed"));
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return plain(answer, HeaderValue::from_static("text/plain; charset=utf-8"));
        }
    };
    plain(Response::new(Body::full(bytes)), kind)
}

fn plain(mut answer: Response<Body>, kind: HeaderValue) -> Response<Body> {
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// The node's pods as the tenant's own API server knows them, passed on as they come. Whoever may `get` `nodes/proxy` may
/// read them on any cluster, so they are asked for by Portico.
async fn pods(context: &Arc<Context>, asked: &Asked, method: &Method) -> Result<Response<Body>> {
    let options = ListOptions { field_selector: format!("spec.nodeName={}", asked.node), ..ListOptions::default() };
    let mut request = Request::new(upstream::Body::Empty);
    *request.method_mut() = method.clone();
    *request.uri_mut() = listed_path(&PODS, None, &options)
        .parse()
        .map_err(|e| Error::own(Kind::Internal, "a path cannot be built").because(e))?;
    *request.headers_mut() = context.tenant.backend.assertion.own_identity();
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let deadline = context.config().request_timeout.0;
    let response = context.tenant.backend.pool.send(Class::Unary, request, deadline).await?;
    if response.status() != StatusCode::OK {
        let message = format!("the cluster's API server answers {} when asked for a node's pods", response.status());
        return Err(Error::backend(Kind::Unavailable, message));
    }
    Ok(plain(Response::new(Body::stream(response.into_body())), HeaderValue::from_static("application/json")))
}
