//! Which tenant a request reaches, and that nothing can make it another's.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use portico::config::GatewayConfig;
use portico::runtime::clock::Clock;

use crate::world::{Dial, World, status, text};

#[tokio::test]
async fn port_name_and_path_reach_their_tenant() {
    let world = World::start().await;
    for is_http2 in [false, true] {
        for cluster in [&world.a, &world.b] {
            let user = || cluster.user("jane");
            let mut named = world.by_name(cluster).user(user()).http(is_http2).await;
            assert_eq!(text(named.get("/api/v1/pods?limit=1&x=%2F").await).await, cluster.name);
            let seen = cluster.last_seen();
            assert_eq!((seen.path.as_str(), seen.query.as_str()), ("/api/v1/pods", "limit=1&x=%2F"));
            let mut ported = world.by_port(cluster).user(user()).http(is_http2).await;
            assert_eq!(text(ported.get("/version").await).await, cluster.name);
            for host in ["kubernetes", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local:443"] {
                assert_eq!(text(ported.get_at(host, "/version", &[]).await).await, cluster.name, "{host}");
            }
            let mut pathed = world.by_path().user(user()).http(is_http2).await;
            let path = format!("/clusters/team/{}/apis/a%2Fb", cluster.name);
            assert_eq!(text(pathed.get(&path).await).await, cluster.name);
            assert_eq!(cluster.last_seen().path, "/apis/a%2Fb");
        }
    }
}

#[tokio::test]
async fn a_request_that_disagrees_with_its_connection_is_421() {
    let world = World::start().await;
    let (a, b) = (&world.a, &world.b);
    for is_http2 in [false, true] {
        let hosts =
            ["beta.example.com", "BETA.example.com", "beta.example.com.", "beta.example.com:8443", "other.example.com"];
        for host in hosts {
            let mut client = world.by_name(a).user(a.user("mallory")).http(is_http2).await;
            assert_eq!(status(client.get_at(host, "/api", &[]).await).await.0, 421, "{host}");
        }
        for dial in [world.by_name(a), world.by_port(a)] {
            let mut client = dial.user(a.user("mallory")).http(is_http2).await;
            assert_eq!(status(client.get("/clusters/team/beta/api").await).await.0, 421);
        }
        for dial in [world.by_path(), world.by_port(a)] {
            let mut client = dial.user(a.user("mallory")).http(is_http2).await;
            assert_eq!(status(client.get_at("beta.example.com", "/clusters/team/beta/api", &[]).await).await.0, 421);
        }
    }
    assert!(a.api.seen().is_empty() && b.api.seen().is_empty());
    assert!(world.metrics.render().expect("metrics").contains("portico_gateway_misdirected_total"));
}

/// Starlette CVE-2026-48710: what two layers could read differently is refused before routing.
#[tokio::test]
async fn a_second_or_malformed_host_is_400() {
    let world = World::start().await;
    let mut client = world.by_name(&world.a).user(world.a.user("mallory")).http(true).await;
    assert_eq!(status(client.get_with("/api", &[("host", "beta.example.com")]).await).await.0, 400);
    for host in ["alpha.example.com:99999", "alpha..example.com", "x@alpha.example.com", "alpha.example.com:"] {
        let mut client = world.by_name(&world.a).user(world.a.user("mallory")).http(true).await;
        assert_eq!(status(client.get_at(host, "/api", &[]).await).await.0, 400, "{host}");
    }
    assert!(world.a.api.seen().is_empty() && world.b.api.seen().is_empty());
}

#[tokio::test]
async fn the_tenant_is_computed_for_every_request_of_a_connection() {
    let world = World::start().await;
    let (a, b) = (&world.a, &world.b);
    for is_http2 in [false, true] {
        let mut client = world.by_path().user(a.user("mallory")).http(is_http2).await;
        assert_eq!(text(client.get("/clusters/team/alpha/api").await).await, "alpha");
        assert_eq!(status(client.get("/clusters/team/beta/api").await).await, (401, "Unauthorized".to_owned()));
        assert_eq!(text(client.get("/clusters/team/alpha/api").await).await, "alpha");
        assert_eq!(status(client.get("/clusters/team/nobody/api").await).await.0, 404);
        assert_eq!(status(client.get("/api").await).await.0, 404);
    }
    assert!(b.api.seen().is_empty());
}

#[tokio::test]
async fn only_kubernetes_paths_pass() {
    let world = World::start().await;
    let a = &world.a;
    for is_http2 in [false, true] {
        let mut client = world.by_name(a).user(a.user("mallory")).http(is_http2).await;
        for path in [
            "/v1-k3s/token",
            "/cacerts",
            "/db/info",
            "//api/v1",
            "/%61pi",
            "/api;x",
            "/debug/pprof/",
            "/clusters/team",
            "/clusters%2Fteam%2Fbeta/api",
            "/clusters/team/../beta",
        ] {
            assert_eq!(status(client.get(path).await).await.0 / 100, 4, "{path}");
        }
        let mut client = world.by_name(a).user(a.user("mallory")).http(is_http2).await;
        for path in ["/api/../v1-k3s/token", "/api/%2e%2e/v1-k3s", "/api/v1/x%00", "/api/%zz", "/api%2F..%2Fcacerts"] {
            assert_eq!(status(client.get(path).await).await.0 / 100, 4, "{path}");
            client = world.by_name(a).user(a.user("mallory")).http(is_http2).await;
        }
        assert_eq!(status(client.get("/api/v1/nodes/n/proxy/exec").await).await.0, 403);
    }
    assert!(a.api.seen().is_empty());
}

/// k3s' port serves more than Kubernetes, with every CA key of the tenant for whom it believes: none of it is reached,
/// whoever asks.
#[tokio::test]
async fn the_supervisor_of_k3s_is_not_reached() {
    let world = World::start().await;
    let a = &world.a;
    for is_http2 in [false, true] {
        for user in [a.user("mallory"), a.user("system:admin")] {
            let mut named = world.by_name(a).user(user.clone()).http(is_http2).await;
            let mut ported = world.by_port(a).user(user.clone()).http(is_http2).await;
            let mut pathed = world.by_path().user(user).http(is_http2).await;
            for path in [
                "/cacerts",
                "/ping",
                "/static/charts/x.tgz",
                "/db/info",
                "/v1-k3s/server-bootstrap",
                "/v1-k3s/token",
                "/v1-k3s/config",
                "/v1-k3s/connect",
                "/v1-k3s/encrypt/config",
                "/v1-k3s/client-kubelet.crt",
            ] {
                assert_eq!(status(named.get(path).await).await.0, 404, "{path}");
                assert_eq!(status(ported.get(path).await).await.0, 404, "{path}");
                let prefixed = format!("/clusters/team/{}{path}", a.name);
                assert_eq!(status(pathed.get(&prefixed).await).await.0, 404, "{prefixed}");
            }
        }
        // Its way to nodes, and with the rights of system:masters to anything else.
        for authority in ["127.0.0.1:6444", "alpha.example.com:443"] {
            let mut client = world.by_name(a).user(a.user("system:admin")).http(is_http2).await;
            assert_eq!(client.connect(authority).await, 405, "{authority}");
        }
    }
    assert!(a.api.seen().is_empty());
}

/// RUSTSEC-2024-0399: a split ClientHello must neither panic nor be misread.
#[tokio::test]
async fn a_client_hello_in_single_bytes_is_understood() {
    let world = World::start().await;
    let (mut near, mut far) = tokio::io::duplex(1 << 16);
    let address = world.address;
    let trickle = portico::runtime::task::spawn("trickle", async move {
        let mut gateway = TcpStream::connect(address).await.expect("connect");
        gateway.set_nodelay(true).expect("nodelay");
        let mut hello = vec![0; 64];
        far.read_exact(&mut hello).await.expect("hello");
        for byte in hello {
            gateway.write_all(&[byte]).await.expect("byte");
            gateway.flush().await.expect("flush");
            tokio::task::yield_now().await;
        }
        let _ = tokio::io::copy_bidirectional(&mut far, &mut gateway).await;
    });
    let config = portico::tls::client_config(world.a.server_ca.ca_pem().as_bytes(), None).expect("configuration");
    let name = rustls::pki_types::ServerName::try_from("alpha.example.com").expect("name");
    let tls = tokio_rustls::TlsConnector::from(Arc::clone(&config)).connect(name, &mut near).await.expect("handshake");
    drop(tls);
    drop(trickle);
}

/// nginx CVE-2025-23419: no session of one tenant opens another; ours are never resumed at all.
#[tokio::test]
async fn no_session_is_resumed() {
    let world = World::start().await;
    let ca = world.a.server_ca.ca_pem().as_bytes();
    let user = world.a.user("jane");
    let config =
        portico::tls::client_config(ca, Some((user.certificate.as_bytes(), user.key.as_bytes()))).expect("tls");
    for _ in 0..3 {
        let stream = TcpStream::connect(world.address).await.expect("connect");
        let name = rustls::pki_types::ServerName::try_from("alpha.example.com").expect("name");
        let mut tls = tokio_rustls::TlsConnector::from(Arc::clone(&config)).connect(name, stream).await.expect("tls");
        assert_eq!(tls.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        tls.write_all(b"GET /version HTTP/1.1\r\nhost: alpha.example.com\r\nconnection: close\r\n\r\n")
            .await
            .expect("write");
        let mut answer = String::new();
        tls.read_to_string(&mut answer).await.expect("answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn each_listener_shows_its_own_certificate() {
    let world = World::start().await;
    assert!(Dial::to(world.address, &world.a.server_ca).try_tls(b"h2").await.is_err());
    assert!(world.by_name(&world.b).try_tls(b"h2").await.is_ok());
    assert!(Dial::to(world.address, &world.a.server_ca).sni("beta.example.com").try_tls(b"h2").await.is_err());
    assert!(world.by_port(&world.a).sni("beta.example.com").try_tls(b"h2").await.is_err());
}

/// A tenant that asks for the shared listener's names, in whatever spelling, gets neither their handshakes nor requests.
#[tokio::test]
async fn the_shared_names_are_no_tenants() {
    let config = GatewayConfig {
        public_url: "https://Portico.Example.com:30443".to_owned(),
        extra_sans: vec!["gw.example.net.".to_owned()],
        ..GatewayConfig::default()
    };
    let world = World::with(config, Clock::system()).await;
    let mut thief = world.a.tenant(2, &world.a.client_ca, &world.clock);
    thief.hosts.extend(["PORTICO.example.com.", "gw.example.net", "localhost"].map(str::to_owned));
    world.registry.put(&Arc::new(thief));
    assert!(Dial::to(world.address, &world.a.server_ca).sni("portico.example.com").try_tls(b"h2").await.is_err());
    let dial = Dial::to(world.address, &world.shared_ca).sni("portico.example.com");
    let mut client = dial.user(world.b.user("jane")).http(true).await;
    assert_eq!(text(client.get("/clusters/team/beta/version").await).await, "beta");
}
