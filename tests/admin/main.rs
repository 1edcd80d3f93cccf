//! Metrics with real TLS: who may read them is judged by a fake host, and who may not keeps nobody out.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/support.rs"]
mod support;

mod listeners;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use portico::admin::{self, Access, Bound, Parts, Readiness};
use portico::error::Side;
use portico::kubernetes::ApiClient;
use portico::runtime::clock::Clock;
use portico::runtime::drain::{self, DrainTrigger};
use portico::runtime::telemetry::{Families, Metrics, Source};
use portico::runtime::watched::Watched;
use portico::tls::{ServerTls, SharedCertificate, client_config};
use portico::upstream::Pool;
use rustls::pki_types::ServerName;
use serde_json::json;
use support::fake::{Answer, FakeApi, Seen};
use support::pki::Pki;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

const PATIENCE: Duration = Duration::from_secs(30);
const LOCAL: [u8; 4] = [127, 0, 0, 1];
const SHOWN: &str = "portico_shown 1";

struct Shown;

impl Source for Shown {
    fn collect(&self, families: &mut Families) {
        families.gauge("portico_shown", "Help.", &[], 1.0);
    }
}

/// Knows `prometheus`, who may read metrics, and `jane`, who may not. `broken` is a token that it fails on, about `hangs…` it
/// says nothing.
fn judge(seen: &Seen) -> Answer {
    let asked = seen.json();
    match seen.path.as_str() {
        "/apis/authentication.k8s.io/v1/tokenreviews" => match asked["spec"]["token"].as_str().expect("a token") {
            "broken" => Answer::status(500, "InternalError", "etcd is away"),
            hangs if hangs.starts_with("hangs") => Answer::Hang,
            name @ ("prometheus" | "jane") => {
                let user = json!({"username": name, "uid": "u", "groups": ["g"], "extra": {"k": ["v"]}});
                Answer::json(201, &json!({"status": {"authenticated": true, "user": user}}))
            }
            _ => Answer::json(201, &json!({"status": {"error": "not known"}})),
        },
        "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
            let spec = &asked["spec"];
            assert_eq!(spec["nonResourceAttributes"], json!({"path": "/metrics", "verb": "get"}));
            assert_eq!((&spec["groups"], &spec["extra"]), (&json!(["g"]), &json!({"k": ["v"]})));
            Answer::json(201, &json!({"status": {"allowed": spec["user"] == "prometheus"}}))
        }
        other => panic!("{other} is not asked for"),
    }
}

struct World {
    host: FakeApi,
    ca: Pki,
    bound: Bound,
    _trigger: DrainTrigger,
}

impl World {
    async fn start(has_certificate: bool) -> Self {
        let host = FakeApi::start(|seen| std::future::ready(judge(&seen))).await;
        let pool = Arc::new(Pool::new(host.target(Side::Host), Clock::system()));
        let (ca, certificate) = (Pki::new("shared CA"), SharedCertificate::default());
        if has_certificate {
            let serving = ca.server(&["127.0.0.1"]);
            certificate.set(ServerTls::from_pem(serving.certificate.as_bytes(), serving.key.as_bytes()).expect("tls"));
        }
        let metrics = Metrics::default();
        metrics.register(Arc::new(Shown));
        let (trigger, drain) = drain::channel();
        let parts = Parts {
            probes: (LOCAL, 0).into(),
            metrics_listen: (LOCAL, 0).into(),
            access: Access::Reviewed { host: ApiClient::new(pool, HeaderMap::new()), certificate },
            readiness: Readiness::default(),
            metrics,
            watched: Watched::new(Clock::system()),
        };
        let bound = admin::run(parts, &drain).await.expect("bound");
        Self { host, ca, bound, _trigger: trigger }
    }

    /// Everything that comes back for a GET of `/metrics` with these header lines.
    async fn scrape(&self, headers: &str) -> std::io::Result<String> {
        self.scrape_from(LOCAL.into(), headers).await
    }

    async fn scrape_from(&self, source: IpAddr, headers: &str) -> std::io::Result<String> {
        let mut config = rustls::ClientConfig::clone(&client_config(self.ca.ca_pem().as_bytes(), None).expect("roots"));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source, 0))?;
        let stream = socket.connect(self.bound.metrics).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(ServerName::from(self.bound.metrics.ip()), stream).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("the connection ends")?;
        Ok(answer)
    }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[tokio::test]
async fn metrics_are_for_whom_the_host_allows_them() {
    let world = World::start(true).await;
    for headers in ["", "Authorization: Basic cHJvbWV0aGV1cw==\r\n", "Authorization: Bearer \r\n"] {
        let answer = world.scrape(headers).await.expect("answer");
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("www-authenticate: Bearer"), "{answer}");
    }
    let doubled = world.scrape(&bearer("prometheus").repeat(2)).await.expect("answer");
    assert!(doubled.starts_with("HTTP/1.1 401"), "{doubled}");
    assert!(world.host.seen().is_empty(), "nothing to ask about");

    for (token, code) in [("invented", "401"), ("jane", "403"), ("broken", "503")] {
        let answer = world.scrape(&bearer(token)).await.expect("answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")) && !answer.contains(SHOWN), "{token}: {answer}");
        assert!(!answer.contains("etcd"), "{answer}");
    }
    let asked = world.host.seen().len();
    for _ in 0..3 {
        let answer = world.scrape(&bearer("prometheus")).await.expect("answer");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(SHOWN), "{answer}");
    }
    assert_eq!(world.host.seen().len(), asked + 2, "remembered for a moment");
}

#[tokio::test]
async fn a_flood_of_invented_tokens_keeps_no_scraper_out() {
    let world = Arc::new(World::start(true).await);
    let floods: Vec<_> = (0..20)
        .map(|n| {
            let world = Arc::clone(&world);
            portico::runtime::task::spawn("flood", async move {
                for m in 0.. {
                    let _ = world.scrape_from([127, 0, 0, 2].into(), &bearer(&format!("invented-{n}-{m}"))).await;
                }
            })
        })
        .collect();
    for _ in 0..10 {
        let answer = world.scrape(&bearer("prometheus")).await.expect("answer");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(SHOWN), "{answer}");
    }
    drop(floods);
}

/// Who leaves keeps his place for as long as his token is judged: other connections bring no more questions.
#[tokio::test]
async fn strangers_have_their_places_whether_they_wait_or_not() {
    let world = World::start(true).await;
    let accepted = world.scrape(&bearer("prometheus")).await.expect("answer");
    assert!(accepted.starts_with("HTTP/1.1 200"), "{accepted}");
    let known = world.host.seen().len();
    let mut asked = known;
    let sources = (2..=5).map(|n| IpAddr::from([127, 0, 0, n]));
    for (token, source) in sources.clone().flat_map(|source| [source; 2]).enumerate() {
        asked += 1;
        let header = bearer(&format!("hangs-{token}"));
        tokio::select! {
            _ = world.scrape_from(source, &header) => panic!("the host has not answered"),
            _ = world.host.wait_seen(asked) => {}
        }
        if token == 1 {
            let more = world.scrape_from(source, &bearer("hangs-of-one")).await.expect("answer");
            assert!(more.starts_with("HTTP/1.1 429") && more.contains("retry-after: 1"), "one address: {more}");
        }
    }
    for source in sources.chain([IpAddr::from([127, 0, 0, 6])]) {
        let more = world.scrape_from(source, &bearer("hangs-too")).await.expect("answer");
        assert!(more.starts_with("HTTP/1.1 429") && more.contains("retry-after: 1"), "{source}: {more}");
        let scraped = world.scrape_from(source, &bearer("prometheus")).await.expect("answer");
        assert!(scraped.starts_with("HTTP/1.1 200") && scraped.contains(SHOWN), "who is known is let in: {scraped}");
    }
    assert_eq!(world.host.seen().len() - known, 8);
}

#[tokio::test]
async fn who_shows_the_same_token_waits_for_the_same_judgement() {
    let world = World::start(true).await;
    let token = bearer("hangs");
    for answer in futures::future::join_all((0..3).map(|_| world.scrape(&token))).await {
        let answer = answer.expect("answer");
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    }
    assert_eq!(world.host.seen().len(), 1);
}

#[tokio::test]
async fn without_a_certificate_nobody_is_served() {
    let world = World::start(false).await;
    assert!(world.scrape(&bearer("prometheus")).await.is_err());
    assert!(world.host.seen().is_empty());
}
