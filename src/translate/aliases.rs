//! Host names that differ from today's formula: objects of an older Portico or of vcluster keep theirs.

use std::collections::BTreeMap;

/// By kind, virtual namespace and virtual name. A name is of one kind only: what another kind has under the same name is
/// named by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aliases(BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>);

impl Aliases {
    /// The virtual object of this kind (with or without its group) has this name on the host.
    pub fn remember(&mut self, kind: &str, namespace: &str, name: &str, host_name: &str) {
        let of_kind = self.0.entry(named_as(kind).to_owned()).or_default();
        of_kind.entry(namespace.to_owned()).or_default().insert(name.to_owned(), host_name.to_owned());
    }

    /// Its name on the host, when it is not as the formula says.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<&str> {
        self.0.get(named_as(kind))?.get(namespace)?.get(name).map(String::as_str)
    }
}

/// Endpoints have the name of their Service, always: it is how they are found.
fn named_as(kind: &str) -> &str {
    match kind.rsplit('/').next().unwrap_or(kind) {
        "Endpoints" => "Service",
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_one_kind() {
        let mut aliases = Aliases::default();
        aliases.remember("ConfigMap", "n", "a", "older");
        assert_eq!(aliases.get("ConfigMap", "n", "a"), Some("older"));
        assert_eq!((aliases.get("Secret", "n", "a"), aliases.get("ConfigMap", "n", "b")), (None, None));
        aliases.remember("networking.k8s.io/Ingress", "n", "a", "of-ingress");
        assert_eq!(aliases.get("Ingress", "n", "a"), Some("of-ingress"));
        aliases.remember("Service", "n", "a", "of-service");
        assert_eq!(aliases.get("Endpoints", "n", "a"), Some("of-service"));
    }
}
