//! A tenant's own page: `/portico/metrics` beside its API server's paths.
//!
//! Promises: who may read it, the tenant's API server decides, as for any nonresource URL; never forwarded.

use std::sync::Arc;

use http::{Method, Request, Response};
use hyper::body::Incoming;

use super::fleet::{page, patience};
use super::page::Format;
use crate::error::status::Status;
use crate::error::{Error, Kind, Result, Side};
use crate::gateway::api;
use crate::gateway::context::Context;
use crate::gateway::respond::Body;
use crate::gateway::review;

/// Answers a request for it.
pub(crate) async fn serve(context: &Context, request: &Request<Incoming>) -> Result<Response<Body>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) || context.upgrade.is_some() {
        return Err(Error::client(Kind::MethodNotAllowed, "this page is only read"));
    }
    context.record.upstream("portico");
    Box::pin(review::token(context)).await?;
    let verb = context.info.verb;
    let decision = Box::pin(review::nonresource(context, api::OWN_METRICS, verb)).await?;
    if !decision.allowed {
        return Err(forbidden(context, verb, &decision.reason).await);
    }
    let format = Format::wanted(request.headers());
    if *request.method() == Method::HEAD {
        return Ok(page(format, Body::empty()));
    }
    let scrapes = &context.connection.gateway.scrapes;
    let until = context.clock().instant() + patience(request.headers(), scrapes.config.deadline.0);
    let made = scrapes.one(Arc::clone(&context.tenant), until, format, context.entry.buffers()).await?;
    Ok(page(format, Body::full(made)))
}

/// In Kubernetes' own words.
async fn forbidden(context: &Context, verb: &str, reason: &str) -> Error {
    let user = review::user_name(context).await;
    let mut message = format!("forbidden: User \"{user}\" cannot {verb} path \"{}\"", api::OWN_METRICS);
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    Error::from_status(Side::Client, Status::failure(403, "Forbidden", message))
}
