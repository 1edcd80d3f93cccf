//! exec, attach, port-forward and log, served from the host pod.

use http::{Request, Response};
use hyper::body::Incoming;

use super::context::Context;
use super::respond::Body;
use crate::error::{Error, Kind, Result};

/// Serves `pods/{exec,attach,portforward,log}` of exact shape. `request` is clean: no credentials, no identity, no
/// hop-by-hop headers (the wanted protocol is `context.upgrade`), path without the tenant's prefix, raw query; its
/// extensions still hold hyper's upgrade.
pub async fn intercept(context: &Context, _request: Request<Incoming>) -> Result<Response<Body>> {
    let what = context.info.resource_path();
    Err(Error::own(Kind::MethodNotAllowed, format!("{what} is not served by this gateway yet")))
}
