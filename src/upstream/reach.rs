//! Which addresses may be dialed for a server that a user chose.
//!
//! Promises: judged is the very address that is then connected to, in every form that leads to the same place; of two networks
//! that hold it the narrower one counts. Where Portico itself chose (the host, control planes), nothing is judged. Must not
//! know who chose, or who says what is allowed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::RwLock;

/// The machine itself, its links, many machines, or a place that the address does not tell: nobody's API server is there.
const NOWHERE: [&str; 12] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    // Translators that a site has for itself (RFC 8215): where in the address the other one stands is theirs to say.
    "64:ff9b:1::/48",
    // Teredo.
    "2001::/32",
];

/// Who may be dialed. By default everybody.
#[derive(Debug, Clone, Default)]
pub struct Reach(Option<Arc<Rules>>);

/// Networks that are closed because of what is there; told while the process runs. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Closed(Arc<RwLock<Arc<[IpNet]>>>);

/// An address that is not connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(pub IpAddr);

#[derive(Debug)]
struct Rules {
    allowed: Vec<IpNet>,
    denied: Vec<IpNet>,
    closed: Closed,
}

impl Reach {
    /// Judged by these networks; where an allowed and another one are equally narrow, the allowed one counts.
    pub fn judged(allowed: &[IpNet], denied: &[IpNet], closed: &Closed) -> Self {
        let nowhere = NOWHERE.iter().filter_map(|text| text.parse::<IpNet>().ok());
        let denied = nowhere.chain(denied.iter().copied()).collect();
        Self(Some(Arc::new(Rules { allowed: allowed.to_vec(), denied, closed: closed.clone() })))
    }

    /// Whether every address may be dialed.
    pub fn is_anywhere(&self) -> bool {
        self.0.is_none()
    }

    /// Why this address may not be dialed. Sends nothing.
    pub fn refusal(&self, to: SocketAddr) -> Option<Refusal> {
        let rules = self.0.as_ref()?;
        let is_own = |form| is_own(SocketAddr::new(form, to.port())) && !rules.is_allowed_by_name(form);
        let refused = rules.refuses(to.ip()) || forms(to.ip()).into_iter().flatten().any(is_own);
        refused.then_some(Refusal(to.ip()))
    }
}

impl Closed {
    /// From now on these and no others.
    pub fn set(&self, networks: Vec<IpNet>) {
        *self.0.write() = networks.into();
    }
}

impl Rules {
    fn refuses(&self, address: IpAddr) -> bool {
        let closed = Arc::clone(&self.closed.0.read());
        forms(address).into_iter().flatten().any(|form| {
            let denied = narrowest(&self.denied, form).max(narrowest(&closed, form));
            denied > narrowest(&self.allowed, form)
        })
    }

    /// Whether this one address is listed, and no network around it.
    fn is_allowed_by_name(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        narrowest(&self.allowed, address) == Some(IpNet::from(address).prefix_len())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Refusal {}

/// Length of the narrowest network that holds the address.
fn narrowest(networks: &[IpNet], address: IpAddr) -> Option<u8> {
    networks.iter().filter(|network| network.contains(&address)).map(IpNet::prefix_len).max()
}

/// The address, and the one that packets to it end at where a translator or a tunnel is on the way.
fn forms(address: IpAddr) -> [Option<IpAddr>; 2] {
    let address = address.to_canonical();
    let inner = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => embedded(address),
    };
    [Some(address), inner.map(IpAddr::V4)]
}

fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let at = |start: usize| Some(Ipv4Addr::new(octets[start], octets[start + 1], octets[start + 2], octets[start + 3]));
    match address.segments() {
        // IPv4-compatible, but for `::` and `::1`, which mean what they are.
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => at(12),
        // IPv4-translated (RFC 2765), NAT64 (RFC 6052), ISATAP (RFC 5214).
        [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] | [_, _, _, _, 0 | 0x200, 0x5efe, ..] => at(12),
        // 6to4 (RFC 3056).
        [0x2002, ..] => at(2),
        _ => None,
    }
}

/// Whether the address is one of this machine's: what is sent to one comes from that very address. A UDP socket says it
/// without a packet.
fn is_own(to: SocketAddr) -> bool {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let Ok(socket) = UdpSocket::bind((any, 0)) else { return true };
    // Without a way there nothing is there.
    socket.connect(to).is_ok() && socket.local_addr().is_ok_and(|from| from.ip() == to.ip())
}

#[cfg(test)]
mod tests;
