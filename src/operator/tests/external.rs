//! Rounds over clusters whose API server a user named.

use std::net::TcpListener;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

fn kubeconfig(server: &str) -> Value {
    let issued = rcgen::generate_simple_self_signed(vec!["theirs".to_owned()]).expect("certificate");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server,
            "certificate-authority-data": STANDARD.encode(issued.cert.pem())}}],
        "users": [{"name": "u", "user": {"token": "invented"}}],
    });
    let data = json!({"config": STANDARD.encode(text.to_string())});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "theirs"}, "data": data})
}

/// As a real one asks, and a cluster whose kubeconfig leads there.
async fn round(server: &str, configuration: &str) -> Value {
    let mut world = World::new();
    let mut config = Config::parse(configuration).expect("valid");
    config.host.system_namespace = SYSTEM.to_owned();
    world.context.reaches = Arc::new(Reaches::new(&config, "10.96.0.1"));
    world.context.backends = Arc::new(Asked { clock: world.context.clock.clone(), registry: Arc::default() });
    world.host.put(&SECRETS, "team-a", kubeconfig(server));
    world.add("team-a", "ext", json!({"distro": "external", "backend": {"kubeconfigSecret": {"name": "theirs"}}}));
    let (_, status) = world.round("team-a", "ext").await;
    status
}

#[tokio::test]
async fn a_server_at_a_closed_address_is_never_asked_and_its_owner_told() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let here = listener.local_addr().expect("address");
    for (server, address) in [
        (format!("https://{here}"), "127.0.0.1"),
        (format!("https://[::ffff:127.0.0.1]:{}", here.port()), "::ffff:127.0.0.1"),
        ("https://169.254.169.254".to_owned(), "169.254.169.254"),
        ("https://10.96.0.1".to_owned(), "10.96.0.1"),
    ] {
        let status = round(&server, "").await;
        let said = World::condition(&status, condition::CONTROL_PLANE);
        assert_eq!(said, ("False".to_owned(), "AddressRefused".to_owned()), "{status}");
        let message = status["message"].as_str().expect("text");
        assert!(message.contains(address) && message.contains("`allowedBackends`"), "{message}");
        assert_eq!(status["phase"], "Failed");
    }
    let nobody = listener.accept().expect_err("nobody came");
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
    // Where the admin lists it, it is asked: this one has no certificate to show.
    let status = round(&format!("https://{here}"), "policy: {allowedBackends: [127.0.0.1/32]}").await;
    assert_eq!(World::condition(&status, condition::CONTROL_PLANE).1, "NoAnswer", "{status}");
    listener.accept().expect("somebody came");
}
