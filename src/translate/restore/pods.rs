//! Pods on the way back: what [`pod::to_host`](super::super::pod::to_host) did is undone, what the host added is left out.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::pod::{self, references};
use super::super::{identity, json};
use super::back::{Back, Need, is_adopted};
use super::metadata::{self, Record};
use super::origin::Pod;
use super::unknown::{UNKNOWN, is_unknown};
use super::{env, scheduling, volumes};

const CONTAINERS: &[&str] = &["containers", "initContainers"];
/// Fields that the host or the way down has set: chosen anew by the tenant's API server, or of no use there. Which node
/// a pod is on, its syncer tells.
const NOT_THE_TENANTS: &[&str] = &[
    "nodeName",
    "serviceAccount",
    "serviceAccountName",
    "priority",
    "preemptionPolicy",
    "overhead",
    "ephemeralContainers",
    "enableServiceLinks",
    "resourceClaims",
    "subdomain",
];
/// The virtual pod.
pub(super) fn restore(host: &Value, back: &mut Back<'_>) -> Map<String, Value> {
    let mut spec = host.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
    spec.retain(|field, _| !NOT_THE_TENANTS.contains(&field.as_str()));
    if !json::items(host, "/spec/ephemeralContainers").is_empty() {
        back.lose("its ephemeral containers run on, but the tenant does not see them");
    }
    account(&mut spec, host, back);
    classes(&spec, back);
    hostname(&mut spec, host, back);
    let made = Pod::of(host);
    containers(&mut spec, &made, back);
    let tokens = volumes::own(&mut spec, host, &made, back);
    rename(&mut spec, back);
    volumes::prune(&mut spec, &tokens, back);
    mounts(&mut spec);
    dns(&mut spec, host, back);
    scheduling::restore(&mut spec, back);
    if is_adopted(host) {
        vcluster(&mut spec, back);
    }
    let mut object = Map::new();
    object.insert("metadata".to_owned(), Value::Object(metadata::restore(host, Record::Annotated, back)));
    object.insert("spec".to_owned(), Value::Object(spec));
    object
}

/// The account is recorded. Its token is in the volumes already if the pod mounts one, so none shall be added.
fn account(spec: &mut Map<String, Value>, host: &Value, back: &mut Back<'_>) {
    let account = match identity::annotation(host, pod::SERVICE_ACCOUNT) {
        "" => {
            back.lose("its ServiceAccount is not recorded: it is `default` now");
            "default"
        }
        recorded => recorded,
    };
    back.needs.push(Need::ServiceAccount(account.to_owned()));
    spec.insert("serviceAccountName".to_owned(), json!(account));
    spec.insert("automountServiceAccountToken".to_owned(), json!(false));
}

fn classes(spec: &Map<String, Value>, back: &mut Back<'_>) {
    let named =
        |field: &str| spec.get(field).and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned);
    back.needs.extend(named("priorityClassName").map(Need::PriorityClass));
    back.needs.extend(named("runtimeClassName").map(Need::RuntimeClass));
}

/// Every host pod has a hostname. One of its own matters with a subdomain, where DNS names the pod by both.
fn hostname(spec: &mut Map<String, Value>, host: &Value, back: &Back<'_>) {
    let subdomain = identity::annotation(host, pod::SUBDOMAIN);
    if !subdomain.is_empty() {
        spec.insert("subdomain".to_owned(), json!(subdomain));
    } else if spec.get("hostname").and_then(Value::as_str) == Some(pod::hostname_of(&back.name).as_str()) {
        spec.remove("hostname");
    }
}

fn containers(spec: &mut Map<String, Value>, made: &Pod<'_>, back: &mut Back<'_>) {
    for list in CONTAINERS {
        let made = made.list(list);
        if let Some(Value::Array(items)) = spec.get_mut(*list) {
            items.retain(|container| made.has(json::text(container, "/name")));
        }
        json::each(spec, list, |container| {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            for (inner, key) in [("env", "name"), ("volumeMounts", "mountPath"), ("volumeDevices", "devicePath")] {
                if let Some(Value::Array(items)) = container.get_mut(inner) {
                    let made = made.list(&name, inner, key);
                    items.retain(|item| made.has(item.get(key).and_then(Value::as_str).unwrap_or_default()));
                }
            }
            env::restore(container, back.view);
            image(container, &name, back);
        });
    }
}

/// The one image that becomes this one on the host.
fn image(container: &mut Map<String, Value>, name: &str, back: &mut Back<'_>) {
    let Some(Value::String(image)) = container.get_mut("image") else { return };
    let becomes = back.view.translate_images.iter().filter(|(_, on_host)| *on_host == image);
    let candidates: Vec<&String> = becomes.map(|(of_tenant, _)| of_tenant).collect();
    match candidates.as_slice() {
        [] => {}
        [one] => (*one).clone_into(image),
        _ => back
            .lost
            .push(format!("container {name}: more than one image becomes {image} on the host, so that one stands")),
    }
}

/// Names of the tenant's objects instead of the host's. What holds one that is not the tenant's is left out, and said.
fn rename(spec: &mut Map<String, Value>, back: &mut Back<'_>) {
    let mut unknown = BTreeSet::new();
    let name = back.name.clone();
    references::rename_with(spec, &name, &mut |kind, on_host| match back.reference(kind.kind(), on_host) {
        Some(own) => own,
        None if on_host == UNKNOWN => UNKNOWN.to_owned(),
        None => {
            unknown.insert(format!("{} {on_host} is not of this tenant, what uses it is left out", kind.kind()));
            UNKNOWN.to_owned()
        }
    });
    back.lost.extend(unknown);
    drop_unknown(spec, "imagePullSecrets");
    for list in CONTAINERS {
        json::each(spec, list, |container| {
            drop_unknown(container, "env");
            drop_unknown(container, "envFrom");
        });
    }
}

fn drop_unknown(map: &mut Map<String, Value>, list: &str) {
    let Some(Value::Array(items)) = map.get_mut(list) else { return };
    items.retain(|item| !is_unknown(item));
    if items.is_empty() {
        map.remove(list);
    }
}

/// Mounts of volumes that were left out.
fn mounts(spec: &mut Map<String, Value>) {
    let volumes: BTreeSet<String> = match spec.get("volumes") {
        Some(Value::Array(volumes)) => volumes.iter().map(|v| json::text(v, "/name").to_owned()).collect(),
        _ => BTreeSet::new(),
    };
    for list in CONTAINERS {
        json::each(spec, list, |container| {
            for inner in ["volumeMounts", "volumeDevices"] {
                if let Some(Value::Array(items)) = container.get_mut(inner) {
                    items.retain(|mount| volumes.contains(json::text(mount, "/name")));
                    if items.is_empty() {
                        container.remove(inner);
                    }
                }
            }
        });
    }
}

/// The cluster's DNS, where the copy says what Portico (or vcluster, whose DNS had another address) makes of it.
fn dns(spec: &mut Map<String, Value>, host: &Value, back: &Back<'_>) {
    if spec.get("dnsPolicy").and_then(Value::as_str) != Some("None") {
        return;
    }
    let domain = &back.view.cluster_domain;
    let search = [format!("{}.svc.{domain}", back.namespace), format!("svc.{domain}"), domain.clone()];
    let config = spec.get("dnsConfig").cloned().unwrap_or_default();
    let (servers, searches) = (json::items(&config, "/nameservers"), json::items(&config, "/searches"));
    let Some((first, servers)) = servers.split_first() else { return };
    let is_ours = first.as_str() == Some(back.view.dns_service_ip.to_string().as_str());
    let stands = searches.len() >= search.len() && searches.iter().zip(&search).all(|(s, own)| s.as_str() == Some(own));
    if !stands || !(is_ours || is_adopted(host)) {
        return;
    }
    let mut options = json::items(&config, "/options");
    if let Some((first, rest)) = options.split_first()
        && *first == json!({"name": "ndots", "value": "5"})
    {
        options = rest;
    }
    let searches = searches.get(search.len()..).unwrap_or_default();
    let own: Map<String, Value> = [("nameservers", servers), ("searches", searches), ("options", options)]
        .into_iter()
        .filter(|(_, items)| !items.is_empty())
        .map(|(field, items)| (field.to_owned(), json!(items)))
        .collect();
    let on_host_network = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
    let policy = if on_host_network { "ClusterFirstWithHostNet" } else { "ClusterFirst" };
    spec.insert("dnsPolicy".to_owned(), json!(policy));
    if own.is_empty() {
        spec.remove("dnsConfig");
    } else {
        spec.insert("dnsConfig".to_owned(), Value::Object(own));
    }
}

/// What vcluster alone does to a pod.
fn vcluster(spec: &mut Map<String, Value>, back: &mut Back<'_>) {
    let names = json!(["kubernetes", "kubernetes.default", "kubernetes.default.svc"]);
    if let Some(Value::Array(aliases)) = spec.get_mut("hostAliases") {
        aliases.retain(|alias| alias.get("hostnames") != Some(&names));
    }
    back.lose("it was made by vcluster: labels and annotations that it reads of itself, and terms about other pods, are as vcluster wrote them");
}
