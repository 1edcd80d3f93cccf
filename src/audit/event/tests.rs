use proptest::prelude::*;
use serde_json::Value;

use super::*;

const SECRET: &str = "s3cret";

fn draft(path: &str, query: &str, object: Option<Object>, agent: &str, impersonated: Option<User>) -> Draft {
    Draft::new(Asked {
        received: "2026-01-01T00:00:00.000001Z".parse().expect("time"),
        cluster: "team/dev".to_owned(),
        audit_id: "8f2a",
        verb: "create",
        path,
        query,
        object,
        with_command: false,
        source: [192, 0, 2, 1].into(),
        agent: agent.as_bytes(),
        impersonated,
    })
}

fn read(draft: &Draft, stage: Stage, outcome: &Outcome) -> Value {
    let line = draft.line(stage, "2026-01-01T00:00:01Z".parse().expect("time"), outcome);
    assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
    assert_eq!(line.last(), Some(&b'\n'));
    serde_json::from_slice(&line).expect("JSON")
}

#[test]
fn an_event_has_the_form_of_kubernetes() {
    let object = Object::new(("", "v1"), ("pods", "exec"), ("default", "web"));
    let mut draft = draft("/api/v1/x", "command=sh&stdin=true&token=s3cret", Some(object), "kubectl/v1", None);
    let groups = vec!["devs".to_owned()];
    draft.is_of(User { username: "jane".to_owned(), groups, ..User::default() }, "certificate");
    draft.is_on("web-x-default-x-dev", "node-1");
    let outcome = Outcome { code: 101, decision: "forwarded", received: 5, sent: 7, ..Outcome::default() };
    let event = read(&draft, Stage::ResponseComplete, &outcome);
    let expected = serde_json::json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "8f2a",
        "stage": "ResponseComplete", "requestURI": "/api/v1/x?stdin=true", "verb": "create",
        "user": {"username": "jane", "groups": ["devs"]}, "sourceIPs": ["192.0.2.1"], "userAgent": "kubectl/v1",
        "objectRef": {"resource": "pods", "namespace": "default", "name": "web", "apiVersion": "v1", "subresource": "exec"},
        "responseStatus": {"metadata": {}, "code": 101},
        "requestReceivedTimestamp": "2026-01-01T00:00:00.000001Z", "stageTimestamp": "2026-01-01T00:00:01.000000Z",
        "annotations": {
            "portico.dev/cluster": "team/dev", "portico.dev/credential": "certificate",
            "portico.dev/decision": "forwarded", "portico.dev/bytes-in": "5", "portico.dev/bytes-out": "7",
            "portico.dev/duration": "0.000s", "portico.dev/host-pod": "web-x-default-x-dev",
            "portico.dev/host-node": "node-1",
        },
    });
    assert_eq!(event, expected);
    let begun = read(&draft, Stage::ResponseStarted, &outcome);
    assert!(begun["annotations"].get("portico.dev/bytes-in").is_none(), "it has only begun");
    let none = read(&draft, Stage::ResponseComplete, &Outcome::default());
    assert!(none.get("responseStatus").is_none(), "the client left before there was an answer");
    let failed = read(&draft, Stage::ResponseComplete, &Outcome { code: 403, ..Outcome::default() });
    assert_eq!(failed["responseStatus"]["status"], "Failure");
}

#[test]
fn a_command_stands_there_when_it_may() {
    let query = "command=sh&command=-c&command=echo+%22x%22";
    let object = Object::new(("", "v1"), ("pods", "exec"), ("default", "web"));
    let asked = |with_command| Asked {
        received: Timestamp::UNIX_EPOCH,
        cluster: String::new(),
        audit_id: "",
        verb: "get",
        path: "/p",
        query,
        object: Some(object.clone()),
        with_command,
        source: [192, 0, 2, 1].into(),
        agent: b"",
        impersonated: None,
    };
    let event = |with_command| read(&Draft::new(asked(with_command)), Stage::ResponseStarted, &Outcome::default());
    assert_eq!(event(true)["annotations"]["portico.dev/command"], "sh -c \"echo \\\"x\\\"\"");
    assert!(event(true)["requestURI"].as_str().expect("text").contains("command=sh"));
    assert!(!event(false).to_string().contains("echo"));
}

/// Anything, the worst to escape above all, of any length.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z/=&?%;.]{0,40}",
        (prop_oneof![Just('\u{0}'), Just('"'), Just('\\'), Just('x'), Just('\u{1f600}')], 0_usize..6000)
            .prop_map(|(c, many)| std::iter::repeat_n(c, many).collect()),
    ]
}

fn user() -> impl Strategy<Value = User> {
    let texts = || proptest::collection::vec(text(), 0..40);
    let extra = proptest::collection::btree_map(text(), texts(), 0..20);
    (text(), text(), texts(), extra).prop_map(|(username, uid, groups, extra)| User { username, uid, groups, extra })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn an_event_is_one_line_and_bounded_whatever_a_client_chose(
        (path, query, agent, audit_id, verb) in (text(), text(), text(), text(), text()),
        (user, impersonated) in (user(), user()),
        parts in proptest::array::uniform6(text()),
        (pod, node) in (text(), text()),
    ) {
        let [group, version, resource, namespace, name, flag] = &parts;
        let object = Object::new((group, version), (resource, "exec"), (namespace, name));
        let query = format!("command={query}&command={query}&container={flag}&token={SECRET}&{query}");
        let asked = Asked {
            received: Timestamp::UNIX_EPOCH,
            // Both are names that Kubernetes has bounded.
            cluster: "n".repeat(63 + 1 + 40),
            audit_id: &audit_id, verb: &verb, path: &path, query: &query, object: Some(object), with_command: true,
            source: "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().expect("address"),
            agent: agent.as_bytes(), impersonated: Some(impersonated),
        };
        let mut draft = Draft::new(asked);
        draft.is_of(user, "serviceaccount");
        draft.is_on(&pod, &node);
        let outcome = Outcome {
            code: 500, decision: "forwarded", flag: "CLOS", received: u64::MAX, sent: u64::MAX, took: Duration::MAX,
        };
        let line = draft.line(Stage::ResponseComplete, "9999-12-30T00:00:00Z".parse().expect("time"), &outcome);
        prop_assert!(line.len() <= MOST_BYTES, "{}", line.len());
        prop_assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        let event: Value = serde_json::from_slice(&line).expect("JSON");
        prop_assert!(!event["requestURI"].as_str().expect("text").contains(SECRET));
    }
}
