//! What a person's decision about a lost store does: write what stands on the host into the new one, or let it go.
//!
//! Promises: both can be broken off anywhere and begun again; neither touches an object that is not this tenant's by all
//! its marks; claims are never deleted at once, but set aside with the time of their deletion. What a copy tells of its
//! original, [`restore`] knows.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};
use crate::kubernetes::resources::{
    CLAIMS, CONFIG_MAPS, NAMESPACES, PODS, PRIORITY_CLASSES, RUNTIME_CLASSES, SERVICE_ACCOUNTS, SERVICES,
};
use crate::kubernetes::{ListOptions, PatchKind, Resource};
use crate::names::keys;
use crate::syncer::cache::{SourceState, mark, text};
use crate::syncer::kind::HostScope;
use crate::syncer::tenant::{Member, TenantState};
use crate::syncer::world::World;
use crate::translate::{identity, restore};

/// Writes at a time.
const PARALLEL: usize = 8;
/// Lines of a report: who has more to read looks at the host.
const LONGEST_REPORT: usize = 400;
/// How often claims that were set aside are looked at.
const COLLECT: Duration = Duration::from_secs(3600);
/// An API server that has just begun has no ServiceAccounts yet.
const ADMISSION_TRIES: u32 = 20;
const ADMISSION_PAUSE: Duration = Duration::from_millis(500);

/// What was done, for a person.
#[derive(Debug, Default)]
struct Report {
    restored: Vec<String>,
    lost: Vec<String>,
}

/// "stand 3 pods, 1 services" and so on, for the message of a hold.
pub fn standing(tenant: &TenantState) -> String {
    let counts: Vec<String> = tenant
        .kinds
        .iter()
        .enumerate()
        .filter_map(|(kind, state)| {
            let host = state.host.as_ref().filter(|host| host.state.get() == SourceState::Synced)?;
            let copies = tenant.copies(u16::try_from(kind).ok()?).len();
            (copies > 0 && host.place.namespace.is_some()).then(|| format!("{copies} {}", state.plural))
        })
        .collect();
    if counts.is_empty() { "stand no objects".to_owned() } else { format!("stand {}", counts.join(", ")) }
}

/// Writes every copy that has no original into the tenant and makes it that original's copy.
pub async fn adopt(world: &Arc<World>, tenant: &Arc<TenantState>) -> Result<()> {
    let member = tenant.bound();
    let known = known_copies(world, tenant, &member)?;
    for namespace in known.namespaces() {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        ensure(&member, &NAMESPACES, None, &object).await?;
    }
    let mut report = Report::default();
    for kind in restore::KINDS {
        let (_, plain) = kind.split_once('/').unwrap_or(("", kind));
        let Some(index) = world.catalog.index(plain) else { continue };
        let work = Adoption {
            world,
            tenant,
            member: &member,
            known: &known,
            kind,
            resource: world.catalog.kind(index).resource(),
        };
        work.run(&mut report).await?;
    }
    publish(world, &member, &report).await?;
    tracing::info!(tenant = %tenant.id, restored = report.restored.len(), "what stood on the host is back in the tenant");
    Ok(())
}

/// All copies by name, from the caches; an error while one of their lists is missing.
fn known_copies(world: &World, tenant: &TenantState, member: &Member) -> Result<restore::Recorded> {
    let mut known = restore::Recorded::default();
    for kind in restore::KINDS {
        let (_, plain) = kind.split_once('/').unwrap_or(("", kind));
        let Some(index) = world.catalog.index(plain) else { continue };
        let Some(host) = &tenant.kind(index).host else { continue };
        if host.state.get() == SourceState::Starting {
            return Err(Error::own(Kind::Unavailable, "what stands on the host is not all known yet"));
        }
        for (_, entry) in host.objects.read().iter() {
            known.learn(kind, &entry.object(), &member.view);
        }
    }
    Ok(known)
}

/// One kind on its way back.
#[derive(Clone, Copy)]
struct Adoption<'a> {
    world: &'a Arc<World>,
    tenant: &'a Arc<TenantState>,
    member: &'a Member,
    known: &'a restore::Recorded,
    kind: &'static str,
    resource: Resource,
}

/// What became of one copy.
enum Outcome {
    Restored(Vec<String>),
    Left(&'static str),
    Nothing,
}

impl Adoption<'_> {
    async fn run(self, report: &mut Report) -> Result<()> {
        let copies = own_objects(self.world, self.member, &self.resource).await?;
        let mut done = stream::iter(copies)
            .map(|host| async move {
                let what = format!(
                    "{} {}/{}",
                    self.kind,
                    identity::annotation(&host, keys::OBJECT_NAMESPACE),
                    identity::annotation(&host, keys::OBJECT_NAME)
                );
                (self.one(&host).await, what)
            })
            .buffer_unordered(PARALLEL);
        while let Some((outcome, what)) = done.next().await {
            match outcome {
                Ok(Outcome::Nothing) => {}
                Ok(Outcome::Left(why)) => report.lost.push(format!("{what}: not written back: {why}")),
                Ok(Outcome::Restored(lost)) => {
                    report.lost.extend(lost.into_iter().map(|lost| format!("{what}: {lost}")));
                    report.restored.push(what);
                }
                Err(error) if matches!(error.kind(), Kind::Invalid | Kind::Forbidden | Kind::BadRequest) => {
                    report.lost.push(format!("{what}: the virtual cluster refuses it: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn one(self, host: &Value) -> Result<Outcome> {
        let view = &self.member.view;
        match restore::judge(self.kind, host, view) {
            restore::Verdict::Foreign => Ok(Outcome::Nothing),
            restore::Verdict::Leave(_, why) => Ok(Outcome::Left(why)),
            restore::Verdict::Await((namespace, name)) => {
                let made = self.member.api.get(&self.resource, Some(&namespace), &name).await?;
                if let Some(made) = made {
                    self.relink(host, &made).await?;
                }
                Ok(Outcome::Nothing)
            }
            restore::Verdict::Restore((namespace, name)) => {
                let Some(restored) = restore::object(self.kind, host, view, self.known) else {
                    return Ok(Outcome::Nothing);
                };
                let found = self.member.api.get(&self.resource, Some(&namespace), &name).await?;
                let made = match found {
                    // By an earlier try, or by the tenant's users since.
                    Some(found) if self.resource == SERVICES && address(&found) != address(host) => {
                        return Ok(Outcome::Left(
                            "the virtual cluster has a Service of this name with another address",
                        ));
                    }
                    Some(found) => found,
                    None => {
                        for need in &restored.needs {
                            self.provide(&namespace, need).await?;
                        }
                        create(self.world, self.member, &self.resource, &namespace, &restored.object).await?
                    }
                };
                self.relink(host, &made).await?;
                Ok(Outcome::Restored(restored.lost))
            }
        }
    }

    /// The copy stands for this object from now on.
    async fn relink(self, host: &Value, made: &Value) -> Result<()> {
        if identity::recorded_uid(host) == text(made, "uid") {
            return Ok(());
        }
        let view = &self.member.view;
        let Some(patch) = restore::relink(self.kind, host, made, view) else { return Ok(()) };
        let on = (text(host, "name"), "");
        let place = Some(view.namespace().as_str());
        let answer = self.world.host.patch(&self.resource, place, on, PatchKind::Merge, &patch).await?;
        self.world.learn_host(self.tenant, &self.resource, answer, false);
        Ok(())
    }

    /// What admission looks for before it lets an object in.
    async fn provide(self, namespace: &str, need: &restore::Need) -> Result<()> {
        let (resource, name) = match need {
            restore::Need::ServiceAccount(name) => {
                let metadata = json!({"name": name, "namespace": namespace});
                let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
                return ensure(self.member, &SERVICE_ACCOUNTS, Some(namespace), &account).await;
            }
            restore::Need::PriorityClass(name) => (PRIORITY_CLASSES, name),
            restore::Need::RuntimeClass(name) => (RUNTIME_CLASSES, name),
        };
        // As the syncer shows it, when it may again.
        let Some(mut class) = self.world.host.get(&resource, None, name).await? else { return Ok(()) };
        class["apiVersion"] = json!(resource.api_version());
        class["kind"] = json!(resource.kind);
        class["metadata"] = json!({"name": name, "labels": {identity::FROM_HOST: "true"}});
        ensure(self.member, &resource, None, &class).await
    }
}

fn address(service: &Value) -> &str {
    service.pointer("/spec/clusterIP").and_then(Value::as_str).unwrap_or_default()
}

/// Admission wants a ServiceAccount, which a controller makes in each new namespace.
async fn create(world: &World, member: &Member, resource: &Resource, namespace: &str, object: &Value) -> Result<Value> {
    let mut tries = 0;
    loop {
        match member.api.create(resource, Some(namespace), ("", ""), object).await {
            Err(error) if *resource == PODS && error.kind() == Kind::Forbidden && tries < ADMISSION_TRIES => {
                tries += 1;
                tokio::time::sleep(world.clock.jitter(ADMISSION_PAUSE)).await;
            }
            outcome => return outcome,
        }
    }
}

async fn ensure(member: &Member, resource: &Resource, namespace: Option<&str>, object: &Value) -> Result<()> {
    match member.api.create(resource, namespace, ("", ""), object).await {
        Err(error) if error.kind() != Kind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Copies of one kind as they are on the host, with what the caches do not keep.
async fn own_objects(world: &World, member: &Member, resource: &Resource) -> Result<Vec<Value>> {
    let selector = format!("{}={}", keys::CLUSTER, member.view.cluster());
    let options = ListOptions { label_selector: selector, ..ListOptions::default() };
    let namespace = Some(member.view.namespace().as_str());
    Ok(world.host.list(resource, namespace, &options).await?.0)
}

/// Removes every copy; claims are set aside.
pub async fn discard(world: &Arc<World>, tenant: &Arc<TenantState>) -> Result<()> {
    let member = tenant.bound();
    for (kind, syncer) in world.catalog.iter() {
        if syncer.host_scope() != HostScope::Tenant {
            continue;
        }
        let resource = syncer.resource();
        if !world.access.allow("delete", &resource, "") {
            continue;
        }
        let objects = own_objects(world, &member, &resource).await?;
        let objects = objects.into_iter().filter(|host| text(host, "deletionTimestamp").is_empty());
        let member = &member;
        let mut done = stream::iter(objects)
            .map(|host| async move {
                if resource == CLAIMS {
                    set_aside(world, tenant, member, &host).await
                } else {
                    delete(world, member, &resource, &host).await
                }
            })
            .buffer_unordered(PARALLEL);
        while let Some(outcome) = done.next().await {
            outcome?;
        }
        tracing::info!(tenant = %tenant.id, kind = world.catalog.kind(kind).resource().kind, "copies of a lost store let go");
    }
    Ok(())
}

async fn delete(world: &World, member: &Member, resource: &Resource, host: &Value) -> Result<()> {
    let namespace = Some(member.view.namespace().as_str());
    world.host.delete(resource, namespace, text(host, "name"), text(host, "uid"), None).await.map(|_| ())
}

/// A claim keeps its volume until its time is over; nothing of ours refers to it any more.
async fn set_aside(world: &World, tenant: &TenantState, member: &Member, host: &Value) -> Result<()> {
    let keep = jiff::SignedDuration::try_from(world.config.abandoned_claims.0)
        .map_err(|e| Error::own(Kind::Internal, "syncer.abandonedClaims is too long").because(e))?;
    let until = (world.clock.now() + keep).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let patch = json!({"metadata": {
        "uid": text(host, "uid"),
        "labels": {keys::CLUSTER: null, keys::ABANDONED: member.view.cluster().as_str()},
        "annotations": {keys::DELETE_AFTER: until},
    }});
    let on = (text(host, "name"), "");
    let answer =
        world.host.patch(&CLAIMS, Some(member.view.namespace().as_str()), on, PatchKind::Merge, &patch).await?;
    // Or it would be taken for a copy without an original until the watch tells.
    world.learn_host(tenant, &CLAIMS, answer, false);
    Ok(())
}

/// Deletes claims that were set aside when their time is over.
pub async fn collect_abandoned(world: &Arc<World>, tenant: &Arc<TenantState>) {
    loop {
        if let Err(error) = collect(world, &tenant.bound()).await {
            tracing::debug!(tenant = %tenant.id, %error, "claims that were set aside could not be looked at");
        }
        tokio::time::sleep(world.clock.jitter(COLLECT)).await;
    }
}

async fn collect(world: &World, member: &Member) -> Result<()> {
    if !world.access.read(&CLAIMS) || !world.access.allow("delete", &CLAIMS, "") {
        return Ok(());
    }
    let selector = format!("{}={}", keys::ABANDONED, member.view.cluster());
    let options = ListOptions { label_selector: selector, ..ListOptions::default() };
    let (claims, _) = world.host.list(&CLAIMS, Some(member.view.namespace().as_str()), &options).await?;
    for claim in claims {
        // Without a time that can be read it stays: somebody changed it.
        let until = mark(&claim, "annotations", keys::DELETE_AFTER).and_then(|t| t.parse::<jiff::Timestamp>().ok());
        if until.is_some_and(|until| until <= world.clock.now()) {
            tracing::info!(tenant = %member.view.id, claim = text(&claim, "name"), "a claim that was set aside is deleted");
            delete(world, member, &CLAIMS, &claim).await?;
        }
    }
    Ok(())
}

/// The report as a ConfigMap beside the cluster, which `portico recover` prints.
async fn publish(world: &World, member: &Member, report: &Report) -> Result<()> {
    let view = &member.view;
    let name = format!("{}-recovery", view.cluster());
    let mut metadata = json!({"name": name, "namespace": view.namespace().as_str()});
    if let Some(owner) = &view.owner {
        metadata["ownerReferences"] = json!([identity::owner_reference(owner)]);
    }
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"report": report.text()},
    });
    world.host.apply(&CONFIG_MAPS, Some(view.namespace().as_str()), &name, &map).await.map(|_| ())
}

impl Report {
    fn text(&self) -> String {
        let mut lines = vec![format!("written back: {}", self.restored.len())];
        lines.extend(self.restored.iter().map(|what| format!("  {what}")));
        lines.push("what the copies do not tell:".to_owned());
        lines.extend(self.lost.iter().map(|what| format!("  {what}")));
        lines.extend(restore::NOT_ON_HOST.iter().map(|what| format!("  {what}")));
        if lines.len() > LONGEST_REPORT {
            let more = lines.len() - LONGEST_REPORT;
            lines.truncate(LONGEST_REPORT);
            lines.push(format!("  and {more} more"));
        }
        lines.join("\n")
    }
}
