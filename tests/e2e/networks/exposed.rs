//! From outside only what is meant for it: connections come from a machine beside the cluster, which a network namespace of
//! this one stands for, since what a node sends itself is let through by every plugin; and from pods of the host that the
//! admin names (`tests/e2e/run`), or does not.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::harness::{BUSYBOX, Invocation, Tenant, host_kubeconfig, run_id};

/// A port of the same pods that no Service has.
const OTHER: u16 = 8082;
/// Of network namespaces here; then come the process that made it and a number.
const PREFIX: &str = "portico-e2e-";
/// As `tests/e2e/run` names it.
const CONTROLLERS: &str = "e2e-ingress";

/// A machine beside the cluster, with the node as its router. It goes with the test.
struct Outside {
    name: String,
    /// The node's end of the cable.
    near: String,
}

impl Outside {
    fn new() -> Self {
        remove_abandoned();
        let (process, number) = (std::process::id(), free_network());
        let (router, own) = (router(number), format!("198.51.100.{}/30", 4 * number + 2));
        // Of seven digits and two at most: an interface's name has 15 bytes.
        let outside = Self { name: format!("{PREFIX}{process}-{number}"), near: format!("p{process}n{number}") };
        let far = format!("{}p", outside.near);
        // What a run that was killed left behind, with the same number for its process.
        outside.remove();
        let (name, near) = (outside.name.as_str(), outside.near.as_str());
        ip(&["netns", "add", name]);
        ip(&["link", "add", near, "type", "veth", "peer", "name", &far, "netns", name]);
        ip(&["addr", "add", &router, "dev", near]);
        ip(&["link", "set", near, "up"]);
        ip(&["-n", name, "addr", "add", &own, "dev", &far]);
        ip(&["-n", name, "link", "set", &far, "up"]);
        ip(&["-n", name, "route", "add", "default", "via", router.trim_end_matches("/30")]);
        outside
    }

    /// Whether a TCP connection from here comes to be.
    fn connects(&self, address: &str, port: u16) -> bool {
        let line = format!("exec 3<>/dev/tcp/{address}/{port}");
        let seconds = PATIENCE.to_string();
        let arguments = ["netns", "exec", &self.name, "timeout", &seconds, "bash", "-c", &line];
        Command::new("ip").args(arguments).output().expect("ip runs").status.success()
    }

    fn remove(&self) {
        // By itself it goes when the kernel has time for it.
        let _ = Command::new("ip").args(["link", "del", &self.near]).output();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The node's address on one of the 64 networks of four that 198.51.100.0/24 has.
fn router(number: u32) -> String {
    format!("198.51.100.{}/30", 4 * number + 1)
}

/// One of them that nobody on this machine has: another run may be under way.
fn free_network() -> u32 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let said = Command::new("ip").args(["-4", "-o", "addr", "show"]).output().expect("ip runs");
    let taken = String::from_utf8_lossy(&said.stdout).into_owned();
    // Two runs that begin together begin with different ones.
    let first = 8 * (std::process::id() % 8);
    let mut numbers = (0..64).map(|_| (first + TRIED.fetch_add(1, Ordering::Relaxed)) % 64);
    numbers.find(|number| !taken.contains(&format!(" {} ", router(*number)))).expect("a network that is free")
}

/// What is left of runs that were killed. The cable goes with its end.
fn remove_abandoned() {
    let said = Command::new("ip").args(["netns", "list"]).output().expect("ip runs");
    for name in String::from_utf8_lossy(&said.stdout).lines().filter_map(|line| line.split(' ').next()) {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).map(|(process, _)| process);
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // Another run may be faster.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let said = Command::new("ip").args(arguments).output().expect("ip runs");
    assert!(said.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
}

/// A pod that answers at two ports, the first of which has a name.
fn two_ports(name: &str) -> String {
    let container = |name: &str, port: u16, udp: u16, ports: Value| {
        json!({"name": name, "image": AGNHOST, "ports": ports,
            "args": ["netexec", format!("--http-port={port}"), format!("--udp-port={udp}")]})
    };
    let named = json!([{"name": "http", "containerPort": PORT}]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [container("main", PORT, 8081, named), container("other", OTHER, 8083, json!([]))]}})
    .to_string()
}

/// Its address, once it is ready.
fn serve_two(space: &Space, name: &str) -> String {
    space.apply(&two_ports(name));
    space.wait(&format!("pod/{name}"), "condition=Ready");
    space.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.podIP}"]).ok().trim().to_owned()
}

/// A Service of the pods of its name, to their port by its name.
fn service(space: &Space, name: &str, kind: &str) {
    let ports = json!([{"port": 80, "targetPort": "http"}]);
    let spec = json!({"type": kind, "selector": {"app": name}, "ports": ports});
    space.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}).to_string());
}

fn node_port_of(space: &Space, name: &str) -> u16 {
    eventually("a node port", || {
        let found = space.kubectl(&["get", "service", name, "-o", "jsonpath={.spec.ports[0].nodePort}"]).result()?;
        found.trim().parse::<u16>().map_err(|error| error.to_string())
    })
}

/// Both ports of these pods answer their own tenant, so that it says something when they are closed to somebody; and to him
/// they are: the plugin has read the policies of each.
fn are_closed_to(from: &dyn Fn(&str, u16) -> bool, space: &Space, addresses: &[&str]) {
    for address in addresses {
        for port in [PORT, OTHER] {
            eventually_is("it serves its own tenant", || connects(space, "box", address, port));
            eventually_is("and is closed to others", || !from(address, port));
        }
    }
}

#[test]
fn from_outside_only_the_ports_of_a_service_for_it_are_reached() {
    let space = alpha().space("exposed");
    let _dump = Dump(vec![alpha()]);
    let outside = Outside::new();
    space.pod("box");
    let (web, quiet) = (serve_two(&space, "web"), serve_two(&space, "quiet"));
    applied(&space);
    let from = |address: &str, port: u16| outside.connects(address, port);
    are_closed_to(&from, &space, &[&web, &quiet]);

    service(&space, "web", "NodePort");
    service(&space, "quiet", "ClusterIP");
    let port = node_port_of(&space, "web");
    eventually_is("the node port, from outside", || outside.connects(&node(), port));
    assert!(outside.connects(&web, PORT), "what it leads to");
    let answer = eventually("an answer at the node", || http_get(&format!("{}:{port}", node()), "/hostname"));
    assert!(answer.ends_with("web"), "{answer}");
    assert!(!outside.connects(&web, OTHER), "another port of the same pod");
    for port in [PORT, OTHER] {
        assert!(!outside.connects(&quiet, port), "a pod behind a Service for the inside: {port}");
    }

    space.kubectl(&["delete", "service", "web"]).ok();
    eventually_is("closed again", || !outside.connects(&web, PORT));
    let opening = ["get", "networkpolicies", "-l", "portico.dev/exposes", "-o", "name"];
    let policy = format!("/{}.exposed", space.host_name("web"));
    eventually_is("the policy goes", || !alpha().on_host(&opening).ok().contains(&policy));
    are_closed_to(&from, &space, &[&web]);
}

#[test]
fn a_neighbours_service_of_the_same_name_opens_nothing_of_mine() {
    let namespace = format!("e2e-exposed-{}", run_id());
    for name in ["mine", "theirs"] {
        portico(&["create", name, "-n", &namespace, "--no-wait"]).ok();
    }
    let tenants = ["mine", "theirs"].map(|name| &*Box::leak(Box::new(Tenant::create(name, &namespace, &[]))));
    let dump = Dump(tenants.to_vec());
    let outside = Outside::new();
    // Of the same name in both, so that their Services differ by nothing but the tenant.
    let [mine, theirs] = tenants.map(|tenant| tenant.space("shop"));
    let addresses = [&mine, &theirs].map(|space| {
        space.pod("box");
        let address = serve_two(space, "web");
        applied(space);
        are_closed_to(&|address, port| outside.connects(address, port), space, &[&address]);
        address
    });
    service(&mine, "web", "ClusterIP");
    service(&theirs, "web", "NodePort");
    let port = node_port_of(&theirs, "web");
    eventually_is("theirs, from outside", || outside.connects(&node(), port));
    assert!(outside.connects(&addresses[1], PORT));
    assert!(!outside.connects(&addresses[0], PORT), "mine has the same labels, name and namespace");
    drop((mine, theirs, dump));
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}

/// A pod of the host in a namespace of this name.
fn on_host(namespace: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "box"}, "spec": {
        "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
        "containers": [{"name": "main", "image": BUSYBOX, "command": ["sleep", "3600"]}]}});
    // What an earlier run made may be on its way out, and a ServiceAccount comes a moment after its namespace.
    eventually("the pod is made", || {
        host(&["create", "namespace", namespace]);
        let make = Invocation::kubectl(&host_kubeconfig(), &["-n", namespace, "apply", "-f", "-"]);
        make.stdin(pod.to_string().as_bytes()).run().result()
    });
    host(&["-n", namespace, "wait", "pod/box", "--for=condition=Ready", "--timeout=90s"]).ok();
}

/// Whether a TCP connection from the host's pod of this namespace comes to be.
fn connects_from(namespace: &str, address: &str, port: u16) -> bool {
    let line =
        format!("timeout 15 nc -w {PATIENCE} {address} {port} </dev/null >/dev/null && echo open || echo closed");
    host(&["-n", namespace, "exec", "box", "--", "sh", "-c", &line]).ok().trim() == "open"
}

#[test]
fn an_ingress_opens_its_port_to_whom_the_admin_names() {
    let space = alpha().space("exposed-ingress");
    let _dump = Dump(vec![alpha()]);
    let strangers = format!("e2e-no-ingress-{}", run_id());
    for namespace in [CONTROLLERS, &strangers] {
        on_host(namespace);
    }
    space.pod("box");
    let (web, quiet) = (serve_two(&space, "web"), serve_two(&space, "quiet"));
    applied(&space);
    are_closed_to(&|address, port| connects_from(CONTROLLERS, address, port), &space, &[&web, &quiet]);
    are_closed_to(&|address, port| connects_from(&strangers, address, port), &space, &[&web]);
    for name in ["web", "quiet"] {
        service(&space, name, "ClusterIP");
    }
    eventually_is("both Services on the host", || space.on_host("services").len() == 2);
    assert!(!connects_from(CONTROLLERS, &web, PORT), "without an Ingress");

    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
    let rules = json!([{"host": format!("{}.example.test", space.name), "http": {"paths": paths}}]);
    space.apply(
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"},
            "spec": {"rules": rules}})
        .to_string(),
    );
    eventually_is("open to the controller", || connects_from(CONTROLLERS, &web, PORT));
    assert!(!connects_from(CONTROLLERS, &web, OTHER), "a port that the Ingress does not name");
    assert!(!connects_from(CONTROLLERS, &quiet, PORT), "a pod that it does not lead to");
    assert!(!connects_from(&strangers, &web, PORT), "whom nobody names");

    space.kubectl(&["delete", "ingress", "web"]).ok();
    eventually_is("closed again", || !connects_from(CONTROLLERS, &web, PORT));
    for namespace in [CONTROLLERS, &strangers] {
        host(&["delete", "namespace", namespace, "--wait=false"]).ok();
    }
}
