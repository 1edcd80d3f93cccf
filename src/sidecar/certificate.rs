//! The serving certificate: signed by k3s' server CA, so that pods and kubeconfigs trust it as they trust k3s itself.

use jiff::Timestamp;

use super::host::Surroundings;
use super::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::tls::certificates::{self, Leaf, Pair, Usage};

/// Renewed when less than this is left, without a restart.
const RENEW_DAYS: u32 = 90;

/// Names and addresses under which the API is reached, sorted and each once.
pub(super) fn names(settings: &Settings, around: &Surroundings) -> Vec<String> {
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1"]
            .map(str::to_owned)
            .into();
    names.push(format!("kubernetes.default.svc.{}", settings.flags.cluster_domain));
    names.extend(around.names.iter().cloned());
    names.extend(settings.flags.tls_sans.iter().cloned());
    names.sort();
    names.dedup();
    names
}

/// The certificate, kept as long as it says what it should.
pub(super) fn serving(old: Option<Pair>, ca: &Pair, names: &[String], now: Timestamp) -> Result<Pair> {
    if !certificates::is_usable_ca(ca, now) {
        let message = "k3s' server CA cannot sign: certificate and key do not fit, or it has expired; see k3s' own \
                       documentation on rotating its CA";
        return Err(Error::own(Kind::Invalid, message));
    }
    let leaf = Leaf {
        common_name: "kube-apiserver".to_owned(),
        organization: None,
        names: names.to_vec(),
        usage: Usage::Server,
        renew_days: RENEW_DAYS,
    };
    match old {
        Some(old) if certificates::is_current(&old, ca, &leaf, now) => Ok(old),
        _ => certificates::new_leaf(ca, &leaf, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewed_in_time_and_when_a_name_comes_kept_otherwise() {
        let at = |text: &str| text.parse::<Timestamp>().expect("time");
        let now = at("2026-01-01T00:00:00Z");
        let ca = certificates::new_ca("k3s-server-ca@1", now).expect("ca");
        let names = vec!["localhost".to_owned(), "10.96.0.20".to_owned()];
        let first = serving(None, &ca, &names, now).expect("made");
        assert!(serving(Some(first.clone()), &ca, &names, at("2026-06-01T00:00:00Z")).expect("kept") == first);
        assert!(serving(Some(first.clone()), &ca, &names, at("2026-11-01T00:00:00Z")).expect("renewed") != first);
        let more = [names, vec!["192.0.2.1".to_owned()]].concat();
        assert!(serving(Some(first), &ca, &more, now).expect("made anew").certificate.contains("BEGIN CERTIFICATE"));
        let other = certificates::new_ca("other", now).expect("ca");
        let mixed = Pair { certificate: ca.certificate, key: other.key };
        assert!(serving(None, &mixed, &more, now).is_err());
    }
}
