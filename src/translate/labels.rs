//! Labels on the host. Keys without a prefix cross unchanged, keys with one when the policy lists them; others stand under a
//! prefix of Portico's, where no controller of the host looks for them. Values that something of the host's own selects by
//! get the cluster's name appended. Both in labels and in selectors alike, so that no tenant's pod can put itself behind a
//! host Service, be adopted by a host controller, or ask one for something.

use std::borrow::Cow;

use super::{View, diff};
use crate::names::keys;

/// Longest label value.
const LONGEST: usize = 63;
/// Two ReplicaSets of equal templates have equal values: without a controller as owner, one on the host would adopt the
/// other's pods.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// The key that a label has on the host; None when it has none there. Different keys stay different.
pub fn key<'a>(key: &'a str, view: &View) -> Option<Cow<'a, str>> {
    if keys::is_reserved(key) {
        return None;
    }
    if !key.contains('/') || view.policy.label(key) {
        return Some(Cow::Borrowed(key));
    }
    keys::moved(key).map(Cow::Owned)
}

/// The tenant's key of a label on the host; None for Portico's own.
pub fn own_key(on_host: &str) -> Option<String> {
    (!keys::is_mark(on_host)).then(|| keys::own(on_host).into_owned())
}

/// The value that a label has on the host. Different values stay different.
pub fn value<'a>(key: &str, value: &'a str, view: &View) -> Cow<'a, str> {
    if is_guarded(key, value, view) { Cow::Owned(appended(value, view)) } else { Cow::Borrowed(value) }
}

/// The tenant's value of a label that has this value on the host; None when no value becomes this one. A value that was cut
/// to fit cannot be told from a tenant's own and stands for itself.
pub fn original<'a>(key: &str, on_host: &'a str, view: &View) -> Option<&'a str> {
    let shorter = on_host.strip_suffix(suffix(view).as_str());
    [Some(on_host), shorter].into_iter().flatten().find(|of_tenant| value(key, of_tenant, view) == on_host)
}

/// A guarded value, or what becomes of one: the latter must move on as well, or two values would meet.
fn is_guarded(key: &str, value: &str, view: &View) -> bool {
    if key == TEMPLATE_HASH {
        return view.owner.as_ref().is_none_or(|owner| !owner.controller);
    }
    let guarded = &view.placement.guarded_labels;
    if guarded.is_empty() {
        return false;
    }
    let suffix = suffix(view);
    let guarded = guarded.range((key.to_owned(), String::new())..).take_while(|(guarded, _)| guarded == key);
    guarded.map(|(_, guarded)| guarded).any(|guarded| {
        let mut value = value;
        loop {
            if value == guarded {
                return true;
            }
            match value.strip_suffix(suffix.as_str()) {
                Some(shorter) => value = shorter,
                None => return false,
            }
        }
    })
}

fn appended(value: &str, view: &View) -> String {
    let long = format!("{value}{}", suffix(view));
    if long.len() <= LONGEST {
        return long;
    }
    let hash = diff::fingerprint(&serde_json::Value::String(long));
    let kept: String = value.chars().take(LONGEST - hash.len() - 1).collect();
    format!("{kept}-{hash}")
}

fn suffix(view: &View) -> String {
    format!("-x-{}", view.cluster())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::super::{Owner, testing};
    use super::*;
    use proptest::prelude::*;

    fn view() -> View {
        let mut view = testing::view();
        let guarded = [("app", "vc1"), ("app", ""), ("tier", "control")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        view.placement.guarded_labels = Arc::new(BTreeSet::from(guarded));
        view
    }

    #[test]
    fn only_what_the_host_selects_by_is_changed() {
        let view = view();
        assert_eq!(value("app", "web", &view), "web");
        assert_eq!(value("name", "vc1", &view), "vc1");
        assert_eq!(value("app", "vc1", &view), "vc1-x-vc1");
        assert_eq!(value("app", "vc1-x-vc1", &view), "vc1-x-vc1-x-vc1");
        assert_eq!(value(TEMPLATE_HASH, "abc", &view), "abc", "a controller keeps others away");
    }

    #[test]
    fn without_a_controller_no_host_replica_set_adopts() {
        let mut view = view();
        view.owner = Some(Owner { controller: false, ..Owner::virtual_cluster("vc1", "u") });
        assert_eq!(value(TEMPLATE_HASH, "abc", &view), "abc-x-vc1");
    }

    proptest! {
        #[test]
        fn different_values_stay_different(a in "(vc1|control|)(-x-vc1){0,9}[a-z]{0,2}", b in "(vc1|control|)(-x-vc1){0,9}[a-z]{0,2}") {
            prop_assume!(a.len() <= LONGEST && b.len() <= LONGEST);
            let view = view();
            let (one, two) = (value("app", &a, &view), value("app", &b, &view));
            prop_assert_eq!(a == b, one == two);
            prop_assert!(one.len() <= LONGEST);
            prop_assert!(!matches!(&*one, "vc1" | ""), "{}", one);
        }

        #[test]
        fn values_lead_back(a in "(vc1|control|)(-x-vc1){0,7}[a-z]{0,2}") {
            let view = view();
            for key in ["app", "tier", TEMPLATE_HASH] {
                let on_host = value(key, &a, &view);
                prop_assert_eq!(original(key, &on_host, &view), Some(a.as_str()));
            }
            prop_assert_eq!(original("app", "vc1", &view), None);
        }
    }
}
