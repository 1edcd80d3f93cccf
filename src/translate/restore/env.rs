//! Environment of a container on the way back: without the variables that a kubelet of the tenant would give.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Map, Value};

use super::super::View;
use super::super::json;
use super::super::pod::env;

/// Longest name of a generated variable: two DNS labels and what is between them. A tenant's own may have any length.
const LONGEST: usize = 160;

/// Leaves the container's own variables, with the tenant's field references.
pub(super) fn restore(container: &mut Map<String, Value>, view: &View) {
    let Some(Value::Array(all)) = container.get_mut("env") else { return };
    let run = leading_run(all);
    let first = all.get(..run).unwrap_or_default().to_vec();
    let links = Links::of(&first);
    let mut api = BTreeMap::new();
    env::api_server(view.api_service_ip, &mut api);
    let mut at = 0;
    all.retain(|variable| {
        let (name, value) = (json::text(variable, "/name"), json::text(variable, "/value"));
        let generated = at < run && (api.get(name).is_some_and(|v| v == value) || links.hold(name, value));
        at += 1;
        !generated || name.is_empty()
    });
    for variable in all.iter_mut().filter_map(Value::as_object_mut) {
        json::within(variable, "valueFrom", env::unmap_field);
    }
    if all.is_empty() {
        container.remove("env");
    }
}

/// How many variables stand first with plain values and ascending names: all that were generated, and perhaps some of the
/// container's own.
fn leading_run(all: &[Value]) -> usize {
    let plain = |v: &&Value| v.get("valueFrom").is_none_or(Value::is_null) && !json::text(v, "/value").is_empty();
    let mut last = "";
    all.iter()
        .take_while(plain)
        .take_while(|variable| {
            let name = json::text(variable, "/name");
            let ascends = name > last;
            last = name;
            ascends
        })
        .count()
}

/// Addresses of the Services that Docker-style links are about, by prefix.
struct Links<'a>(BTreeMap<&'a str, BTreeSet<IpAddr>>);

impl<'a> Links<'a> {
    /// A link's `PREFIX_PORT_80_TCP=tcp://IP:80` is what no other variable looks like.
    fn of(run: &'a [Value]) -> Self {
        let mut found: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
        for variable in run {
            let name = json::text(variable, "/name");
            if name.len() <= LONGEST
                && let Some((prefix, number, protocol)) = link_name(name)
                && let Some((scheme, ip, port)) = url(json::text(variable, "/value"))
                && scheme == protocol
                && port == number
            {
                found.entry(prefix).or_default().insert(ip);
            }
        }
        Self(found)
    }

    fn hold(&self, name: &str, value: &str) -> bool {
        if name.len() > LONGEST {
            return false;
        }
        let parts = name.match_indices('_').filter_map(|(at, _)| Some((name.get(..at)?, name.get(at + 1..)?)));
        parts
            .filter_map(|(prefix, rest)| Some((self.0.get(prefix)?, rest)))
            .any(|(ips, rest)| is_part(rest, value, ips))
    }
}

fn is_part(rest: &str, value: &str, ips: &BTreeSet<IpAddr>) -> bool {
    let is_ip = || value.parse().is_ok_and(|ip| ips.contains(&ip));
    let is_port = || value.parse::<u16>().is_ok();
    let is_url = || url(value).is_some_and(|(_, ip, _)| ips.contains(&ip));
    match rest {
        "SERVICE_HOST" => is_ip(),
        "SERVICE_PORT" => is_port(),
        "PORT" => is_url(),
        _ if rest.starts_with("SERVICE_PORT_") => is_port(),
        _ => {
            // With a prefix, any would do.
            let link = format!("X_{rest}");
            let bare = |suffix: &str| link.strip_suffix(suffix).and_then(link_name);
            bare("").is_some() && is_url()
                || bare("_ADDR").is_some() && is_ip()
                || bare("_PORT").is_some_and(|(_, number, _)| value == number)
                || bare("_PROTO").is_some_and(|(_, _, protocol)| value == protocol)
        }
    }
}

/// Prefix, number and protocol of `PREFIX_PORT_80_TCP`.
fn link_name(name: &str) -> Option<(&str, &str, &'static str)> {
    let (rest, protocol) = name.rsplit_once('_')?;
    let protocol = match protocol {
        "TCP" => "tcp",
        "UDP" => "udp",
        "SCTP" => "sctp",
        _ => return None,
    };
    let (rest, number) = rest.rsplit_once('_')?;
    number.parse::<u16>().ok()?;
    Some((rest.strip_suffix("_PORT")?, number, protocol))
}

/// Scheme, address and port.
fn url(text: &str) -> Option<(&str, IpAddr, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let (ip, port) = rest.rsplit_once(':')?;
    let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    Some((scheme, bare.parse().ok()?, port))
}
