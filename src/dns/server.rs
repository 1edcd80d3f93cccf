//! One tenant's DNS sockets: UDP and TCP on one port, one task, everything bounded.
//!
//! Promises: local answers never wait for forwarded ones; what does not fit the bounds is refused at once, so that a
//! tenant can only exhaust its own; the task gives way to others' after about a millisecond of answering, however many
//! questions wait; of a flood the kernel drops what cannot be refused any more. Knows one zone.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::dns::forward::Forwarder;
use crate::dns::limits::{Admission, Failure, Limits};
use crate::dns::message::{self, Asked, Incoming, Sections, Transport};
use crate::dns::resolve::{self, Outcome};
use crate::dns::zone::Zone;
use crate::error::{Error, Kind, Result};
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::runtime::yielding;

/// Forwarded questions of one tenant at once, each with one socket and at most 4.5 s long.
const MAX_FORWARDED: usize = 256;
/// TCP connections of one tenant at once.
const MAX_CONNECTIONS: usize = 64;
/// Questions of one tenant that are forwarded over TCP at once: each may bring 64 KiB.
const MAX_LARGE: usize = 32;
/// RFC 7766 wants seconds, not minutes.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// For questions that are being forwarded when the drain begins; new ones go elsewhere since this replica left.
const LINGER: Duration = Duration::from_secs(1);
/// Questions over UDP that are read and dropped before nothing is read for a while: as many as wait in a socket of the
/// usual size, so that none is answered too late.
const DROPPED_AT_ONCE: usize = 256;
/// How long nothing is read then, and how long a connection goes on that is closed for too many questions.
const REST: Duration = Duration::from_millis(20);
/// Ports tried for one that is free for UDP and TCP, when any will do.
const ANY_PORT_TRIES: usize = 64;

/// What answers are made from.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    zone: Arc<Zone>,
    forwarder: Arc<Forwarder>,
    limits: Arc<Limits>,
    clock: Clock,
    large: Arc<Semaphore>,
}

/// Both sockets of one port.
#[derive(Debug)]
pub(crate) struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds both. For port 0 the kernel chooses among the UDP ports only, so a TCP socket may hold the one it gives:
    /// then another is asked for.
    pub(crate) async fn bind(address: IpAddr, port: u16) -> Result<Self> {
        for _ in 1..ANY_PORT_TRIES {
            match Self::bind_once(address, port).await {
                Err(_) if port == 0 => {}
                bound => return bound,
            }
        }
        Self::bind_once(address, port).await
    }

    async fn bind_once(address: IpAddr, port: u16) -> Result<Self> {
        let at = SocketAddr::new(address, port);
        let failed = |e: std::io::Error| Error::own(Kind::Unavailable, format!("cannot listen on {at}")).because(e);
        let udp = UdpSocket::bind(at).await.map_err(failed)?;
        let tcp = TcpListener::bind(udp.local_addr().map_err(failed)?).await.map_err(failed)?;
        Ok(Self { udp, tcp })
    }

    /// The address on which it listens.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        self.udp.local_addr().map_err(|e| Error::own(Kind::Internal, "a socket without an address").because(e))
    }
}

/// A step towards an answer.
enum Step {
    Nothing,
    /// Nothing, since there are too many questions.
    TooMany,
    Reply(Vec<u8>),
    Later(Pin<Box<dyn Future<Output = Vec<u8>> + Send>>),
}

impl Server {
    /// Answers from `zone`, and asks `forwarder` for the rest, both within `limits`; `clock` orders the answers.
    pub(crate) fn new(zone: Arc<Zone>, forwarder: Arc<Forwarder>, limits: Arc<Limits>, clock: Clock) -> Self {
        Self { zone, forwarder, limits, clock, large: Arc::new(Semaphore::new(MAX_LARGE)) }
    }

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
        let (mut dropped, mut rest) = (0, None);
        loop {
            let (bytes, peer) = tokio::select! {
                () = tokio::time::sleep_until(rest.unwrap_or_else(Instant::now)), if rest.is_some() => {
                    rest = None;
                    continue;
                }
                got = socket.recv_from(&mut buffer), if rest.is_none() => {
                    let (length, peer) = got.map_err(|e| Error::own(Kind::Unavailable, "a UDP socket broke").because(e))?;
                    let query = buffer.get(..length).unwrap_or_default();
                    let (step, work) = self.handle(query, Transport::Udp, later.len() < MAX_FORWARDED);
                    yielding::charge(work).await;
                    match step {
                        Step::Nothing => continue,
                        Step::TooMany => {
                            dropped = (dropped + 1) % DROPPED_AT_ONCE;
                            rest = (dropped == 0).then(|| self.clock.instant() + REST);
                            continue;
                        }
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
            let (step, work) = self.handle(&query, Transport::Tcp, true);
            yielding::charge(work).await;
            let frame = match step {
                Step::Nothing => return,
                Step::TooMany => return tokio::time::sleep(REST).await,
                Step::Reply(bytes) => framed(&bytes),
                Step::Later(answer) => framed(&answer.await),
            };
            match tokio::time::timeout(TCP_IDLE, stream.write_all(&frame)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    }

    /// What a query leads to, and how much work it was.
    fn handle(&self, query: &[u8], transport: Transport, has_room: bool) -> (Step, usize) {
        let now = self.clock.instant();
        match self.limits.admit(now) {
            Admission::Answer => {}
            Admission::Refuse => return (message::refuse(query).map_or(Step::Nothing, Step::Reply), 1),
            Admission::Drop => return (Step::TooMany, 1),
        }
        let asked = match message::read(query, transport) {
            Incoming::Query(asked) => asked,
            Incoming::Refused(reply) => return (Step::Reply(reply), 1),
            Incoming::Ignored => return (Step::Nothing, 1),
        };
        let (name, kind) = (asked.question().name(), asked.question().query_type());
        let turn = self.clock.random_below(u64::MAX);
        let question = resolve::Asked { name, kind, room: asked.limit(), turn };
        let (outcome, work) = resolve::resolve(&self.zone, &question, self.forwarder.foreign());
        self.limits.worked(work, now);
        let leaves = matches!(outcome, Outcome::Alias { .. } | Outcome::Outside);
        if leaves && !has_room {
            self.limits.failed(Failure::Room);
        }
        let may_forward = leaves && has_room && self.limits.may_forward(now);
        (self.step(asked, outcome, may_forward), work)
    }

    fn step(&self, asked: Box<Asked>, outcome: Outcome, may_forward: bool) -> Step {
        let authority = || resolve::soa(&self.zone).into_iter().collect();
        let negative = |code| asked.answer(code, true, Sections { authorities: authority(), ..Sections::default() });
        match outcome {
            Outcome::Found { mut answers, additionals } => {
                self.rotate(&mut answers);
                let sections = Sections { answers, additionals, ..Sections::default() };
                Step::Reply(asked.answer(ResponseCode::NoError, true, sections))
            }
            Outcome::NoData => Step::Reply(negative(ResponseCode::NoError)),
            Outcome::NoName => Step::Reply(negative(ResponseCode::NXDomain)),
            Outcome::NotYet => {
                self.limits.failed(Failure::NotReady);
                Step::Reply(asked.failure(ResponseCode::ServFail))
            }
            Outcome::Alias { .. } | Outcome::Outside if !may_forward => {
                Step::Reply(asked.failure(ResponseCode::ServFail))
            }
            Outcome::Outside => Step::Later(Box::pin(outside(self.clone(), asked))),
            Outcome::Alias { chain, target } => Step::Later(Box::pin(alias(self.clone(), asked, chain, target))),
        }
    }

    /// Spreads clients that take the first address; records of an alias chain keep their order.
    fn rotate(&self, answers: &mut [Record]) {
        let one_set = answers.windows(2).all(|pair| matches!(pair, [a, b] if a.record_type() == b.record_type()));
        if one_set && answers.len() > 1 {
            let by = self.clock.random_below(answers.len() as u64) as usize;
            answers.rotate_left(by);
        }
    }
}

async fn outside(server: Server, asked: Box<Asked>) -> Vec<u8> {
    let query = asked.upstream(server.forwarder.id());
    match server.forwarder.ask(&query, asked.transport(), &server.large).await {
        Ok(answer) => asked.relay(answer),
        Err(error) => failed(&server, &asked, &error),
    }
}

async fn alias(server: Server, asked: Box<Asked>, chain: Vec<Record>, target: Name) -> Vec<u8> {
    match server.forwarder.records(target, asked.question().query_type(), &server.large).await {
        Ok(found) => {
            yielding::charge(found.len()).await;
            let answers = chain.into_iter().chain(found).collect();
            asked.answer(ResponseCode::NoError, true, Sections { answers, ..Sections::default() })
        }
        Err(error) => failed(&server, &asked, &error),
    }
}

fn failed(server: &Server, asked: &Asked, error: &Error) -> Vec<u8> {
    server.limits.failed(Failure::Resolvers);
    tracing::debug!(%error, "a DNS question could not be forwarded");
    asked.failure(ResponseCode::ServFail)
}

/// With its length before it. The answer itself goes at once: a slow reader holds one copy.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(2 + bytes.len());
    frame.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    frame.extend_from_slice(bytes);
    frame
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
