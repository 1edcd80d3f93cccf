use super::super::rules;
use super::*;
use crate::names::TenantId;
use crate::runtime::telemetry::Metrics;
use crate::tenant::memory::Memory;

const VALIDATING_AT: usize = 0;
const POLICIES_AT: usize = 2;
const BINDINGS_AT: usize = 3;
const MOMENT: Duration = Duration::from_millis(1);

fn objects(at: usize, all: &[&str]) -> Objects {
    let mut objects = Objects::new(&Arc::default());
    for json in all {
        let (name, judges) = rules::project(KINDS[at].0, json.as_bytes()).expect("an object");
        assert!(objects.put(name, judges));
    }
    objects
}

/// All kinds are listed and watched, and there is nothing.
fn open(now: Instant) -> Known {
    let mut known = Known::new(&Arc::default());
    for at in 0..KINDS.len() {
        assert_eq!(known.verdict("exec", now), Verdict::Later, "{at}");
        known.listed(at, objects(at, &[]), now);
        known.told(at, now);
    }
    known
}

const RULE: &str = r#"{"operations":["*"],"apiGroups":["*"],"apiVersions":["*"],"resources":["pods/exec"]}"#;

fn webhook(name: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}},"webhooks":[{{"name":"{name}.example.com","rules":[{RULE}]}}]}}"#)
}

#[test]
fn each_kind_is_no_answer_beyond_its_bounds() {
    let now = Instant::now();
    for at in 0..KINDS.len() {
        let mut known = open(now);
        let others = |known: &mut Known, now| (0..KINDS.len()).filter(|o| *o != at).for_each(|o| known.told(o, now));
        assert_eq!(known.verdict("exec", now + SILENCE), Verdict::Nobody);
        let late = now + SILENCE + MOMENT;
        others(&mut known, late);
        assert_eq!(known.verdict("exec", late), Verdict::Unknown, "{at}: the watch may be stuck");
        known.told(at, late);
        assert_eq!(known.verdict("exec", late), Verdict::Nobody);
        known.fails(at, late);
        known.opens(at, late + GAP);
        assert_eq!(known.verdict("exec", late + GAP), Verdict::Nobody);
        assert_eq!(known.verdict("exec", late + GAP + MOMENT), Verdict::Unknown, "{at}: another try is no watch");
        // A list counts at once, and no longer than its watch may take.
        known.listed(at, objects(at, &[]), late);
        assert_eq!(known.verdict("exec", late + GAP), Verdict::Nobody);
        assert_eq!(known.verdict("exec", late + GAP + MOMENT), Verdict::Unknown, "{at}");
    }
}

#[test]
fn what_was_never_read_is_not_known() {
    let now = Instant::now();
    let mut known = open(now);
    known.absent(POLICIES_AT);
    assert_eq!(known.verdict("exec", now), Verdict::Nobody, "not served");
    known.opens(POLICIES_AT, now);
    assert_eq!(known.verdict("exec", now), Verdict::Nobody, "asked for again");
    known.fails(POLICIES_AT, now);
    assert_eq!(known.verdict("exec", now), Verdict::Unknown);
    known.told(POLICIES_AT, now);
    assert_eq!(known.verdict("exec", now), Verdict::Unknown, "only a list tells");
    let mut known = Known::new(&Arc::default());
    known.fails(VALIDATING_AT, now);
    assert_eq!(known.verdict("exec", now), Verdict::Unknown, "nobody waits for the others");
}

#[test]
fn a_judge_is_named_and_a_policy_judges_where_it_is_bound() {
    let now = Instant::now();
    let judged = |judge: &str| Verdict::Judge(judge.to_owned());
    let mut known = open(now);
    let policy = format!(r#"{{"metadata":{{"name":"p"}},"spec":{{"matchConstraints":{{"resourceRules":[{RULE}]}}}}}}"#);
    known.listed(POLICIES_AT, objects(POLICIES_AT, &[&policy]), now);
    assert_eq!(known.verdict("exec", now), Verdict::Nobody);
    let binding = |policy: &str| format!(r#"{{"metadata":{{"name":"b"}},"spec":{{"policyName":"{policy}"}}}}"#);
    known.listed(BINDINGS_AT, objects(BINDINGS_AT, &[&binding("other")]), now);
    assert_eq!(known.verdict("exec", now), Verdict::Nobody);
    // A mutating policy of the same name is another one.
    known.listed(BINDINGS_AT + 2, objects(BINDINGS_AT, &[&binding("p")]), now);
    assert_eq!(known.verdict("exec", now), Verdict::Nobody);
    known.listed(BINDINGS_AT, objects(BINDINGS_AT, &[&binding("p")]), now);
    assert_eq!(known.verdict("exec", now), judged("the ValidatingAdmissionPolicy \"p\""));
    assert_eq!(known.verdict("attach", now), Verdict::Nobody);
    known.listed(VALIDATING_AT, objects(VALIDATING_AT, &[&webhook("w")]), now);
    assert_eq!(known.verdict("exec", now), judged("the admission webhook \"w.example.com\""));
    // One that no longer covers exec goes.
    let (name, judges) = rules::project(Part::Webhooks, br#"{"metadata":{"name":"w"}}"#).expect("an object");
    assert!(known.objects(VALIDATING_AT).put(name, judges));
    known.objects(BINDINGS_AT).remove("b");
    assert_eq!(known.verdict("exec", now), Verdict::Nobody);
    known.too_much(VALIDATING_AT);
    known.fails(VALIDATING_AT, now);
    assert_eq!(known.verdict("exec", now + SILENCE * 9), Verdict::TooMuch, "until a list fits");
}

#[test]
fn what_is_kept_has_a_bound_and_stands_on_the_tenants_account() {
    let memory = Memory::default();
    memory.measured(1, 1 << 30);
    let metrics = Metrics::default();
    metrics.register(Arc::new(memory.clone()));
    let id = TenantId::parse("team-a", "dev").expect("valid");
    let account = memory.account(&id, "1");
    let kept = || -> usize {
        let text = metrics.render().expect("metrics");
        let line = text.lines().find(|line| line.starts_with("portico_memory_tenant_bytes{"));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a value")
    };
    let mut objects = Objects::new(&account);
    let judge = |length| vec![Judge { name: "x".repeat(length).into(), covers: rules::Covers::ALL }];
    assert!(objects.put("small".to_owned(), judge(10)));
    let small = kept();
    assert!((15..500).contains(&small), "{small}");
    assert!(!objects.put("large".to_owned(), judge(MOST_BYTES)));
    let fitting = (0..).take_while(|n| objects.put(format!("o{n}"), judge(1000))).count();
    assert!((400..530).contains(&fitting) && kept() <= MOST_BYTES, "{fitting} in {}", kept());
    assert!(objects.put("small".to_owned(), Vec::new()), "what judges nothing needs no room");
    assert!(objects.put("o0".to_owned(), judge(900)), "in its own place");
    for n in 0..fitting {
        objects.remove(&format!("o{n}"));
    }
    assert_eq!(kept(), 0);
    assert!(objects.put("small".to_owned(), judge(10)));
    drop(objects);
    assert_eq!(kept(), 0);
}
