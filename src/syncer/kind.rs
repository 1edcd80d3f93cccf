//! What a kind is to the engine: pure functions from two objects to a plan. No IO, no clock, no client.

use std::sync::Arc;

use serde_json::Value;

use crate::kubernetes::Resource;
use crate::translate::summary::{Exposure, NamespaceSummary, ServiceSummary, Summary};

/// What the pure functions may know of a tenant.
pub use crate::translate::View as TenantView;
/// One projected service-account token.
pub use crate::translate::pod::TokenSpec;

/// Which side an object lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Virtual → host.
    Down,
    /// Host → virtual.
    Up,
}

/// Identity of a virtual object, namespaced or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Another virtual object (or derived one) that a virtual object needs on the host before it can run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Kind name as registered: `ConfigMap`, `Secret`, `PersistentVolumeClaim`.
    pub kind: &'static str,
    /// Namespace and name in the tenant.
    pub key: ObjectKey,
}

/// Read access to what the engine has cached, for plans that depend on other objects. Lookups are by kind name. Whole
/// objects are given one at a time, by key; of what a plan wants many of there are summaries.
pub trait Lookup {
    /// A virtual object of the tenant, projected.
    fn virtual_object(&self, kind: &str, key: &ObjectKey) -> Option<Value>;
    /// Keys of all virtual objects of a kind in a namespace.
    fn virtual_keys(&self, kind: &str, namespace: &str) -> Vec<ObjectKey>;
    /// All virtual Namespaces, by name.
    fn namespaces(&self) -> Vec<Arc<NamespaceSummary>>;
    /// All virtual Services of a namespace, by name.
    fn services(&self, namespace: &str) -> Vec<Arc<ServiceSummary>>;
    /// One virtual Service.
    fn service(&self, key: &ObjectKey) -> Option<Arc<ServiceSummary>>;
    /// What the tenant's host Services take of nodes and load balancers, but for the copy of this one.
    fn exposed(&self, except: &ObjectKey) -> Exposure {
        let _ = except;
        Exposure::default()
    }
    /// How many host objects of a kind stand for virtual ones.
    fn copies(&self, kind: &str) -> usize {
        let _ = kind;
        0
    }
    /// A host object of the tenant by the virtual object it stands for (namespaced kinds), projected.
    fn host_object(&self, kind: &str, key: &ObjectKey) -> Option<Value>;
    /// A cluster-scoped host object by name (nodes, classes, PVs), projected.
    fn host_cluster_object(&self, kind: &str, name: &str) -> Option<Value>;
    /// Whether any virtual object references this one (reverse of [`ResourceSyncer::references`]).
    fn is_referenced(&self, kind: &str, key: &ObjectKey) -> bool;
    /// Objects of the kind `by` that reference this one, at most so many.
    fn referrers(&self, kind: &str, key: &ObjectKey, by: &str, most: usize) -> Vec<ObjectKey>;
    /// A host object of the tenant by its host name, projected. None also means: no such index, the kinds then compute
    /// names of all virtual objects (slow; Events need it).
    fn host_object_named(&self, kind: &str, name: &str) -> Option<Value> {
        let _ = (kind, name);
        None
    }
    /// Whether a verb may be used on the host on a resource or a subresource of it.
    fn may(&self, verb: &str, resource: &Resource, subresource: &str) -> bool {
        let _ = (verb, resource, subresource);
        true
    }
    /// Calendar time in seconds since 1970, for the few decisions that need an age. 0: unknown, nothing ever grows old.
    fn now_unix(&self) -> i64 {
        0
    }
}

/// One write that the engine shall do. All host writes are server-side applies of exactly this intent unless said otherwise.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Server-side apply on the host (host names inside; identity labels/annotations/owner are already set by the kind
    /// through [`crate::syncer::kinds`]' shared identity function).
    ApplyHost {
        /// Resource.
        resource: Resource,
        /// Whole intent.
        object: Value,
    },
    /// POST on the host: create-only objects (pods), answered by AlreadyExists when it is there.
    CreateHost {
        /// Resource.
        resource: Resource,
        /// Object.
        object: Value,
    },
    /// PATCH on the host.
    PatchHost {
        /// Resource.
        resource: Resource,
        /// Host name.
        name: String,
        /// `""`, `status`, `ephemeralcontainers`, `resize`.
        subresource: &'static str,
        /// Body form.
        kind: crate::kubernetes::PatchKind,
        /// Patch.
        patch: Value,
    },
    /// DELETE on the host with uid precondition.
    DeleteHost {
        /// Resource.
        resource: Resource,
        /// Host name.
        name: String,
        /// Precondition.
        uid: String,
        /// Grace period in seconds.
        grace: Option<u64>,
    },
    /// PATCH on the virtual object.
    PatchVirtual {
        /// Resource.
        resource: Resource,
        /// Namespace and name in the tenant.
        key: ObjectKey,
        /// `""` or `status`.
        subresource: &'static str,
        /// Body form.
        kind: crate::kubernetes::PatchKind,
        /// Patch; merge patches may carry `metadata.uid` as a precondition.
        patch: Value,
    },
    /// Server-side apply in the tenant (host → virtual kinds: nodes, classes, events, PVs).
    ApplyVirtual {
        /// Resource.
        resource: Resource,
        /// Namespace or "".
        namespace: String,
        /// Whole intent.
        object: Value,
    },
    /// POST in the tenant, for instance Events.
    CreateVirtual {
        /// Resource.
        resource: Resource,
        /// Namespace or "".
        namespace: String,
        /// Object.
        object: Value,
    },
    /// DELETE in the tenant.
    DeleteVirtual {
        /// Resource.
        resource: Resource,
        /// Namespace and name in the tenant.
        key: ObjectKey,
        /// Precondition.
        uid: String,
        /// Grace period in seconds.
        grace: Option<u64>,
    },
    /// POST pods/binding in the tenant; the engine makes sure that the virtual Node exists first.
    BindVirtual {
        /// Pod.
        key: ObjectKey,
        /// Pod uid.
        uid: String,
        /// Node name.
        node: String,
    },
    /// TokenRequests in the tenant and the Secret that carries them on the host (`src/syncer/tokens.rs` of the engine
    /// does it): made before the pod is created, owned by the host pod afterwards, refreshed before expiry.
    EnsureTokens {
        /// Virtual pod.
        pod: ObjectKey,
        /// Virtual pod uid.
        pod_uid: String,
        /// ServiceAccount name.
        service_account: String,
        /// Host Secret name.
        secret: String,
        /// One per projected source: (key in the Secret, audience or "", expirationSeconds).
        tokens: Vec<TokenSpec>,
    },
    /// `first`; when the API server refuses it as such (422 Invalid, or 403 Forbidden by an allocator or quota),
    /// `otherwise` instead. Never nested.
    OrElse {
        /// Tried first.
        first: Box<Action>,
        /// Done when `first` was refused; its own failure counts.
        otherwise: Box<Action>,
    },
    /// An Event on a virtual object that says why something is refused or cannot be done. Rate-limited by the engine:
    /// the same (object, reason, message) at most once in ten minutes.
    Explain {
        /// `core/v1` kind of the object.
        involved: Involved,
        /// One word, such as `SyncDenied`.
        reason: &'static str,
        /// For the tenant's user: no host names.
        message: String,
        /// `Warning` or `Normal`.
        warning: bool,
    },
}

/// The object an Event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Involved {
    /// `v1` or `group/version`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace and name in the tenant.
    pub key: ObjectKey,
    /// uid.
    pub uid: String,
}

/// What to do for one object, in order. The engine stops at the first failure and tries the whole key again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Writes, in order. Empty means: both sides are as they should be.
    pub actions: Vec<Action>,
    /// References that must be on the host first: the engine queues them and goes on (kubelets wait for what is missing).
    pub requires: Vec<Reference>,
    /// Look again after this many seconds even if nothing changes.
    pub again_after: Option<u64>,
}

/// How the host side of a kind is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostScope {
    /// Objects of tenants, selected by [`crate::names::keys::CLUSTER`], in each host namespace.
    Tenant,
    /// All objects of the kind in each host namespace (Events).
    Namespace,
    /// Cluster-scoped objects shared by all tenants (Node, StorageClass, …).
    Cluster,
    /// Not watched on the host.
    None,
}

/// A kind of object that is synced. All functions are pure.
pub trait ResourceSyncer: Send + Sync + 'static {
    /// The resource on both sides.
    fn resource(&self) -> Resource;

    /// How the host side is watched.
    fn host_scope(&self) -> HostScope;

    /// Whether the virtual side is watched (false: only host → virtual on demand).
    fn watches_virtual(&self) -> bool {
        true
    }

    /// Whether virtual objects are kept in the cache only as metadata until something references them (ConfigMap,
    /// Secret); the engine then fetches the body when it plans.
    fn fetch_body_on_demand(&self) -> bool {
        false
    }

    /// Drops what no plan of this kind ever looks at (managedFields first), to keep caches small. Called for both sides.
    fn project(&self, object: Value, side: Direction) -> Value;

    /// What plans of other objects read of a virtual object of this kind, kept beside it; see [`Lookup`].
    fn summary(&self, virtual_object: &Value) -> Option<Summary> {
        let _ = virtual_object;
        None
    }

    /// Whether a tenant's objects of this kind are counted for who scrapes, and by which words of `status.phase`.
    fn counted(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// Identity of the virtual object that a host object stands for, from its annotations; None when it is not ours.
    fn virtual_key(&self, host: &Value, view: &TenantView) -> Option<ObjectKey>;

    /// Name of the host object for a virtual one (namespaced kinds: in the tenant's host namespace).
    fn host_name(&self, key: &ObjectKey, view: &TenantView) -> Option<String>;

    /// What must exist on the host for this virtual object.
    fn references(&self, virtual_object: &Value) -> Vec<Reference> {
        let _ = virtual_object;
        Vec::new()
    }

    /// The whole plan for one key, both directions at once: what to write down and what to write up, given both sides
    /// as they are now. `host` is only ever an object whose recorded identity equals the key (a foreign object of the
    /// same name is reported by the engine instead). Idempotent: applying the plan and planning again gives an empty plan.
    fn plan(
        &self,
        key: &ObjectKey,
        virtual_object: Option<&Value>,
        host: Option<&Value>,
        view: &TenantView,
        lookup: &dyn Lookup,
    ) -> Plan;
}
