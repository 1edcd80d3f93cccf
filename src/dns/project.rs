//! Services and EndpointSlices as the API server writes them, read down to what the zone keeps.
//!
//! Pure. Never fails on a field that names do not need; what is unreadable is left out, not guessed.

use std::net::IpAddr;

use serde::Deserialize;

use crate::dns::zone::{Endpoint, Port, Service, Slice, Target};

/// An object as it goes into the zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named<T> {
    /// Namespace.
    pub(crate) namespace: Box<str>,
    /// Name.
    pub(crate) name: Box<str>,
    /// resourceVersion, from which a watch can go on.
    pub(crate) version: String,
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
    cluster_ips: Vec<String>,
    external_name: Box<str>,
    publish_not_ready_addresses: bool,
    ports: Vec<RawPort>,
}

#[derive(Deserialize)]
struct SliceObject {
    metadata: Metadata,
    #[serde(default)]
    endpoints: Option<Vec<RawEndpoint>>,
    #[serde(default)]
    ports: Option<Vec<RawPort>>,
}

#[derive(Deserialize)]
struct RawEndpoint {
    #[serde(default)]
    addresses: Vec<String>,
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

#[derive(Deserialize)]
struct RawPort {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    port: Option<u16>,
}

/// Reads a Service.
pub(crate) fn service(json: &[u8]) -> Result<Named<Service>, serde_json::Error> {
    let ServiceObject { metadata, spec } = serde_json::from_slice(json)?;
    let target = match (spec.r#type.as_str(), spec.cluster_ip.as_str()) {
        ("ExternalName", _) => Target::External(spec.external_name),
        (_, "None") => Target::Headless,
        (_, one) => {
            let mut ips: Vec<IpAddr> = spec.cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
            if ips.is_empty() {
                ips.extend(one.parse::<IpAddr>());
            }
            Target::ClusterIps(ips)
        }
    };
    let publish_not_ready = spec.publish_not_ready_addresses;
    Ok(named(metadata, Service { target, ports: ports(spec.ports), publish_not_ready }))
}

/// Reads an EndpointSlice.
pub(crate) fn slice(json: &[u8]) -> Result<Named<Slice>, serde_json::Error> {
    let SliceObject { mut metadata, endpoints: raw_endpoints, ports: raw_ports } = serde_json::from_slice(json)?;
    let mut endpoints = Vec::new();
    for raw in raw_endpoints.unwrap_or_default() {
        // All addresses of an endpoint are fungible (EndpointSlice API): consumers use the first. FQDN slices end here.
        let Some(address) = raw.addresses.first().and_then(|a| a.parse().ok()) else { continue };
        let hostname = raw.hostname.filter(|h| !h.is_empty()).map(|h| h.to_ascii_lowercase().into());
        endpoints.push(Endpoint { address, hostname, ready: raw.conditions.ready != Some(false) });
    }
    let service = metadata.labels.take().unwrap_or_default().service;
    Ok(named(metadata, Slice { service, endpoints, ports: ports(raw_ports.unwrap_or_default()) }))
}

fn named<T>(metadata: Metadata, value: T) -> Named<T> {
    Named { namespace: metadata.namespace, name: metadata.name, version: metadata.resource_version, value }
}

fn ports(raw: Vec<RawPort>) -> Vec<Port> {
    let read = |p: RawPort| {
        let name = p.name.filter(|n| !n.is_empty())?.to_ascii_lowercase().into();
        let protocol = match p.protocol.as_deref() {
            None | Some("TCP") => "tcp",
            Some("UDP") => "udp",
            Some("SCTP") => "sctp",
            Some(_) => return None,
        };
        Some(Port { name, protocol, port: p.port? })
    };
    raw.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SERVICE_LABEL: &str = "kubernetes.io/service-name";

    #[test]
    fn services() {
        let read = |spec: serde_json::Value| {
            let object = json!({"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"shop",
                "resourceVersion":"7","labels":{"a":"b"}},"spec":spec,"status":{"loadBalancer":{}}});
            service(object.to_string().as_bytes()).expect("read")
        };
        let web = read(json!({"clusterIP":"10.96.0.9","clusterIPs":["10.96.0.9","fd00::9"],
            "ports":[{"name":"http","port":80,"targetPort":"x"},{"port":81},{"name":"dns","protocol":"UDP","port":53}]}));
        assert_eq!((&*web.namespace, &*web.name, &*web.version), ("shop", "web", "7"));
        let ips = ["10.96.0.9", "fd00::9"].map(|ip| ip.parse().expect("ip")).to_vec();
        assert_eq!(web.value.target, Target::ClusterIps(ips));
        let ports: Vec<_> = web.value.ports.iter().map(|p| (&*p.name, p.protocol, p.port)).collect();
        assert_eq!(ports, [("http", "tcp", 80), ("dns", "udp", 53)]);
        assert_eq!(read(json!({"clusterIP":"None","clusterIPs":["None"]})).value.target, Target::Headless);
        assert_eq!(read(json!({})).value.target, Target::ClusterIps(vec![]));
        let external = read(json!({"type":"ExternalName","externalName":"db.example.com"}));
        assert_eq!(external.value.target, Target::External("db.example.com".into()));
    }

    #[test]
    fn slices() {
        let object = json!({"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4",
            "metadata":{"name":"db-abc","namespace":"shop","labels":{SERVICE_LABEL:"db"}},
            "endpoints":[{"addresses":["10.0.0.1"],"hostname":"db-0","conditions":{"ready":true}},
                {"addresses":["10.0.0.2"],"conditions":{"ready":false}},{"addresses":["a.example"]},{"addresses":[]}],
            "ports":[{"name":"sql","port":5432,"protocol":"TCP"},{"name":"any","port":null}]});
        let read = slice(object.to_string().as_bytes()).expect("read").value;
        assert_eq!(&*read.service, "db");
        assert_eq!(read.endpoints.len(), 2);
        assert_eq!(read.endpoints[0].hostname.as_deref(), Some("db-0"));
        assert!(!read.endpoints[1].ready);
        assert_eq!(read.ports.len(), 1);
        let empty = json!({"metadata":{"name":"x","namespace":"y"},"endpoints":null,"ports":null});
        assert!(slice(empty.to_string().as_bytes()).expect("read").value.endpoints.is_empty());
    }
}
