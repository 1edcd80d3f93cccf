//! Real sockets, a fake upstream resolver, two tenants.

use super::*;
use crate::config::DnsConfig;
use crate::crd;
use crate::dns::testing::{empty_zone, hostile_slice, list_services, list_slices, name, service};
use crate::dns::zone::{Bounds, Target};
use crate::runtime::{drain, task};
use hickory_proto::op::{Edns, Message, MessageType, Query};
use hickory_proto::rr::{RData, Record, RecordType};
use std::net::Ipv4Addr;
use std::sync::LazyLock;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn fill(zone: &Zone, name: &str, address: Ipv4Addr) {
    list_services(
        zone,
        vec![
            ("default", name, service(Target::ClusterIps(vec![address.into()]), vec![])),
            ("default", "many", service(Target::Headless, vec![])),
            ("default", "outside", service(Target::External("www.example.com".into()), vec![])),
        ],
    );
    list_slices(zone, vec![("default", "many-1", hostile_slice("many", 300, 0))]);
}

fn zone_with(name: &str, address: Ipv4Addr) -> Zone {
    let zone = empty_zone("cluster.local.", Bounds::default());
    fill(&zone, name, address);
    zone
}

/// A tenant's server on a free port.
struct Running {
    at: SocketAddr,
    zone: Arc<Zone>,
    limits: Arc<Limits>,
    _task: task::Task<Result<()>>,
    _drain: drain::DrainTrigger,
}

async fn start(zone: Zone, upstream: Vec<SocketAddr>) -> Running {
    let sockets = Sockets::bind(LOCAL, 0).await.expect("bound");
    let zone = Arc::new(zone);
    let clock = Clock::system();
    let forwarder = Arc::new(Forwarder::new(upstream, vec![], clock.clone()));
    let limits = granted(crd::Limits::default());
    let server = Server::new(Arc::clone(&zone), forwarder, Arc::clone(&limits), clock);
    let (trigger, drain) = drain::channel();
    let at = sockets.address().expect("address");
    let task = task::spawn("test-dns", async move { server.run(&sockets, drain).await });
    Running { at, zone, limits, _task: task, _drain: trigger }
}

fn granted(asked: crd::Limits) -> Arc<Limits> {
    let limits = Limits::default();
    limits.grant(asked.in_dns(&DnsConfig::default()));
    Arc::new(limits)
}

/// For longer than any test takes.
fn much_later() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// Answers every question with one address; forged answers come first.
async fn fake_resolver(truncates_udp: bool) -> (SocketAddr, task::Task) {
    let sockets = Sockets::bind(LOCAL, 0).await.expect("bound");
    let at = sockets.address().expect("address");
    let reply = move |bytes: &[u8], id_offset: u16, address: Ipv4Addr| {
        let query = Message::from_vec(bytes).expect("query");
        let mut reply = query.clone();
        reply.metadata.id = query.metadata.id.wrapping_add(id_offset);
        reply.metadata.message_type = MessageType::Response;
        let data = RData::A(address.into());
        reply.answers = vec![Record::from_rdata(query.queries[0].name().clone(), 60, data)];
        reply
    };
    let task = task::spawn("fake-resolver", async move {
        let mut buffer = vec![0; 2048];
        loop {
            tokio::select! {
                got = sockets.udp.recv_from(&mut buffer) => {
                    let (length, peer) = got.expect("received");
                    let forged = reply(&buffer[..length], 1, Ipv4Addr::new(6, 6, 6, 6));
                    sockets.udp.send_to(&forged.to_vec().expect("bytes"), peer).await.expect("sent");
                    let mut honest = reply(&buffer[..length], 0, Ipv4Addr::new(93, 184, 216, 34));
                    if truncates_udp {
                        honest.answers.clear();
                        honest.metadata.truncation = true;
                    }
                    sockets.udp.send_to(&honest.to_vec().expect("bytes"), peer).await.expect("sent");
                }
                got = sockets.tcp.accept() => {
                    let (mut stream, _) = got.expect("accepted");
                    let query = read_frame(&mut stream).await.expect("read").expect("query");
                    let bytes = reply(&query, 0, Ipv4Addr::new(93, 184, 216, 34)).to_vec().expect("bytes");
                    stream.write_u16(bytes.len() as u16).await.expect("sent");
                    stream.write_all(&bytes).await.expect("sent");
                }
            }
        }
    });
    (at, task)
}

fn query(asked: &str, edns: bool) -> Message {
    let mut query = message::ask(4711, Query::query(name(asked), RecordType::A));
    if edns {
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        query.edns = Some(edns);
    }
    query
}

async fn over_udp(at: SocketAddr, asked: &str, edns: bool) -> Message {
    let socket = UdpSocket::bind((LOCAL, 0)).await.expect("bound");
    socket.send_to(&query(asked, edns).to_vec().expect("bytes"), at).await.expect("sent");
    let mut buffer = vec![0; 65_535];
    let (length, from) = socket.recv_from(&mut buffer).await.expect("received");
    assert_eq!(from, at);
    let reply = Message::from_vec(&buffer[..length]).expect("reply");
    assert_eq!(reply.metadata.id, 4711);
    reply
}

async fn over_tcp(stream: &mut TcpStream, asked: &str) -> Message {
    let bytes = query(asked, false).to_vec().expect("bytes");
    stream.write_u16(bytes.len() as u16).await.expect("sent");
    stream.write_all(&bytes).await.expect("sent");
    let length = stream.read_u16().await.expect("length");
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await.expect("reply");
    Message::from_vec(&reply).expect("reply")
}

fn first(reply: &Message) -> Option<Ipv4Addr> {
    reply.answers.iter().find_map(|r| match &r.data {
        RData::A(a) => Some(a.0),
        _ => None,
    })
}

#[tokio::test]
async fn one_tenant_never_sees_anothers_names() {
    let (resolver, _resolver) = fake_resolver(false).await;
    let ours = start(zone_with("ours", Ipv4Addr::new(10, 96, 1, 1)), vec![resolver]).await;
    let theirs = start(zone_with("theirs", Ipv4Addr::new(10, 96, 2, 2)), vec![resolver]).await;
    let reply = over_udp(ours.at, "ours.default.svc.cluster.local.", false).await;
    assert_eq!(first(&reply), Some(Ipv4Addr::new(10, 96, 1, 1)));
    assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
    // The fake resolver answers everything, so an answer here would be a leak by forwarding.
    for hidden in ["theirs.default.svc.cluster.local.", "2.2.96.10.in-addr.arpa."] {
        let reply = over_udp(ours.at, hidden, false).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain, "{hidden}");
        assert!(reply.answers.is_empty());
        assert_eq!(reply.authorities.len(), 1);
        assert!(matches!(&reply.authorities[0].data, RData::SOA(soa) if soa.minimum == 5));
    }
    let reply = over_udp(theirs.at, "theirs.default.svc.cluster.local.", false).await;
    assert_eq!(first(&reply), Some(Ipv4Addr::new(10, 96, 2, 2)));
}

#[tokio::test]
async fn large_answers_come_again_over_tcp() {
    let server = start(zone_with("web", Ipv4Addr::new(10, 96, 1, 1)), vec![]).await;
    let plain = over_udp(server.at, "many.default.svc.cluster.local.", false).await;
    assert!(plain.metadata.truncation && plain.edns.is_none());
    let edns = over_udp(server.at, "many.default.svc.cluster.local.", true).await;
    assert!(edns.metadata.truncation && edns.edns.is_some() && edns.answers.len() > plain.answers.len());
    let mut stream = TcpStream::connect(server.at).await.expect("connected");
    for _ in 0..2 {
        let whole = over_tcp(&mut stream, "many.default.svc.cluster.local.").await;
        assert_eq!((whole.answers.len(), whole.metadata.truncation), (300, false));
    }
}

#[tokio::test]
async fn the_rest_is_forwarded_and_forged_answers_are_not_believed() {
    let (resolver, _resolver) = fake_resolver(false).await;
    let server = start(zone_with("web", Ipv4Addr::new(10, 96, 1, 1)), vec![resolver]).await;
    let honest = Some(Ipv4Addr::new(93, 184, 216, 34));
    assert_eq!(first(&over_udp(server.at, "example.com.", true).await), honest);
    let mut stream = TcpStream::connect(server.at).await.expect("connected");
    assert_eq!(first(&over_tcp(&mut stream, "example.com.").await), honest);
    // ExternalName: the alias and what it leads to, in this order.
    let reply = over_udp(server.at, "outside.default.svc.cluster.local.", false).await;
    assert_eq!((reply.answers[0].record_type(), first(&reply)), (RecordType::CNAME, honest));
}

#[tokio::test]
async fn an_alias_to_a_large_answer_is_fetched_over_tcp() {
    let (resolver, _resolver) = fake_resolver(true).await;
    let server = start(zone_with("web", Ipv4Addr::new(10, 96, 1, 1)), vec![resolver]).await;
    let reply = over_udp(server.at, "outside.default.svc.cluster.local.", false).await;
    assert_eq!(first(&reply), Some(Ipv4Addr::new(93, 184, 216, 34)));
    let reply = over_udp(server.at, "example.com.", false).await;
    assert!(reply.metadata.truncation, "the client asks again over TCP by itself");
}

#[tokio::test]
async fn without_data_or_a_resolver_the_client_is_told_to_try_again() {
    // Bound, and never answering would take the whole deadline; refused at once is enough here.
    let closed = Sockets::bind(LOCAL, 0).await.expect("bound").address().expect("address");
    let server = start(empty_zone("cluster.local.", Bounds::default()), vec![closed]).await;
    let reply = over_udp(server.at, "web.default.svc.cluster.local.", false).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    let reply = over_udp(server.at, "example.com.", false).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(server.limits.failures(), [1, 1, 0], "not ready, no resolver");
    // The zone fills while the sockets stay.
    fill(&server.zone, "web", Ipv4Addr::new(10, 96, 1, 1));
    let reply = over_udp(server.at, "web.default.svc.cluster.local.", false).await;
    assert_eq!(first(&reply), Some(Ipv4Addr::new(10, 96, 1, 1)));
}

/// What a hostile tenant writes: every name leads to as much as it can.
fn hostile_zone() -> Zone {
    let zone = zone_with("web", Ipv4Addr::new(10, 96, 1, 1));
    for i in 0..9 {
        let many = hostile_slice("many", 1000, 1000);
        zone.put_slice(9, "default", &format!("hostile-{i}"), many).expect("room");
    }
    zone
}

/// On one thread: a question that does not give way lets nobody else run.
#[tokio::test]
async fn a_flood_of_one_tenants_questions_leaves_another_its_turn() {
    const FLOOD: u16 = 100;
    let (hostile, other) = (start(hostile_zone(), vec![]).await, start(hostile_zone(), vec![]).await);
    let mut costly = query("many.default.svc.cluster.local.", true);
    costly.queries[0].query_type = RecordType::SRV;
    let flood = UdpSocket::bind((LOCAL, 0)).await.expect("bound");
    let mut stream = TcpStream::connect(hostile.at).await.expect("connected");
    let mut pipelined = Vec::new();
    for _ in 0..FLOOD {
        let bytes = costly.to_vec().expect("bytes");
        flood.try_send_to(&bytes, hostile.at).expect("sent without giving way");
        pipelined.extend(framed(&bytes));
    }
    stream.try_write(&pipelined).expect("sent without giving way");
    over_udp(other.at, "web.default.svc.cluster.local.", false).await;
    let (mut answered, mut buffer) = (0, vec![0; 65_535]);
    while flood.try_recv_from(&mut buffer).is_ok() {
        answered += 1;
    }
    assert!(answered < FLOOD / 2, "{answered} of {FLOOD} were answered first");
    // It is only later, not lost.
    let length = stream.read_u16().await.expect("length");
    stream.read_exact(&mut buffer[..usize::from(length)]).await.expect("reply");
    assert!(Message::from_vec(&buffer[..usize::from(length)]).expect("reply").answers.len() > 500);
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_answered_then_refused_then_dropped() {
    let limits = granted(crd::Limits { dns_questions_per_second: Some(10), ..crd::Limits::default() });
    let forwarder = Arc::new(Forwarder::new(vec![], vec![], Clock::system()));
    let server = Server::new(Arc::new(zone_with("web", Ipv4Addr::LOCALHOST)), forwarder, limits, Clock::system());
    let question = query("web.default.svc.cluster.local.", true).to_vec().expect("bytes");
    let ask = |transport| {
        let (mut answered, mut refused, mut dropped) = (0, 0, 0);
        for _ in 0..100 {
            match server.handle(&question, transport, true).0 {
                Step::Reply(reply) if rcode(&reply) == ResponseCode::NoError => answered += 1,
                Step::Reply(reply) if rcode(&reply) == ResponseCode::ServFail => refused += 1,
                Step::TooMany => dropped += 1,
                _ => panic!("neither"),
            }
        }
        (answered, refused, dropped)
    };
    assert_eq!(ask(Transport::Udp), (20, 20, 60));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(ask(Transport::Tcp), (10, 10, 80));
}

fn rcode(reply: &[u8]) -> ResponseCode {
    Message::from_vec(reply).expect("reply").metadata.response_code
}

#[tokio::test]
async fn one_tenant_over_its_budget_is_refused_and_another_is_answered() {
    let web = || zone_with("web", Ipv4Addr::new(10, 96, 1, 1));
    let (flooded, other) = (start(web(), vec![]).await, start(web(), vec![]).await);
    flooded.limits.worked(usize::MAX, much_later());
    let asked = "web.default.svc.cluster.local.";
    assert_eq!(over_udp(flooded.at, asked, true).await.metadata.response_code, ResponseCode::ServFail);
    let mut stream = TcpStream::connect(flooded.at).await.expect("connected");
    for _ in 0..2 {
        assert_eq!(over_tcp(&mut stream, asked).await.metadata.response_code, ResponseCode::ServFail);
    }
    assert!(first(&over_udp(other.at, asked, true).await).is_some());
}

/// Until even refusals are too many, as if it were `now`; then a flood beside it.
async fn flood(server: &Running, now: Instant) -> UdpSocket {
    server.limits.grant(crd::DnsLimits { dns_questions_per_second: 1, forwarded_questions_per_second: 1 });
    while server.limits.admit(now) != Admission::Drop {}
    let socket = UdpSocket::bind((LOCAL, 0)).await.expect("bound");
    let bytes = query("web.default.svc.cluster.local.", false).to_vec().expect("bytes");
    for _ in 0..2 * DROPPED_AT_ONCE {
        socket.send_to(&bytes, server.at).await.expect("sent");
    }
    socket
}

#[tokio::test]
async fn what_cannot_be_refused_any_more_is_dropped() {
    let web = || zone_with("web", Ipv4Addr::new(10, 96, 1, 1));
    let (flooded, other) = (start(web(), vec![]).await, start(web(), vec![]).await);
    let socket = flood(&flooded, much_later()).await;
    let asked = "web.default.svc.cluster.local.";
    let mut stream = TcpStream::connect(flooded.at).await.expect("connected");
    stream.write_all(&framed(&query(asked, false).to_vec().expect("bytes"))).await.expect("sent");
    assert!(stream.read_u16().await.is_err(), "closed without an answer");
    assert!(first(&over_udp(other.at, asked, true).await).is_some());
    assert!(socket.try_recv_from(&mut [0; 512]).is_err(), "nothing came");
}

#[tokio::test]
async fn after_a_flood_wider_limits_count_at_the_same_sockets() {
    let server = start(zone_with("web", Ipv4Addr::new(10, 96, 1, 1)), vec![]).await;
    let _socket = flood(&server, Instant::now()).await;
    server.limits.grant(crd::Limits::default().in_dns(&DnsConfig::default()));
    // What the flood left in the socket's buffer is answered first, or there was no room for the question.
    let answered = async {
        loop {
            let asking = over_udp(server.at, "web.default.svc.cluster.local.", false);
            match tokio::time::timeout(Duration::from_millis(100), asking).await {
                Ok(reply) if first(&reply).is_some() => break,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), answered).await.expect("answered in the end");
}

#[tokio::test]
async fn own_names_are_answered_while_too_many_are_forwarded() {
    let (resolver, _resolver) = fake_resolver(false).await;
    let server = start(zone_with("web", Ipv4Addr::new(10, 96, 1, 1)), vec![resolver]).await;
    assert!(first(&over_udp(server.at, "example.com.", false).await).is_some());
    while server.limits.may_forward(much_later()) {}
    let mut stream = TcpStream::connect(server.at).await.expect("connected");
    for outside in ["example.com.", "outside.default.svc.cluster.local."] {
        for reply in [over_udp(server.at, outside, false).await, over_tcp(&mut stream, outside).await] {
            assert_eq!(reply.metadata.response_code, ResponseCode::ServFail, "{outside}");
        }
    }
    assert_eq!(server.limits.failures(), [0; 3], "a limit is counted as one");
    let own = "web.default.svc.cluster.local.";
    assert!(
        first(&over_udp(server.at, own, false).await).is_some() && first(&over_tcp(&mut stream, own).await).is_some()
    );
}

static HOSTILE: LazyLock<Arc<Zone>> = LazyLock::new(|| Arc::new(hostile_zone()));

proptest::proptest! {
    #[test]
    fn every_answer_fits_its_transport(
        asked in proptest::sample::select(vec![
            "many.default.svc.cluster.local.", "_p7._tcp.many.default.svc.cluster.local.", "1.0.9.10.in-addr.arpa.",
            "10-9-0-1.many.default.svc.cluster.local.", "web.default.svc.cluster.local.", "nope.cluster.local.",
        ]),
        kind in proptest::sample::select(vec![RecordType::A, RecordType::SRV, RecordType::PTR, RecordType::ANY]),
        payload in proptest::option::of(proptest::num::u16::ANY),
        tcp in proptest::bool::ANY,
    ) {
        let forwarder = Arc::new(Forwarder::new(vec![], vec![], Clock::system()));
        let server = Server::new(Arc::clone(&HOSTILE), forwarder, granted(crd::Limits::default()), Clock::system());
        let mut question = query(asked, payload.is_some());
        question.queries[0].query_type = kind;
        if let (Some(edns), Some(payload)) = (&mut question.edns, payload) {
            edns.set_max_payload(payload);
        }
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let (step, _) = server.handle(&question.to_vec().expect("bytes"), transport, false);
        let Step::Reply(bytes) = step else { panic!("a reply") };
        let limit = if tcp { 65_535 } else { usize::from(payload.unwrap_or(512).clamp(512, 1232)) };
        let reply = Message::from_vec(&bytes).expect("reply");
        proptest::prop_assert!(bytes.len() <= limit, "{} bytes of {}", bytes.len(), limit);
        proptest::prop_assert_eq!(reply.edns.is_some(), payload.is_some());
        proptest::prop_assert!(!(tcp && reply.metadata.truncation));
    }
}
