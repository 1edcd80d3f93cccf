//! Zones for tests.

use std::net::IpAddr;

use hickory_proto::rr::Name;

use crate::dns::zone::{Bounds, Endpoint, Kind, Origin, Port, Ports, Service, Slice, Target, Zone};

pub(crate) fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("name")
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("ip")
}

pub(crate) fn port(name: &str, protocol: &'static str, port: u16) -> Port {
    Port { name: name.into(), protocol, port }
}

pub(crate) fn endpoint(address: &str, hostname: Option<&str>, ready: bool) -> Endpoint {
    Endpoint { address: ip(address), hostname: hostname.map(Into::into), ready }
}

pub(crate) fn service(target: Target, ports: Vec<Port>) -> Service {
    Service { target, ports: ports.into(), publish_not_ready: false }
}

pub(crate) fn slice(service: &str, endpoints: Vec<Endpoint>, ports: impl Into<Ports>) -> Slice {
    Slice { service: service.into(), endpoints, ports: ports.into() }
}

pub(crate) fn empty_zone(domain: &str, bounds: Bounds) -> Zone {
    Zone::new("team/test", Origin { domain: name(domain), api: ip("10.96.0.1"), dns: ip("10.96.0.53") }, bounds)
}

/// A whole list of Services, as the source has it.
pub(crate) fn list_services(zone: &Zone, services: Vec<(&str, &str, Service)>) {
    let listing = zone.begin(Kind::Services);
    for (namespace, name, service) in services {
        zone.put_service(listing, namespace, name, service).expect("room");
    }
    for key in zone.unlisted(Kind::Services, listing) {
        zone.remove_service(key.parts().0, key.parts().1);
    }
    zone.listed(Kind::Services);
}

/// A whole list of EndpointSlices.
pub(crate) fn list_slices(zone: &Zone, slices: Vec<(&str, &str, Slice)>) {
    let listing = zone.begin(Kind::Slices);
    for (namespace, name, slice) in slices {
        zone.put_slice(listing, namespace, name, slice).expect("room");
    }
    for key in zone.unlisted(Kind::Slices, listing) {
        zone.remove_slice(key.parts().0, key.parts().1);
    }
    zone.listed(Kind::Slices);
}

/// What no tenant of Kubernetes needs and one may write: a slice of a thousand endpoints with thousands of ports.
pub(crate) fn hostile_slice(service: &str, endpoints: u32, ports: u16) -> Slice {
    let endpoints = (0..endpoints).map(|i| endpoint(&format!("10.9.{}.{}", i / 250, i % 250), None, true)).collect();
    slice(service, endpoints, (0..ports).map(|i| port(&format!("p{i}"), "tcp", i)).collect::<Vec<_>>())
}
