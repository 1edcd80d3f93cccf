//! How much of one object crosses to the host, where a tenant's choices would be multiplied by each other.
//!
//! Promises: each bound is checked by counting, before anything is made; what is beyond one is refused whole (or cut, where
//! the text says so), and the message names the field, the number, the bound and what to do. The numbers are far above what
//! people write and far below what hurts: a host pod stays below the 1.5 MB that an API server stores of one object, and a
//! plan within some tens of megabytes of memory. `docs/limits.md` lists them for users.

/// Containers of one pod, all lists together: each gets a copy of the generated environment.
pub const CONTAINERS: usize = 256;
/// Affinity terms and topology spread constraints of one pod: the host's scheduler weighs each against all pods and nodes.
pub const TERMS: usize = 100;
/// Bytes of namespace names written into the terms of one pod.
pub const NAMESPACE_BYTES: usize = 64 * 1024;
/// Requirements of a pod's namespace selectors times the tenant's Namespaces.
pub const EVALUATIONS: usize = 250_000;
/// How often one object may name ConfigMaps, Secrets, claims or Services; each name grows to a host name.
pub const NAMES: usize = 1000;
/// Projected service-account tokens of one pod: each is a request to the tenant, made again when it grows old.
pub const TOKENS: usize = 32;
/// Bytes of environment for Services in all containers of one pod together. Beyond it they are cut.
pub const LINK_BYTES: usize = 1024 * 1024;
/// The same for an ephemeral container, which comes on top.
pub const EPHEMERAL_LINK_BYTES: usize = 64 * 1024;
/// Bytes to which `$(NAME)` may expand in the environments, commands and arguments of one pod; the host's kubelets do it.
pub const EXPANDED_BYTES: usize = 4 * 1024 * 1024;
/// Ports of one Service.
pub const PORTS: usize = 1000;
/// Rules, paths, TLS entries and TLS names of one Ingress, each.
pub const PATHS: usize = 1000;
/// Addresses times ports of one Endpoints or EndpointSlice: every node of the host keeps each pair.
pub const ENDPOINTS: usize = 20_000;
/// Addresses of pods in one Endpoints or EndpointSlice that a tenant writes: each is held against its pod again and again.
pub const POD_ADDRESSES: usize = 100;
/// Bytes of a message about a tenant's object.
pub const MESSAGE_BYTES: usize = 16 * 1024;
/// Bytes of memory that one object may take while it is planned with (a plan makes up to three copies). JSON of many small
/// fields takes up to a hundred times its length.
pub const WEIGHT: usize = 24 * 1024 * 1024;
/// Of objects that take more than this, one of a tenant is worked on at a time.
pub const LIGHT: usize = 1024 * 1024;

/// Why an object does not cross.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// Such as `spec.affinity`.
    pub field: String,
    /// What was counted, such as `terms`.
    pub what: &'static str,
    /// How many there are.
    pub found: usize,
    /// How many cross.
    pub most: usize,
    /// What the user can do.
    pub advice: &'static str,
}

impl Excess {
    /// None when `found` is within the bound.
    pub fn beyond(
        field: &str,
        what: &'static str,
        (found, most): (usize, usize),
        advice: &'static str,
    ) -> Option<Self> {
        (found > most).then(|| Self { field: field.to_owned(), what, found, most, advice })
    }

    /// For the tenant's user.
    pub fn message(&self) -> String {
        let Self { field, what, found, most, advice } = self;
        format!("{field}: {found} {what}, at most {most} cross to the host; {advice}")
    }
}

/// The beginning of a text, at most so many bytes.
pub fn cut(text: &str, most: usize) -> &str {
    text.split_at(text.floor_char_boundary(most)).0
}

#[cfg(test)]
mod tests;
