//! Environment: the tenant's API server and Services as a kubelet of the tenant would show them, and the downward API.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::summary::ServiceSummary;
use super::super::{View, bounds, identity, json, labels, service};
use super::marks::{ANNOTATIONS, LABELS, SERVICE_ACCOUNT};
use crate::crd::policy::Annotated;
use crate::names::keys;

/// An annotation that no pod has.
const NOTHING: &str = "portico.dev/none";
/// How the paths of one label and one annotation begin.
const ONE_LABEL: &str = "metadata.labels['";
const ONE_ANNOTATION: &str = "metadata.annotations['";
/// Port of the tenant's `kubernetes` Service.
const API_PORT: u16 = 443;

/// Bytes of a variable beside its name and value.
const VARIABLE: usize = r#"{"name":"","value":""},"#.len();

/// The variables that a kubelet would add.
#[derive(Debug, Default)]
pub(super) struct Generated {
    /// By name.
    variables: BTreeMap<String, String>,
    /// Services that found no room, the last by name.
    pub(super) left_out: usize,
}

/// Generated variables first (so that `$(NAME)` of the user's expand), then the container's own, which win. Returns how
/// many Services found no room.
pub(super) fn translate(
    spec: &mut Map<String, Value>,
    pod: &Value,
    services: &[Arc<ServiceSummary>],
    view: &View,
) -> usize {
    let lists = ["containers", "initContainers"];
    let containers: usize = lists.iter().map(|list| json::items(pod, &format!("/spec/{list}")).len()).sum();
    let generated = generated(pod, services, bounds::LINK_BYTES / containers.max(1), view);
    for list in lists {
        json::each(spec, list, |container| in_container(container, &generated, view));
    }
    generated.left_out
}

/// Whether the pod's environment tells of Services.
pub fn has_links(pod: &Value) -> bool {
    pod.pointer("/spec/enableServiceLinks").and_then(Value::as_bool) != Some(false)
}

/// The variables of one container, those of Services within so many bytes.
pub(super) fn generated(pod: &Value, services: &[Arc<ServiceSummary>], room: usize, view: &View) -> Generated {
    let mut out = Generated::default();
    let (mut room, namespace) = (Some(room), json::namespace(pod));
    let of_pod = |s: &&Arc<ServiceSummary>| {
        *s.namespace == *namespace && s.has_address() && !service::is_api_service(namespace, &s.name)
    };
    for service in services.iter().filter(of_pod).filter(|_| has_links(pod)) {
        // After the first that finds no room none is even looked at.
        let links = room.map(|_| links(service)).unwrap_or_default();
        let size = links.iter().map(|(name, value)| name.len() + value.len() + VARIABLE).sum();
        room = room.and_then(|room| room.checked_sub(size));
        match room {
            Some(_) => out.variables.extend(links),
            None => out.left_out += 1,
        }
    }
    api_server(view.api_service_ip, &mut out.variables);
    out
}

/// Adds the generated variables to one container and maps its field references.
pub(super) fn in_container(container: &mut Map<String, Value>, generated: &Generated, view: &View) {
    let mut own = match container.remove("env") {
        Some(Value::Array(own)) => own,
        _ => Vec::new(),
    };
    let taken: BTreeSet<String> =
        own.iter().filter_map(|v| v.get("name").and_then(Value::as_str)).map(str::to_owned).collect();
    for variable in own.iter_mut().filter_map(Value::as_object_mut) {
        json::within(variable, "valueFrom", |source| map_field(source, view));
    }
    let mut env: Vec<Value> = generated
        .variables
        .iter()
        .filter(|(name, _)| !taken.contains(*name))
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    env.append(&mut own);
    container.insert("env".to_owned(), Value::Array(env));
}

/// Where the tenant's API server is.
pub(in crate::translate) fn api_server(ip: IpAddr, out: &mut BTreeMap<String, String>) {
    let url = format!("tcp://{}", join(&ip.to_string(), i64::from(API_PORT)));
    for (name, value) in [
        ("KUBERNETES_PORT", url.clone()),
        ("KUBERNETES_PORT_443_TCP", url),
        ("KUBERNETES_PORT_443_TCP_ADDR", ip.to_string()),
        ("KUBERNETES_PORT_443_TCP_PORT", API_PORT.to_string()),
        ("KUBERNETES_PORT_443_TCP_PROTO", "tcp".to_owned()),
        ("KUBERNETES_SERVICE_HOST", ip.to_string()),
        ("KUBERNETES_SERVICE_PORT", API_PORT.to_string()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", API_PORT.to_string()),
    ] {
        out.insert(name.to_owned(), value);
    }
}

fn join(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// Docker-style links of one Service.
fn links(service: &ServiceSummary) -> Vec<(String, String)> {
    let ip = &*service.cluster_ip;
    let variable = |text: &str| text.to_uppercase().replace('-', "_");
    let prefix = variable(&service.name);
    let mut out = vec![(format!("{prefix}_SERVICE_HOST"), ip.to_owned())];
    for (index, port) in service.ports.iter().enumerate() {
        let number = port.number;
        let url = format!("{}://{}", port.protocol.to_lowercase(), join(ip, number));
        if index == 0 {
            out.push((format!("{prefix}_SERVICE_PORT"), number.to_string()));
            out.push((format!("{prefix}_PORT"), url.clone()));
        }
        if !port.name.is_empty() {
            out.push((format!("{prefix}_SERVICE_PORT_{}", variable(&port.name)), number.to_string()));
        }
        let link = format!("{prefix}_PORT_{number}_{}", port.protocol.to_uppercase());
        out.push((format!("{link}_PROTO"), port.protocol.to_lowercase()));
        out.push((format!("{link}_PORT"), number.to_string()));
        out.push((format!("{link}_ADDR"), ip.to_owned()));
        out.push((link, url));
    }
    out
}

/// Maps `fieldRef.fieldPath` of an env source or a downward API item to where the host pod has the tenant's value.
pub(super) fn map_field(holder: &mut Map<String, Value>, view: &View) {
    json::within(holder, "fieldRef", |field| json::rename(field, "fieldPath", |path| host_path(path, view)));
}

fn host_path(path: &str, view: &View) -> String {
    let annotation = |key: &str| format!("metadata.annotations['{key}']");
    match path {
        "metadata.name" => annotation(keys::OBJECT_NAME),
        "metadata.namespace" => annotation(keys::OBJECT_NAMESPACE),
        "metadata.uid" => annotation(keys::OBJECT_UID),
        "spec.serviceAccountName" => annotation(SERVICE_ACCOUNT),
        "metadata.labels" => annotation(LABELS),
        "metadata.annotations" => annotation(ANNOTATIONS),
        other => match subscript(other) {
            Some(key) if keys::is_reserved(key) => annotation(NOTHING),
            Some(key) if other.starts_with(ONE_LABEL) => match labels::key(key, view) {
                Some(key) => format!("{ONE_LABEL}{key}']"),
                None => annotation(NOTHING),
            },
            Some(key) if other.starts_with(ONE_ANNOTATION) => {
                annotation(identity::annotation_key(Annotated::Pods, key, view).as_deref().unwrap_or(NOTHING))
            }
            _ => other.to_owned(),
        },
    }
}

/// The way back of [`map_field`].
pub(in crate::translate) fn unmap_field(holder: &mut Map<String, Value>) {
    json::within(holder, "fieldRef", |field| json::rename(field, "fieldPath", own_path));
}

fn own_path(on_host: &str) -> String {
    let own = match subscript(on_host).filter(|_| on_host.starts_with(ONE_ANNOTATION)) {
        Some(keys::OBJECT_NAME) => "metadata.name",
        Some(keys::OBJECT_NAMESPACE) => "metadata.namespace",
        Some(keys::OBJECT_UID) => "metadata.uid",
        Some(SERVICE_ACCOUNT) => "spec.serviceAccountName",
        Some(LABELS) => "metadata.labels",
        Some(ANNOTATIONS) => "metadata.annotations",
        _ => on_host,
    };
    match subscript(own).and_then(|key| Some((own.split_once('[')?.0, keys::unmoved(key)?))) {
        Some((map, key)) => format!("{map}['{key}']"),
        None => own.to_owned(),
    }
}

/// `k` of `metadata.labels['k']` and `metadata.annotations['k']`.
fn subscript(path: &str) -> Option<&str> {
    path.split_once("['")?.1.strip_suffix("']")
}

/// Whether a downward API volume of the pod shows this whole field.
pub(super) fn refers_to(pod: &Value, path: &str) -> bool {
    let shows = |items: &[Value]| items.iter().any(|item| json::text(item, "/fieldRef/fieldPath") == path);
    json::items(pod, "/spec/volumes").iter().any(|volume| {
        shows(json::items(volume, "/downwardAPI/items"))
            || json::items(volume, "/projected/sources").iter().any(|s| shows(json::items(s, "/downwardAPI/items")))
    })
}

/// `key="value"` lines as a kubelet writes whole maps.
pub fn lines(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={}", quoted(value))).collect::<Vec<_>>().join("\n")
}

/// Go's `%q`.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            // Writing to a String cannot fail.
            c if (c as u32) < 0x20 || c as u32 == 0x7f => drop(write!(out, "\\x{:02x}", c as u32)),
            c if c.is_control() => drop(write!(out, "\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
