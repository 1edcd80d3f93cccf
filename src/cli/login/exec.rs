//! What kubectl tells an exec plugin, and wants to hear (`client.authentication.k8s.io`).

use std::io::IsTerminal as _;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

const VERSION: &str = "client.authentication.k8s.io/v1";

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) is_interactive: bool,
    version: String,
}

#[derive(Deserialize)]
struct Written {
    #[serde(rename = "apiVersion")]
    version: String,
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    interactive: bool,
}

/// Out of the environment; a person in a terminal, where kubectl has not started this.
pub(super) fn info() -> Info {
    let said = std::env::var("KUBERNETES_EXEC_INFO").ok();
    of(said.as_deref(), std::io::stdin().is_terminal() || std::io::stderr().is_terminal())
}

fn of(said: Option<&str>, is_terminal: bool) -> Info {
    match said.and_then(|text| serde_json::from_str::<Written>(text).ok()) {
        Some(Written { version, spec }) => Info { is_interactive: spec.interactive, version },
        None => Info { is_interactive: is_terminal, version: VERSION.to_owned() },
    }
}

/// The credential. kubectl asks again when it is over.
pub(super) fn credential(info: &Info, token: &str, ends: i64) -> String {
    let ends = Timestamp::from_second(ends).unwrap_or(Timestamp::MAX);
    let status = json!({"token": token, "expirationTimestamp": ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
    let credential = json!({"kind": "ExecCredential", "apiVersion": info.version, "spec": {}, "status": status});
    format!("{credential}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_says_whether_somebody_can_be_asked() {
        let said = |is: bool| {
            format!(
                r#"{{"apiVersion":"client.authentication.k8s.io/v1beta1","kind":"ExecCredential","spec":{{"interactive":{is}}}}}"#
            )
        };
        for is in [true, false] {
            let info = of(Some(&said(is)), !is);
            assert_eq!((info.is_interactive, info.version.as_str()), (is, "client.authentication.k8s.io/v1beta1"));
        }
        assert!(of(None, true).is_interactive && !of(Some("nonsense"), false).is_interactive);
        let printed = credential(&of(None, true), "a.b.c", 1_800_000_000);
        let printed: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
        assert_eq!(printed["apiVersion"], VERSION);
        assert_eq!(printed["status"], json!({"token": "a.b.c", "expirationTimestamp": "2027-01-15T08:00:00Z"}));
    }
}
