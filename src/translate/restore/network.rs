//! Services, Endpoints, EndpointSlices and Ingresses on the way back.

use serde_json::{Map, Value, json};

use super::super::{endpoints as slices, ingress as ingresses, json, labels, service as services};
use super::back::Back;
use super::kinds::{SECRET, SERVICE};
use super::metadata::{self, Record};
use crate::names::keys;

/// Name of a Secret that is not there.
const LEFT_OUT: &str = "left-out";

/// With the host's addresses and node ports, which running pods know.
pub(super) fn service(host: &Value, back: &mut Back<'_>) -> Map<String, Value> {
    let source = host.get("spec").unwrap_or(&Value::Null);
    let mut spec = json::pick(source, services::FIELDS);
    if let Some(Value::Array(ports)) = source.get("ports") {
        spec.insert("ports".to_owned(), Value::Array(ports.iter().map(services::port).collect()));
    }
    let mut selector = Map::new();
    for (key, value) in json::strings(source, "/selector") {
        if key == keys::CLUSTER || key == keys::NAMESPACE {
            continue;
        }
        let Some(own_key) = labels::own_key(&key) else { continue };
        let own = labels::original(&own_key, &value, back.view).unwrap_or(&value);
        selector.insert(own_key, json!(own));
    }
    // A selector of nothing but Portico's terms is not made on the way down.
    if !selector.is_empty() {
        spec.insert("selector".to_owned(), Value::Object(selector));
    }
    with_metadata(host, Record::Annotated, back, [("spec", Value::Object(spec))])
}

/// As they are: addresses mean the same on both sides.
pub(super) fn endpoints(host: &Value, back: &mut Back<'_>) -> Map<String, Value> {
    let subsets = json::pick(host, &["subsets"]);
    with_metadata(host, Record::Applied, back, subsets.iter().map(|(field, value)| (field.as_str(), value.clone())))
}

/// As they are, of the tenant's Service.
pub(super) fn slice(host: &Value, back: &mut Back<'_>) -> Map<String, Value> {
    let fields = json::pick(host, &["addressType", "ports", "endpoints"]);
    let fields: Vec<(&str, Value)> = fields.iter().map(|(field, value)| (field.as_str(), value.clone())).collect();
    let mut object = with_metadata(host, Record::Applied, back, fields);
    json::within(&mut object, "metadata", |metadata| {
        json::within(metadata, "labels", |labels| {
            let Some(Value::String(service)) = labels.remove(slices::SERVICE_NAME) else { return };
            match back.reference(SERVICE, &service) {
                Some(own) => drop(labels.insert(slices::SERVICE_NAME.to_owned(), json!(own))),
                None => back.lose(format!("Service {service} is not of this tenant, so its addresses lead nowhere")),
            }
        });
    });
    object
}

/// With the tenant's Services and Secrets.
pub(super) fn ingress(host: &Value, back: &mut Back<'_>) -> Map<String, Value> {
    let source = host.get("spec").unwrap_or(&Value::Null);
    let mut spec = json::pick(source, &["ingressClassName", "defaultBackend", "rules", "tls"]);
    if let Some(backend) = spec.remove("defaultBackend")
        && let Some(backend) = own_backend(backend, back)
    {
        spec.insert("defaultBackend".to_owned(), backend);
    }
    json::each(&mut spec, "rules", |rule| {
        json::within(rule, "http", |http| {
            if let Some(Value::Array(paths)) = http.get_mut("paths") {
                paths.retain_mut(|path| {
                    let backend = path.get_mut("backend").map(Value::take).and_then(|b| own_backend(b, back));
                    match (path, backend) {
                        (Value::Object(path), Some(backend)) => path.insert("backend".to_owned(), backend).is_some(),
                        _ => false,
                    }
                });
            }
        });
    });
    // A rule without paths would be one for all.
    if let Some(Value::Array(rules)) = spec.get_mut("rules") {
        rules.retain(|rule| !json::has(rule, "/http") || !json::items(rule, "/http/paths").is_empty());
    }
    json::each(&mut spec, "tls", |tls| {
        json::rename(tls, "secretName", |secret| own_secret(secret, back));
    });
    let mut object = with_metadata(host, Record::Applied, back, [("spec", Value::Object(spec))]);
    json::within(&mut object, "metadata", |metadata| {
        json::within(metadata, "annotations", |annotations| {
            let prefix = format!("{}/", back.view.namespace());
            for (key, value) in annotations.iter_mut() {
                if let Some(on_host) = value.as_str().filter(|_| ingresses::names_a_secret(key)) {
                    let own = own_secret(on_host.strip_prefix(&prefix).unwrap_or_default(), back);
                    *value = json!(own);
                }
            }
        });
    });
    object
}

fn own_backend(backend: Value, back: &mut Back<'_>) -> Option<Value> {
    let service = json::text(&backend, "/service/name").to_owned();
    let Some(own) = back.reference(SERVICE, &service) else {
        back.lose(format!("Service {service} is not of this tenant, what leads to it is left out"));
        return None;
    };
    let mut backend = backend;
    *backend.pointer_mut("/service/name")? = json!(own);
    Some(backend)
}

/// A Secret's place is never left empty: what is protected by it would be open then.
fn own_secret(secret: &str, back: &mut Back<'_>) -> String {
    back.reference(SECRET, secret).unwrap_or_else(|| {
        back.lose(format!("Secret {secret} is not of this tenant, one of the name {LEFT_OUT} is asked for instead"));
        LEFT_OUT.to_owned()
    })
}

/// The metadata and these fields.
fn with_metadata<'f>(
    host: &Value,
    record: Record,
    back: &mut Back<'_>,
    fields: impl IntoIterator<Item = (&'f str, Value)>,
) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("metadata".to_owned(), Value::Object(metadata::restore(host, record, back)));
    object.extend(fields.into_iter().map(|(field, value)| (field.to_owned(), value)));
    object
}
