//! Where a pod may run: terms about other pods are confined to the tenant, terms about nodes are the host's own.
//!
//! Promises: each distinct namespace selector is evaluated once; what terms times Namespaces would come to is known, and
//! refused when it is too much, before any of it is written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::bounds::{self, Excess};
use super::super::selector::{self, Compiled, Namespaces};
use super::super::summary::NamespaceSummary;
use super::super::{View, json};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
/// Longest label value. A longer one is on no pod.
const LONGEST_LABEL: usize = 63;
const SELECTOR: &str = "the namespaceSelectors of spec.affinity";

/// The namespaces that each distinct namespace selector of a pod selects, by the selector's text.
#[derive(Debug, Default)]
pub(super) struct Selected(HashMap<String, Vec<String>>);

/// Too many terms for any scheduler.
pub(super) fn excess(pod: &Value) -> Option<Excess> {
    let list = |pointer: &str| json::items(pod, pointer).len();
    let node = "/spec/affinity/nodeAffinity";
    let terms = pod_terms(pod).count()
        + list(&format!("{node}/{PREFERRED}"))
        + list(&format!("{node}/{REQUIRED}/nodeSelectorTerms"))
        + list("/spec/topologySpreadConstraints");
    let field = "spec.affinity and spec.topologySpreadConstraints";
    Excess::beyond(field, "terms together", (terms, bounds::TERMS), "use fewer")
}

/// Whether a term asks for the labels of the tenant's Namespaces.
pub fn selects_namespaces(pod: &Value) -> bool {
    pod_terms(pod).any(|term| asks(term).is_some())
}

/// Evaluates the namespace selectors of a pod, unless that, or what would be written, is too much.
pub(super) fn select(pod: &Value, namespaces: &[Arc<NamespaceSummary>]) -> Result<Selected, Excess> {
    let mut distinct: HashMap<String, Compiled<'_>> = HashMap::new();
    for (selector, compiled) in pod_terms(pod).filter_map(asks) {
        distinct.entry(selector.to_string()).or_insert(compiled);
    }
    let requirements: usize = distinct.values().map(Compiled::requirements).sum();
    let evaluations = requirements.saturating_mul(namespaces.len());
    let advice = "use fewer terms in them, or fewer namespaces";
    let what = "terms times namespaces to compare";
    if let Some(excess) = Excess::beyond(SELECTOR, what, (evaluations, bounds::EVALUATIONS), advice) {
        return Err(excess);
    }
    let mut kept = 0_usize;
    let (mut selected, mut sizes) = (HashMap::new(), HashMap::new());
    for (text, compiled) in distinct {
        let (mut names, mut size) = (Vec::new(), 0);
        for namespace in namespaces.iter().filter(|namespace| compiled.selects(|key| namespace.label(key))) {
            size += written(&namespace.name);
            kept += written(&namespace.name);
            if kept <= bounds::NAMESPACE_BYTES {
                names.push(namespace.name.to_string());
            }
        }
        sizes.insert(text.clone(), size);
        selected.insert(text, names);
    }
    let of_term = |term| {
        let of_selector = asks(term).and_then(|(selector, _)| sizes.get(&selector.to_string()).copied());
        listed(term).map(written).sum::<usize>() + of_selector.unwrap_or_default()
    };
    let total = pod_terms(pod).map(of_term).fold(0, usize::saturating_add);
    let advice = "select fewer namespaces, or all of them with `namespaceSelector: {}`";
    let what = "bytes of namespace names in all terms together";
    match Excess::beyond(SELECTOR, what, (total, bounds::NAMESPACE_BYTES), advice) {
        Some(excess) => Err(excess),
        None => Ok(Selected(selected)),
    }
}

/// Bytes of a name in a list, with its quotes and its comma.
fn written(name: &str) -> usize {
    name.len() + 3
}

/// Translates affinity, spread and the node selector.
pub(super) fn translate(spec: &mut Map<String, Value>, pod: &Value, selected: &Selected, view: &View) {
    let labels = json::strings(pod, "/metadata/labels");
    let own = Namespaces::These(vec![json::namespace(pod).to_owned()]);
    let term = |term: &mut Map<String, Value>| pod_term(term, &own, selected, &labels, view);
    json::within(spec, "affinity", |affinity| {
        for kind in ["podAffinity", "podAntiAffinity"] {
            json::within(affinity, kind, |rules| {
                json::each(rules, REQUIRED, term);
                json::each(rules, PREFERRED, |weighted| {
                    json::within(weighted, "podAffinityTerm", term);
                });
            });
        }
    });
    json::each(spec, "topologySpreadConstraints", |constraint| {
        if constraint.contains_key("labelSelector") {
            confine(constraint, &own, &labels, view);
        }
    });
    if !view.node_selector.is_empty() {
        let selector = json::object(spec, "nodeSelector");
        for (key, value) in &view.node_selector {
            selector.insert(key.clone(), json!(value));
        }
    }
}

/// Every term about other pods.
fn pod_terms(pod: &Value) -> impl Iterator<Item = &Value> {
    ["podAffinity", "podAntiAffinity"].into_iter().flat_map(move |kind| {
        let list = |which: &str| json::items(pod, &format!("/spec/affinity/{kind}/{which}"));
        let preferred = list(PREFERRED).iter().map(|weighted| weighted.get("podAffinityTerm").unwrap_or(&Value::Null));
        list(REQUIRED).iter().chain(preferred)
    })
}

/// The namespace selector of a term, when it is one that must be evaluated: an empty one means all namespaces.
fn asks(term: &Value) -> Option<(&Value, Compiled<'_>)> {
    let selector = term.get("namespaceSelector")?;
    let compiled = Compiled::new(selector)?;
    (compiled.requirements() > 0).then_some((selector, compiled))
}

fn listed(term: &Value) -> impl Iterator<Item = &str> {
    json::items(term, "/namespaces").iter().filter_map(Value::as_str)
}

fn pod_term(
    term: &mut Map<String, Value>,
    own: &Namespaces,
    selected: &Selected,
    labels: &BTreeMap<String, String>,
    view: &View,
) {
    let listed: Vec<String> = match term.remove("namespaces") {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let selector = term.remove("namespaceSelector").unwrap_or_default();
    let namespaces = match Compiled::new(&selector).map(|compiled| compiled.requirements()) {
        Some(0) => Namespaces::All,
        Some(_) => {
            let mut names = selected.0.get(&selector.to_string()).cloned().unwrap_or_default();
            names.extend(listed);
            Namespaces::These(names)
        }
        None if listed.is_empty() => own.clone(),
        None => Namespaces::These(listed),
    };
    confine(term, &namespaces, labels, view);
}

/// Confines `labelSelector`, and writes `matchLabelKeys` out as terms: newer API servers have already merged them into
/// the selector and refuse to do so a second time, older ones have not.
fn confine(term: &mut Map<String, Value>, namespaces: &Namespaces, labels: &BTreeMap<String, String>, view: &View) {
    let mut selector = term.get("labelSelector").cloned().unwrap_or_default();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys = term.remove(field).unwrap_or_default();
        let keys: HashSet<&str> = keys.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if let Value::Object(terms) = &mut selector
            && !keys.is_empty()
        {
            write_out(terms, &keys, operator, labels);
        }
    }
    term.insert("labelSelector".to_owned(), selector::to_host(&selector, namespaces, view));
}

fn write_out(terms: &mut Map<String, Value>, keys: &HashSet<&str>, operator: &str, labels: &BTreeMap<String, String>) {
    let Value::Array(list) = terms.entry("matchExpressions").or_insert_with(|| json!([])) else { return };
    let known: HashSet<String> = list.iter().map(Value::to_string).collect();
    let found = labels.iter().filter(|(key, value)| keys.contains(key.as_str()) && value.len() <= LONGEST_LABEL);
    for (key, value) in found {
        let expression = json!({"key": key, "operator": operator, "values": [value]});
        if !known.contains(&expression.to_string()) {
            list.push(expression);
        }
    }
}
