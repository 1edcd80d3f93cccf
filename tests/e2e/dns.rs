//! Names as a pod of a tenant resolves them.

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use serde_json::json;

use crate::harness::{AGNHOST, Dump, SYSTEM, Space, alpha, beta, eventually, restarts};

/// Addresses that a pod gets for a name, in order.
fn lookup(space: &Space, name: &str) -> Result<Vec<String>, String> {
    let line = format!("nslookup -type=a {name} 2>&1 | sed -n '/^Name:/,$p' | sed -n 's/^Address[ 0-9]*: *//p'");
    let found: Vec<String> = space.sh("box", &line).result()?.lines().map(|l| l.trim().to_owned()).collect();
    if found.is_empty() { Err(space.sh("box", &format!("nslookup {name}")).to_string()) } else { Ok(found) }
}

fn service_ip(space: &Space, name: &str) -> String {
    space.kubectl(&["get", "service", name, "-o", "jsonpath={.spec.clusterIP}"]).ok()
}

#[test]
fn services_by_short_and_long_names() {
    let space = alpha().space("names");
    let _dump = Dump(vec![alpha()]);
    space.kubectl(&["create", "service", "clusterip", "web", "--tcp=80:8080"]).ok();
    space.pod("box");
    let address = service_ip(&space, "web");
    // wget asks the resolver of the C library's kind, with the search path of the pod.
    let resolv = space.sh("box", "cat /etc/resolv.conf").ok();
    assert!(
        resolv.contains(&format!("search {}.svc.cluster.local svc.cluster.local cluster.local", space.name)),
        "{resolv}"
    );
    let full = format!("web.{}.svc.cluster.local", space.name);
    eventually("the Service's name", || match lookup(&space, &full)? {
        found if found == [address.clone()] => Ok(()),
        found => Err(format!("{found:?} instead of {address}")),
    });
    let kubernetes = lookup(&space, "kubernetes.default.svc.cluster.local").expect("the API server");
    let inside =
        alpha().kubectl(&["-n", "default", "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"]).ok();
    assert_eq!(kubernetes, [inside]);
}

#[test]
fn stateful_pods_have_names_of_their_own() {
    let space = alpha().space("stateful");
    let _dump = Dump(vec![alpha()]);
    space.apply(
        &json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"},
                "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"name": "http", "port": 8080}]}},
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
                "serviceName": "db", "replicas": 2, "podManagementPolicy": "Parallel", "selector": {"matchLabels": {"app": "db"}},
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
                    {"name": "main", "image": AGNHOST, "args": ["netexec", "--http-port=8080"]}]}}}}]})
        .to_string(),
    );
    space.pod("box");
    space.kubectl(&["rollout", "status", "statefulset/db", "--timeout=90s"]).ok();
    for pod in ["db-0", "db-1"] {
        let ip = space.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"]).ok();
        let name = format!("{pod}.db.{}.svc.cluster.local", space.name);
        eventually(&name, || match lookup(&space, &name)? {
            found if found == [ip.clone()] => Ok(()),
            found => Err(format!("{found:?} instead of {ip}")),
        });
        let said = space.sh("box", &format!("/bin/wget -q -O - -T 5 http://{pod}.db:8080/hostname")).ok();
        assert_eq!(said, pod);
        assert_eq!(space.sh(pod, "hostname").ok().trim(), pod);
    }
    let all = lookup(&space, &format!("db.{}.svc.cluster.local", space.name)).expect("the headless Service");
    assert_eq!(all.len(), 2, "{all:?}");
}

#[test]
fn hostile_names_of_another_tenant_do_not_exist() {
    let (mine, theirs) = (alpha().space("hidden"), beta().space("hidden"));
    let _dump = Dump(vec![alpha(), beta()]);
    mine.kubectl(&["create", "service", "clusterip", "treasure", "--tcp=80"]).ok();
    theirs.kubectl(&["create", "service", "clusterip", "own", "--tcp=80"]).ok();
    theirs.pod("box");
    mine.pod("box");
    let (own, treasure) = (service_ip(&theirs, "own"), service_ip(&mine, "treasure"));
    let name = |service: &str| format!("{service}.{}.svc.cluster.local", mine.name);
    eventually("one's own name", || match lookup(&theirs, &name("own"))? {
        found if found == [own.clone()] => Ok(()),
        found => Err(format!("{found:?}")),
    });
    eventually("the owner's name", || match lookup(&mine, &name("treasure"))? {
        found if found == [treasure.clone()] => Ok(()),
        found => Err(format!("{found:?}")),
    });
    assert!(lookup(&theirs, &name("treasure")).is_err());
    assert!(lookup(&theirs, &format!("{}.e2e-a.svc.cluster.local", mine.host_name("treasure"))).is_err());
}

/// How often Portico was started again, wherever it serves these tenants.
fn portico_restarts() -> u64 {
    let beside = [alpha(), beta()].map(|tenant| restarts(&tenant.namespace, &format!("app={}", tenant.name)));
    restarts(SYSTEM, "portico.dev/component=portico") + beside.iter().sum::<u64>()
}

/// Asks the pod's resolver over TCP, as a pod without any DNS client can; bytes of the answer.
fn ask_over_tcp(space: &Space, name: &str, kind: RecordType) -> Result<usize, String> {
    let mut query = Message::new(77, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.queries = vec![Query::query(Name::from_ascii(name).expect("a name"), kind)];
    let bytes = query.to_vec().expect("a query");
    let framed = [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
    let octal: String = framed.iter().map(|b| format!("\\{b:03o}")).collect();
    let resolver = "$(sed -n 's/^nameserver //p' /etc/resolv.conf | head -n 1)";
    let line = format!("printf '{octal}' | nc -w 10 {resolver} 53 | wc -c");
    let count = space.sh("box", &line).result()?;
    count.trim().parse().map_err(|e| format!("{count:?}: {e}"))
}

/// An EndpointSlice of 280 KB that one question multiplied to five million records, which ended the process.
#[test]
fn hostile_slices_of_many_endpoints_and_ports_end_no_process() {
    let (mine, theirs) = (alpha().space("calm"), beta().space("slices"));
    let _dump = Dump(vec![alpha(), beta()]);
    mine.kubectl(&["create", "service", "clusterip", "web", "--tcp=80"]).ok();
    mine.pod("box");
    theirs.pod("box");
    let before = portico_restarts();
    let endpoints: Vec<_> =
        (0..1000).map(|i| json!({"addresses": [format!("10.9.{}.{}", i / 250, 1 + i % 250)]})).collect();
    let ports: Vec<_> = (1..=5000).map(|i| json!({"name": format!("p{i}"), "port": i, "protocol": "TCP"})).collect();
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "many"},
            "spec": {"clusterIP": "None", "ports": [{"name": "p1", "port": 1}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "many-1", "labels": {"kubernetes.io/service-name": "many"}},
            "endpoints": endpoints, "ports": ports}]});
    // Not applied: the annotation of that would be larger than annotations may be.
    theirs.invocation(&["create", "-f", "-"]).stdin(objects.to_string().as_bytes()).run().ok();

    let many = format!("many.{}.svc.cluster.local.", theirs.name);
    // Both replicas serve every tenant, and each learns of the slice by itself: one is asked, whichever it is, several times.
    for _ in 0..8 {
        eventually("an answer as large as answers are", || match ask_over_tcp(&theirs, &many, RecordType::SRV)? {
            bytes if (60_000..=65_537).contains(&bytes) => Ok(()),
            bytes => Err(format!("{bytes} bytes")),
        });
    }
    let (name, address) = (format!("web.{}.svc.cluster.local", mine.name), service_ip(&mine, "web"));
    assert_eq!(lookup(&mine, &name).expect("the other tenant's name"), [address]);
    assert_eq!(portico_restarts(), before, "Portico was started again");
}
