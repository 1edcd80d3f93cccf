//! The life of a pod on both sides.

use super::super::testing::{World, hostile_plans, writes};
use super::*;
use crate::config::{PodSecurity, PolicyBounds};
use crate::crd::policy::{GrantedPolicy, Policy};
use crate::translate::identity;
use crate::translate::testing::open_view;

mod placement;

const HOST: &str = "web-x-default-x-vc1";

fn pod() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1", "generateName": "web-",
            "labels": {"app": "web"}, "annotations": {"note": "n"}},
        "spec": {
            "serviceAccountName": "builder", "serviceAccount": "builder", "subdomain": "sub", "priority": 0,
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true,
            "containers": [{
                "name": "c", "image": "nginx:1",
                "env": [
                    {"name": "WEB_SERVICE_HOST", "value": "mine"},
                    {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "creds", "key": "k"}}},
                ],
                "envFrom": [{"configMapRef": {"name": "settings"}}],
                "volumeMounts": [{"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
            }],
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "kube-api-access", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
                ]}},
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
                {"name": "info", "downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
                ]}},
            ],
            "tolerations": [{"key": "a", "operator": "Exists"}],
        },
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    })
}

fn world() -> World {
    let mut world = World::new();
    world.put_virtual("Pod", pod());
    world.put_virtual(
        "Service",
        json!({"metadata": {"name": "web", "namespace": "default"},
            "spec": {"clusterIP": "10.96.7.7", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}}),
    );
    world.put_host("Node", json!({"metadata": {"name": "node-1"}}));
    world
}

fn host(world: &World) -> Value {
    world.host("Pod", HOST).expect("host pod")
}

fn object(world: &World) -> Value {
    world.virtual_one("Pod", "default", "web").expect("virtual pod")
}

#[test]
fn the_host_pod_is_the_tenants_in_every_field() {
    let mut world = world();
    let plan = world.plan(&PodKind, "default", "web");
    let names: Vec<&str> = plan.requires.iter().map(|r| r.key.name.as_str()).collect();
    assert_eq!(names, ["kube-root-ca.crt", "settings", "creds", "pull", "web-scratch"]);
    world.settle(&PodKind, "default", "web");
    let host = host(&world);
    let spec = &host["spec"];
    for field in ["serviceAccountName", "serviceAccount", "subdomain", "priority"] {
        assert!(spec.get(field).is_none(), "{field}");
    }
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["enableServiceLinks"], false);
    assert_eq!(spec["hostname"], "web");
    assert!(host["metadata"].get("generateName").is_none());
    let env = spec["containers"][0]["env"].as_array().expect("env");
    let value = |name: &str| env.iter().find(|v| v["name"] == name).expect(name).clone();
    assert_eq!(value("KUBERNETES_SERVICE_HOST")["value"], "10.96.0.50");
    assert_eq!(value("KUBERNETES_PORT_443_TCP")["value"], "tcp://10.96.0.50:443");
    assert_eq!(env.iter().filter(|v| v["name"].as_str().is_some_and(|n| n.starts_with("KUBERNETES_"))).count(), 8);
    assert_eq!(value("WEB_SERVICE_HOST")["value"], "mine");
    assert_eq!(value("WEB_PORT_80_TCP")["value"], "tcp://10.96.7.7:80");
    assert_eq!(value("WEB_SERVICE_PORT_HTTP")["value"], "80");
    assert_eq!(value("NAME")["valueFrom"]["fieldRef"]["fieldPath"], "metadata.annotations['portico.dev/object-name']");
    assert_eq!(value("KEY")["valueFrom"]["secretKeyRef"]["name"], "creds-x-default-x-vc1");
    assert_eq!(spec["containers"][0]["envFrom"][0]["configMapRef"]["name"], "settings-x-default-x-vc1");
    assert_eq!(spec["imagePullSecrets"][0]["name"], "pull-x-default-x-vc1");
    assert_eq!(spec["dnsPolicy"], "None");
    assert_eq!(
        spec["dnsConfig"],
        json!({"nameservers": ["10.96.0.51"], "options": [{"name": "ndots", "value": "5"}],
            "searches": ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]})
    );
    assert_eq!(spec["volumes"][1]["persistentVolumeClaim"]["claimName"], "web-scratch-x-default-x-vc1");
    let annotations = &host["metadata"]["annotations"];
    assert_eq!(annotations["portico.dev/labels"], "app=\"web\"");
    assert_eq!(annotations["portico.dev/annotations"], "note=\"n\"");
    assert_eq!(annotations["portico.dev/service-account-name"], "builder");
}

#[test]
fn tokens_come_from_a_secret_of_this_very_pod() {
    let mut world = world();
    world.settle(&PodKind, "default", "web");
    let Some(Action::EnsureTokens { secret, tokens, service_account, pod_uid, .. }) = world.other.first().cloned()
    else {
        panic!("no tokens asked for: {:?}", world.other);
    };
    assert_eq!((service_account.as_str(), pod_uid.as_str()), ("builder", "u1"));
    assert_eq!(
        tokens,
        [pod::TokenSpec { key: "token-0-0".to_owned(), audience: String::new(), expiration_seconds: 3607 }]
    );
    let source = host(&world)["spec"]["volumes"][0]["projected"]["sources"][0].clone();
    assert_eq!(
        source,
        json!({"secret": {"name": secret, "optional": false, "items": [{"key": "token-0-0", "path": "token", "mode": 420}]}})
    );
    let mut again = pod();
    again["metadata"]["uid"] = json!("u2");
    assert_ne!(pod::tokens(&again, None, &world.view).expect("tokens").secret, secret);
}

#[test]
fn policy_is_checked_before_anything_and_explained() {
    let mut world = world();
    world.change_virtual("Pod", "default", "web", |p| p["spec"]["hostNetwork"] = json!(true));
    world.settle(&PodKind, "default", "web");
    assert!(world.host("Pod", HOST).is_none() && world.other.is_empty());
    let (reason, message) = world.explained.first().expect("explained").clone();
    assert_eq!(reason, "SyncDenied");
    assert!(message.contains("spec.hostNetwork") && message.contains("`podSecurity`"), "{message}");
    world.view.policy = GrantedPolicy::at(PodSecurity::Privileged);
    world.settle(&PodKind, "default", "web");
    assert_eq!(host(&world)["spec"]["hostNetwork"], true);
    assert_eq!(host(&world)["spec"]["dnsPolicy"], "ClusterFirst");
}

fn start(world: &mut World) {
    world.settle(&PodKind, "default", "web");
    world.change_host("Pod", HOST, |p| {
        p["spec"]["nodeName"] = json!("node-1");
        p["status"] = json!({
            "phase": "Running", "podIP": "10.1.1.1", "podIPs": [{"ip": "10.1.1.1"}], "hostIP": "192.168.0.1",
            "hostIPs": [{"ip": "192.168.0.1"}], "startTime": "2026-01-01T00:00:00Z", "qosClass": "Guaranteed",
            "observedGeneration": 4,
            "conditions": [{"type": "Ready", "status": "True", "observedGeneration": 4, "lastProbeTime": null}],
            "containerStatuses": [{"name": "c", "ready": true, "image": "nginx:1", "volumeMounts": []},
                {"name": "injected", "ready": true}],
        });
    });
    world.settle(&PodKind, "default", "web");
}

#[test]
fn status_and_node_come_up() {
    let mut world = world();
    start(&mut world);
    let object = object(&world);
    assert_eq!(object["spec"]["nodeName"], "node-1");
    assert_eq!(
        object["status"],
        json!({
            "phase": "Running", "podIP": "10.1.1.1", "podIPs": [{"ip": "10.1.1.1"}], "hostIP": "192.168.0.1",
            "hostIPs": [{"ip": "192.168.0.1"}], "startTime": "2026-01-01T00:00:00Z", "qosClass": "BestEffort",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c", "ready": true, "image": "nginx:1"}],
        })
    );
    world.change_host("Pod", HOST, |p| {
        p["status"]["podIPs"] = json!([{"ip": "10.1.1.2"}]);
        p["status"]["conditions"][0] = json!({"type": "Ready", "status": "False", "reason": "ContainersNotReady"});
    });
    world.settle(&PodKind, "default", "web");
    let status =
        super::super::super::kind::Lookup::virtual_object(&world, "Pod", &key_of(&object)).expect("pod")["status"]
            .clone();
    assert_eq!(status["podIPs"], json!([{"ip": "10.1.1.2"}]));
    assert_eq!(status["conditions"], json!([{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}]));
}

#[test]
fn readiness_gates_of_the_tenant_go_down_and_stay() {
    let mut world = world();
    world.change_virtual("Pod", "default", "web", |p| {
        p["spec"]["readinessGates"] = json!([{"conditionType": "x/gate"}])
    });
    start(&mut world);
    world.change_virtual("Pod", "default", "web", |p| {
        p["status"]["conditions"].as_array_mut().expect("list").push(json!({"type": "x/gate", "status": "True"}));
    });
    world.settle(&PodKind, "default", "web");
    let conditions = host(&world)["status"]["conditions"].clone();
    assert!(conditions.as_array().expect("list").iter().any(|c| c["type"] == "x/gate"));
    assert_eq!(object(&world)["status"]["conditions"].as_array().expect("list").len(), 2);
}

#[test]
fn changes_of_the_tenant_go_down_and_webhooks_are_not_fought() {
    let mut world = world();
    world.view.policy = open_view().policy;
    start(&mut world);
    world.change_host("Pod", HOST, |p| {
        p["spec"]["containers"][0]["image"] = json!("mirror/nginx:1");
        p["metadata"]["labels"]["host.example/x"] = json!("y");
    });
    assert!(writes(&world.plan(&PodKind, "default", "web")).is_empty());
    world.change_virtual("Pod", "default", "web", |p| {
        p["metadata"]["labels"] = json!({"tier": "front"});
        p["spec"]["containers"][0]["image"] = json!("nginx:2");
        p["spec"]["tolerations"] = json!([{"key": "b", "operator": "Exists"}]);
        p["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "2"}});
    });
    world.settle(&PodKind, "default", "web");
    let host = host(&world);
    assert_eq!(host["spec"]["containers"][0]["image"], "nginx:2");
    assert_eq!(host["spec"]["containers"][0]["resources"], json!({"requests": {"cpu": "2"}}));
    assert_eq!(host["spec"]["tolerations"].as_array().expect("list").len(), 2);
    assert_eq!(host["metadata"]["labels"]["tier"], "front");
    assert_eq!(host["metadata"]["labels"]["host.example/x"], "y");
    assert!(host["metadata"]["labels"].get("app").is_none());
    assert_eq!(host["metadata"]["annotations"]["portico.dev/labels"], "tier=\"front\"");
}

/// The policy became tighter, then the tenant asks for another image: what is refused stays out, and nothing waits for it.
#[test]
fn an_image_that_may_not_run_keeps_nothing_else_from_the_host() {
    let mut world = world();
    start(&mut world);
    let bounds = PolicyBounds { images: vec!["registry.example.com/*".to_owned()], ..PolicyBounds::default() };
    world.view.policy = GrantedPolicy::of(bounds, Policy::default());
    world.explained.clear();
    world.change_virtual("Pod", "default", "web", |p| p["metadata"]["labels"]["tier"] = json!("front"));
    world.settle(&PodKind, "default", "web");
    assert_eq!(host(&world)["metadata"]["labels"]["tier"], "front");
    assert!(world.explained.is_empty(), "it runs already: {:?}", world.explained);
    world.change_virtual("Pod", "default", "web", |p| {
        p["spec"]["containers"][0]["image"] = json!("elsewhere.example.com/x");
        p["spec"]["activeDeadlineSeconds"] = json!(600);
        p["metadata"]["labels"]["tier"] = json!("back");
    });
    world.settle(&PodKind, "default", "web");
    let now = host(&world);
    assert_eq!(now["spec"]["containers"][0]["image"], "nginx:1");
    assert_eq!(
        (&now["spec"]["activeDeadlineSeconds"], &now["metadata"]["labels"]["tier"]),
        (&json!(600), &json!("back"))
    );
    assert!(world.explained.iter().any(|(_, m)| m.contains("`images`")), "{:?}", world.explained);
    let again = world.plan(&PodKind, "default", "web").actions;
    assert!(
        !again.iter().any(|action| matches!(action, Action::PatchHost { .. })),
        "nothing is left to write: {again:?}"
    );
    world.view.policy = open_view().policy;
    world.settle(&PodKind, "default", "web");
    assert_eq!(host(&world)["spec"]["containers"][0]["image"], "elsewhere.example.com/x");
}

#[test]
fn ephemeral_containers_go_down_unless_policy_refuses() {
    let mut world = world();
    world.view.translate_images.insert("busybox".to_owned(), "mirror/busybox".to_owned());
    start(&mut world);
    world.change_virtual("Pod", "default", "web", |p| {
        p["spec"]["ephemeralContainers"] = json!([
            {"name": "debug", "image": "busybox"},
            {"name": "root", "image": "busybox", "securityContext": {"privileged": true}},
        ]);
    });
    world.settle(&PodKind, "default", "web");
    let containers = host(&world)["spec"]["ephemeralContainers"].clone();
    assert_eq!(containers.as_array().expect("list").len(), 1);
    assert_eq!(containers[0]["image"], "mirror/busybox");
    assert!(world.explained.iter().any(|(_, m)| m.contains("ephemeralContainers[1]")));
    world.change_virtual("Pod", "default", "web", |p| {
        p["spec"]["ephemeralContainers"].as_array_mut().expect("list").push(json!({"name": "second", "image": "i"}));
    });
    world.settle(&PodKind, "default", "web");
    assert_eq!(host(&world)["spec"]["ephemeralContainers"].as_array().expect("list").len(), 2);
}

#[test]
fn scheduling_gates_are_lifted_on_the_host() {
    let mut world = world();
    world.change_virtual("Pod", "default", "web", |p| p["spec"]["schedulingGates"] = json!([{"name": "a/b"}]));
    world.settle(&PodKind, "default", "web");
    assert_eq!(host(&world)["spec"]["schedulingGates"], json!([{"name": "a/b"}]));
    world.change_virtual("Pod", "default", "web", |p| {
        p["spec"].as_object_mut().expect("spec").remove("schedulingGates");
    });
    let plan = world.step(&PodKind, "default", "web");
    let text = format!("{:?}", plan.actions);
    assert!(text.contains("$patch") && text.contains("a/b"), "{text}");
}

#[test]
fn deletion_in_the_tenant_takes_its_grace() {
    let mut world = world();
    start(&mut world);
    world.change_virtual("Pod", "default", "web", |p| {
        p["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:05Z");
        p["metadata"]["deletionGracePeriodSeconds"] = json!(5);
    });
    let plan = world.step(&PodKind, "default", "web");
    assert!(matches!(plan.actions.as_slice(), [Action::DeleteHost { grace: Some(5), .. }]), "{plan:?}");
    world.settle(&PodKind, "default", "web");
    world.remove_host("Pod", HOST);
    world.settle(&PodKind, "default", "web");
    assert!(world.virtual_one("Pod", "default", "web").is_none());
}

#[test]
fn finalizers_of_the_tenant_do_not_make_a_loop() {
    let mut world = world();
    world.change_virtual("Pod", "default", "web", |p| {
        p["metadata"]["finalizers"] = json!(["batch.kubernetes.io/job-tracking"]);
        p["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:05Z");
        p["metadata"]["deletionGracePeriodSeconds"] = json!(5);
    });
    world.settle(&PodKind, "default", "web");
    assert!(world.virtual_one("Pod", "default", "web").is_some());
}

#[test]
fn eviction_on_the_host_deletes_the_virtual_pod() {
    let mut world = world();
    start(&mut world);
    world.change_host("Pod", HOST, |p| {
        p["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:30Z");
        p["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        p["status"]["conditions"]
            .as_array_mut()
            .expect("list")
            .push(json!({"type": "DisruptionTarget", "status": "True"}));
    });
    let plan = world.step(&PodKind, "default", "web");
    assert!(matches!(
        plan.actions.as_slice(),
        [Action::PatchVirtual { .. }, Action::DeleteVirtual { grace: Some(30), .. }]
    ));
    world.settle(&PodKind, "default", "web");
}

#[test]
fn a_vanished_pod_is_reported_and_never_run_twice() {
    let mut world = world();
    start(&mut world);
    world.remove_host("Pod", HOST);
    world.settle(&PodKind, "default", "web");
    assert!(world.host("Pod", HOST).is_none());
    assert_eq!(object(&world)["status"]["phase"], "Failed");
    assert_eq!(object(&world)["status"]["reason"], "HostPodGone");
}

#[test]
fn a_namesake_waits_for_the_old_host_pod() {
    let mut world = world();
    start(&mut world);
    let mut again = pod();
    again["metadata"]["uid"] = json!("u2");
    world.put_virtual("Pod", again);
    world.settle(&PodKind, "default", "web");
    assert_eq!(identity::recorded_uid(&host(&world)), "u1");
    // The node never answers: after the grace period the old one goes by force.
    world.now = json::unix("2027-01-15T08:02:00Z").expect("valid");
    world.settle(&PodKind, "default", "web");
    assert_eq!(identity::recorded_uid(&host(&world)), "u2");
    world.remove_virtual("Pod", "default", "web");
    world.settle(&PodKind, "default", "web");
    assert!(world.host("Pod", HOST).is_none());
}

#[test]
fn hostile_input_never_panics() {
    hostile_plans(&PodKind, &pod());
}
