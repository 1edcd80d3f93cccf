//! Names that stand for addresses, below `in-addr.arpa` and `ip6.arpa`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A name below `in-addr.arpa` or `ip6.arpa`.
pub(super) enum Reverse {
    /// An address.
    Whole(IpAddr),
    /// A prefix (or nonsense), with the address that begins it.
    Part(IpAddr),
}

impl Reverse {
    /// Reads a name's labels; none when it is below neither.
    pub(super) fn parse(labels: &[String]) -> Option<Self> {
        let (rest, arpa) = (labels.len().checked_sub(2)?, labels.last()?);
        let (labels, zone) = (&labels[..rest], &labels[rest]);
        match (zone.as_str(), arpa.as_str()) {
            ("in-addr", "arpa") => {
                let octets: Option<Vec<u8>> = labels.iter().rev().map(|l| l.parse().ok()).collect();
                let octets = octets.unwrap_or_default();
                let at = |i: usize| octets.get(i).copied().unwrap_or(0);
                let address = IpAddr::V4(Ipv4Addr::new(at(0), at(1), at(2), at(3)));
                Some(if octets.len() == 4 { Self::Whole(address) } else { Self::Part(address) })
            }
            ("ip6", "arpa") => {
                let nibble = |l: &String| if l.len() == 1 { u8::from_str_radix(l, 16).ok() } else { None };
                let nibbles: Vec<u8> = labels.iter().rev().map(nibble).collect::<Option<_>>().unwrap_or_default();
                let bits = (0..32).fold(0u128, |bits, i| bits << 4 | u128::from(nibbles.get(i).copied().unwrap_or(0)));
                let address = IpAddr::V6(Ipv6Addr::from_bits(bits));
                Some(if nibbles.len() == 32 { Self::Whole(address) } else { Self::Part(address) })
            }
            _ => None,
        }
    }

    /// RFC 6303: private addresses are nobody else's business, and on a host they would name other tenants' objects.
    pub(super) fn is_private(&self) -> bool {
        let (Self::Whole(address) | Self::Part(address)) = self;
        match address {
            IpAddr::V4(v4) => {
                let [a, b, ..] = v4.octets();
                let shared = a == 100 && (64..128).contains(&b);
                let prefix = matches!(self, Self::Part(_)) && matches!(a, 0 | 100 | 169 | 172 | 192);
                v4.is_private() || v4.is_loopback() || v4.is_link_local() || a == 0 || shared || prefix
            }
            IpAddr::V6(v6) => {
                let local = v6.is_unique_local() || v6.is_unicast_link_local();
                local || v6.is_loopback() || v6.is_unspecified()
            }
        }
    }
}
