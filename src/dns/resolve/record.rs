//! Records and the names in them.

use std::net::IpAddr;

use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};

use crate::dns::zone::{Endpoint, Zone};

/// Seconds that an answer may be kept: short, since pods come and go.
pub(crate) const TTL: u32 = 5;
/// Type, class, TTL and length of a record, and a compressed name before them.
const RECORD: usize = 12;

/// The SOA record of the tenant's zone, for the authority section of negative answers.
pub(crate) fn soa(zone: &Zone) -> Option<Record> {
    let domain = &zone.origin().domain;
    let server = below(&["ns", "dns"], domain)?;
    let mailbox = below(&["hostmaster"], domain)?;
    let soa = SOA::new(server, mailbox, zone.serial(), 7200, 1800, 86_400, TTL);
    Some(record(domain, RData::SOA(soa)))
}

pub(super) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The label that stands for an endpoint: its hostname, else its address with dashes.
pub(super) fn endpoint_label(endpoint: &Endpoint) -> String {
    endpoint.hostname.as_ref().map_or_else(|| dashed(endpoint.address), |hostname| hostname.to_string())
}

pub(super) fn address_data(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(v4) => RData::A(v4.into()),
        IpAddr::V6(v6) => RData::AAAA(v6.into()),
    }
}

/// One of our records.
pub(super) fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

/// `{labels}.{domain}`, or nothing when a label of the tenant's objects is no DNS label.
pub(super) fn below(labels: &[&str], domain: &Name) -> Option<Name> {
    let name = Name::from_labels(labels.iter().map(|l| l.as_bytes())).ok()?;
    name.append_domain(domain).ok()
}

/// The least that a record takes of a message.
pub(super) fn least(data: &RData) -> usize {
    let data = match data {
        RData::A(_) => 4,
        RData::AAAA(_) => 16,
        // A target is never compressed (RFC 2782).
        RData::SRV(srv) => 6 + srv.target.len(),
        // A label of one byte, and a pointer.
        _ => 2,
    };
    RECORD + data
}
