//! Tests of `policy`.

use super::super::testing::hostile;
use super::*;
use proptest::prelude::*;
use serde_json::json;

fn pod() -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

/// (what is put where, the field that must be named)
fn baseline_cases() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("/spec/hostNetwork", json!(true), "spec.hostNetwork"),
        ("/spec/hostPID", json!(true), "spec.hostPID"),
        ("/spec/hostIPC", json!(true), "spec.hostIPC"),
        ("/spec/volumes", json!([{"name": "v", "hostPath": {"path": "/"}}]), "spec.volumes[0].hostPath"),
        ("/spec/volumes", json!([{"name": "v", "gitRepo": {"repository": "r"}}]), "spec.volumes[0].gitRepo"),
        ("/spec/volumes", json!([{"name": "v", "awsElasticBlockStore": {}}]), "spec.volumes[0].awsElasticBlockStore"),
        ("/spec/volumes", json!([{"name": "v", "emptyDir": {}, "hostPath": {}}]), "spec.volumes[0].hostPath"),
        (
            "/spec/securityContext",
            json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
            "spec.securityContext.sysctls[0].name",
        ),
        (
            "/spec/securityContext",
            json!({"seLinuxOptions": {"type": "spc_t"}}),
            "spec.securityContext.seLinuxOptions.type",
        ),
        (
            "/spec/securityContext",
            json!({"seccompProfile": {"type": "Unconfined"}}),
            "spec.securityContext.seccompProfile.type",
        ),
        (
            "/spec/securityContext",
            json!({"windowsOptions": {"hostProcess": true}}),
            "spec.securityContext.windowsOptions.hostProcess",
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"privileged": true}),
            "spec.containers[0].securityContext.privileged",
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"capabilities": {"add": ["SYS_ADMIN"]}}),
            "spec.containers[0].securityContext.capabilities.add",
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"procMount": "Unmasked"}),
            "spec.containers[0].securityContext.procMount",
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"appArmorProfile": {"type": "Unconfined"}}),
            "spec.containers[0].securityContext.appArmorProfile.type",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 80, "hostPort": 80}]),
            "spec.containers[0].ports[0].hostPort",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"httpGet": {"host": "169.254.169.254", "port": 80}}),
            "spec.containers[0].livenessProbe.httpGet.host",
        ),
        (
            "/spec/containers/0/lifecycle",
            json!({"preStop": {"tcpSocket": {"host": "10.0.0.1", "port": 80}}}),
            "spec.containers[0].lifecycle.preStop.tcpSocket.host",
        ),
        (
            "/spec/initContainers",
            json!([{"name": "i", "securityContext": {"privileged": true}}]),
            "spec.initContainers[0].securityContext.privileged",
        ),
        (
            "/spec/ephemeralContainers",
            json!([{"name": "e", "securityContext": {"privileged": true}}]),
            "spec.ephemeralContainers[0].securityContext.privileged",
        ),
    ]
}

fn with(pointer: &str, value: Value) -> Value {
    let mut pod = pod();
    let (parent, field) = pointer.rsplit_once('/').expect("pointer");
    pod.pointer_mut(parent).expect("parent")[field] = value;
    pod
}

#[test]
fn baseline_refuses_and_names_the_field() {
    assert_eq!(check(&pod(), &GrantedPolicy::at(PodSecurity::Baseline)), None);
    for (pointer, value, field) in baseline_cases() {
        let bad = with(pointer, value);
        assert_eq!(check(&bad, &GrantedPolicy::at(PodSecurity::Baseline)).expect(field).field, field);
        assert!(!violations(&bad, &GrantedPolicy::at(PodSecurity::Restricted)).is_empty(), "{field}");
        assert_eq!(check(&bad, &GrantedPolicy::at(PodSecurity::Privileged)), None, "{field}");
    }
    let message = check(&with("/spec/hostPID", json!(true)), &GrantedPolicy::at(PodSecurity::Baseline))
        .expect("refused")
        .message();
    assert!(message.contains("spec.hostPID") && message.contains("`podSecurity`"), "{message}");
}

#[test]
fn baseline_allows_the_ordinary() {
    for (pointer, value) in [
        ("/spec/hostNetwork", json!(false)),
        ("/spec/volumes", json!([{"name": "v", "emptyDir": {}}, {"name": "w", "secret": {"secretName": "s"}}])),
        ("/spec/containers/0/securityContext", json!({"capabilities": {"add": ["CHOWN"], "drop": ["ALL"]}})),
        ("/spec/containers/0/ports", json!([{"containerPort": 80, "hostPort": 0}])),
        ("/spec/securityContext", json!({"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]})),
    ] {
        assert_eq!(check(&with(pointer, value), &GrantedPolicy::at(PodSecurity::Baseline)), None, "{pointer}");
    }
}

#[test]
fn restricted_wants_everything_said() {
    assert!(check(&pod(), &GrantedPolicy::at(PodSecurity::Restricted)).is_some());
    let mut good = pod();
    good["spec"]["securityContext"] = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    good["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}});
    assert_eq!(check(&good, &GrantedPolicy::at(PodSecurity::Restricted)), None);
    good["spec"]["volumes"] = json!([{"name": "v", "nfs": {}}]);
    assert!(check(&good, &GrantedPolicy::at(PodSecurity::Restricted)).is_some());
}

proptest! {
    #[test]
    fn never_panics(spec in hostile()) {
        let pod = json!({"spec": spec});
        let _ = (violations(&pod, &GrantedPolicy::at(PodSecurity::Baseline)), violations(&pod, &GrantedPolicy::at(PodSecurity::Restricted)));
    }
}
