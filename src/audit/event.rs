//! One event: what is known of a request, and the line that it leaves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::object::{LABEL, NAME, Object};
use super::policy::Matter;
use super::text::{cut, cut_all};
use super::uri;
use crate::config::audit::Stage;

/// Of one line, its end included.
pub const MOST_BYTES: usize = 8 << 10;
const UID: usize = 128;
const MOST_GROUPS: usize = 16;
const GROUPS: usize = 1 << 10;
const IMPERSONATED_GROUPS: usize = 512;
/// Of keys and values of `extra`, together.
const EXTRA: usize = 768;
const MOST_EXTRA: usize = 8;
const PATH: usize = 1 << 10;

/// What is known of a request when it has been read.
pub struct Asked<'a> {
    /// When it came.
    pub received: Timestamp,
    /// `NAMESPACE/NAME` of the virtual cluster.
    pub cluster: String,
    /// What names it.
    pub audit_id: &'a str,
    /// Verb.
    pub verb: &'a str,
    /// Raw path, without the virtual cluster's prefix.
    pub path: &'a str,
    /// Raw query.
    pub query: &'a str,
    /// The resource, where it is one.
    pub object: Option<Object>,
    /// Whether an exec's command is written.
    pub with_command: bool,
    /// Where it came from.
    pub source: IpAddr,
    /// `User-Agent`.
    pub agent: &'a [u8],
    /// Whom it asks to be.
    pub impersonated: Option<User>,
}

/// A user. Cut when an event is made of him.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct User {
    /// Name.
    pub username: String,
    /// uid.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Further attributes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// How a request went.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Of the answer; 0 where there was none.
    pub code: u16,
    /// `forwarded`, `answered`, `refused` or `failed`.
    pub decision: &'static str,
    /// Of the access log.
    pub flag: &'static str,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// Since it came.
    pub took: Duration,
}

/// What an event of a request will say.
#[derive(Debug, Clone)]
pub struct Draft {
    received: Timestamp,
    cluster: String,
    audit_id: String,
    uri: String,
    /// Decoded.
    path: String,
    verb: String,
    object: Option<Object>,
    user: User,
    impersonated: Option<User>,
    source: String,
    agent: String,
    credential: &'static str,
    command: String,
    host: Option<(String, String)>,
}

/// The form in which Kubernetes writes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: &'a User,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<&'a User>,
    #[serde(rename = "sourceIPs")]
    source_ips: [&'a str; 1],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<&'a Object>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<Status>,
    request_received_timestamp: String,
    stage_timestamp: String,
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Status {
    metadata: BTreeMap<&'static str, &'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    status: &'static str,
    code: u16,
}

/// As `metav1.MicroTime`.
pub fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

impl User {
    fn cut(self, groups: usize) -> Self {
        let mut left = EXTRA;
        let extra = self.extra.into_iter().take(MOST_EXTRA).map_while(|(key, values)| {
            let key = cut(&key, LABEL).to_owned();
            left = left.checked_sub(2 * LABEL)?;
            let values = cut_all(values.iter().map(String::as_str), MOST_GROUPS, NAME, left);
            left -= values.iter().map(|value| json_length(value)).sum::<usize>().min(left);
            Some((key, values))
        });
        Self {
            extra: extra.collect(),
            username: cut(&self.username, NAME).to_owned(),
            uid: cut(&self.uid, UID).to_owned(),
            groups: cut_all(self.groups.iter().map(String::as_str), MOST_GROUPS, NAME, groups),
        }
    }
}

fn json_length(text: &str) -> usize {
    serde_json::to_string(text).map_or(text.len() * 6, |json| json.len() + 1)
}

impl Draft {
    /// Nobody is known yet.
    pub fn new(asked: Asked<'_>) -> Self {
        let subresource = asked.object.as_ref().map_or("", |object| object.subresource.as_str());
        let with_command = asked.with_command && subresource == "exec";
        let is_proxy = subresource == "proxy" || asked.verb == "proxy";
        let agent = String::from_utf8_lossy(asked.agent.get(..NAME).unwrap_or(asked.agent));
        Self {
            received: asked.received,
            audit_id: cut(asked.audit_id, LABEL).to_owned(),
            uri: uri::shown(asked.path, asked.query, with_command, is_proxy),
            path: cut(&percent_decode_str(asked.path).decode_utf8_lossy(), PATH).to_owned(),
            verb: cut(asked.verb, LABEL).to_owned(),
            object: asked.object,
            user: User::default(),
            impersonated: asked
                .impersonated
                .map(|user| User { extra: BTreeMap::new(), ..user }.cut(IMPERSONATED_GROUPS)),
            source: asked.source.to_canonical().to_string(),
            agent: cut(&agent, NAME).to_owned(),
            credential: "",
            command: if with_command { uri::command(asked.query) } else { String::new() },
            cluster: asked.cluster,
            host: None,
        }
    }

    /// Who asked, and how that is known.
    pub fn is_of(&mut self, user: User, credential: &'static str) {
        (self.user, self.credential) = (user.cut(GROUPS), credential);
    }

    /// Where the pod of a stream is.
    pub fn is_on(&mut self, pod: &str, node: &str) {
        self.host = Some((cut(pod, NAME).to_owned(), cut(node, NAME).to_owned()));
    }

    /// What a policy is asked about it.
    pub fn matter<'a>(&'a self, user: Option<&'a str>, groups: &'a [String]) -> Matter<'a> {
        Matter { user, groups, verb: &self.verb, path: &self.path, object: self.object.as_ref() }
    }

    /// The event of a stage: one line, with its end.
    pub fn line(&self, stage: Stage, now: Timestamp, outcome: &Outcome) -> Vec<u8> {
        let failed = if outcome.code >= 400 { "Failure" } else { "" };
        let status = Status { metadata: BTreeMap::new(), status: failed, code: outcome.code };
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: "Metadata",
            audit_id: &self.audit_id,
            stage,
            request_uri: &self.uri,
            verb: &self.verb,
            user: &self.user,
            impersonated_user: self.impersonated.as_ref(),
            source_ips: [&self.source],
            user_agent: &self.agent,
            object_ref: self.object.as_ref(),
            response_status: (outcome.code > 0).then_some(status),
            request_received_timestamp: moment(self.received),
            stage_timestamp: moment(now),
            annotations: self.annotations(stage, outcome),
        };
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        line
    }

    fn annotations(&self, stage: Stage, outcome: &Outcome) -> BTreeMap<&'static str, String> {
        let mut said = BTreeMap::from([("portico.dev/cluster", self.cluster.clone())]);
        let mut say = |key, text: &str| {
            if !text.is_empty() {
                said.insert(key, text.to_owned());
            }
        };
        say("portico.dev/credential", self.credential);
        say("portico.dev/decision", outcome.decision);
        say("portico.dev/flag", outcome.flag);
        say("portico.dev/command", &self.command);
        if let Some((pod, node)) = &self.host {
            say("portico.dev/host-pod", pod);
            say("portico.dev/host-node", node);
        }
        if stage == Stage::ResponseComplete {
            say("portico.dev/bytes-in", &outcome.received.to_string());
            say("portico.dev/bytes-out", &outcome.sent.to_string());
            say("portico.dev/duration", &format!("{:.3}s", outcome.took.as_secs_f64()));
        }
        said
    }
}

#[cfg(test)]
mod tests;
