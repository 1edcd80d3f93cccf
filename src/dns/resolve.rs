//! Names to records, after Kubernetes' "DNS-Based Service Discovery" 1.1.0.
//!
//! Pure: a [`Zone`] and a question in, an [`Outcome`] out. Owns which names exist (NXDOMAIN against NODATA) and which
//! questions may leave the tenant at all; knows no packets and no sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::{CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::dns::zone::{Endpoint, Port, Service, Target, Zone};

/// Seconds that an answer may be kept: short, since pods come and go.
pub(crate) const TTL: u32 = 5;
/// Version of the specification, served as `dns-version.{domain}`.
const SPECIFICATION: &str = "1.1.0";
/// ExternalName Services that point at each other are followed this far.
const LONGEST_CHAIN: usize = 8;
/// Reserved for this use by RFC 6762 and the usual name of host clusters: never forwarded, whoever's it is.
const ALWAYS_LOCAL: &str = "cluster.local";

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Records of this name and type.
    Found {
        /// The answer section.
        answers: Vec<Record>,
        /// Addresses of what the answers name.
        additionals: Vec<Record>,
    },
    /// An alias whose target lies outside: its records are to be fetched and appended.
    Alias {
        /// CNAME records so far.
        chain: Vec<Record>,
        /// What to ask for outside.
        target: Name,
    },
    /// The name exists, records of this type do not.
    NoData,
    /// The name does not exist.
    NoName,
    /// Not ours to answer, and allowed to be asked elsewhere.
    Outside,
    /// Ours, but the tenant's objects are not known yet.
    NotYet,
}

/// Answers a question. `foreign` are domains of the host that must not be asked for on a tenant's behalf.
pub(crate) fn resolve(zone: &Zone, name: &Name, kind: RecordType, foreign: &[Name]) -> Outcome {
    let name = name.to_lowercase();
    if !zone.origin().domain.zone_of(&name) {
        return outside(zone, &name, kind, foreign);
    }
    if !zone.is_complete() {
        return Outcome::NotYet;
    }
    let mut chain: Vec<Record> = Vec::new();
    let mut asked = name;
    loop {
        let step = inside(zone, &asked, kind);
        let Step::External(target) = step else { return finish(step, chain) };
        chain.push(record(&asked, RData::CNAME(CNAME(target.clone()))));
        if kind == RecordType::CNAME || chain.len() >= LONGEST_CHAIN {
            return Outcome::Found { answers: chain, additionals: Vec::new() };
        }
        if !zone.origin().domain.zone_of(&target) {
            return match outside(zone, &target, kind, foreign) {
                Outcome::Outside => Outcome::Alias { chain, target },
                _ => Outcome::Found { answers: chain, additionals: Vec::new() },
            };
        }
        asked = target;
    }
}

/// The SOA record of the tenant's zone, for the authority section of negative answers.
pub(crate) fn soa(zone: &Zone) -> Option<Record> {
    let domain = &zone.origin().domain;
    let server = below(&["ns", "dns"], domain)?;
    let mailbox = below(&["hostmaster"], domain)?;
    let soa = SOA::new(server, mailbox, zone.serial(), 7200, 1800, 86_400, TTL);
    Some(record(domain, RData::SOA(soa)))
}

/// What one name inside the zone leads to, before aliases are followed.
enum Step {
    Records { answers: Vec<Record>, additionals: Vec<Record> },
    External(Name),
    NoName,
}

fn finish(step: Step, mut chain: Vec<Record>) -> Outcome {
    match step {
        Step::Records { answers, additionals } => {
            chain.extend(answers);
            if chain.is_empty() { Outcome::NoData } else { Outcome::Found { answers: chain, additionals } }
        }
        // An alias to a name that does not exist: the alias itself is still an answer.
        Step::NoName if !chain.is_empty() => Outcome::Found { answers: chain, additionals: Vec::new() },
        Step::NoName | Step::External(_) => Outcome::NoName,
    }
}

fn inside(zone: &Zone, name: &Name, kind: RecordType) -> Step {
    let depth = usize::from(zone.origin().domain.num_labels());
    let count = usize::from(name.num_labels()).saturating_sub(depth);
    let Some(labels) = name.iter().take(count).map(|l| std::str::from_utf8(l).ok()).collect::<Option<Vec<_>>>() else {
        return Step::NoName;
    };
    match labels.as_slice() {
        [] => apex(zone, name, kind),
        ["dns-version"] => {
            let text = RData::TXT(TXT::new(vec![SPECIFICATION.to_owned()]));
            only(name, kind, [text])
        }
        ["ns", "dns"] => addresses(name, kind, [zone.origin().dns]),
        ["dns" | "svc" | "pod"] => nothing(),
        [namespace, "svc"] if zone.has_services(namespace) => nothing(),
        [service, namespace, "svc"] => match zone.service(namespace, service) {
            Some(found) => whole_service(zone, name, kind, found, namespace, service),
            None => Step::NoName,
        },
        [protocol, service, namespace, "svc"] if protocol.starts_with('_') => {
            let ports = ports_of(zone, namespace, service);
            if ports.iter().any(|p| protocol.strip_prefix('_') == Some(p.protocol)) { nothing() } else { Step::NoName }
        }
        [endpoint, service, namespace, "svc"] => one_endpoint(zone, name, kind, endpoint, namespace, service),
        [port, protocol, service, namespace, "svc"] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
            (Some(port), Some(protocol)) => {
                let wanted = |p: &Port| &*p.name == port && p.protocol == protocol;
                service_records(zone, name, kind, namespace, service, &wanted)
            }
            _ => Step::NoName,
        },
        [namespace, "pod"] if !namespace.is_empty() => nothing(),
        [dashed, _, "pod"] => match undash(dashed) {
            Some(address) => addresses(name, kind, [address]),
            None => Step::NoName,
        },
        _ => Step::NoName,
    }
}

fn apex(zone: &Zone, name: &Name, kind: RecordType) -> Step {
    let mut records: Vec<RData> = Vec::new();
    records.extend(soa(zone).map(|r| r.data));
    records.extend(below(&["ns", "dns"], name).map(|n| RData::NS(NS(n))));
    only(name, kind, records)
}

fn whole_service(zone: &Zone, name: &Name, kind: RecordType, found: &Service, namespace: &str, service: &str) -> Step {
    if let Target::External(target) = &found.target {
        return match Name::from_ascii(&**target) {
            Ok(mut target) => {
                target.set_fqdn(true);
                Step::External(target.to_lowercase())
            }
            Err(_) => nothing(),
        };
    }
    // Not in the specification; CoreDNS lists all ports here, and clients have come to rely on it.
    if kind == RecordType::SRV {
        return service_records(zone, name, kind, namespace, service, &|_| true);
    }
    match &found.target {
        Target::ClusterIps(ips) => addresses(name, kind, ips.iter().copied()),
        _ => addresses(name, kind, zone.endpoints(namespace, service).iter().map(|(e, _)| e.address)),
    }
}

fn one_endpoint(zone: &Zone, name: &Name, kind: RecordType, label: &str, namespace: &str, service: &str) -> Step {
    let matching: Vec<IpAddr> = zone
        .endpoints(namespace, service)
        .iter()
        .filter(|(endpoint, _)| endpoint_label(endpoint) == label)
        .map(|(endpoint, _)| endpoint.address)
        .collect();
    let external = |s: &Service| matches!(s.target, Target::External(_));
    if matching.is_empty() || zone.service(namespace, service).is_none_or(external) {
        return Step::NoName;
    }
    addresses(name, kind, matching)
}

fn service_records(
    zone: &Zone,
    name: &Name,
    kind: RecordType,
    namespace: &str,
    service: &str,
    wanted: &dyn Fn(&Port) -> bool,
) -> Step {
    let Some(found) = zone.service(namespace, service) else { return Step::NoName };
    let domain = &zone.origin().domain;
    let mut targets: Vec<(Option<Name>, u16, Vec<IpAddr>)> = Vec::new();
    match &found.target {
        Target::External(_) => return Step::NoName,
        Target::ClusterIps(ips) => {
            for port in found.ports.iter().filter(|p| wanted(p)) {
                targets.push((below(&[service, namespace, "svc"], domain), port.port, ips.clone()));
            }
        }
        Target::Headless => {
            for (endpoint, ports) in zone.endpoints(namespace, service) {
                let target = below(&[&endpoint_label(endpoint), service, namespace, "svc"], domain);
                for port in ports.iter().filter(|p| wanted(p)) {
                    targets.push((target.clone(), port.port, vec![endpoint.address]));
                }
            }
        }
    }
    if targets.is_empty() {
        // The Service's own name exists even without ports; `_port._proto` below it does not.
        return if usize::from(name.num_labels()) == usize::from(domain.num_labels()) + 3 {
            nothing()
        } else {
            Step::NoName
        };
    }
    if kind != RecordType::SRV && kind != RecordType::ANY {
        return nothing();
    }
    service_answers(name, targets)
}

fn service_answers(name: &Name, targets: Vec<(Option<Name>, u16, Vec<IpAddr>)>) -> Step {
    let mut answers: Vec<Record> = Vec::new();
    let mut additionals: Vec<Record> = Vec::new();
    for (target, port, ips) in targets {
        let Some(target) = target else { continue };
        for ip in ips {
            let address = record(&target, address_data(ip));
            if !additionals.contains(&address) {
                additionals.push(address);
            }
        }
        let answer = record(name, RData::SRV(SRV::new(0, 100, port, target)));
        if !answers.contains(&answer) {
            answers.push(answer);
        }
    }
    Step::Records { answers, additionals }
}

fn ports_of(zone: &Zone, namespace: &str, service: &str) -> Vec<Port> {
    match zone.service(namespace, service) {
        Some(found) if found.target == Target::Headless => {
            zone.endpoints(namespace, service).iter().flat_map(|(_, ports)| ports.iter().cloned()).collect()
        }
        Some(found) => found.ports.clone(),
        None => Vec::new(),
    }
}

/// Questions that are not below the cluster domain.
fn outside(zone: &Zone, name: &Name, kind: RecordType, foreign: &[Name]) -> Outcome {
    let labels: Vec<String> = name.iter().map(|l| String::from_utf8_lossy(l).into_owned()).collect();
    if let Some(reverse) = Reverse::parse(&labels) {
        return pointer(zone, name, kind, &reverse);
    }
    let local = Name::from_ascii(ALWAYS_LOCAL).ok().map(|mut n| {
        n.set_fqdn(true);
        n
    });
    if foreign.iter().chain(local.as_ref()).any(|domain| domain.zone_of(name)) {
        return Outcome::NoName;
    }
    Outcome::Outside
}

fn pointer(zone: &Zone, name: &Name, kind: RecordType, reverse: &Reverse) -> Outcome {
    let elsewhere = if reverse.is_private() { Outcome::NoName } else { Outcome::Outside };
    let Reverse::Whole(address) = *reverse else { return elsewhere };
    if !zone.is_complete() {
        return if reverse.is_private() { Outcome::NotYet } else { Outcome::Outside };
    }
    let domain = &zone.origin().domain;
    let mut names: Vec<Name> = Vec::new();
    if let Some((namespace, service)) = zone.service_at(address) {
        names.extend(below(&[service, namespace, "svc"], domain));
    }
    for (namespace, service, endpoint) in zone.endpoints_at(address) {
        names.extend(below(&[&endpoint_label(endpoint), service, namespace, "svc"], domain));
    }
    if names.is_empty() {
        return elsewhere;
    }
    if kind != RecordType::PTR && kind != RecordType::ANY {
        return Outcome::NoData;
    }
    let answers = names.into_iter().map(|n| record(name, RData::PTR(PTR(n)))).collect();
    Outcome::Found { answers, additionals: Vec::new() }
}

/// A name below `in-addr.arpa` or `ip6.arpa`.
enum Reverse {
    Whole(IpAddr),
    /// A prefix (or nonsense), with the address that begins it.
    Part(IpAddr),
}

impl Reverse {
    fn parse(labels: &[String]) -> Option<Self> {
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
    fn is_private(&self) -> bool {
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

/// The label that stands for an endpoint: its hostname, else its address with dashes.
fn endpoint_label(endpoint: &Endpoint) -> String {
    match &endpoint.hostname {
        Some(hostname) => hostname.to_string(),
        None => endpoint.address.to_string().replace(['.', ':'], "-"),
    }
}

fn undash(label: &str) -> Option<IpAddr> {
    let v4 = || label.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    let v6 = || label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    v4().or_else(v6)
}

fn addresses(name: &Name, kind: RecordType, ips: impl IntoIterator<Item = IpAddr>) -> Step {
    let mut seen = std::collections::HashSet::new();
    only(name, kind, ips.into_iter().filter(|ip| seen.insert(*ip)).map(address_data))
}

fn address_data(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(v4) => RData::A(v4.into()),
        IpAddr::V6(v6) => RData::AAAA(v6.into()),
    }
}

fn only(name: &Name, kind: RecordType, data: impl IntoIterator<Item = RData>) -> Step {
    let fits = |d: &RData| kind == RecordType::ANY || d.record_type() == kind;
    let answers = data.into_iter().filter(fits).map(|d| record(name, d)).collect();
    Step::Records { answers, additionals: Vec::new() }
}

fn nothing() -> Step {
    Step::Records { answers: Vec::new(), additionals: Vec::new() }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

/// `{labels}.{domain}`, or nothing when a label of the tenant's objects is no DNS label.
fn below(labels: &[&str], domain: &Name) -> Option<Name> {
    let name = Name::from_labels(labels.iter().map(|l| l.as_bytes())).ok()?;
    name.append_domain(domain).ok()
}

#[cfg(test)]
mod tests;
