//! Pods: the host pod that stands for a virtual one, later changes of it, and its status on the way back.
//!
//! The host pod must behave as if it ran in the tenant: environment, downward API, tokens, DNS, volumes and affinity are
//! the tenant's. It must see nothing of the host's API: no host service account, no host service links.
//!
//! Promises: a host pod grows with its virtual pod alone. What the tenant has beside it (Namespaces, Services) adds a
//! bounded number of bytes, checked before they are written.

use std::sync::Arc;

use serde_json::{Value, json};

use super::bounds::{self, Excess};
use super::summary::{NamespaceSummary, ServiceSummary};
use super::{View, identity, json};
use crate::names::Limit;

mod allowed;
mod crossing;
pub mod dns;
pub mod env;
pub mod ephemeral;
mod expansion;
mod images;
mod marks;
mod metadata;
pub mod references;
pub mod scheduling;
pub mod status;
pub mod update;
pub mod volumes;
mod walk;

pub use allowed::{tolerates, tolerations_left_out, unknown};
pub use images::image;
pub use marks::{
    ANNOTATIONS, KIND, LABELS, RESOURCES, SERVICE_ACCOUNT, SUBDOMAIN, TOKEN_KIND, TOKEN_SECRET, TOKEN_SPEC,
};
pub use metadata::{metadata, service_account};
pub use volumes::TokenSpec;

/// What the translation must know beside the pod.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// Virtual Services of the pod's namespace by name; needed when it [has links](env::has_links).
    pub services: Vec<Arc<ServiceSummary>>,
    /// All virtual Namespaces; needed when it [selects some](scheduling::selects_namespaces).
    pub namespaces: Vec<Arc<NamespaceSummary>>,
    /// Whether the pod's priority class may be used on the host.
    pub priority_class: bool,
}

/// A host pod to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// The pod.
    pub pod: Value,
    /// Services that its environment has no room for, the last by name.
    pub links_left_out: usize,
}

/// Why no host pod is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Its name or namespace is not valid on the host.
    Name,
    /// It would be too much.
    Excess(Excess),
}

/// The tokens that a pod mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The tenant's service account.
    pub service_account: String,
    /// Name of the host Secret that carries them; another one for each pod, even of the same name.
    pub secret: String,
    /// One per projected source.
    pub tokens: Vec<TokenSpec>,
}

/// The tokens that a pod needs, None when it mounts none. A host pod that was made for another virtual pod mounts that
/// one's Secret for ever.
pub fn tokens(pod: &Value, host: Option<&Value>, view: &View) -> Option<Tokens> {
    let tokens = volumes::tokens(pod);
    let mounted = host.map(|host| identity::annotation(host, TOKEN_SECRET)).filter(|name| !name.is_empty());
    let secret = mounted.map(str::to_owned).or_else(|| token_secret(pod, view))?;
    (!tokens.is_empty()).then(|| Tokens { service_account: service_account(pod).to_owned(), secret, tokens })
}

fn token_secret(pod: &Value, view: &View) -> Option<String> {
    token_secret_of((json::namespace(pod), json::name(pod)), json::uid(pod), view)
}

/// The token Secret of the pod of this namespace, name and uid.
pub(in crate::translate) fn token_secret_of(key: (&str, &str), uid: &str, view: &View) -> Option<String> {
    let name = identity::derived_host_name(&format!("token/{uid}"), key.0, key.1, view, Limit::Subdomain)?;
    Some(name.to_string())
}

/// What a host cannot do for any tenant, whatever the policy: the field and why.
pub fn unsupported(pod: &Value) -> Option<(String, &'static str)> {
    if !json::items(pod, "/spec/resourceClaims").is_empty() {
        return Some(("spec.resourceClaims".to_owned(), "is not supported: resource claims are not synced"));
    }
    json::items(pod, "/spec/volumes").iter().enumerate().find_map(|(index, volume)| {
        let certificate = json::items(volume, "/projected/sources").iter().any(|s| json::has(s, "/podCertificate"));
        let rule = "is not supported: the certificate would carry the host's identity";
        certificate.then(|| (format!("spec.volumes[{index}].projected.sources.podCertificate"), rule))
    })
}

/// What of a pod alone is more than crosses to the host; nothing has been made for it yet. Ephemeral containers do not
/// count: they come later, and are bounded by themselves.
pub fn excess(pod: &Value) -> Option<Excess> {
    let list = |list: &str| json::items(pod, &format!("/spec/{list}")).len();
    let containers = (list("containers") + list("initContainers"), bounds::CONTAINERS);
    let tokens = (volumes::count_tokens(pod), bounds::TOKENS);
    let token_field = "spec.volumes[].projected.sources[].serviceAccountToken";
    Excess::beyond("spec.containers and spec.initContainers", "containers together", containers, "use fewer")
        .or_else(|| Excess::beyond(token_field, "tokens", tokens, "let containers share them"))
        .or_else(|| scheduling::excess(pod))
        .or_else(|| {
            let what = "names of ConfigMaps, Secrets, claims and Endpoints";
            Excess::beyond("spec", what, (walk::count(pod), bounds::NAMES), "name fewer, with more in each")
        })
        .or_else(|| expansion::excess(pod))
}

/// The host pod at creation, of one that has no [`excess`].
pub fn to_host(pod: &Value, around: &Around, view: &View) -> Result<Made, Refusal> {
    let selected = scheduling::select(pod, &around.namespaces).map_err(Refusal::Excess)?;
    let mut metadata = metadata(pod, view).ok_or(Refusal::Name)?;
    identity::record_keys(&mut metadata);
    let mut spec = allowed::spec(pod);
    allowed::shorten(&mut spec, view);
    if spec.contains_key("tolerations") {
        spec.insert("tolerations".to_owned(), Value::Array(allowed::tolerations(pod, view)));
    }
    for field in [
        "serviceAccount",
        "serviceAccountName",
        "ephemeralContainers",
        "overhead",
        "priority",
        "preemptionPolicy",
        "subdomain",
        "resourceClaims",
    ] {
        spec.remove(field);
    }
    if !around.priority_class {
        spec.remove("priorityClassName");
    }
    if !view.placement.service_account.is_empty() {
        spec.insert("serviceAccountName".to_owned(), json!(view.placement.service_account));
    }
    spec.insert("automountServiceAccountToken".to_owned(), json!(false));
    spec.insert("enableServiceLinks".to_owned(), json!(false));
    spec.insert("hostname".to_owned(), json!(hostname(pod)));
    references::rename(&mut spec, pod, view);
    volumes::translate(&mut spec, token_secret(pod, view).unwrap_or_default().as_str(), view);
    let links_left_out = env::translate(&mut spec, pod, &around.services, view);
    images::translate(&mut spec, view);
    dns::translate(&mut spec, json::namespace(pod), view);
    scheduling::translate(&mut spec, pod, &selected, view);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    Ok(Made { pod, links_left_out })
}

/// What `hostname` says inside: the tenant's, else the pod's name as a DNS label.
pub fn hostname(pod: &Value) -> String {
    let given = json::text(pod, "/spec/hostname");
    if given.is_empty() { hostname_of(json::name(pod)) } else { given.to_owned() }
}

/// The hostname of a pod that does not choose one.
pub(in crate::translate) fn hostname_of(name: &str) -> String {
    let label: String = name.chars().take(63).map(|c| if c == '.' { '-' } else { c }).collect();
    label.trim_matches('-').to_owned()
}
