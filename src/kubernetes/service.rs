//! `kube::Client` over our pool: `kube::Client::new(KubeService::new(pool), "default")`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tower::Service;

use crate::error::{BoxError, Error, Kind};
use crate::upstream::{Body, Class, Pool, ResponseBody};

const DEADLINE: Duration = Duration::from_secs(60);

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

impl Service<Request<kube::client::Body>> for KubeService {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let pool = Arc::clone(&self.pool);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body
                .collect_bytes()
                .await
                .map_err(|e| Error::own(Kind::Internal, "a request body cannot be read").because(e))?;
            let body = if body.is_empty() { Body::Empty } else { Body::full(body) };
            let class = if is_long_running(parts.uri.query()) { Class::Watch } else { Class::Unary };
            Ok(pool.send(class, Request::from_parts(parts, body), DEADLINE).await?)
        })
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
mod tests {
    use super::*;

    #[test]
    fn watches_are_known_by_their_query() {
        assert!(is_long_running(Some("limit=1&watch=true")));
        assert!(is_long_running(Some("follow=1")));
        assert!(!is_long_running(Some("watch=false&limit=5")));
        assert!(!is_long_running(None));
    }
}
