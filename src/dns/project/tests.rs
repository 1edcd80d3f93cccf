//! What is read of an object, and what is not.

use super::*;
use serde_json::json;

const SERVICE_LABEL: &str = "kubernetes.io/service-name";

#[test]
fn services() {
    let read = |spec: serde_json::Value| {
        let object = json!({"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"shop",
            "resourceVersion":"7","labels":{"a":"b"}},"spec":spec,"status":{"loadBalancer":{}}});
        service(object.to_string().as_bytes()).expect("read")
    };
    let web = read(json!({"clusterIP":"10.96.0.9","clusterIPs":["10.96.0.9","fd00::9"],
        "ports":[{"name":"http","port":80,"targetPort":"x"},{"port":81},{"name":"dns","protocol":"UDP","port":53}]}));
    assert_eq!((&*web.namespace, &*web.name, &*web.version), ("shop", "web", "7"));
    let ips = ["10.96.0.9", "fd00::9"].map(|ip| ip.parse().expect("ip")).to_vec();
    assert_eq!(web.value.target, Target::ClusterIps(ips));
    let ports: Vec<_> = web.value.ports.all().iter().map(|p| (&*p.name, p.protocol, p.port)).collect();
    assert_eq!(ports, [("http", "tcp", 80), ("dns", "udp", 53)]);
    assert_eq!(read(json!({"clusterIP":"None","clusterIPs":["None"]})).value.target, Target::Headless);
    assert_eq!(read(json!({})).value.target, Target::ClusterIps(vec![]));
    let external = read(json!({"type":"ExternalName","externalName":"db.example.com"}));
    assert_eq!(external.value.target, Target::External("db.example.com".into()));
}

#[test]
fn slices() {
    let object = json!({"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4",
        "metadata":{"name":"db-abc","namespace":"shop","labels":{SERVICE_LABEL:"db"}},
        "endpoints":[{"addresses":["10.0.0.1"],"hostname":"db-0","conditions":{"ready":true}},
            {"addresses":["10.0.0.2"],"conditions":{"ready":false}},{"addresses":["a.example"]},{"addresses":[]}],
        "ports":[{"name":"sql","port":5432,"protocol":"TCP"},{"name":"any","port":null}]});
    let read = slice(object.to_string().as_bytes()).expect("read").value;
    assert_eq!(&*read.service, "db");
    assert_eq!(read.endpoints.len(), 2);
    assert_eq!(read.endpoints[0].hostname.as_deref(), Some("db-0"));
    assert!(!read.endpoints[1].ready);
    assert_eq!(read.ports.all().len(), 1);
    let empty = json!({"metadata":{"name":"x","namespace":"y"},"endpoints":null,"ports":null});
    assert!(slice(empty.to_string().as_bytes()).expect("read").value.endpoints.is_empty());
}

#[test]
fn what_is_beyond_a_bound_is_not_kept_and_that_is_said() {
    let endpoints: Vec<_> = (0..1200).map(|i| json!({"addresses":[format!("10.9.{}.{}", i / 250, i % 250)]})).collect();
    let ports: Vec<_> = (0..5000).map(|i| json!({"name":format!("p{i}"),"port":i,"protocol":"TCP"})).collect();
    let object = json!({"metadata":{"name":"big","namespace":"shop","labels":{SERVICE_LABEL:"db"}},
        "endpoints":endpoints,"ports":ports});
    let read = slice(object.to_string().as_bytes()).expect("read");
    let kept = (read.value.endpoints.len(), read.value.ports.all().len(), read.is_cut);
    assert_eq!(kept, (MAX_ENDPOINTS, MAX_PORTS, true));
    let object = json!({"metadata":{"name":"big","namespace":"shop"},"spec":{"clusterIP":"10.96.0.9","ports":ports,
        "clusterIPs":["10.96.0.9","fd00::9","10.96.0.10"]}});
    let read = service(object.to_string().as_bytes()).expect("read");
    assert_eq!((read.value.ports.all().len(), read.is_cut), (MAX_PORTS, true));
    assert!(matches!(read.value.target, Target::ClusterIps(ips) if ips.len() == 2));
}

#[test]
fn names_that_dns_cannot_have_are_left_out() {
    let long = "x".repeat(64);
    let object = json!({"metadata":{"name":"s","namespace":"shop","labels":{SERVICE_LABEL:"db"},
        "resourceVersion":"9".repeat(65)},"endpoints":[{"addresses":["10.0.0.1"],"hostname":long}],
        "ports":[{"name":long,"port":1},{"name":"a","port":2},{"name":"A","port":3},{"name":"a","port":4,"protocol":"UDP"}]});
    let read = slice(object.to_string().as_bytes()).expect("read");
    assert!(read.is_cut && read.is_nameable() && read.version.is_empty());
    assert_eq!(read.value.endpoints[0].hostname, None);
    let ports: Vec<_> = read.value.ports.all().iter().map(|p| (&*p.name, p.protocol, p.port)).collect();
    assert_eq!(ports, [("a", "tcp", 2), ("a", "udp", 4)]);
    for (namespace, name) in [("shop", "y".repeat(254)), (&*long, "s".to_owned()), ("", "s".to_owned())] {
        let object = json!({"metadata":{"name":name,"namespace":namespace}});
        assert!(!service(object.to_string().as_bytes()).expect("read").is_nameable());
    }
    let external = json!({"metadata":{"name":"s","namespace":"shop"},
        "spec":{"type":"ExternalName","externalName":"a.".repeat(128)}});
    let read = service(external.to_string().as_bytes()).expect("read");
    assert!(read.is_cut && read.value.target == Target::ClusterIps(vec![]));
}
