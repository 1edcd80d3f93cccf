//! Names and ports that no tenant can claim, and the one spelling in which host names are compared.
//!
//! Pure. Gateway, registry and operator ask here, so that what the shared listener answers to is no tenant's anywhere.

use std::collections::BTreeSet;

use super::TenantId;
use crate::config::{Config, GatewayConfig, Policies};

/// The host name in the one form in which names are compared: lower case, no final dot. `None` when it can be no SNI
/// name: an address, a wildcard, a label that is empty or too long, letters beyond ASCII (the wire has their `xn--`
/// form, and so must a claim).
pub fn normal(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // What ends in a number is an address in some spelling, never a name (RFC 3696, 2).
    let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    let is_name = name.len() <= 253 && name.split('.').all(is_label) && !name.rsplit('.').next().is_some_and(is_number);
    is_name.then(|| name.to_ascii_lowercase())
}

/// What is reserved. Without a configuration nothing is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserved {
    /// As configured: default host names are made of it.
    base_domain: String,
    /// In the form of [`normal`]; `None` when it is no name, which then reserves nothing.
    base: Option<String>,
    exact: BTreeSet<String>,
    /// Of wildcards: every name one label below.
    parents: BTreeSet<String>,
    system_namespace: String,
    ports: BTreeSet<u16>,
    policies: Policies,
}

/// For whom a name is reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum For {
    /// The shared listener.
    Shared,
    /// The virtual cluster (there or not) of which it is the default name.
    DefaultOf(TenantId),
    /// Nobody: it is below the base domain and no virtual cluster's default name.
    BaseDomain(String),
    /// What pods call: it means something else in each cluster.
    InCluster,
}

impl Reserved {
    /// What a configuration reserves.
    pub fn new(config: &Config) -> Self {
        let gateway = &config.gateway;
        let wildcards = gateway.extra_sans.iter().filter_map(|name| name.trim().strip_prefix("*."));
        let parents = wildcards.chain(["localhost"]).filter_map(normal).collect();
        let exact = shared_names(gateway);
        Self {
            base: normal(&gateway.base_domain),
            base_domain: gateway.base_domain.clone(),
            exact,
            parents,
            system_namespace: config.host.system_namespace.clone(),
            ports: [gateway.listen.port(), config.admin.listen.port()].into(),
            policies: config.policies(),
        }
    }

    /// The default name of a tenant, as compared; `None` when the base domain is none.
    pub fn default_host(&self, id: &TenantId) -> Option<String> {
        normal(&id.default_host(&self.base_domain))
    }

    /// For whom a name (in the form of [`normal`]) is reserved. Default names come before wildcards of the admin, which
    /// may well cover them, but not before a name that the admin wrote out.
    pub fn host(&self, host: &str) -> Option<For> {
        if self.exact.contains(host) {
            return Some(For::Shared);
        }
        if let Some(below) = self.below_base(host) {
            return Some(below);
        }
        let parent = host.split_once('.').map(|(_, parent)| parent);
        if parent.is_some_and(|parent| self.parents.contains(parent)) {
            return Some(For::Shared);
        }
        self.is_in_cluster(host).then_some(For::InCluster)
    }

    /// Whether the policy allows a tenant to ask for a name.
    pub fn is_allowed(&self, id: &TenantId, host: &str) -> bool {
        self.policies.expose_domain((id.namespace().as_str(), id.name().as_str()), host)
    }

    /// Whether a port can be a tenant's at all: not Portico's own, not a system port.
    pub fn is_port(&self, port: u16) -> bool {
        port < 1024 || self.ports.contains(&port)
    }

    fn below_base(&self, host: &str) -> Option<For> {
        let base = self.base.as_deref()?;
        let rest = host.strip_suffix(base)?;
        if rest.is_empty() {
            return Some(For::BaseDomain(base.to_owned()));
        }
        let (name, namespace) = rest.strip_suffix('.')?.rsplit_once('.').unwrap_or_default();
        Some(match TenantId::parse(namespace, name) {
            Ok(id) => For::DefaultOf(id),
            Err(_) => For::BaseDomain(base.to_owned()),
        })
    }

    /// Names by which pods reach a tenant's API or Portico's Services, and whatever has no domain. One of these in a
    /// stranger's hand would refuse all other tenants' pods (421), since a connection and its request must agree.
    fn is_in_cluster(&self, host: &str) -> bool {
        let mut labels = host.rsplit('.');
        let (last, before) = (labels.next(), labels.next());
        let system = self.system_namespace.as_str();
        before.is_none()
            || last == Some("svc")
            || (last == Some("local") && before == Some("cluster"))
            || host == "kubernetes.default"
            || host.starts_with("kubernetes.default.svc.")
            || (!system.is_empty()
                && host.split_once('.').is_some_and(|(_, rest)| {
                    rest.strip_prefix(system).is_some_and(|rest| rest.is_empty() || rest.starts_with(".svc."))
                }))
    }
}

/// Names that the shared listener answers to because an admin wrote them out, in the form of [`normal`]; and `localhost`,
/// for forwarded ports.
pub fn shared_names(gateway: &GatewayConfig) -> BTreeSet<String> {
    let public = host_of(&gateway.public_url);
    let names = gateway.extra_sans.iter().map(|name| name.trim()).chain(public.as_deref()).chain(["localhost"]);
    names.filter_map(normal).collect()
}

/// The host part of a URL, without brackets around an IPv6 address.
pub fn host_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    uri.host().map(|host| host.trim_matches(['[', ']']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved() -> Reserved {
        let mut config = Config::default();
        config.gateway.public_url = "https://Portico.Example.com:30443/".to_owned();
        config.gateway.extra_sans =
            ["gw.example.net.", "*.wild.example.com", "10.0.0.1", "*.team-a.portico.local"].map(str::to_owned).into();
        config.host.system_namespace = "portico-system".to_owned();
        Reserved::new(&config)
    }

    #[test]
    fn one_spelling() {
        assert_eq!(normal("App.Example.COM.").as_deref(), Some("app.example.com"));
        assert_eq!(normal("XN--BCHER-KVA.example").as_deref(), Some("xn--bcher-kva.example"));
        let long = format!("{}.com", "a".repeat(64));
        for none in
            ["", ".", "a..b", "a..", "*.a.b", "b\u{fc}cher.example", "10.0.0.1", "010.0.0.1", "a.1", "-a.b", "::1"]
        {
            assert_eq!(normal(none), None, "{none:?}");
        }
        assert_eq!(normal(&long), None);
    }

    #[test]
    fn shared_names_in_every_form() {
        let reserved = reserved();
        for host in ["portico.example.com", "gw.example.net", "a.wild.example.com", "localhost", "x.localhost"] {
            assert_eq!(reserved.host(host), Some(For::Shared), "{host}");
        }
        for free in
            ["example.com", "a.portico.example.com", "wild.example.com", "a.b.wild.example.com", "app.svc.example.com"]
        {
            assert_eq!(reserved.host(free), None, "{free}");
        }
    }

    #[test]
    fn below_the_base_domain_there_are_default_names_only() {
        let reserved = reserved();
        let id = TenantId::parse("team-a", "dev").expect("id");
        assert_eq!(reserved.default_host(&id).as_deref(), Some("dev.team-a.portico.local"));
        assert_eq!(reserved.host("dev.team-a.portico.local"), Some(For::DefaultOf(id)));
        for host in ["portico.local", "a.portico.local", "a.b.c.portico.local", "1a.b.portico.local"] {
            assert!(matches!(reserved.host(host), Some(For::BaseDomain(_))), "{host}");
        }
        assert_eq!(reserved.host("notportico.local.example"), None);
        assert_eq!(reserved.host("a.notportico.local"), None);
        assert_eq!(Reserved::default().host("dev.team-a.portico.local"), None);
    }

    #[test]
    fn names_that_pods_use() {
        let reserved = reserved();
        for host in [
            "kubernetes",
            "portico",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.corp.example",
            "alias.default.svc.cluster.local",
            "portico.portico-system",
            "portico.portico-system.svc",
            "vc-0123-api.portico-system.svc.host.example",
        ] {
            assert_eq!(reserved.host(host), Some(For::InCluster), "{host}");
        }
        assert!(reserved.is_port(443) && reserved.is_port(8443) && reserved.is_port(9090) && !reserved.is_port(20_000));
    }

    #[test]
    fn hosts_of_urls() {
        assert_eq!(host_of("https://p.example.com:8443/x").as_deref(), Some("p.example.com"));
        assert_eq!(host_of("https://[fd00::1]:8443").as_deref(), Some("fd00::1"));
        assert_eq!(host_of(""), None);
    }
}
