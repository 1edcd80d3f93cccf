//! Ingresses: names mapped, and what could inject configuration into a shared controller refused.
//!
//! Ingress controllers of the host are shared by all tenants and hold all their keys. Annotations that are pasted into
//! a controller's configuration have leaked them again and again (CVE-2021-25742, CVE-2024-7646, CVE-2025-1097, -1098,
//! -24514, -1974). The whole Ingress is refused then: dropping only an `auth-url` would publish what it protects.

use serde_json::{Map, Value, json};

use super::bounds::{self, Excess};
use super::{View, identity, json, policy};
use crate::crd::policy::Annotated;
use crate::names::Limit;

/// Controllers whose annotations are understood well enough to be judged.
const PREFIXES: &[&str] = &[
    "nginx.ingress.kubernetes.io/",
    "nginx.org/",
    "nginx.com/",
    "haproxy.org/",
    "haproxy-ingress.github.io/",
    "haproxy.router.openshift.io/",
    "ingress.kubernetes.io/",
];
/// Named the class before there was a field for it.
const CLASS: &str = "kubernetes.io/ingress.class";
/// Beginnings of annotations that no ingress controller reads, or that only ask for more than it does by itself.
const HARMLESS: &[&str] = &[
    "acme.cert-manager.io/",
    "app.kubernetes.io/",
    "argocd.argoproj.io/",
    "cert-manager.io/",
    "checksum/",
    "external-dns.alpha.kubernetes.io/",
    "field.cattle.io/",
    "helm.sh/",
    "kubectl.kubernetes.io/",
    "kubernetes.io/ingress.class",
    "kubernetes.io/tls-acme",
    "kustomize.toolkit.fluxcd.io/",
    "meta.helm.sh/",
    "reloader.stakater.com/",
];
/// So many annotations without effect are named.
const NAMED: usize = 8;
/// Annotations that name a Secret, as `name` or `namespace/name`.
const SECRETS: &[&str] = &["auth-secret", "auth-tls-secret", "proxy-ssl-secret"];
/// Beginnings of annotations that hold URLs or expressions which end up in configuration.
const REFUSED: &[&str] = &[
    "auth-url",
    "auth-signin",
    "auth-snippet",
    "auth-tls-match-cn",
    "auth-tls-error-page",
    "auth-proxy-set-headers",
    "auth-cache-key",
    "auth-response-headers",
    "auth-request-redirect",
    "mirror-",
    "modsecurity-",
    "lua-",
    "custom-http-errors-",
    "default-backend",
    "server-alias",
    "backend-config",
    "frontend-config",
    "auth-headers-",
    "global-",
];

/// The annotation, name, path or number for which an Ingress is refused, and why.
pub fn refusal(ingress: &Value, view: &View) -> Option<String> {
    excess(ingress)
        .map(|excess| excess.message())
        .or_else(|| of_names(ingress, view))
        .or_else(|| of_annotations(ingress, view))
        .or_else(|| of_paths(ingress))
}

/// Annotations that mean nothing on the host, the first of them: to do without them publishes nothing that they protect.
pub fn left_out(ingress: &Value, view: &View) -> Vec<String> {
    let annotations = identity::tenant_annotations(ingress).into_keys();
    let crossing = |key: &String| view.policy.annotation(Annotated::Ingresses, key) || key == CLASS;
    annotations.filter(|key| !crossing(key)).take(NAMED).collect()
}

/// A shared controller serves what any Ingress names, so names are checked before anything else.
fn of_names(ingress: &Value, view: &View) -> Option<String> {
    let class = class(ingress);
    if !class.is_empty() && !view.policy.ingress_class(class) {
        return Some(format!("the IngressClass {class:?} is not allowed ({})", policy::decides("ingressClasses")));
    }
    let rules = json::items(ingress, "/spec/rules").iter().map(|rule| json::text(rule, "/host"));
    let of_tls = json::items(ingress, "/spec/tls").iter().flat_map(|tls| json::items(tls, "/hosts"));
    let every = json::has(ingress, "/spec/defaultBackend").then_some("");
    let host =
        rules.chain(of_tls.filter_map(Value::as_str)).chain(every).find(|host| !view.policy.ingress_domain(host))?;
    let what = if host.is_empty() { "a rule for every host".to_owned() } else { format!("the host {host:?}") };
    Some(format!("{what} is not allowed ({})", policy::decides("ingressDomains")))
}

/// The class, by the field or the annotation that came before it.
fn class(ingress: &Value) -> &str {
    match json::text(ingress, "/spec/ingressClassName") {
        "" => identity::annotation(ingress, CLASS),
        class => class,
    }
}

fn of_annotations(ingress: &Value, view: &View) -> Option<String> {
    for (key, value) in identity::tenant_annotations(ingress) {
        let allowed = view.policy.annotation(Annotated::Ingresses, &key);
        if !allowed && key.contains('/') && !HARMLESS.iter().any(|prefix| key.starts_with(prefix)) {
            return Some(format!(
                "annotation {key} is not allowed, and without it the Ingress might publish what it protects ({})",
                policy::decides("ingressAnnotations")
            ));
        }
        if !allowed {
            continue;
        }
        if is_dangerous(&value) {
            return Some(format!("annotation {key} holds characters that could end its place in a configuration"));
        }
        let Some(name) = PREFIXES.iter().find_map(|prefix| key.strip_prefix(prefix)) else { continue };
        if name.contains("snippet") || REFUSED.iter().any(|refused| name.starts_with(refused)) {
            return Some(format!(
                "annotation {key} can inject configuration into the host's shared ingress controller"
            ));
        }
        if SECRETS.contains(&name) && secret_of(&value, json::namespace(ingress)).is_none() {
            return Some(format!("annotation {key} names a Secret of another namespace"));
        }
    }
    None
}

fn of_paths(ingress: &Value) -> Option<String> {
    if let Some(path) = paths(ingress).map(|path| json::text(path, "/path")).find(|path| is_dangerous(path)) {
        return Some(format!("path {path:?} holds characters that could end its place in a configuration"));
    }
    let resource = |backend: &Value| json::has(backend, "/resource");
    let by_resource = ingress.pointer("/spec/defaultBackend").is_some_and(resource)
        || paths(ingress).any(|path| path.get("backend").is_some_and(resource));
    by_resource.then(|| "backends that are no Service are not synced".to_owned())
}

/// The host Ingress. None when its name is not valid.
pub fn to_host(ingress: &Value, view: &View) -> Option<Value> {
    let namespace = json::namespace(ingress);
    let mut metadata = identity::metadata("networking.k8s.io/Ingress", ingress, view, Limit::Subdomain)?;
    json::within(&mut metadata, "annotations", |annotations| {
        for (key, value) in annotations.iter_mut() {
            if let Some(secret) = value.as_str().filter(|_| names_a_secret(key)).and_then(|v| secret_of(v, namespace)) {
                let name = identity::reference("Secret", namespace, secret, view, Limit::Subdomain);
                *value = json!(format!("{}/{name}", view.namespace()));
            }
        }
    });
    let source = ingress.get("spec").unwrap_or(&Value::Null);
    let mut spec = json::pick(source, &["ingressClassName", "defaultBackend", "rules", "tls"]);
    if !class(ingress).is_empty() {
        spec.insert("ingressClassName".to_owned(), json!(class(ingress)));
    }
    json::within(&mut spec, "defaultBackend", |backend| backend_to_host(backend, namespace, view));
    json::each(&mut spec, "rules", |rule| {
        json::within(rule, "http", |http| {
            json::each(http, "paths", |path| {
                json::within(path, "backend", |backend| backend_to_host(backend, namespace, view));
            });
        });
    });
    json::each(&mut spec, "tls", |tls| {
        json::rename(tls, "secretName", |name| identity::reference("Secret", namespace, name, view, Limit::Subdomain));
    });
    Some(json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}))
}

/// Secrets that an Ingress uses.
pub fn secrets(ingress: &Value) -> Vec<String> {
    let tls = json::items(ingress, "/spec/tls").iter().map(|tls| json::text(tls, "/secretName").to_owned());
    let named = json::strings(ingress, "/metadata/annotations").into_iter().filter_map(|(key, value)| {
        if names_a_secret(&key) { secret_of(&value, json::namespace(ingress)).map(str::to_owned) } else { None }
    });
    let mut all: Vec<String> = tls.chain(named).filter(|name| !name.is_empty()).collect();
    all.sort();
    all.dedup();
    all
}

/// Whether this annotation's value is the name of a Secret.
pub(in crate::translate) fn names_a_secret(key: &str) -> bool {
    PREFIXES.iter().find_map(|prefix| key.strip_prefix(prefix)).is_some_and(|name| SECRETS.contains(&name))
}

/// What of it is more than crosses to the host: a shared controller writes all of it into its configuration.
fn excess(ingress: &Value) -> Option<Excess> {
    let list = |pointer: &str| json::items(ingress, pointer).len();
    let beyond = |field: &str, what, found| {
        Excess::beyond(field, what, (found, bounds::PATHS), "spread them over several Ingresses")
    };
    beyond("spec.rules", "rules", list("/spec/rules"))
        .or_else(|| beyond("spec.rules[].http.paths", "paths", paths(ingress).count()))
        .or_else(|| beyond("spec.tls", "entries", list("/spec/tls")))
        .or_else(|| {
            let hosts = json::items(ingress, "/spec/tls").iter().map(|tls| json::items(tls, "/hosts").len());
            beyond("spec.tls[].hosts", "names", hosts.sum())
        })
}

fn paths(ingress: &Value) -> impl Iterator<Item = &Value> {
    json::items(ingress, "/spec/rules").iter().flat_map(|rule| json::items(rule, "/http/paths"))
}

fn backend_to_host(backend: &mut Map<String, Value>, namespace: &str, view: &View) {
    backend.remove("resource");
    json::within(backend, "service", |service| {
        json::rename(service, "name", |name| identity::reference("Service", namespace, name, view, Limit::Label));
    });
}

/// The Secret's name when it is one of the same namespace.
fn secret_of<'a>(value: &'a str, namespace: &str) -> Option<&'a str> {
    match value.split_once('/') {
        None => Some(value),
        Some((of, name)) => (of == namespace && !name.contains('/')).then_some(name),
    }
}

fn is_dangerous(text: &str) -> bool {
    text.chars().any(|c| c.is_control() || matches!(c, '{' | '}' | ';' | '`' | '#'))
}
