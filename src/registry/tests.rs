use super::*;
use crate::clock::Clock;
use crate::error::Side;
use crate::names::TenantId;
use crate::upstream::{Credential, Target};

fn tenant(name: &str, generation: u64, host: &str, port: u16) -> Arc<Tenant> {
    let issued = rcgen::generate_simple_self_signed(vec![host.to_owned()]).expect("certificate");
    let (cert, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    let tls = crate::tls::client_config(cert.as_bytes(), None).expect("client configuration");
    let target = Target {
        side: Side::Backend,
        host: "127.0.0.1".to_owned(),
        port: 1,
        server_name: "backend".try_into().expect("name"),
        tls: Arc::clone(&tls),
        tls_without_identity: tls,
        credential: Credential::Certificate,
        path_prefix: String::new(),
    };
    let pool = Arc::new(Pool::new(target, Clock::system()));
    Arc::new(Tenant {
        id: TenantId::parse("team", name).expect("id"),
        uid: "u".to_owned(),
        owner: None,
        placement: crate::translate::Placement::default(),
        generation,
        hosts: vec![host.to_owned()],
        port,
        server_tls: ServerTls::from_pem(cert.as_bytes(), key.as_bytes()).expect("server tls"),
        client_trust: ClientTrust::from_pem(cert.as_bytes()).expect("trust"),
        server_ca_pem: cert,
        api: ApiClient::new(Arc::clone(&pool), http::HeaderMap::new()),
        backend: Backend { pool, assertion: Assertion::FrontProxy },
        anonymous: false,
        api_service_ip: IpAddr::from([10, 96, 0, 2]),
        dns_service_ip: IpAddr::from([10, 96, 0, 3]),
        cluster_domain: "cluster.local".to_owned(),
        pod_security: PodSecurity::Baseline,
        fingerprint: String::new(),
    })
}

#[tokio::test]
async fn a_held_name_or_port_cannot_be_taken_by_another_tenant() {
    let registry = Registry::default();
    assert!(registry.put(&tenant("victim", 1, "app.example.com", 20_000)).is_empty());
    let refused = registry.put(&tenant("attacker", 2, "app.example.com", 20_000));
    assert_eq!(refused, ["app.example.com"]);
    let snapshot = registry.load();
    let by_host = snapshot.by_host("APP.example.com.").expect("held");
    assert_eq!(by_host.id.name().as_str(), "victim");
    assert_eq!(snapshot.by_port(20_000).expect("held").id.name().as_str(), "victim");
}

#[tokio::test]
async fn a_name_is_free_again_when_its_holder_leaves() {
    let registry = Registry::default();
    registry.put(&tenant("one", 1, "app.example.com", 20_000));
    registry.put(&tenant("two", 2, "app.example.com", 20_002));
    let mut changes = registry.subscribe();
    registry.remove(&TenantId::parse("team", "one").expect("id"));
    assert!(changes.has_changed().expect("alive"));
    changes.mark_unchanged();
    let snapshot = registry.load();
    assert_eq!(snapshot.by_host("app.example.com").expect("taken over").id.name().as_str(), "two");
    assert!(snapshot.by_port(20_000).is_none());
}

#[tokio::test]
async fn a_loaded_snapshot_keeps_its_generation() {
    let registry = Registry::default();
    registry.put(&tenant("one", 1, "a.example.com", 20_000));
    let before = registry.load();
    registry.put(&tenant("one", 2, "a.example.com", 20_000));
    assert_eq!(before.by_port(20_000).expect("old").generation, 1);
    assert_eq!(registry.load().by_port(20_000).expect("new").generation, 2);
}
