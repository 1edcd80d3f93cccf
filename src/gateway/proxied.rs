//! Where a connection is from that comes through a load balancer: the header of the PROXY protocol, version 2, before
//! everything else (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).
//!
//! Promises: takes nothing of what follows the header. Only for peers that are trusted to write one.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::config::GatewayConfig;

/// Signature, command, family and the length of the rest.
const HEAD: usize = 16;
/// Addresses take 36 bytes; the rest is what load balancers add of themselves.
const MOST: usize = 2048;

/// Whether this peer is a load balancer that begins each connection with a header.
pub(super) fn is_relay(config: &GatewayConfig, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    config.proxy_protocol_from.iter().any(|range| range.contains(&peer))
}

/// Reads the header. `None`: the load balancer's own connection, a health check.
pub(super) async fn source(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<SocketAddr>> {
    let invalid = |why: &str| Error::new(ErrorKind::InvalidData, why.to_owned());
    let mut header = vec![0; HEAD];
    stream.read_exact(&mut header).await?;
    let rest = usize::from(u16::from_be_bytes([header[HEAD - 2], header[HEAD - 1]]));
    if !header.starts_with(b"\r\n\r\n\0\r\nQUIT\n") || rest > MOST {
        return Err(invalid("there is no header of the PROXY protocol, version 2"));
    }
    header.resize(HEAD + rest, 0);
    stream.read_exact(&mut header[HEAD..]).await?;
    let config = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };
    let (parsed, length) = ProxyHeader::parse(&header, config).map_err(|e| Error::new(ErrorKind::InvalidData, e))?;
    if length != header.len() {
        return Err(invalid("the header of the PROXY protocol is not as long as it says"));
    }
    Ok(parsed.proxied_address().map(|address| address.source))
}

#[cfg(test)]
mod tests {
    use proxy_header::ProxiedAddress;

    use super::*;

    async fn read(bytes: &[u8]) -> (std::io::Result<Option<SocketAddr>>, usize) {
        let mut rest = bytes;
        let outcome = source(&mut rest).await;
        (outcome, rest.len())
    }

    fn header(source: &str) -> Vec<u8> {
        let source: SocketAddr = source.parse().expect("address");
        let to = SocketAddr::new(source.ip(), 443);
        let mut bytes = Vec::new();
        ProxyHeader::with_address(ProxiedAddress::stream(source, to)).encode_v2(&mut bytes).expect("encoded");
        bytes
    }

    #[tokio::test]
    async fn headers_are_read_and_nothing_behind_them() {
        for address in ["192.0.2.7:4711", "[2001:db8::7]:4711"] {
            let (outcome, left) = read(&[header(address).as_slice(), b"hello"].concat()).await;
            assert_eq!((outcome.expect("read").expect("an address").to_string(), left), (address.to_owned(), 5));
        }
        let mut local = Vec::new();
        ProxyHeader::with_local().encode_v2(&mut local).expect("encoded");
        assert!(matches!(read(&local).await, (Ok(None), 0)));
    }

    #[tokio::test]
    async fn anything_else_is_an_error() {
        let whole = header("192.0.2.7:4711");
        let mut long = whole.clone();
        long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        let text = b"PROXY TCP4 192.0.2.7 192.0.2.1 1 443\r\n";
        for bytes in [&whole[..20], &whole[..8], b"", &long, text, &[22; 64]] {
            assert!(read(bytes).await.0.is_err(), "{bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(mut bytes: Vec<u8>, is_signed: bool) {
            if is_signed {
                bytes.splice(..0, *b"\r\n\r\n\0\r\nQUIT\n");
            }
            let _ = futures::FutureExt::now_or_never(read(&bytes));
        }
    }
}
