//! What a tenant chose is never multiplied by what else it chose: the host pod grows with the virtual pod alone, whatever
//! the number of its Namespaces and Services; beyond the bounds nothing is made, and the pod's user is told why.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::testing::World;
use super::*;
use crate::translate::testing::{hostile, poisoned};

const HOST: &str = "web-x-default-x-vc1";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn pod(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c", "image": "nginx:1"}]);
    }
    json!({"metadata": {"name": "web", "namespace": "default", "uid": "u1", "labels": {"app": "web"}}, "spec": spec,
        "status": {"phase": "Pending"}})
}

/// A world with so many Namespaces of `team: b` and so many Services in the pod's namespace.
fn world(spec: &Value, namespaces: usize, services: usize) -> World {
    let mut world = World::new();
    world.put_virtual("Pod", pod(spec));
    for n in 0..namespaces {
        let labels = json!({"team": "b", "number": n.to_string()});
        world.put_virtual("Namespace", json!({"metadata": {"name": format!("namespace-{n}"), "labels": labels}}));
    }
    for n in 0..services {
        world.put_virtual("Service", service(n));
    }
    world
}

fn service(n: usize) -> Value {
    json!({"metadata": {"name": format!("service-{n:05}"), "namespace": "default"},
        "spec": {"clusterIP": "10.96.7.7", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}})
}

fn term(selector: &Value) -> Value {
    json!({"topologyKey": "t", "labelSelector": {"matchLabels": {"app": "web"}}, "namespaceSelector": selector})
}

fn many(number: usize, one: impl Fn(usize) -> Value) -> Value {
    (0..number).map(one).collect()
}

fn size(value: &Value) -> usize {
    value.to_string().len()
}

/// The one message that refuses the pod; nothing else may have been planned.
fn refusal(world: &mut World) -> String {
    let plan = world.step(&PodKind, "default", "web");
    assert!(plan.requires.is_empty() && world.other.is_empty());
    assert!(world.host("Pod", HOST).is_none(), "{} bytes were made", size(&world.host("Pod", HOST).expect("made")));
    let object = world.virtual_one("Pod", "default", "web").expect("kept");
    assert!(PodKind.references(&object).is_empty(), "what a refused pod names stays in the tenant");
    let [(reason, message)] = world.explained.as_slice() else { panic!("one event: {:?}", world.explained) };
    assert_eq!(reason, "SyncDenied");
    assert!(message.len() < 1000, "{message}");
    message.clone()
}

fn host(world: &mut World) -> Value {
    world.settle(&PodKind, "default", "web");
    let told = world.explained.clone();
    world.host("Pod", HOST).unwrap_or_else(|| panic!("made; {told:?}"))
}

#[test]
fn terms_times_namespaces_is_refused_before_it_is_written() {
    let terms = many(300, |n| {
        term(&json!({"matchLabels": {"team": "b"}, "matchExpressions": [
        {"key": "number", "operator": "NotIn", "values": [n.to_string()]}]}))
    });
    let mut world = world(&json!({"affinity": {"podAntiAffinity": {REQUIRED: terms}}}), 300, 0);
    let message = refusal(&mut world);
    assert!(message.contains("spec.affinity") && message.contains("300") && message.contains("100"), "{message}");
}

#[test]
fn few_terms_over_many_namespaces_are_refused_by_what_would_be_written() {
    let terms = many(60, |_| json!({"weight": 1, "podAffinityTerm": term(&json!({"matchLabels": {"team": "b"}}))}));
    let mut world = world(&json!({"affinity": {"podAffinity": {PREFERRED: terms}}}), 300, 0);
    let message = refusal(&mut world);
    assert!(message.contains("namespaceSelector") && message.contains("namespaceSelector: {}"), "{message}");
}

#[test]
fn all_namespaces_need_no_list() {
    let all = |n: usize| {
        term(&if n.is_multiple_of(2) { json!({}) } else { json!({"matchLabels": {}, "matchExpressions": []}) })
    };
    let spec = json!({"affinity": {"podAntiAffinity": {REQUIRED: many(100, all)}}});
    let few = size(&host(&mut world(&spec, 1, 0)));
    assert_eq!(size(&host(&mut world(&spec, 1000, 0))), few, "whatever the number of namespaces");
}

#[test]
fn spread_constraints_count_as_terms() {
    let constraint = |_| json!({"topologyKey": "t", "labelSelector": {"matchLabels": {"app": "web"}}});
    let mut world = world(&json!({"topologySpreadConstraints": many(101, constraint)}), 1, 0);
    assert!(refusal(&mut world).contains("topologySpreadConstraints"));
}

#[test]
fn service_links_are_cut_and_the_user_is_told() {
    let containers = many(50, |n| json!({"name": format!("c{n}"), "image": "nginx:1"}));
    let mut world = world(&json!({"containers": containers}), 0, 1000);
    let made = host(&mut world);
    assert!(size(&made) < 1280 * 1024, "{}", size(&made));
    for container in json::items(&made, "/spec/containers") {
        let names = || json::items(container, "/env").iter().map(|v| json::text(v, "/name"));
        assert_eq!(names().filter(|n| n.starts_with("KUBERNETES_")).count(), 8);
        assert!(names().any(|n| n == "SERVICE_00000_PORT_80_TCP_PROTO"), "the first by name are whole");
    }
    let told = |w: &World| w.explained.iter().any(|(r, m)| r == "SyncLimited" && m.contains("enableServiceLinks"));
    assert!(told(&world), "{:?}", world.explained);
    let mut ordinary = self::world(&json!({}), 0, 500);
    let made = host(&mut ordinary);
    assert_eq!(json::items(&made, "/spec/containers/0/env").len(), 8 + 500 * 8, "as a kubelet of the tenant would");
    assert!(!told(&ordinary));
}

#[test]
fn what_a_pod_names_is_counted() {
    let env = many(
        1100,
        |n| json!({"name": format!("V{n}"), "valueFrom": {"configMapKeyRef": {"name": format!("m{n}"), "key": "k"}}}),
    );
    let message = refusal(&mut world(&json!({"containers": [{"name": "c", "env": env}]}), 0, 0));
    assert!(message.contains("1100") && message.contains("ConfigMaps"), "{message}");
    let pulls = many(2000, |_| json!({"name": "a"}));
    refusal(&mut world(&json!({"imagePullSecrets": pulls}), 0, 0));
}

#[test]
fn token_requests_of_one_pod_are_few() {
    let sources = many(33, |n| json!({"serviceAccountToken": {"path": format!("t{n}")}}));
    let message = refusal(&mut world(&json!({"volumes": [{"name": "v", "projected": {"sources": sources}}]}), 0, 0));
    assert!(message.contains("serviceAccountToken") && message.contains("33") && message.contains("32"), "{message}");
}

#[test]
fn containers_are_counted() {
    let containers = many(300, |n| json!({"name": format!("c{n}"), "image": "i"}));
    assert!(refusal(&mut world(&json!({"initContainers": containers}), 0, 0)).contains("301"));
}

#[test]
fn variables_that_double_and_double_are_refused() {
    let mut env = vec![json!({"name": "V0", "value": "0123456789"})];
    env.extend((1..40).map(|n| json!({"name": format!("V{n}"), "value": format!("$(V{m})$(V{m})", m = n - 1)})));
    let message = refusal(&mut world(&json!({"containers": [{"name": "c", "env": env}]}), 0, 0));
    assert!(message.contains("spec.containers[0]") && message.contains("$("), "{message}");
    let spec = json!({"containers": [{"name": "c", "command": ["sh", "-c", "echo $(date) $(URL)"], "env": [
        {"name": "HOST", "value": "db"}, {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "URL", "value": "postgres://user:$(PASSWORD)@$(HOST)"}]}]});
    host(&mut world(&spec, 0, 0));
}

#[test]
fn ephemeral_containers_are_counted_and_each_is_judged_alone() {
    let mut world = world(&json!({}), 0, 500);
    world.settle(&PodKind, "default", "web");
    let debug = |n| json!({"name": format!("debug-{n}"), "image": "busybox"});
    world.change_virtual("Pod", "default", "web", |p| p["spec"]["ephemeralContainers"] = many(300, debug));
    world.settle(&PodKind, "default", "web");
    let made = world.host("Pod", HOST).expect("kept");
    assert!(size(&made) < 2 * 1024 * 1024, "{}", size(&made));
    assert!(json::items(&made, "/spec/ephemeralContainers").len() < 300);
    assert!(world.explained.iter().any(|(_, m)| m.contains("ephemeralContainers")), "{:?}", world.explained);
}

/// Pods that use each thing that could be multiplied, in numbers on both sides of the bounds.
fn any_pod() -> impl Strategy<Value = Value> {
    let containers = (0..300_usize, 0..40_usize, any::<bool>()).prop_map(|(number, fields, links)| {
        let field = |n| json!({"name": format!("F{n}"), "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}});
        let one = |n| if n == 0 { json!({"name": "c", "env": many(fields, field)}) } else { json!({}) };
        json!({"containers": many(number, one), "enableServiceLinks": links})
    });
    let selector = prop_oneof![
        Just(json!({})),
        Just(Value::Null),
        Just(json!({"matchLabels": {"team": "b"}})),
        (0..500_usize).prop_map(
            |n| json!({"matchExpressions": [{"key": "number", "operator": "NotIn", "values": [n.to_string()]}]})
        ),
    ];
    let terms = prop::collection::vec(selector, 0..130).prop_map(|all| {
        let (left, right) = all.split_at(all.len() / 2);
        let required: Value = left.iter().map(term).collect();
        let preferred: Value = right.iter().map(|s| json!({"podAffinityTerm": term(s)})).collect();
        json!({"affinity": {"podAffinity": {REQUIRED: required}, "podAntiAffinity": {PREFERRED: preferred}}})
    });
    let names = (0..1300_usize, 0..40_usize).prop_map(|(pulls, tokens)| {
        let token = |n: usize| json!({"serviceAccountToken": {"path": n.to_string()}});
        let volumes = json!([{"name": "t", "projected": {"sources": many(tokens, token)}}]);
        json!({"imagePullSecrets": many(pulls, |_| json!({"name": "a"})), "volumes": volumes})
    });
    (containers, terms, names, 0..5_u8).prop_map(|(containers, terms, names, which)| {
        let mut spec = json!({});
        for (n, part) in (0..).zip([&containers, &terms, &names]) {
            // Often one at a time: together they are nearly always refused.
            if which == n || which > 2 {
                crate::syncer::kinds::testing::merge(&mut spec, part);
            }
        }
        pod(&spec)
    })
}

#[test]
fn a_host_pod_grows_with_its_virtual_pod_alone() {
    /// Quoting, longer field paths, marks.
    const TIMES: usize = 8;
    /// Service links, namespace names, 1000 longer names, the API's variables in 256 containers, marks of 100 terms.
    const PLUS: usize = (1024 + 64 + 256 + 256 + 32) * 1024;
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let base = world(&json!({}), 400, 900);
    let object = prop_oneof![4 => any_pod(), 1 => poisoned(pod(&json!({}))), 1 => hostile()];
    let made = std::cell::Cell::new(0_u32);
    runner
        .run(&object, |object| {
            let key = ObjectKey { namespace: "default".to_owned(), name: "web".to_owned() };
            let plan = PodKind.plan(&key, Some(&object), None, &base.view, &base);
            let (of_virtual, of_plan) = (size(&object), format!("{:?}", plan.requires).len());
            prop_assert!(of_plan < TIMES * of_virtual + 256 * 1024, "{} bytes of references", of_plan);
            for action in &plan.actions {
                let written = match action {
                    Action::CreateHost { object, .. } => {
                        made.set(made.get() + 1);
                        size(object)
                    }
                    Action::Explain { message, .. } => message.len(),
                    Action::EnsureTokens { tokens, .. } => {
                        prop_assert!(tokens.len() <= bounds::TOKENS);
                        0
                    }
                    _ => 0,
                };
                prop_assert!(written <= TIMES * of_virtual + PLUS, "{} bytes of {}", written, of_virtual);
            }
            Ok(())
        })
        .expect("bounded");
    assert!(made.get() > 5, "most of it was refused");
}
