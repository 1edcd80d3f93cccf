//! The resources that Portico itself reads and writes, on either side.

use super::Resource;
use crate::crd;

const fn core(plural: &'static str, kind: &'static str, namespaced: bool) -> Resource {
    Resource { group: "", version: "v1", plural, kind, namespaced }
}

const fn grouped(group: &'static str, plural: &'static str, kind: &'static str, namespaced: bool) -> Resource {
    Resource { group, version: "v1", plural, kind, namespaced }
}

/// VirtualClusters.
pub const VIRTUAL_CLUSTERS: Resource = Resource {
    group: crd::GROUP,
    version: "v1alpha1",
    plural: "virtualclusters",
    kind: "VirtualCluster",
    namespaced: true,
};

/// CredentialRequests.
pub const CREDENTIAL_REQUESTS: Resource = Resource {
    group: crd::GROUP,
    version: "v1alpha1",
    plural: "credentialrequests",
    kind: "CredentialRequest",
    namespaced: true,
};

/// Pods.
pub const PODS: Resource = core("pods", "Pod", true);
/// Services.
pub const SERVICES: Resource = core("services", "Service", true);
/// Endpoints.
pub const ENDPOINTS: Resource = core("endpoints", "Endpoints", true);
/// EndpointSlices.
pub const ENDPOINT_SLICES: Resource = grouped("discovery.k8s.io", "endpointslices", "EndpointSlice", true);
/// ConfigMaps.
pub const CONFIG_MAPS: Resource = core("configmaps", "ConfigMap", true);
/// Secrets.
pub const SECRETS: Resource = core("secrets", "Secret", true);
/// PersistentVolumeClaims.
pub const CLAIMS: Resource = core("persistentvolumeclaims", "PersistentVolumeClaim", true);
/// PersistentVolumes.
pub const VOLUMES: Resource = core("persistentvolumes", "PersistentVolume", false);
/// Events of the core group.
pub const EVENTS: Resource = core("events", "Event", true);
/// Nodes.
pub const NODES: Resource = core("nodes", "Node", false);
/// Namespaces.
pub const NAMESPACES: Resource = core("namespaces", "Namespace", false);
/// ServiceAccounts.
pub const SERVICE_ACCOUNTS: Resource = core("serviceaccounts", "ServiceAccount", true);
/// StorageClasses.
pub const STORAGE_CLASSES: Resource = grouped("storage.k8s.io", "storageclasses", "StorageClass", false);
/// PriorityClasses.
pub const PRIORITY_CLASSES: Resource = grouped("scheduling.k8s.io", "priorityclasses", "PriorityClass", false);
/// RuntimeClasses.
pub const RUNTIME_CLASSES: Resource = grouped("node.k8s.io", "runtimeclasses", "RuntimeClass", false);
/// IngressClasses.
pub const INGRESS_CLASSES: Resource = grouped("networking.k8s.io", "ingressclasses", "IngressClass", false);
/// Ingresses.
pub const INGRESSES: Resource = grouped("networking.k8s.io", "ingresses", "Ingress", true);
/// NetworkPolicies.
pub const NETWORK_POLICIES: Resource = grouped("networking.k8s.io", "networkpolicies", "NetworkPolicy", true);
/// ServiceCIDRs.
pub const SERVICE_CIDRS: Resource = grouped("networking.k8s.io", "servicecidrs", "ServiceCIDR", false);
/// Groups of the API that others serve.
pub const API_SERVICES: Resource = grouped("apiregistration.k8s.io", "apiservices", "APIService", false);
/// ClusterRoles.
pub const CLUSTER_ROLES: Resource = grouped("rbac.authorization.k8s.io", "clusterroles", "ClusterRole", false);
/// Roles.
pub const ROLES: Resource = grouped("rbac.authorization.k8s.io", "roles", "Role", true);
/// ClusterRoleBindings.
pub const CLUSTER_ROLE_BINDINGS: Resource =
    grouped("rbac.authorization.k8s.io", "clusterrolebindings", "ClusterRoleBinding", false);
/// RoleBindings.
pub const ROLE_BINDINGS: Resource = grouped("rbac.authorization.k8s.io", "rolebindings", "RoleBinding", true);
/// StatefulSets.
pub const STATEFUL_SETS: Resource = grouped("apps", "statefulsets", "StatefulSet", true);
/// Leases.
pub const LEASES: Resource = grouped("coordination.k8s.io", "leases", "Lease", true);
/// Whose token it is.
pub const TOKEN_REVIEWS: Resource = grouped("authentication.k8s.io", "tokenreviews", "TokenReview", false);
/// What somebody may do.
pub const SUBJECT_REVIEWS: Resource =
    grouped("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview", false);
/// What the caller may do.
pub const SELF_SUBJECT_REVIEWS: Resource =
    grouped("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", false);
/// All that the caller may do in a namespace.
pub const SELF_SUBJECT_RULES: Resource =
    grouped("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview", false);
