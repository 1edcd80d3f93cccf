//! Kubeconfigs that come from outside, over a mutated corpus.

use crate::error::Side;
use crate::kubernetes::kubeconfig::target_from_kubeconfig;
use crate::runtime::fuzz;
use crate::upstream::{Credential, Reach};

/// None of them names a file, or a place without a host.
#[test]
fn kubeconfigs() {
    fuzz::bytes("kubeconfigs", &[], |input| {
        let target = target_from_kubeconfig(std::str::from_utf8(input).ok()?, Side::Backend, Reach::default()).ok()?;
        assert!(!target.host.is_empty() && !target.host.contains(['/', '@', ' ']), "{:?}", target.host);
        assert!(!matches!(target.credential, Credential::TokenFile(_)));
        assert!(target.path_prefix.is_empty() || target.path_prefix.starts_with('/'), "{:?}", target.path_prefix);
        Some((matches!(target.credential, Credential::Token(_)), target.path_prefix.is_empty()))
    });
}
