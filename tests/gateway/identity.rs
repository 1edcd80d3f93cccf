//! Who a request comes from, and that nobody can say otherwise.

use std::sync::Arc;

use jiff::Timestamp;
use portico::config::GatewayConfig;
use portico::runtime::clock::Clock;
use portico::tenant::Assertion;

use crate::support::pki::Pki;
use crate::world::{World, status, text};

#[tokio::test]
async fn certificates_become_front_proxy_headers() {
    let world = World::start().await;
    for is_http2 in [false, true] {
        let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(is_http2).await;
        text(client.get("/api").await).await;
        let seen = world.a.last_seen();
        assert!(seen.has_certificate);
        assert_eq!((seen.header("x-remote-user"), seen.header("x-remote-group")), (Some("jane"), Some("devs")));
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
        assert!(
            seen.headers.keys().any(|name| name.as_str().starts_with("x-remote-extra-authentication.kubernetes.io%2f"))
        );
        assert_eq!(seen.header("authorization"), None);
    }
}

/// As between API servers: one id for all that is done for a request, and in its answer.
#[tokio::test]
async fn a_request_has_one_id_in_all_audit_logs() {
    let world = World::start().await;
    for is_http2 in [false, true] {
        let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(is_http2).await;
        let all = || {
            let seen = world.a.last_seen();
            seen.headers.get_all("audit-id").iter().map(|id| id.to_str().expect("text").to_owned()).collect::<Vec<_>>()
        };
        let mut id = async |path: &str, said: &[(&str, &str)]| {
            let answer = client.get_with(path, said).await;
            let (code, id) =
                (answer.status().as_u16(), answer.headers()["audit-id"].to_str().expect("text").to_owned());
            text(answer).await;
            (code, id)
        };
        let said = id("/api", &[("audit-id", "of-the-caller"), ("audit-id", "another")]).await;
        assert_eq!((said, all()), ((200, "of-the-caller".to_owned()), vec!["of-the-caller".to_owned()]));
        let (_, made) = id("/api", &[("audit-id", "not (one)")]).await;
        assert_eq!((made.len(), all()), (36, vec![made.clone()]));
        let (code, other) = id("/nothing", &[]).await;
        assert_eq!(code, 404);
        assert!(other.len() == 36 && other != made, "{other}");
    }
}

#[tokio::test]
async fn tokens_pass_on_connections_without_our_certificate() {
    let world = World::start().await;
    for is_http2 in [false, true] {
        let mut client = world.by_name(&world.a).http(is_http2).await;
        let headers = [("authorization", "Bearer abc"), ("impersonate-user", "joe"), ("X-Remote-User", "root")];
        text(client.get_with("/api", &headers).await).await;
        let seen = world.a.last_seen();
        assert!(!seen.has_certificate);
        assert_eq!(seen.header("authorization"), Some("Bearer abc"));
        assert_eq!(seen.header("impersonate-user"), Some("joe"));
        assert_eq!(seen.header("x-remote-user"), None);
    }
}

/// capsule-proxy CVE-2022-23652 and its kin.
#[tokio::test]
async fn nobody_can_spoof_or_drop_an_identity() {
    let world = World::start().await;
    for is_http2 in [false, true] {
        let mut client = world.by_name(&world.a).user(world.a.user("mallory")).http(is_http2).await;
        let mut headers = vec![
            ("X-Remote-User", "root"),
            ("x-remote-user", "system:admin"),
            ("X-REMOTE-GROUP", "system:masters"),
            ("X-Remote-Extra-Scopes", "all"),
            ("X-Remote-Uid", "0"),
            ("X-Remote-Future", "new"),
            ("X-Forwarded-For", "10.0.0.1"),
            ("X-Forwarded-Host", "beta.example.com"),
        ];
        if !is_http2 {
            headers.push(("Connection", "X-Remote-User, X-Remote-Group, Impersonate-User, Authorization"));
        }
        text(client.get_with("/api", &headers).await).await;
        let seen = world.a.last_seen();
        let all = |name: &str| seen.headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>();
        assert_eq!(all("x-remote-user"), ["mallory"]);
        assert_eq!(all("x-remote-group"), ["devs"]);
        assert_eq!(all("x-forwarded-for"), ["127.0.0.1"]);
        for absent in ["x-remote-uid", "x-remote-extra-scopes", "x-remote-future", "x-forwarded-host", "connection"] {
            assert!(all(absent).is_empty(), "{absent}");
        }
        let before = world.a.api.seen().len();
        for name in ["X_Remote_User", "Impersonate_User", "Impersonate-Everything"] {
            let mut client = world.by_name(&world.a).user(world.a.user("mallory")).http(is_http2).await;
            assert_eq!(status(client.get_with("/api", &[(name, "root")]).await).await.0, 400, "{name}");
        }
        assert_eq!(world.a.api.seen().len(), before);
    }
}

#[tokio::test]
async fn foreign_and_unfit_certificates_are_401() {
    let world = World::start().await;
    let (a, b) = (&world.a, &world.b);
    let unfit = [
        b.user("jane"),
        Pki::new("client CA").client("jane", &["system:masters"]),
        a.client_ca.server(&["jane"]),
        a.server_ca.client("jane", &["devs"]),
    ];
    for user in unfit {
        for is_http2 in [false, true] {
            for dial in [world.by_name(a), world.by_port(a)] {
                let mut client = dial.user(user.clone()).http(is_http2).await;
                assert_eq!(status(client.get("/api").await).await, (401, "Unauthorized".to_owned()));
            }
        }
    }
    assert!(a.api.seen().is_empty());
}

#[tokio::test]
async fn certificates_are_refused_outside_their_time() {
    let clock = Clock::seeded(Timestamp::UNIX_EPOCH, 1);
    let world = World::with(GatewayConfig::default(), clock).await;
    let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    assert_eq!(status(client.get("/api").await).await.0, 401);
    assert!(world.a.api.seen().is_empty());
}

/// capsule-proxy CVE-2023-48312: what was tried and failed is never anonymous.
#[tokio::test]
async fn anonymous_only_where_allowed_and_never_after_a_failure() {
    let world = World::start().await;
    let open = portico::tenant::Tenant { anonymous: true, ..world.a.tenant(2, &world.a.client_ca, &world.clock) };
    world.registry.put(&Arc::new(open));
    for is_http2 in [false, true] {
        let mut client = world.by_name(&world.b).http(is_http2).await;
        for path in ["/api", "/readyz", "/version", "/metrics", "/"] {
            assert_eq!(status(client.get(path).await).await.0, 401, "{path}");
        }
        let mut client = world.by_name(&world.a).http(is_http2).await;
        text(client.get("/api").await).await;
        assert_eq!(world.a.last_seen().header("x-remote-user"), Some("system:anonymous"));
        let before = world.a.api.seen().len();
        for value in ["", " ", "Bearer", "Bearer ", "Basic YTpi", "Bearer  x"] {
            assert_eq!(status(client.get_with("/api", &[("authorization", value)]).await).await.0, 401, "{value:?}");
        }
        let two = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
        assert_eq!(status(client.get_with("/api", &two).await).await.0, 401);
        let mut client = world.by_name(&world.a).user(world.b.user("jane")).http(is_http2).await;
        assert_eq!(status(client.get("/api").await).await.0, 401);
        assert_eq!(world.a.api.seen().len(), before);
    }
}

#[tokio::test]
async fn identities_can_be_asserted_by_impersonation() {
    let world = World::start().await;
    let mut tenant = world.a.tenant(2, &world.a.client_ca, &world.clock);
    tenant.backend.assertion = Assertion::Impersonate;
    world.registry.put(&Arc::new(tenant));
    let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    text(client.get("/api").await).await;
    let seen = world.a.last_seen();
    assert_eq!((seen.header("impersonate-user"), seen.header("impersonate-group")), (Some("jane"), Some("devs")));
    assert_eq!(seen.header("x-remote-user"), None);
    let root = [("impersonate-user", "root"), ("impersonate-group", "system:masters")];
    assert_eq!(status(client.get_with("/api", &root).await).await.0, 403);
}

/// Go CVE-2025-68121: a change of the CA counts from the next request, not the next handshake.
#[tokio::test]
async fn a_new_client_ca_counts_from_the_next_request() {
    let world = World::start().await;
    for is_http2 in [false, true] {
        let a = &world.a;
        let generation = if is_http2 { 20 } else { 10 };
        world.registry.put(&Arc::new(a.tenant(generation, &a.client_ca, &world.clock)));
        let mut client = world.by_name(a).user(a.user("jane")).http(is_http2).await;
        text(client.get("/api").await).await;
        let fresh = Pki::new("client CA");
        world.registry.put(&Arc::new(a.tenant(generation + 1, &fresh, &world.clock)));
        assert_eq!(status(client.get("/api").await).await.0, 401);
        let mut client = world.by_name(a).user(fresh.client("jane", &[])).http(is_http2).await;
        text(client.get("/api").await).await;
    }
}
