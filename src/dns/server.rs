//! One tenant's DNS sockets: UDP and TCP on one port, one task, everything bounded.
//!
//! Promises: local answers never wait for forwarded ones; what does not fit the bounds is refused at once, so that a
//! tenant can only exhaust its own. Knows one zone.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_proto::op::ResponseCode;
use parking_lot::RwLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::clock::Clock;
use crate::dns::forward::Forwarder;
use crate::dns::message::{self, Asked, Incoming, Sections, Transport};
use crate::dns::resolve::{self, Outcome};
use crate::dns::zone::Zone;
use crate::drain::Drain;
use crate::error::{Error, Kind, Result};

/// Forwarded questions of one tenant at once, each with one socket and at most 4.5 s long.
const MAX_FORWARDED: usize = 256;
/// TCP connections of one tenant at once.
const MAX_CONNECTIONS: usize = 64;
/// RFC 7766 wants seconds, not minutes.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// kube-proxy needs a moment to learn that this replica is going.
const LINGER: Duration = Duration::from_secs(3);

/// What answers are made from.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// The tenant's names.
    pub(crate) zone: Arc<RwLock<Zone>>,
    /// The way out.
    pub(crate) forwarder: Arc<Forwarder>,
    /// For the order of answers.
    pub(crate) clock: Clock,
}

/// Both sockets of one port.
#[derive(Debug)]
pub(crate) struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds both.
    pub(crate) async fn bind(address: IpAddr, port: u16) -> Result<Self> {
        let at = SocketAddr::new(address, port);
        let failed = |e: std::io::Error| Error::own(Kind::Unavailable, format!("cannot listen on {at}")).because(e);
        let udp = UdpSocket::bind(at).await.map_err(failed)?;
        let tcp = TcpListener::bind(udp.local_addr().map_err(failed)?).await.map_err(failed)?;
        Ok(Self { udp, tcp })
    }

    /// Where.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        self.udp.local_addr().map_err(|e| Error::own(Kind::Internal, "a socket without an address").because(e))
    }
}

/// A step towards an answer.
enum Step {
    Nothing,
    Reply(Vec<u8>),
    Later(Pin<Box<dyn Future<Output = Vec<u8>> + Send>>),
}

impl Server {
    /// Serves until the drain has begun and lingered, or a socket breaks.
    pub(crate) async fn run(&self, sockets: &Sockets, mut drain: Drain) -> Result<()> {
        let gone = async {
            drain.signaled().await;
            tokio::time::sleep(LINGER).await;
        };
        tokio::select! {
            broken = self.datagrams(&sockets.udp) => broken,
            broken = self.streams(&sockets.tcp) => broken,
            () = gone => Ok(()),
        }
    }

    async fn datagrams(&self, socket: &UdpSocket) -> Result<()> {
        let mut later = FuturesUnordered::new();
        let mut buffer = vec![0; message::LARGEST_QUERY];
        loop {
            let (bytes, peer) = tokio::select! {
                got = socket.recv_from(&mut buffer) => {
                    let (length, peer) = got.map_err(|e| Error::own(Kind::Unavailable, "a UDP socket broke").because(e))?;
                    let query = buffer.get(..length).unwrap_or_default();
                    match self.handle(query, Transport::Udp, later.len() < MAX_FORWARDED) {
                        Step::Nothing => continue,
                        Step::Reply(bytes) => (bytes, peer),
                        Step::Later(answer) => {
                            later.push(async move { (answer.await, peer) });
                            continue;
                        }
                    }
                }
                Some(done) = later.next() => done,
            };
            // Never waits: a full send buffer drops the datagram, as the network would, and the client asks again.
            if let Err(error) = socket.try_send_to(&bytes, peer) {
                tracing::debug!(%error, "a DNS answer was not sent");
            }
        }
    }

    async fn streams(&self, listener: &TcpListener) -> Result<()> {
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if open.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => open.push(self.connection(stream)),
                    Err(error) => {
                        // Out of descriptors, or a client that has left already.
                        tracing::debug!(%error, "a DNS connection was not accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(()) = open.next() => {}
            }
        }
    }

    async fn connection(&self, mut stream: TcpStream) {
        loop {
            let next = tokio::time::timeout(TCP_IDLE, read_frame(&mut stream)).await;
            let Ok(Ok(Some(query))) = next else { return };
            let bytes = match self.handle(&query, Transport::Tcp, true) {
                Step::Nothing => return,
                Step::Reply(bytes) => bytes,
                Step::Later(answer) => answer.await,
            };
            let mut frame = (bytes.len() as u16).to_be_bytes().to_vec();
            frame.extend_from_slice(&bytes);
            match tokio::time::timeout(TCP_IDLE, stream.write_all(&frame)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    }

    fn handle(&self, query: &[u8], transport: Transport, may_forward: bool) -> Step {
        let asked = match message::read(query, transport) {
            Incoming::Query(asked) => asked,
            Incoming::Refused(reply) => return Step::Reply(reply),
            Incoming::Ignored => return Step::Nothing,
        };
        let zone = self.zone.read();
        let (name, kind) = (asked.question().name(), asked.question().query_type());
        let authority = || resolve::soa(&zone).into_iter().collect();
        let negative = |code| asked.answer(code, true, Sections { authorities: authority(), ..Sections::default() });
        match resolve::resolve(&zone, name, kind, self.forwarder.foreign()) {
            Outcome::Found { mut answers, additionals } => {
                self.rotate(&mut answers);
                let sections = Sections { answers, additionals, ..Sections::default() };
                Step::Reply(asked.answer(ResponseCode::NoError, true, sections))
            }
            Outcome::NoData => Step::Reply(negative(ResponseCode::NoError)),
            Outcome::NoName => Step::Reply(negative(ResponseCode::NXDomain)),
            Outcome::NotYet => Step::Reply(asked.failure(ResponseCode::ServFail)),
            Outcome::Alias { .. } | Outcome::Outside if !may_forward => {
                Step::Reply(asked.failure(ResponseCode::ServFail))
            }
            Outcome::Outside => Step::Later(Box::pin(outside(Arc::clone(&self.forwarder), asked))),
            Outcome::Alias { chain, target } => {
                let forwarder = Arc::clone(&self.forwarder);
                Step::Later(Box::pin(async move {
                    match forwarder.records(target, asked.question().query_type()).await {
                        Ok(found) => {
                            let answers = chain.into_iter().chain(found).collect();
                            asked.answer(ResponseCode::NoError, true, Sections { answers, ..Sections::default() })
                        }
                        Err(error) => failed(&asked, &error),
                    }
                }))
            }
        }
    }

    /// Spreads clients that take the first address; records of an alias chain keep their order.
    fn rotate(&self, answers: &mut [hickory_proto::rr::Record]) {
        let one_set = answers.windows(2).all(|pair| matches!(pair, [a, b] if a.record_type() == b.record_type()));
        if one_set && answers.len() > 1 {
            let by = self.clock.random_below(answers.len() as u64) as usize;
            answers.rotate_left(by);
        }
    }
}

async fn outside(forwarder: Arc<Forwarder>, asked: Box<Asked>) -> Vec<u8> {
    let query = asked.upstream(forwarder.id());
    match forwarder.ask(&query, asked.transport()).await {
        Ok(answer) => asked.relay(answer),
        Err(error) => failed(&asked, &error),
    }
}

fn failed(asked: &Asked, error: &Error) -> Vec<u8> {
    tracing::debug!(%error, "a DNS question could not be forwarded");
    asked.failure(ResponseCode::ServFail)
}

async fn read_frame(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let length = usize::from(stream.read_u16().await?);
    if length > message::LARGEST_QUERY {
        return Ok(None);
    }
    let mut query = vec![0; length];
    stream.read_exact(&mut query).await?;
    Ok(Some(query))
}

#[cfg(test)]
mod tests;
