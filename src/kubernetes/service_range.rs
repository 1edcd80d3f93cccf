//! An API server's range of cluster IPs, found by dry runs where ServiceCIDR objects may not be read.
//!
//! Up to 1.32 a refusal names the range. Since 1.33 it does not, but a dry run that asks for no address is answered with
//! the network's own, and one that asks for an address says whether it is inside: so the length of the prefix is found by
//! halving. Nothing is ever created.

use std::future::Future;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};

/// Says the range in a refusal of API servers before 1.33.
const MARKER: &str = "The range of valid IPs is ";
/// An address that no service range holds.
const OUTSIDE: &str = "1.1.1.1";
/// Ranges are at least this small: API servers take /12 at most for IPv4 and /64 for IPv6, rounded.
const WIDEST: (u32, u32) = (8, 64);

/// A Service for a dry run that asks for an address, or for any.
pub fn probe(address: Option<&str>) -> Value {
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"generateName": "portico-range-"},
        "spec": {"ports": [{"port": 443}]},
    });
    if let Some(address) = address {
        service["spec"]["clusterIP"] = address.into();
    }
    service
}

/// The range in CIDR form. `try_create` makes a dry run of what it is given.
pub async fn find<F, Fut>(mut try_create: F) -> Result<String>
where
    F: FnMut(Value) -> Fut,
    Fut: Future<Output = Result<Value>>,
{
    match try_create(probe(Some(OUTSIDE))).await {
        Ok(_) => return Err(unknown()),
        Err(error) => {
            if let Some(range) = named(error.message()) {
                return Ok(range);
            }
            outside(error)?;
        }
    }
    let chosen = try_create(probe(None)).await?;
    let text = chosen["spec"]["clusterIP"].as_str().unwrap_or_default();
    let base: IpAddr = text.parse().map_err(|_| unknown())?;
    let (bits, widest) = if base.is_ipv4() { (32, WIDEST.0) } else { (128, WIDEST.1) };
    let number = as_number(base);
    // A network's own address has zeros behind its prefix: it cannot be wider than those allow.
    let zeros = if number == 0 { bits } else { number.trailing_zeros().min(bits) };
    let (mut wide, mut narrow) = (widest.max(bits - zeros), bits - 1);
    if wide > narrow {
        return Err(unknown());
    }
    while wide < narrow {
        let middle = u32::midpoint(wide, narrow);
        let last = number | ((1_u128 << (bits - middle)) - 2);
        match contains(&mut try_create, from_number(last, base)).await? {
            true => narrow = middle,
            false => wide = middle + 1,
        }
    }
    Ok(format!("{base}/{wide}"))
}

/// Whether an address is inside the range.
pub async fn contains<F, Fut>(try_create: &mut F, address: IpAddr) -> Result<bool>
where
    F: FnMut(Value) -> Fut,
    Fut: Future<Output = Result<Value>>,
{
    match try_create(probe(Some(&address.to_string()))).await {
        Ok(_) => Ok(true),
        Err(error) if error.message().contains("already allocated") => Ok(true),
        Err(error) => outside(error).map(|()| false),
    }
}

/// First and last usable address of a range.
pub fn ends(range: &str) -> Option<(IpAddr, IpAddr)> {
    let (base, prefix) = range.split_once('/')?;
    let base: IpAddr = base.parse().ok()?;
    let bits = if base.is_ipv4() { 32 } else { 128 };
    let prefix: u32 = prefix.parse().ok().filter(|prefix| *prefix < bits)?;
    let host = (1_u128 << (bits - prefix).min(127)) - 1;
    let first = as_number(base) & !host;
    Some((from_number(first + 1, base), from_number(first | (host - 1), base)))
}

/// Only an address that is refused for being outside tells; anything else (an allocator that has just started refuses all
/// of them) must not be taken for that.
fn outside(error: Error) -> Result<()> {
    let says = |text: &str| error.message().contains(text);
    if error.kind() == Kind::Invalid && (says("not in the valid range") || says("does not match the current range")) {
        return Ok(());
    }
    Err(error)
}

fn unknown() -> Error {
    Error::own(Kind::Invalid, "the range of cluster IPs cannot be found out")
}

/// The range in a refusal.
fn named(refusal: &str) -> Option<String> {
    let (_, rest) = refusal.split_once(MARKER)?;
    let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '/'))).unwrap_or(rest.len());
    let cidr = rest.get(..end)?.trim_end_matches(['.', ':']);
    cidr.contains('/').then(|| cidr.to_owned())
}

fn as_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn from_number(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(number & u128::from(u32::MAX)).unwrap_or_default().into()),
        IpAddr::V6(_) => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An API server since 1.33 with this range.
    fn server(range: &str, asked: &mut usize, service: &Value) -> Result<Value> {
        *asked += 1;
        let (first, last) = ends(range).expect("range");
        let refuse = |text: &str| Err(Error::host(Kind::Invalid, text));
        let Some(wanted) = service["spec"]["clusterIP"].as_str() else {
            let base = range.split_once('/').expect("cidr").0;
            return Ok(json!({"spec": {"clusterIP": base}}));
        };
        let wanted = as_number(wanted.parse().expect("ip"));
        match wanted {
            w if w == as_number(first) + 1 => refuse("provided IP is already allocated"),
            w if (as_number(first)..=as_number(last)).contains(&w) => Ok(json!({})),
            _ => refuse("the provided network does not match the current range"),
        }
    }

    async fn found(range: &str) -> (String, usize) {
        let mut asked = 0;
        let found = find(|service| {
            let answer = server(range, &mut asked, &service);
            async move { answer }
        });
        let found = found.await.expect("found");
        (found, asked)
    }

    #[tokio::test]
    async fn found_by_few_dry_runs() {
        for range in [
            "10.96.0.0/12",
            "10.96.0.0/16",
            "10.43.0.0/16",
            "172.20.0.0/20",
            "192.168.3.128/25",
            "fd00:1::/108",
            "10.0.0.0/8",
        ] {
            let (answer, asked) = found(range).await;
            assert_eq!(answer, range);
            assert!(asked <= 9, "{range}: {asked} dry runs");
        }
    }

    #[tokio::test]
    async fn an_old_server_says_it_at_once_and_other_failures_are_no_answer() {
        let text = "failed to allocate IP 1.1.1.1: the provided IP (1.1.1.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12";
        let found = find(|_| async move { Err(Error::host(Kind::Invalid, text)) }).await.expect("said");
        assert_eq!(found, "10.96.0.0/12");
        assert_eq!(named("The range of valid IPs is fd00:1::/108.").as_deref(), Some("fd00:1::/108"));
        let error = find(|_| async { Err(Error::host(Kind::Forbidden, "no")) }).await.expect_err("no answer");
        assert_eq!(error.kind(), Kind::Forbidden);
        let starting = |_| async {
            Err::<Value, _>(Error::backend(Kind::Invalid, "failed to allocate IP: no ServiceCIDR is ready"))
        };
        assert!(
            contains(&mut { starting }, "10.96.0.1".parse().expect("ip")).await.is_err(),
            "no answer, not a refusal"
        );
    }

    proptest! {
        #[test]
        fn ends_are_inside_and_in_order(base in any::<u32>(), prefix in 8_u32..31) {
            let masked = base & (u32::MAX << (32 - prefix));
            let (first, last) = ends(&format!("{}/{prefix}", std::net::Ipv4Addr::from(masked))).expect("ends");
            prop_assert!(as_number(first) > u128::from(masked) && as_number(first) <= as_number(last));
        }
    }
}
