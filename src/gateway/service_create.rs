//! Creating a Service: the host's is made first, so that both have the same cluster IP.

use http::{Request, Response};
use hyper::body::Incoming;

use super::context::Context;
use super::respond::Body;
use crate::error::{Error, Kind, Result};

/// Serves `POST …/namespaces/{ns}/services`. `request` is clean, as in [`super::stream::intercept`].
pub async fn intercept(context: &Context, _request: Request<Incoming>) -> Result<Response<Body>> {
    let what = context.info.resource_path();
    Err(Error::own(Kind::MethodNotAllowed, format!("creating {what} is not served by this gateway yet")))
}
