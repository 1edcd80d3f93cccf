//! What a tenant's pod may be: the Pod Security Standards, and what they leave open between clusters that share nodes.
//!
//! The tenant's own API server is no judge: its admin can switch every admission off. This check decides what is written
//! to the host. Beyond the baseline standard, volumes that name disks of the host's cloud, run host binaries or clone
//! repositories as root on the node are refused.

use serde_json::Value;

use super::json;
use crate::config::PodSecurity;
use crate::crd::policy::GrantedPolicy;

mod uses;
mod violation;

use violation::Found;
pub use violation::{Violation, decides};

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const SELINUX_TYPES: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
/// Baseline: all but host paths, host binaries, and disks by the id that the host's cloud gave them.
const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
    "nfs",
    "iscsi",
    "rbd",
    "cephfs",
    "glusterfs",
    "azureFile",
];
/// Restricted: the first nine of them.
const RESTRICTED_VOLUMES: usize = 9;
const CONTAINERS: &[&str] = &["containers", "initContainers", "ephemeralContainers"];
const HANDLERS: &[&str] =
    &["livenessProbe", "readinessProbe", "startupProbe", "lifecycle/postStart", "lifecycle/preStop"];

/// The first violation of a pod, or None.
pub fn check(pod: &Value, policy: &GrantedPolicy) -> Option<Violation> {
    violations(pod, policy).into_iter().next()
}

/// Whether one ephemeral container (by index) of a pod is what is wrong with it.
pub fn check_container(pod: &Value, list: &str, index: usize, policy: &GrantedPolicy) -> Option<Violation> {
    let mut found = Found::default();
    let container = json::items(pod, &format!("/spec/{list}")).get(index)?;
    let (pointer, field) = (format!("/spec/{list}/{index}"), format!("spec.{list}[{index}]"));
    if policy.pod_security() != PodSecurity::Privileged {
        in_container(pod, (&pointer, &field), container, policy.pod_security(), &mut found);
    }
    uses::image(container, &field, policy, &mut found);
    found.0.into_iter().next()
}

/// Whether the image of one container (by index) may not run: images change while a pod runs.
pub fn check_image(pod: &Value, list: &str, index: usize, policy: &GrantedPolicy) -> Option<Violation> {
    let mut found = Found::default();
    let container = json::items(pod, &format!("/spec/{list}")).get(index)?;
    uses::image(container, &format!("spec.{list}[{index}]"), policy, &mut found);
    found.0.into_iter().next()
}

/// All violations.
pub fn violations(pod: &Value, policy: &GrantedPolicy) -> Vec<Violation> {
    let mut found = Found::default();
    if policy.pod_security() != PodSecurity::Privileged {
        standard(pod, policy.pod_security(), &mut found);
    }
    uses::of_pod(pod, policy, &mut found);
    for (_, field, container) in containers(pod, &["containers", "initContainers"]) {
        uses::image(container, &field, policy, &mut found);
    }
    found.0
}

fn standard(pod: &Value, level: PodSecurity, found: &mut Found) {
    let restricted = level == PodSecurity::Restricted;
    host_namespaces(pod, found);
    volumes(pod, restricted, found);
    apparmor_annotations(pod, found);
    security_context(pod, "/spec/securityContext", "spec.securityContext", found);
    for (index, sysctl) in json::items(pod, "/spec/securityContext/sysctls").iter().enumerate() {
        let allowed = SYSCTLS.contains(&json::text(sysctl, "/name"));
        found.unless(allowed, format!("spec.securityContext.sysctls[{index}].name"), "is not a safe sysctl");
    }
    for (pointer, field, container) in containers(pod, CONTAINERS) {
        in_container(pod, (&pointer, &field), container, level, found);
    }
}

/// Of one container; `at` is its JSON pointer and its field path.
fn in_container(pod: &Value, at: (&str, &str), container: &Value, level: PodSecurity, found: &mut Found) {
    let (pointer, field) = at;
    container_baseline(pod, pointer, field, container, found);
    if level == PodSecurity::Restricted {
        let windows = json::text(pod, "/spec/os/name") == "windows";
        container_restricted(pod, field, container, windows, found);
    }
}

/// (JSON pointer, field path, container) of every container of these lists.
fn containers<'a>(pod: &'a Value, lists: &'a [&'a str]) -> impl Iterator<Item = (String, String, &'a Value)> {
    lists.iter().flat_map(move |list| {
        json::items(pod, &format!("/spec/{list}"))
            .iter()
            .enumerate()
            .map(move |(index, c)| (format!("/spec/{list}/{index}"), format!("spec.{list}[{index}]"), c))
    })
}

/// Absent, null or false.
fn is_off(value: &Value, pointer: &str) -> bool {
    matches!(value.pointer(pointer), None | Some(Value::Null | Value::Bool(false)))
}

fn host_namespaces(pod: &Value, found: &mut Found) {
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        found.unless(is_off(pod, &format!("/spec/{field}")), format!("spec.{field}"), "must not be true");
    }
}

fn volumes(pod: &Value, restricted: bool, found: &mut Found) {
    let allowed = if restricted { VOLUMES.split_at(RESTRICTED_VOLUMES).0 } else { VOLUMES };
    for (index, volume) in json::items(pod, "/spec/volumes").iter().enumerate() {
        let sources =
            volume.as_object().into_iter().flatten().filter(|(key, value)| *key != "name" && !value.is_null());
        for (source, _) in sources {
            let fine = allowed.contains(&source.as_str());
            found.unless(fine, format!("spec.volumes[{index}].{source}"), "is a kind of volume that is not allowed");
        }
    }
}

fn apparmor_annotations(pod: &Value, found: &mut Found) {
    for (key, value) in json::strings(pod, "/metadata/annotations") {
        if key.starts_with("container.apparmor.security.beta.kubernetes.io/") {
            let fine = value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
            found.unless(fine, format!("metadata.annotations[{key}]"), "must not switch AppArmor off");
        }
    }
}

/// What the security contexts of pods and containers have in common.
fn security_context(pod: &Value, pointer: &str, field: &str, found: &mut Found) {
    let at = |rest: &str| format!("{pointer}/{rest}");
    let selinux = SELINUX_TYPES.contains(&json::text(pod, &at("seLinuxOptions/type")));
    found.unless(selinux, format!("{field}.seLinuxOptions.type"), "is not an SELinux type of containers");
    for part in ["user", "role"] {
        let fine = json::text(pod, &at(&format!("seLinuxOptions/{part}"))).is_empty();
        found.unless(fine, format!("{field}.seLinuxOptions.{part}"), "must not be set");
    }
    for profile in ["seccompProfile", "appArmorProfile"] {
        let fine = json::text(pod, &at(&format!("{profile}/type"))) != "Unconfined";
        found.unless(fine, format!("{field}.{profile}.type"), "must not be Unconfined");
    }
    let host_process = is_off(pod, &at("windowsOptions/hostProcess"));
    found.unless(host_process, format!("{field}.windowsOptions.hostProcess"), "must not be true");
}

fn container_baseline(pod: &Value, pointer: &str, field: &str, container: &Value, found: &mut Found) {
    security_context(pod, &format!("{pointer}/securityContext"), &format!("{field}.securityContext"), found);
    let privileged = is_off(container, "/securityContext/privileged");
    found.unless(privileged, format!("{field}.securityContext.privileged"), "must not be true");
    let proc_mount = matches!(json::text(container, "/securityContext/procMount"), "" | "Default");
    found.unless(proc_mount, format!("{field}.securityContext.procMount"), "must be Default");
    for capability in json::items(container, "/securityContext/capabilities/add") {
        let fine = capability.as_str().is_some_and(|name| CAPABILITIES.contains(&name));
        found.unless(
            fine,
            format!("{field}.securityContext.capabilities.add"),
            "adds a capability that is not allowed",
        );
    }
    for (index, port) in json::items(container, "/ports").iter().enumerate() {
        let fine = matches!(port.get("hostPort"), None | Some(Value::Null)) || port["hostPort"].as_i64() == Some(0);
        found.unless(fine, format!("{field}.ports[{index}].hostPort"), "must not be set");
    }
    for handler in HANDLERS {
        for action in ["httpGet", "tcpSocket"] {
            let fine = json::text(container, &format!("/{handler}/{action}/host")).is_empty();
            let name = handler.replace('/', ".");
            found.unless(
                fine,
                format!("{field}.{name}.{action}.host"),
                "must not be set: kubelets would connect to it",
            );
        }
    }
}

fn container_restricted(pod: &Value, field: &str, container: &Value, windows: bool, found: &mut Found) {
    let own = |name: &str| container.pointer(&format!("/securityContext/{name}")).filter(|v| !v.is_null());
    let either = |name: &str| own(name).or_else(|| pod.pointer(&format!("/spec/securityContext/{name}")));
    let context = format!("{field}.securityContext");
    let non_root = either("runAsNonRoot").and_then(Value::as_bool) == Some(true);
    found.unless(non_root, format!("{context}.runAsNonRoot"), "must be true");
    let user = either("runAsUser").is_none_or(|user| user.as_i64() != Some(0));
    found.unless(user, format!("{context}.runAsUser"), "must not be 0");
    if windows {
        return;
    }
    let escalation = own("allowPrivilegeEscalation").and_then(Value::as_bool) == Some(false);
    found.unless(escalation, format!("{context}.allowPrivilegeEscalation"), "must be false");
    let seccomp = either("seccompProfile").map(|profile| json::text(profile, "/type")).unwrap_or_default();
    let seccomp = matches!(seccomp, "RuntimeDefault" | "Localhost");
    found.unless(seccomp, format!("{context}.seccompProfile.type"), "must be RuntimeDefault or Localhost");
    let dropped =
        json::items(container, "/securityContext/capabilities/drop").iter().any(|c| c.as_str() == Some("ALL"));
    found.unless(dropped, format!("{context}.capabilities.drop"), "must hold ALL");
    let added = json::items(container, "/securityContext/capabilities/add");
    let added = added.iter().all(|c| c.as_str() == Some("NET_BIND_SERVICE"));
    found.unless(added, format!("{context}.capabilities.add"), "must hold NET_BIND_SERVICE only");
}

#[cfg(test)]
mod tests;
