//! What the host says of this pod: its Service and the others in front of it, its owner, its node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::settings::{Settings, missing};
use crate::error::{Error, Kind, Result};
use crate::kubernetes::resources::{CONFIG_MAPS, PODS, SERVICES, STATEFUL_SETS};
use crate::kubernetes::{ApiClient, ListOptions};
use crate::names::keys;
use crate::translate::{Owner, json};

/// The pod of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnPod {
    /// Its labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Its node.
    pub node: String,
    /// Address of the node.
    pub node_ip: String,
    /// Its own address.
    pub ip: String,
}

/// What is around this pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// ClusterIP of the own Service: the tenant's API and DNS.
    pub(super) address: IpAddr,
    pub(super) service_uid: String,
    /// Whether the Service leads to DNS too.
    pub(super) has_dns_ports: bool,
    pub(super) owner: Option<Owner>,
    /// Names and addresses under which this pod is reached.
    pub(super) names: Vec<String>,
    /// Label terms that Services of the namespace select by, but for the tenant's own.
    pub(super) selected_by: BTreeSet<(String, String)>,
    /// uid of the store that the syncer has recorded.
    pub(super) store: Option<String>,
}

/// Looks for the pod of this process; None when there is none of that name.
pub async fn own_pod(host: &ApiClient, namespace: &str, name: &str) -> Result<Option<OwnPod>> {
    let Some(pod) = host.get(&PODS, Some(namespace), name).await? else { return Ok(None) };
    let text = |pointer: &str| json::text(&pod, pointer).to_owned();
    Ok(Some(OwnPod {
        labels: json::strings(&pod, "/metadata/labels"),
        node: text("/spec/nodeName"),
        node_ip: text("/status/hostIP"),
        ip: text("/status/podIP"),
    }))
}

/// Reads the Services of the namespace that are nobody's copies, and the owner.
pub(super) async fn look(host: &ApiClient, settings: &Settings, own: Option<&OwnPod>) -> Result<Surroundings> {
    let options = ListOptions { label_selector: format!("!{}", keys::CLUSTER), ..ListOptions::default() };
    let (services, _) = host.list(&SERVICES, Some(&settings.namespace), &options).await?;
    let service = services.iter().find(|service| json::name(service) == settings.flags.service);
    let service = service.ok_or_else(|| {
        missing(format!(
            "Service {:?} is not in namespace {:?}: create it, or name yours with --service-name",
            settings.flags.service, settings.namespace
        ))
    })?;
    let mut surroundings = Surroundings {
        address: address(service)?,
        service_uid: json::uid(service).to_owned(),
        has_dns_ports: has_dns_ports(service, settings.port),
        owner: owner(host, settings).await?,
        names: Vec::new(),
        selected_by: BTreeSet::new(),
        store: recorded_store(host, settings).await?,
    };
    for service in &services {
        let selector = json::strings(service, "/spec/selector");
        let selects_us = own.is_some_and(|own| {
            !selector.is_empty() && selector.iter().all(|(key, value)| own.labels.get(key) == Some(value))
        });
        if selects_us || json::name(service) == settings.flags.service {
            surroundings.names.extend(service_names(service));
        }
        // Also what other workloads of the namespace are selected by, another virtual cluster's for one.
        surroundings.selected_by.extend(selector);
    }
    if settings.id.namespace().as_str() != settings.namespace {
        // The copies land elsewhere: there, too, are Services that no tenant may get behind.
        let (services, _) = host.list(&SERVICES, Some(settings.id.namespace().as_str()), &options).await?;
        surroundings.selected_by.extend(services.iter().flat_map(|service| json::strings(service, "/spec/selector")));
    }
    let own = own.into_iter().flat_map(|own| [own.ip.clone(), own.node_ip.clone()]);
    surroundings.names.extend(own.filter(|name| !name.is_empty()));
    Ok(surroundings)
}

async fn recorded_store(host: &ApiClient, settings: &Settings) -> Result<Option<String>> {
    let record = host.get(&CONFIG_MAPS, Some(settings.id.namespace().as_str()), &settings.id.store_record()).await?;
    let uid = record.as_ref().map(|record| json::text(record, "/data/store").to_owned());
    Ok(uid.filter(|uid| !uid.is_empty()))
}

/// Pods ask for names at the same address as for the API. The ports are added beside those that are there.
pub(super) async fn ensure_dns_ports(host: &ApiClient, settings: &Settings, around: &Surroundings) -> Result<()> {
    if around.has_dns_ports {
        return Ok(());
    }
    let dns = settings.port + 1;
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 53, "protocol": protocol, "targetPort": dns});
    let intent = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": settings.flags.service, "namespace": settings.namespace, "uid": around.service_uid},
        "spec": {"ports": [port("dns", "UDP"), port("dns-tcp", "TCP")]},
    });
    host.apply(&SERVICES, Some(&settings.namespace), &settings.flags.service, "", &intent).await.map_err(|error| {
        let message =
            format!("the DNS ports cannot be added to Service {:?}: {}", settings.flags.service, error.message());
        Error::own(Kind::Unavailable, message).because(error)
    })?;
    tracing::info!(service = settings.flags.service, "pods find the tenant's DNS at port 53 of its Service");
    Ok(())
}

fn has_dns_ports(service: &Value, port: u16) -> bool {
    ["UDP", "TCP"].iter().all(|protocol| {
        json::items(service, "/spec/ports").iter().any(|found| {
            found["port"] == 53
                && found["protocol"].as_str().unwrap_or("TCP") == *protocol
                && found["targetPort"] == port + 1
        })
    })
}

/// Pods call the API at port 443 of this address, as in every cluster.
fn address(service: &Value) -> Result<IpAddr> {
    let name = json::name(service);
    let ip = json::text(service, "/spec/clusterIP");
    let address = ip.parse().map_err(|_| {
        missing(format!(
            "Service {name:?} has no cluster IP ({ip:?}); the tenant's pods need one, a headless one is not enough"
        ))
    })?;
    if !json::items(service, "/spec/ports").iter().any(|port| port["port"] == 443) {
        return Err(missing(format!("Service {name:?} has no port 443: pods call their API server there")));
    }
    Ok(address)
}

async fn owner(host: &ApiClient, settings: &Settings) -> Result<Option<Owner>> {
    let name = &settings.flags.owning_stateful_set;
    // The host collects only what is in the owner's own namespace.
    if name.is_empty() || settings.id.namespace().as_str() != settings.namespace {
        return Ok(None);
    }
    let set = host.get(&STATEFUL_SETS, Some(&settings.namespace), name).await?;
    let set = set.ok_or_else(|| {
        missing(format!("StatefulSet {name:?} (--owning-statefulset) is not in namespace {:?}", settings.namespace))
    })?;
    Ok(Some(Owner {
        api_version: "apps/v1".to_owned(),
        kind: "StatefulSet".to_owned(),
        name: name.clone(),
        uid: json::uid(&set).to_owned(),
        controller: false,
    }))
}

fn service_names(service: &Value) -> Vec<String> {
    let (name, namespace) = (json::name(service), json::namespace(service));
    let mut names = vec![
        name.to_owned(),
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.cluster.local"),
    ];
    let addresses =
        json::items(service, "/spec/clusterIPs").iter().filter_map(Value::as_str).filter(|ip| *ip != "None");
    names.extend(addresses.map(str::to_owned));
    for ingress in json::items(service, "/status/loadBalancer/ingress") {
        let known = ["/ip", "/hostname"].map(|field| json::text(ingress, field).to_owned());
        names.extend(known.into_iter().filter(|name| !name.is_empty()));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Value {
        json!({
            "metadata": {"name": "dev-cluster", "namespace": "dev", "uid": "u"},
            "spec": {"clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"],
                "ports": [{"name": "https", "port": 443, "targetPort": 8443, "protocol": "TCP"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.example.com"}]}},
        })
    }

    #[test]
    fn addresses_of_a_load_balancer_are_names_too() {
        let names = service_names(&service());
        for wanted in ["dev-cluster.dev.svc", "10.96.0.20", "192.0.2.1", "lb.example.com"] {
            assert!(names.iter().any(|n| n == wanted), "{wanted} in {names:?}");
        }
    }

    #[test]
    fn a_service_that_pods_cannot_use_is_explained() {
        assert_eq!(address(&service()).expect("usable").to_string(), "10.96.0.20");
        let mut headless = service();
        headless["spec"]["clusterIP"] = json!("None");
        assert!(address(&headless).expect_err("headless").to_string().contains("no cluster IP"));
        let mut other = service();
        other["spec"]["ports"][0]["port"] = json!(6443);
        assert!(address(&other).expect_err("port").to_string().contains("no port 443"));
    }

    #[test]
    fn dns_ports_are_right_only_with_both_protocols_and_the_target() {
        let mut with = service();
        assert!(!has_dns_ports(&with, 8443));
        let ports = with["spec"]["ports"].as_array_mut().expect("ports");
        ports.push(json!({"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 8444}));
        assert!(!has_dns_ports(&with, 8443));
        let ports = with["spec"]["ports"].as_array_mut().expect("ports");
        ports.push(json!({"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 8444}));
        assert!(has_dns_ports(&with, 8443));
        assert!(!has_dns_ports(&with, 9443));
    }
}
