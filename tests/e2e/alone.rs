//! The gateway alone: `portico serve` with one file, in front of two real control planes, without a host cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use portico::tls::certificates::{self, Leaf, Pair, Usage};

use crate::harness::{
    AGNHOST, Answer, Invocation, Running, eventually, host, host_kubeconfig, http_get, kubectl, node, run_id, target,
    work,
};
use crate::port;

/// A control plane without nodes, on the loopback: kube-apiserver, controller manager and kine in one process.
struct Second {
    folder: PathBuf,
    port: u16,
    ca: Pair,
    users: Pair,
    _process: Running,
}

fn leaf(ca: &Pair, name: &str, organization: Option<&'static str>, names: &[&str], usage: Usage) -> Pair {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = Leaf { common_name: name.to_owned(), organization, names, usage, renew_days: 1 };
    certificates::new_leaf(ca, &leaf, Timestamp::now()).expect("a leaf")
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    std::fs::write(folder.join(name), text).expect("written");
    folder.join(name)
}

fn write_pair(folder: &Path, name: &str, pair: &Pair) {
    write(folder, &format!("{name}.crt"), &pair.certificate);
    write(folder, &format!("{name}.key"), &pair.key);
}

impl Second {
    fn start(folder: &Path) -> Self {
        let (pki, data) = (folder.join("pki"), folder.join("data"));
        std::fs::create_dir_all(&pki).and_then(|()| std::fs::create_dir_all(&data)).expect("folders");
        let now = Timestamp::now();
        let [ca, users, proxies] =
            ["server", "users", "proxies"].map(|name| certificates::new_ca(name, now).expect("a CA"));
        write(&pki, "server-ca.crt", &ca.certificate);
        write(&pki, "front-proxy-ca.crt", &proxies.certificate);
        write_pair(&pki, "client-ca", &users);
        write_pair(&pki, "apiserver", &leaf(&ca, "kube-apiserver", None, &["127.0.0.1", "localhost"], Usage::Server));
        write_pair(&pki, "kcm", &leaf(&users, "system:kube-controller-manager", None, &[], Usage::Client));
        write_pair(folder, "proxy", &leaf(&proxies, "portico-gateway", None, &[], Usage::Client));
        let (private, public) = certificates::new_signing_key().expect("a key");
        write(&pki, "sa.key", &private);
        write(&pki, "sa.pub", &public);
        let port = port::free([127, 0, 0, 1]);
        let program = target().join("cluster/bin/control-plane").display().to_string();
        let (pki, data) = (format!("--pki-dir={}", pki.display()), format!("--data-dir={}", data.display()));
        let (port_flag, address) = (format!("--secure-port={port}"), format!("--advertise-address={}", node()));
        let process = Invocation::new(&program, &host_kubeconfig(), &[&pki, &data, &port_flag, &address]).start();
        Self { folder: folder.to_owned(), port, ca, users, _process: process }
    }

    fn entry(&self, rest: &str) -> String {
        write(&self.folder, "second-ca.crt", &self.ca.certificate);
        write(&self.folder, "second-users.crt", &self.users.certificate);
        format!(
            "- name: second\n  namespace: lab\n  clientCAFile: second-users.crt\n  backend: {{server: 'https://127.0.0.1:{}', \
             certificateAuthorityFile: second-ca.crt, frontProxyCertificateFile: proxy.crt, frontProxyKeyFile: proxy.key}}\n{rest}",
            self.port
        )
    }
}

/// `portico serve` of one file.
struct Alone {
    folder: PathBuf,
    port: u16,
    probes: u16,
    process: Running,
}

impl Alone {
    fn write(folder: &Path, (port, probes, metrics): (u16, u16, u16), list: &str) {
        let text = format!(
            "host: {{enabled: false}}\ngateway: {{listen: '127.0.0.1:{port}', drainDelay: 0s}}\n\
             admin: {{listen: '127.0.0.1:{probes}', metricsListen: '127.0.0.1:{metrics}', metricsAccess: open}}\n\
             certificates: {{folder: own}}\nvirtualClusters:\n{list}"
        );
        write(folder, "new.yaml", &text);
        std::fs::rename(folder.join("new.yaml"), folder.join("portico.yaml")).expect("renamed");
    }

    fn serve(folder: &Path, probes: u16) -> Running {
        let file = folder.join("portico.yaml").display().to_string();
        let process = Invocation::new("portico", Path::new("/nowhere"), &["serve", "--config", &file]).start();
        eventually("the gateway", || http_get(&format!("127.0.0.1:{probes}"), "/readyz"));
        process
    }

    /// A kubeconfig for one of its clusters.
    fn kubeconfig(&self, place: &str, user: &Pair, name: &str) -> PathBuf {
        write_pair(&self.folder, name, user);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
             clusters: [{{name: a, cluster: {{server: 'https://127.0.0.1:{}/clusters/{place}', certificate-authority: own/ca.crt}}}}]\n\
             users: [{{name: a, user: {{client-certificate: {name}.crt, client-key: {name}.key}}}}]\n",
            self.port
        );
        write(&self.folder, &format!("{name}.yaml"), &text)
    }

    fn notes(&self) -> String {
        http_get(&format!("127.0.0.1:{}", self.probes), "/readyz?verbose").expect("readyz")
    }

    fn hang_up(&self) {
        let pid = self.process.pid().to_string();
        let said = std::process::Command::new("kill").args(["-HUP", &pid]).status().expect("kill runs");
        assert!(said.success());
    }
}

/// A user of the local cluster.
fn user_of_first(name: &str) -> Pair {
    let pki = host_kubeconfig().with_file_name("pki");
    let read = |file: &str| std::fs::read_to_string(pki.join(file)).expect(file);
    let key = pkcs8(&pki.join("client-ca.key"));
    let ca = Pair { certificate: read("client-ca.crt"), key };
    leaf(&ca, name, None, &[], Usage::Client)
}

fn pkcs8(key: &Path) -> String {
    let said = std::process::Command::new("openssl").args(["pkcs8", "-topk8", "-nocrypt", "-in"]).arg(key).output();
    String::from_utf8(said.expect("openssl runs").stdout).expect("text")
}

fn whoami(kubeconfig: &Path) -> Answer {
    kubectl(kubeconfig, &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"])
}

#[test]
fn one_file_serves_two_control_planes_and_a_change_drops_nothing() {
    let folder = work().join(format!("alone-{}", run_id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let second = Second::start(&folder);
    std::fs::copy(host_kubeconfig(), folder.join("first.kubeconfig")).expect("copied");
    std::fs::copy(host_kubeconfig().with_file_name("pki/client-ca.crt"), folder.join("first-users.crt"))
        .expect("copied");
    let first = |rest: &str| {
        format!(
            "- name: first\n  namespace: lab\n  clientCAFile: first-users.crt\n  backend: {{kubeconfigFile: first.kubeconfig}}\n{rest}"
        )
    };
    let ports = [(); 3].map(|()| port::free([127, 0, 0, 1])).into();
    Alone::write(&folder, ports, &format!("{}{}", first(""), second.entry("")));
    let (port, probes, metrics) = ports;
    let mut alone = Alone { process: Alone::serve(&folder, ports.1), folder: folder.clone(), port, probes };
    assert!(alone.notes().contains("virtualClusters: 2 served"), "{}", alone.notes());

    // The second one by its front proxy: its own users, RBAC and all.
    let admin = alone.kubeconfig(
        "lab/second",
        &leaf(&second.users, "root", Some("system:masters"), &[], Usage::Client),
        "root",
    );
    eventually("the second control plane", || kubectl(&admin, &["get", "namespace", "default"]).result());
    assert_eq!(whoami(&admin).ok(), "root");
    kubectl(&admin, &["create", "configmap", "seen", "--from-literal=a=b"]).ok();
    // A Service of it has an address of its own range, which no host was asked for.
    kubectl(&admin, &["create", "service", "clusterip", "web", "--tcp=80"]).ok();

    // The first one by impersonation, with nodes: pods, logs, exec and a forwarded port.
    let jane = alone.kubeconfig("lab/first", &user_of_first("jane"), "jane");
    assert_eq!(whoami(&jane).ok(), "jane");
    kubectl(&jane, &["get", "pods"]).fails(&["forbidden"]);
    let namespace = format!("e2e-alone-{}", run_id());
    host(&["create", "namespace", &namespace]).ok();
    host(&["-n", &namespace, "create", "rolebinding", "jane", "--clusterrole=admin", "--user=jane"]).ok();
    let of_jane = |arguments: &[&str]| kubectl(&jane, &[&["-n", &namespace], arguments].concat());
    of_jane(&["run", "web", &format!("--image={AGNHOST}"), "--restart=Never", "--", "netexec"]).ok();
    of_jane(&["wait", "pod/web", "--for=condition=Ready", "--timeout=90s"]).ok();
    assert_eq!(of_jane(&["exec", "web", "--", "echo", "inside"]).ok(), "inside\n");
    assert!(of_jane(&["logs", "web"]).ok().contains("Started HTTP server"));
    let forward = Invocation::kubectl(&jane, &["-n", &namespace, "port-forward", "pod/web", ":8080"]).start();
    let line = forward.line_with("Forwarding from 127.0.0.1:");
    let at = line.split_whitespace().nth(2).expect("an address").to_owned();
    assert!(http_get(&at, "/echo?msg=through").expect("an answer").contains("through"));
    drop(forward);

    // Users of one are nobody at the other.
    let stranger = alone.kubeconfig("lab/second", &user_of_first("jane"), "stranger");
    whoami(&stranger).fails(&["unauthorized", "logged in"]);

    // A change: what is open goes on, and one that is not fit changes nothing.
    let watch = Invocation::kubectl(&admin, &["get", "configmaps", "-w", "-o", "name"]).start();
    watch.line_with("configmap/seen");
    let unfit = second.entry("").replace("proxy.key", "root.key");
    Alone::write(&folder, ports, &format!("{}{unfit}", first("  limits: {longRunning: 0}\n")));
    alone.hang_up();
    eventually("the refusal", || {
        Some(alone.notes()).filter(|notes| notes.contains("limits.longRunning")).ok_or_else(|| alone.notes())
    });
    Alone::write(&folder, ports, &format!("{}{unfit}", first("")));
    alone.hang_up();
    eventually("the other refusal", || {
        Some(alone.notes()).filter(|notes| notes.contains("(lab/second) cannot be served")).ok_or_else(|| alone.notes())
    });
    assert_eq!(whoami(&admin).ok(), "root");
    Alone::write(&folder, ports, &second.entry("  expose: {hosts: [second.example.com]}\n"));
    alone.hang_up();
    eventually("the change", || {
        Some(alone.notes()).filter(|notes| notes.contains(": 1 served")).ok_or_else(|| alone.notes())
    });
    kubectl(&jane, &["get", "pods"]).fails(&["no virtual cluster", "not found", "notfound"]);
    kubectl(&admin, &["create", "configmap", "later"]).ok();
    watch.line_with("configmap/later");
    let shown = http_get(&format!("127.0.0.1:{metrics}"), "/metrics").expect("metrics");
    assert!(shown.contains("portico_configuration_in_force 1"), "{shown}");

    // Ended in the middle and begun anew, it has the same CA: clients' kubeconfigs hold.
    drop(watch);
    alone.process.kill();
    alone.process = Alone::serve(&folder, probes);
    assert_eq!(whoami(&admin).ok(), "root");
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}

#[test]
fn what_is_wrong_is_said_at_the_start() {
    let folder = work().join(format!("alone-bad-{}", run_id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let list = BTreeMap::from([
        ("- name: a\n  backend: {kubeconfigFile: nowhere}\n", "nowhere cannot be read"),
        ("- name: a\n  bakend: {}\n", "bakend"),
    ]);
    for (list, words) in list {
        Alone::write(&folder, (1025, 1026, 1027), list);
        let file = folder.join("portico.yaml").display().to_string();
        Invocation::new("portico", Path::new("/nowhere"), &["serve", "--config", &file]).run().fails(&[words]);
        Invocation::new("portico", Path::new("/nowhere"), &["serve", "--config", &file, "--roles", "dns"])
            .run()
            .fails(&["only the role gateway"]);
    }
}
