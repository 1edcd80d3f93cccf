//! ClientHellos that no client sends, written by hand, and whatever SNI, authority and path can say together.
//!
//! They are of TLS 1.2, where the certificate that the gateway chooses comes back in the clear.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{Cluster, Dial, PATIENCE, World, text};

const SERVER_NAME: u16 = 0;
const GROUPS: u16 = 10;
const SIGNATURES: u16 = 13;
const PADDING: u16 = 21;
/// Values that stand for what is not known yet (RFC 8701).
const GREASE: u16 = 0x1a1a;
/// What one record may carry.
const RECORD: usize = 16 << 10;
const ALERT: u8 = 21;
const HELLO_DONE: &[u8] = &[14, 0, 0, 0];

fn counted(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), counted(content)].concat()
}

fn names(names: &[&[u8]]) -> Vec<u8> {
    let list: Vec<_> = names.iter().map(|name| [vec![0], counted(name)].concat()).collect();
    extension(SERVER_NAME, &counted(&list.concat()))
}

/// The message with these extensions before those that it needs.
fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let all = [
        extensions.concat(),
        extension(GROUPS, &counted(&[GREASE.to_be_bytes(), [0, 29], [0, 23]].concat())),
        extension(SIGNATURES, &counted(&[4, 3, 8, 4, 8, 7, 4, 1])),
    ]
    .concat();
    let ciphers = [GREASE.to_be_bytes(), [0xc0, 0x2b], [0xc0, 0x2f], [0xcc, 0xa9]].concat();
    let body = [vec![3, 3], vec![7; 32], vec![0], counted(&ciphers), vec![1, 0], counted(&all)].concat();
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    [&[1, length[1], length[2], length[3]], &body[..]].concat()
}

/// The message in records, cut at these places.
fn records(message: &[u8], at: &[usize]) -> Vec<u8> {
    let mut cuts: Vec<usize> = (0..message.len()).step_by(RECORD).chain(at.iter().copied()).collect();
    cuts.push(message.len());
    cuts.sort_unstable();
    let pieces = cuts.windows(2).filter(|pair| pair[0] < pair[1]).map(|pair| &message[pair[0]..pair[1]]);
    pieces.flat_map(|piece| [vec![22, 3, 1], counted(piece)].concat()).collect()
}

/// Whose certificate comes back for these pieces of a ClientHello: `alpha`, `beta`, `portico`, or nobody's.
async fn shown(world: &World, pieces: &[&[u8]]) -> &'static str {
    let mut stream = TcpStream::connect(world.address).await.expect("connected");
    stream.set_nodelay(true).expect("a socket");
    for piece in pieces {
        if stream.write_all(piece).await.is_err() {
            break;
        }
        // So that each arrives by itself.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut answer = Vec::new();
    while answer.first() != Some(&ALERT) && !answer.ends_with(HELLO_DONE) {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut answer)).await.expect("an answer in time");
        if read.unwrap_or_default() == 0 {
            break;
        }
    }
    let has = |name: &str| answer.windows(name.len()).any(|bytes| bytes == name.as_bytes());
    let of = [("alpha.example.com", "alpha"), ("beta.example.com", "beta"), ("portico.example.com", "portico")];
    of.into_iter().find(|(name, _)| has(name)).map_or("nobody", |(_, who)| who)
}

/// RUSTSEC-2024-0399: cut at every byte, over the wire and over records.
#[tokio::test]
async fn a_client_hello_cut_anywhere_is_understood() {
    let world = World::start().await;
    let message = hello(&[names(&[b"alpha.example.com"])]);
    let whole = records(&message, &[]);
    assert_eq!(shown(&world, &[&whole]).await, "alpha");
    for at in 1..whole.len() {
        assert_eq!(shown(&world, &[&whole[..at], &whole[at..]]).await, "alpha", "cut at {at}");
    }
    for at in 1..message.len() {
        assert_eq!(shown(&world, &[&records(&message, &[at])]).await, "alpha", "records cut at {at}");
    }
}

/// What is odd, the extensions, and whose certificate may be shown.
type Case<'a> = (&'a str, Vec<Vec<u8>>, &'a [&'a str]);

#[tokio::test]
async fn odd_client_hellos_show_nobody_elses_certificate() {
    let world = World::start().await;
    let (alpha, beta): (&[u8], &[u8]) = (b"alpha.example.com", b"beta.example.com");
    let cases: Vec<Case<'_>> = vec![
        ("GREASE", vec![extension(GREASE, &[]), names(&[alpha]), extension(GREASE + 0x1010, b"x")], &["alpha"]),
        ("no name", vec![], &["portico"]),
        ("upper case", vec![names(&[b"ALPHA.Example.COM"])], &["alpha"]),
        ("a final dot", vec![names(&[b"alpha.example.com."])], &["alpha", "nobody", "portico"]),
        ("an address", vec![names(&[b"127.0.0.1"])], &["portico", "nobody"]),
        ("two names", vec![names(&[alpha, beta])], &["nobody"]),
        ("two lists", vec![names(&[alpha]), names(&[beta])], &["nobody"]),
        ("an empty name", vec![names(&[b""])], &["nobody"]),
        ("an empty list", vec![names(&[])], &["nobody"]),
        ("letters of others", vec![names(&["\u{430}lpha.example.com".as_bytes()])], &["nobody"]),
        ("the same, encoded", vec![names(&[b"xn--lpha-5cd.example.com"])], &["portico"]),
        ("a NUL", vec![names(&[b"alpha.example.com\0.beta.example.com"])], &["nobody"]),
        ("a wildcard", vec![names(&[b"*.example.com"])], &["nobody", "portico"]),
        ("one below", vec![names(&[b"x.alpha.example.com"])], &["portico"]),
        ("a long name", vec![names(&[&[b'a'; 4000]])], &["nobody"]),
        ("large", vec![names(&[alpha]), extension(PADDING, &[0; 40_000])], &["alpha", "nobody"]),
        ("as large as can be", vec![names(&[alpha]), extension(PADDING, &[0; 65_000])], &["alpha", "nobody"]),
    ];
    for (what, extensions, expected) in cases {
        let who = shown(&world, &[&records(&hello(&extensions), &[])]).await;
        assert!(expected.contains(&who), "{what}: {who}");
    }
    // More than the protocol's own bound: a length that nothing will fill.
    let endless = [&[1, 0xff, 0xff, 0xff][..], &[0; 100_000]].concat();
    assert_eq!(shown(&world, &[&records(&endless, &[])]).await, "nobody");
    let mut neighbour = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    assert_eq!(text(neighbour.get("/api").await).await, "beta");
}

/// What an authority says, by the plainest reading there is; none when it names no tenant.
fn meant<'a>(world: &'a World, authority: &str) -> Option<&'a Cluster> {
    let name = authority.split(':').next().unwrap_or_default().trim_end_matches('.').to_lowercase();
    [&world.a, &world.b].into_iter().find(|cluster| cluster.host == name)
}

/// kubegateway and its kin: whatever reaches a tenant's backend was meant for it by all three that say so.
#[tokio::test]
async fn what_reaches_a_tenant_was_meant_for_it_by_name_authority_and_path() {
    let world = World::start().await;
    let (a, b) = (&world.a, &world.b);
    let authorities = [
        "alpha.example.com",
        "ALPHA.example.COM",
        "alpha.example.com.",
        "alpha.example.com:443",
        "alpha.example.com:1",
        "beta.example.com",
        "Beta.example.com.",
        "beta.example.com:443",
        "127.0.0.1",
        "[::1]",
        "portico.example.com",
        "xn--lpha-5cd.example.com",
        "alpha.example.com.beta.example.com",
        "alpha",
        "localhost",
    ];
    let paths = [
        "/version",
        "/clusters/team/alpha/version",
        "/clusters/team/beta/version",
        "/clusters/team/alpha/../beta/version",
        "/clusters/team/ALPHA/version",
        "/clusters/team/alpha/clusters/team/beta/version",
        "/clusters/team/alph%61/version",
        "//clusters/team/beta/version",
        "/clusters/team/alpha%2f..%2fbeta/version",
    ];
    let dials: [(Option<&Cluster>, Dial); 5] = [
        (Some(a), world.by_name(a)),
        (Some(b), world.by_name(b)),
        (Some(a), world.by_port(a)),
        (Some(b), world.by_port(b)),
        (None, world.by_path()),
    ];
    let (mut reached, mut refused) = (0, 0);
    for (bound, dial) in &dials {
        for (authority, is_http2) in authorities.iter().flat_map(|authority| [(*authority, false), (*authority, true)])
        {
            let mut client = dial.http(is_http2).await;
            for path in paths {
                let before = [a, b].map(|cluster| cluster.api.seen().len());
                let code = client.get_at(authority, path, &[("authorization", "Bearer any")]).await.status();
                let by_path = [a, b].into_iter().find(|c| path.starts_with(&format!("/clusters/team/{}/", c.name)));
                let said = [*bound, meant(&world, authority), by_path].into_iter().flatten().map(|c| c.name);
                let said: BTreeSet<_> = said.collect();
                for (cluster, before) in [(a, before[0]), (b, before[1])] {
                    let times = cluster.api.seen().len() - before;
                    let what = format!("{:?}, {authority}, {path}, h2 {is_http2}: {code}", bound.map(|b| b.name));
                    assert!(times == 0 || said.iter().eq([&cluster.name]), "{what} reached {}", cluster.name);
                    reached += times;
                }
                refused += usize::from(code.is_client_error());
                if !is_http2 {
                    client = dial.http(false).await;
                }
            }
        }
    }
    assert!(reached > 50 && refused > 500, "{reached} reached, {refused} refused");
}
