//! Virtual clusters of the original form: the manifest of the vcluster 0.3 era, two image names changed, in one namespace.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::program::{Invocation, portico};
use super::tenant::Tenant;
use super::{eventually, host, host_kubeconfig, work};

/// Stands in for k3s, which cannot be pulled here.
pub(crate) const STAND_IN: &str = "docker.io/portico/k3s-stand-in:dev";
/// Portico as a sidecar.
pub(crate) const SYNCER: &str = "docker.io/portico/syncer:dev";

/// One of the original manifests.
pub(crate) fn original(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/sidecar/original").join(file);
    std::fs::read_to_string(path).expect("a manifest")
}

/// The manifest for a cluster of this name: nothing else but the two images is changed.
pub(crate) fn manifest(name: &str) -> String {
    original("dev-cluster.yaml")
        .replace("rancher/k3s:v1.19.5-k3s2", STAND_IN)
        .replace("loftsh/vcluster:0.3.0", SYNCER)
        .replace("dev-cluster", name)
}

/// The same with what `tests/e2e/run` has in Portico's configuration for the shared form.
pub(crate) fn manifest_with_policy(name: &str) -> String {
    let manifest = manifest(name);
    let syncer = manifest.find(SYNCER).expect("the syncer's container");
    let arguments = syncer + manifest[syncer..].find("args:\n").expect("its arguments") + "args:\n".len();
    let line = manifest[arguments..].lines().next().expect("an argument");
    let indent = line.len() - line.trim_start().len();
    let policy = format!(r#"--policy={{ingressDomains: ["*.example.test"], endpoints: ["{}/32"]}}"#, super::node());
    let argument = format!("{:indent$}- '{policy}'\n", "");
    [&manifest[..arguments], &argument, &manifest[arguments..]].concat()
}

/// Applies text to the host.
#[track_caller]
pub(crate) fn apply(namespace: &str, text: &str) -> String {
    Invocation::kubectl(&host_kubeconfig(), &["apply", "-n", namespace, "-f", "-"]).stdin(text.as_bytes()).run().ok()
}

/// The manifest and the NodePort, in a namespace that may be there.
pub(crate) fn install(name: &str, namespace: &str, manifest: &str) {
    host(&["create", "namespace", namespace]);
    apply(namespace, manifest);
    apply(namespace, &original("nodeport.yaml").replace("dev-cluster", name).replace("  namespace: dev\n", ""));
}

impl Tenant {
    /// Applies the manifest and the NodePort, and connects by it.
    pub(crate) fn sidecar(name: &str, namespace: &str) -> Self {
        Self::sidecar_of(name, namespace, &manifest_with_policy(name))
    }

    /// The same with a manifest that a test has changed.
    pub(crate) fn sidecar_of(name: &str, namespace: &str, manifest: &str) -> Self {
        install(name, namespace, manifest);
        let kubeconfig = connect(name, namespace);
        let tenant = Self { name: name.to_owned(), namespace: namespace.to_owned(), kubeconfig };
        eventually("the tenant answers", || tenant.kubectl(&["get", "--raw", "/readyz"]).result());
        eventually("its first account", || {
            tenant.kubectl(&["-n", "default", "get", "serviceaccount", "default"]).result()
        });
        tenant
    }

    /// `/readyz?verbose` of the syncer, through a forwarded port: it listens on the pod's loopback only.
    pub(crate) fn readyz(&self) -> String {
        let pod = format!("pod/{}-0", self.name);
        let arguments = ["-n", &self.namespace, "port-forward", &pod, ":9090"];
        let forward = Invocation::kubectl(&host_kubeconfig(), &arguments).start();
        let line = forward.line_with("Forwarding from 127.0.0.1:");
        let port = line.split(':').nth(1).and_then(|rest| rest.split(' ').next()).expect("a port").to_owned();
        super::http_get(&format!("127.0.0.1:{port}"), "/readyz?verbose").expect("an answer")
    }
}

/// By the node's address and the node port: what the original walk-through does.
pub(crate) fn connect(name: &str, namespace: &str) -> PathBuf {
    let service = format!("{name}-nodeport");
    let get = ["-n", namespace, "get", "service", &service, "-o", "jsonpath={.spec.ports[0].nodePort}"];
    let port = eventually("a node port", || {
        let port = host(&get).result()?;
        if port.is_empty() { Err("none".to_owned()) } else { Ok(port) }
    });
    let server = format!("https://{}:{port}", super::node());
    let kubeconfig = work().join(format!("{namespace}-{name}.yaml"));
    let file = kubeconfig.display().to_string();
    let connect = ["connect", name, "-n", namespace, "--server", &server, "--kube-config", &file];
    eventually("the kubeconfig", || portico(&connect).result());
    kubeconfig
}

/// Entries of the host API server's audit log by the ServiceAccount of a namespace that is audited (`tests/cluster/up`).
pub(crate) fn audited(namespace: &str) -> Vec<Value> {
    let user = format!("system:serviceaccount:{namespace}:");
    let is_its = |entry: &Value| entry["user"]["username"].as_str().is_some_and(|name| name.starts_with(&user));
    audit_log().into_iter().filter(is_its).collect()
}

/// All of that log.
pub(crate) fn audit_log() -> Vec<Value> {
    let log = host_kubeconfig().with_file_name("log/audit.log");
    let text = std::fs::read_to_string(log).expect("an audit log: make down up");
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
