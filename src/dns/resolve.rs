//! Names to records, after Kubernetes' "DNS-Based Service Discovery" 1.1.0.
//!
//! A [`Zone`] and a question in, an [`Outcome`] out; no packets, no sockets. Owns which names exist (NXDOMAIN against
//! NODATA) and which questions may leave the tenant at all. Promises: an answer is made of no more records than fit its
//! message, and looks at a bounded number of the tenant's objects, whatever they are.

mod asked;
mod lookup;
mod record;
mod reverse;
mod services;

use std::net::IpAddr;

use hickory_proto::rr::rdata::{CNAME, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};

pub(crate) use crate::dns::resolve::asked::Asked;
use crate::dns::resolve::lookup::{Lookup, Step};
pub(crate) use crate::dns::resolve::record::soa;
use crate::dns::resolve::record::{below, endpoint_label, record};
use crate::dns::resolve::reverse::Reverse;
use crate::dns::zone::Zone;

/// ExternalName Services that point at each other are followed this far.
const LONGEST_CHAIN: usize = 8;
/// Reserved for this use by RFC 6762 and the usual name of host clusters: never forwarded, whoever's it is.
const ALWAYS_LOCAL: &str = "cluster.local";
/// Places of one address that are looked at for its names. A pod is behind a handful of Services.
const MOST_POINTERS: usize = 256;

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

/// Answers a question, and says how much work that was, in records made: about half a microsecond each. `foreign` are domains of the
/// host that must not be asked for on a tenant's behalf.
pub(crate) fn resolve(zone: &Zone, asked: &Asked<'_>, foreign: &[Name]) -> (Outcome, usize) {
    let mut lookup = Lookup::new(zone, asked);
    let outcome = outcome(&mut lookup, asked.name.to_lowercase(), foreign);
    (outcome, lookup.work())
}

fn outcome(lookup: &mut Lookup<'_>, name: Name, foreign: &[Name]) -> Outcome {
    let zone = lookup.zone();
    if !zone.origin().domain.zone_of(&name) {
        return outside(lookup, &name, foreign);
    }
    if !zone.is_complete() {
        return Outcome::NotYet;
    }
    let mut chain: Vec<Record> = Vec::new();
    let mut asked = name;
    loop {
        let step = lookup.inside(&asked);
        let Step::External(target) = step else { return finish(step, chain) };
        chain.push(record(&asked, RData::CNAME(CNAME(target.clone()))));
        if lookup.kind() == RecordType::CNAME || chain.len() >= LONGEST_CHAIN {
            return Outcome::Found { answers: chain, additionals: Vec::new() };
        }
        if !zone.origin().domain.zone_of(&target) {
            return match outside(lookup, &target, foreign) {
                Outcome::Outside => Outcome::Alias { chain, target },
                _ => Outcome::Found { answers: chain, additionals: Vec::new() },
            };
        }
        asked = target;
    }
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

/// Questions that are not below the cluster domain.
fn outside(lookup: &mut Lookup<'_>, name: &Name, foreign: &[Name]) -> Outcome {
    let labels: Vec<String> = name.iter().map(|l| String::from_utf8_lossy(l).into_owned()).collect();
    if let Some(reverse) = Reverse::parse(&labels) {
        return pointer(lookup, name, &reverse);
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

fn pointer(lookup: &mut Lookup<'_>, name: &Name, reverse: &Reverse) -> Outcome {
    let zone = lookup.zone();
    let elsewhere = if reverse.is_private() { Outcome::NoName } else { Outcome::Outside };
    let Reverse::Whole(address) = *reverse else { return elsewhere };
    if !zone.is_complete() {
        return if reverse.is_private() { Outcome::NotYet } else { Outcome::Outside };
    }
    let names = pointed(zone, address);
    if names.is_empty() {
        return elsewhere;
    }
    if lookup.kind() != RecordType::PTR && lookup.kind() != RecordType::ANY {
        return Outcome::NoData;
    }
    let data = names.into_iter().map(|n| RData::PTR(PTR(n)));
    let answers = lookup.records(name, data);
    Outcome::Found { answers, additionals: Vec::new() }
}

/// The names that lead to an address.
fn pointed(zone: &Zone, address: IpAddr) -> Vec<Name> {
    let domain = &zone.origin().domain;
    let mut names: Vec<Name> = Vec::new();
    if let Some(key) = zone.service_at(address) {
        let (namespace, service) = key.parts();
        names.extend(below(&[service, namespace, "svc"], domain));
    }
    for (key, endpoint) in zone.endpoints_at(address, MOST_POINTERS) {
        let (namespace, service) = key.parts();
        names.extend(below(&[&endpoint_label(&endpoint), service, namespace, "svc"], domain));
    }
    names
}

#[cfg(test)]
mod tests;
