//! Clients other than kubectl (client-go) and Helm: Python's and kube-rs.

use std::collections::BTreeMap;
use std::process::Command;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, AttachParams, LogParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::io::AsyncReadExt as _;

use crate::harness::{Dump, Space, alpha};

#[test]
fn pythons_client() {
    let space = alpha().space("python");
    let _dump = Dump(vec![alpha()]);
    space.pod("box");
    // `tests/e2e/run` installs it, once, outside of the clone.
    let python = std::env::var("PORTICO_E2E_PYTHON").expect("run this by tests/e2e/run");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/clients.py");
    let said = Command::new(python).arg(script).arg(&alpha().kubeconfig).args([&space.name, "box"]).output();
    let said = said.expect("python runs");
    let err = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{err}");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "list\nwatch\nexec\nlog\nstatus\n", "{err}");
}

#[test]
fn kube_rs() {
    let space = alpha().space("kube-rs");
    let _dump = Dump(vec![alpha()]);
    space.pod("box");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(uses(&space));
}

async fn uses(space: &Space) {
    let kubeconfig = Kubeconfig::read_from(&alpha().kubeconfig).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("usable");
    let client = kube::Client::try_from(config).expect("a client");
    let pods: Api<Pod> = Api::namespaced(client.clone(), &space.name);
    let maps: Api<ConfigMap> = Api::namespaced(client, &space.name);

    let mut events = maps.watch(&WatchParams::default(), "0").await.expect("a watch").boxed();
    let mut map = ConfigMap { data: Some(BTreeMap::from([("a".into(), "b".into())])), ..ConfigMap::default() };
    map.metadata.name = Some("from-rust".into());
    maps.create(&PostParams::default(), &map).await.expect("created");
    let seen = tokio::time::timeout(std::time::Duration::from_secs(60), async {
        while let Some(event) = events.next().await {
            if let WatchEvent::Added(map) = event.expect("an event")
                && map.metadata.name.as_deref() == Some("from-rust")
            {
                return true;
            }
        }
        false
    });
    assert!(seen.await.expect("in time"));

    let mut exec = pods.exec("box", ["echo", "inside"], &AttachParams::default().stderr(false)).await.expect("exec");
    let mut said = String::new();
    exec.stdout().expect("stdout").read_to_string(&mut said).await.expect("text");
    assert_eq!(said, "inside\n");
    pods.logs("box", &LogParams::default()).await.expect("logs");
    let missing = pods.get("nobody").await.expect_err("there is none");
    assert!(
        matches!(&missing, kube::Error::Api(status) if status.code == 404 && status.reason == "NotFound"),
        "{missing:?}"
    );
}
