//! A `kube::Client` over our pool, with what the planes of low rate need around each request: a bound of requests at once, a
//! deadline for the answer's head, and retries on a budget.
//!
//! Promises: a plane that goes wild takes no more of an API server than 16 requests at once; what is tried again is harmless to
//! repeat (reads that did not arrive, and what was refused with 429 and so not done), waits as long as the server asks, and
//! adds a fifth to the load at most. Must not know what is asked. The hot paths (gateway, syncer) do without
//! ([ADR 12](../../docs/adr/0012-kube-and-tower-carry-the-planes-of-low-rate.md)).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use kube::client::Body as KubeBody;
use tower::retry::Policy;
use tower::retry::budget::{Budget, TpsBudget};
use tower::{Service, ServiceBuilder};

use crate::error::{BoxError, Error, Kind, Side};
use crate::runtime::clock::Clock;
use crate::upstream::{Body, Class, Pool, ResponseBody};

/// Of one plane. An API server's priority levels have about as many seats for each flow.
const AT_ONCE: usize = 16;
/// For the head of an answer, each time. A watch that has begun is not bounded by it.
const HEAD: Duration = Duration::from_secs(30);
/// Of one request.
const RETRIES: u32 = 2;
/// Before a read that did not arrive is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// A server that asks for a longer pause is left to whoever called.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Retries over [`BUDGET_FOR`]: one a second, and a fifth of the requests that went well.
const BUDGET_FOR: Duration = Duration::from_secs(10);
const BUDGET_EACH_SECOND: u32 = 1;
const BUDGET_SHARE: f32 = 0.2;

/// A client of one plane. Spawns the task that its requests pass through; it ends with the last clone.
pub fn client(pool: Arc<Pool>) -> kube::Client {
    let clock = pool.clock().clone();
    let service = ServiceBuilder::new()
        .concurrency_limit(AT_ONCE)
        .retry(Retries::new(clock))
        .timeout(HEAD)
        .service(KubeService::new(pool));
    kube::Client::new(service, "default")
}

/// What kept a request from its answer, as an error of ours.
pub(super) fn failure(side: Side, error: kube::Error) -> Error {
    let kube::Error::Service(error) = error else {
        return Error::own(Kind::Internal, "a request cannot be made").because(error);
    };
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(error) if error.is::<tower::timeout::error::Elapsed>() => {
            Error::new(side, Kind::Timeout, "the API server did not answer in time")
        }
        Err(error) => Error::new(side, Kind::Unavailable, "the API server cannot be asked").because(error),
    }
}

/// One API server as a tower service; cheap to clone.
#[derive(Debug, Clone)]
pub struct KubeService {
    pool: Arc<Pool>,
}

impl KubeService {
    /// Over these connections, under the pool's own identity.
    pub fn new(pool: Arc<Pool>) -> Self {
        Self { pool }
    }
}

impl Service<Request<KubeBody>> for KubeService {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<KubeBody>) -> Self::Future {
        let pool = Arc::clone(&self.pool);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body
                .collect_bytes()
                .await
                .map_err(|e| Error::own(Kind::Internal, "a request body cannot be read").because(e))?;
            let body = if body.is_empty() { Body::Empty } else { Body::full(body) };
            let class = if is_long_running(parts.uri.query()) { Class::Watch } else { Class::Unary };
            Ok(pool.send(class, Request::from_parts(parts, body), HEAD).await?)
        })
    }
}

/// What is tried again, and when; each request has its own count, all of a client one budget.
#[derive(Debug, Clone)]
struct Retries {
    clock: Clock,
    budget: Arc<TpsBudget>,
    left: u32,
}

impl Retries {
    fn new(clock: Clock) -> Self {
        let budget = TpsBudget::new(BUDGET_FOR, BUDGET_EACH_SECOND, BUDGET_SHARE);
        Self { clock, budget: Arc::new(budget), left: RETRIES }
    }

    /// The pause that this outcome asks for, if it is one to try again after.
    fn pause<B>(request: &Request<KubeBody>, outcome: &Result<Response<B>, BoxError>) -> Option<Duration> {
        match outcome {
            Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                let asked = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
                Some(Duration::from_secs(asked).max(PAUSE)).filter(|pause| *pause <= LONGEST_PAUSE)
            }
            Ok(_) => None,
            Err(error) => {
                // A watch is begun again by whoever follows it.
                let is_read = *request.method() == Method::GET && !is_long_running(request.uri().query());
                let kind = error.downcast_ref::<Error>().map(Error::kind);
                let did_not_arrive = matches!(kind, Some(Kind::Unavailable | Kind::Closed));
                (is_read && did_not_arrive).then_some(PAUSE)
            }
        }
    }
}

impl<B> Policy<Request<KubeBody>, Response<B>, BoxError> for Retries {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(
        &mut self,
        request: &mut Request<KubeBody>,
        outcome: &mut Result<Response<B>, BoxError>,
    ) -> Option<Self::Future> {
        let Some(pause) = Self::pause(request, outcome) else {
            if outcome.is_ok() {
                self.budget.deposit();
            }
            return None;
        };
        if self.left == 0 || !self.budget.withdraw() {
            return None;
        }
        self.left -= 1;
        Some(Box::pin(tokio::time::sleep(self.clock.jitter(pause))))
    }

    fn clone_request(&mut self, request: &Request<KubeBody>) -> Option<Request<KubeBody>> {
        let mut copy = Request::new(request.body().try_clone()?);
        request.method().clone_into(copy.method_mut());
        request.uri().clone_into(copy.uri_mut());
        request.headers().clone_into(copy.headers_mut());
        Some(copy)
    }
}

fn is_long_running(query: Option<&str>) -> bool {
    let truthy = |value: &str| matches!(value, "true" | "1" | "");
    query.unwrap_or_default().split('&').any(|pair| match pair.split_once('=') {
        Some(("watch" | "follow", value)) => truthy(value),
        _ => matches!(pair, "watch" | "follow"),
    })
}

#[cfg(test)]
mod tests;
