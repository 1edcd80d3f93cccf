//! What is wrong with an object, and whose setting says so.

/// Why a pod may not run, or part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Such as `spec.containers[0].securityContext.privileged`.
    pub field: String,
    /// Such as `must not be true`.
    pub rule: &'static str,
    /// The setting that decides, such as `podSecurity`.
    pub setting: &'static str,
}

impl Violation {
    /// For the tenant's user.
    pub fn message(&self) -> String {
        format!("not run on the host: {} {} ({})", self.field, self.rule, decides(self.setting))
    }
}

/// Where a setting stands, for the tenant's user.
pub fn decides(setting: &str) -> String {
    format!(
        "`{setting}` in the host's policy decides: `policy` of Portico's configuration, `spec.policy` of the VirtualCluster"
    )
}

/// Violations as they are found.
#[derive(Default)]
pub(super) struct Found(pub(super) Vec<Violation>);

impl Found {
    /// Of a Pod Security Standard.
    pub(super) fn unless(&mut self, fine: bool, field: String, rule: &'static str) {
        self.unless_by("podSecurity", fine, field, rule);
    }

    /// Of what another setting decides.
    pub(super) fn unless_by(&mut self, setting: &'static str, fine: bool, field: String, rule: &'static str) {
        if !fine {
            self.0.push(Violation { field, rule, setting });
        }
    }
}
