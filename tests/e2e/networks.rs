//! Who reaches whom on the host's network: tenants are apart, and nothing that one needs is closed to it. The local cluster
//! enforces NetworkPolicies (`tests/cluster/kube/policies`).

mod exposed;

use serde_json::{Value, json};

use crate::harness::{
    AGNHOST, Dump, PORTICO, SYSTEM, Space, alpha, beta, eventually, eventually_is, host, http_get, node, portico,
};

/// A pod that answers at 8080, and how long to wait for what a policy drops: it says nothing at all.
const PORT: u16 = 8080;
const PATIENCE: u32 = 3;

fn server(name: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": AGNHOST, "args": ["netexec", format!("--http-port={PORT}")],
            "ports": [{"containerPort": PORT}]}]}})
    .to_string()
}

fn serve(space: &Space, name: &str) -> String {
    space.apply(&server(name));
    space.wait(&format!("pod/{name}"), "condition=Ready");
    space.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.podIP}"]).ok().trim().to_owned()
}

/// Whether a TCP connection from a pod comes to be. It says nothing and hangs up, which every server answers by closing.
fn connects(space: &Space, pod: &str, address: &str, port: u16) -> bool {
    let line =
        format!("timeout 15 nc -w {PATIENCE} {address} {port} </dev/null >/dev/null && echo open || echo closed");
    space.sh(pod, &line).ok().trim() == "open"
}

/// Addresses of the host's pods with this label.
fn addresses(namespace: &str, label: &str) -> Vec<String> {
    let pods = host(&["-n", namespace, "get", "pods", "-l", label, "-o", "json"]).json();
    let text = |pod: &Value| pod["status"]["podIP"].as_str().map(str::to_owned);
    let found: Vec<String> = pods["items"].as_array().expect("pods").iter().filter_map(text).collect();
    assert!(!found.is_empty(), "no pod of {label} in {namespace}");
    found
}

/// Policies are there, and the plugin has read them: both pods have been under theirs once something is closed to them.
fn applied(space: &Space) {
    let tenant = space.tenant;
    eventually("the policies", || {
        let object = tenant.on_host(&["get", "virtualcluster", &tenant.name, "-o", "json"]).json();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|c| c["type"] == "NetworkPoliciesApplied").unwrap_or_default();
        if found["reason"] == "Applied" { Ok(()) } else { Err(found.to_string()) }
    });
    eventually_is("the pod is under its policies", || !connects(space, "box", &node(), 6443));
}

#[test]
fn hostile_pods_reach_no_other_tenant_and_nothing_of_the_host() {
    let (mine, theirs) = (alpha().space("victim"), beta().space("intruder"));
    let _dump = Dump(vec![alpha(), beta()]);
    mine.pod("box");
    theirs.pod("box");
    let victim = serve(&mine, "web");
    applied(&mine);
    applied(&theirs);
    assert!(connects(&mine, "box", &victim, PORT), "it serves");

    let plane = |namespace: &str, name: &str| addresses(namespace, &format!("portico.dev/control-plane={name}"));
    let mut closed = vec![(victim, PORT, "a pod of another tenant"), (node(), 6443, "the host's API server")];
    closed.push(("169.254.169.254".to_owned(), 80, "the metadata service"));
    for address in plane(&alpha().namespace, &alpha().name) {
        closed.push((address, 6443, "another tenant's control plane"));
    }
    for address in plane(&beta().namespace, &beta().name) {
        closed.push((address, 6443, "its own control plane, past Portico"));
    }
    for address in addresses(SYSTEM, PORTICO) {
        closed.push((address.clone(), 9090, "Portico's health"));
        closed.push((address, 9091, "Portico's metrics"));
    }
    let service = host(&["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"]).ok();
    closed.push((service.trim().to_owned(), 443, "the host's API server by its Service"));
    let service = alpha().on_host(&["get", "service", &alpha().name, "-o", "jsonpath={.spec.clusterIP}"]).ok();
    closed.push((service.trim().to_owned(), 443, "another tenant's control plane by its Service"));
    for (address, port, what) in closed {
        assert!(!connects(&theirs, "box", &address, port), "{what}: {address}:{port}");
    }
}

/// Found by a probe: this cluster's network does what policies say.
#[test]
fn the_host_is_known_to_enforce_policies() {
    let _dump = Dump(vec![alpha()]);
    eventually("the probe", || {
        let object = alpha().on_host(&["get", "virtualcluster", &alpha().name, "-o", "json"]).json();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|c| c["type"] == "NetworkPoliciesEnforced").unwrap_or_default();
        if (&found["status"], &found["reason"]) == (&json!("True"), &json!("Probed")) {
            Ok(())
        } else {
            Err(found.to_string())
        }
    });
    let said = portico(&["describe", &alpha().name, "-n", &alpha().namespace]).ok();
    assert!(said.contains("NetworkPoliciesEnforced  True"), "{said}");
}

#[test]
fn a_tenant_reaches_all_that_is_its_own() {
    let space = alpha().space("own");
    let other = alpha().space("own-too");
    let _dump = Dump(vec![alpha()]);
    space.pod("box");
    let near = serve(&space, "near");
    let far = serve(&other, "far");
    applied(&space);
    for address in [&near, &far] {
        assert!(connects(&space, "box", address, PORT), "a pod of its own: {address}");
    }
    other.kubectl(&["expose", "pod", "far", "--port=80", &format!("--target-port={PORT}")]).ok();
    // By its name: DNS is Portico's.
    let line = format!("/bin/wget -q -O - -T 5 http://far.{}.svc.cluster.local/hostname", other.name);
    let said = eventually("an answer by the Service", || space.sh("box", &line).result());
    assert_eq!(said.trim(), "far");
    let line =
        "timeout 15 nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null >/dev/null && echo open";
    assert_eq!(space.sh("box", line).ok().trim(), "open", "its API");
    // The control plane dials pods itself.
    let path = format!("/api/v1/namespaces/{}/pods/far:{PORT}/proxy/hostname", other.name);
    let said = eventually("an answer by the pod's proxy", || alpha().kubectl(&["get", "--raw", &path]).result());
    assert_eq!(said.trim(), "far");
}

#[test]
fn a_node_port_is_reached_from_the_node() {
    let space = alpha().space("node-port");
    let _dump = Dump(vec![alpha()]);
    space.pod("box");
    serve(&space, "web");
    applied(&space);
    let target = format!("--target-port={PORT}");
    space.kubectl(&["expose", "pod", "web", "--type=NodePort", "--port=80", &target]).ok();
    let port = eventually("a node port", || {
        let found = space.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}"]).result()?;
        found.trim().parse::<u16>().map_err(|error| error.to_string())
    });
    let answer = eventually("an answer at the node", || http_get(&format!("{}:{port}", node()), "/hostname"));
    assert!(answer.ends_with("web"), "{answer}");
}
