//! The tenant's `kube-system/kube-dns` Service: the name under which charts look for the cluster's DNS, which is Portico's.
//!
//! Promises: made where there is none, and written again only while it is as Portico made it; a Service of that name that
//! somebody else made (a CoreDNS of the tenant's own, k3s') is left alone. Whoever takes ours away has a minute to put
//! his own. It never reaches the host ([`service::is_dns_service`]).
//!
//! No pod of the tenant stands behind it, so it has no selector, and its Endpoints name the DNS address itself, for whoever
//! reads those. The controller manager makes the slices of them. Port 9153 (CoreDNS' metrics) is not there: nobody serves it.

use serde_json::{Value, json};

use crate::error::Result;
use crate::kubernetes::resources::{ENDPOINTS, SERVICES};
use crate::syncer::cache::text;
use crate::syncer::pauses::Pauses;
use crate::syncer::service_address;
use crate::syncer::tenant::{Member, TenantState};
use crate::syncer::world::World;
use crate::translate::{View, identity, service};

/// `clusterIP` of a Service that has no address.
const HEADLESS: &str = "None";

/// Keeps it as long as the tenant is there.
pub async fn guard(world: &World, tenant: &TenantState) {
    let mut pauses = Pauses::new(world, tenant, "its kube-dns Service");
    if shares_address(&tenant.bound().view) {
        // k3s puts its CoreDNS when it starts.
        pauses.patience().await;
    }
    loop {
        tenant.store.until_believed().await;
        match step(&tenant.bound()).await {
            // One that was made and lost between two lists was never in the cache, so nobody hears of its end.
            Ok(()) => {
                pauses.settled(&tenant.dns_service_changed).await;
            }
            Err(error) => pauses.failed(&error).await,
        }
    }
}

async fn step(member: &Member) -> Result<()> {
    let (view, namespace) = (&member.view, Some(service::DNS_NAMESPACE));
    let found = member.api.get(&SERVICES, namespace, service::DNS_NAME).await?;
    if let Some(found) = &found {
        if !service::is_dns_service(found, view) || !text(found, "deletionTimestamp").is_empty() {
            return Ok(());
        }
        if address(found) == cluster_ip(view) {
            return endpoints(member).await;
        }
        // At its address nobody answers any more; still better than none.
        let wanted = cluster_ip(view);
        if wanted != HEADLESS {
            service_address::is_free(member, service::DNS_NAMESPACE, &wanted).await?;
        }
        member.api.delete(&SERVICES, namespace, service::DNS_NAME, text(found, "uid"), None).await?;
    }
    member.api.create(&SERVICES, namespace, ("", ""), &service_object(view)).await?;
    endpoints(member).await
}

async fn endpoints(member: &Member) -> Result<()> {
    let (namespace, address) = (Some(service::DNS_NAMESPACE), member.view.dns_service_ip.to_string());
    let current = member.api.get(&ENDPOINTS, namespace, service::DNS_NAME).await?;
    if current.as_ref().and_then(|e| e.pointer("/subsets/0/addresses/0/ip")).and_then(Value::as_str) != Some(&address) {
        let object = endpoints_object(&address);
        member.api.apply(&ENDPOINTS, namespace, service::DNS_NAME, &object).await?;
    }
    Ok(())
}

/// A sidecar's API and DNS have one address, which the Service `kubernetes` holds.
fn shares_address(view: &View) -> bool {
    view.dns_service_ip == view.api_service_ip
}

/// Headless where the address is taken inside: then the name leads to the Endpoints, which is the same address.
fn cluster_ip(view: &View) -> String {
    if shares_address(view) { HEADLESS.to_owned() } else { view.dns_service_ip.to_string() }
}

fn address(service: &Value) -> &str {
    service.pointer("/spec/clusterIP").and_then(Value::as_str).unwrap_or_default()
}

fn metadata() -> Value {
    json!({
        "name": service::DNS_NAME,
        "namespace": service::DNS_NAMESPACE,
        "labels": {
            "k8s-app": "kube-dns",
            "kubernetes.io/cluster-service": "true",
            "kubernetes.io/name": "CoreDNS",
            identity::FROM_HOST: "true",
        },
    })
}

fn service_object(view: &View) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(),
        "spec": {
            "clusterIP": cluster_ip(view),
            "type": "ClusterIP",
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    })
}

fn endpoints_object(address: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": metadata(),
        "subsets": [{
            "addresses": [{"ip": address}],
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ],
        }],
    })
}
