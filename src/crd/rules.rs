//! Rules over more than one field of a VirtualCluster, in CEL; the API server checks them.

/// `(path of the property, rule, message)`.
pub(super) const RULES: &[(&str, &str, &str)] = &[
    (
        "",
        "size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "the name must begin with a letter, hold only lower-case letters, digits and '-', and have at most 40 characters",
    ),
    (
        "spec",
        "self.distro != 'external' || (has(self.backend) && has(self.backend.kubeconfigSecret) && size(self.backend.kubeconfigSecret.name) > 0)",
        "distro external needs backend.kubeconfigSecret.name",
    ),
    ("spec", "self.distro == oldSelf.distro", "distro cannot be changed"),
    (
        "spec",
        "oldSelf.network.serviceCIDR == '' || self.network.serviceCIDR == oldSelf.network.serviceCIDR",
        "network.serviceCIDR cannot be changed once it is set",
    ),
    ("spec", "self.network.clusterDomain == oldSelf.network.clusterDomain", "network.clusterDomain cannot be changed"),
    ("spec", "self.network.serviceIP == oldSelf.network.serviceIP", "network.serviceIP cannot be changed"),
    ("spec", "self.distro == 'k3s' || self.version == ''", "version is for distro k3s; distro k8s takes an image"),
    (
        "spec",
        "self.replicas == 1 || has(self.storage.datastoreEndpoint)",
        "more than one replica needs storage.datastoreEndpoint: SQLite and the embedded etcd belong to one pod",
    ),
    (
        "spec",
        "!has(self.storage.datastoreEndpoint) || size(self.storage.datastoreEndpoint.secretName) > 0",
        "storage.datastoreEndpoint needs secretName",
    ),
    (
        "spec",
        "!has(self.storage.datastoreEndpoint) || (self.distro != 'external' && !has(self.storage.volumeClaim) && !self.storage.embeddedEtcd)",
        "storage.datastoreEndpoint excludes storage.volumeClaim, storage.embeddedEtcd and distro external",
    ),
    ("spec", "self.distro == 'k3s' || !self.storage.embeddedEtcd", "storage.embeddedEtcd is for distro k3s"),
    (
        "spec",
        "has(self.storage.datastoreEndpoint) == has(oldSelf.storage.datastoreEndpoint) && self.storage.embeddedEtcd == oldSelf.storage.embeddedEtcd",
        "storage.datastoreEndpoint and storage.embeddedEtcd cannot be added or taken away later: the data would stay behind",
    ),
    (
        "spec",
        "!self.storage.ephemeral || (self.distro != 'external' && !has(self.storage.volumeClaim) && !has(self.storage.datastoreEndpoint))",
        "storage.ephemeral excludes storage.volumeClaim, storage.datastoreEndpoint and distro external",
    ),
    (
        "spec",
        "self.storage.ephemeral == oldSelf.storage.ephemeral && has(self.storage.volumeClaim) == has(oldSelf.storage.volumeClaim) && (!has(self.storage.volumeClaim) || self.storage.volumeClaim == oldSelf.storage.volumeClaim)",
        "storage.ephemeral and storage.volumeClaim cannot be changed later: the data would stay behind; what is in force is in status.storage",
    ),
    (
        "spec",
        "!has(self.audit) || self.audit.rules.all(r, r.level == 'None' || r.level == 'Metadata')",
        "levels of audit rules are None and Metadata: bodies are never kept",
    ),
    (
        "spec",
        "self.kubeconfigs.all(k, (k.user != '') != has(k.serviceAccount) && (k.user != '' || size(k.groups) == 0))",
        "each of kubeconfigs is for a user (with groups) or for a serviceAccount, not for both",
    ),
    (
        "spec",
        "self.kubeconfigs.all(k, k.clusterRole == '' || !has(k.role))",
        "each of kubeconfigs is bound to a clusterRole or to a role, not to both",
    ),
    (
        "spec",
        "self.kubeconfigs.all(k, self.kubeconfigs.exists_one(other, other.secretName == k.secretName))",
        "each of kubeconfigs has a secretName of its own",
    ),
    (
        "spec",
        "self.kubeconfigs.all(k, !k.secretName.startsWith('vc-') && !k.secretName.endsWith('-pki'))",
        "the secretName of kubeconfigs cannot begin with 'vc-' or end with '-pki': Portico has Secrets of its own there",
    ),
];
