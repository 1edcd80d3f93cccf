//! How many connections one class may hold, those that are only being made included.

use std::task::Poll;
use std::time::Duration;

use futures::future::join_all;
use http::Request;
use http_body_util::BodyExt;
use portico::error::{Kind, Side};
use portico::runtime::clock::Clock;
use portico::upstream::{Body, Class, Pool};

use crate::support::fake::{Answer, Setup};

const DEADLINE: Duration = Duration::from_secs(20);
const BOUND: usize = 256;

async fn send(pool: &Pool, path: &str) -> Result<String, Kind> {
    let request = Request::get(path).body(Body::Empty).expect("request");
    let response = pool.send(Class::Unary, request, DEADLINE).await.map_err(|error| error.kind())?;
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn http1_dials_in_flight_are_connections() {
    let answer = |path: &str| if path == "/hang" { Answer::Hang } else { Answer::text(200, "ok") };
    let api = Setup::http1().start(move |seen| async move { answer(&seen.path) }).await;
    let pool = Pool::new(api.target(Side::Backend), Clock::system());
    // What the server speaks is known from now on.
    assert_eq!(send(&pool, "/").await, Ok("ok".to_owned()));
    let mut running: Vec<_> = (0..BOUND + 44).map(|_| Box::pin(send(&pool, "/hang"))).collect();
    let mut refused = 0;
    for request in &mut running {
        match futures::poll!(request) {
            Poll::Pending => {}
            Poll::Ready(outcome) => {
                assert_eq!(outcome, Err(Kind::TooManyRequests));
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 44);
    // Who gives up while it dials gives its place back.
    drop(running);
    assert_eq!(send(&pool, "/").await, Ok("ok".to_owned()));
    let running: Vec<_> = (0..BOUND).map(|_| Box::pin(send(&pool, "/"))).collect();
    assert!(join_all(running).await.iter().all(Result::is_ok));
    assert!(pool.connections(Class::Unary) <= BOUND);
}

#[tokio::test]
async fn who_waits_for_the_first_dial_is_no_connection() {
    for (setup, is_http1) in [(Setup::default(), false), (Setup::http1(), true)] {
        let api = setup.start(|_| async { Answer::text(200, "ok") }).await;
        let pool = Pool::new(api.target(Side::Backend), Clock::system());
        let running: Vec<_> = (0..BOUND + 44).map(|_| Box::pin(send(&pool, "/"))).collect();
        let outcomes = join_all(running).await;
        // All of them fit into a few connections of HTTP/2.
        let is_served =
            |outcome: &Result<_, _>| outcome.is_ok() || (is_http1 && *outcome == Err(Kind::TooManyRequests));
        assert!(outcomes.iter().all(is_served), "{outcomes:?}");
        assert!(outcomes.iter().filter(|outcome| outcome.is_ok()).count() >= BOUND);
        assert!(pool.connections(Class::Unary) <= BOUND);
    }
}
