use super::*;

const PLAIN: &str = "backend: {kubeconfigFile: a.kubeconfig}";

fn config(list: &str, rest: &str) -> Config {
    let text = format!("host: {{enabled: false}}\nadmin: {{metricsAccess: open}}\n{rest}\nvirtualClusters:\n{list}");
    Config::parse(&text).expect("a configuration")
}

fn refusal(list: &str) -> String {
    read(&config(list, "")).expect_err(list).to_string()
}

#[test]
fn entries_are_understood() {
    let list = format!(
        "- name: a\n  {PLAIN}\n- name: b\n  namespace: team\n  clientCAFile: b/client.crt\n  \
         expose: {{hosts: [B.Example.com., b.example.com], port: 7443}}\n  auth: {{anonymous: true}}\n  \
         limits: {{longRunning: 3}}\n  backend:\n    server: https://[fd00::1]:6443\n    serverName: kubernetes\n    \
         certificateAuthorityFile: ca.crt\n    frontProxyCertificateFile: p.crt\n    frontProxyKeyFile: p.key\n"
    );
    let list = read(&config(&list, "gateway: {baseDomain: k.example.com}")).expect("fit");
    assert_eq!(list[0].id.to_string(), "default/a");
    assert_eq!((list[0].route.clone(), list[0].port), (Route::Kubeconfig("a.kubeconfig".to_owned()), None));
    assert_eq!(list[0].hosts, ["a.default.k.example.com"]);
    assert_eq!(list[1].hosts, ["b.team.k.example.com", "b.example.com"]);
    assert_eq!((list[1].port, list[1].anonymous, list[1].limits.long_running), (Some(7443), true, Some(3)));
    let route = Route::FrontProxy {
        host: "fd00::1".to_owned(),
        port: 6443,
        server_name: "kubernetes".to_owned(),
        ca: "ca.crt".to_owned(),
        identity: ("p.crt".to_owned(), "p.key".to_owned()),
    };
    assert_eq!(list[1].route, route);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let proxy = "server: https://a, certificateAuthorityFile: c, frontProxyCertificateFile: d, frontProxyKeyFile: e";
    for (entry, words) in [
        (format!("name: a\n  {PLAIN}\n  lymits: {{}}"), vec!["virtualClusters[0] (a): ", "lymits"]),
        (format!("name: a\n  {PLAIN}\n  limits: {{connexions: 3}}"), vec!["no field limits.connexions"]),
        (format!("name: a\n  {PLAIN}\n  limits: {{connections: 0}}"), vec!["limits.connections must be at least 1"]),
        (
            format!(
                "name: a\n  {PLAIN}\n  auth: {{jwt: [{{issuer: {{url: 'https://i.example.com', audience: [x]}}}}]}}"
            ),
            vec!["no field auth.jwt[0].issuer.audience"],
        ),
        (
            format!(
                "name: a\n  {PLAIN}\n  auth: {{jwt: [{{issuer: {{url: 'https://i.example.com', audiences: [x]}}}}]}}"
            ),
            vec!["auth.jwt[0]"],
        ),
        (format!("name: A_b\n  {PLAIN}"), vec!["\"A_b\" is not valid"]),
        (format!("name: a\n  namespace: x/y\n  {PLAIN}"), vec!["x/y"]),
        ("name: a".to_owned(), vec!["missing field `backend`"]),
        ("name: a\n  backend: {}".to_owned(), vec!["kubeconfigFile, or server"]),
        (format!("name: a\n  backend: {{kubeconfigFile: x, {proxy}}}"), vec!["leave them out"]),
        (format!("name: a\n  backend: {{{}}}", proxy.replace("https://a", "http://a")), vec!["https://HOST[:PORT]"]),
        (format!("name: a\n  backend: {{{}}}", proxy.replace("https://a", "https://a/x")), vec!["https://HOST[:PORT]"]),
        (format!("name: a\n  backend: {{{}}}", proxy.replace("https://a", "https://u@a")), vec!["https://HOST[:PORT]"]),
        (format!("name: a\n  {PLAIN}\n  expose: {{hosts: [127.0.0.1]}}"), vec!["is no host name"]),
        (
            format!("name: a\n  {PLAIN}\n  expose: {{hosts: [b.default.portico.local]}}"),
            vec!["default name of default/b"],
        ),
        (format!("name: a\n  {PLAIN}\n  expose: {{hosts: [localhost]}}"), vec!["shared listener"]),
        (format!("name: a\n  {PLAIN}\n  expose: {{hosts: [kubernetes.default.svc]}}"), vec!["inside of clusters"]),
        (format!("name: a\n  {PLAIN}\n  expose: {{port: 8443}}"), vec!["gateway.listen"]),
        (format!("name: a\n  {PLAIN}\n  expose: {{port: 9091}}"), vec!["admin.metricsListen"]),
        (format!("name: a\n  {PLAIN}\n  expose: {{port: 0}}"), vec!["1 to 65535"]),
        (format!("name: a\n  {PLAIN}\n  expose: {{port: 65536}}"), vec!["expose.port: expected u16"]),
        (format!("name: a\n  {PLAIN}\n  expose: {{keyFile: x}}"), vec!["must come together"]),
        (format!("name: a\n  {PLAIN}\n  audit: {{rules: []}}"), vec!["audit.enabled"]),
    ] {
        let refusal = refusal(&format!("- {entry}\n"));
        assert!(words.iter().all(|word| refusal.contains(word)), "{refusal}\nof\n{entry}");
    }
}

/// What somebody put in the wrong place is nobody's to read.
#[test]
fn values_are_not_said_again() {
    for entry in [
        "name: a\n  backend: 'planted'",
        "name: a\n  backend: {kubeconfigFile: {token: planted}}",
        "name: a\n  backend: {server: 'https://u:planted@h', certificateAuthorityFile: c, frontProxyCertificateFile: d, frontProxyKeyFile: e}",
        "name: a\n  backend: {kubeconfigFile: x}\n  limits: {connections: planted}",
    ] {
        let refusal = refusal(&format!("- {entry}\n"));
        assert!(!refusal.contains("planted") && refusal.contains("virtualClusters[0] (a): "), "{refusal}");
    }
}

#[test]
fn no_two_entries_have_the_same() {
    let two = |a: &str, b: &str| format!("- name: a\n  {PLAIN}\n  {a}\n- name: b\n  {PLAIN}\n  {b}\n");
    assert!(read(&config(&two("", ""), "")).is_ok());
    let ports = refusal(&two("expose: {port: 7443}", "expose: {port: 7443}"));
    assert!(ports.contains("virtualClusters[1] (default/b): the port 7443 is virtualClusters[0]'s too"), "{ports}");
    let hosts = refusal(&two("expose: {hosts: [x.example.com]}", "expose: {hosts: [X.example.com]}"));
    assert!(hosts.contains("the host x.example.com"), "{hosts}");
    let twice = refusal(&format!("- name: a\n  {PLAIN}\n- name: a\n  namespace: default\n  {PLAIN}\n"));
    assert!(twice.contains("namespace and name"), "{twice}");
}

/// The guide explains each field; this list has no page of its own that is generated.
#[test]
fn every_field_is_explained() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations/gateway-alone.md");
    let guide = std::fs::read_to_string(guide).expect("a guide");
    let schema = schemars::schema_for!(Entry).to_value();
    let of = |place: &str| schema.pointer(place).and_then(Value::as_object).expect(place).keys().cloned();
    let fields = of("/properties").chain(of("/$defs/Server/properties")).chain(of("/$defs/Expose/properties"));
    for field in fields {
        let written = [format!("`{field}`"), format!(".{field}`"), format!("`{field}.")];
        assert!(written.iter().any(|written| guide.contains(written)), "{field}");
    }
}

#[test]
fn the_example_is_a_whole_one() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/alone.yaml")).expect("an example");
    let list = read(&Config::parse(&text).expect("a configuration")).expect("fit");
    assert_eq!(list.len(), 2);
}
