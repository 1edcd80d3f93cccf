//! Beside the phases: what becomes of `spec.audit`, for the owner of the VirtualCluster. The gateway reads it by itself.

use crate::audit::Asks;
use crate::config::AuditConfig;
use crate::crd::VirtualClusterStatus;
use crate::crd::audit::Audit;
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::halt::{Says, condition};
use crate::operator::status;

/// Says it, as long as something is asked for or was.
pub(crate) fn note(context: &Context, cluster: &Cluster, next: &mut VirtualClusterStatus) {
    let was_said = status::says(next, condition::AUDIT);
    let says = match &cluster.spec.audit {
        None if !was_said => return,
        None => ("True", "NoneWanted", String::new()),
        Some(audit) => says(&context.config.audit, audit),
    };
    let says = (says.0, says.1, says.2.as_str());
    status::note(next, condition::AUDIT, says, cluster.generation, context.clock.now());
}

fn says(config: &AuditConfig, audit: &Audit) -> Says {
    match Asks::new(audit) {
        Err(fault) => {
            let fault = fault.message().to_owned();
            ("False", "Unfit", format!("spec.audit.{fault}; until it fits, only the rules of the configuration hold"))
        }
        Ok(_) if !config.enabled => ("False", "Off", "there is no audit log here (audit.enabled)".to_owned()),
        Ok(_) if !config.tenants => {
            ("False", "NotGranted", "virtual clusters have no rules of their own here (audit.tenants)".to_owned())
        }
        Ok(_) => ("True", "Accepted", String::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_asked_for_is_accepted_or_said_why_not() {
        let audit = |level: &str| serde_json::from_value::<Audit>(json!({"rules": [{"level": level}]})).expect("read");
        let on = AuditConfig { enabled: true, ..AuditConfig::default() };
        assert_eq!(says(&on, &audit("Metadata")), ("True", "Accepted", String::new()));
        let (value, reason, message) = says(&on, &audit("Request"));
        assert_eq!((value, reason), ("False", "Unfit"));
        assert!(message.contains("spec.audit.rules[0].level") && message.contains("bodies"), "{message}");
        assert_eq!(says(&AuditConfig::default(), &audit("Metadata")).1, "Off");
        assert_eq!(says(&AuditConfig { tenants: false, ..on }, &audit("Metadata")).1, "NotGranted");
    }
}
