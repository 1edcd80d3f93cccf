//! Tests of `ingress`.

use super::super::testing::{World, hostile_plans};
use super::*;
use crate::config::PolicyBounds;
use crate::crd::policy::{GrantedPolicy, Policy};

const HOST: &str = "web-x-default-x-vc1";

fn object(annotations: &Value) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1", "annotations": annotations},
        "spec": {"ingressClassName": "nginx", "tls": [{"hosts": ["a"], "secretName": "cert"}],
            "rules": [{"host": "a", "http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]},
    })
}

#[test]
fn names_are_mapped_and_the_address_comes_up() {
    let mut world = World::open();
    world.put_virtual("Ingress", object(&json!({"nginx.ingress.kubernetes.io/auth-secret": "users"})));
    let plan = world.plan(&IngressKind, "default", "web");
    assert_eq!(plan.requires.iter().map(|r| r.key.name.as_str()).collect::<Vec<_>>(), ["cert", "users"]);
    world.settle(&IngressKind, "default", "web");
    let host = world.host("Ingress", HOST).expect("made");
    assert_eq!(host["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"], "web-x-default-x-vc1");
    assert_eq!(host["spec"]["tls"][0]["secretName"], "cert-x-default-x-vc1");
    assert_eq!(
        host["metadata"]["annotations"]["nginx.ingress.kubernetes.io/auth-secret"],
        "team-a/users-x-default-x-vc1"
    );
    world.change_host("Ingress", HOST, |i| i["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}));
    world.settle(&IngressKind, "default", "web");
    let virtual_object = world.virtual_one("Ingress", "default", "web").expect("kept");
    assert_eq!(virtual_object["status"]["loadBalancer"]["ingress"], json!([{"ip": "192.0.2.1"}]));
}

#[test]
fn injections_are_refused_whole() {
    for (key, value) in [
        ("nginx.ingress.kubernetes.io/configuration-snippet", "return 200;"),
        ("nginx.ingress.kubernetes.io/server-snippet", "x"),
        ("nginx.org/location-snippets", "x"),
        ("nginx.ingress.kubernetes.io/auth-url", "http://a/#;}"),
        ("nginx.ingress.kubernetes.io/auth-tls-match-cn", "CN=x"),
        ("nginx.ingress.kubernetes.io/mirror-target", "x"),
        ("nginx.ingress.kubernetes.io/rewrite-target", "/;}\nserver {"),
        ("nginx.ingress.kubernetes.io/auth-tls-secret", "kube-system/ca"),
    ] {
        let mut world = World::open();
        world.put_virtual("Ingress", object(&json!({})));
        world.settle(&IngressKind, "default", "web");
        assert!(world.host("Ingress", HOST).is_some());
        world.put_virtual("Ingress", object(&json!({key: value})));
        world.settle(&IngressKind, "default", "web");
        assert!(world.host("Ingress", HOST).is_none(), "{key}");
        assert!(world.explained.iter().any(|(_, m)| m.contains(key)), "{key}");
    }
}

/// Findings S7 and S8: what any ingress controller, certificate or DNS controller of the host would act on.
#[test]
fn only_listed_annotations_mean_something_on_the_host() {
    let domains = PolicyBounds { ingress_domains: vec!["*".to_owned()], ..PolicyBounds::default() };
    for key in [
        "haproxy-ingress.github.io/config-backend",
        "alb.ingress.kubernetes.io/group.name",
        "traefik.ingress.kubernetes.io/router.middlewares",
        "konghq.com/plugins",
        "getambassador.io/config",
        "nginx.ingress.kubernetes.io/server-alias",
        "nginx.ingress.kubernetes.io/canary",
        "nginx.ingress.kubernetes.io/ssl-passthrough",
        "nginx.ingress.kubernetes.io/default-backend",
        "example.com/unheard-of",
    ] {
        let mut world = World::new();
        world.view.policy = GrantedPolicy::of(domains.clone(), Policy::default());
        world.put_virtual("Ingress", object(&json!({key: "x"})));
        world.settle(&IngressKind, "default", "web");
        assert!(world.host("Ingress", HOST).is_none(), "{key}");
        assert!(world.explained.iter().any(|(_, m)| m.contains(key) && m.contains("ingressAnnotations")), "{key}");
    }
    let mut world = World::new();
    world.view.policy = GrantedPolicy::of(domains, Policy::default());
    world.put_virtual("Ingress", object(&json!({"cert-manager.io/cluster-issuer": "corp", "note": "n"})));
    world.settle(&IngressKind, "default", "web");
    let annotations = world.host("Ingress", HOST).expect("made")["metadata"]["annotations"].clone();
    assert!(annotations.get("cert-manager.io/cluster-issuer").is_none(), "it mints a certificate");
    assert_eq!(annotations["cert-manager.io.tenant.portico.dev/cluster-issuer"], "corp");
    assert!(world.explained.iter().any(|(reason, m)| reason == "SyncLimited" && m.contains("cert-manager.io")));
}

#[test]
fn hosts_and_classes_are_the_tenants_own() {
    let bounds = PolicyBounds {
        ingress_domains: vec!["*.team-a.example.com".to_owned()],
        ingress_classes: vec!["nginx".to_owned()],
        ..PolicyBounds::default()
    };
    let own = |host: &str| {
        let mut ingress = object(&json!({}));
        ingress["spec"]["rules"][0]["host"] = json!(host);
        ingress["spec"]["tls"][0]["hosts"] = json!([host]);
        ingress
    };
    let mut cases = vec![(own("web.team-a.example.com"), true), (own("team-b.example.com"), false), (own(""), false)];
    let mut foreign_tls = own("web.team-a.example.com");
    foreign_tls["spec"]["tls"][0]["hosts"] = json!(["bank.example.com"]);
    let mut for_all = own("web.team-a.example.com");
    for_all["spec"]["defaultBackend"] = json!({"service": {"name": "web", "port": {"number": 80}}});
    let mut other_class = own("web.team-a.example.com");
    other_class["spec"]["ingressClassName"] = json!("internal");
    let mut old_class = own("web.team-a.example.com");
    old_class["spec"]["ingressClassName"] = Value::Null;
    old_class["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "internal"});
    cases.extend([(foreign_tls, false), (for_all, false), (other_class, false), (old_class, false)]);
    for (ingress, is_made) in cases {
        let mut world = World::new();
        world.view.policy = GrantedPolicy::of(bounds.clone(), Policy::default());
        world.put_virtual("Ingress", ingress.clone());
        world.settle(&IngressKind, "default", "web");
        assert_eq!(world.host("Ingress", HOST).is_some(), is_made, "{ingress}");
        assert_eq!(world.explained.iter().any(|(reason, _)| reason == "SyncDenied"), !is_made, "{ingress}");
    }
    let mut world = World::new();
    world.put_virtual("Ingress", own("web.team-a.example.com"));
    world.settle(&IngressKind, "default", "web");
    assert!(world.host("Ingress", HOST).is_none(), "by default there are no domains");
}

#[test]
fn hostile_input_never_panics() {
    hostile_plans(&IngressKind, &object(&json!({"nginx.ingress.kubernetes.io/auth-secret": "users"})));
}
