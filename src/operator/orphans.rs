//! What was made for VirtualClusters that are gone and the host's garbage collector left: their control planes, and what was copied
//! for their tenants. That collector acts on the news that an owner went; where it missed them (its API server was killed
//! meanwhile) it does not look again.
//!
//! Promises: deleted is only what bears Portico's label, is controlled by one VirtualCluster and nobody else, was not put
//! there by another hand, and whose VirtualCluster the host says it does not have, asked for it anew by name. So it is nothing
//! that the host's garbage collector would not delete, too. How much one sweep reads, asks and deletes is bounded, whatever is in a
//! namespace.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use serde_json::Value;

use crate::crd;
use crate::error::{Kind, Result};
use crate::kubernetes::resources::{
    CLAIMS, CONFIG_MAPS, ENDPOINT_SLICES, ENDPOINTS, INGRESSES, NETWORK_POLICIES, PODS, SECRETS, SERVICE_ACCOUNTS,
    SERVICES, STATEFUL_SETS, VIRTUAL_CLUSTERS,
};
use crate::kubernetes::{PageOf, Resource};
use crate::names::{TenantId, keys};
use crate::operator::context::Context;
use crate::operator::host::{name_of, uid_of};
use crate::operator::restored;

/// What there is in a host namespace, and the label that names the VirtualCluster: the operator's own, whose pods and claims are the
/// StatefulSet's, which says what becomes of them; and the copies of tenants' objects.
pub(crate) const KINDS: [Left; 13] = [
    (&SECRETS, keys::CONTROL_PLANE),
    (&PODS, keys::CLUSTER),
    (&STATEFUL_SETS, keys::CONTROL_PLANE),
    (&SERVICES, keys::CONTROL_PLANE),
    (&SERVICES, keys::CLUSTER),
    (&SERVICE_ACCOUNTS, keys::CONTROL_PLANE),
    (&CLAIMS, keys::CLUSTER),
    (&NETWORK_POLICIES, keys::CONTROL_PLANE),
    (&SECRETS, keys::CLUSTER),
    (&CONFIG_MAPS, keys::CLUSTER),
    (&INGRESSES, keys::CLUSTER),
    (&ENDPOINTS, keys::CLUSTER),
    (&ENDPOINT_SLICES, keys::CLUSTER),
];

/// A kind, and a label.
pub(crate) type Left = (&'static Resource, &'static str);

/// Objects in a page; each has metadata of half a mebibyte at most.
const PAGE: usize = 64;
const LONGEST_PAGE: usize = 16 << 20;
/// Of one kind. A virtual cluster has five hundred policies at most, and a few other objects.
const MOST_PAGES: usize = 128;
/// VirtualClusters that are asked for in one sweep.
const MOST_QUESTIONS: usize = 32;
/// Objects that are deleted in one sweep.
const MOST_DELETED: usize = 100;
/// Names in a selector, 63 characters each.
const MOST_NAMES: usize = 64;

/// Who lives in a namespace.
#[derive(Debug, Default)]
pub(crate) struct Living {
    /// What belongs to one of these is not asked about.
    pub uids: HashSet<String>,
    /// Copies of these are not read: nobody of the name has gone lately.
    pub names: BTreeSet<String>,
}

/// What came of a sweep.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// Objects that were deleted.
    pub deleted: usize,
    /// A bound kept it from more.
    pub is_cut: bool,
}

/// Looks through objects of these kinds in a namespace.
pub(crate) async fn sweep(context: &Context, namespace: &str, kinds: &[Left], living: &Living) -> Result<Swept> {
    let mut sweep = Sweep { context, namespace, living, known: HashMap::new(), swept: Swept::default() };
    for (resource, label) in kinds {
        match sweep.kind(resource, label).await {
            // Its role there is taken away, or an older one that lacks a kind.
            Err(error) if error.kind() == Kind::Forbidden => {}
            outcome => outcome?,
        }
    }
    Ok(sweep.swept)
}

struct Sweep<'a> {
    context: &'a Context,
    namespace: &'a str,
    living: &'a Living,
    /// Which of those that were asked for are gone.
    known: HashMap<Owner, bool>,
    swept: Swept,
}

/// A VirtualCluster, as something that it owns calls it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owner {
    name: String,
    uid: String,
}

impl Sweep<'_> {
    async fn kind(&mut self, resource: &Resource, label: &str) -> Result<()> {
        let (mut token, selector) = (String::new(), self.selector(label));
        for _ in 0..MOST_PAGES {
            let page = PageOf { token: &token, limit: PAGE, most: PAGE, bytes: LONGEST_PAGE };
            let page = match self.context.host.metadata(resource, self.namespace, (&selector, ""), page).await {
                // The token grew too old over what was asked and deleted meanwhile.
                Err(error) if error.kind() == Kind::Gone && !token.is_empty() => {
                    self.swept.is_cut = true;
                    break;
                }
                page => page?,
            };
            for item in &page.items {
                if self.swept.deleted >= MOST_DELETED {
                    self.swept.is_cut = true;
                    return Ok(());
                }
                self.object(resource, label, item).await?;
            }
            if page.token.is_empty() {
                break;
            }
            token = page.token;
        }
        Ok(())
    }

    /// A tenant has many copies, which the host's API server need not send to be passed over.
    fn selector(&self, label: &str) -> String {
        let names = &self.living.names;
        if label == keys::CONTROL_PLANE || names.len() > MOST_NAMES {
            return label.to_owned();
        }
        let others: String = names.iter().map(|name| format!(",{label}!={name}")).collect();
        format!("{label}{others}")
    }

    async fn object(&mut self, resource: &Resource, label: &str, item: &Bytes) -> Result<()> {
        let Ok(object) = serde_json::from_slice::<Value>(item) else { return Ok(()) };
        let owner = owner(&object["metadata"], label);
        let Some(owner) = owner.filter(|owner| !self.living.uids.contains(&owner.uid)) else {
            return Ok(());
        };
        if !self.is_gone(&owner).await? {
            return Ok(());
        }
        let (namespace, name) = (self.namespace, name_of(&object));
        if self.context.host.delete(resource, namespace, name, uid_of(&object)).await? {
            self.swept.deleted += 1;
            let (kind, cluster) = (resource.kind, owner.name);
            tracing::info!(namespace, kind, name, cluster, "deleted what a virtual cluster that is gone left behind");
        }
        Ok(())
    }

    async fn is_gone(&mut self, owner: &Owner) -> Result<bool> {
        if let Some(is_gone) = self.known.get(owner) {
            return Ok(*is_gone);
        }
        if self.known.len() >= MOST_QUESTIONS {
            self.swept.is_cut = true;
            return Ok(false);
        }
        let is_gone = is_gone(self.context, self.namespace, owner).await?;
        self.known.insert(owner.clone(), is_gone);
        Ok(is_gone)
    }
}

/// Whether the host has no VirtualCluster of this name and uid: it has none of the name, or another one.
async fn is_gone(context: &Context, namespace: &str, owner: &Owner) -> Result<bool> {
    let found = context.host.get(&VIRTUAL_CLUSTERS, namespace, &owner.name).await?;
    if let Some(found) = found {
        return Ok(!uid_of(&found).is_empty() && uid_of(&found) != owner.uid);
    }
    // A server that does not serve the kind (yet) says 404, too, and then to a list as well.
    let field = format!("metadata.name={}", owner.name);
    let page = PageOf { token: "", limit: PAGE, most: PAGE, bytes: LONGEST_PAGE };
    let listed = context.host.metadata(&VIRTUAL_CLUSTERS, namespace, ("", &field), page).await?;
    let is_it =
        |item: &Bytes| serde_json::from_slice::<Value>(item).map_or(true, |object| uid_of(&object) == owner.uid);
    Ok(!listed.items.iter().any(is_it))
}

/// The VirtualCluster that an object is there for; `None` where it is anybody else's in any way.
fn owner(metadata: &Value, label: &str) -> Option<Owner> {
    let owners = metadata["ownerReferences"].as_array()?;
    let [owner] = owners.as_slice() else { return None };
    let (name, uid) = (owner["name"].as_str()?, owner["uid"].as_str()?);
    let group = owner["apiVersion"].as_str()?.split_once('/')?.0;
    let is_ours = owner["kind"] == VIRTUAL_CLUSTERS.kind && group == crd::GROUP && owner["controller"] == true;
    let is_labelled = metadata["labels"][label] == name;
    let is_there =
        metadata["deletionTimestamp"].is_null() && metadata["uid"].as_str().is_some_and(|uid| !uid.is_empty());
    // It is a name that a VirtualCluster can have, and part of a path.
    let is_named = TenantId::parse("namespace", name).is_ok() && !uid.is_empty();
    let is_orphan = is_ours && is_labelled && is_there && is_named && !restored::is_of_another_hand(metadata);
    is_orphan.then(|| Owner { name: name.to_owned(), uid: uid.to_owned() })
}
