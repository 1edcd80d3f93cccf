//! The admission rules of a fake backend: listed in pages and watched, as an API server does it or as the test says.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::fake::{Answer, Seen, parameters};

pub const ADMISSION: &str = "/apis/admissionregistration.k8s.io/";

/// What becomes of watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watching {
    Well,
    /// 503.
    Refused,
    /// Never answered.
    Silent,
    /// Answered by what is no event.
    Garbage,
    /// Answered by 410.
    Expired,
    /// Over at once, in good order.
    Short,
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Rules(Arc<Mutex<State>>);

struct State {
    version: u64,
    /// By plural and name.
    objects: BTreeMap<(String, String), Value>,
    events: Vec<(u64, String, Bytes)>,
    watches: Vec<(String, mpsc::Sender<Bytes>)>,
    watching: Watching,
    /// The version in which policies are served.
    served: &'static str,
    /// The kind whose list has no end, and one of its objects.
    endless: Option<(String, Value)>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: 1,
            objects: BTreeMap::new(),
            events: Vec::new(),
            watches: Vec::new(),
            watching: Watching::Well,
            served: "v1",
            endless: None,
        }
    }
}

impl Rules {
    pub fn put(&self, plural: &str, object: &Value) {
        let mut state = self.0.lock();
        state.objects.insert(key(plural, object), object.clone());
        state.tell(plural, "MODIFIED", object);
    }

    pub fn remove(&self, plural: &str, object: &Value) {
        let mut state = self.0.lock();
        state.objects.remove(&key(plural, object));
        state.tell(plural, "DELETED", object);
    }

    pub fn watching(&self, watching: Watching) {
        self.0.lock().watching = watching;
    }

    pub fn serve(&self, version: &'static str) {
        self.0.lock().served = version;
    }

    /// From now on the list of this kind is objects like this one, without end.
    pub fn endless(&self, plural: &str, object: Value) {
        self.0.lock().endless = Some((plural.to_owned(), object));
    }

    /// Ends the watches of now in good order, or within an event.
    pub fn cut(&self, is_orderly: bool) {
        for (_, watch) in self.0.lock().watches.drain(..) {
            if !is_orderly {
                watch.try_send(Bytes::from_static(b"{\"type\":\"MODI")).expect("room");
            }
        }
    }

    pub fn answer(&self, seen: &Seen) -> Answer {
        let mut state = self.0.lock();
        let (version, plural) = seen.path[ADMISSION.len()..].split_once('/').expect("version and kind");
        let served = if plural.contains("polic") { state.served } else { "v1" };
        if version != served {
            return Answer::status(404, "NotFound", "the server could not find the requested resource");
        }
        let parameters: BTreeMap<String, String> = parameters(&seen.query).into_iter().collect();
        if parameters.contains_key("watch") {
            state.watch(plural, &parameters)
        } else {
            state.list(plural, &parameters)
        }
    }
}

impl State {
    fn tell(&mut self, plural: &str, kind: &str, object: &Value) {
        self.version += 1;
        let mut object = object.clone();
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let line = Bytes::from(format!("{}\n", json!({"type": kind, "object": object})));
        self.events.push((self.version, plural.to_owned(), line.clone()));
        self.watches.retain(|(of, watch)| of != plural || watch.try_send(line.clone()).is_ok());
    }

    fn list(&self, plural: &str, parameters: &BTreeMap<String, String>) -> Answer {
        let number = |name: &str| parameters.get(name).and_then(|value| value.parse::<usize>().ok());
        let (limit, from) = (number("limit").unwrap_or(usize::MAX), number("continue").unwrap_or(0));
        if let Some((of, object)) = &self.endless
            && of == plural
        {
            let items = (from..from + limit).map(|n| {
                let mut object = object.clone();
                object["metadata"]["name"] = json!(format!("o{n}"));
                object
            });
            let metadata = json!({"resourceVersion": "1", "continue": (from + limit).to_string()});
            return Answer::json(200, &json!({"metadata": metadata, "items": items.collect::<Vec<_>>()}));
        }
        let all: Vec<&Value> =
            self.objects.iter().filter(|((of, _), _)| of == plural).map(|(_, object)| object).collect();
        let to = from.saturating_add(limit).min(all.len());
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if to < all.len() {
            metadata["continue"] = json!(to.to_string());
        }
        Answer::json(200, &json!({"metadata": metadata, "items": all[from..to]}))
    }

    fn watch(&mut self, plural: &str, parameters: &BTreeMap<String, String>) -> Answer {
        let (answer, sender) = Answer::stream();
        let say = |text: &'static str| sender.try_send(Bytes::from_static(text.as_bytes())).expect("room");
        match self.watching {
            Watching::Well => {
                let from: u64 = parameters["resourceVersion"].parse().expect("a version");
                for (_, _, line) in self.events.iter().filter(|(at, of, _)| *at > from && of == plural) {
                    sender.try_send(line.clone()).expect("room");
                }
                self.watches.push((plural.to_owned(), sender));
            }
            Watching::Refused => return Answer::status(503, "ServiceUnavailable", "no watches here"),
            Watching::Silent => return Answer::Hang,
            Watching::Garbage => say("{\"type\":\"APPEARED\",\"object\":[]}\n"),
            Watching::Expired => {
                say("{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\"}}\n")
            }
            Watching::Short => {}
        }
        answer
    }
}

fn key(plural: &str, object: &Value) -> (String, String) {
    (plural.to_owned(), object["metadata"]["name"].as_str().expect("a name").to_owned())
}

fn rule(resource: &str) -> Value {
    json!({"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": [resource]})
}

/// A configuration of one webhook.
pub fn webhook(name: &str, webhook: &str, resource: &str) -> Value {
    json!({"metadata": {"name": name}, "webhooks": [{"name": webhook, "rules": [rule(resource)]}]})
}

pub fn policy(name: &str, resource: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"matchConstraints": {"resourceRules": [rule(resource)]}}})
}

pub fn binding(name: &str, policy: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"policyName": policy}})
}
