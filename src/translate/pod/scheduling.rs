//! Where a pod may run: terms about other pods are confined to the tenant, terms about nodes are the host's own.

use serde_json::{Map, Value, json};

use super::super::selector::{self, Namespaces};
use super::super::{View, json};

/// Translates affinity, spread and the node selector.
pub(super) fn translate(spec: &mut Map<String, Value>, pod: &Value, namespaces: &[Value], view: &View) {
    let term = |term: &mut Map<String, Value>| pod_term(term, pod, namespaces, view);
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
    let own = Namespaces::These(vec![json::namespace(pod).to_owned()]);
    json::each(spec, "topologySpreadConstraints", |constraint| {
        if constraint.contains_key("labelSelector") {
            confine(constraint, &own, pod, view);
        }
    });
    if !view.node_selector.is_empty() {
        let selector = json::object(spec, "nodeSelector");
        for (key, value) in &view.node_selector {
            selector.insert(key.clone(), json!(value));
        }
    }
}

fn pod_term(term: &mut Map<String, Value>, pod: &Value, namespaces: &[Value], view: &View) {
    let listed: Vec<String> = term
        .remove("namespaces")
        .as_ref()
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    let selector = term.remove("namespaceSelector").unwrap_or_default();
    let selected = match &selector {
        Value::Object(terms) if terms.is_empty() => Namespaces::All,
        Value::Object(_) => {
            let matching =
                namespaces.iter().filter(|n| selector::selects(&selector, &json::strings(n, "/metadata/labels")));
            let mut names: Vec<String> = matching.map(|n| json::name(n).to_owned()).collect();
            names.extend(listed);
            Namespaces::These(names)
        }
        _ if listed.is_empty() => Namespaces::These(vec![json::namespace(pod).to_owned()]),
        _ => Namespaces::These(listed),
    };
    confine(term, &selected, pod, view);
}

/// Confines `labelSelector`, and writes `matchLabelKeys` out as terms: newer API servers have already merged them into
/// the selector and refuse to do so a second time, older ones have not.
fn confine(term: &mut Map<String, Value>, namespaces: &Namespaces, pod: &Value, view: &View) {
    let mut selector = term.get("labelSelector").cloned().unwrap_or_default();
    let labels = json::strings(pod, "/metadata/labels");
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys = term.remove(field).unwrap_or_default();
        let Value::Object(terms) = &mut selector else { continue };
        for key in keys.as_array().into_iter().flatten().filter_map(Value::as_str) {
            let Some(value) = labels.get(key) else { continue };
            let expression = json!({"key": key, "operator": operator, "values": [value]});
            match terms.entry("matchExpressions").or_insert_with(|| json!([])) {
                Value::Array(list) if !list.contains(&expression) => list.push(expression),
                _ => {}
            }
        }
    }
    term.insert("labelSelector".to_owned(), selector::to_host(&selector, namespaces, view));
}
