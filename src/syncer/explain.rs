//! Events in a tenant that say why something is refused or cannot be done, for its users.
//!
//! Promises: the same message about the same object at most once in ten minutes; nothing of the host in a message.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::syncer::kind::{Involved, ObjectKey, TenantView};

const QUIET: Duration = Duration::from_secs(600);
/// What could not be said is tried again after so long, however often there is reason to.
const RETRY: Duration = Duration::from_secs(60);
const MOST: usize = 1024;

/// What was said already, and from when on it may be said again.
#[derive(Debug, Default)]
pub struct Explained(Mutex<HashMap<u64, Instant>>);

impl Explained {
    /// Whether it is time to say this (again); remembers that it was said.
    pub fn is_due(&self, involved: &Involved, reason: &str, message: &str, now: Instant) -> bool {
        let id = id(involved, reason, message);
        let mut said = self.0.lock();
        if said.get(&id).is_some_and(|due| now < *due) {
            return false;
        }
        if said.len() >= MOST {
            said.retain(|_, due| now < *due);
            if said.len() >= MOST {
                return false;
            }
        }
        said.insert(id, now + QUIET);
        true
    }

    /// It could not be said after all.
    pub fn failed(&self, involved: &Involved, reason: &str, message: &str, now: Instant) {
        self.0.lock().insert(id(involved, reason, message), now + RETRY);
    }
}

fn id(involved: &Involved, reason: &str, message: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&involved.uid, &involved.kind, &involved.key, reason, message).hash(&mut hasher);
    hasher.finish()
}

/// The Event object; namespace as the API server wants it.
pub fn event(involved: &Involved, reason: &str, message: &str, warning: bool, now: Timestamp, suffix: u64) -> Value {
    let namespace = if involved.key.namespace.is_empty() { "default" } else { &involved.key.namespace };
    let mut name = involved.key.name.clone();
    name.truncate(name.floor_char_boundary(230));
    let mut message = message.to_owned();
    message.truncate(message.floor_char_boundary(1000));
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": format!("{name}.{suffix:016x}"), "namespace": namespace},
        "involvedObject": {
            "apiVersion": involved.api_version,
            "kind": involved.kind,
            "namespace": involved.key.namespace,
            "name": involved.key.name,
            "uid": involved.uid,
        },
        "reason": reason,
        "message": message,
        "type": if warning { "Warning" } else { "Normal" },
        "count": 1,
        "firstTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "lastTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "source": {"component": "portico"},
        "reportingComponent": "portico",
        "reportingInstance": "portico",
    })
}

/// A host message in the tenant's words: the copy's name becomes the object's, what else names the host goes.
pub fn in_tenant_words(message: &str, host_name: &str, key: &ObjectKey, view: &TenantView) -> String {
    let mut text = message.to_owned();
    if !host_name.is_empty() {
        text = text.replace(host_name, &key.name);
    }
    let suffix = format!("-x-{}-x-{}", key.namespace, view.cluster());
    text = text.replace(&suffix, "");
    replace_word(&text, view.namespace().as_str(), if key.namespace.is_empty() { "…" } else { &key.namespace })
}

fn replace_word(text: &str, word: &str, by: &str) -> String {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let before_ok = !before.chars().next_back().is_some_and(inside);
        let mut next = after.chars();
        let after_ok = match next.next() {
            Some('.') => !next.next().is_some_and(inside),
            Some(c) => !inside(c),
            None => true,
        };
        out.push_str(before);
        out.push_str(if before_ok && after_ok { by } else { word });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn involved(name: &str) -> Involved {
        Involved {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            key: ObjectKey { namespace: "default".to_owned(), name: name.to_owned() },
            uid: "u".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn once_in_ten_minutes() {
        let explained = Explained::default();
        let now = Instant::now();
        assert!(explained.is_due(&involved("a"), "SyncDenied", "no", now));
        assert!(!explained.is_due(&involved("a"), "SyncDenied", "no", now + QUIET / 2));
        assert!(explained.is_due(&involved("b"), "SyncDenied", "no", now));
        assert!(explained.is_due(&involved("a"), "SyncDenied", "no", now + QUIET));
        explained.failed(&involved("b"), "SyncDenied", "no", now);
        assert!(
            !explained.is_due(&involved("b"), "SyncDenied", "no", now),
            "not at once: it takes a place for a while"
        );
        assert!(explained.is_due(&involved("b"), "SyncDenied", "no", now + RETRY));
        for n in 0..5000 {
            explained.is_due(&involved(&n.to_string()), "SyncDenied", "no", now);
        }
        assert!(explained.0.lock().len() <= MOST);
    }

    #[test]
    fn nothing_of_the_host_remains() {
        let view = TenantView {
            id: crate::names::TenantId::parse("team-a", "vc1").expect("id"),
            uid: String::new(),
            owner: None,
            placement: crate::translate::Placement::default(),
            api_service_ip: "10.96.0.9".parse().expect("ip"),
            dns_service_ip: "10.96.0.10".parse().expect("ip"),
            cluster_domain: "cluster.local".to_owned(),
            policy: crate::crd::policy::GrantedPolicy::default(),
            translate_images: std::collections::BTreeMap::new(),
            node_selector: std::collections::BTreeMap::new(),
            api_ca: String::new(),
        };
        let key = ObjectKey { namespace: "default".to_owned(), name: "web".to_owned() };
        let message = r#"pods "web-x-default-x-vc1" is forbidden in namespace team-a: quota team-a-quota, needs db-x-default-x-vc1"#;
        let shown = in_tenant_words(message, "web-x-default-x-vc1", &key, &view);
        assert_eq!(shown, r#"pods "web" is forbidden in namespace default: quota team-a-quota, needs db"#);
    }
}
