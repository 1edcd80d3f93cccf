//! Label selectors: confined to a tenant and its namespaces on the way down, and evaluated against labels.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

use super::{View, json, labels};
use crate::names::keys;

/// A reserved label that no object ever carries: what a selector over reserved keys selects.
const NEVER: &str = "portico.dev/never";

/// Which virtual namespaces a selector is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// All of the tenant.
    All,
    /// Exactly these; none selects nothing.
    These(Vec<String>),
}

/// The host form of a plain map selector (`Service.spec.selector`) of an object in `namespace`.
pub fn map_to_host(selector: &BTreeMap<String, String>, namespace: &str, view: &View) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (key, value) in selector {
        match labels::key(key, view) {
            Some(on_host) => out.insert(on_host.into_owned(), labels::value(key, value, view).into_owned()),
            // In the tenant's eyes no host object has such a label.
            None => out.insert(NEVER.to_owned(), "true".to_owned()),
        };
    }
    out.insert(keys::CLUSTER.to_owned(), view.cluster().to_string());
    out.insert(keys::NAMESPACE.to_owned(), namespace.to_owned());
    out
}

/// The host form of a `metav1.LabelSelector`: the tenant's terms, and ours for the cluster and the namespaces. A null
/// selector (selects nothing) stays null.
pub fn to_host(selector: &Value, namespaces: &Namespaces, view: &View) -> Value {
    if !selector.is_object() {
        return Value::Null;
    }
    let mut terms = BTreeMap::new();
    let mut expressions = Vec::new();
    let mut nothing = false;
    for (key, value) in json::strings(selector, "/matchLabels") {
        match labels::key(&key, view) {
            Some(on_host) => drop(terms.insert(on_host.into_owned(), labels::value(&key, &value, view).into_owned())),
            None => nothing = true,
        }
    }
    for expression in json::items(selector, "/matchExpressions") {
        match labels::key(json::text(expression, "/key"), view) {
            Some(key) => expressions.push(on_host(expression, &key, view)),
            None => nothing |= matches!(json::text(expression, "/operator"), "In" | "Exists"),
        }
    }
    terms.insert(keys::CLUSTER.to_owned(), view.cluster().to_string());
    match namespaces {
        Namespaces::All => {}
        Namespaces::These(names) if names.is_empty() => nothing = true,
        Namespaces::These(names) if names.len() == 1 => {
            terms.insert(keys::NAMESPACE.to_owned(), names.concat());
        }
        Namespaces::These(names) => {
            let mut names = names.clone();
            names.sort();
            names.dedup();
            expressions.push(json!({"key": keys::NAMESPACE, "operator": "In", "values": names}));
        }
    }
    if nothing {
        expressions.push(json!({"key": NEVER, "operator": "Exists"}));
    }
    let mut out = Map::new();
    out.insert("matchLabels".to_owned(), json!(terms));
    if !expressions.is_empty() {
        out.insert("matchExpressions".to_owned(), Value::Array(expressions));
    }
    Value::Object(out)
}

fn on_host(expression: &Value, key_on_host: &str, view: &View) -> Value {
    let mut expression = expression.clone();
    let key = json::text(&expression, "/key").to_owned();
    if let Value::Object(map) = &mut expression {
        map.insert("key".to_owned(), json!(key_on_host));
    }
    for value in expression.get_mut("values").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::String(text) = value {
            *text = labels::value(&key, text, view).into_owned();
        }
    }
    expression
}

/// A `metav1.LabelSelector` made ready to be held against many sets of labels.
#[derive(Debug, Default)]
pub struct Compiled<'a> {
    equal: Vec<(&'a str, &'a str)>,
    expressions: Vec<Expression<'a>>,
}

#[derive(Debug)]
struct Expression<'a> {
    key: &'a str,
    operator: &'a str,
    values: HashSet<&'a str>,
}

impl<'a> Compiled<'a> {
    /// None for null or what is no object: it selects nothing.
    pub fn new(selector: &'a Value) -> Option<Self> {
        selector.as_object()?;
        let equal = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
        let expression = |expression: &'a Value| Expression {
            key: json::text(expression, "/key"),
            operator: json::text(expression, "/operator"),
            values: json::items(expression, "/values").iter().filter_map(Value::as_str).collect(),
        };
        Some(Self {
            equal: equal.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect(),
            expressions: json::items(selector, "/matchExpressions").iter().map(expression).collect(),
        })
    }

    /// What one evaluation costs at most; 0: it selects everything.
    pub fn requirements(&self) -> usize {
        self.equal.len() + self.expressions.len()
    }

    /// Whether it selects labels, of which `label` knows the values. An unknown operator selects nothing.
    pub fn selects<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.equal.iter().all(|(key, value)| label(key) == Some(value))
            && self.expressions.iter().all(|expression| expression.selects(label(expression.key)))
    }
}

impl Expression<'_> {
    fn selects(&self, found: Option<&str>) -> bool {
        let listed = || found.is_some_and(|value| self.values.contains(value));
        match self.operator {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            _ => false,
        }
    }
}

/// Whether a `metav1.LabelSelector` selects these labels. Null selects nothing, an empty one everything, an unknown
/// operator nothing.
pub fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    Compiled::new(selector).is_some_and(|compiled| compiled.selects(|key| labels.get(key).map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{hostile, view};
    use super::*;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn terms_of_cluster_and_namespace_are_added() {
        let selector = json!({"matchLabels": {"app": "web"}});
        let one = to_host(&selector, &Namespaces::These(vec!["default".to_owned()]), &view());
        assert_eq!(
            one,
            json!({"matchLabels": {"app": "web", "portico.dev/cluster": "vc1", "portico.dev/namespace": "default"}})
        );
        let two = to_host(&selector, &Namespaces::These(vec!["b".to_owned(), "a".to_owned()]), &view());
        assert_eq!(
            two["matchExpressions"],
            json!([{"key": "portico.dev/namespace", "operator": "In", "values": ["a", "b"]}])
        );
        assert_eq!(to_host(&Value::Null, &Namespaces::All, &view()), Value::Null);
    }

    #[test]
    fn reserved_keys_of_the_tenant_select_nothing_foreign() {
        let other = labels(&[("portico.dev/cluster", "vc2"), ("portico.dev/namespace", "default"), ("app", "web")]);
        let own = labels(&[("portico.dev/cluster", "vc1"), ("portico.dev/namespace", "default"), ("app", "web")]);
        for hostile in [
            json!({"matchLabels": {"portico.dev/cluster": "vc2"}}),
            json!({"matchExpressions": [{"key": "portico.dev/cluster", "operator": "In", "values": ["vc1", "vc2"]}]}),
            json!({"matchExpressions": [{"key": "portico.dev/cluster", "operator": "Exists"}]}),
        ] {
            let host = to_host(&hostile, &Namespaces::All, &view());
            assert!(!selects(&host, &other) && !selects(&host, &own), "{host}");
        }
        let absent = json!({"matchExpressions": [{"key": "portico.dev/x", "operator": "DoesNotExist"}]});
        let host = to_host(&absent, &Namespaces::All, &view());
        assert!(selects(&host, &own) && !selects(&host, &other));
    }

    proptest! {
        #[test]
        fn no_selector_reaches_another_tenant(selector in hostile(), extra in prop::collection::btree_map("[a-z]{1,4}", "[a-z]{0,3}", 0..4)) {
            let mut other = extra;
            other.insert(keys::CLUSTER.to_owned(), "vc2".to_owned());
            other.insert(keys::NAMESPACE.to_owned(), "default".to_owned());
            for namespaces in [Namespaces::All, Namespaces::These(vec!["default".to_owned()]), Namespaces::These(vec![])] {
                prop_assert!(!selects(&to_host(&selector, &namespaces, &view()), &other));
            }
        }
    }
}
