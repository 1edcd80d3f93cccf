//! One step in a namespace: some requests are answered, some are removed.
//!
//! Promises: an answer is written to exactly the request that was read, so of two operators one succeeds; what could not be written is
//! forgotten, and nobody has seen it. What is read is bounded by what is answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::answer::{self, Answer, Authority, Denial};
use super::known::{Request, Stepped, Work};
use crate::crd::credentials::{CredentialRequest, CredentialRequestStatus, DENIED, ISSUED};
use crate::crd::{VirtualCluster, pki};
use crate::error::{Kind, Result};
use crate::kubernetes::kubeconfig::issue;
use crate::kubernetes::resources::{CREDENTIAL_REQUESTS, SECRETS, VIRTUAL_CLUSTERS};
use crate::names::TenantId;
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::halt::Retry;
use crate::operator::host::uid_of;
use crate::operator::restored::{self, Whose};
use crate::operator::secret;
use crate::tls::certificates::Pair;

/// Of one virtual cluster, or why it has none. Read once in a step.
type Authorities = HashMap<String, Result<Arc<Authority>, Denial>>;

/// Does what is due. `attempt` counts the steps since the last news.
pub(super) async fn step(context: &Context, namespace: &str, work: &Work, attempt: u32) -> Result<Stepped> {
    let mut stepped = Stepped::default();
    let mut authorities = Authorities::new();
    for request in &work.open {
        match answer_one(context, namespace, request, &mut authorities).await {
            Ok(Done::Answered) => stepped.answered.push(request.clone()),
            Ok(Done::Gone) => stepped.gone.push(request.clone()),
            Ok(Done::Waits) => {
                stepped.waiting.push(request.clone());
                stepped.retry = Some(Retry::Later.pause(attempt));
            }
            Err(error) => {
                // Those behind it would meet the same.
                context.shown.credentials.failed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(namespace, request = request.name, %error, "a request is answered later");
                stepped.waiting.push(request.clone());
                stepped.retry = Some(Retry::Later.pause(attempt));
                break;
            }
        }
    }
    for request in &work.over {
        match context.host.delete(&CREDENTIAL_REQUESTS, namespace, &request.name, &request.uid).await {
            Ok(_) => stepped.gone.push(request.clone()),
            Err(error) => {
                tracing::debug!(namespace, request = request.name, %error, "a request is removed later");
                stepped.retry = Some(Retry::Later.pause(attempt));
                break;
            }
        }
    }
    Ok(stepped)
}

enum Done {
    Answered,
    Gone,
    /// Its virtual cluster is not far enough.
    Waits,
}

async fn answer_one(
    context: &Context,
    namespace: &str,
    request: &Request,
    authorities: &mut Authorities,
) -> Result<Done> {
    let found = context.host.get(&CREDENTIAL_REQUESTS, namespace, &request.name).await?;
    let Some(found) = found.filter(|found| uid_of(found) == request.uid) else { return Ok(Done::Gone) };
    if !found["metadata"]["deletionTimestamp"].is_null() {
        return Ok(Done::Gone);
    }
    let written = &found["metadata"];
    let version = written["resourceVersion"].clone();
    let asked = match serde_json::from_value::<CredentialRequest>(found.clone()) {
        Ok(asked) if asked.status.as_ref().is_some_and(|status| !status.phase.is_empty()) => return Ok(Done::Answered),
        Ok(asked) => Ok(asked),
        // The schema has it otherwise; an older kind in the host may not.
        Err(_) => Err(Denial::new("Invalid", "the request cannot be read")),
    };
    let answer = match asked {
        Err(denial) => Answer::Denied(denial),
        Ok(asked) => match decide(context, namespace, &asked, authorities).await? {
            Some(answer) => answer,
            None => return Ok(Done::Waits),
        },
    };
    let counter = match &answer {
        Answer::Issued(..) => &context.shown.credentials.issued,
        Answer::Denied(_) => &context.shown.credentials.denied,
    };
    let status = status(answer, namespace, &request.name);
    let patch = json!({"metadata": {"uid": request.uid, "resourceVersion": version}, "status": status});
    match context.host.patch_status(&CREDENTIAL_REQUESTS, namespace, &request.name, &patch).await {
        Ok(_) => {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(Done::Answered)
        }
        Err(error) if error.kind() == Kind::NotFound => Ok(Done::Gone),
        // Somebody wrote it meanwhile, another operator perhaps: read it again.
        Err(error) if error.kind() == Kind::Conflict => Ok(Done::Waits),
        Err(error) => Err(error),
    }
}

/// `None`: not yet.
async fn decide(
    context: &Context,
    namespace: &str,
    asked: &CredentialRequest,
    authorities: &mut Authorities,
) -> Result<Option<Answer>> {
    let bounds = &context.config.operator.credentials;
    let wanted = match answer::check(&asked.spec, bounds) {
        Ok(wanted) => wanted,
        Err(denial) => return Ok(Some(Answer::Denied(denial))),
    };
    let name = &asked.spec.virtual_cluster;
    if !authorities.contains_key(name) {
        let Some(found) = authority(context, namespace, name).await? else { return Ok(None) };
        authorities.insert(name.clone(), found.map(Arc::new));
    }
    let authority = match authorities.get(name) {
        Some(Ok(authority)) => Arc::clone(authority),
        Some(Err(denial)) => return Ok(Some(Answer::Denied(denial.clone()))),
        None => return Ok(None),
    };
    let created = asked.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let answer = answer::sign(&authority, &asked.spec, created, &wanted, bounds, context.clock.now());
    Ok(Some(answer.unwrap_or_else(Answer::Denied)))
}

/// What signs for a cluster now, asked anew: a name tells nothing of whose it was a moment ago. `None`: it is being made.
async fn authority(context: &Context, namespace: &str, name: &str) -> Result<Option<Result<Authority, Denial>>> {
    let none = || Denial::new("NoVirtualCluster", format!("there is no virtual cluster {name:?} in this namespace"));
    // It is a name that a VirtualCluster can have, and part of a path.
    if TenantId::parse(namespace, name).is_err() {
        return Ok(Some(Err(none())));
    }
    let Some(object) = context.host.get(&VIRTUAL_CLUSTERS, namespace, name).await? else {
        return Ok(Some(Err(none())));
    };
    let created = object["metadata"]["creationTimestamp"].as_str().and_then(|text| text.parse().ok());
    let cluster = serde_json::from_value::<VirtualCluster>(object).ok().and_then(|object| Cluster::new(&object).ok());
    let Some(cluster) = cluster.filter(|cluster| !cluster.is_leaving && !cluster.uid.is_empty()) else {
        return Ok(Some(Err(none())));
    };
    let secret = match context.host.get(&SECRETS, namespace, &cluster.pki_secret()).await {
        Err(error) if error.kind() == Kind::Forbidden => {
            let message = "Portico may not work in this namespace: run `portico create` there, or bind ClusterRole portico-tenant";
            return Ok(Some(Err(Denial::new("NoRights", message))));
        }
        found => found?,
    };
    let Some(secret) = secret.filter(|secret| is_its(secret, &cluster)) else { return Ok(None) };
    let mut data = secret::data(&secret);
    let mut take = |key: &str| data.remove(key).unwrap_or_default();
    let client_ca = Pair { certificate: take(pki::CLIENT_CA), key: take(pki::CLIENT_CA_KEY) };
    let ways = ways(context, &cluster).await?;
    Ok(Some(Authority::new(cluster.uid, created, (client_ca, ways), context.clock.now())))
}

/// As the admin's kubeconfig has them; empty while there is none.
async fn ways(context: &Context, cluster: &Cluster) -> Result<String> {
    let secret = context.host.get(&SECRETS, cluster.namespace(), &cluster.kubeconfig_secret()).await?;
    let data = secret.filter(|secret| is_its(secret, cluster)).map(|secret| secret::data(&secret));
    let config = data.and_then(|mut data| data.remove(issue::CONFIG));
    Ok(config.and_then(|config| issue::without_credential(&config).ok()).unwrap_or_default())
}

/// Whether a Secret is this very cluster's, and no namesake's that is still there.
fn is_its(secret: &Value, cluster: &Cluster) -> bool {
    restored::whose(&SECRETS, secret, cluster).is_ok_and(|whose| whose == Whose::Ours)
}

fn status(answer: Answer, namespace: &str, name: &str) -> CredentialRequestStatus {
    match answer {
        Answer::Denied(Denial { reason, message }) => {
            tracing::info!(namespace, request = name, reason, "a request for a credential is refused");
            CredentialRequestStatus {
                phase: DENIED.to_owned(),
                reason: reason.to_owned(),
                message,
                ..CredentialRequestStatus::default()
            }
        }
        Answer::Issued(issued, kubeconfig) => {
            tracing::info!(namespace, request = name, until = %issued.not_after, "a client certificate is signed");
            CredentialRequestStatus {
                phase: ISSUED.to_owned(),
                reason: ISSUED.to_owned(),
                certificate: issued.certificate,
                expiration: issued.not_after.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                kubeconfig,
                ..CredentialRequestStatus::default()
            }
        }
    }
}
