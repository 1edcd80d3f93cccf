use http::Method;
use proptest::prelude::*;

use super::*;

fn parse(method: &str, target: &str) -> RequestInfo {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    RequestInfo::parse(&method.parse().expect("method"), path, query).expect(target)
}

fn short(method: &str, target: &str) -> (String, String, String, String) {
    let info = parse(method, target);
    (info.verb.to_owned(), info.namespace.clone(), info.resource_path(), info.name)
}

#[test]
fn reads_requests_as_the_api_server_does() {
    let table = [
        ("GET", "/api/v1/namespaces", "list", "", "namespaces", ""),
        ("GET", "/api/v1/namespaces/a", "get", "a", "namespaces", "a"),
        ("PUT", "/api/v1/namespaces/a/finalize", "update", "a", "namespaces/finalize", "a"),
        ("PATCH", "/api/v1/namespaces/a/status", "patch", "a", "namespaces/status", "a"),
        ("GET", "/api/v1/namespaces/a/pods?watch", "watch", "a", "pods", ""),
        ("GET", "/api/v1/namespaces/a/pods?watch=", "watch", "a", "pods", ""),
        ("GET", "/api/v1/namespaces/a/pods?watch=0", "list", "a", "pods", ""),
        ("GET", "/api/v1/namespaces/a/pods?watch=False&watch=1", "list", "a", "pods", ""),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx", "list", "", "pods", "x"),
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dx", "list", "", "pods", ""),
        ("DELETE", "/api/v1/namespaces/a/pods", "deletecollection", "a", "pods", ""),
        ("DELETE", "/api/v1/namespaces/a/pods/x", "delete", "a", "pods", "x"),
        ("GET", "/api/v1/watch/namespaces/a/pods/x", "watch", "a", "pods", "x"),
        ("GET", "/api/v1/namespaces/a/pods/x/exec", "get", "a", "pods/exec", "x"),
        ("POST", "/api/v1/namespaces/a/pods/x/exec", "create", "a", "pods/exec", "x"),
        ("HEAD", "/api/v1/namespaces/a/pods/x/log", "get", "a", "pods/log", "x"),
        ("PUT", "/api/v1/namespaces/a/services/https:s:443/proxy/b/c", "update", "a", "services/proxy", "https:s:443"),
        ("GET", "/api/v1/nodes/n1/proxy/stats/summary", "get", "", "nodes/proxy", "n1"),
        ("GET", "/api/v1/namespaces//pods", "list", "", "pods", ""),
        ("GET", "/apis/apps/v1/namespaces/a/deployments/d/scale", "get", "a", "deployments/scale", "d"),
        ("GET", "/api/v1/namespaces/a%2Fpods", "list", "a", "pods", ""),
    ];
    for (method, target, verb, namespace, resource, name) in table {
        let expected = (verb.to_owned(), namespace.to_owned(), resource.to_owned(), name.to_owned());
        assert_eq!(short(method, target), expected, "{method} {target}");
    }
    assert_eq!(parse("OPTIONS", "/api/v1/namespaces/a/pods").verb, "");
}

#[test]
fn discovery_and_health_are_no_resources() {
    for target in [
        "/",
        "/api",
        "/api/",
        "/api/v1",
        "/api/v1/",
        "/apis",
        "/apis/apps",
        "/apis/apps/v1",
        "/version",
        "/readyz/ping",
    ] {
        let info = parse("GET", target);
        assert!(!info.is_resource, "{target}");
        assert_eq!(info.verb, "get");
        assert!(!info.is_long_running());
    }
}

#[test]
fn long_running_requests() {
    for target in [
        "/api/v1/pods?watch=1",
        "/api/v1/watch/pods",
        "/api/v1/namespaces/a/pods/x/log?follow=1",
        "/api/v1/namespaces/a/pods/x/exec",
        "/api/v1/namespaces/a/services/x/proxy/y",
    ] {
        assert!(parse("GET", target).is_long_running(), "{target}");
    }
    assert!(!parse("GET", "/api/v1/pods").is_long_running());
}

#[test]
fn only_exact_pod_subresources_are_intercepted() {
    let is = |target| parse("GET", target).is_pod_subresource("exec");
    assert!(is("/api/v1/namespaces/a/pods/x/exec"));
    assert!(is("/api/v1/namespaces/a/pods/x/exec/"));
    assert!(!is("/api/v1/namespaces/a/pods/x/exec/more"));
    assert!(!is("/api/v1/pods/x/exec"));
    assert!(!is("/api/v1/namespaces/a/pods//exec"));
    assert!(!is("/apis/x/v1/namespaces/a/pods/x/exec"));
    assert!(!is("/api/v1/proxy/namespaces/a/pods/x/exec"));
    assert!(!is("/api/v1/watch/namespaces/a/pods/x/exec"));
    assert!(!is("/api/v2/namespaces/a/pods/x/exec"));
}

#[test]
fn hostile_paths_are_refused() {
    let read = |path: &str| RequestInfo::parse(&Method::GET, path, None);
    for path in ["/api/v1/namespaces/a/../b", "/api/%2e%2e/v1-k3s", "/api/v1/%2E", "/api%2F..%2Fv1-k3s", "/api/./v1"] {
        assert_eq!(read(path), Err(BadRequest::Dots), "{path}");
    }
    for path in ["/api/v1/pods%00", "/api/v1/pods%0a", "/api/v1\\pods"] {
        assert_eq!(read(path), Err(BadRequest::Character), "{path}");
    }
    for path in ["/api/%zz", "/api/%", "/api/%f", "/api/%ff"] {
        assert_eq!(read(path), Err(BadRequest::Encoding), "{path}");
    }
    assert_eq!(read("api/v1"), Err(BadRequest::Relative));
    assert_eq!(read("/api/v1/watch"), Err(BadRequest::Incomplete));
}

#[test]
fn only_plain_roots_are_served() {
    for path in ["/", "/api", "/api/v1/pods", "/apis/", "/openid/v1/jwks", "/version", "/livez/etcd"] {
        assert!(is_served_root(path), "{path}");
    }
    for path in [
        "",
        "//api",
        "/apix",
        "/%61pi/v1",
        "/api;x/v1",
        "/v1-k3s/token",
        "/cacerts",
        "/db/info",
        "/static/x",
        "/API",
        "/logs",
        "/debug/pprof/",
        "/openid",
        "/openid/v1",
        "/.well-known/acme",
        "/clusters/a/b",
        "/ping",
    ] {
        assert!(!is_served_root(path), "{path}");
    }
}

#[test]
fn prefixes() {
    let split = |path| PathPrefix::split(path).map(|p| (p.tenant, p.rest));
    assert_eq!(split("/clusters/a/b/api/v1"), Some((Some(("a", "b")), "/api/v1")));
    assert_eq!(split("/clusters/a/b"), Some((Some(("a", "b")), "/")));
    assert_eq!(split("/clusters/a/b/"), Some((Some(("a", "b")), "/")));
    assert_eq!(split("/clusters/a/b//api"), Some((Some(("a", "b")), "//api")));
    assert_eq!(split("/api/clusters/a/b"), Some((None, "/api/clusters/a/b")));
    assert_eq!(split("/clustersx/a/b"), Some((None, "/clustersx/a/b")));
    for path in ["/clusters", "/clusters/", "/clusters/a", "/clusters//b/api", "/clusters/a//api"] {
        assert_eq!(split(path), None, "{path}");
    }
}

proptest! {
    #[test]
    fn object_paths_round_trip(
        namespace in "[a-z0-9]{1,10}", name in "[a-zA-Z0-9:._ ~+;%-]{1,20}", sub in "(status|exec|scale|log)",
    ) {
        prop_assume!(name != "." && name != "..");
        let encoded = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC).to_string();
        let path = format!("/api/v1/namespaces/{namespace}/pods/{encoded}/{sub}");
        let info = RequestInfo::parse(&Method::GET, &path, None).expect("valid");
        prop_assert_eq!((info.namespace, info.name, info.subresource), (namespace, name, sub));
        prop_assert!(info.is_exact);
    }

    #[test]
    fn a_prefix_and_its_rest_make_the_whole(namespace in "[^/]{1,12}", name in "[^/]{1,12}", rest in "(/[^/]{0,5}){1,4}") {
        let raw = format!("/clusters/{namespace}/{name}{rest}");
        let prefix = PathPrefix::split(&raw).expect("complete");
        prop_assert_eq!(prefix.tenant, Some((namespace.as_str(), name.as_str())));
        prop_assert_eq!(prefix.rest, rest);
    }

    #[test]
    fn no_input_panics_and_nothing_undecoded_passes(path in "(/|[.%2efF0]|[a-z]){0,40}", query in ".{0,30}") {
        if let Ok(info) = RequestInfo::parse(&Method::GET, &path, Some(&query)) {
            prop_assert!(info.name != ".." && info.namespace != "..");
        }
        let _ = is_served_root(&path);
        let _ = PathPrefix::split(&path);
    }
}
