use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use tower::util::service_fn;
use tower::{BoxError as TowerError, ServiceExt};

use super::*;

type Answer = Result<Response<Full<Bytes>>, TowerError>;

fn clock() -> Clock {
    Clock::going("2026-01-01T00:00:00Z".parse().expect("time"), 1)
}

fn answer(code: u16, retry_after: Option<&str>) -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(code).expect("code");
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.parse().expect("header"));
    }
    Ok(response)
}

fn lost() -> Answer {
    Err(Error::host(Kind::Closed, "the connection broke").into())
}

fn request(method: &Method, uri: &str) -> Request<KubeBody> {
    let mut request = Request::new(KubeBody::from(Bytes::from_static(b"{}")));
    method.clone_into(request.method_mut());
    *request.uri_mut() = uri.parse().expect("uri");
    request
}

/// How often `what` is tried, and how it ends.
async fn tries(retries: &Retries, what: Request<KubeBody>, each: fn() -> Answer) -> (usize, Answer) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let server = service_fn(move |_: Request<KubeBody>| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::ready(each())
    });
    let service = ServiceBuilder::new().retry(retries.clone()).service(server);
    let outcome = service.oneshot(what).await;
    (count.load(Ordering::SeqCst), outcome)
}

#[tokio::test(start_paused = true)]
async fn only_what_is_harmless_is_tried_again() {
    let get = || request(&Method::GET, "/api/v1/pods");
    for (what, each, wanted) in [
        (get(), lost as fn() -> Answer, 3),
        (request(&Method::GET, "/api/v1/pods?watch=true"), lost, 1),
        (request(&Method::POST, "/api/v1/pods"), lost, 1),
        (request(&Method::DELETE, "/api/v1/pods/a"), lost, 1),
        (get(), || answer(200, None), 1),
        (get(), || answer(404, None), 1),
        (get(), || answer(500, Some("1")), 1),
        (request(&Method::POST, "/api/v1/pods"), || answer(429, Some("1")), 3),
        (get(), || answer(429, Some("60")), 1),
        (get(), || answer(429, None), 1),
    ] {
        let name = format!("{} {}", what.method(), what.uri());
        assert_eq!(tries(&Retries::new(clock()), what, each).await.0, wanted, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_not_asked_more_and_more() {
    let retries = Retries::new(clock());
    let mut whole = 0;
    for _ in 0..100 {
        whole += tries(&retries, request(&Method::GET, "/api"), lost).await.0;
    }
    assert!((100..125).contains(&whole), "{whole} for 100 requests");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_so_many_are_under_way() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (at_once, highest) = (Arc::clone(&now), Arc::clone(&most));
    let server = service_fn(move |_: Request<KubeBody>| {
        let (now, most) = (Arc::clone(&at_once), Arc::clone(&highest));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            answer(200, None)
        }
    });
    let client = kube::Client::new(ServiceBuilder::new().concurrency_limit(AT_ONCE).service(server), "default");
    let all = (0..100).map(|_| client.send(request(&Method::GET, "/api")));
    assert!(futures::future::join_all(all).await.iter().all(Result::is_ok));
    assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_a_timeout_of_its_side() {
    let server = service_fn(|_: Request<KubeBody>| std::future::pending::<Answer>());
    let client = kube::Client::new(ServiceBuilder::new().timeout(HEAD).service(server), "default");
    let error = client.send(request(&Method::GET, "/api")).await.err().map(|error| failure(Side::Host, error));
    assert_eq!(error.map(|error| (error.side(), error.kind())), Some((Side::Host, Kind::Timeout)));
    let server = service_fn(|_: Request<KubeBody>| std::future::ready(lost()));
    let client = kube::Client::new(server, "default");
    let error = client.send(request(&Method::GET, "/api")).await.err().map(|error| failure(Side::Host, error));
    assert_eq!(error.map(|error| (error.side(), error.kind())), Some((Side::Host, Kind::Closed)));
}

#[test]
fn watches_are_known_by_their_query() {
    assert!(is_long_running(Some("limit=1&watch=true")));
    assert!(is_long_running(Some("follow=1")));
    assert!(!is_long_running(Some("watch=false&limit=5")));
    assert!(!is_long_running(None));
}
