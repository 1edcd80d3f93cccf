//! A client certificate of a user: the key is made here and stays here; Portico's operator signs it, asked by a
//! CredentialRequest in the host namespace.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams, Preconditions};
use tokio::time::{Instant, sleep};

use super::credential::User;
use crate::cli::access::is_code;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::host::Host;
use crate::cli::progress::{POLL, Progress};
use crate::crd::credentials::{CredentialRequest, CredentialRequestSpec, CredentialRequestStatus, DENIED, ISSUED};
use crate::crd::{GROUP, VirtualCluster};
use crate::tls::issued;

/// How long the operator is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A certificate with its key, and its end.
pub(super) struct Certificate {
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) ends: Timestamp,
    /// The ways to the cluster, for who may not read its admin's Secret: a kubeconfig without a credential, or empty.
    pub(super) kubeconfig: String,
}

/// Asks for one and waits for the answer; the request is removed behind it.
pub(super) async fn signed(host: &Host, cluster: &str, wanted: &User) -> Outcome<Certificate> {
    let unmade = |e: crate::error::Error| Failure::new(e.message().to_owned(), "please report this with the command");
    let (key, request) = issued::new_request().map_err(unmade)?;
    let uid = uid(host, cluster).await?;
    let api: Api<CredentialRequest> = Api::namespaced(host.client.clone(), &host.namespace);
    let object = object(cluster, uid, request, wanted);
    let made = api.create(&PostParams::default(), &object).await.map_err(|e| unasked(host, &e))?;
    let answer = answered(&api, &made, cluster, host).await;
    // What is left is removed by the operator in some minutes.
    let name = made.metadata.name.unwrap_or_default();
    let exactly = Preconditions { uid: made.metadata.uid, resource_version: None };
    let _ = api.delete(&name, &DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() }).await;
    let status = answer?;
    if status.phase == DENIED {
        return Err(denied(&status));
    }
    let ends = issued::ends(&status.certificate).ok_or_else(|| {
        Failure::new(
            "Portico answered with something that is no certificate",
            "run it again; if it stays, look at the operator's log",
        )
    })?;
    Ok(Certificate { certificate: status.certificate, key, ends, kubeconfig: status.kubeconfig })
}

/// Which VirtualCluster is meant; whoever may not read it means the one that has the name.
async fn uid(host: &Host, cluster: &str) -> Outcome<Option<String>> {
    let api: Api<VirtualCluster> = Api::namespaced(host.client.clone(), &host.namespace);
    match api.get(cluster).await {
        Ok(found) => Ok(found.metadata.uid),
        Err(error) if is_code(&error, 403) => Ok(None),
        Err(error) if is_code(&error, 404) => Err(Failure::not_found(
            format!("there is no VirtualCluster {cluster} in namespace {}, whose operator could sign", host.namespace),
            "for a cluster of the sidecar form take --service-account; else name the namespace with -n",
        )),
        Err(error) => Err(Failure::api(&format!("read virtual cluster {cluster}"), &error)),
    }
}

fn object(cluster: &str, uid: Option<String>, request: String, wanted: &User) -> CredentialRequest {
    let spec = CredentialRequestSpec {
        virtual_cluster: cluster.to_owned(),
        virtual_cluster_uid: uid.clone().unwrap_or_default(),
        request,
        user: wanted.name.clone(),
        groups: wanted.groups.clone(),
        expiration_seconds: i64::try_from(wanted.life.as_secs()).unwrap_or(i64::MAX),
    };
    let owner = uid.map(|uid| OwnerReference {
        api_version: format!("{GROUP}/v1alpha1"),
        kind: "VirtualCluster".to_owned(),
        name: cluster.to_owned(),
        uid,
        ..OwnerReference::default()
    });
    let mut object = CredentialRequest::new("", spec);
    object.metadata = ObjectMeta {
        generate_name: Some(format!("{cluster}-")),
        owner_references: owner.map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    object
}

async fn answered(
    api: &Api<CredentialRequest>,
    made: &CredentialRequest,
    cluster: &str,
    host: &Host,
) -> Outcome<CredentialRequestStatus> {
    let name = made.metadata.name.as_deref().unwrap_or_default();
    let deadline = Instant::now() + PATIENCE;
    let mut progress = Progress::start();
    loop {
        let found = api.get_opt(name).await.map_err(|e| Failure::api(&format!("read CredentialRequest {name}"), &e))?;
        let Some(found) = found.filter(|found| found.metadata.uid == made.metadata.uid) else {
            return Err(Failure::new(
                format!("CredentialRequest {name} went before it was answered"),
                "there were too many in this namespace, or somebody deleted it: run it again",
            ));
        };
        let status = found.status.unwrap_or_default();
        if [ISSUED, DENIED].contains(&status.phase.as_str()) {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(Failure::timeout(
                format!("CredentialRequest {name} was not answered within {PATIENCE:?}"),
                format!(
                    "is the cluster ready, and does Portico's operator run? portico describe {cluster} -n {}",
                    host.namespace
                ),
            ));
        }
        progress.say("waiting for Portico to sign");
        sleep(POLL).await;
    }
}

fn denied(status: &CredentialRequestStatus) -> Failure {
    let hint = match status.reason.as_str() {
        "ReservedName" => {
            "take another name; whoever needs rights of Kubernetes' own is bound to a role: --service-account with --cluster-role"
        }
        "NoAuthority" => "take a ServiceAccount instead: --service-account [NS/]NAME --cluster-role ROLE",
        "Replaced" | "NoVirtualCluster" => "look at what is there: portico list",
        _ => "the reason above is the operator's",
    };
    Failure::new(format!("Portico did not sign: {}", status.message), hint)
}

fn unasked(host: &Host, error: &kube::Error) -> Failure {
    let action = format!("make a CredentialRequest in namespace {}", host.namespace);
    // The server names no object: it does not know the kind.
    if is_code(error, 404) {
        return Failure::new(
            format!("cannot {action}: this host cluster has no CredentialRequests, or no such namespace"),
            "an admin upgrades Portico's chart, which brings the kind; until then take --service-account",
        );
    }
    Failure::api(&action, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_cluster_and_goes_with_it() {
        let life = Duration::from_secs(3600);
        let wanted = User { name: "jane".to_owned(), groups: vec!["dev".to_owned()], life };
        let asked = object("shop", Some("u1".to_owned()), "PEM".to_owned(), &wanted);
        let owner = asked.metadata.owner_references.expect("an owner").remove(0);
        assert_eq!((owner.name.as_str(), owner.uid.as_str()), ("shop", "u1"));
        assert_eq!(asked.metadata.generate_name.as_deref(), Some("shop-"));
        assert_eq!((asked.spec.expiration_seconds, asked.spec.virtual_cluster_uid.as_str()), (3600, "u1"));
        let unknown = object("shop", None, "PEM".to_owned(), &wanted);
        assert!(unknown.metadata.owner_references.is_none() && unknown.spec.virtual_cluster_uid.is_empty());
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let status = |reason: &str| CredentialRequestStatus {
            phase: DENIED.to_owned(),
            reason: reason.to_owned(),
            message: "no".to_owned(),
            ..CredentialRequestStatus::default()
        };
        assert!(denied(&status("NoAuthority")).hint().contains("--service-account"));
        assert!(denied(&status("ReservedName")).what().contains("did not sign: no"));
    }
}
