//! Carries plans out: one action, one call, and the answer goes straight into the cache.
//!
//! Promises: nothing on the host that is not this object's copy is ever written over (a name that is taken is looked at
//! first; what is known is written with its uid as precondition); no action begins after the drain did.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};
use crate::kubernetes::Resource;
use crate::kubernetes::resources::{EVENTS, PODS, SECRETS};
use crate::syncer::attempt::{Pair, Stop};
use crate::syncer::cache::{SourceState, mark, text};
use crate::syncer::kind::{Action, ObjectKey};
use crate::syncer::making::Making;
use crate::syncer::queue::Item;
use crate::syncer::tell;
use crate::syncer::tenant::{Member, TenantState, identify};
use crate::syncer::tokens::{Minted, Wish};
use crate::syncer::world::World;

/// One plan being carried out.
pub struct Execution<'a> {
    world: &'a Arc<World>,
    tenant: &'a Arc<TenantState>,
    member: &'a Member,
    item: &'a Item,
    host: Option<&'a Value>,
    minted: Option<Minted>,
    again_after: Option<Duration>,
}

impl<'a> Execution<'a> {
    /// Nothing done yet.
    pub fn new(
        world: &'a Arc<World>,
        tenant: &'a Arc<TenantState>,
        member: &'a Member,
        item: &'a Item,
        pair: &'a Pair,
    ) -> Self {
        Self { world, tenant, member, item, host: pair.host.as_ref(), minted: None, again_after: None }
    }

    /// The sooner of what the plan wants and what tokens need.
    pub fn again_after(&self, wanted: Option<Duration>) -> Option<Duration> {
        match (self.again_after, wanted) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// One action.
    pub async fn run(&mut self, action: Action) -> Result<(), Stop> {
        if let Action::OrElse { first, otherwise } = action {
            return match self.step(*first).await {
                Err(Stop::Failed(error)) if matches!(error.kind(), Kind::Invalid | Kind::Forbidden) => {
                    self.step(*otherwise).await
                }
                outcome => outcome,
            };
        }
        self.step(action).await
    }

    async fn step(&mut self, action: Action) -> Result<(), Stop> {
        if self.world.queue.is_closed() {
            return Err(Stop::Closed);
        }
        self.check_right(&action)?;
        let is_virtual = asks_tenant(&action);
        if writes_event(&action) && !tell::has_room(self.world, self.tenant) {
            return Ok(());
        }
        match action {
            Action::ApplyHost { resource, object } => self.apply_host(&resource, object).await?,
            Action::CreateHost { resource, object } => self.create_host(&resource, &object).await?,
            Action::PatchHost { resource, name, subresource, kind, patch } => {
                let namespace = self.host_namespace(&resource);
                let answer = self.world.host.patch(&resource, namespace, (&name, subresource), kind, &patch).await?;
                self.world.learn_host(self.tenant, &resource, answer, false);
            }
            Action::DeleteHost { resource, name, uid, grace } => {
                self.delete_host(&resource, &name, &uid, grace).await?;
            }
            Action::PatchVirtual { resource, key, subresource, kind, patch } => {
                let on = (key.name.as_str(), subresource);
                let answer =
                    self.member.api.patch(&resource, virtual_namespace(&resource, &key), on, kind, &patch).await?;
                self.world.learn_virtual(self.tenant, &resource, answer);
            }
            Action::ApplyVirtual { resource, namespace, object } => {
                let namespace = resource.namespaced.then_some(namespace.as_str());
                let name = text(&object, "name");
                let answer = self.member.api.apply(&resource, namespace, name, &object).await?;
                self.world.learn_virtual(self.tenant, &resource, answer);
            }
            Action::CreateVirtual { resource, namespace, object } => {
                self.create_virtual(&resource, &namespace, &object).await?;
            }
            Action::DeleteVirtual { resource, key, uid, grace } => {
                self.delete_virtual(&resource, &key, &uid, grace).await?;
            }
            Action::BindVirtual { key, uid, node } => self.bind(&key, &uid, &node).await?,
            Action::EnsureTokens { pod, pod_uid, service_account, secret, tokens } => {
                let wish = Wish {
                    pod: &pod,
                    pod_uid: &pod_uid,
                    service_account: &service_account,
                    secret: &secret,
                    tokens: &tokens,
                };
                self.ensure_tokens(wish).await?;
                return Ok(());
            }
            Action::OrElse { first, .. } => {
                // Never nested by contract; its first half alone is the safe reading.
                return Box::pin(self.step(*first)).await;
            }
            Action::Explain { involved, reason, message, warning } => {
                tell::say(self.world, self.tenant, &involved, reason, &message, warning).await;
                return Ok(());
            }
        }
        self.world.stats.count_write(self.item.kind);
        if is_virtual {
            self.world.answered(self.tenant);
        }
        Ok(())
    }

    /// What the host would refuse is not tried.
    fn check_right(&self, action: &Action) -> Result<(), Stop> {
        let (verb, resource, subresource) = match action {
            Action::ApplyHost { resource, .. } => ("patch", resource, ""),
            Action::CreateHost { resource, .. } => ("create", resource, ""),
            Action::PatchHost { resource, subresource, .. } => ("patch", resource, *subresource),
            Action::DeleteHost { resource, .. } => ("delete", resource, ""),
            Action::EnsureTokens { .. } => ("patch", &SECRETS, ""),
            _ => return Ok(()),
        };
        if self.world.access.allow(verb, resource, subresource) {
            return Ok(());
        }
        let what = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
        let message = format!("Portico has no right to {verb} {}{what} there", resource.plural);
        Err(Stop::Failed(Error::host(Kind::Forbidden, message)))
    }

    fn host_namespace(&self, resource: &Resource) -> Option<&'a str> {
        resource.namespaced.then(|| self.member.view.namespace().as_str())
    }

    async fn apply_host(&self, resource: &Resource, mut object: Value) -> Result<(), Stop> {
        let name = text(&object, "name").to_owned();
        let uid = self.own_uid(resource, &name).await?;
        let mut making = if uid.is_none() { self.makes(resource)? } else { None };
        if let Some(uid) = uid
            && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.insert("uid".to_owned(), Value::String(uid));
        }
        let answer = self.world.host.apply(resource, self.host_namespace(resource), &name, &object).await;
        let answer = answer.inspect_err(|error| Making::failed(&mut making, error, self.world.clock.instant()))?;
        self.world.learn_host(self.tenant, resource, answer, false);
        Making::done(making);
        Ok(())
    }

    /// Of kinds that this tenant's own objects are.
    fn makes(&self, resource: &Resource) -> Result<Option<Making<'a>>, Stop> {
        let is_of_kind = self.world.catalog.index_of(resource) == Some(self.item.kind);
        let item = (self.item.kind, &self.item.key);
        is_of_kind.then(|| Making::begin(self.tenant, self.member, item, self.world.clock.instant())).transpose()
    }

    /// uid of the host object of that name if it is ours, None if the name is free.
    async fn own_uid(&self, resource: &Resource, name: &str) -> Result<Option<String>, Stop> {
        if let Some(host) = self.host
            && text(host, "name") == name
            && self.world.catalog.index_of(resource) == Some(self.item.kind)
        {
            return Ok(Some(text(host, "uid").to_owned()));
        }
        let Some(found) = self.world.host.get(resource, self.host_namespace(resource), name).await? else {
            return Ok(None);
        };
        if !self.is_own(resource, &found) {
            return Err(Stop::Foreign);
        }
        let uid = text(&found, "uid").to_owned();
        if self.world.catalog.index_of(resource) == Some(self.item.kind) {
            // The plan did not know of it: plan again with it.
            self.world.learn_host(self.tenant, resource, found, false);
            return Err(Stop::Later(Duration::from_millis(20)));
        }
        Ok(Some(uid))
    }

    fn is_own(&self, resource: &Resource, found: &Value) -> bool {
        if self.world.catalog.index_of(resource) == Some(self.item.kind) {
            let syncer = self.world.catalog.kind(self.item.kind);
            return identify(syncer, found, &self.member.view).as_ref() == Some(&self.item.key);
        }
        mark(found, "labels", crate::names::keys::CLUSTER) == Some(self.member.view.cluster().as_str())
    }

    async fn create_host(&mut self, resource: &Resource, object: &Value) -> Result<(), Stop> {
        let namespace = self.host_namespace(resource);
        let mut making = self.makes(resource)?;
        let answer = match self.world.host.create(resource, namespace, ("", ""), object).await {
            Ok(answer) => answer,
            Err(error) if error.kind() == Kind::AlreadyExists => {
                let name = text(object, "name");
                let Some(found) = self.world.host.get(resource, namespace, name).await? else {
                    return Err(Stop::Later(Duration::from_millis(20)));
                };
                if !self.is_own(resource, &found) {
                    return Err(Stop::Foreign);
                }
                self.world.learn_host(self.tenant, resource, found, false);
                return Err(Stop::Later(Duration::from_millis(20)));
            }
            Err(error) => {
                Making::failed(&mut making, &error, self.world.clock.instant());
                return Err(error.into());
            }
        };
        let made = (text(&answer, "name").to_owned(), text(&answer, "uid").to_owned());
        self.world.learn_host(self.tenant, resource, answer, true);
        Making::done(making);
        if *resource == PODS
            && let Some(minted) = self.minted.take()
        {
            self.write_tokens(&minted, (&made.0, &made.1)).await?;
        }
        Ok(())
    }

    async fn delete_host(&self, resource: &Resource, name: &str, uid: &str, grace: Option<u64>) -> Result<(), Stop> {
        let store = self.world.catalog.index_of(resource).and_then(|kind| {
            let host = self.tenant.kind(kind).host.as_ref()?;
            let version = host.objects.read().get(&name.to_owned()).map_or(0, |entry| entry.version);
            Some((kind, version))
        });
        let namespace = self.host_namespace(resource);
        let deleted = self.world.host.delete(resource, namespace, name, uid, grace).await?;
        if let (false, Some((kind, known))) = (deleted, store) {
            // It was gone, or is another object by now.
            match self.world.host.get(resource, namespace, name).await? {
                Some(found) => self.world.learn_host(self.tenant, resource, found, false),
                None => self.world.learn_host_gone(self.tenant, kind, name, known),
            }
        }
        Ok(())
    }

    async fn create_virtual(&self, resource: &Resource, namespace: &str, object: &Value) -> Result<(), Stop> {
        let namespace = resource.namespaced.then_some(namespace);
        match self.member.api.create(resource, namespace, ("", ""), object).await {
            Ok(answer) => self.world.learn_virtual(self.tenant, resource, answer),
            // One-way kinds cannot see what is there; that it is there is all they want.
            Err(error)
                if error.kind() == Kind::AlreadyExists
                    && !self.world.catalog.kind(self.item.kind).watches_virtual() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn delete_virtual(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        uid: &str,
        grace: Option<u64>,
    ) -> Result<(), Stop> {
        let kind = self.world.catalog.index_of(resource);
        let known = kind.map(|kind| {
            let objects = self.tenant.kind(kind).objects.read();
            (kind, objects.get(key).map_or(0, |entry| entry.version))
        });
        let namespace = virtual_namespace(resource, key);
        let deleted = self.member.api.delete(resource, namespace, &key.name, uid, grace).await?;
        if let (false, Some((kind, known))) = (deleted, known) {
            match self.member.api.get(resource, namespace, &key.name).await? {
                Some(found) => self.world.learn_virtual(self.tenant, resource, found),
                None => self.world.learn_virtual_gone(self.tenant, kind, key, known),
            }
        }
        Ok(())
    }

    /// The virtual Node first: controllers of the tenant delete pods on nodes that do not exist.
    async fn bind(&self, key: &ObjectKey, uid: &str, node: &str) -> Result<(), Stop> {
        if let Some(kind) = self.world.catalog.index("Node") {
            let node = ObjectKey { namespace: String::new(), name: node.to_owned() };
            let known = self.tenant.kind(kind).objects.read().get(&node).is_some();
            if !known {
                self.world.push(self.tenant, Item { kind, key: node });
                return Err(Stop::Later(Duration::from_millis(50)));
            }
        }
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        self.member.api.create(&PODS, Some(&key.namespace), (&key.name, "binding"), &binding).await?;
        // The event that tells so is on its way; until then no plan shall bind again.
        if let Some(kind) = self.world.catalog.index_of(&PODS) {
            self.tenant.amend(kind, key, |pod| {
                if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
                    spec.insert("nodeName".to_owned(), Value::String(node.to_owned()));
                }
            });
        }
        Ok(())
    }

    async fn ensure_tokens(&mut self, wish: Wish<'_>) -> Result<(), Stop> {
        let now = self.world.clock.now();
        let Some(host) = self.host else {
            self.minted = Some(wish.mint(&*self.member.api, now).await?);
            return Ok(());
        };
        if !text(host, "deletionTimestamp").is_empty() {
            return Ok(());
        }
        let host_uid = text(host, "uid").to_owned();
        if let Some(secret) = self.find_secret(wish.secret).await?
            && let Some(left) = wish.still_good(&secret, &host_uid, now)
        {
            self.look_again(left);
            return Ok(());
        }
        let minted = wish.mint(&*self.member.api, now).await?;
        let name = text(host, "name").to_owned();
        self.write_tokens(&minted, (&name, &host_uid)).await
    }

    /// From the cache when it holds all Secrets, else from the host.
    async fn find_secret(&self, name: &str) -> Result<Option<Value>, Stop> {
        let cached = self.world.catalog.index_of(&SECRETS).and_then(|kind| self.tenant.kind(kind).host.as_ref());
        if let Some(store) = cached
            && store.state.get() == SourceState::Synced
        {
            let found = store.objects.read().get(&name.to_owned()).map(super::cache::Entry::object);
            return Ok(found);
        }
        Ok(self.world.host.get(&SECRETS, Some(self.member.view.namespace().as_str()), name).await?)
    }

    async fn write_tokens(&mut self, minted: &Minted, host_pod: (&str, &str)) -> Result<(), Stop> {
        let secret = minted.secret(&self.member.view, host_pod);
        let namespace = Some(self.member.view.namespace().as_str());
        let answer = self.world.host.apply(&SECRETS, namespace, &minted.secret, &secret).await?;
        self.world.learn_host(self.tenant, &SECRETS, answer, true);
        self.world.stats.count_write(self.item.kind);
        self.look_again(minted.refresh_in(self.world.clock.now()));
        Ok(())
    }

    fn look_again(&mut self, after: Duration) {
        self.again_after = self.again_after(Some(after));
    }
}

fn asks_tenant(action: &Action) -> bool {
    matches!(
        action,
        Action::PatchVirtual { .. }
            | Action::ApplyVirtual { .. }
            | Action::CreateVirtual { .. }
            | Action::DeleteVirtual { .. }
            | Action::BindVirtual { .. }
    )
}

/// An Event of the host that the tenant is shown.
fn writes_event(action: &Action) -> bool {
    match action {
        Action::ApplyVirtual { resource, .. } | Action::CreateVirtual { resource, .. } => *resource == EVENTS,
        _ => false,
    }
}

fn virtual_namespace<'a>(resource: &Resource, key: &'a ObjectKey) -> Option<&'a str> {
    resource.namespaced.then_some(key.namespace.as_str())
}
