//! Virtual clusters, a namespace for each test in them, and what to show when a test fails.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::program::{Answer, Invocation, kubectl, portico};
use super::sidecar::STAND_IN;
use super::{SYSTEM, eventually, gateway_url, host, run_id, work};
use crate::datastores::servers::{self, Server};

/// A virtual cluster.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// Reached by path.
    pub(crate) kubeconfig: PathBuf,
}

/// The well-behaved one.
pub(crate) fn alpha() -> &'static Tenant {
    static ALPHA: OnceLock<Tenant> = OnceLock::new();
    ALPHA.get_or_init(|| Tenant::of_form("alpha", "a", &["--host", "alpha.e2e.test"]))
}

/// The hostile one.
pub(crate) fn beta() -> &'static Tenant {
    static BETA: OnceLock<Tenant> = OnceLock::new();
    BETA.get_or_init(|| {
        // Age decides who has a name, in whole seconds: the well-behaved one is the elder.
        alpha();
        Tenant::of_form("beta", "b", &[])
    })
}

impl Tenant {
    /// In the form that is tested in this run: `PORTICO_E2E_FORM`, `shared` by default.
    fn of_form(name: &str, place: &str, flags: &[&str]) -> Self {
        let form = std::env::var("PORTICO_E2E_FORM").unwrap_or_else(|_| "shared".to_owned());
        let namespace = if form == "shared" { format!("e2e-{place}") } else { format!("e2e-{form}-{place}") };
        let stored = |server: Server, more: &[&str]| {
            host(&["create", "namespace", &namespace]).ok();
            server.secret(&namespace);
            server.for_the_whole_run();
            Self::create(name, &namespace, &[flags, &["--datastore-secret", "database"], more].concat())
        };
        let k3s = ["--distro", "k3s", "--image", STAND_IN];
        match form.as_str() {
            "shared" => Self::create(name, &namespace, flags),
            "sidecar" => Self::sidecar(name, &namespace),
            "k3s" => Self::create(name, &namespace, &[flags, &k3s].concat()),
            "k3s-postgresql" => stored(servers::postgres(), &k3s),
            "k3s-etcd-inside" => {
                Self::create(name, &namespace, &[flags, &k3s, &["-f", "tests/e2e/etcd-inside.yaml"]].concat())
            }
            "postgresql" => stored(servers::postgres(), &[]),
            "mariadb" => stored(servers::mariadb(), &[]),
            "etcd" => stored(servers::etcd(), &[]),
            other => panic!("PORTICO_E2E_FORM={other} is unknown; see tests/e2e/run"),
        }
    }

    /// Creates it, or takes the one that is there.
    pub(crate) fn create(name: &str, namespace: &str, flags: &[&str]) -> Self {
        portico(&[&["create", name, "-n", namespace], flags].concat()).ok();
        let kubeconfig = work().join(format!("{namespace}-{name}.yaml"));
        let file = kubeconfig.display().to_string();
        portico(&["connect", name, "-n", namespace, "--kube-config", &file]).ok();
        let tenant = Self { name: name.to_owned(), namespace: namespace.to_owned(), kubeconfig };
        eventually("the tenant answers", || tenant.kubectl(&["get", "--raw", "/readyz"]).result());
        tenant
    }

    /// kubectl in the tenant.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Answer {
        kubectl(&self.kubeconfig, arguments)
    }

    /// kubectl on the host, in this tenant's namespace.
    pub(crate) fn on_host(&self, arguments: &[&str]) -> Answer {
        host(&[&["-n", self.namespace.as_str()], arguments].concat())
    }

    pub(crate) fn path(&self) -> String {
        format!("/clusters/{}/{}", self.namespace, self.name)
    }

    /// A kubeconfig that chooses the tenant by SNI.
    pub(crate) fn by_sni(&self) -> PathBuf {
        let path = work().join(format!("{}-{}-sni.yaml", self.namespace, self.name));
        let file = path.display().to_string();
        portico(&["connect", &self.name, "-n", &self.namespace, "--server", &gateway_url(), "--kube-config", &file])
            .ok();
        path
    }

    /// A namespace of its own for one test.
    pub(crate) fn space(&'static self, topic: &str) -> Space {
        let space = Space { tenant: self, name: format!("{topic}-{}", run_id()) };
        self.kubectl(&["create", "namespace", &space.name]).ok();
        eventually("the default service account", || space.kubectl(&["get", "serviceaccount", "default"]).result());
        space
    }
}

/// The clusters of one kubeconfig with another user: `user` is that part of a kubeconfig.
pub(crate) fn with_user(cluster_of: &Path, user: &Value, name: &str) -> PathBuf {
    let mut document = read(cluster_of);
    let current = document["current-context"].clone();
    let context = document["contexts"]
        .as_array()
        .expect("contexts")
        .iter()
        .find(|c| c["name"] == current)
        .expect("current")
        .clone();
    document["users"] = json!([{"name": context["context"]["user"], "user": user}]);
    let path = work().join(format!("{name}-{}.yaml", run_id()));
    std::fs::write(&path, document.to_string()).expect("written");
    path
}

/// The user part of a kubeconfig.
pub(crate) fn user_of(kubeconfig: &Path) -> Value {
    read(kubeconfig)["users"][0]["user"].clone()
}

/// A kubeconfig as a document.
pub(crate) fn read(kubeconfig: &Path) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(kubeconfig).expect("a kubeconfig")).expect("YAML")
}

/// One test's namespace in a tenant; deleted behind a test that passed.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) tenant: &'static Tenant,
    pub(crate) name: String,
}

impl Space {
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Answer {
        self.tenant.kubectl(&[&["-n", self.name.as_str()], arguments].concat())
    }

    /// kubectl about to run here.
    pub(crate) fn invocation(&self, arguments: &[&str]) -> Invocation {
        Invocation::kubectl(&self.tenant.kubeconfig, &[&["-n", self.name.as_str()], arguments].concat())
    }

    #[track_caller]
    pub(crate) fn apply(&self, manifests: &str) {
        self.invocation(&["apply", "-f", "-"]).stdin(manifests.as_bytes()).run().ok();
    }

    /// Waits for `kubectl wait`'s condition.
    #[track_caller]
    pub(crate) fn wait(&self, object: &str, condition: &str) {
        let condition = format!("--for={condition}");
        // The object may not be there yet.
        eventually(object, || self.kubectl(&["wait", object, &condition, "--timeout=30s"]).result());
    }

    /// A pod that sleeps, ready to be used.
    #[track_caller]
    pub(crate) fn pod(&self, name: &str) {
        self.apply(&sleeper(name));
        self.wait(&format!("pod/{name}"), "condition=Ready");
    }

    /// The host's name of an object of this namespace.
    pub(crate) fn host_name(&self, name: &str) -> String {
        format!("{name}-x-{}-x-{}", self.name, self.tenant.name)
    }

    /// Names of the host objects of one kind that come from this namespace.
    pub(crate) fn on_host(&self, kind: &str) -> BTreeSet<String> {
        let labels = format!("portico.dev/cluster={},portico.dev/namespace={}", self.tenant.name, self.name);
        names(&self.tenant.on_host(&["get", kind, "-l", &labels, "-o", "json"]).json())
    }

    /// What Events say about an object at this moment; with a reason, those of that reason.
    pub(crate) fn events(&self, name: &str, reason: &str) -> String {
        let reason = if reason.is_empty() { String::new() } else { format!(",reason={reason}") };
        let selector = format!("--field-selector=involvedObject.name={name}{reason}");
        self.kubectl(&["get", "events", &selector, "-o", "jsonpath={.items[*].message}"]).out()
    }

    /// Waits for Events about an object that say all of this.
    #[track_caller]
    pub(crate) fn told(&self, name: &str, words: &[&str]) {
        eventually(&format!("an event about {name} that says {words:?}"), || {
            let said = self.events(name, "");
            if words.iter().all(|word| said.contains(word)) { Ok(()) } else { Err(said) }
        });
    }

    /// Waits until it is said why an object is not on the host.
    #[track_caller]
    pub(crate) fn denied(&self, name: &str) -> String {
        eventually(&format!("an event about {name}"), || {
            let said = self.events(name, "SyncDenied");
            if said.is_empty() { Err(said) } else { Ok(said) }
        })
    }

    /// Runs a shell line in a pod.
    pub(crate) fn sh(&self, pod: &str, line: &str) -> Answer {
        self.kubectl(&["exec", pod, "--", "sh", "-c", line])
    }

    /// A kubeconfig for a service account of this namespace, made with these rights: role rules as JSON.
    pub(crate) fn account(&self, name: &str, rules: &Value) -> PathBuf {
        self.kubectl(&["create", "serviceaccount", name]).ok();
        let binding = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
             "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": self.name}]},
        ]});
        self.apply(&binding.to_string());
        let token = self.kubectl(&["create", "token", name]).ok();
        with_user(&self.tenant.kubeconfig, &json!({"token": token.trim()}), &format!("{}-{name}", self.name))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.tenant.kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
        }
    }
}

/// Names in a list.
pub(crate) fn names(list: &Value) -> BTreeSet<String> {
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|i| i["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

/// A pod of busybox that does nothing and ends at once when told.
pub(crate) fn sleeper(name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{terminationGracePeriodSeconds: 1, \
         containers: [{{name: main, image: '{}', command: [sh, -c, 'trap exit TERM; while true; do sleep 1; done']}}]}}}}",
        super::BUSYBOX
    )
}

/// Prints the state of both sides when the test it stands in fails.
pub(crate) struct Dump(pub(crate) Vec<&'static Tenant>);

impl Drop for Dump {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for tenant in &self.0 {
            let name = format!("{}/{}", tenant.namespace, tenant.name);
            show(
                &format!("{name} on the host"),
                &tenant.on_host(&["get", "virtualclusters,pods,services,pvc", "-o", "wide"]),
            );
            show(
                &format!("{name} events on the host"),
                &tenant.on_host(&["get", "events", "--sort-by=.lastTimestamp"]),
            );
            show(
                &format!("{name} VirtualCluster"),
                &tenant.on_host(&["get", "virtualcluster", &tenant.name, "-o", "yaml"]),
            );
            show(&format!("{name} inside"), &tenant.kubectl(&["get", "pods,services,pvc", "-A", "-o", "wide"]));
            show(
                &format!("{name} events inside"),
                &tenant.kubectl(&["get", "events", "-A", "--sort-by=.lastTimestamp"]),
            );
        }
        show("Portico", &host(&["-n", SYSTEM, "get", "pods", "-o", "wide"]));
        let logs = ["-n", SYSTEM, "logs", "-l", "portico.dev/component=portico", "--tail=60", "--prefix"];
        show("Portico's logs", &host(&logs));
    }
}

fn show(title: &str, answer: &Answer) {
    let out = answer.out();
    let lines: Vec<&str> = out.lines().collect();
    let last = lines.len().saturating_sub(60);
    eprintln!("--- {title}\n{}\n{}", lines[last..].join("\n"), answer.err);
}

/// Everything in the namespace that carries the cluster's labels or name.
pub(crate) fn left(namespace: &str, cluster: &str) -> Vec<String> {
    let kinds = "all,configmaps,secrets,persistentvolumeclaims,endpointslices,ingresses,serviceaccounts,roles";
    let all = host(&["-n", namespace, "get", kinds, "-o", "name"]).ok();
    all.lines()
        .filter(|l| {
            let own = [format!("/{cluster}"), format!("/data-{cluster}-")];
            l.ends_with(&format!("-x-{cluster}")) || own.iter().any(|name| l.contains(name))
        })
        .map(str::to_owned)
        .collect()
}

/// Portico's own Services for a cluster.
pub(crate) fn system_services(namespace: &str, cluster: &str) -> usize {
    let labels = format!("portico.dev/host-namespace={namespace},portico.dev/cluster={cluster}");
    let found: Value = host(&["-n", SYSTEM, "get", "services", "-l", &labels, "-o", "json"]).json();
    found["items"].as_array().map_or(0, Vec::len)
}
