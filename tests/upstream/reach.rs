//! Servers that a user chose: an address that is refused is never connected to, whatever it is called.

use ipnet::IpNet;
use portico::error::{Kind, Side};
use portico::runtime::clock::Clock;
use portico::upstream::reach::Closed;
use portico::upstream::{Body, Class, Pool, Reach, Target};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;

use crate::support::fake::{Answer, FakeApi};

const DEADLINE: Duration = Duration::from_secs(20);
/// One address, in the words of URLs, of old C libraries and of IPv6.
const HERE: [&str; 8] =
    ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "0.0.0.0", "::ffff:127.0.0.1", "[::ffff:7f00:1]"];

fn reach(allowed: &[&str], denied: &[&str]) -> Reach {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("network")).collect::<Vec<IpNet>>();
    Reach::judged(&nets(allowed), &nets(denied), &Closed::default())
}

fn pool(api: &FakeApi, host: &str, reach: Reach) -> Pool {
    Pool::new(Target { host: host.to_owned(), reach, ..api.target(Side::Backend) }, Clock::system())
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::Empty).expect("request")
}

#[tokio::test]
async fn a_refused_address_sees_no_connection_whatever_it_is_called() {
    let api = FakeApi::start(|_| async { Answer::text(200, "fine") }).await;
    for host in HERE {
        let pool = pool(&api, host, reach(&[], &[]));
        for class in [Class::Unary, Class::Watch, Class::Token, Class::Unknown] {
            let error = pool.send(class, get("/api"), DEADLINE).await.expect_err("refused");
            assert_eq!((error.side(), error.kind()), (Side::Backend, Kind::Refused), "{host}: {error}");
            let status = error.to_status();
            assert_eq!((status.code, status.reason.as_str()), (503, "ServiceUnavailable"));
            assert!(status.message.contains("not allowed") && !status.message.contains("127"), "{}", status.message);
        }
        for with_identity in [false, true] {
            let error = pool.dial_upgrade(with_identity, DEADLINE).await.expect_err("refused");
            assert_eq!(error.kind(), Kind::Refused, "{host}: {error}");
        }
        assert!(!pool.is_reachable());
    }
    assert_eq!(api.accepted(), 0, "nobody came");
}

#[tokio::test]
async fn an_address_that_the_admin_lists_is_reached_and_of_several_the_listed_one() {
    let api = FakeApi::start(|_| async { Answer::text(200, "fine") }).await;
    for host in ["127.0.0.1", "localhost", "::ffff:127.0.0.1"] {
        let pool = pool(&api, host, reach(&["127.0.0.1/32"], &["0.0.0.0/0", "::/0"]));
        let answer = pool.send(Class::Unary, get("/api"), DEADLINE).await.expect("an answer");
        assert_eq!(answer.into_body().collect().await.expect("body").to_bytes(), "fine", "{host}");
    }
    let elsewhere = pool(&api, "127.0.0.1", reach(&["127.0.0.2/32"], &[]));
    assert_eq!(elsewhere.send(Class::Unary, get("/"), DEADLINE).await.expect_err("refused").kind(), Kind::Refused);
    assert_eq!(api.accepted(), 3);
}

/// What Portico chose itself: control planes, the API server beside it in the sidecar form.
#[tokio::test]
async fn what_portico_chose_is_not_judged() {
    let api = FakeApi::start(|_| async { Answer::text(200, "fine") }).await;
    let pool = Pool::new(api.target(Side::Backend), Clock::system());
    assert!(pool.send(Class::Unary, get("/api"), DEADLINE).await.is_ok());
}

#[tokio::test]
async fn a_server_that_is_away_is_said_to_be_away_and_not_refused() {
    let api = FakeApi::start(|_| async { Answer::text(200, "fine") }).await;
    let mut target = Target { reach: reach(&["127.0.0.1/32"], &[]), ..api.target(Side::Backend) };
    target.host = "localhost".to_owned();
    target.port = crate::support::port::free(std::net::Ipv4Addr::LOCALHOST);
    let error = Pool::new(target, Clock::system()).send(Class::Unary, get("/"), DEADLINE).await.expect_err("away");
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
}
