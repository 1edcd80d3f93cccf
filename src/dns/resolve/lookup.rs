//! One name inside the zone, turned into records until the message is full.

use std::cell::Cell;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::{NS, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::dns::resolve::asked::Asked;
use crate::dns::resolve::record::{address_data, below, dashed, endpoint_label, least, record, soa};
use crate::dns::resolve::services::ServiceAnswer;
use crate::dns::zone::{Endpoint, Entry, Port, Ports, Service, Target, Zone};

/// Version of the specification, served as `dns-version.{domain}`.
const SPECIFICATION: &str = "1.1.0";
/// Passing an endpoint by is this many times cheaper than making a record.
const PASSED_PER_WORK: usize = 32;
/// Seeing whether an address is in the answer already is this many times cheaper.
const SEEN_PER_WORK: usize = 8;

/// What one name inside the zone leads to, before aliases are followed.
pub(super) enum Step {
    /// Records, or none of this type.
    Records {
        /// Answers.
        answers: Vec<Record>,
        /// Addresses of what they name.
        additionals: Vec<Record>,
    },
    /// The name is an alias.
    External(Name),
    /// The name does not exist.
    NoName,
}

/// A question under way, with the room that its answer has left.
pub(super) struct Lookup<'a> {
    zone: &'a Zone,
    kind: RecordType,
    room: usize,
    turn: u64,
    work: usize,
}

/// Which ports of a Service are asked for.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    All,
    Named { protocol: &'a str, name: &'a str },
}

impl<'a> Lookup<'a> {
    /// Nothing asked yet.
    pub(super) fn new(zone: &'a Zone, asked: &Asked<'_>) -> Self {
        Self { zone, kind: asked.kind, room: asked.room, turn: asked.turn, work: 1 }
    }

    /// What is asked.
    pub(super) fn zone(&self) -> &'a Zone {
        self.zone
    }

    /// The record type asked for.
    pub(super) fn kind(&self) -> RecordType {
        self.kind
    }

    /// How much was done, in records made.
    pub(super) fn work(&self) -> usize {
        self.work
    }

    /// What one name inside the zone leads to.
    pub(super) fn inside(&mut self, name: &Name) -> Step {
        self.work += 1;
        let zone = self.zone;
        let depth = usize::from(zone.origin().domain.num_labels());
        let count = usize::from(name.num_labels()).saturating_sub(depth);
        // No name has more labels than `_port._protocol.service.namespace.svc`.
        if count > 5 {
            return Step::NoName;
        }
        let labels = name.iter().take(count).map(|l| std::str::from_utf8(l).ok()).collect::<Option<Vec<_>>>();
        let Some(labels) = labels else { return Step::NoName };
        match labels.as_slice() {
            [] => self.apex(name),
            ["dns-version"] => self.only(name, [RData::TXT(TXT::new(vec![SPECIFICATION.to_owned()]))]),
            ["ns", "dns"] => self.addresses(name, [zone.origin().dns]),
            ["dns" | "svc" | "pod"] => nothing(),
            [namespace, "svc"] if zone.has_services(namespace) => nothing(),
            [service, namespace, "svc"] => self.whole_service(name, namespace, service),
            [protocol, service, namespace, "svc"] if protocol.starts_with('_') => {
                let protocol = protocol.trim_start_matches('_');
                let entry = zone.entry(namespace, service);
                if entry.is_some_and(|e| self.has_protocol(&e, protocol)) { nothing() } else { Step::NoName }
            }
            [endpoint, service, namespace, "svc"] => self.one_endpoint(name, endpoint, namespace, service),
            [port, protocol, service, namespace, "svc"] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(name_of_port), Some(protocol)) => {
                    let wanted = Wanted::Named { protocol, name: name_of_port };
                    self.service_records(name, namespace, service, wanted)
                }
                _ => Step::NoName,
            },
            [namespace, "pod"] if !namespace.is_empty() => nothing(),
            [dashed, _, "pod"] => match undash(dashed) {
                Some(address) => self.addresses(name, [address]),
                None => Step::NoName,
            },
            _ => Step::NoName,
        }
    }

    /// Records of one name, as many as there is room for.
    pub(super) fn records(&mut self, name: &Name, data: impl IntoIterator<Item = RData>) -> Vec<Record> {
        let mut records = Vec::new();
        for data in data {
            if !self.takes(least(&data)) {
                break;
            }
            records.push(record(name, data));
        }
        records
    }

    fn apex(&mut self, name: &Name) -> Step {
        let start = soa(self.zone).map(|r| r.data);
        let server = below(&["ns", "dns"], name).map(|n| RData::NS(NS(n)));
        self.only(name, start.into_iter().chain(server))
    }

    fn whole_service(&mut self, name: &Name, namespace: &str, service: &str) -> Step {
        let Some(entry) = self.zone.entry(namespace, service) else { return Step::NoName };
        let Some(found) = entry.service() else { return Step::NoName };
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
        if self.kind == RecordType::SRV {
            return self.service_records(name, namespace, service, Wanted::All);
        }
        match &found.target {
            Target::ClusterIps(ips) => self.addresses(name, ips.iter().copied()),
            _ => self.addresses(name, entry.shown(self.turn).map(|(e, _)| e.address)),
        }
    }

    fn has_protocol(&mut self, entry: &Entry, protocol: &str) -> bool {
        match entry.service() {
            Some(Service { target: Target::Headless, .. }) => {
                self.looks_at(entry);
                entry.shown_ports().any(|ports| ports.has_protocol(protocol))
            }
            Some(service) => service.ports.has_protocol(protocol),
            None => false,
        }
    }

    fn one_endpoint(&mut self, name: &Name, label: &str, namespace: &str, service: &str) -> Step {
        let Some(entry) = self.zone.entry(namespace, service) else { return Step::NoName };
        if entry.service().is_none_or(|s| matches!(s.target, Target::External(_))) {
            return Step::NoName;
        }
        self.looks_at(&entry);
        let address = address_of_label(label);
        let is_asked = |endpoint: &Endpoint| match &endpoint.hostname {
            Some(hostname) => &**hostname == label,
            None => Some(endpoint.address) == address,
        };
        let mut matching = entry.shown(self.turn).map(|(e, _)| e).filter(|e| is_asked(e)).map(|e| e.address).peekable();
        if matching.peek().is_none() { Step::NoName } else { self.addresses(name, matching) }
    }

    fn service_records(&mut self, name: &Name, namespace: &str, service: &str, wanted: Wanted<'_>) -> Step {
        let Some(entry) = self.zone.entry(namespace, service) else { return Step::NoName };
        let Some(found) = entry.service() else { return Step::NoName };
        let exists = match &found.target {
            Target::External(_) => return Step::NoName,
            Target::ClusterIps(_) => !wanted.of(&found.ports).is_empty(),
            Target::Headless => {
                self.looks_at(&entry);
                entry.shown_ports().any(|ports| !wanted.of(ports).is_empty())
            }
        };
        if !exists {
            // The Service's own name exists even without ports; `_port._proto` below it does not.
            return if matches!(wanted, Wanted::All) { nothing() } else { Step::NoName };
        }
        if self.kind != RecordType::SRV && self.kind != RecordType::ANY {
            return nothing();
        }
        let domain = &self.zone.origin().domain;
        let mut answer = ServiceAnswer::new(name, self.room);
        match &found.target {
            Target::ClusterIps(ips) => {
                if let Some(target) = below(&[service, namespace, "svc"], domain) {
                    answer.add_service(&target, wanted.of(&found.ports), ips);
                }
            }
            _ => {
                let target =
                    |endpoint: &Endpoint| below(&[&endpoint_label(endpoint), service, namespace, "svc"], domain);
                answer.add_endpoints(entry.shown(self.turn), |ports| wanted.of(ports), target);
            }
        }
        self.work += answer.work();
        let (answers, additionals) = answer.into_sections();
        Step::Records { answers, additionals }
    }

    fn addresses(&mut self, name: &Name, ips: impl IntoIterator<Item = IpAddr>) -> Step {
        let (kind, looked, mut seen) = (self.kind, Cell::new(0), HashSet::new());
        let data = ips.into_iter().inspect(|_| looked.set(looked.get() + 1)).map(|ip| (ip, address_data(ip)));
        let first = data.filter(|(ip, data)| fits(kind, data) && seen.insert(*ip)).map(|(_, data)| data);
        let answers = self.records(name, first);
        self.work += looked.get() / SEEN_PER_WORK;
        Step::Records { answers, additionals: Vec::new() }
    }

    fn only(&mut self, name: &Name, data: impl IntoIterator<Item = RData>) -> Step {
        let kind = self.kind;
        let answers = self.records(name, data.into_iter().filter(|data| fits(kind, data)));
        Step::Records { answers, additionals: Vec::new() }
    }

    fn looks_at(&mut self, entry: &Entry) {
        self.work += entry.endpoints() / PASSED_PER_WORK;
    }

    fn takes(&mut self, bytes: usize) -> bool {
        self.work += 1;
        let left = self.room.checked_sub(bytes);
        self.room = left.unwrap_or(0);
        left.is_some()
    }
}

impl Wanted<'_> {
    fn of<'p>(&self, ports: &'p Ports) -> &'p [Port] {
        match self {
            Self::All => ports.all(),
            Self::Named { protocol, name } => ports.named(protocol, name),
        }
    }
}

fn fits(kind: RecordType, data: &RData) -> bool {
    kind == RecordType::ANY || data.record_type() == kind
}

fn nothing() -> Step {
    Step::Records { answers: Vec::new(), additionals: Vec::new() }
}

fn undash(label: &str) -> Option<IpAddr> {
    let v4 = || label.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    let v6 = || label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    v4().or_else(v6)
}

/// The address whose endpoint is called so, when it has no hostname.
fn address_of_label(label: &str) -> Option<IpAddr> {
    // `::ffff:10.0.0.1` has both marks, and a dash does not tell which it was.
    let mapped = label.strip_prefix("--ffff-").and_then(|v4| v4.replace('-', ".").parse::<Ipv4Addr>().ok());
    let address = mapped.map(|v4| IpAddr::V6(v4.to_ipv6_mapped())).or_else(|| undash(label))?;
    (dashed(address) == label).then_some(address)
}
