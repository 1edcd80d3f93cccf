//! Where a pod may run, on the way back: terms about other pods without the cluster's and the namespaces' labels.

use serde_json::{Map, Value, json};

use super::super::{View, json, labels};
use super::back::Back;
use crate::names::keys;

/// Which virtual namespaces a term is about.
enum Namespaces {
    All,
    These(Vec<String>),
}

/// Affinity, spread and the node selector as the tenant wrote them, or as much the same: what a namespace selector selected
/// when the pod was made is now a list of names.
pub(super) fn restore(spec: &mut Map<String, Value>, back: &Back<'_>) {
    let term = |term: &mut Map<String, Value>| pod_term(term, back);
    json::within(spec, "affinity", |affinity| {
        for kind in ["podAffinity", "podAntiAffinity"] {
            json::within(affinity, kind, |rules| {
                json::each(rules, "requiredDuringSchedulingIgnoredDuringExecution", term);
                json::each(rules, "preferredDuringSchedulingIgnoredDuringExecution", |weighted| {
                    json::within(weighted, "podAffinityTerm", term);
                });
            });
        }
    });
    json::each(spec, "topologySpreadConstraints", |constraint| drop(loosen(constraint, back.view)));
    if !back.view.node_selector.is_empty()
        && let Some(Value::Object(selector)) = spec.get_mut("nodeSelector")
    {
        selector.retain(|key, value| back.view.node_selector.get(key).map(String::as_str) != value.as_str());
        if selector.is_empty() {
            spec.remove("nodeSelector");
        }
    }
}

fn pod_term(term: &mut Map<String, Value>, back: &Back<'_>) {
    match loosen(term, back.view) {
        None => {}
        Some(Namespaces::All) => drop(term.insert("namespaceSelector".to_owned(), json!({}))),
        Some(Namespaces::These(names)) if names == [back.namespace.as_str()] || names.is_empty() => {}
        Some(Namespaces::These(names)) => drop(term.insert("namespaces".to_owned(), json!(names))),
    }
}

/// Takes Portico's terms out of a `labelSelector`; None when they are not in it, and it was not made on the way down.
fn loosen(term: &mut Map<String, Value>, view: &View) -> Option<Namespaces> {
    let selector = term.get_mut("labelSelector")?.as_object_mut()?;
    let cluster = selector.get("matchLabels")?.get(keys::CLUSTER)?.as_str()?;
    if cluster != view.cluster().as_str() {
        return None;
    }
    let mut namespaces = Namespaces::All;
    json::within(selector, "matchLabels", |terms| {
        terms.remove(keys::CLUSTER);
        if let Some(Value::String(namespace)) = terms.remove(keys::NAMESPACE) {
            namespaces = Namespaces::These(vec![namespace]);
        }
        let of_host = std::mem::take(terms);
        terms.extend(of_host.into_iter().filter_map(|(key, mut value)| {
            let key = labels::own_key(&key)?;
            unguard(&key, &mut value, view);
            Some((key, value))
        }));
    });
    if let Some(Value::Array(expressions)) = selector.get_mut("matchExpressions") {
        expressions.retain_mut(|expression| {
            let on_host = json::text(expression, "/key").to_owned();
            if on_host == keys::NAMESPACE {
                let names = json::items(expression, "/values").iter().filter_map(Value::as_str);
                namespaces = Namespaces::These(names.map(str::to_owned).collect());
                return false;
            }
            let key = labels::own_key(&on_host).unwrap_or(on_host);
            if let Value::Object(map) = expression {
                map.insert("key".to_owned(), json!(key));
            }
            for value in expression.get_mut("values").and_then(Value::as_array_mut).into_iter().flatten() {
                unguard(&key, value, view);
            }
            true
        });
    }
    for field in ["matchLabels", "matchExpressions"] {
        let empty =
            |part: &Value| part.as_object().is_some_and(Map::is_empty) || part.as_array().is_some_and(Vec::is_empty);
        if selector.get(field).is_some_and(empty) {
            selector.remove(field);
        }
    }
    Some(namespaces)
}

fn unguard(key: &str, value: &mut Value, view: &View) {
    if let Value::String(text) = value
        && let Some(own) = labels::original(key, text, view)
        && own != text
    {
        *text = own.to_owned();
    }
}
