use super::*;

/// `verb group resource[/sub] namespace name`, or `verb path`.
fn decided(policy: &Policy, user: Option<&str>, groups: &[&str], request: &str) -> bool {
    let words: Vec<&str> = request.split(' ').collect();
    let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
    let (verb, path, object) = match words.as_slice() {
        [verb, path] => (*verb, *path, None),
        [verb, group, resource, namespace, name] => {
            let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
            let plain = |text: &&str| if *text == "-" { "" } else { *text }.to_owned();
            let (group, namespace, name) = (plain(group), plain(namespace), plain(name));
            let object = Object::new((&group, "v1"), (resource, sub), (&namespace, &name));
            (*verb, "/a/resource", Some(object))
        }
        _ => panic!("{request}"),
    };
    policy.stages(&Matter { user, groups: &groups, verb, path, object: object.as_ref() }).complete
}

fn policy(rules: serde_json::Value) -> Policy {
    let rules: Vec<AuditRule> = serde_json::from_value(rules).expect("rules");
    Policy::new(&rules, &[]).expect("fit")
}

/// The policy of Kubernetes' documentation (Auditing, "audit/audit-policy.yaml"), its levels above Metadata lowered.
#[test]
fn the_documented_example_decides_as_it_is_documented() {
    let documented = policy(serde_json::json!([
        {"level": "Metadata", "resources": [{"group": "", "resources": ["pods"]}]},
        {"level": "Metadata", "resources": [{"group": "", "resources": ["pods/log", "pods/status"]}]},
        {"level": "None", "resources": [
            {"group": "", "resources": ["configmaps"], "resourceNames": ["controller-leader"]}]},
        {"level": "None", "users": ["system:kube-proxy"], "verbs": ["watch"],
            "resources": [{"group": "", "resources": ["endpoints", "services"]}]},
        {"level": "None", "userGroups": ["system:authenticated"], "nonResourceURLs": ["/api*", "/version"]},
        {"level": "Metadata", "resources": [{"group": "", "resources": ["configmaps"]}], "namespaces": ["kube-system"]},
        {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets", "configmaps"]}]},
        {"level": "None", "resources": [{"group": "apps"}]},
    ]));
    for (user, groups, request, is_written) in [
        ("u", &[][..], "get - pods a x", true),
        ("u", &[], "get - pods/log a x", true),
        ("u", &[], "get - pods/exec a x", false),
        ("u", &[], "update - configmaps kube-system controller-leader", false),
        ("u", &[], "update - configmaps kube-system other", true),
        ("u", &[], "update - configmaps a other", true),
        ("system:kube-proxy", &[], "watch - endpoints - -", false),
        ("u", &["x", "system:authenticated"], "get /apis/apps", false),
        ("u", &["x", "system:authenticated"], "get /version", false),
        ("u", &["x"], "get /version", false),
        ("u", &[], "get apps deployments a x", false),
        ("u", &[], "get apps secrets a x", false),
        ("u", &[], "get - secrets a x", true),
    ] {
        assert_eq!(decided(&documented, Some(user), groups, request), is_written, "{user} {groups:?} {request}");
    }
}

#[test]
fn resources_match_by_their_forms() {
    let with = |resources: &[&str]| {
        policy(serde_json::json!([{"level": "Metadata", "resources": [{"group": "", "resources": resources}]}]))
    };
    for (form, request, matches) in [
        ("pods", "get - pods a x", true),
        ("pods", "get - pods/exec a x", false),
        ("pods/exec", "get - pods/exec a x", true),
        ("pods/exec", "get - pods a x", false),
        ("pods/*", "get - pods/exec a x", true),
        ("pods/*", "get - pods a x", true),
        ("pods/*", "get - podtemplates a x", false),
        ("*/scale", "get - replicationcontrollers/scale a x", true),
        ("*/scale", "get - replicationcontrollers a x", false),
        ("*", "get - pods/exec a x", true),
        ("*", "get - pods a x", true),
        ("*", "get apps deployments a x", false),
        ("*", "get /version", false),
    ] {
        assert_eq!(decided(&with(&[form]), Some("u"), &[], request), matches, "{form} {request}");
    }
}

#[test]
fn other_fields_narrow_a_rule() {
    for (rule, request, matches) in [
        (serde_json::json!({"verbs": ["create"]}), "create - pods a x", true),
        (serde_json::json!({"verbs": ["create"]}), "delete - pods a x", false),
        (serde_json::json!({"namespaces": ["a"]}), "get - pods a x", true),
        (serde_json::json!({"namespaces": ["a"]}), "get - pods b x", false),
        (serde_json::json!({"namespaces": ["a"]}), "get /version", false),
        (serde_json::json!({"namespaces": [""]}), "get - nodes - x", true),
        (serde_json::json!({"nonResourceURLs": ["/healthz*"]}), "get /healthz/ping", true),
        (serde_json::json!({"nonResourceURLs": ["/healthz"]}), "get /healthz/ping", false),
        (serde_json::json!({"nonResourceURLs": ["*"]}), "get - pods a x", false),
        (serde_json::json!({"users": ["v"]}), "get - pods a x", false),
        (serde_json::json!({"userGroups": ["g"]}), "get - pods a x", true),
        (serde_json::json!({"userGroups": ["h"]}), "get - pods a x", false),
        (serde_json::json!({}), "get - pods a x", true),
    ] {
        let mut rule = rule;
        rule["level"] = "Metadata".into();
        let decided = decided(&policy(serde_json::json!([rule])), Some("u"), &["f", "g"], request);
        assert_eq!(decided, matches, "{rule} {request}");
    }
}

#[test]
fn whoever_is_not_known_is_in_no_rule_that_spares_and_in_every_one_that_writes() {
    let spares = policy(serde_json::json!([{"level": "None", "users": ["u"]}, {"level": "Metadata"}]));
    let writes = policy(serde_json::json!([{"level": "Metadata", "userGroups": ["g"]}]));
    for policy in [&spares, &writes] {
        assert!(decided(policy, None, &[], "get - pods a x"));
    }
    assert!(!decided(&spares, Some("u"), &[], "get - pods a x"));
    assert!(!decided(&writes, Some("u"), &[], "get - pods a x"));
}

#[test]
fn stages_are_left_out_by_a_rule_or_by_all() {
    let rule = |omitted: &[Stage]| AuditRule {
        level: AuditLevel::Metadata,
        omit_stages: omitted.to_vec(),
        ..AuditRule::default()
    };
    let matter = Matter { user: Some("u"), groups: &[], verb: "get", path: "/", object: None };
    let stages = |policy: Policy| policy.stages(&matter);
    let both = Stages { started: true, complete: true };
    assert_eq!(stages(Policy::new(&[rule(&[Stage::Panic])], &[]).expect("fit")), both);
    let complete = Stages { started: false, complete: true };
    assert_eq!(stages(Policy::new(&[rule(&[Stage::ResponseStarted])], &[]).expect("fit")), complete);
    assert!(
        stages(Policy::new(&[rule(&[Stage::ResponseStarted])], &[Stage::ResponseComplete]).expect("fit")).is_none()
    );
    assert_eq!(complete.or(Stages { started: true, complete: false }), both);
}

#[test]
fn the_default_writes_streams_secrets_and_changes() {
    let rules = crate::config::audit::AuditPolicy::default().rules;
    let policy = Policy::new(&rules, &[]).expect("fit");
    for (request, is_written) in [
        ("get - pods/exec a x", true),
        ("create - pods/exec a x", true),
        ("get - pods/log a x", true),
        ("get - services/proxy a x", true),
        ("list - secrets a -", true),
        ("create - pods a -", true),
        ("deletecollection apps deployments a -", true),
        ("create - serviceaccounts/token a x", true),
        ("get - pods a x", false),
        ("watch apps deployments a -", false),
        ("update coordination.k8s.io leases a x", false),
        ("create authorization.k8s.io selfsubjectaccessreviews - -", false),
        ("create - events a -", false),
        ("get /healthz", false),
    ] {
        assert_eq!(decided(&policy, Some("u"), &[], request), is_written, "{request}");
    }
}

#[test]
fn what_a_virtual_cluster_asks_for_is_fit_or_nothing() {
    let audit =
        |rules: serde_json::Value| serde_json::from_value::<Audit>(serde_json::json!({"rules": rules})).expect("audit");
    assert!(Asks::new(&audit(serde_json::json!([{"level": "Metadata", "later": true}]))).is_ok(), "of a later version");
    let fault = Asks::new(&audit(serde_json::json!([{"level": "Request"}]))).expect_err("bodies").to_string();
    assert!(fault.contains("rules[0].level"), "{fault}");
    let many: Vec<_> = (0..20).map(|_| serde_json::json!({"level": "None", "users": vec!["u"; 32]})).collect();
    assert!(Asks::new(&audit(many.into())).is_err(), "too many to be compared with");
}
