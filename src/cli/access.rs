//! Opting a namespace in: the namespace itself, and the RoleBinding that lets Portico work in it.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};

use super::failure::{Failure, Outcome};
use super::output;

/// ClusterRole with the rights that Portico needs in a namespace with virtual clusters.
const TENANT_ROLE: &str = "portico-tenant";
/// Name of the binding.
const BINDING: &str = "portico";

/// Portico's ServiceAccount.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PorticoArgs {
    /// Namespace where Portico runs.
    #[arg(long, value_name = "NAMESPACE", default_value = "portico-system", env = "PORTICO_NAMESPACE")]
    pub(super) portico_namespace: String,
    /// Portico's ServiceAccount there.
    #[arg(long, value_name = "NAME", default_value = "portico")]
    portico_service_account: String,
}

pub(super) fn namespace(name: &str) -> Namespace {
    Namespace { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..Namespace::default() }
}

pub(super) fn role_binding(namespace: &str, portico: &PorticoArgs) -> RoleBinding {
    RoleBinding {
        metadata: ObjectMeta {
            name: Some(BINDING.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "ClusterRole".to_owned(),
            name: TENANT_ROLE.to_owned(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: portico.portico_service_account.clone(),
            namespace: Some(portico.portico_namespace.clone()),
            api_group: None,
        }]),
    }
}

/// Creates the namespace when it is missing. Who may not read namespaces is believed to have one already.
pub(super) async fn ensure_namespace(client: &Client, name: &str, create: bool) -> Outcome<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    match api.get_opt(name).await {
        Ok(Some(_)) => return Ok(()),
        Err(error) if is_code(&error, 403) => return Ok(()),
        Err(error) => return Err(Failure::api(&format!("read namespace {name}"), &error)),
        Ok(None) if !create => {
            return Err(Failure::not_found(
                format!("namespace {name} does not exist"),
                format!("create it (kubectl create namespace {name}), or leave out --create-namespace=false"),
            ));
        }
        Ok(None) => {}
    }
    match api.create(&PostParams::default(), &namespace(name)).await {
        Ok(_) => output::note(&format!("namespace {name} created")),
        Err(error) if is_code(&error, 409) => {}
        Err(error) => return Err(Failure::api(&format!("create namespace {name}"), &error)),
    }
    Ok(())
}

/// Gives Portico its rights in the namespace. A user who may not bind roles goes on with a note: an admin may have done it.
pub(super) async fn ensure_binding(client: &Client, namespace: &str, portico: &PorticoArgs) -> Outcome<()> {
    let api: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
    let wanted = role_binding(namespace, portico);
    match api.create(&PostParams::default(), &wanted).await {
        Ok(_) => Ok(()),
        Err(error) if is_code(&error, 409) => check_binding(&api, namespace, &wanted).await,
        Err(error) if is_code(&error, 404) => Err(Failure::not_found(
            format!("namespace {namespace} does not exist"),
            format!("create it: kubectl create namespace {namespace}"),
        )),
        Err(error) if is_code(&error, 403) => {
            if check_binding(&api, namespace, &wanted).await.is_err() {
                output::note(&format!(
                    "note: you may not give Portico its rights in this namespace; unless done, an admin runs: {}",
                    by_hand(namespace, portico)
                ));
            }
            Ok(())
        }
        Err(error) => Err(Failure::api(&format!("create RoleBinding {BINDING} in namespace {namespace}"), &error)),
    }
}

async fn check_binding(api: &Api<RoleBinding>, namespace: &str, wanted: &RoleBinding) -> Outcome<()> {
    let found = match api.get(BINDING).await {
        Ok(found) => found,
        Err(error) => {
            return Err(Failure::api(&format!("read RoleBinding {BINDING} in namespace {namespace}"), &error));
        }
    };
    if covers(&found, wanted) {
        return Ok(());
    }
    Err(Failure::new(
        format!(
            "RoleBinding {BINDING} in namespace {namespace} does not bind Portico's ServiceAccount to ClusterRole {TENANT_ROLE}"
        ),
        format!(
            "check --portico-namespace and --portico-service-account, or delete it and run again: kubectl -n {namespace} delete rolebinding {BINDING}"
        ),
    ))
}

fn covers(found: &RoleBinding, wanted: &RoleBinding) -> bool {
    let subjects = found.subjects.as_deref().unwrap_or_default();
    found.role_ref.kind == wanted.role_ref.kind
        && found.role_ref.name == wanted.role_ref.name
        && wanted
            .subjects
            .iter()
            .flatten()
            .all(|w| subjects.iter().any(|s| s.kind == w.kind && s.name == w.name && s.namespace == w.namespace))
}

fn by_hand(namespace: &str, portico: &PorticoArgs) -> String {
    format!(
        "kubectl -n {namespace} create rolebinding {BINDING} --clusterrole={TENANT_ROLE} --serviceaccount={}:{}",
        portico.portico_namespace, portico.portico_service_account
    )
}

/// Whether the host API answered with this code.
pub(super) fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_of_another_portico_does_not_count() {
        let ours =
            PorticoArgs { portico_namespace: "portico-system".into(), portico_service_account: "portico".into() };
        let other = PorticoArgs { portico_namespace: "elsewhere".into(), ..ours.clone() };
        let wanted = role_binding("team-a", &ours);
        assert!(covers(&role_binding("team-a", &ours), &wanted));
        assert!(!covers(&role_binding("team-a", &other), &wanted));
        let mut wide = role_binding("team-a", &other);
        wide.subjects.get_or_insert_default().extend(wanted.subjects.clone().unwrap_or_default());
        assert!(covers(&wide, &wanted), "further subjects are the admin's business");
    }
}
