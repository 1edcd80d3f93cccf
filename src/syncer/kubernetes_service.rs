//! The tenant's `default/kubernetes` Service: its ClusterIP is the one that the host gave the tenant's API.
//!
//! The API server makes that Service by itself with the first address of its range, whenever it is missing; so ours
//! comes by delete and create, again and again until ours is there; none is deleted whose successor would be refused. Endpoints are ours too where the API server runs
//! without an endpoint reconciler; k3s of the original manifest has one, and what it writes leads nobody astray, since pods
//! meet the host's Service.

use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Kind, Result};
use crate::kubernetes::resources::{ENDPOINT_SLICES, ENDPOINTS, SERVICES};
use crate::syncer::cache::text;
use crate::syncer::service_address;
use crate::syncer::tenant::{Member, TenantState};
use crate::syncer::world::World;

const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";
/// An API server that does not take the address is misconfigured: everything else goes on meanwhile.
const REFUSED_RETRY: Duration = Duration::from_secs(60);
const SHORTEST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Right,
    /// Written or removed just now; look again.
    Changed,
}

/// Until the Service is right (true), or refused.
pub async fn settle(world: &World, tenant: &TenantState) -> bool {
    let (mut failures, mut wait) = (0_u32, SHORTEST_BACKOFF);
    loop {
        match step(&tenant.bound()).await {
            Ok(Found::Right) => return true,
            Ok(Found::Changed) => {}
            Err(error) if matches!(error.kind(), Kind::Invalid | Kind::Forbidden | Kind::BadRequest) => {
                tracing::warn!(tenant = %tenant.id, %error, "the kubernetes Service cannot have its address");
                return false;
            }
            // Somebody, most likely the API server itself, was faster.
            Err(error) if matches!(error.kind(), Kind::AlreadyExists | Kind::Conflict) => {}
            Err(error) => {
                failures += 1;
                wait = wait.max(Duration::from_millis(400));
                if failures == 3 {
                    tracing::info!(tenant = %tenant.id, %error, "waiting for the API server");
                }
            }
        }
        tokio::time::sleep(world.clock.jitter(wait)).await;
        wait = (wait * 2).min(LONGEST_BACKOFF);
    }
}

/// Again whenever the Service changed.
pub async fn guard(world: &World, tenant: &TenantState) {
    loop {
        tenant.service_changed.notified().await;
        tenant.store.until_believed().await;
        // A refused address is asked for again only after a while, whatever changes.
        if !settle(world, tenant).await {
            tokio::time::sleep(world.clock.jitter(REFUSED_RETRY)).await;
            tenant.service_changed.notify_one();
        }
    }
}

async fn step(member: &Member) -> Result<Found> {
    let wanted = member.view.api_service_ip.to_string();
    let found = member.api.get(&SERVICES, Some(NAMESPACE), NAME).await?;
    if let Some(service) = &found {
        if address(service) == wanted {
            endpoints(member, &wanted).await?;
            return Ok(Found::Right);
        }
        service_address::is_free(member, NAMESPACE, &wanted).await?;
        member.api.delete(&SERVICES, Some(NAMESPACE), NAME, text(service, "uid"), None).await?;
    }
    member.api.create(&SERVICES, Some(NAMESPACE), ("", ""), &service(&wanted)).await?;
    Ok(Found::Changed)
}

async fn endpoints(member: &Member, address: &str) -> Result<()> {
    let endpoints = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": address}],
            "ports": [{"name": "https", "port": 443, "protocol": "TCP"}],
        }],
    });
    let current = member.api.get(&ENDPOINTS, Some(NAMESPACE), NAME).await?;
    if current.as_ref().and_then(|e| e.pointer("/subsets/0/addresses/0/ip")).and_then(Value::as_str) != Some(address) {
        member.api.apply(&ENDPOINTS, Some(NAMESPACE), NAME, &endpoints).await?;
    }
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": NAME},
        },
        "addressType": if address.contains(':') { "IPv6" } else { "IPv4" },
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": 443, "protocol": "TCP"}],
    });
    let current = member.api.get(&ENDPOINT_SLICES, Some(NAMESPACE), NAME).await?;
    if current.as_ref().and_then(|s| s.pointer("/endpoints/0/addresses/0")).and_then(Value::as_str) != Some(address) {
        match member.api.apply(&ENDPOINT_SLICES, Some(NAMESPACE), NAME, &slice).await {
            // Before Kubernetes 1.21 there are none.
            Err(error) if error.kind() != Kind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn address(service: &Value) -> &str {
    service.pointer("/spec/clusterIP").and_then(Value::as_str).unwrap_or_default()
}

fn service(address: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "clusterIP": address,
            "sessionAffinity": "None",
            "type": "ClusterIP",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
        },
    })
}
