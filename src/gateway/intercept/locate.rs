//! The host pod that a virtual pod is, found by name and proven by the identity recorded on it.

use http::HeaderMap;
use serde_json::Value;

use super::stream::Stream;
use crate::error::status::Status;
use crate::error::{Error, Kind, Result, Side};
use crate::gateway::context::Context;
use crate::kubernetes::resources::PODS;
use crate::names::{self, HostName, HostNamespace, Limit, VirtualName, VirtualNamespace, keys};
use crate::runtime::traces::Part;

/// Where a stream goes.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) host_namespace: HostNamespace,
    pub(super) host_pod: HostName,
    pub(super) namespace: String,
    pub(super) pod: String,
    /// Always named towards the host, whose pod may have containers that the virtual one has not. None for
    /// port-forward.
    pub(super) container: Option<String>,
}

impl Place {
    /// Begins the host's part of a trace.
    pub(super) fn asked(&self, context: &Context, headers: &mut HeaderMap) -> Option<Part> {
        let mut part = context.asked("host", headers)?;
        part.says("k8s.namespace.name", self.host_namespace.as_str());
        part.says("k8s.pod.name", self.host_pod.as_str());
        Some(part)
    }
}

/// `None`: a log of a pod that has no node yet, which is nothing.
pub(super) async fn place(context: &Context, stream: Stream, query: &str) -> Result<Option<Place>> {
    let (namespace, name) = (&context.info.namespace, &context.info.name);
    let parsed = VirtualNamespace::parse(namespace).ok().zip(VirtualName::parse(name).ok());
    let Some((virtual_namespace, virtual_name)) = parsed else { return Err(not_found(name)) };
    let pod = context.tenant.api.get(&PODS, Some(namespace), name).await?.ok_or_else(|| not_found(name))?;
    let container = match stream {
        Stream::PortForward => None,
        _ => Some(container(&pod, name, crate::gateway::api::parameter(query, "container"))?),
    };
    if text(&pod, "/spec/nodeName").is_empty() {
        return if stream == Stream::Log { Ok(None) } else { Err(no_node(name)) };
    }
    let tenant = &context.tenant.id;
    let host_namespace = tenant.namespace().clone();
    let today = names::host_name(&virtual_name, &virtual_namespace, tenant.name(), Limit::Subdomain);
    // A pod that vcluster made keeps its name; a 404 is asked for only where the two formulas differ.
    let legacy = names::legacy_host_name(&virtual_name, &virtual_namespace, tenant.name()).filter(|l| *l != today);
    let (host, mut found) = (context.host_for_caller()?, None);
    for candidate in std::iter::once(today).chain(legacy) {
        let object = host.get(&PODS, Some(host_namespace.as_str()), candidate.as_str()).await?;
        found = object.map(|object| (candidate, object));
        if found.is_some() {
            break;
        }
    }
    let (host_pod, found) = found.ok_or_else(|| no_node(name))?;
    if !is_same(&found, &pod, context, namespace, name) {
        tracing::warn!(tenant = %tenant, pod = %host_pod, "a host pod is not the virtual pod that its name says");
        return Err(no_node(name));
    }
    context.record.audit(|audited| audited.is_on(host_pod.as_str(), text(&found, "/spec/nodeName")));
    Ok(Some(Place { host_namespace, host_pod, namespace: namespace.clone(), pod: name.clone(), container }))
}

/// Tenant, namespace, name and uid recorded on the host pod must all be the virtual pod's.
fn is_same(host: &Value, pod: &Value, context: &Context, namespace: &str, name: &str) -> bool {
    let field = |map: &str, key: &str| {
        host.pointer(map).and_then(|m| m.get(key)).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let annotation = |key: &str| field("/metadata/annotations", key);
    let uid = text(pod, "/metadata/uid");
    !uid.is_empty()
        && field("/metadata/labels", keys::CLUSTER) == context.tenant.id.name().as_str()
        && annotation(keys::OBJECT_NAMESPACE) == namespace
        && annotation(keys::OBJECT_NAME) == name
        && annotation(keys::OBJECT_UID) == uid
}

/// The API server's rule and its words (`pkg/registry/core/pod`).
fn container(pod: &Value, name: &str, wanted: Option<String>) -> Result<String> {
    let names = |field: &str| -> Vec<&str> {
        let list = pod.pointer(&format!("/spec/{field}")).and_then(Value::as_array);
        list.into_iter().flatten().map(|c| text(c, "/name")).collect()
    };
    let (containers, init) = (names("containers"), names("initContainers"));
    let bad = |message: String| Err(Error::client(Kind::BadRequest, message));
    if let Some(wanted) = wanted.filter(|w| !w.is_empty()) {
        let known = [&containers, &init, &names("ephemeralContainers")].iter().any(|l| l.contains(&wanted.as_str()));
        return if known { Ok(wanted) } else { bad(format!("container {wanted} is not valid for pod {name}")) };
    }
    if let [only] = containers.as_slice() {
        return Ok((*only).to_owned());
    }
    let mut message =
        format!("a container name must be specified for pod {name}, choose one of: [{}]", containers.join(" "));
    if !init.is_empty() {
        message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    bad(message)
}

fn not_found(name: &str) -> Error {
    Error::from_status(Side::Client, Status::not_found("", "pods", name))
}

fn no_node(name: &str) -> Error {
    Error::client(Kind::BadRequest, format!("pod {name} does not have a host assigned"))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Value {
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}],
            "ephemeralContainers": [{"name": "debug"}]}})
    }

    #[test]
    fn the_only_container_is_the_default() {
        let one = json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&one, "p", None).expect("default"), "a");
    }

    #[test]
    fn several_containers_need_a_choice() {
        let error = container(&pod(), "p", None).expect_err("ambiguous");
        assert_eq!(error.kind(), Kind::BadRequest);
        let expected =
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]";
        assert_eq!(error.message(), expected);
    }

    #[test]
    fn init_and_ephemeral_containers_are_names_too() {
        for name in ["b", "i", "debug"] {
            assert_eq!(container(&pod(), "p", Some(name.to_owned())).expect("known"), name);
        }
        let error = container(&pod(), "p", Some("istio-proxy".to_owned())).expect_err("only on the host");
        assert_eq!(error.message(), "container istio-proxy is not valid for pod p");
    }
}
