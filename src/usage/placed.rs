//! Which pods of the host are a tenant's, where they run, and what they are inside.
//!
//! Promises: a pod is a tenant's that carries its label and says whose copy it is; other pods of the host namespace, another
//! tenant's among them, are not there, whatever their names. Read as a table, a page at a time: of each pod its metadata and
//! its node. Each page takes a turn and is let go before the next; a tenant whose pods take longer than [`LONGEST_READING`] is late.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::turns::Turns;
use crate::error::{Error, Kind, Result};
use crate::kubernetes::resources::PODS;
use crate::kubernetes::{ApiClient, ListOptions, listed_path};
use crate::names::{HostName, TenantId, keys};
use crate::runtime::clock::Clock;
use crate::runtime::yielding;

/// Pods of one tenant, by name.
pub type Placed = BTreeMap<HostName, HostPod>;

/// For a page: shorter than anybody waits for a turn.
const DEADLINE: Duration = Duration::from_secs(5);
/// For all pages of one tenant, beside waiting for turns.
const LONGEST_READING: Duration = Duration::from_secs(15);
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
/// Pods on a page: a tenant's annotations may be long, and then there are fewer.
const PAGES: [usize; 2] = [500, 25];
const LONGEST_PAGE: usize = 12 << 20;
/// Pods that are known of one tenant; `policy.objects` lets it have half as many by default.
const MOST: usize = 10_000;
/// Tenants of whom it is known that their pages are the small ones.
const MOST_SMALL: usize = 512;
/// Reading so many bytes is as much work as making one record of DNS.
const BYTES_PER_WORK: usize = 128;

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPod {
    /// Where it runs; empty before it is scheduled.
    pub node: String,
    /// uid on the host.
    pub uid: String,
    /// Namespace inside the virtual cluster.
    pub namespace: String,
    /// Name inside.
    pub name: String,
    /// uid inside.
    pub virtual_uid: String,
}

/// Lists them.
#[derive(Debug)]
pub(super) struct Listing {
    host: ApiClient,
    turns: Arc<Turns>,
    clock: Clock,
    /// Whose pages were too large the last time.
    small: Mutex<BTreeSet<TenantId>>,
}

impl Listing {
    pub(super) fn new(host: ApiClient, turns: Arc<Turns>, clock: Clock) -> Self {
        Self { host, turns, clock, small: Mutex::default() }
    }

    /// All of a tenant's.
    pub(super) async fn read(&self, tenant: &TenantId) -> Result<Placed> {
        let (mut placed, mut token, mut left, mut largest) = (Placed::new(), String::new(), LONGEST_READING, 0);
        let mut size = usize::from(self.small.lock().contains(tenant));
        loop {
            let turn = self.turns.turn().await?;
            let began = self.clock.instant();
            let late = |_| Error::host(Kind::Timeout, "the pods of a virtual cluster could not be listed in time");
            let path = path(tenant, PAGES[size], &token);
            let asked = timeout(left, self.host.get_as(&path, TABLE, DEADLINE, LONGEST_PAGE)).await.map_err(late)?;
            let bytes = match asked {
                Err(error) if error.kind() == Kind::TooLarge && size + 1 < PAGES.len() => {
                    size += 1;
                    self.remember(tenant);
                    continue;
                }
                Err(error) if error.kind() == Kind::TooLarge => {
                    let message = "the pods of this cluster carry more annotations than are read of them here";
                    return Err(Error::client(Kind::Unavailable, message).because(error));
                }
                answer => answer?,
            };
            largest = largest.max(bytes.len());
            token = take(&bytes, tenant, &mut placed)
                .map_err(|e| Error::host(Kind::Protocol, "a table of pods cannot be read").because(e))?;
            let work = bytes.len() / BYTES_PER_WORK;
            drop((bytes, turn));
            left = left.saturating_sub(self.clock.instant().saturating_duration_since(began));
            yielding::charge(work).await;
            if token.is_empty() || placed.len() >= MOST {
                if largest.saturating_mul(PAGES[0] / PAGES[size]) <= LONGEST_PAGE {
                    self.small.lock().remove(tenant);
                }
                return Ok(placed);
            }
        }
    }

    fn remember(&self, tenant: &TenantId) {
        let mut small = self.small.lock();
        if small.len() >= MOST_SMALL {
            small.pop_first();
        }
        small.insert(tenant.clone());
    }
}

/// What of a list of the host is a tenant's.
pub(super) fn selected(tenant: &TenantId) -> ListOptions {
    ListOptions { label_selector: format!("{}={}", keys::CLUSTER, tenant.name()), ..ListOptions::default() }
}

fn path(tenant: &TenantId, limit: usize, token: &str) -> String {
    let pods = listed_path(&PODS, Some(tenant.namespace().as_str()), &selected(tenant));
    let token = percent_encoding::utf8_percent_encode(token, percent_encoding::NON_ALPHANUMERIC);
    format!("{pods}&includeObject=Metadata&limit={limit}&continue={token}")
}

/// Takes a page; returns the token of the next one.
fn take(page: &[u8], tenant: &TenantId, placed: &mut Placed) -> serde_json::Result<String> {
    let table: Table<'_> = serde_json::from_slice(page)?;
    let node = table.columns.iter().position(|column| column.name == "Node");
    let rows = table.rows.unwrap_or_default();
    for row in rows.iter().take(MOST.saturating_sub(placed.len())) {
        let cell =
            node.and_then(|at| row.cells.get(at)).and_then(|cell| serde_json::from_str::<String>(cell.get()).ok());
        let metadata = &row.object.metadata;
        let Ok(name) = HostName::parse(&metadata.name) else { continue };
        if let Some(pod) = metadata.pod(tenant, cell.filter(|node| node != "<none>").unwrap_or_default()) {
            placed.insert(name, pod);
        }
    }
    Ok(table.metadata.token)
}

#[derive(Deserialize)]
struct Table<'a> {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(default, rename = "columnDefinitions")]
    columns: Vec<Column>,
    #[serde(borrow)]
    rows: Option<Vec<Row<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PageMeta {
    #[serde(rename = "continue")]
    token: String,
}

#[derive(Deserialize)]
struct Column {
    name: String,
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    cells: Vec<&'a RawValue>,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    labels: Labels,
    annotations: Annotations,
}

/// What is kept of them.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Labels {
    #[serde(rename = "portico.dev/cluster")]
    cluster: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "portico.dev/object-namespace")]
    namespace: String,
    #[serde(rename = "portico.dev/object-name")]
    name: String,
    #[serde(rename = "portico.dev/object-uid")]
    uid: String,
}

impl Metadata {
    fn pod(&self, tenant: &TenantId, node: String) -> Option<HostPod> {
        let Annotations { namespace, name, uid } = &self.annotations;
        let is_whole = ![&self.uid, namespace, name, uid].iter().any(|part| part.is_empty());
        let is_the_tenants =
            self.labels.cluster == tenant.name().as_str() && self.namespace == tenant.namespace().as_str();
        (is_whole && is_the_tenants).then(|| HostPod {
            node,
            uid: self.uid.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            virtual_uid: uid.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn row(name: &str, cluster: &str, change: impl FnOnce(&mut Value)) -> Value {
        let mut row = json!({
            "cells": [name, "1/1", "Running", 0, "1d", "10.0.0.1", "node-1", "<none>", "<none>"],
            "object": {"kind": "PartialObjectMetadata", "metadata": {
                "name": name, "namespace": "team", "uid": format!("host-{name}"),
                "labels": {"portico.dev/cluster": cluster},
                "annotations": {"portico.dev/object-name": "web", "portico.dev/object-namespace": "default",
                    "portico.dev/object-uid": "virtual"},
            }},
        });
        change(&mut row);
        row
    }

    #[test]
    fn only_pods_that_say_whose_they_are() {
        assert!([keys::CLUSTER, keys::OBJECT_NAMESPACE, keys::OBJECT_NAME, keys::OBJECT_UID].iter().all(|key| {
            let written = ["cluster", "object-namespace", "object-name", "object-uid"];
            written.iter().any(|name| format!("portico.dev/{name}") == **key)
        }));
        let columns = ["Name", "Ready", "Status", "Restarts", "Age", "IP", "Node", "Nominated Node", "Readiness Gates"];
        let columns: Vec<Value> = columns.iter().map(|name| json!({"name": name, "type": "string"})).collect();
        let rows = json!([
            row("own", "alpha", |_| {}),
            row("waiting", "alpha", |row| row["cells"][6] = json!("<none>")),
            row("foreign", "alphabet", |_| {}),
            row("elsewhere", "alpha", |row| row["object"]["metadata"]["namespace"] = json!("other")),
            row("unlabelled", "alpha", |row| row["object"]["metadata"]["labels"] = json!({})),
            row("nobody's", "alpha", |row| row["object"]["metadata"]["annotations"] = json!({})),
        ]);
        let table = json!({"kind": "Table", "metadata": {"continue": "t"}, "columnDefinitions": columns, "rows": rows});
        let tenant = TenantId::parse("team", "alpha").expect("id");
        let mut placed = Placed::new();
        let token = take(table.to_string().as_bytes(), &tenant, &mut placed).expect("read");
        assert_eq!(token, "t");
        let seen: Vec<(&str, &str)> = placed.iter().map(|(name, pod)| (name.as_str(), pod.node.as_str())).collect();
        assert_eq!(seen, [("own", "node-1"), ("waiting", "")]);
        let own = &placed[&HostName::parse("own").expect("name")];
        assert_eq!((own.uid.as_str(), own.virtual_uid.as_str()), ("host-own", "virtual"));
        assert!(path(&tenant, 5, "a+b").ends_with(
            "/namespaces/team/pods?labelSelector=portico.dev%2Fcluster%3Dalpha&includeObject=Metadata&limit=5&continue=a%2Bb"
        ));
    }

    #[test]
    fn a_broken_table_is_no_table() {
        let tenant = TenantId::parse("team", "alpha").expect("id");
        for broken in ["", "[]", "{\"rows\": 7}", "{\"rows\": [{\"cells\": []}]}"] {
            assert!(take(broken.as_bytes(), &tenant, &mut Placed::new()).is_err(), "{broken}");
        }
        assert_eq!(take(b"{\"rows\": null}", &tenant, &mut Placed::new()).expect("empty"), "");
    }
}
