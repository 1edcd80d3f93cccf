//! What is logged when everything is logged: no secret that a caller, a body, a stream or a backend brings.
//!
//! Also what the libraries write, which comes out in the same way when somebody sets `log.filter: trace`.

use base64::Engine as _;
use serde_json::json;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::support::logged::{Lines, showing};
use crate::support::tokens::{CONFIGURATION, Key, SET, claims, documents};
use crate::world::{World, echoing, spdy, websocket};

/// Each is looked for as it is, in base64 and as bytes in hexadecimal.
const PLANTED: [&str; 11] = [
    "planted-bearer-token",
    "planted-cookie",
    "planted-websocket-token",
    "planted-command-secret",
    "planted-secret-payload",
    "planted-url-password",
    "planted-query-token",
    "planted-basic-password",
    "planted-answer-secret",
    "planted-stream-bytes",
    "planted-service-annotation",
];

/// Whose name would be a line of its own, and a colour.
const FORGER: &str = "eve code=200\nforged line \u{1b}[2J";

fn encoded(secret: &str) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret)
}

/// Requests with every planted secret, that succeed and that fail, of callers who are known and who are not.
fn requests() -> Vec<String> {
    let bearer = "authorization: Bearer planted-bearer-token\ncookie: session=planted-cookie";
    let payload = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "planted-secret-payload"},
        "data": {"q": encoded("planted-secret-payload")}})
    .to_string();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "annotations": {"a": "planted-service-annotation"}},
        "spec": {"ports": [{"port": 1}]}})
    .to_string();
    let post = |path: &str, fields: &str, body: &str| {
        format!(
            "POST {path}\n{fields}\ncontent-type: application/json\nconnection: close\ncontent-length: {}\n\n{body}",
            body.len()
        )
    };
    let exec = |request: &str| {
        request.replace("command=-c", "command=planted-command-secret").replace("=id", "=planted-command-secret")
    };
    let subprotocol = format!(
        "sec-websocket-protocol: base64url.bearer.authorization.k8s.io.{}, v5.channel.k8s.io",
        encoded("planted-websocket-token")
    );
    let by_subprotocol = exec(&websocket("web")).replace("sec-websocket-protocol: v5.channel.k8s.io", &subprotocol);
    let mut all = vec![
        format!("GET /api/v1/namespaces/default/secrets/s\nconnection: close\n{bearer}"),
        format!(
            "GET /api/v1/namespaces/default/secrets/s\nconnection: close\n{bearer}\nauthorization: Bearer planted-bearer-token"
        ),
        "GET /api/v1/pods\nconnection: close\nauthorization: Basic planted-basic-password".to_owned(),
        "GET /api/v1/pods?token=planted-query-token&password=planted-url-password\nconnection: close".to_owned(),
        "GET /api/v1/pods?token=planted-query-token&password=planted-url-password&labelSelector=%zz\nconnection: close"
            .to_owned(),
        "GET https://user:planted-url-password@alpha.example.com/api\nconnection: close".to_owned(),
        "GET /api/v1/namespaces/default/secrets/s\nconnection: close".to_owned(),
        post("/api/v1/namespaces/default/secrets", "", &payload),
        post("/api/v1/namespaces/default/secrets", bearer, &payload),
        post("/api/v1/namespaces/default/services", "", &service),
        post("/api/v1/namespaces/default/services", bearer, &service),
        post("/api/v1/namespaces/default/services", "", "{\"metadata\": \"planted-secret-payload\""),
        by_subprotocol,
        exec(&websocket("web")) + "\n" + bearer,
    ];
    for pod in ["web", "nothing", "strange"] {
        all.extend([exec(&websocket(pod)), exec(&spdy(pod))]);
    }
    all
}

/// CVE-2019-11250, CVE-2020-8565 and their kin.
#[tokio::test]
async fn no_secret_is_logged_however_much_is() {
    let lines = Lines::default();
    // Of all tests of this program: on one thread alone it would depend on which of them came first to a line.
    lines.of_everything().init();
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    world.pod(&world.a, "strange");
    world.host_pod(&world.a, "strange", "uid-of-another", "alpha");
    let secret = json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"p": "planted-answer-secret"}});
    world.a.objects.put("/api/v1/namespaces/default/secrets/s", secret);
    for user in [Some("jane"), Some("reader"), None] {
        for request in requests() {
            let mut wire = world.connect(&world.a, user).await;
            wire.send(&request, &world.a).await;
            if wire.head().await.code == 101 {
                let (back, _) = wire.both(b"planted-stream-bytes".to_vec()).await;
                assert_eq!(back, b"planted-stream-bytes");
            }
        }
    }
    let mut wire = world.connect(&world.a, Some(FORGER)).await;
    wire.send("GET /api/v1/pods\nconnection: close", &world.a).await;
    wire.head().await;
    let signed = with_signed_tokens(&world).await;
    tokio::task::yield_now().await;
    let text = lines.text();
    assert!(text.contains("access: request"), "the access log is there");
    assert!(text.lines().count() > 500, "and much else: {}", text.lines().count());
    assert!(text.contains(r#"user="eve code=200\nforged line \u{1b}[2J""#), "in one line, between quotes");
    assert!(!text.lines().any(|line| line.starts_with("forged")), "a line of the caller's own");
    let mut found = Vec::new();
    for secret in PLANTED {
        let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        found.extend(showing(&text, secret, [secret.to_owned(), encoded(secret), hex]));
    }
    for token in &signed {
        let signature = token.rsplit('.').next().expect("three parts");
        found.extend(showing(&text, "a token", [signature.to_owned()]));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    let said = |user: &str, what: &str| text.lines().any(|line| line.contains(user) && line.contains(what));
    assert!(said("user=\"system:serviceaccount:default:web\"", "code=403"), "whose a token is");
    assert!(said("user=\"(token)\"", "flag=\"TSIG\""), "and what is wrong with one");
}

/// One that the cluster's keys verify, and one that they do not.
async fn with_signed_tokens(world: &World) -> [String; 2] {
    let (key, claims) = (Key::ec(), claims("web", jiff::Timestamp::now().as_second()));
    let [configuration, set] = documents(&[&key]);
    world.a.objects.put(CONFIGURATION, configuration);
    world.a.objects.put(SET, set);
    let tokens = [key.of(&claims), Key::ec().token(&key.head(), &claims)];
    world.a.objects.put(&format!("Bearer {}", tokens[0]), json!("eve"));
    for (token, code) in tokens.iter().zip([403, 401]) {
        let mut wire = world.connect(&world.a, None).await;
        wire.send(&format!("{}\nauthorization: Bearer {token}", websocket("web")), &world.a).await;
        assert_eq!(wire.head().await.code, code);
    }
    tokens
}
