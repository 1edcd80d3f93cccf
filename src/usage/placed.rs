//! Which pods of the host are a tenant's, where they run, and what they are inside.
//!
//! Promises: a pod is a tenant's that carries its label and says whose copy it is; other pods of the host namespace, another
//! tenant's among them, are not there, whatever their names. Read as a table, a page at a time: of each pod its metadata and
//! its node.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Kind, Result};
use crate::kubernetes::ApiClient;
use crate::kubernetes::resources::PODS;
use crate::names::{HostName, TenantId, keys};

/// Pods of one tenant, by name.
pub type Placed = BTreeMap<HostName, HostPod>;

const DEADLINE: Duration = Duration::from_secs(10);
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
/// Pods on a page: a tenant's annotations may be long, and then there are fewer.
const PAGES: [usize; 2] = [500, 25];
const LONGEST_PAGE: usize = 12 << 20;
/// Pods that are known of one tenant; `policy.objects` lets it have half as many by default.
const MOST: usize = 10_000;

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

/// All of them.
pub(super) async fn read(host: &ApiClient, tenant: &TenantId) -> Result<Placed> {
    let (mut placed, mut token, mut size) = (Placed::new(), String::new(), 0);
    loop {
        let path = path(tenant, PAGES[size], &token);
        let bytes = match host.get_as(&path, TABLE, DEADLINE, LONGEST_PAGE).await {
            Err(error) if error.kind() == Kind::TooLarge && size + 1 < PAGES.len() => {
                size += 1;
                continue;
            }
            answer => answer?,
        };
        token = take(&bytes, tenant, &mut placed)
            .map_err(|e| Error::host(Kind::Protocol, "a table of pods cannot be read").because(e))?;
        if token.is_empty() || placed.len() >= MOST {
            return Ok(placed);
        }
    }
}

fn path(tenant: &TenantId, limit: usize, token: &str) -> String {
    let pods = PODS.path(Some(tenant.namespace().as_str()), None, None);
    // Names of clusters are DNS labels, and tokens of lists base64 for URLs.
    let selector = format!("{}%3D{}", keys::CLUSTER.replace('/', "%2F"), tenant.name());
    let token = percent_encoding::utf8_percent_encode(token, percent_encoding::NON_ALPHANUMERIC);
    format!("{pods}?includeObject=Metadata&labelSelector={selector}&limit={limit}&continue={token}")
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
            "/namespaces/team/pods?includeObject=Metadata&labelSelector=portico.dev%2Fcluster%3Dalpha&limit=5&continue=a%2Bb"
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
