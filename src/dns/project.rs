//! Services and EndpointSlices as the API server writes them, read down to what the zone keeps.
//!
//! Pure. Never fails on a field that names do not need; what is unreadable is left out, not guessed, and what is beyond
//! a bound is not even read: an object of a few hundred kilobytes may name a thousand endpoints and thousands of ports.

mod bounded;

use std::net::IpAddr;

use serde::Deserialize;

pub(crate) use self::bounded::Bounded;
use crate::dns::zone::{Endpoint, Port, Ports, Service, Slice, Target};

/// Ports of one Service or EndpointSlice. Kubernetes has no bound for a Service and validates 20 000 in a slice
/// (kubernetes#99795, which the API's own text, "a maximum of 100", never followed). More SRV records than this do not fit
/// an answer of 64 KiB.
pub(crate) const MAX_PORTS: usize = 1000;
/// Endpoints of one slice, as Kubernetes validates.
pub(crate) const MAX_ENDPOINTS: usize = 1000;
/// ClusterIPs of a Service: one for each family.
const MAX_CLUSTER_IPS: usize = 2;
/// A label of a DNS name; names of namespaces, Services, ports and hosts are such.
const LONGEST_LABEL: usize = 63;
/// A DNS name as text; names of EndpointSlices are such.
const LONGEST_NAME: usize = 253;
/// A resourceVersion is a decimal number of 64 bits; opaque all the same.
const LONGEST_VERSION: usize = 64;

/// An object as it goes into the zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named<T> {
    /// Namespace.
    pub(crate) namespace: Box<str>,
    /// Name.
    pub(crate) name: Box<str>,
    /// resourceVersion, from which a watch can go on; empty when there is none.
    pub(crate) version: String,
    /// Whether something was beyond a bound and left out.
    pub(crate) is_cut: bool,
    /// The rest.
    pub(crate) value: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    namespace: Box<str>,
    #[serde(default)]
    name: Box<str>,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    labels: Option<Labels>,
}

#[derive(Default, Deserialize)]
struct Labels {
    #[serde(default, rename = "kubernetes.io/service-name")]
    service: Box<str>,
}

#[derive(Deserialize)]
struct ServiceObject {
    metadata: Metadata,
    #[serde(default)]
    spec: ServiceSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    r#type: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Bounded<String, MAX_CLUSTER_IPS>,
    external_name: Box<str>,
    publish_not_ready_addresses: bool,
    ports: RawPorts,
}

#[derive(Deserialize)]
struct SliceObject {
    metadata: Metadata,
    #[serde(default)]
    endpoints: Bounded<RawEndpoint, MAX_ENDPOINTS>,
    #[serde(default)]
    ports: RawPorts,
}

#[derive(Deserialize)]
struct RawEndpoint {
    /// All addresses of an endpoint are fungible (EndpointSlice API): consumers use the first.
    #[serde(default)]
    addresses: Bounded<String, 1>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    conditions: RawConditions,
}

#[derive(Default, Deserialize)]
struct RawConditions {
    #[serde(default)]
    ready: Option<bool>,
}

type RawPorts = Bounded<RawPort, MAX_PORTS>;

#[derive(Deserialize)]
struct RawPort {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    port: Option<u16>,
}

impl<T> Named<T> {
    /// Whether a DNS name can be made of its names; nothing else is taken in.
    pub(crate) fn is_nameable(&self) -> bool {
        let fits = |text: &str, most: usize| !text.is_empty() && text.len() <= most && !text.contains('/');
        fits(&self.namespace, LONGEST_LABEL) && fits(&self.name, LONGEST_NAME)
    }
}

/// Reads a Service.
pub(crate) fn service(json: &[u8]) -> Result<Named<Service>, serde_json::Error> {
    let ServiceObject { metadata, spec } = serde_json::from_slice(json)?;
    let mut is_cut = false;
    let target = match (spec.r#type.as_str(), spec.cluster_ip.as_str()) {
        // The final dot is not counted.
        ("ExternalName", _) if spec.external_name.len() <= LONGEST_NAME + 1 => Target::External(spec.external_name),
        ("ExternalName", _) => {
            is_cut = true;
            Target::ClusterIps(Vec::new())
        }
        (_, "None") => Target::Headless,
        (_, one) => {
            let mut ips: Vec<IpAddr> = spec.cluster_ips.items.iter().filter_map(|ip| ip.parse().ok()).collect();
            if ips.is_empty() {
                ips.extend(one.parse::<IpAddr>());
            }
            Target::ClusterIps(ips)
        }
    };
    let publish_not_ready = spec.publish_not_ready_addresses;
    let value = Service { target, ports: ports(spec.ports, &mut is_cut), publish_not_ready };
    Ok(named(metadata, is_cut, value))
}

/// Reads an EndpointSlice.
pub(crate) fn slice(json: &[u8]) -> Result<Named<Slice>, serde_json::Error> {
    let SliceObject { mut metadata, endpoints: raw, ports: raw_ports } = serde_json::from_slice(json)?;
    let mut is_cut = raw.is_cut;
    let mut endpoints = Vec::with_capacity(raw.items.len());
    for raw in raw.items {
        // FQDN slices end here.
        let Some(address) = raw.addresses.items.first().and_then(|a| a.parse().ok()) else { continue };
        let hostname = raw.hostname.filter(|h| !h.is_empty());
        is_cut |= hostname.as_ref().is_some_and(|h| h.len() > LONGEST_LABEL);
        let hostname = hostname.filter(|h| h.len() <= LONGEST_LABEL).map(|h| h.to_ascii_lowercase().into());
        endpoints.push(Endpoint { address, hostname, ready: raw.conditions.ready != Some(false) });
    }
    endpoints.shrink_to_fit();
    let mut service = metadata.labels.take().unwrap_or_default().service;
    if service.len() > LONGEST_LABEL || service.contains('/') {
        (service, is_cut) = (Box::default(), true);
    }
    let value = Slice { service, endpoints, ports: ports(raw_ports, &mut is_cut) };
    Ok(named(metadata, is_cut, value))
}

fn named<T>(metadata: Metadata, is_cut: bool, value: T) -> Named<T> {
    let version = Some(metadata.resource_version).filter(|v| v.len() <= LONGEST_VERSION).unwrap_or_default();
    Named { namespace: metadata.namespace, name: metadata.name, version, is_cut, value }
}

fn ports(raw: RawPorts, is_cut: &mut bool) -> Ports {
    *is_cut |= raw.is_cut;
    let read = |p: RawPort| {
        let name = p.name.filter(|n| !n.is_empty() && n.len() <= LONGEST_LABEL)?.to_ascii_lowercase().into();
        let protocol = match p.protocol.as_deref() {
            None | Some("TCP") => "tcp",
            Some("UDP") => "udp",
            Some("SCTP") => "sctp",
            Some(_) => return None,
        };
        Some(Port { name, protocol, port: p.port? })
    };
    raw.items.into_iter().filter_map(read).collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests;
