//! Real sockets, a fake upstream resolver, two tenants.

use super::*;
use crate::dns::zone::{Endpoint, Origin, Service, Slice, Target};
use crate::{drain, task};
use hickory_proto::op::{Edns, Message, MessageType, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::Ipv4Addr;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("name")
}

fn empty_zone(domain: &str) -> Zone {
    let (api, dns) = (Ipv4Addr::new(10, 96, 0, 1).into(), Ipv4Addr::new(10, 96, 0, 53).into());
    Zone::new(Origin { domain: name(domain), api, dns })
}

fn zone_with(service: &str, address: Ipv4Addr) -> Zone {
    let mut zone = empty_zone("cluster.local.");
    let target = Target::ClusterIps(vec![address.into()]);
    let found = Service { target, ports: vec![], publish_not_ready: false };
    let many = Service { target: Target::Headless, ports: vec![], publish_not_ready: false };
    let outside =
        Service { target: Target::External("www.example.com".into()), ports: vec![], publish_not_ready: false };
    zone.replace_services(vec![
        ("default".into(), service.into(), found),
        ("default".into(), "many".into(), many),
        ("default".into(), "outside".into(), outside),
    ]);
    let endpoints = (0..300)
        .map(|i| Endpoint { address: Ipv4Addr::from_bits(0x0a00_0000 + i).into(), hostname: None, ready: true })
        .collect();
    zone.replace_slices(vec![(
        "default".into(),
        "many-1".into(),
        Slice { service: "many".into(), endpoints, ports: vec![] },
    )]);
    zone
}

/// A tenant's server on a free port.
struct Running {
    at: SocketAddr,
    zone: Arc<RwLock<Zone>>,
    _task: task::Task<Result<()>>,
    _drain: drain::DrainTrigger,
}

async fn start(zone: Zone, upstream: Vec<SocketAddr>) -> Running {
    let sockets = Sockets::bind(LOCAL, 0).await.expect("bound");
    let zone = Arc::new(RwLock::new(zone));
    let clock = Clock::system();
    let forwarder = Arc::new(Forwarder::new(upstream, vec![], clock.clone()));
    let server = Server { zone: Arc::clone(&zone), forwarder, clock };
    let (trigger, drain) = drain::channel();
    let at = sockets.address().expect("address");
    let task = task::spawn("test-dns", async move { server.run(&sockets, drain).await });
    Running { at, zone, _task: task, _drain: trigger }
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
    let server = start(empty_zone("cluster.local."), vec![closed]).await;
    let reply = over_udp(server.at, "web.default.svc.cluster.local.", false).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    let reply = over_udp(server.at, "example.com.", false).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    // The zone fills while the sockets stay.
    *server.zone.write() = zone_with("web", Ipv4Addr::new(10, 96, 1, 1));
    let reply = over_udp(server.at, "web.default.svc.cluster.local.", false).await;
    assert_eq!(first(&reply), Some(Ipv4Addr::new(10, 96, 1, 1)));
}
