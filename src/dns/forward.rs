//! Questions about the rest of the world, asked of the host's resolvers.
//!
//! Promises: every wait has a deadline, an answer is taken only from the address asked, with our id and our question,
//! from a fresh random port each time, and memory is taken for what came, not for what was announced. Owns nothing about
//! tenants; how many run at once, and how many of these over TCP, is the caller's bound.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::dns::message::{self, Transport};
use crate::error::{Error, Kind, Result};
use crate::runtime::clock::Clock;

/// One try at one resolver; stub resolvers wait 5 s in all, so two tries must fit.
const TRY: Duration = Duration::from_secs(2);
/// Rounds over all resolvers.
const ROUNDS: usize = 2;
/// All tries together.
const WHOLE: Duration = Duration::from_millis(4500);
/// Records taken of what an alias leads to. Names with more addresses exist only to be that.
const MOST_RECORDS: u16 = 256;

/// The host's resolvers.
#[derive(Debug, Clone)]
pub(crate) struct Forwarder {
    servers: Vec<SocketAddr>,
    foreign: Vec<Name>,
    clock: Clock,
}

/// What `/etc/resolv.conf` says, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    /// Resolvers.
    pub(crate) servers: Vec<SocketAddr>,
    /// Cluster domains among the search domains: `X` when `svc.X` is searched too.
    pub(crate) cluster_domains: Vec<Name>,
}

impl ResolvConf {
    /// Parses the file; unknown lines are skipped as resolvers do.
    pub(crate) fn parse(text: &str) -> Self {
        let mut servers = Vec::new();
        let mut search: Vec<&str> = Vec::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let ip = words.next().and_then(|w| w.parse::<IpAddr>().ok());
                    servers.extend(ip.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search") => search = words.collect(),
                _ => {}
            }
        }
        let cluster = search.iter().filter_map(|d| d.strip_prefix("svc.")).filter_map(|d| Name::from_ascii(d).ok());
        let fully = |mut name: Name| {
            name.set_fqdn(true);
            name.to_lowercase()
        };
        Self { servers, cluster_domains: cluster.map(fully).collect() }
    }
}

impl Forwarder {
    /// Forwards to `servers` in their order; `foreign` domains are never asked for.
    pub(crate) fn new(servers: Vec<SocketAddr>, foreign: Vec<Name>, clock: Clock) -> Self {
        Self { servers, foreign, clock }
    }

    /// Domains of the host cluster: its names are not for tenants.
    pub(crate) fn foreign(&self) -> &[Name] {
        &self.foreign
    }

    /// An unpredictable message id.
    pub(crate) fn id(&self) -> u16 {
        self.clock.random_below(1 << 16) as u16
    }

    /// Sends a query (under [`Forwarder::id`]) and returns the raw answer, tied to it by id, question and peer. Over TCP it
    /// waits for a permit of `large` first.
    pub(crate) async fn ask(&self, query: &Message, transport: Transport, large: &Semaphore) -> Result<Vec<u8>> {
        let bytes =
            query.to_vec().map_err(|e| Error::own(Kind::Internal, "a DNS query cannot be encoded").because(e))?;
        let tries = async {
            let _permit = match transport {
                Transport::Tcp => large.acquire().await.ok(),
                Transport::Udp => None,
            };
            let mut last = Error::own(Kind::Unavailable, "no DNS resolver is configured");
            for _ in 0..ROUNDS {
                for server in &self.servers {
                    let answer = match transport {
                        Transport::Udp => tokio::time::timeout(TRY, over_udp(*server, query, &bytes)).await,
                        Transport::Tcp => tokio::time::timeout(TRY, over_tcp(*server, query, &bytes)).await,
                    };
                    match answer {
                        // SERVFAIL and REFUSED are worth another resolver.
                        Ok(Ok(answer)) if matches!(rcode(&answer), 2 | 5) && self.servers.len() > 1 => {
                            last = Error::own(Kind::Unavailable, format!("resolver {server} refused"));
                        }
                        Ok(Ok(answer)) => return Ok(answer),
                        Ok(Err(error)) => last = error,
                        Err(_) => last = Error::own(Kind::Timeout, format!("resolver {server} did not answer")),
                    }
                }
            }
            Err(last)
        };
        tokio::time::timeout(WHOLE, tries)
            .await
            .unwrap_or_else(|_| Err(Error::own(Kind::Timeout, "no resolver answered in time")))
    }

    /// The first records of a name outside, aliases included; empty when there are none.
    pub(crate) async fn records(&self, name: Name, kind: RecordType, large: &Semaphore) -> Result<Vec<Record>> {
        let query = message::ask(self.id(), Query::query(name, kind));
        let mut answer = self.ask(&query, Transport::Udp, large).await?;
        if message::is_truncated(&answer) {
            answer = self.ask(&query, Transport::Tcp, large).await?;
        }
        if !matches!(rcode(&answer), 0 | 3) {
            return Err(Error::own(Kind::Unavailable, "the resolver failed"));
        }
        message::first_answers(&answer, MOST_RECORDS)
            .map_err(|e| Error::own(Kind::Protocol, "a resolver's answer cannot be read").because(e))
    }
}

fn rcode(answer: &[u8]) -> u8 {
    answer.get(3).map_or(2, |b| b & 0x0f)
}

fn broken(server: SocketAddr) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::own(Kind::Unavailable, format!("resolver {server} cannot be reached")).because(e)
}

async fn over_udp(server: SocketAddr, query: &Message, bytes: &[u8]) -> Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await.map_err(broken(server))?;
    // Connected: the kernel drops datagrams from anyone else.
    socket.connect(server).await.map_err(broken(server))?;
    socket.send(bytes).await.map_err(broken(server))?;
    let mut buffer = vec![0; usize::from(message::UDP_PAYLOAD) + 1];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(broken(server))?;
        let answer = buffer.get(..length).unwrap_or_default();
        if message::answers(query, answer) && length <= usize::from(message::UDP_PAYLOAD) {
            return Ok(answer.to_vec());
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &Message, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await.map_err(broken(server))?;
    let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    stream.write_all(&framed).await.map_err(broken(server))?;
    let length = stream.read_u16().await.map_err(broken(server))?;
    let mut answer = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut answer).await.map_err(broken(server))?;
    if answer.len() < usize::from(length) {
        return Err(Error::own(Kind::Closed, format!("resolver {server} broke off within an answer")));
    }
    if message::answers(query, &answer) {
        Ok(answer)
    } else {
        Err(Error::own(Kind::Protocol, format!("resolver {server} answered another question")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_cluster_domain_is_found_in_its_search_list() {
        let text = "# made by the kubelet\nsearch portico-system.svc.Cluster.Corp svc.cluster.corp cluster.corp lan\n\
                    nameserver 10.96.0.10\nnameserver fd00::a\nnameserver nonsense\noptions ndots:5\n";
        let conf = ResolvConf::parse(text);
        assert_eq!(conf.servers.len(), 2);
        assert_eq!(conf.cluster_domains, [Name::from_ascii("cluster.corp.").expect("name")]);
        assert_eq!(ResolvConf::parse(""), ResolvConf::default());
    }
}
