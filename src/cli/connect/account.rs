//! A token of a ServiceAccount of the virtual cluster, with the rights that were asked for: made with the caller's own admin access,
//! over the gateway.
//!
//! Promises: what is there already is used or left as it is, never changed; every wait ends.

use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding, RoleRef, Subject};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::credential::{Account, Grant};
use crate::cli::access::is_code;
use crate::cli::failure::{Failure, Outcome, chain};

/// Longest wait for all of it.
const DEADLINE: Duration = Duration::from_secs(60);
const RBAC: &str = "rbac.authorization.k8s.io";

/// A token and its end.
pub(super) struct Token {
    pub(super) text: String,
    pub(super) ends: Timestamp,
    /// `namespace/name`.
    pub(super) account: String,
}

/// Makes what is missing and asks for a token, as whom the kubeconfig names. `namespace` is where an account without one is.
pub(super) async fn token(kubeconfig: &Value, namespace: &str, wanted: &Account) -> Outcome<Token> {
    let late = |_| {
        Err(Failure::timeout(
            format!("the virtual cluster did not answer within {DEADLINE:?}"),
            "is it ready, and does its gateway answer? portico describe NAME; kubectl get --raw /readyz",
        ))
    };
    tokio::time::timeout(DEADLINE, made(kubeconfig, namespace, wanted)).await.unwrap_or_else(late)
}

async fn made(kubeconfig: &Value, namespace: &str, wanted: &Account) -> Outcome<Token> {
    let client = client(kubeconfig).await?;
    let namespace = wanted.namespace.as_deref().unwrap_or(namespace);
    let account = format!("{namespace}/{}", wanted.name);
    ensure_account(&client, namespace, &wanted.name).await?;
    ensure_grant(&client, namespace, wanted).await?;
    let api: Api<ServiceAccount> = Api::namespaced(client, namespace);
    let spec = TokenRequestSpec { expiration_seconds: i64::try_from(wanted.life.as_secs()).ok(), ..Default::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let answer = api
        .create_token_request(&wanted.name, &PostParams::default(), &request)
        .await
        .map_err(|error| failed(&format!("ask for a token of ServiceAccount {account}"), &error))?;
    let granted = answer.status.and_then(|status| Some((status.token?, status.expiration_timestamp?.0)));
    let (text, ends) = granted.ok_or_else(|| {
        Failure::new(
            format!("the virtual cluster answered no token of ServiceAccount {account}"),
            "look at its API server: portico describe NAME",
        )
    })?;
    Ok(Token { text, ends, account })
}

async fn client(kubeconfig: &Value) -> Outcome<Client> {
    let unusable = |e: &dyn std::error::Error| {
        Failure::new(
            format!("the admin's kubeconfig of the virtual cluster cannot be used: {}", chain(e)),
            "delete its Secret (vc-NAME) and Portico writes it again",
        )
    };
    let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig.clone()).map_err(|e| unusable(&e))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|e| unusable(&e))?;
    // As kubectl would, but through nobody: the way was chosen already.
    config.proxy_url = None;
    Client::try_from(config).map_err(|e| unusable(&e))
}

async fn ensure_account(client: &Client, namespace: &str, name: &str) -> Outcome<()> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let object = ServiceAccount { metadata: named(name), ..ServiceAccount::default() };
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        Err(error) if is_code(&error, 409) => Ok(()),
        Err(error) if is_code(&error, 404) => Err(Failure::not_found(
            format!("the virtual cluster has no namespace {namespace}"),
            format!("make it there (kubectl create namespace {namespace}), or name another: --service-account NS/NAME"),
        )),
        Err(error) => Err(failed(&format!("make ServiceAccount {namespace}/{name}"), &error)),
    }
}

async fn ensure_grant(client: &Client, namespace: &str, wanted: &Account) -> Outcome<()> {
    let subject = Subject {
        kind: "ServiceAccount".to_owned(),
        name: wanted.name.clone(),
        namespace: Some(namespace.to_owned()),
        api_group: None,
    };
    let subjects = Some(vec![subject]);
    match &wanted.grant {
        Grant::Nothing => Ok(()),
        Grant::ClusterRole(role) => {
            let roles: Api<ClusterRole> = Api::all(client.clone());
            exists(roles.get_opt(role).await, "ClusterRole", role, "--cluster-role")?;
            let name = binding_name(namespace, &wanted.name, role);
            let role_ref = role_ref("ClusterRole", role);
            let object = ClusterRoleBinding { metadata: named(&name), role_ref, subjects };
            let api: Api<ClusterRoleBinding> = Api::all(client.clone());
            let is_that = |a: &ClusterRoleBinding| a.role_ref == object.role_ref && a.subjects == object.subjects;
            ensure_binding(&api, &object, is_that, ("ClusterRoleBinding", &name, None)).await
        }
        Grant::Role(within, role) => {
            let roles: Api<Role> = Api::namespaced(client.clone(), within);
            exists(roles.get_opt(role).await, "Role", &format!("{within}/{role}"), "--role")?;
            let name = binding_name(namespace, &wanted.name, role);
            let object = RoleBinding { metadata: named(&name), role_ref: role_ref("Role", role), subjects };
            let api: Api<RoleBinding> = Api::namespaced(client.clone(), within);
            let is_that = |a: &RoleBinding| a.role_ref == object.role_ref && a.subjects == object.subjects;
            ensure_binding(&api, &object, is_that, ("RoleBinding", &name, Some(within))).await
        }
    }
}

/// Makes a binding, in this namespace if it has one; what is there already must be the same.
async fn ensure_binding<K>(
    api: &Api<K>,
    object: &K,
    is_that: impl Fn(&K) -> bool,
    (kind, name, namespace): (&str, &str, Option<&str>),
) -> Outcome<()>
where
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    match api.create(&PostParams::default(), object).await {
        Ok(_) => Ok(()),
        Err(error) if is_code(&error, 409) => {
            let found = api.get(name).await.map_err(|e| failed(&format!("read {kind} {name}"), &e))?;
            if is_that(&found) { Ok(()) } else { Err(taken(kind, name, namespace)) }
        }
        Err(error) => {
            let place = namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
            Err(failed(&format!("make {kind} {name}{place}"), &error))
        }
    }
}

/// A binding to a role that is not there would wait for whoever makes one of that name.
fn exists<T>(found: kube::Result<Option<T>>, kind: &str, name: &str, flag: &str) -> Outcome<()> {
    match found {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Failure::not_found(
            format!("the virtual cluster has no {kind} {name}"),
            format!("make it there first, or give another: {flag}"),
        )),
        Err(error) => Err(failed(&format!("read {kind} {name}"), &error)),
    }
}

/// One for each account and role; neither account nor namespace holds a colon, so no two are one.
fn binding_name(namespace: &str, account: &str, role: &str) -> String {
    format!("portico:{namespace}:{account}:{role}")
}

fn taken(kind: &str, name: &str, namespace: Option<&str>) -> Failure {
    let place = namespace.map(|namespace| format!("-n {namespace} ")).unwrap_or_default();
    Failure::new(
        format!("{kind} {name} of the virtual cluster binds something else, and was left as it is"),
        format!("look at it, and delete it if nobody needs it: kubectl {place}get {kind} {name} -o yaml"),
    )
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some(RBAC.to_owned()), kind: kind.to_owned(), name: name.to_owned() }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

/// An answer of the virtual cluster, which is not the host: its rights are the kubeconfig's.
fn failed(action: &str, error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) if status.code == 401 => Failure::new(
            format!("the virtual cluster does not accept the admin's certificate ({action})"),
            "its PKI may be new: run connect again in a minute, or look: portico describe NAME",
        ),
        kube::Error::Api(status) => Failure::new(
            format!("the virtual cluster refused to {action}: {}", status.message),
            "read the reason above; a token lives 10m at least",
        ),
        other => Failure::new(
            format!("cannot {action}: {}", chain(other)),
            "is the gateway reachable from here? Another way to it: --server URL",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_of_different_accounts_have_different_names() {
        let all = [("a", "b", "c:d"), ("a", "b.c", "d"), ("a", "b", "d"), ("a-b", "c", "d"), ("a", "b-c", "d")];
        let names: std::collections::BTreeSet<String> = all.iter().map(|(n, a, r)| binding_name(n, a, r)).collect();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn refusals_are_the_virtual_clusters() {
        let status = serde_json::json!({"code": 422, "message": "too short", "reason": "Invalid"});
        let error = kube::Error::Api(Box::new(serde_json::from_value(status).expect("a Status")));
        let failure = failed("ask for a token", &error);
        assert!(failure.what().contains("the virtual cluster refused to ask for a token: too short"));
    }
}
