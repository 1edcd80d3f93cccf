//! Annotations of Portico's on host pods and on the Secrets with their tokens, and the kinds that these record.

/// Value of the kind annotation.
pub const KIND: &str = "Pod";
/// Annotation for the downward API: the tenant's service account.
pub const SERVICE_ACCOUNT: &str = "portico.dev/service-account-name";
/// Annotation for the downward API: all labels of the tenant.
pub const LABELS: &str = "portico.dev/labels";
/// Annotation for the downward API: all annotations of the tenant.
pub const ANNOTATIONS: &str = "portico.dev/annotations";
/// Annotation: fingerprint of the container resources that were last written.
pub const RESOURCES: &str = "portico.dev/resources";
/// Annotation: the tenant's `spec.subdomain`, which means nothing on the host and would be lost with the tenant's store.
pub const SUBDOMAIN: &str = "portico.dev/subdomain";
/// Annotation on a host pod that stands for another virtual pod than the one it was made for: the Secret that it mounts.
pub const TOKEN_SECRET: &str = "portico.dev/token-secret";
/// What a token Secret records as its kind, so that it stands for no virtual Secret.
pub const TOKEN_KIND: &str = "ServiceAccountToken";
/// Annotation on a token Secret: what it was made for (`volumes::token_spec`).
pub const TOKEN_SPEC: &str = "portico.dev/token-spec";
