//! Which parts of a pod's spec reach the host at all: a field that Portico does not know stays inside, and is reported.

use serde_json::{Map, Value, json};

use super::super::{View, json};

/// Fields of `spec` as of Kubernetes 1.35; what becomes of each is the business of this module's siblings.
const SPEC: &[&str] = &[
    "activeDeadlineSeconds",
    "affinity",
    "automountServiceAccountToken",
    "containers",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "ephemeralContainers",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "hostname",
    "hostnameOverride",
    "imagePullSecrets",
    "initContainers",
    "nodeName",
    "nodeSelector",
    "os",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "resources",
    "restartPolicy",
    "runtimeClassName",
    "schedulerName",
    "schedulingGates",
    "securityContext",
    "serviceAccount",
    "serviceAccountName",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "subdomain",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
];
const CONTAINER: &[&str] = &[
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "restartPolicy",
    "restartPolicyRules",
    "securityContext",
    "startupProbe",
    "stdin",
    "stdinOnce",
    "targetContainerName",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];
const CONTAINER_SECURITY: &[&str] = &[
    "allowPrivilegeEscalation",
    "appArmorProfile",
    "capabilities",
    "privileged",
    "procMount",
    "readOnlyRootFilesystem",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "seLinuxOptions",
    "seccompProfile",
    "windowsOptions",
];
const POD_SECURITY: &[&str] = &[
    "appArmorProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "seLinuxChangePolicy",
    "seLinuxOptions",
    "seccompProfile",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "sysctls",
    "windowsOptions",
];
const LISTS: &[&str] = &["containers", "initContainers"];
/// So many unknown fields are named.
const NAMED: usize = 8;
const LONGEST_NAME: usize = 64;

/// The spec without what is not known.
pub(super) fn spec(pod: &Value) -> Map<String, Value> {
    let mut spec = json::pick(pod.get("spec").unwrap_or(&Value::Null), SPEC);
    json::within(&mut spec, "securityContext", |context| context.retain(|key, _| POD_SECURITY.contains(&key.as_str())));
    for list in LISTS {
        json::each(&mut spec, list, container);
    }
    spec
}

/// One container without what is not known.
pub(super) fn container(container: &mut Map<String, Value>) {
    container.retain(|key, _| CONTAINER.contains(&key.as_str()));
    json::within(container, "securityContext", |context| {
        context.retain(|key, _| CONTAINER_SECURITY.contains(&key.as_str()));
    });
}

/// The fields that are not known, the first of them.
pub fn unknown(pod: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let mut note = |object: Option<&Value>, known: &[&str], place: &str| {
        for key in object.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            if !known.contains(&key.as_str()) && out.len() < NAMED {
                out.push(format!("{place}.{}", super::super::bounds::cut(key, LONGEST_NAME)));
            }
        }
    };
    note(pod.get("spec"), SPEC, "spec");
    note(pod.pointer("/spec/securityContext"), POD_SECURITY, "spec.securityContext");
    for list in LISTS {
        for (index, container) in json::items(pod, &format!("/spec/{list}")).iter().enumerate() {
            let place = format!("spec.{list}[{index}]");
            note(Some(container), CONTAINER, &place);
            note(container.get("securityContext"), CONTAINER_SECURITY, &format!("{place}.securityContext"));
        }
    }
    out
}

/// The tolerations that reach the host.
pub(super) fn tolerations(pod: &Value, view: &View) -> Vec<Value> {
    let all = json::items(pod, "/spec/tolerations").iter();
    all.filter(|toleration| view.policy.toleration(json::text(toleration, "/key"))).cloned().collect()
}

/// Keys of the tolerations that do not, the first of them.
pub fn tolerations_left_out(pod: &Value, view: &View) -> Vec<String> {
    let all = json::items(pod, "/spec/tolerations").iter().map(|toleration| json::text(toleration, "/key"));
    let name = |key: &str| if key.is_empty() { "(all taints)".to_owned() } else { key.to_owned() };
    all.filter(|key| !view.policy.toleration(key)).take(NAMED).map(name).collect()
}

/// Whether the pod may be on a node with these taints: a pod that names its node passes the scheduler by.
pub fn tolerates(pod: &Value, taints: &[Value], view: &View) -> bool {
    let tolerations = tolerations(pod, view);
    let keeps_off = |taint: &&Value| matches!(json::text(taint, "/effect"), "NoSchedule" | "NoExecute");
    taints.iter().filter(keeps_off).all(|taint| tolerations.iter().any(|toleration| covers(toleration, taint)))
}

fn covers(toleration: &Value, taint: &Value) -> bool {
    let text = |field: &str| (json::text(toleration, field), json::text(taint, field));
    let ((effect, of_taint), (key, tainted), (value, wanted)) = (text("/effect"), text("/key"), text("/value"));
    let same_value = match json::text(toleration, "/operator") {
        "" | "Equal" => value == wanted && !key.is_empty(),
        "Exists" => true,
        _ => false,
    };
    (effect.is_empty() || effect == of_taint) && (key.is_empty() || key == tainted) && same_value
}

/// The longest time that the pod is given to end.
pub(super) fn shorten(spec: &mut Map<String, Value>, view: &View) {
    let longest = view.policy.max_grace_period();
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_u64).is_some_and(|seconds| seconds > longest) {
        spec.insert("terminationGracePeriodSeconds".to_owned(), json!(longest));
    }
}
