//! Ports for listeners that a test opens later.
//!
//! Never of the range that the kernel gives away by itself (32768 and up): such a port, let go until its listener opens,
//! is soon another socket's, and the test waits for its listener for good.
#![allow(dead_code, unreachable_pub, clippy::expect_used)]

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
const COUNT: u16 = 4_000;

/// A port of this address that no other call of this process gets, free for TCP and UDP; its successor is free as well,
/// and nobody else's.
pub fn free(ip: impl Into<IpAddr>) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let ip = ip.into();
    // Two test programs at a time begin at two places.
    let begin = u16::try_from(std::process::id() % u32::from(COUNT)).expect("below 4000");
    let is_free = |port| TcpListener::bind((ip, port)).is_ok() && UdpSocket::bind((ip, port)).is_ok();
    let mut tried = (0..COUNT).map(|_| FIRST + (begin + NEXT.fetch_add(2, Ordering::Relaxed)) % COUNT / 2 * 2);
    tried.find(|port| is_free(*port) && is_free(port + 1)).expect("a free port")
}
