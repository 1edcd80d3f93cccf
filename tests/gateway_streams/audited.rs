//! What the audit log says of streams: where the pod is, and its command to whom wants it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portico::archive;
use portico::audit::Asks;
use portico::config::audit::{AuditConfig, AuditFile};
use portico::runtime::clock::Clock;
use serde_json::{Value, json};

use crate::world::{HOST_NAMESPACE, PATIENCE, World, echoing, websocket};

async fn event(path: &Path, cluster: &str, stage: &str) -> Value {
    let found = async {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let mut events = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
            let is_it = |event: &Value| {
                event["stage"] == stage
                    && event["annotations"]["portico.dev/cluster"] == format!("{HOST_NAMESPACE}/{cluster}")
            };
            if let Some(event) = events.find(is_it) {
                return event;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no {stage} of {cluster}"))
}

#[tokio::test]
async fn an_exec_is_written_when_it_begins_with_its_place_and_when_it_ends_with_its_bytes() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("audit.log");
    let file = AuditFile { path: path.to_string_lossy().into_owned(), ..AuditFile::default() };
    let config = AuditConfig { enabled: true, file, ..AuditConfig::default() };
    let archive = archive::start(&config, &Clock::system()).expect("begun");
    let world = World::audited(archive.trail(), echoing).await;
    let mut tenant = world.a.tenant(2, &Clock::system());
    let asked = serde_json::from_value(json!({"command": true})).expect("audit");
    tenant.audit = Some(Arc::new(Asks::new(&asked).expect("fit")));
    world.registry.put(&Arc::new(tenant));
    for cluster in [&world.a, &world.b] {
        world.pod(cluster, "web");
        let (wire, head) = world.ask(cluster, "jane", &websocket("web")).await;
        assert_eq!(head.code, 101, "{head:?}");
        let begun = event(&path, cluster.name, "ResponseStarted").await;
        let said = &begun["annotations"];
        assert_eq!(said["portico.dev/host-pod"], cluster.host_name("web").as_str());
        assert_eq!(said["portico.dev/host-node"], "node-1");
        assert_eq!((begun["objectRef"]["subresource"].as_str(), begun["verb"].as_str()), (Some("exec"), Some("get")));
        if cluster.name == world.a.name {
            assert_eq!(said["portico.dev/command"], "sh -c \"echo hi\"");
        } else {
            assert!(!begun.to_string().contains("echo"), "{begun}");
        }
        let (back, _) = wire.both(b"hello".to_vec()).await;
        assert_eq!(back, b"hello");
        let ended = event(&path, cluster.name, "ResponseComplete").await;
        let said = &ended["annotations"];
        assert_eq!((&said["portico.dev/bytes-in"], &said["portico.dev/bytes-out"]), (&json!("5"), &json!("5")));
        assert_eq!(ended["responseStatus"]["code"], 101);
    }
    let (_, message) = world.refusal(&world.a, "eve", &websocket("web")).await;
    assert!(message.contains("eve"), "{message}");
    let mut denied = Value::Null;
    while denied["user"]["username"] != "eve" {
        let text = std::fs::read_to_string(&path).expect("read");
        denied = text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(denied["responseStatus"]["code"], 403);
    assert_eq!(denied["annotations"]["portico.dev/decision"], "refused");
    archive.close().await;
}
