//! What a person reads when a command fails: one line what, one line what to do, and the exit code.

/// Result of a command.
pub(super) type Outcome<T> = Result<T, Failure>;

/// Exit codes; `docs/cli.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Failed = 1,
    NotFound = 3,
    Timeout = 4,
}

/// A failed command.
#[derive(Debug)]
pub(super) struct Failure {
    what: String,
    hint: String,
    code: Code,
    /// The host API has it that the caller may not.
    is_forbidden: bool,
}

impl Failure {
    pub(super) fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into(), code: Code::Failed, is_forbidden: false }
    }

    pub(super) fn not_found(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: Code::NotFound, ..Self::new(what, hint) }
    }

    pub(super) fn timeout(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: Code::Timeout, ..Self::new(what, hint) }
    }

    /// An answer of the host API, while doing `action` ("create the namespace team-a").
    pub(super) fn api(action: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 403 => Self {
                is_forbidden: true,
                ..Self::new(
                    format!("you may not {action}: {}", status.message),
                    "ask the admin of the host cluster for these rights in this namespace; docs/cli.md lists what each command needs",
                )
            },
            kube::Error::Api(status) if status.code == 401 => Self::new(
                format!("the host cluster does not accept your credentials ({action})"),
                "log in again, or choose another --context",
            ),
            kube::Error::Api(status) if is_missing_api(status) => Self::missing_api(action),
            kube::Error::Api(status) if status.code == 404 => Self::not_found(
                format!("cannot {action}: {}", status.message),
                "look at what is there: portico list -A",
            ),
            kube::Error::Api(status) => Self::new(
                format!("cannot {action}: {}", status.message),
                "read the reason above; the host API refused the request",
            ),
            other => Self::new(
                format!("cannot {action}: {}", chain(other)),
                "is the host cluster reachable? Try: kubectl version; choose another with --context or KUBECONFIG",
            ),
        }
    }

    fn missing_api(action: &str) -> Self {
        Self::new(
            format!(
                "cannot {action}: Portico is not installed in this host cluster (no resource virtualclusters.portico.dev)"
            ),
            "an admin installs it once: helm install portico deploy/helm/portico -n portico-system --create-namespace",
        )
    }

    pub(super) fn what(&self) -> &str {
        &self.what
    }

    pub(super) fn hint(&self) -> &str {
        &self.hint
    }

    pub(super) fn code(&self) -> u8 {
        self.code as u8
    }

    pub(super) fn is_forbidden(&self) -> bool {
        self.is_forbidden
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }
}

/// A 404 for the resource type rather than for one object: the API server then names no object.
fn is_missing_api(status: &kube::core::Status) -> bool {
    status.code == 404 && status.details.as_ref().is_none_or(|d| d.name.is_empty())
}

/// The error with its causes, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, name: &str) -> kube::Error {
        let status =
            serde_json::json!({"code": code, "message": "message", "reason": "Reason", "details": {"name": name}});
        kube::Error::Api(Box::new(serde_json::from_value(status).expect("a Status")))
    }

    #[test]
    fn a_missing_crd_is_told_from_a_missing_object() {
        let object = Failure::api("read it", &api(404, "vc1"));
        assert!(object.is_not_found() && object.code() == 3);
        let kind = Failure::api("read it", &api(404, ""));
        assert_eq!(kind.code(), 1);
        assert!(kind.what().contains("not installed"), "{}", kind.what());
    }

    #[test]
    fn refusals_say_whom_to_ask() {
        let failure = Failure::api("create the namespace a", &api(403, "a"));
        assert!(failure.what().contains("you may not create the namespace a"));
        assert!(failure.hint().contains("admin"));
    }
}
