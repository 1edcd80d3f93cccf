//! Events of the host about host objects, as Events of the tenant about its own.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{View, bounds, diff, json};

/// Who a host event is about, in the tenant.
#[derive(Debug, Clone)]
pub struct About {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// uid.
    pub uid: String,
    /// Host names that may occur in the message, with the tenant's names.
    pub names: BTreeMap<String, String>,
}

/// A host name split at its separators when that can be done in one way, for this cluster: (namespace, name).
pub fn readable<'a>(host_name: &'a str, view: &View) -> Option<(&'a str, &'a str)> {
    let rest = host_name.strip_suffix(view.cluster().as_str())?.strip_suffix("-x-")?;
    let (name, namespace) = rest.rsplit_once("-x-")?;
    Some((namespace, name))
}

/// Whether a host name has the form of a hashed one.
pub fn is_hashed(host_name: &str) -> bool {
    host_name.rsplit_once('-').is_some_and(|(_, hash)| hash.len() == 20 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The tenant's Event.
pub fn to_virtual(host: &Value, about: &About, view: &View) -> Value {
    let mut out = json::pick(
        host,
        &["reason", "type", "count", "firstTimestamp", "lastTimestamp", "eventTime", "action", "series"],
    );
    let id: String = diff::fingerprint(&json!(json::uid(host))).chars().take(16).collect();
    let prefix: String = about.name.chars().take(230).collect();
    let mut involved =
        json::pick(host.get("involvedObject").unwrap_or(&Value::Null), &["apiVersion", "kind", "fieldPath"]);
    involved.insert("namespace".to_owned(), json!(about.namespace));
    involved.insert("name".to_owned(), json!(about.name));
    involved.insert("uid".to_owned(), json!(about.uid));
    out.insert("apiVersion".to_owned(), json!("v1"));
    out.insert("kind".to_owned(), json!("Event"));
    let name = format!("{}.{id}", prefix.trim_end_matches(['.', '-']));
    let labels = json!({"portico.dev/from-host": "true"});
    out.insert("metadata".to_owned(), json!({"name": name, "namespace": about.namespace, "labels": labels}));
    out.insert("involvedObject".to_owned(), Value::Object(involved));
    out.insert("message".to_owned(), json!(message(json::text(host, "/message"), about, view)));
    let source = json::pick(host.get("source").unwrap_or(&Value::Null), &["component", "host"]);
    if !source.is_empty() {
        out.insert("source".to_owned(), Value::Object(source));
    }
    let component = json::text(host, "/reportingComponent");
    if !component.is_empty() {
        out.insert("reportingComponent".to_owned(), json!(component));
        out.insert("reportingInstance".to_owned(), json!("portico"));
    }
    Value::Object(out)
}

/// A message without host names: word by word, so that a name inside a longer one is never cut out. The host namespace is
/// replaced where it stands beside a name or in quotes; it may be an ordinary word elsewhere. Names may grow: what is
/// beyond [`bounds::MESSAGE_BYTES`] is cut.
pub fn message(text: &str, about: &About, view: &View) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let joins = |c: Option<char>| c.is_some_and(|c| matches!(c, '/' | '_' | '"'));
    let mut rest = bounds::cut(text, bounds::MESSAGE_BYTES);
    let mut out = String::with_capacity(rest.len());
    while !rest.is_empty() && out.len() < bounds::MESSAGE_BYTES {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        if word == view.namespace().as_str() && (joins(out.chars().next_back()) || joins(tail.chars().next())) {
            out.push_str(&about.namespace);
        } else {
            out.push_str(&mapped(word, about, view));
        }
        let next = tail.find(is_word).unwrap_or(tail.len());
        let (gap, tail) = tail.split_at(next);
        out.push_str(gap);
        rest = tail;
    }
    out.truncate(bounds::cut(&out, bounds::MESSAGE_BYTES).len());
    out
}

fn mapped(word: &str, about: &About, view: &View) -> String {
    let bare = word.trim_end_matches(['.', '-']);
    let (_, end) = word.split_at(bare.len());
    if let Some(name) = about.names.get(bare) {
        return format!("{name}{end}");
    }
    match readable(bare, view) {
        Some((_, name)) => format!("{name}{end}"),
        None => word.to_owned(),
    }
}

/// Seconds since 1970 of the last time that an event happened.
pub fn last_seen(host: &Value) -> Option<i64> {
    ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .into_iter()
        .find_map(|pointer| json::unix(json::text(host, pointer)))
}

/// Whether a host event may be about an object of a tenant at all.
pub fn is_candidate(host: &Value, view: &View) -> bool {
    json::namespace(host) == view.namespace().as_str()
        && json::text(host, "/involvedObject/namespace") == view.namespace().as_str()
}
