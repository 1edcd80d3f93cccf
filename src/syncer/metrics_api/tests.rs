use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::crd::{Limits, OnLoss};
use crate::error::Side;
use crate::kubernetes::testing::{Faults, Server};
use crate::translate::{service, testing};

const NAME: &str = "v1beta1.metrics.k8s.io";

fn tenant(relay: Option<u16>) -> (Server, Member) {
    let server = Server::new("tenant", Side::Backend, Faults::none());
    server.say(RELAY, relay.map(|port| json!({"port": port})));
    let member = Member {
        view: testing::view(),
        api: Arc::new(server.clone()),
        fingerprint: String::new(),
        adopts: false,
        on_loss: OnLoss::Hold,
        limits: Limits::default(),
        metrics_at_gateway: false,
    };
    (server, member)
}

fn there(server: &Server) -> [Option<Value>; 3] {
    [
        server.read("services", service::METRICS_NAMESPACE, service::METRICS_NAME),
        server.read("clusterroles", "", "system:aggregated-metrics-reader"),
        server.read("apiservices", "", NAME),
    ]
}

#[tokio::test]
async fn it_is_made_where_there_is_a_relay_and_leads_there() {
    let (server, member) = tenant(Some(6440));
    assert_eq!(step(&member, Found::Unknown).await.expect("made"), Found::Settled);
    let [service, role, api] = there(&server).map(|object| object.expect("made"));
    assert_eq!(service["spec"], json!({"type": "ExternalName", "externalName": "localhost"}));
    assert!(service::is_metrics_service(&service));
    assert_eq!(api["spec"]["service"], json!({"namespace": "kube-system", "name": "portico-metrics", "port": 6440}));
    assert!(api["spec"].get("insecureSkipTLSVerify").is_none() && api["spec"]["caBundle"].is_string());
    // What somebody applies in its place takes all of this away.
    let applied = api["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str();
    let applied: Value = serde_json::from_str(applied.expect("kept")).expect("JSON");
    assert_eq!(applied["spec"], api["spec"]);
    assert_eq!(applied["metadata"]["labels"], api["metadata"]["labels"]);
    assert_eq!(role["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"], "true");
    let writes = server.counts().writes;
    assert_eq!(step(&member, Found::Settled).await.expect("looked at"), Found::Settled);
    assert_eq!(server.counts().writes, writes, "nothing is written over and over");
}

#[tokio::test]
async fn k3s_finds_it_at_the_gateway_and_follows_it_there() {
    let (server, mut member) = tenant(None);
    member.metrics_at_gateway = true;
    assert_eq!(step(&member, Found::Unknown).await.expect("made"), Found::Settled);
    let [service, _, api] = there(&server).map(|object| object.expect("made"));
    assert_eq!(service["spec"]["externalName"], member.view.api_service_ip.to_string());
    assert_eq!(api["spec"]["service"]["port"], 443);
    member.view.api_service_ip = "10.96.0.77".parse().expect("an address");
    step(&member, Found::Settled).await.expect("amended");
    assert_eq!(there(&server)[0].as_ref().expect("there")["spec"]["externalName"], "10.96.0.77");
    member.view.api_service_ip = "fd00::7".parse().expect("an address");
    assert_eq!(step(&member, Found::Settled).await.expect("taken away"), Found::Absent);
}

#[tokio::test]
async fn another_port_or_authority_is_followed() {
    let (server, mut member) = tenant(Some(6440));
    step(&member, Found::Unknown).await.expect("made");
    server.say(RELAY, Some(json!({"port": 6450})));
    member.view.api_ca = "renewed".to_owned();
    step(&member, Found::Settled).await.expect("amended");
    let api = server.read("apiservices", "", NAME).expect("there");
    assert_eq!((&api["spec"]["service"]["port"], &api["spec"]["caBundle"]), (&json!(6450), &json!("cmVuZXdlZA==")));
    assert_eq!(api["spec"]["service"]["name"], "portico-metrics");
}

#[tokio::test]
async fn what_nobody_would_serve_is_taken_away_and_asked_for_no_more() {
    let (server, member) = tenant(Some(6440));
    step(&member, Found::Unknown).await.expect("made");
    server.say(RELAY, None);
    assert_eq!(step(&member, Found::Settled).await.expect("taken away"), Found::Absent);
    assert!(there(&server).iter().all(Option::is_none), "namespaces can be deleted");
    let gets = server.counts().gets;
    assert_eq!(step(&member, Found::Absent).await.expect("looked at"), Found::Absent);
    assert_eq!(server.counts().gets, gets);
}

#[tokio::test]
async fn anothers_is_left_alone_and_nothing_of_ours_stands_beside_it() {
    for changes_ours in [false, true] {
        for relay in [None, Some(6440)] {
            let (server, member) = tenant(Some(6440));
            if changes_ours {
                // As `kubectl apply` of a metrics-server leaves it: our label is still there.
                step(&member, Found::Unknown).await.expect("made");
                server.change("apiservices", "", NAME, |api| {
                    api["spec"]["service"] = json!({"namespace": "kube-system", "name": "metrics-server", "port": 443});
                    api["spec"]["insecureSkipTLSVerify"] = json!(true);
                });
                server.change("clusterroles", "", "system:aggregated-metrics-reader", |role| {
                    role["metadata"]["labels"]["k8s-app"] = json!("metrics-server");
                });
            } else {
                let spec = json!({"service": {"namespace": "monitoring", "name": "adapter"}});
                server.put("apiservices", json!({"metadata": {"name": NAME}, "spec": spec}));
            }
            let theirs = server.read("apiservices", "", NAME);
            server.say(RELAY, relay.map(|port| json!({"port": port})));
            for last in [Found::Settled, Found::Unknown] {
                step(&member, last).await.expect("left alone");
            }
            let [service, role, api] = there(&server);
            assert_eq!((service, role.is_some()), (None, changes_ours), "their role is theirs");
            assert_eq!(api, theirs);
        }
    }
}

#[tokio::test]
async fn whoever_takes_ours_away_is_given_time() {
    let (server, member) = tenant(Some(6440));
    step(&member, Found::Unknown).await.expect("made");
    server.delete_gracefully("apiservices", "", NAME, None);
    assert_eq!(step(&member, Found::Settled).await.expect("looked at"), Found::TakenAway);
    assert!(server.read("apiservices", "", NAME).is_none(), "not yet");
    assert_eq!(step(&member, Found::Unknown).await.expect("made again"), Found::Settled);
    assert!(server.read("apiservices", "", NAME).is_some());
}

#[tokio::test]
async fn a_role_and_a_service_of_that_name_that_others_made_stay_theirs() {
    let (server, member) = tenant(Some(6440));
    server.put("clusterroles", json!({"metadata": {"name": "system:aggregated-metrics-reader"}, "rules": []}));
    let metadata = json!({"name": service::METRICS_NAME, "namespace": service::METRICS_NAMESPACE});
    server.put("services", json!({"metadata": metadata, "spec": {"clusterIP": "10.96.3.3"}}));
    let before = there(&server);
    step(&member, Found::Unknown).await.expect("made");
    server.say(RELAY, None);
    step(&member, Found::Settled).await.expect("taken away");
    assert_eq!(there(&server), before);
}
