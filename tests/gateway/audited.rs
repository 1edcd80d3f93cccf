//! The audit log: what is written of whom, and that nobody's flood costs another an event.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portico::archive::{self, Archive};
use portico::audit::Asks;
use portico::config::GatewayConfig;
use portico::config::audit::{AuditConfig, AuditFile, AuditPolicy, WhenFull};
use portico::runtime::clock::Clock;
use portico::tenant::Tenant;
use portico::trail::{Event, Tab, Trail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::fake::Answer;
use crate::world::{Cluster, INVENTED, PATIENCE, World, status, text};

/// Writes to a file in a folder of its own.
struct Log {
    folder: TempDir,
    archive: Archive,
}

impl Log {
    fn start(config: AuditConfig) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("audit.log").to_string_lossy().into_owned();
        let file = AuditFile { path, ..AuditFile::default() };
        let config = AuditConfig { enabled: true, file, ..config };
        Self { archive: archive::start(&config, &Clock::system()).expect("begun"), folder }
    }

    /// Every event, once nothing runs any more.
    async fn end(self) -> Vec<Value> {
        self.archive.close().await;
        read(&self.folder.path().join("audit.log"))
    }

    /// Waits for an event that is so.
    async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                if let Some(event) = read(&self.folder.path().join("audit.log")).into_iter().find(&is_so) {
                    return event;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no event {what}"))
    }
}

/// Whole lines; each must be one event.
fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

fn of<'a>(events: &'a [Value], cluster: &Cluster) -> Vec<&'a Value> {
    let name = format!("team/{}", cluster.name);
    events.iter().filter(|event| event["annotations"]["portico.dev/cluster"] == name.as_str()).collect()
}

fn dropped(world: &World, cluster: &Cluster, reason: &str) -> f64 {
    let series =
        format!("portico_audit_dropped_total{{namespace=\"team\",cluster=\"{}\",reason=\"{reason}\"}} ", cluster.name);
    let text = world.metrics.render().expect("metrics");
    text.lines().find_map(|line| line.strip_prefix(&series)).expect("a sample").parse().expect("a number")
}

#[tokio::test]
async fn what_is_done_is_written_without_what_is_secret() {
    let log = Log::start(AuditConfig::default());
    let world = World::audited(GatewayConfig::default(), log.archive.trail()).await;
    let mut jane = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    let host = world.a.host.clone();
    let path = "/api/v1/namespaces/default/pods?fieldManager=kubectl&token=s3cret";
    let headers =
        [("audit-id", "of-jane"), ("user-agent", "kubectl/v1"), ("cookie", "s3cret"), ("impersonate-user", "root")];
    let created = jane.send("POST", &host, path, &headers).await;
    assert_eq!(text(created).await, "alpha");
    assert_eq!(text(jane.get("/api/v1/namespaces/default/pods").await).await, "alpha");
    let mut stranger = world.by_name(&world.a).http(true).await;
    let refused = stranger.get_with("/api/v1/pods", &[("authorization", "Bearer s3cret")]).await;
    drop(refused);
    world.a.answer(Answer::status(403, "Forbidden", "no"));
    assert_eq!(jane.get("/api/v1/nodes").await.status(), 403);
    drop((jane, stranger, world));
    let folder = log.folder.path().to_owned();
    let (events, _keep) = (log.end().await, folder);
    let verbs: Vec<_> = events.iter().map(|event| event["verb"].as_str().expect("verb")).collect();
    assert!(
        verbs.contains(&"create") && !events.iter().any(|e| e["verb"] == "list" && e["responseStatus"]["code"] == 200)
    );
    let created = events.iter().find(|event| event["verb"] == "create").expect("created");
    assert_eq!(created["auditID"], "of-jane");
    assert_eq!(created["requestURI"], "/api/v1/namespaces/default/pods?fieldManager=kubectl");
    assert_eq!(created["user"]["username"], "jane");
    assert_eq!(created["user"]["groups"], json!(["devs", "system:authenticated"]));
    assert!(created["user"]["extra"].to_string().contains("X509SHA256="), "which of jane's certificates it was");
    assert_eq!(created["impersonatedUser"]["username"], "root");
    assert_eq!(created["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(created["userAgent"], "kubectl/v1");
    assert_eq!(created["objectRef"], json!({"resource": "pods", "namespace": "default", "apiVersion": "v1"}));
    assert_eq!(created["responseStatus"]["code"], 200);
    assert_eq!(created["annotations"]["portico.dev/credential"], "certificate");
    assert_eq!(created["annotations"]["portico.dev/decision"], "forwarded");
    assert_eq!(created["annotations"]["portico.dev/bytes-out"], "5");
    let denied = events.iter().find(|event| event["responseStatus"]["code"] == 403).expect("a refusal is written");
    assert_eq!((denied["verb"].as_str(), denied["responseStatus"]["status"].as_str()), (Some("list"), Some("Failure")));
    assert!(!json!(events).to_string().contains("s3cret"));
}

#[tokio::test]
async fn who_is_refused_is_written_and_an_outsider_fills_no_disk() {
    let log = Log::start(AuditConfig::default());
    let config = GatewayConfig { max_unknown_log_lines_per_second: 1, ..GatewayConfig::default() };
    let world = World::audited(config, log.archive.trail()).await;
    let mut outsider = world.by_name(&world.a).http(true).await;
    for _ in 0..40 {
        let refused = outsider.get_with("/api/v1/pods", &[("authorization", INVENTED)]).await;
        assert_eq!(refused.status(), 401);
        drop(text(refused).await);
    }
    let mut jane = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    let host = world.a.host.clone();
    drop(text(jane.send("DELETE", &host, "/api/v1/namespaces/default/pods/x", &[]).await).await);
    log.until("of jane", |event| event["user"]["username"] == "jane").await;
    let lost = dropped(&world, &world.a, "unknown");
    drop((outsider, jane, world));
    let events = log.end().await;
    let refused: Vec<_> = events.iter().filter(|event| event["responseStatus"]["code"] == 401).collect();
    assert!((5..35).contains(&refused.len()), "{}", refused.len());
    assert_eq!(refused.len() as f64 + lost, 40.0);
    assert_eq!(refused[0]["annotations"]["portico.dev/credential"], "token");
}

#[tokio::test]
async fn a_flood_costs_nobody_else_an_event() {
    let log = Log::start(AuditConfig { max_events_per_second_per_tenant: 2, ..AuditConfig::default() });
    let world = World::audited(GatewayConfig::default(), log.archive.trail()).await;
    let mut mallory = world.by_name(&world.a).user(world.a.user("mallory")).http(true).await;
    let mut jane = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    let (hostile, quiet) = (world.a.host.clone(), world.b.host.clone());
    for n in 0..200 {
        let name = format!("/api/v1/namespaces/default/pods/{n}");
        assert_eq!(text(mallory.send("DELETE", &hostile, &name, &[]).await).await, "alpha");
        if n % 20 == 0 {
            assert_eq!(text(jane.send("DELETE", &quiet, &name, &[]).await).await, "beta");
        }
    }
    log.until("of the last", |event| event["objectRef"]["name"] == "180" && event["user"]["username"] == "jane").await;
    world.metric_becomes("portico_gateway_requests_in_flight", &world.a, 0.0).await;
    let (lost, others) = (dropped(&world, &world.a, "rate"), dropped(&world, &world.b, "rate"));
    let (a, b) = (world.a.name, &world.b);
    let events = log.end().await;
    assert_eq!(of(&events, b).len(), 10);
    let hostile = events.iter().filter(|event| event["user"]["username"] == "mallory").count();
    assert!((20..200).contains(&hostile), "{a}: {hostile}");
    assert_eq!((hostile as f64 + lost, others), (200.0, 0.0));
}

/// A tenant adds what it asks for, where that counts, and takes nothing away.
#[tokio::test]
async fn a_tenants_rules_add_and_never_take_away() {
    for counts in [true, false] {
        let log = Log::start(AuditConfig { tenants: counts, ..AuditConfig::default() });
        let world = World::audited(GatewayConfig::default(), log.archive.trail()).await;
        let mut tenant = world.a.tenant(2, &world.a.client_ca, &world.clock);
        let rules = json!({"rules": [
            {"level": "None", "verbs": ["delete"]},
            {"level": "Metadata", "verbs": ["get"], "resources": [{"group": "", "resources": ["configmaps"]}]},
        ]});
        let asks = Asks::new(&serde_json::from_value(rules).expect("audit")).expect("fit");
        tenant.audit = Some(Arc::new(asks));
        world.registry.put(&Arc::new(tenant));
        for cluster in [&world.a, &world.b] {
            let mut jane = world.by_name(cluster).user(cluster.user("jane")).http(true).await;
            let host = cluster.host.clone();
            for (verb, kind) in [("GET", "configmaps"), ("GET", "pods"), ("DELETE", "pods")] {
                let path = format!("/api/v1/namespaces/default/{kind}/x");
                drop(text(jane.send(verb, &host, &path, &[]).await).await);
            }
            let last = |event: &Value| {
                event["verb"] == "delete"
                    && event["annotations"]["portico.dev/cluster"] == format!("team/{}", cluster.name)
            };
            log.until("of the last", last).await;
        }
        let events = log.end().await;
        let verbs =
            |cluster| of(&events, cluster).iter().map(|e| e["verb"].as_str().expect("verb")).collect::<Vec<_>>();
        assert_eq!(verbs(&world.a), if counts { vec!["get", "delete"] } else { vec!["delete"] });
        assert_eq!(verbs(&world.b), ["delete"]);
    }
}

#[tokio::test]
async fn a_watch_is_written_when_it_begins_and_when_it_ends() {
    let all = serde_json::from_value(json!({"rules": [{"level": "Metadata"}]})).expect("a policy");
    let log = Log::start(AuditConfig { policy: all, ..AuditConfig::default() });
    let world = World::audited(GatewayConfig::default(), log.archive.trail()).await;
    let mut jane = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    let (answer, rest) = Answer::stream();
    world.a.answer(answer);
    let watch = jane.get("/api/v1/pods?watch=true").await;
    let begun = log.until("of the beginning", |event| event["stage"] == "ResponseStarted").await;
    assert_eq!((begun["verb"].as_str(), begun["responseStatus"]["code"].as_u64()), (Some("watch"), Some(200)));
    drop(rest);
    drop(text(watch).await);
    let ended = log.until("of the end", |event| event["stage"] == "ResponseComplete").await;
    assert_eq!(ended["auditID"], begun["auditID"]);
}

/// What waits is all of others' here, of so many that no even part holds one event more.
#[tokio::test]
async fn where_nothing_can_be_written_requests_that_would_be_are_not_done() {
    let config = AuditConfig { when_full: WhenFull::Block, max_queued_bytes: 1 << 20, ..AuditConfig::default() };
    let trail = Trail::new(&config).expect("a trail");
    let world = World::audited(GatewayConfig::default(), &trail).await;
    let others: Vec<Arc<Tab>> = (0..40).map(|_| Arc::default()).collect();
    let mut held = Vec::new();
    for tab in others.iter().cycle().take(160) {
        held.extend(trail.promise(tab, true, Instant::now()));
    }
    let mut jane = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    let (host, path) = (world.b.host.clone(), "/api/v1/namespaces/default/pods/x");
    let refused = jane.send("DELETE", &host, path, &[]).await;
    assert_eq!(refused.headers()["retry-after"], "2");
    let message = text(refused).await;
    assert!(message.contains("the audit log cannot be written") && message.contains("503"), "{message}");
    assert!(world.b.api.seen().is_empty());
    assert_eq!(text(jane.get(path).await).await, "beta", "what leaves no event goes on");
    drop(held);
    assert_eq!(text(jane.send("DELETE", &host, path, &[]).await).await, "beta");
}

/// Nothing is written here, so what waits grows until it is taken.
#[tokio::test]
async fn where_requests_wait_they_are_refused_before_they_are_done() {
    let config = AuditConfig {
        when_full: WhenFull::Block,
        max_queued_bytes: 1 << 20,
        policy: AuditPolicy::default(),
        ..AuditConfig::default()
    };
    let trail = Trail::new(&config).expect("a trail");
    let world = World::audited(GatewayConfig::default(), &trail).await;
    let mut mallory = world.by_name(&world.a).user(world.a.user("mallory")).http(true).await;
    let mut jane = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    let (hostile, quiet) = (world.a.host.clone(), world.b.host.clone());
    let path = "/api/v1/namespaces/default/pods/x";
    let mut done = 0;
    let refused = loop {
        let answer = mallory.send("DELETE", &hostile, path, &[]).await;
        if answer.status() != 200 {
            break answer;
        }
        drop(text(answer).await);
        done += 1;
        assert!(done < 5000, "nobody is refused");
    };
    assert!(done > 50, "{done}");
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(status(refused).await, (429, "TooManyRequests".to_owned()));
    assert_eq!(world.a.api.seen().len(), done, "it was not done");
    assert_eq!(text(mallory.get(path).await).await, "alpha", "what leaves no event goes on");
    assert_eq!(text(jane.send("DELETE", &quiet, path, &[]).await).await, "beta", "and so do others");
    assert_eq!(world.metric("portico_audit_refused_total", &world.a), 1.0);
    let mut written = 0;
    while written < done {
        let taken = trail.take(Duration::from_secs(1));
        trail.done(&taken.events);
        written += taken.events.len();
    }
    assert_eq!(text(mallory.send("DELETE", &hostile, path, &[]).await).await, "alpha", "and then he may again");
}

/// As many watches as their tenant may have events waiting, and more: what is open keeps nobody's place.
#[tokio::test]
async fn a_watch_whose_beginning_is_not_written_keeps_no_place() {
    let policy = json!({"rules": [{"level": "Metadata"}], "omitStages": ["ResponseStarted"]});
    let policy = serde_json::from_value(policy).expect("a policy");
    let config =
        AuditConfig { when_full: WhenFull::Block, max_queued_bytes: 1 << 20, policy, ..AuditConfig::default() };
    let trail = Trail::new(&config).expect("a trail");
    let world = World::audited(GatewayConfig::default(), &trail).await;
    let mut jane = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    let mut open = Vec::new();
    for n in 0..40 {
        let (answer, rest) = Answer::stream();
        world.a.answer(answer);
        let watch = jane.get("/api/v1/pods?watch=true").await;
        assert_eq!(watch.status(), 200, "{n}");
        open.push((watch, rest));
    }
    assert_eq!(trail.waiting(), 0);
    drop(open);
}

/// A place was promised to who is not known, and his request is done: no flood of others' takes its event away.
#[tokio::test]
async fn what_is_promised_to_strangers_is_written_whoever_fills_their_lines() {
    let config = AuditConfig { when_full: WhenFull::Block, ..AuditConfig::default() };
    let trail = Trail::new(&config).expect("a trail");
    let world =
        World::audited(GatewayConfig { max_unknown_log_lines_per_second: 1, ..GatewayConfig::default() }, &trail);
    let world = world.await;
    let tenant = world.a.tenant(2, &world.a.client_ca, &world.clock);
    world.registry.put(&Arc::new(Tenant { anonymous: true, ..tenant }));
    let mut outsider = world.by_name(&world.b).http(true).await;
    for _ in 0..20 {
        drop(text(outsider.get_with("/api/v1/pods", &[("authorization", INVENTED)]).await).await);
    }
    let (mut nobody, host) = (world.by_name(&world.a).http(true).await, world.a.host.clone());
    for n in 0..5 {
        let path = format!("/api/v1/namespaces/default/pods/{n}");
        assert_eq!(text(nobody.send("DELETE", &host, &path, &[]).await).await, "alpha");
    }
    world.metric_becomes("portico_gateway_requests_in_flight", &world.a, 0.0).await;
    let written = async {
        let mut written = 0;
        while written < 5 {
            let lines = trail.take(Duration::from_millis(20)).events;
            let of_nobody = |event: &&Event| String::from_utf8_lossy(&event.line).contains("system:anonymous");
            written += lines.iter().filter(of_nobody).count();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("all five");
}
