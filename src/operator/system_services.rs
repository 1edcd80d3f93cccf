//! Phase 3: each tenant's two Services in Portico's namespace, and the removal of those whose tenant is gone.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use crate::error::{Kind, Result};
use crate::kubernetes::resources::{SERVICES, VIRTUAL_CLUSTERS};
use crate::names::{TenantId, keys};
use crate::operator::apply::{self, Mark};
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::halt::{During, Halt, condition};
use crate::operator::host::{name_of, uid_of};

/// Annotation: uid of the VirtualCluster, so that a successor of the same name does not inherit Services unseen.
const CLUSTER_UID: &str = "portico.dev/cluster-uid";

/// ClusterIPs of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub api: String,
    pub dns: String,
}

/// Makes both Services. They live in another namespace than their owner, so labels and [`collect`] stand in for owner
/// references.
pub(crate) async fn ensure(context: &Context, cluster: &Cluster, port: u16) -> Result<Addresses, Halt> {
    let mut addresses = Vec::with_capacity(2);
    for desired in [api(context, cluster, port), dns(context, cluster, port)] {
        let namespace = context.system_namespace();
        let mark = Mark::Label(keys::HOST_NAMESPACE, cluster.namespace());
        let service =
            apply::ensure(&context.host, &SERVICES, namespace, desired, mark).await.during(condition::SERVICES)?;
        match service["spec"]["clusterIP"].as_str() {
            Some(ip) if !ip.is_empty() && ip != "None" => addresses.push(ip.to_owned()),
            _ => {
                let message = format!("Service {:?} has no cluster IP yet", name_of(&service));
                return Err(Halt::waiting(condition::SERVICES, "NoAddress", message));
            }
        }
    }
    let dns = addresses.pop().unwrap_or_default();
    let api = addresses.pop().unwrap_or_default();
    Ok(Addresses { api, dns })
}

fn api(context: &Context, cluster: &Cluster, port: u16) -> Value {
    let mut ports = vec![json!({"name": "https", "port": 443, "targetPort": port, "protocol": "TCP"})];
    let wanted = &cluster.spec.network.service_ip;
    if wanted.is_empty() {
        return service(context, cluster, "api", &json!(ports));
    }
    // Pods that ran before the cluster came here ask for names at the same address.
    ports.extend(dns_ports(port));
    let mut api = service(context, cluster, "api", &json!(ports));
    api["spec"]["clusterIP"] = json!(wanted);
    api
}

fn dns(context: &Context, cluster: &Cluster, port: u16) -> Value {
    service(context, cluster, "dns", &json!(dns_ports(port)))
}

/// DNS is served at the port after the API's.
fn dns_ports(port: u16) -> [Value; 2] {
    let dns =
        |name: &str, protocol: &str| json!({"name": name, "port": 53, "targetPort": port + 1, "protocol": protocol});
    [dns("dns", "UDP"), dns("dns-tcp", "TCP")]
}

fn service(context: &Context, cluster: &Cluster, purpose: &str, ports: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": cluster.id.system_service(purpose),
            "namespace": context.system_namespace(),
            "labels": {
                keys::HOST_NAMESPACE: cluster.namespace(),
                keys::CLUSTER: cluster.name(),
                "app.kubernetes.io/managed-by": "portico",
            },
            "annotations": {CLUSTER_UID: cluster.uid},
        },
        "spec": {"type": "ClusterIP", "selector": context.config.host.pod_selector, "ports": ports},
    })
}

/// Deletes the Services of tenants that are not in `living`; says of each tenant in `gone` before. Each is looked up once more
/// first, since a list may be older than a new tenant.
pub(crate) async fn collect(
    context: &Context,
    living: &HashMap<TenantId, String>,
    gone: &mut BTreeSet<TenantId>,
) -> Result<usize> {
    let namespace = context.system_namespace();
    let mut deleted = 0;
    for service in context.host.list(&SERVICES, namespace, keys::HOST_NAMESPACE).await? {
        let labels = &service["metadata"]["labels"];
        let owner = (labels[keys::HOST_NAMESPACE].as_str(), labels[keys::CLUSTER].as_str());
        let (Some(host_namespace), Some(name)) = owner else { continue };
        let Ok(id) = TenantId::parse(host_namespace, name) else { continue };
        if living.contains_key(&id) || !is_derived(&id, name_of(&service)) {
            continue;
        }
        let alive = context.host.get(&VIRTUAL_CLUSTERS, host_namespace, name).await?;
        if alive.is_some_and(|object| object["metadata"]["deletionTimestamp"].is_null()) {
            continue;
        }
        gone.insert(id.clone());
        match context.host.delete(&SERVICES, namespace, name_of(&service), uid_of(&service)).await {
            Ok(_) => {
                deleted += 1;
                tracing::info!(tenant = %id, service = name_of(&service), "deleted a Service whose tenant is gone");
            }
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// Only Services whose very name says that they are the tenant's are ever deleted.
fn is_derived(id: &TenantId, name: &str) -> bool {
    ["api", "dns"].iter().any(|purpose| id.system_service(purpose) == name)
}
