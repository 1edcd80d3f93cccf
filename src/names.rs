//! Names that cross a tenant border, and the injective mapping of virtual objects to host names.
//!
//! Pure. Every name is parsed once and then carried as its type; no module builds a host name from parts by itself.

pub mod claims;
pub mod credentials;
pub mod keys;
pub mod reserved;

use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct InvalidName {
    what: &'static str,
    value: String,
    rule: &'static str,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $valid:path, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Parses, or says which rule is broken.
            pub fn parse(value: &str) -> Result<Self, InvalidName> {
                if $valid(value) {
                    Ok(Self(value.into()))
                } else {
                    Err(InvalidName { what: $what, value: value.to_owned(), rule: $rule })
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name_type!(
    /// A namespace of the host cluster.
    HostNamespace, "host namespace", is_dns_label, "lower-case letters, digits and '-', 1 to 63 characters"
);
name_type!(
    /// A VirtualCluster's name: short enough for every object derived from it.
    ClusterName, "virtual cluster name", is_cluster_name,
    "lower-case letters, digits and '-', beginning with a letter, 1 to 40 characters"
);
name_type!(
    /// A namespace inside a virtual cluster.
    VirtualNamespace, "namespace", is_dns_label, "lower-case letters, digits and '-', 1 to 63 characters"
);
name_type!(
    /// An object's name inside a virtual cluster.
    VirtualName, "name", is_path_segment_name, "1 to 253 characters without '/', '%', '.' or '..'"
);
name_type!(
    /// An object's name on the host.
    HostName, "host name", is_dns_subdomain, "lower-case letters, digits, '-' and '.', 1 to 253 characters"
);

/// One virtual cluster: its host namespace and its name there.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId {
    namespace: HostNamespace,
    name: ClusterName,
}

impl TenantId {
    /// From parsed parts.
    pub fn new(namespace: HostNamespace, name: ClusterName) -> Self {
        Self { namespace, name }
    }

    /// Parses both parts.
    pub fn parse(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        Ok(Self::new(HostNamespace::parse(namespace)?, ClusterName::parse(name)?))
    }

    /// Of a VirtualCluster object, when its names are possible ones.
    pub fn of(object: &serde_json::Value) -> Option<Self> {
        let metadata = &object["metadata"];
        Self::parse(metadata["namespace"].as_str()?, metadata["name"].as_str()?).ok()
    }

    /// Host namespace.
    pub fn namespace(&self) -> &HostNamespace {
        &self.namespace
    }

    /// VirtualCluster name.
    pub fn name(&self) -> &ClusterName {
        &self.name
    }

    /// `/clusters/{namespace}/{name}`.
    pub fn path_prefix(&self) -> String {
        format!("/clusters/{}/{}", self.namespace, self.name)
    }

    /// The SNI name that every tenant has: `{name}.{namespace}.{base_domain}`. Labels hold no dots, so it is injective.
    pub fn default_host(&self, base_domain: &str) -> String {
        format!("{}.{}.{}", self.name, self.namespace, base_domain)
    }

    /// ConfigMap in the host namespace that says which store a tenant without a VirtualCluster has: key `store`, the uid of
    /// its Namespace `kube-system`.
    pub fn store_record(&self) -> String {
        format!("{}-store", self.name)
    }

    /// Name of this tenant's Services in Portico's own namespace: `vc-{20 hex}` plus a suffix for their purpose.
    pub fn system_service(&self, purpose: &str) -> String {
        let digest = hash(&[self.namespace.as_str(), self.name.as_str()]);
        format!("vc-{digest}-{purpose}")
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The longest name a host kind takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// 63: Services, and what becomes a label value or a DNS label.
    Label,
    /// 253: everything else.
    Subdomain,
}

impl Limit {
    fn bytes(self) -> usize {
        match self {
            Self::Label => 63,
            Self::Subdomain => 253,
        }
    }
}

const SEPARATOR: &str = "-x-";
const HASH_HEX: usize = 20;

/// The host name of a namespaced virtual object: `{name}-x-{namespace}-x-{cluster}` when that fits and can be split in
/// only one way; else a shortened name with an 80-bit hash, which never contains `-x-` and so never equals a readable one.
pub fn host_name(name: &VirtualName, namespace: &VirtualNamespace, cluster: &ClusterName, limit: Limit) -> HostName {
    let readable = format!("{name}{SEPARATOR}{namespace}{SEPARATOR}{cluster}");
    if readable.len() <= limit.bytes() && separators(&readable) == 2 && is_dns_subdomain(&readable) {
        return HostName(readable.into());
    }
    hashed(name.as_str(), &["object", name.as_str(), namespace.as_str(), cluster.as_str()], limit)
}

/// The host name of something made *for* a virtual object (`purpose`, such as `token`): always hashed, with the purpose
/// inside the hash, so it meets no tenant object's name.
pub fn derived_host_name(
    purpose: &str,
    name: &VirtualName,
    namespace: &VirtualNamespace,
    cluster: &ClusterName,
    limit: Limit,
) -> HostName {
    hashed(name.as_str(), &[purpose, name.as_str(), namespace.as_str(), cluster.as_str()], limit)
}

/// The host name that vcluster gives (all versions, one namespace): the readable form up to 63 bytes, else its first 52
/// and a 40-bit hash. Several objects can share one; whose it is, is what the object itself records. None when the result
/// is no valid name.
pub fn legacy_host_name(name: &VirtualName, namespace: &VirtualNamespace, cluster: &ClusterName) -> Option<HostName> {
    let readable = format!("{name}{SEPARATOR}{namespace}{SEPARATOR}{cluster}");
    HostName::parse(&legacy_shortened(&readable)?).ok()
}

/// vcluster's way of making a name or label key of at most 63 bytes.
pub fn legacy_shortened(text: &str) -> Option<String> {
    if text.len() <= Limit::Label.bytes() {
        return Some(text.to_owned());
    }
    let digest = HEXLOWER.encode(&Sha256::digest(text)[..5]);
    Some(format!("{}-{digest}", text.get(..52)?).replace(".-", "-"))
}

fn hashed(name: &str, parts: &[&str], limit: Limit) -> HostName {
    let room = limit.bytes() - HASH_HEX - 1;
    let mut prefix: String = name
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' })
        .take(room)
        .collect();
    while let Some(at) = prefix.find(SEPARATOR) {
        prefix.replace_range(at..at + SEPARATOR.len(), "-");
    }
    loop {
        let trimmed = prefix.trim_end_matches(['-', '.']);
        let trimmed = trimmed.strip_suffix("-x").unwrap_or(trimmed);
        if trimmed.len() == prefix.len() {
            break;
        }
        prefix.truncate(trimmed.len());
    }
    let prefix = prefix.replace(".-", "-").replace("-.", "-").replace("..", ".");
    let prefix = prefix.trim_start_matches(['-', '.']);
    let candidate = format!("{prefix}-{}", hash(parts));
    if is_dns_subdomain(&candidate) && !candidate.contains(SEPARATOR) && !prefix.is_empty() {
        return HostName(candidate.into());
    }
    HostName(format!("o-{}", hash(parts)).into())
}

/// Hex of the first 80 bits of SHA-256 over the length-prefixed parts.
fn hash(parts: &[&str]) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part.as_bytes());
    }
    HEXLOWER.encode(&sha.finalize()[..HASH_HEX / 2])
}

/// Occurrences of the separator, overlapping ones counted (`-x-x-` holds two).
fn separators(text: &str) -> usize {
    text.as_bytes().windows(SEPARATOR.len()).filter(|w| *w == SEPARATOR.as_bytes()).count()
}

fn is_dns_label(value: &str) -> bool {
    let bytes = value.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= 63
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}

fn is_cluster_name(value: &str) -> bool {
    value.len() <= 40 && is_dns_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase())
}

fn is_dns_subdomain(value: &str) -> bool {
    value.len() <= 253 && !value.is_empty() && value.split('.').all(is_dns_label_any_length)
}

fn is_dns_label_any_length(value: &str) -> bool {
    let bytes = value.as_bytes();
    !bytes.is_empty()
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}

fn is_path_segment_name(value: &str) -> bool {
    !value.is_empty() && value.len() <= 253 && value != "." && value != ".." && !value.contains(['/', '%'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(name: &str, namespace: &str, cluster: &str, limit: Limit) -> String {
        host_name(
            &VirtualName::parse(name).expect("name"),
            &VirtualNamespace::parse(namespace).expect("namespace"),
            &ClusterName::parse(cluster).expect("cluster"),
            limit,
        )
        .to_string()
    }

    #[test]
    fn readable_when_unambiguous() {
        assert_eq!(map("nginx", "default", "vc1", Limit::Label), "nginx-x-default-x-vc1");
        assert_eq!(
            map("coredns-854c77959c-2x4kd", "kube-system", "dev-cluster", Limit::Label),
            "coredns-854c77959c-2x4kd-x-kube-system-x-dev-cluster"
        );
    }

    #[test]
    fn names_that_can_be_split_in_two_ways_are_hashed() {
        let one = map("a-x-b", "c", "vc", Limit::Label);
        let two = map("a", "b-x-c", "vc", Limit::Label);
        assert_ne!(one, two);
        assert_eq!(separators(&one), 0);
        assert_ne!(map("a-x", "b", "vc", Limit::Label), map("a", "x-b", "vc", Limit::Label));
    }

    #[test]
    fn names_of_vcluster_are_known() {
        let old = |name: &str, namespace: &str, cluster: &str| {
            let name = VirtualName::parse(name).expect("name");
            let namespace = VirtualNamespace::parse(namespace).expect("namespace");
            let cluster = ClusterName::parse(cluster).expect("cluster");
            legacy_host_name(&name, &namespace, &cluster).expect("valid").to_string()
        };
        let p = |n: usize| "p".repeat(n);
        assert_eq!(old("nginx", "default", "vc1"), "nginx-x-default-x-vc1");
        assert_eq!(
            old("coredns-854c77959c-2x4kd", "kube-system", "dev-cluster"),
            "coredns-854c77959c-2x4kd-x-kube-system-x-dev-cluster"
        );
        assert_eq!(old(&p(51), "default", "vc1"), format!("{}--d27fa6bb98", p(51)));
        assert_eq!(old(&p(52), "default", "vc1"), format!("{}-46c367190b", p(52)));
        assert_eq!(old(&p(53), "default", "vc1"), format!("{}-ecec578db0", p(52)));
        assert_eq!(
            old("a-very-long-statefulset-name-for-testing-purposes-0", "production", "tenant-one"),
            "a-very-long-statefulset-name-for-testing-purposes-0--86a295343e"
        );
    }

    #[test]
    fn long_names_are_cut_and_stay_distinct() {
        let (one, two) = ("p".repeat(63), format!("{}q", "p".repeat(62)));
        let (one, two) = (map(&one, "default", "vc", Limit::Label), map(&two, "default", "vc", Limit::Label));
        assert_ne!(one, two);
        assert!(one.len() <= 63 && two.len() <= 63);
    }

    #[test]
    fn reserved_keys() {
        assert!(keys::is_reserved("portico.dev/cluster"));
        assert!(keys::is_reserved("a.portico.dev/x"));
        assert!(!keys::is_reserved("notportico.dev/x"));
        assert!(!keys::is_reserved("portico.dev"));
    }

    /// Short pieces over `a`, `x` and `-` meet every ambiguity of the separator.
    fn piece() -> impl Strategy<Value = String> {
        "[ax]([ax-]{0,8}[ax])?"
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn injective(a in (piece(), piece(), piece()), b in (piece(), piece(), piece())) {
            let one = map(&a.0, &a.1, &a.2, Limit::Label);
            let two = map(&b.0, &b.1, &b.2, Limit::Label);
            prop_assert_eq!(a == b, one == two);
        }

        #[test]
        fn always_valid(name in "[a-z0-9]([a-z0-9.-]{0,80}[a-z0-9])?", ns in "[a-z]([a-z0-9-]{0,61}[a-z0-9])?", vc in "[a-z]([a-z0-9-]{0,38}[a-z0-9])?") {
            let label = map(&name, &ns, &vc, Limit::Label);
            prop_assert!(label.len() <= 63 && is_dns_subdomain(&label), "{}", label);
            prop_assert!(is_dns_subdomain(&map(&name, &ns, &vc, Limit::Subdomain)));
        }
    }
}
