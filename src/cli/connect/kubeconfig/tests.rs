use super::*;

const SECRET: &str = "
apiVersion: v1
kind: Config
current-context: vc1
clusters:
- {name: vc1, cluster: {server: 'https://localhost:8443', certificate-authority-data: Q0E=, tls-server-name: vc1.team-a.portico.local}}
users: [{name: admin, user: {client-certificate-data: Qw==, client-key-data: Sw==}}]
contexts: [{name: vc1, context: {cluster: vc1, user: admin}}]
";
const PUBLIC: &str = "
kind: Config
current-context: vc1
clusters:
- {name: vc1, cluster: {server: 'https://10.88.0.1:30443/clusters/team-a/vc1', certificate-authority-data: U0hBUkVE}}
- {name: vc1-sni, cluster: {server: 'https://10.88.0.1:30443', certificate-authority-data: VEVOQU5U, tls-server-name: vc1.team-a.portico.local}}
users: [{name: admin, user: {client-certificate-data: Qw==, client-key-data: Sw==}}]
contexts: [{name: vc1, context: {cluster: vc1, user: admin}}]
";

fn access(text: &str) -> Access {
    Access::parse(text).expect("valid")
}

fn cluster(access: &Access) -> Value {
    access.kubeconfig("c")["clusters"][0]["cluster"].clone()
}

#[test]
fn a_server_by_address_keeps_the_name_that_selects_and_proves_the_tenant() {
    for (secret, authority) in [(SECRET, "Q0E="), (PUBLIC, "VEVOQU5U")] {
        let found = cluster(&access(secret).at("https://203.0.113.7:443").expect("known"));
        assert_eq!(found["server"], "https://203.0.113.7:443");
        assert_eq!(found["tls-server-name"], "vc1.team-a.portico.local");
        assert_eq!(found["certificate-authority-data"], authority);
    }
}

#[test]
fn a_server_by_path_is_verified_by_its_own_name_and_the_shared_authority() {
    let url = "https://portico.example.com/clusters/team-a/vc1";
    let found = cluster(&access(PUBLIC).at(url).expect("known"));
    assert_eq!(found.get("tls-server-name"), None);
    assert_eq!(found["certificate-authority-data"], "U0hBUkVE");
    assert!(access(SECRET).at(url).is_none(), "the tenant's own authority does not sign the shared name");
}

#[test]
fn a_sidecar_is_verified_by_the_address_itself_where_its_certificate_has_it() {
    let text = "
kind: Config
current-context: dev
clusters:
- {name: dev, cluster: {server: 'https://localhost:8443', certificate-authority-data: Q0E=}}
- {name: dev-verified-by-name, cluster: {server: 'https://localhost:8443', certificate-authority-data: Q0E=, tls-server-name: dev.ns.svc}}
users: [{name: admin, user: {client-certificate-data: Qw==, client-key-data: Sw==}}]
contexts: [{name: dev, context: {cluster: dev, user: admin}}]
";
    let sidecar = || access(text).of_sidecar(vec!["localhost".to_owned(), "192.168.199.77".to_owned()]);
    let known = cluster(&sidecar().at("https://192.168.199.77:31234").expect("known"));
    assert_eq!((known["server"].as_str(), known.get("tls-server-name")), (Some("https://192.168.199.77:31234"), None));
    assert!(sidecar().is_unnamed("https://10.88.0.1:31234"));
    let other = cluster(&sidecar().at("https://10.88.0.1:31234").expect("known"));
    assert_eq!(other["tls-server-name"], "dev.ns.svc");
    let forwarded = cluster(&sidecar().forwarded(5000, true));
    assert_eq!(
        (forwarded["server"].as_str(), forwarded.get("tls-server-name")),
        (Some("https://localhost:5000"), None)
    );
    assert!(!sidecar().has_public_server());
}

#[test]
fn localhost_is_no_public_server() {
    assert!(!access(SECRET).has_public_server());
    assert!(access(PUBLIC).has_public_server());
}

#[test]
fn a_forwarded_port_leads_to_the_gateway_by_name_or_to_the_control_plane() {
    let gateway = cluster(&access(PUBLIC).forwarded(5000, true));
    assert_eq!(gateway["server"], "https://127.0.0.1:5000");
    assert_eq!(gateway["tls-server-name"], "vc1.team-a.portico.local");
    let own = cluster(&access(PUBLIC).forwarded(5000, false));
    assert_eq!(own["tls-server-name"], "kubernetes.default.svc");
    assert_eq!(own["certificate-authority-data"], "VEVOQU5U");
}

#[test]
fn merging_replaces_only_entries_of_the_same_name() {
    let mine = json!({"kind": "Config", "preferences": {"colors": true}, "current-context": "work",
        "clusters": [{"name": "work", "cluster": {"server": "https://w"}}, {"name": "p", "cluster": {"server": "https://old"}}],
        "contexts": [{"name": "work", "context": {"cluster": "work"}}], "users": null});
    let merged = merge(mine, &access(SECRET).kubeconfig("p"));
    assert_eq!(merged["preferences"]["colors"], true);
    assert_eq!(merged["clusters"].as_array().map(Vec::len), Some(2));
    assert_eq!(merged["clusters"][0]["cluster"]["server"], "https://w");
    assert_eq!(merged["users"].as_array().map(Vec::len), Some(1));
    assert_eq!(merged["current-context"], "p");
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(Access::parse("kind: Config").unwrap_err(), "no current context");
    assert!(Access::parse("kind: [").is_err());
    assert!(!is_kubeconfig("kind: Pod") && is_kubeconfig(SECRET));
}

/// Whoever may write the Secret has nothing run on the machine of whoever connects.
#[test]
fn a_secret_hands_over_no_commands_files_or_trust() {
    let hostile = json!({
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
        "clusters": [{"name": "c", "cluster": {
            "server": "https://gateway/clusters/a/dev", "certificate-authority-data": "Q0E=",
            "certificate-authority": "/etc/shadow", "insecure-skip-tls-verify": true, "proxy-url": "http://evil",
        }}],
        "users": [{"name": "u", "user": {
            "exec": {"command": "sh"}, "auth-provider": {"name": "x"}, "tokenFile": "/f", "client-key": "/f",
            "client-certificate": "/f", "as": "somebody", "username": "u", "password": "p",
            "client-certificate-data": "Yw==", "client-key-data": "aw==", "token": "t",
        }}],
    });
    let access = access(&hostile.to_string());
    let at = access.clone().at("https://other/clusters/a/dev").expect("a way");
    for (access, server) in [(access, "https://gateway/clusters/a/dev"), (at, "https://other/clusters/a/dev")] {
        let written = access.kubeconfig("x");
        assert_eq!(cluster(&access), json!({"server": server, "certificate-authority-data": "Q0E="}));
        let user = json!({"client-certificate-data": "Yw==", "client-key-data": "aw==", "token": "t"});
        assert_eq!(written["users"][0]["user"], user);
    }
}
