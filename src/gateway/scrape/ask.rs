//! One API server's `/metrics`, asked as Portico itself.
//!
//! Promises: a deadline for all of it, a bound for its bytes and for each line; nothing is kept of a page that is not whole,
//! since half a sum looks like a counter that began anew. Must not know who scrapes.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::BodyExt as _;

use super::catalog::Catalog;
use super::gather::Gathering;
use super::shown::Problem;
use crate::error::Kind;
use crate::exposition::Lines;
use crate::runtime::yielding;
use crate::tenant::Tenant;
use crate::upstream::{Body, Class, ResponseBody};

const PATH: &str = "/metrics";
/// No quotes and no exemplars; and no compression, of which a small part may become anything.
const FORMAT: &str = "text/plain;version=0.0.4";
/// Ten times the longest that an API server writes.
const LONGEST_LINE: usize = 16 << 10;
/// Ours is shorter, and none of the connection's: an API server that is slow with its metrics is not away.
const NO_DEADLINE: Duration = Duration::from_secs(3600);
/// Bytes that are read with the work of one record made.
const BYTES_OF_WORK: usize = 512;

/// How much of one API server's page is read, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) deadline: Duration,
    pub(super) body: usize,
    pub(super) series: usize,
}

/// Asks one API server.
pub(super) async fn ask(tenant: &Tenant, catalog: &Arc<Catalog>, bounds: Bounds) -> Result<Gathering, Problem> {
    let asked = async { read(begin(tenant).await?, catalog, bounds).await };
    tokio::time::timeout(bounds.deadline, asked).await.unwrap_or(Err(Problem::Late))
}

async fn begin(tenant: &Tenant) -> Result<ResponseBody, Problem> {
    let mut request = Request::new(Body::Empty);
    *request.uri_mut() = Uri::from_static(PATH);
    *request.headers_mut() = tenant.backend.assertion.own_identity();
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(FORMAT));
    let response = tenant.backend.pool.send(Class::Unary, request, NO_DEADLINE).await.map_err(|error| {
        tracing::debug!(tenant = %tenant.id, %error, "an API server does not show its metrics");
        if error.kind() == Kind::Timeout { Problem::Late } else { Problem::Unreachable }
    })?;
    let is_plain = !response.headers().contains_key(header::CONTENT_ENCODING);
    if response.status() != StatusCode::OK || !is_plain {
        tracing::debug!(tenant = %tenant.id, status = %response.status(), is_plain, "an API server shows no metrics");
        return Err(Problem::Refused);
    }
    Ok(response.into_body())
}

async fn read(mut body: ResponseBody, catalog: &Arc<Catalog>, bounds: Bounds) -> Result<Gathering, Problem> {
    let (mut lines, mut gathering) = (Lines::new(LONGEST_LINE), Gathering::new(catalog, bounds.series));
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Problem::Broken)?.into_data() else { continue };
        length += data.len();
        if length > bounds.body {
            return Err(Problem::TooLong);
        }
        lines.push(&data, |line| gathering.line(line));
        yielding::charge(data.len() / BYTES_OF_WORK).await;
    }
    lines.finish(|line| gathering.line(line));
    gathering.drop_lines(lines.too_long());
    Ok(gathering)
}
