//! Facts of the process that no configuration holds: where it runs and under which name.

use anyhow::Context as _;

use crate::runtime::clock::Clock;

const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Unique per process: the pod's name, and some random digits since a container can be restarted in its pod.
pub(super) fn identity(clock: &Clock) -> String {
    let name = pod_name().unwrap_or_else(|| "portico".to_owned());
    format!("{name}-{:08x}", clock.random_below(1 << 32))
}

/// Name of the pod, if this is one. Without the downward API the host name is it.
pub(super) fn pod_name() -> Option<String> {
    variable("POD_NAME").or_else(|| variable("HOSTNAME"))
}

/// Namespace of the pod: what the first of these variables says, or where its ServiceAccount is.
pub(super) fn namespace(variables: &[&str]) -> anyhow::Result<String> {
    if let Some(name) = variables.iter().find_map(|name| variable(name)) {
        return Ok(name);
    }
    let text = std::fs::read_to_string(NAMESPACE_FILE).with_context(|| format!("{NAMESPACE_FILE} cannot be read"))?;
    Ok(text.trim().to_owned())
}

/// An empty variable says nothing.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
