//! The JSON client: lists, watches, writes, errors, and `kube::Client` on the same connections.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use jiff::Timestamp;
use portico::error::{Kind, Side};
use portico::kubernetes::{ApiClient, KubeService, ListOptions, PatchKind, Resource, WatchEvent};
use portico::runtime::clock::Clock;
use portico::upstream::Pool;
use serde_json::json;

use crate::support::fake::{Answer, FakeApi, Seen, parameters};

const PODS: Resource = Resource { group: "", version: "v1", plural: "pods", kind: "Pod", namespaced: true };

fn client(api: &FakeApi) -> ApiClient {
    let clock = Clock::seeded(Timestamp::UNIX_EPOCH, 7);
    ApiClient::new(Arc::new(Pool::new(api.target(Side::Backend), clock)), HeaderMap::new())
}

fn parameter(seen: &Seen, name: &str) -> Option<String> {
    parameters(&seen.query).into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let api = FakeApi::start(|seen| async move {
        let (items, next) = match parameter(&seen, "continue").as_deref() {
            None => (json!([{"metadata": {"name": "a"}}]), "more/+="),
            Some("more/+=") => (json!([{"metadata": {"name": "b"}}]), ""),
            Some(other) => panic!("{other}"),
        };
        Answer::json(200, &json!({"metadata": {"resourceVersion": "42", "continue": next}, "items": items}))
    })
    .await;
    let (items, version) = client(&api).list(&PODS, None, &ListOptions::default()).await.expect("list");
    assert_eq!(version, "42");
    assert_eq!(items.len(), 2);
    assert_eq!((items[1]["kind"].as_str(), items[1]["apiVersion"].as_str()), (Some("Pod"), Some("v1")));
}

#[tokio::test]
async fn an_expired_page_starts_the_list_again_whole() {
    let api = FakeApi::start(|seen| async move {
        if parameter(&seen, "continue").is_some() {
            return Answer::status(410, "Expired", "the provided continue parameter is too old");
        }
        let next = if parameter(&seen, "limit").is_some() { "next" } else { "" };
        Answer::json(200, &json!({"metadata": {"resourceVersion": "9", "continue": next}, "items": [{}]}))
    })
    .await;
    let (items, version) = client(&api).list(&PODS, None, &ListOptions::default()).await.expect("list");
    assert_eq!((items.len(), version.as_str()), (1, "9"));
}

#[tokio::test]
async fn watches_yield_events_as_they_come() {
    let api = FakeApi::start(|seen| async move {
        assert_eq!(parameter(&seen, "resourceVersion").as_deref(), Some("5"));
        assert_eq!(parameter(&seen, "watch").as_deref(), Some("true"));
        let (answer, sender) = Answer::stream();
        for part in [
            "{\"type\":\"ADDED\",\"obj",
            "ect\":{\"n\":1}}\n{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"7\"}}}\n",
            "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"status\":\"Failure\",\"reason\":\"Expired\",\"code\":410}}\n",
        ] {
            sender.send(Bytes::from_static(part.as_bytes())).await.expect("room");
        }
        answer
    })
    .await;
    let mut watch = client(&api).watch(&PODS, Some("default"), &ListOptions::default(), "5").await.expect("watch");
    assert_eq!(watch.next().await.expect("event"), Some(WatchEvent::Applied(Bytes::from_static(b"{\"n\":1}"))));
    let bookmark = WatchEvent::Bookmark { resource_version: "7".to_owned(), initial_events_end: false };
    assert_eq!(watch.next().await.expect("event"), Some(bookmark));
    assert_eq!(watch.next().await.expect_err("expired").kind(), Kind::Gone);
}

#[tokio::test]
async fn a_watch_that_ends_well_is_none_and_one_that_breaks_is_an_error() {
    let api = FakeApi::start(|seen| async move {
        let (answer, sender) = Answer::stream();
        let text = if seen.path.ends_with("/a/pods") { "" } else { "{\"type\":\"ADD" };
        sender.send(Bytes::from_static(text.as_bytes())).await.expect("room");
        answer
    })
    .await;
    let client = client(&api);
    let mut watch = client.watch(&PODS, Some("a"), &ListOptions::default(), "1").await.expect("watch");
    assert_eq!(watch.next().await.expect("end"), None);
    let mut watch = client.watch(&PODS, Some("b"), &ListOptions::default(), "1").await.expect("watch");
    assert_eq!(watch.next().await.expect_err("cut").kind(), Kind::Closed);
}

#[tokio::test]
async fn a_server_without_streaming_lists_says_invalid() {
    let api = FakeApi::start(|_| async { Answer::status(422, "Invalid", "sendInitialEvents is forbidden") }).await;
    let error = client(&api).watch_list(&PODS, None, &ListOptions::default()).await.expect_err("422");
    assert_eq!(error.kind(), Kind::Invalid);
    let seen = api.seen().remove(0);
    assert_eq!(parameter(&seen, "sendInitialEvents").as_deref(), Some("true"));
    assert_eq!(parameter(&seen, "resourceVersionMatch").as_deref(), Some("NotOlderThan"));
}

#[tokio::test]
async fn writes_name_their_field_manager() {
    let api = FakeApi::start(|_| async { Answer::json(200, &json!({})) }).await;
    let client = client(&api);
    let object = json!({"kind": "Pod"});
    client.create(&PODS, Some("a"), &object).await.expect("create");
    client.apply(&PODS, Some("a"), "x", "status", &object).await.expect("apply");
    client.patch(&PODS, Some("a"), "x", "", PatchKind::Merge, &object).await.expect("patch");
    client.replace(&PODS, Some("a"), "x", "", &object).await.expect("replace");
    let seen = api.seen();
    assert!(seen.iter().all(|s| parameter(s, "fieldManager").as_deref() == Some("portico")));
    assert_eq!(parameter(&seen[1], "force").as_deref(), Some("true"));
    assert_eq!(seen[1].header("content-type"), Some("application/apply-patch+yaml"));
    assert_eq!(seen[1].path, "/api/v1/namespaces/a/pods/x/status");
    assert_eq!(seen[2].header("content-type"), Some("application/merge-patch+json"));
}

#[tokio::test]
async fn deletes_are_of_one_object_and_absence_is_no_error() {
    let api = FakeApi::start(|seen| async move {
        match seen.path.rsplit('/').next() {
            Some("here") => Answer::json(200, &json!({})),
            Some("other") => Answer::status(409, "Conflict", "the UID in the precondition does not match"),
            _ => Answer::status(404, "NotFound", "gone"),
        }
    })
    .await;
    let client = client(&api);
    assert!(client.delete(&PODS, Some("a"), "here", Some("u"), Some(0)).await.expect("deleted"));
    assert!(!client.delete(&PODS, Some("a"), "other", Some("u"), None).await.expect("another"));
    assert!(!client.delete(&PODS, Some("a"), "gone", None, None).await.expect("gone"));
    let options = api.seen().remove(0).json();
    assert_eq!(options["preconditions"]["uid"], "u");
    assert_eq!(options["gracePeriodSeconds"], 0);
    assert!(client.get(&PODS, Some("a"), "gone").await.expect("absent").is_none());
}

#[tokio::test]
async fn refusals_keep_status_code_and_retry_after() {
    let api = FakeApi::start(|seen| async move {
        if seen.path.ends_with("text") {
            let response = http::Response::builder().status(429).header("retry-after", "3");
            return Answer::Full(response.body(Bytes::from_static(b"Too many requests")).expect("response"));
        }
        Answer::status(403, "Forbidden", "pods \"x\" is forbidden")
    })
    .await;
    let client = client(&api);
    let error = client.get(&PODS, Some("a"), "x").await.expect_err("403");
    assert_eq!((error.side(), error.kind()), (Side::Backend, Kind::Forbidden));
    assert_eq!(error.to_status().message, "pods \"x\" is forbidden");
    let error = client.get(&PODS, Some("a"), "text").await.expect_err("429");
    assert_eq!((error.kind(), error.retry_after()), (Kind::TooManyRequests, Some(3)));
    assert_eq!(client.pool().throttled(), 1, "of two refusals one asks for patience");
}

#[tokio::test]
async fn kube_client_works_over_the_pool() {
    use k8s_openapi::api::core::v1::ConfigMap;
    let api = FakeApi::start(|seen| async move {
        assert_eq!(seen.path, "/api/v1/namespaces/default/configmaps/x");
        Answer::json(
            200,
            &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}}),
        )
    })
    .await;
    let pool = Arc::clone(client(&api).pool());
    let kube = kube::Client::new(KubeService::new(pool), "default");
    let map: ConfigMap = kube::Api::default_namespaced(kube).get("x").await.expect("object");
    assert_eq!(map.data.expect("data")["a"], "b");
}
