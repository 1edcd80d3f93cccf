//! A replica that is to end, under load: nobody who still comes is refused, and no request that was sent is lost.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use portico::tls::client_config;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::load::{Load, Stage, Target};
use crate::support::fake::Answer;
use crate::world::{Cluster, PATIENCE, World, piece, text};

const DELAY: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(20);

pub fn target(world: &World, cluster: &Cluster) -> Target {
    let user = cluster.user("jane");
    let identity = Some((user.certificate.as_bytes(), user.key.as_bytes()));
    Target {
        address: world.address,
        name: ServerName::try_from(cluster.host.clone()).expect("name"),
        host: cluster.host.clone(),
        path: "/api/v1/pods".to_owned(),
        tls: client_config(cluster.server_ca.ca_pem().as_bytes(), identity).expect("client"),
        pause: Duration::from_millis(2),
    }
}

/// Waits until the shared listener is closed.
async fn closed(world: &World) {
    let gone = async {
        while TcpStream::connect(world.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the listener closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_refuses_nobody_and_cuts_nothing() {
    let mut world = World::start().await;
    let mut long = Vec::new();
    for is_http2 in [false, true] {
        let (answer, rest) = Answer::stream();
        world.b.answer(answer);
        let mut client = world.by_name(&world.b).user(world.b.user("jane")).http(is_http2).await;
        long.push((client.get("/api/v1/pods").await, rest, client));
    }
    let load = Load::start(target(&world, &world.a), 3);
    load.answered(200).await;
    let opened = load.tally.opened.load(Ordering::SeqCst);

    let leaving = world.drain.take().expect("trigger").leave(DELAY);
    tokio::time::sleep(DELAY).await;
    load.tally.is_clean();
    assert!(load.tally.opened.load(Ordering::SeqCst) > opened, "connections came about");

    // Newcomers find another replica by now; who keeps a connection goes on until it is ended.
    load.closing();
    let draining = portico::runtime::task::spawn("drain", leaving.drain(GRACE));
    let tally = load.stop(Stage::Closing).await;
    tally.is_clean();
    assert_eq!(world.a.api.seen().len(), tally.done.load(Ordering::SeqCst), "what a client sends again was not served");
    closed(&world).await;
    for (mut response, rest, client) in long {
        rest.send(Bytes::from_static(b"all")).await.expect("sent");
        assert_eq!(piece(&mut response).await.as_deref(), Some("all"));
        drop(rest);
        assert_eq!(piece(&mut response).await, None);
        client.closed().await;
    }
    assert_eq!(draining.join().await, Some(true));
}

#[tokio::test]
async fn clients_are_sent_away_while_all_are_served() {
    let mut world = World::start().await;
    let (mut h1, mut h2) = (
        world.by_name(&world.a).user(world.a.user("jane")).http(false).await,
        world.by_name(&world.a).user(world.a.user("jane")).http(true).await,
    );
    assert!(!h1.get("/api").await.headers().contains_key("connection"));
    assert_eq!(text(h2.get("/api").await).await, "alpha");
    let idle = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    let leaving = world.drain.take().expect("trigger").leave(Duration::from_millis(200));
    let last = h1.get("/api").await;
    assert_eq!(last.headers()["connection"], "close");
    assert_eq!(text(last).await, "alpha");
    h1.closed().await;
    // By GOAWAY, although nobody drains yet.
    idle.left().await;
    h2.left().await;
    for is_http2 in [false, true] {
        let mut newcomer = world.by_port(&world.b).user(world.b.user("jane")).http(is_http2).await;
        assert_eq!(text(newcomer.get("/api").await).await, "beta");
    }
    assert!(leaving.drain(GRACE).await);
}

#[tokio::test]
async fn who_connected_just_before_the_drain_is_answered_once() {
    let mut world = World::start().await;
    let mut early = Vec::new();
    for is_http2 in [false, true] {
        early.push(world.by_name(&world.a).user(world.a.user("jane")).http(is_http2).await);
    }
    let unshaken = TcpStream::connect(world.address).await.expect("connected");
    let trigger = world.drain.take().expect("trigger");
    let draining = portico::runtime::task::spawn("drain", trigger.drain(GRACE));
    let [mut h1, mut h2] = <[_; 2]>::try_from(early).ok().expect("two");
    let (h1_answer, h2_answer) = tokio::join!(h1.get("/api"), h2.get("/api"));
    closed(&world).await;
    assert_eq!(h1_answer.headers()["connection"], "close");
    assert_eq!((text(h1_answer).await, text(h2_answer).await), ("alpha".to_owned(), "alpha".to_owned()));
    h1.closed().await;
    h2.closed().await;
    drop(unshaken);
    assert_eq!(draining.join().await, Some(true));
}
