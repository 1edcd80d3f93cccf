//! `portico recover`: a person's decision about a virtual cluster that is held, and about claims that it has left behind.
//!
//! The decision is an annotation that names the store that was found, so it is for what was shown and nothing later. The
//! syncer carries it out; what it could and could not do it writes as a report.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::access::is_code;
use super::cluster;
use super::failure::{Failure, Outcome};
use super::host::{Host, HostArgs};
use super::output;
use super::progress::{self, POLL, Progress};
use crate::crd::{HoldStatus, VirtualCluster};
use crate::names::keys;

/// Key of the report in the ConfigMap `NAME-recovery`.
const REPORT: &str = "report";

/// Arguments of `portico recover`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Virtual cluster.
    name: String,
    #[command(flatten)]
    choice: Choice,
    /// Do not ask before anything is discarded.
    #[arg(long, short)]
    yes: bool,
    /// Do not wait until it is done.
    #[arg(long)]
    no_wait: bool,
    /// Wait until it is done (the default).
    #[arg(long, conflicts_with = "no_wait")]
    wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "5m", value_parser = progress::duration, value_name = "DURATION")]
    timeout: Duration,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Choice {
    /// Write what stands on the host back into the virtual cluster: namespaces, claims, Services, configuration and pods.
    #[arg(long)]
    adopt: bool,
    /// Remove what stands on the host without an original in the virtual cluster; claims are kept for a grace period.
    #[arg(long)]
    discard: bool,
    /// Keep the claims that were left behind, with their volumes, for ever.
    #[arg(long)]
    keep_claims: bool,
}

/// What one look at a cluster says of a decision about it.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Done,
    Waiting(String),
    Failed(String),
}

pub(super) async fn run(host: &HostArgs, args: Args) -> Outcome<()> {
    let host = host.connect().await?;
    if args.choice.keep_claims {
        return keep_claims(&host, &args.name).await;
    }
    let api: Api<VirtualCluster> = Api::namespaced(host.client.clone(), &host.namespace);
    let found = cluster::get(&api, &host.namespace, &args.name).await?;
    let Some(hold) = held(&found) else {
        output::note(&format!("virtual cluster {} is not held: there is nothing to recover", args.name));
        return Ok(());
    };
    output::note(&hold.message);
    if args.choice.discard && !args.yes {
        confirm(&args.name)?;
    }
    let decision = decision(args.choice.adopt, hold);
    let patch = json!({"metadata": {"uid": found.metadata.uid, "annotations": {keys::RECOVER: decision}}});
    api.patch(&args.name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map_err(|e| Failure::api(&format!("change virtual cluster {}", args.name), &e))?;
    if args.no_wait {
        output::note(&format!("decided; portico describe {} -n {} shows what is done", args.name, host.namespace));
        return Ok(());
    }
    let waited = wait(&api, &host, &args, hold).await;
    report(&host, &args.name).await?;
    waited?;
    output::line(&format!("virtual cluster {} is synced again", args.name));
    Ok(())
}

fn held(cluster: &VirtualCluster) -> Option<&HoldStatus> {
    cluster.status.as_ref()?.hold.as_ref()
}

/// For exactly the store that was shown.
fn decision(adopt: bool, hold: &HoldStatus) -> String {
    format!("{}:{}", if adopt { "adopt" } else { "discard" }, hold.found)
}

fn confirm(name: &str) -> Outcome<()> {
    let question = format!(
        "What stands on the host without an original in virtual cluster {name} is removed. Type its name to go on:"
    );
    match output::ask(&question) {
        Some(answer) if answer == name => Ok(()),
        Some(_) => Err(Failure::new("nothing was changed", "type the name as it stands in the question")),
        None => Err(Failure::new("--discard removes what runs on the host, and nobody is here to ask", "give --yes")),
    }
}

async fn wait(api: &Api<VirtualCluster>, host: &Host, args: &Args, before: &HoldStatus) -> Outcome<()> {
    let deadline = Instant::now() + args.timeout;
    let mut progress = Progress::start();
    loop {
        let found = cluster::get(api, &host.namespace, &args.name).await?;
        let message = match look(&found, before) {
            Look::Done => return Ok(()),
            Look::Failed(why) => {
                return Err(Failure::new(
                    format!("virtual cluster {} is held on: {why}", args.name),
                    format!(
                        "mend what is named above and run again; portico describe {} -n {}",
                        args.name, host.namespace
                    ),
                ));
            }
            Look::Waiting(message) => message,
        };
        if Instant::now() >= deadline {
            return Err(Failure::timeout(
                format!("virtual cluster {} is still held after {:?}: {message}", args.name, args.timeout),
                format!("it goes on without this command: portico describe {} -n {}", args.name, host.namespace),
            ));
        }
        progress.say(&message);
        sleep(POLL).await;
    }
}

/// A failure said before counts when the decision was taken away, which is how the syncer says that it has read it.
fn look(cluster: &VirtualCluster, before: &HoldStatus) -> Look {
    let Some(hold) = held(cluster) else { return Look::Done };
    if hold.found != before.found || hold.reason != before.reason {
        return Look::Failed(format!("it is held for another reason by now: {}", hold.message));
    }
    let is_read = !cluster.annotations().contains_key(keys::RECOVER);
    if hold.message.starts_with(HoldStatus::FAILED) && (is_read || hold.message != before.message) {
        return Look::Failed(hold.message.clone());
    }
    let message =
        if hold.message == before.message { "waiting for the syncer".to_owned() } else { hold.message.clone() };
    Look::Waiting(message)
}

/// What the syncer wrote about what came back and what did not.
async fn report(host: &Host, name: &str) -> Outcome<()> {
    let api: Api<ConfigMap> = Api::namespaced(host.client.clone(), &host.namespace);
    let map = format!("{name}-recovery");
    match api.get_opt(&map).await {
        Ok(Some(found)) => {
            let text = found.data.as_ref().and_then(|data| data.get(REPORT)).map_or("", |text| text.trim_end());
            if !text.is_empty() {
                output::text(&format!("{text}\n"));
            }
        }
        Ok(None) => {}
        Err(error) if is_code(&error, 403) => output::note(&format!(
            "the report is in ConfigMap {map} of namespace {}, which you may not read",
            host.namespace
        )),
        Err(error) => return Err(Failure::api(&format!("read ConfigMap {map}"), &error)),
    }
    Ok(())
}

async fn keep_claims(host: &Host, name: &str) -> Outcome<()> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(host.client.clone(), &host.namespace);
    let selector = ListParams::default().labels(&format!("{}={name}", keys::ABANDONED));
    let left = api.list(&selector).await.map_err(|e| Failure::api("list persistentvolumeclaims", &e))?.items;
    if left.is_empty() {
        output::note(&format!("virtual cluster {name} has left no claims behind in namespace {}", host.namespace));
    }
    for claim in &left {
        let claim_name = claim.name_any();
        match api.patch(&claim_name, &PatchParams::default(), &Patch::Merge(&kept(claim))).await {
            Ok(_) => output::line(&format!("persistentvolumeclaim/{claim_name} is kept")),
            Err(error) if is_code(&error, 404) => output::note(&format!("persistentvolumeclaim/{claim_name} is gone")),
            Err(error) => return Err(Failure::api(&format!("change persistentvolumeclaim {claim_name}"), &error)),
        }
    }
    Ok(())
}

/// Takes away what says that the claim may be deleted.
fn kept(claim: &PersistentVolumeClaim) -> Value {
    json!({"metadata": {
        "uid": claim.metadata.uid,
        "labels": {keys::ABANDONED: null},
        "annotations": {keys::DELETE_AFTER: null},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{VirtualClusterSpec, VirtualClusterStatus};

    fn hold(found: &str, message: &str) -> HoldStatus {
        let (found, message) = (found.to_owned(), message.to_owned());
        HoldStatus { reason: "StoreReplaced".to_owned(), message, found, ..HoldStatus::default() }
    }

    fn cluster(hold: Option<HoldStatus>, decision: Option<&str>) -> VirtualCluster {
        let mut cluster = VirtualCluster::new("blue", VirtualClusterSpec::default());
        cluster.status = Some(VirtualClusterStatus { hold, ..VirtualClusterStatus::default() });
        if let Some(decision) = decision {
            cluster.annotations_mut().insert(keys::RECOVER.to_owned(), decision.to_owned());
        }
        cluster
    }

    #[test]
    fn a_decision_is_for_the_store_that_was_found() {
        assert_eq!(decision(true, &hold("u2", "m")), "adopt:u2");
        assert_eq!(decision(false, &hold("", "m")), "discard:");
    }

    #[test]
    fn it_is_done_when_nothing_is_held() {
        let before = hold("u2", "m");
        assert_eq!(look(&cluster(None, Some("adopt:u2")), &before), Look::Done);
        assert_eq!(look(&VirtualCluster::new("blue", VirtualClusterSpec::default()), &before), Look::Done);
        let waits = |now: &str| look(&cluster(Some(hold("u2", now)), Some("adopt:u2")), &before);
        assert_eq!(waits("m"), Look::Waiting("waiting for the syncer".to_owned()));
        assert_eq!(waits("pods: 3 of 9"), Look::Waiting("pods: 3 of 9".to_owned()));
    }

    #[test]
    fn another_store_and_failures_end_the_wait() {
        let before = hold("u2", "m");
        let failed = format!("{}no", HoldStatus::FAILED);
        let is_failed = |look: Look| matches!(look, Look::Failed(_));
        assert!(is_failed(look(&cluster(Some(hold("u3", "m")), Some("adopt:u2")), &before)));
        assert!(is_failed(look(&cluster(Some(hold("u2", &failed)), Some("adopt:u2")), &before)));
        // The failure of an earlier decision is none of this one, until this one was read.
        let before = hold("u2", &failed);
        assert!(!is_failed(look(&cluster(Some(before.clone()), Some("adopt:u2")), &before)));
        assert!(is_failed(look(&cluster(Some(before.clone()), None), &before)));
    }

    #[test]
    fn a_kept_claim_loses_both_marks_and_nothing_else() {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.uid = Some("u".to_owned());
        let patch = kept(&claim);
        assert_eq!(
            patch,
            json!({"metadata": {"uid": "u", "labels": {"portico.dev/abandoned": null},
                "annotations": {"portico.dev/delete-after": null}}})
        );
    }
}
