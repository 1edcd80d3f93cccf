//! Users and groups that a credential may name. Pure.

/// The most groups of one credential.
pub const MOST_GROUPS: usize = 32;
/// The longest name of a user or group, in bytes.
pub const LONGEST: usize = 253;

/// What names of Kubernetes itself and of its distributions begin with, for whom authorizers and k3s' supervisor have rights
/// that no RBAC of the tenant gives, or that installers have bound to `cluster-admin`.
const RESERVED: [&str; 7] = ["system:", "k3s:", "k3s-", "rke2:", "rke2-", "kubeadm:", "eks:"];
/// Whole names that are no less: of the certificates that AKS hands out.
const RESERVED_WHOLE: [&str; 2] = ["clusterAdmin", "clusterUser"];

/// Whether a credential may name this user with these groups; what is wrong, in a sentence, if not. `allow_system` opens the
/// reserved names.
pub fn check(user: &str, groups: &[String], allow_system: bool) -> Result<(), Refused> {
    if groups.len() > MOST_GROUPS {
        return Err(Refused::Invalid(format!("there are more than {MOST_GROUPS} groups")));
    }
    for (what, name) in std::iter::once(("user", user)).chain(groups.iter().map(|group| ("group", group.as_str()))) {
        check_one(what, name)?;
        if is_reserved(name) && !allow_system {
            return Err(Refused::Reserved(format!(
                "the {what} {name:?} is a name of Kubernetes or of a distribution of it (those of system: are), which the admin of \
                 the host cluster has to allow (operator.credentials.allowSystemNames)"
            )));
        }
    }
    Ok(())
}

/// Whether a user's or group's name is one of Kubernetes' own, or of a distribution of it.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|prefix| name.starts_with(prefix)) || RESERVED_WHOLE.contains(&name)
}

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// No certificate or header can carry it.
    Invalid(String),
    /// It is one of Kubernetes' own.
    Reserved(String),
}

impl Refused {
    /// One sentence.
    pub fn message(&self) -> &str {
        match self {
            Self::Invalid(message) | Self::Reserved(message) => message,
        }
    }
}

/// What certificates and headers carry alike: printable ASCII, and no space at an end, which headers lose.
fn check_one(what: &str, name: &str) -> Result<(), Refused> {
    let refuse = |why: String| Err(Refused::Invalid(format!("the {what} {why}")));
    if name.is_empty() {
        return refuse("is empty".to_owned());
    }
    if name.len() > LONGEST {
        return refuse(format!("is longer than {LONGEST} bytes"));
    }
    if !name.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return refuse("has characters other than printable ASCII".to_owned());
    }
    if name.trim() != name {
        return refuse("begins or ends with a space".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn groups(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_that_carry_are_taken() {
        for user in ["jane", "jane@example.com", "oidc:Jane Doe", "a/b\\c\"d", "SYSTEM:x", "the system: x"] {
            assert_eq!(check(user, &groups(&["dev", "ops team"]), false), Ok(()), "{user}");
        }
    }

    #[test]
    fn kubernetes_own_names_are_the_admins_to_give() {
        for name in [
            "system:masters",
            "system:node:a",
            "system:",
            "k3s:server",
            "k3s-supervisor",
            "rke2:agent",
            "rke2-x",
            "kubeadm:cluster-admins",
            "eks:kube-controller",
            "clusterAdmin",
            "clusterUser",
        ] {
            for (user, of) in [(name, groups(&[])), ("jane", groups(&["dev", name]))] {
                assert!(matches!(check(user, &of, false), Err(Refused::Reserved(_))), "{name}");
                assert_eq!(check(user, &of, true), Ok(()), "{name}");
            }
        }
    }

    #[test]
    fn names_that_do_not_carry_are_refused_whatever_is_allowed() {
        let long = "x".repeat(LONGEST + 1);
        for name in
            ["", " ", "a ", " a", "a\n", "a\r\nX-Remote-Group: system:masters", "a\0b", "jän", "\u{202e}x", &long]
        {
            for allow in [false, true] {
                assert!(matches!(check(name, &[], allow), Err(Refused::Invalid(_))), "{name:?}");
                assert!(matches!(check("jane", &groups(&[name]), allow), Err(Refused::Invalid(_))), "{name:?}");
            }
        }
        assert!(check("jane", &vec!["a".to_owned(); MOST_GROUPS + 1], true).is_err());
    }

    proptest! {
        /// Whatever is taken is a header's value as it is, and is no name of Kubernetes' own.
        #[test]
        fn what_is_taken_is_carried(name in "\\PC{0,20}|[ -~]{0,20}|system:[a-z]{0,5}") {
            if check(&name, &[], false).is_ok() {
                let value = http::HeaderValue::from_str(&name).expect("a header");
                prop_assert_eq!(value.to_str().expect("ASCII").trim(), name.as_str());
                prop_assert!(!name.starts_with("system:"));
            }
        }
    }
}
