//! The binary as a person meets it: grammar, exit codes, one line what and one line hint. No cluster is needed.
#![allow(clippy::expect_used)]

mod credentials;
#[path = "../support/fake.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared, and each uses a part")]
mod fake;
mod login;
#[path = "../support/pki.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared, and each uses a part")]
mod pki;
#[path = "../support/port.rs"]
mod port;
#[path = "../support/tokens.rs"]
mod tokens;

use std::path::Path;
use std::process::{Command, Output};

fn portico(arguments: &[&str]) -> Output {
    portico_with(arguments, Path::new("/nonexistent/kubeconfig"))
}

fn portico_with(arguments: &[&str], kubeconfig: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portico"))
        .args(arguments)
        .env_clear()
        .env("KUBECONFIG", kubeconfig)
        .output()
        .expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A kubeconfig of a server where nobody listens.
fn dead_cluster(dir: &Path) -> std::path::PathBuf {
    let port = port::free([127, 0, 0, 1]);
    let path = dir.join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u, namespace: team-a}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
    );
    std::fs::write(&path, text).expect("written");
    path
}

#[test]
fn version_and_completion_need_no_cluster() {
    let version = portico(&["version"]);
    assert!(version.status.success());
    assert!(stdout(&version).starts_with("portico "));
    for shell in ["bash", "zsh", "fish"] {
        let completion = portico(&["completion", shell]);
        assert!(completion.status.success());
        assert!(stdout(&completion).contains("connect"), "{shell}");
    }
}

#[test]
fn usage_errors_end_with_2() {
    for arguments in [
        &["create"][..],
        &["nonsense"],
        &["list", "-o", "xml"],
        &["recover", "a"],
        &["recover", "a", "--adopt", "--discard"],
        &["connect", "a", "--server", "http://h"],
        &["connect", "a", "--service-account", "A"],
        &["connect", "a", "--cluster-role", "view"],
        &["connect", "a", "--service-account", "b", "--role", "view"],
        &["connect", "a", "--service-account", "b", "--user", "c"],
        &["connect", "a", "--user", "b", "--expiration", "9m"],
        &["connect", "a", "--group", "b"],
        &["connect", "a", "--oidc", "--user", "b"],
        &["connect", "a", "--client-id", "b"],
        &["login", "--client-id", "b"],
        &["login", "--issuer", "http://b", "--client-id", "b"],
        &["login", "--issuer", "https://b", "--client-id", "b", "--listen", "0.0.0.0:80"],
    ] {
        let output = portico(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_failure_is_one_line_what_and_one_line_hint() {
    let dir = tempfile::tempdir().expect("dir");
    let kubeconfig = dead_cluster(dir.path());
    for arguments in [
        &["list"][..],
        &["describe", "a"],
        &["delete", "a"],
        &["connect", "a"],
        &["connect", "a", "--user", "j\u{e4}n"],
        &["connect", "a", "--expiration", "1h"],
        &["connect", "a", "--service-account", "b/c"],
        &["create", "a"],
        &["recover", "a", "--adopt"],
        &["recover", "a", "--keep-claims"],
    ] {
        let output = portico_with(arguments, &kubeconfig);
        let text = stderr(&output);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert_eq!(lines.len(), 2, "{arguments:?}: {text}");
        assert!(lines[0].starts_with("error: ") && lines[1].starts_with("hint: "), "{text}");
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn without_a_kubeconfig_the_hint_names_the_variable() {
    let output = portico(&["list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("KUBECONFIG"), "{}", stderr(&output));
}

#[test]
fn names_are_checked_before_anything_is_made() {
    let output = portico(&["create", "Not_A_Name"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("lower-case"), "{}", stderr(&output));
}

#[test]
fn a_dry_run_prints_everything_that_would_be_made() {
    let output = portico(&[
        "create",
        "dev",
        "-n",
        "team-a",
        "--dry-run",
        "--storage",
        "2Gi",
        "--host",
        "dev.example.com",
        "--pod-security",
        "restricted",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let kinds: Vec<String> = text
        .split("---\n")
        .map(|d| {
            serde_saphyr::from_str::<serde_json::Value>(d).expect("YAML")["kind"].as_str().expect("kind").to_owned()
        })
        .collect();
    assert_eq!(kinds, ["Namespace", "RoleBinding", "VirtualCluster"]);
    for part in ["portico-tenant", "2Gi", "dev.example.com", "restricted"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn only_a_flag_puts_the_data_into_the_pod_alone() {
    let create = ["create", "dev", "-n", "team-a", "--dry-run"];
    for (flags, ephemeral) in [(&[][..], "ephemeral: false"), (&["--ephemeral"], "ephemeral: true")] {
        let output = portico(&[&create[..], flags].concat());
        assert!(stdout(&output).contains(ephemeral), "{flags:?}: {}", stdout(&output));
    }
}

#[test]
fn control_planes_of_k3s_and_with_a_database() {
    let create = ["create", "dev", "-n", "team-a", "--dry-run"];
    let plan = |flags: &[&str]| portico(&[&create[..], flags].concat());
    let output = plan(&["--distro", "k3s", "--version", "v1.33.1-k3s1", "--datastore-secret", "db", "--replicas", "2"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    for part in ["distro: k3s", "version: v1.33.1-k3s1", "secretName: db", "replicas: 2"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    for (flags, code) in [
        (&["--replicas", "2"][..], 1),
        (&["--version", "v1.33.1-k3s1"], 1),
        (&["--replicas", "0"], 2),
        (&["--replicas", "9"], 2),
        (&["--storage", "1Gi", "--datastore-secret", "db"], 2),
        (&["--ephemeral", "--storage", "1Gi"], 2),
        (&["--ephemeral", "--datastore-secret", "db"], 2),
        (&["--ephemeral", "--distro", "external", "--backend-secret", "s"], 2),
    ] {
        let output = plan(flags);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {}", stderr(&output));
    }
}

#[test]
fn what_is_generated_is_what_is_committed() {
    let kinds = ["config/crd/virtualcluster.yaml", "config/crd/credentialrequest.yaml"];
    for (command, files) in [("crd", &kinds[..]), ("docs", &["docs/config.md"])] {
        let output = portico(&[command]);
        assert!(output.status.success(), "{}", stderr(&output));
        let read =
            |file: &&str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("there");
        let committed = files.iter().map(read).collect::<Vec<_>>().join("---\n");
        assert!(stdout(&output) == committed, "portico {command} prints something else than {files:?}: make generated");
    }
}

#[test]
fn each_crd_is_one_yaml_document_with_its_rules() {
    let output = portico(&["crd"]);
    let text = stdout(&output);
    let crds: Vec<serde_json::Value> =
        text.split("---\n").map(|document| serde_saphyr::from_str(document).expect("YAML")).collect();
    let names: Vec<&str> = crds.iter().map(|crd| crd["metadata"]["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["virtualclusters.portico.dev", "credentialrequests.portico.dev"]);
    for crd in crds {
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert!(schema["properties"]["spec"]["x-kubernetes-validations"].is_array(), "{schema}");
    }
}

#[test]
fn the_printed_configuration_is_the_default_one() {
    let output = portico(&["config"]);
    assert!(output.status.success());
    let config = portico::config::Config::parse(&stdout(&output)).expect("valid");
    assert_eq!(config, portico::config::Config::default());
}
