//! What `portico connect` writes instead of the admin's certificate, as it was asked for: pure, and checked before anything is made.

use std::time::Duration;

use crate::cli::failure::{Failure, Outcome};
use crate::cli::progress;
use crate::names::credentials::{self, Refused};

/// The shortest life that an API server gives a token, and Portico a certificate.
const SHORTEST: Duration = Duration::from_secs(600);
/// What is asked for without a word about it.
const DEFAULT: Duration = Duration::from_secs(3600);
/// The longest: API servers take seconds in 32 bits.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// Credentials other than the admin's.
#[derive(Debug, Default, clap::Args)]
pub(super) struct CredentialArgs {
    /// Write a token of this ServiceAccount of the virtual cluster instead of the admin's certificate; the ServiceAccount is made if it
    /// is missing. Without a namespace: that of the kubeconfig, else `default`.
    #[arg(long, value_name = "[NS/]NAME", value_parser = account_name, conflicts_with_all = ["user", "groups"])]
    service_account: Option<AccountName>,
    /// Bind the ServiceAccount to this ClusterRole in the whole virtual cluster, unless it is.
    #[arg(long, value_name = "ROLE", value_parser = role_name, requires = "service_account", conflicts_with = "role")]
    cluster_role: Option<String>,
    /// Bind the ServiceAccount to this Role in the Role's namespace, unless it is.
    #[arg(long, value_name = "NS/ROLE", value_parser = role_of_namespace, requires = "service_account")]
    role: Option<(String, String)>,
    /// Write a new client certificate of this user, which Portico signs; its key does not leave this machine.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Group of that user; may be given again.
    #[arg(long = "group", value_name = "GROUP", requires = "user")]
    groups: Vec<String>,
    /// Write no credential, but that each user logs in at the issuer of `spec.auth.jwt` (portico login, an exec plugin of kubectl).
    #[arg(long, conflicts_with_all = ["service_account", "user", "expiration"])]
    oidc: bool,
    /// Which issuer, where there are several.
    #[arg(long, value_name = "URL", requires = "oidc")]
    issuer: Option<String>,
    /// Client that is registered at the issuer for logins (default: the only audience).
    #[arg(long, value_name = "ID", requires = "oidc")]
    client_id: Option<String>,
    /// How long the token or certificate lives (default: 1h); the API server or the admin may have it shorter.
    #[arg(long, value_name = "DURATION", value_parser = expiration)]
    expiration: Option<Duration>,
}

/// A ServiceAccount as it is written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AccountName {
    namespace: Option<String>,
    name: String,
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The admin's certificate, as it is in the Secret.
    Admin,
    Account(Account),
    User(User),
    /// Whoever logs in there.
    Login(Login),
}

/// A token of a ServiceAccount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// None: that of the kubeconfig's context.
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) grant: Grant,
    pub(super) life: Duration,
}

/// What a ServiceAccount is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Grant {
    /// Nothing more than it is.
    Nothing,
    ClusterRole(String),
    /// Namespace and name.
    Role(String, String),
}

/// A login at an issuer, as far as it was said which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) issuer: Option<String>,
    pub(super) client: Option<String>,
}

/// A certificate of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
    pub(super) life: Duration,
}

impl CredentialArgs {
    /// What was asked for, or what is wrong with it.
    pub(super) fn wanted(&self) -> Outcome<Wanted> {
        if self.oidc {
            return Ok(Wanted::Login(Login { issuer: self.issuer.clone(), client: self.client_id.clone() }));
        }
        let life = self.expiration.unwrap_or(DEFAULT);
        if let Some(AccountName { namespace, name }) = self.service_account.clone() {
            let grant = match (&self.cluster_role, &self.role) {
                (Some(role), _) => Grant::ClusterRole(role.clone()),
                (None, Some((namespace, role))) => Grant::Role(namespace.clone(), role.clone()),
                (None, None) => Grant::Nothing,
            };
            return Ok(Wanted::Account(Account { namespace, name, grant, life }));
        }
        if let Some(name) = self.user.clone() {
            // Whether reserved names are allowed, the operator knows.
            if let Err(Refused::Invalid(why)) = credentials::check(&name, &self.groups, true) {
                return Err(Failure::new(
                    why,
                    "certificates name users and groups in printable ASCII, 253 characters and 32 groups at most",
                ));
            }
            return Ok(Wanted::User(User { name, groups: self.groups.clone(), life }));
        }
        if self.expiration.is_some() {
            return Err(Failure::new(
                "--expiration is for --service-account and --user: the admin's certificate lives as long as it is made",
                "leave --expiration out, or say whose credential it is: --service-account [NS/]NAME or --user USER",
            ));
        }
        Ok(Wanted::Admin)
    }
}

fn account_name(text: &str) -> Result<AccountName, String> {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
        None => (None, text.to_owned()),
    };
    if !namespace.as_deref().is_none_or(is_label) || !is_subdomain(&name) {
        return Err("write NAME or NAMESPACE/NAME, in lower-case letters, digits, '-' and '.'".to_owned());
    }
    Ok(AccountName { namespace, name })
}

/// As the API server takes it: a segment of a path.
fn role_name(text: &str) -> Result<String, String> {
    let is_segment = !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '%']) && text.len() <= 253;
    if is_segment { Ok(text.to_owned()) } else { Err("write the name of a role of the virtual cluster".to_owned()) }
}

fn role_of_namespace(text: &str) -> Result<(String, String), String> {
    let wrong = || "write NAMESPACE/ROLE; a role of the whole cluster is given as --cluster-role".to_owned();
    let (namespace, role) = text.split_once('/').ok_or_else(wrong)?;
    if !is_label(namespace) {
        return Err(wrong());
    }
    Ok((namespace.to_owned(), role_name(role)?))
}

fn expiration(text: &str) -> Result<Duration, String> {
    let life = progress::duration(text)?;
    if (SHORTEST..=LONGEST).contains(&life) {
        Ok(life)
    } else {
        Err("write 10m or longer, such as 1h or 720h".to_owned())
    }
}

fn is_label(text: &str) -> bool {
    text.len() <= 63 && !text.contains('.') && is_subdomain(text)
}

fn is_subdomain(text: &str) -> bool {
    let is_part = |part: &str| {
        let ends = [part.bytes().next(), part.bytes().last()];
        ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()))
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        credential: CredentialArgs,
    }

    fn wanted(flags: &[&str]) -> Option<Outcome<Wanted>> {
        let line = Line::try_parse_from([&["connect"], flags].concat()).ok()?;
        Some(line.credential.wanted())
    }

    fn taken(flags: &[&str]) -> Wanted {
        wanted(flags).expect("a command line").expect("taken")
    }

    #[test]
    fn what_is_asked_for() {
        assert_eq!(taken(&[]), Wanted::Admin);
        let account = |namespace: Option<&str>, grant, seconds| {
            Wanted::Account(Account {
                namespace: namespace.map(str::to_owned),
                name: "ci".to_owned(),
                grant,
                life: Duration::from_secs(seconds),
            })
        };
        assert_eq!(taken(&["--service-account", "ci"]), account(None, Grant::Nothing, 3600));
        assert_eq!(
            taken(&[
                "--service-account",
                "tools/ci",
                "--cluster-role",
                "system:aggregate-to-view",
                "--expiration",
                "10m"
            ]),
            account(Some("tools"), Grant::ClusterRole("system:aggregate-to-view".to_owned()), 600)
        );
        let role = Grant::Role("shop".to_owned(), "deployer".to_owned());
        assert_eq!(taken(&["--service-account", "ci", "--role", "shop/deployer"]), account(None, role, 3600));
        let user = User { name: "jane".to_owned(), groups: vec!["a".to_owned(), "b".to_owned()], life: DEFAULT };
        assert_eq!(taken(&["--user", "jane", "--group", "a", "--group", "b"]), Wanted::User(user));
    }

    #[test]
    fn what_cannot_be_meant_is_no_command_line() {
        for flags in [
            &["--service-account", "A"][..],
            &["--service-account", "a/b/c"],
            &["--service-account", "/b"],
            &["--service-account", "a.b/c"],
            &["--service-account", ""],
            &["--cluster-role", "view"],
            &["--role", "a/b"],
            &["--service-account", "ci", "--role", "deployer"],
            &["--service-account", "ci", "--role", "a/b/c"],
            &["--service-account", "ci", "--role", "a/b", "--cluster-role", "view"],
            &["--service-account", "ci", "--cluster-role", ".."],
            &["--service-account", "ci", "--user", "jane"],
            &["--service-account", "ci", "--expiration", "5m"],
            &["--service-account", "ci", "--expiration", "1d"],
            &["--service-account", "ci", "--expiration", "99999999h"],
            &["--group", "a"],
        ] {
            assert!(wanted(flags).is_none(), "{flags:?}");
        }
    }

    #[test]
    fn what_cannot_be_carried_is_refused_with_what_to_do() {
        for (flags, hint) in [
            (&["--user", "jän"][..], "printable ASCII"),
            (&["--user", ""], "printable ASCII"),
            (&["--user", "jane", "--group", " a"], "printable ASCII"),
            (&["--expiration", "1h"], "--service-account"),
        ] {
            let failure = wanted(flags).expect("a command line").expect_err("refused");
            assert!(failure.hint().contains(hint), "{flags:?}: {}", failure.hint());
        }
        assert!(matches!(taken(&["--user", "system:admin"]), Wanted::User(_)), "the operator's to judge");
    }
}
