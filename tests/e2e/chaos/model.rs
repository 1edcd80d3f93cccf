//! What must be there at the end: every object whose creation was accepted and whose deletion was not. Pure.

use std::collections::BTreeMap;

/// A kind of object that the load makes; all of one slot have the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Pod,
    Service,
    /// Used by the pod of the same name.
    ConfigMap,
}

/// One place for an object, taken again and again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) tenant: String,
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

/// Which object is in it, and what was last written into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) uid: String,
    pub(crate) revision: u64,
}

/// An object as a list shows it; of a copy on the host, by its marks.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) key: Key,
    pub(crate) version: Version,
    /// Is being deleted.
    pub(crate) leaves: bool,
}

/// What was accepted.
#[derive(Debug, Default)]
pub(crate) struct Model(BTreeMap<Key, Version>);

/// What is not as it must be, in words.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) lost: Vec<String>,
    pub(crate) doubled: Vec<String>,
    pub(crate) orphans: Vec<String>,
    pub(crate) stale: Vec<String>,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Pod, Self::Service, Self::ConfigMap];

    /// As objects and marks name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::ConfigMap => "ConfigMap",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl Model {
    pub(crate) fn get(&self, key: &Key) -> Option<&Version> {
        self.0.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A creation or a change was accepted.
    pub(crate) fn is(&mut self, key: Key, version: Version) {
        self.0.insert(key, version);
    }

    /// A deletion was accepted.
    pub(crate) fn gone(&mut self, key: &Key) {
        self.0.remove(key);
    }

    /// Compares what was accepted with what the tenants and the host show.
    pub(crate) fn judge(&self, inside: &[Seen], host: &[Seen]) -> Verdict {
        let mut verdict = Verdict::default();
        for (key, version) in &self.0 {
            self.judge_inside(key, version, inside, &mut verdict);
            self.judge_host(key, version, host, &mut verdict);
        }
        for (place, list) in [("inside", inside), ("on the host", host)] {
            let foreign = list.iter().filter(|seen| !self.is_wanted(seen));
            verdict.orphans.extend(foreign.map(|seen| format!("{place}: {}", seen.words())));
        }
        verdict
    }

    fn is_wanted(&self, seen: &Seen) -> bool {
        self.0.get(&seen.key).is_some_and(|version| version.uid == seen.version.uid)
    }

    fn judge_inside(&self, key: &Key, version: &Version, inside: &[Seen], verdict: &mut Verdict) {
        let found = inside.iter().find(|seen| seen.key == *key && seen.version.uid == version.uid && !seen.leaves);
        match found {
            None => verdict.lost.push(format!("inside: {key:?} {version:?}")),
            Some(seen) if seen.version.revision != version.revision => {
                verdict.stale.push(format!("inside: {}, wanted {version:?}", seen.words()));
            }
            Some(_) => {}
        }
    }

    fn judge_host(&self, key: &Key, version: &Version, host: &[Seen], verdict: &mut Verdict) {
        let copies: Vec<&Seen> =
            host.iter().filter(|seen| seen.key == *key && seen.version.uid == version.uid).collect();
        match copies.as_slice() {
            [] if !self.crosses(key) => {}
            [] => verdict.lost.push(format!("on the host: {key:?} {version:?}")),
            [copy] if copy.leaves && self.crosses(key) => {
                verdict.lost.push(format!("on the host, being deleted: {}", copy.words()));
            }
            [copy] if copy.version.revision != version.revision => {
                verdict.stale.push(format!("on the host: {}, wanted {version:?}", copy.words()));
            }
            [_] => {}
            several => verdict.doubled.push(format!("{} times {}", several.len(), several[0].words())),
        }
    }

    /// Only the ConfigMaps that pods use are on the host.
    fn crosses(&self, key: &Key) -> bool {
        key.kind != Kind::ConfigMap || self.0.contains_key(&Key { kind: Kind::Pod, ..key.clone() })
    }
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    /// The beginnings of all lists.
    pub(crate) fn words(&self) -> String {
        let part = |name: &str, list: &[String]| {
            let shown: Vec<&String> = list.iter().take(10).collect();
            format!("{} {name} {shown:?}", list.len())
        };
        let lists =
            [("lost", &self.lost), ("doubled", &self.doubled), ("orphans", &self.orphans), ("stale", &self.stale)];
        lists.map(|(name, list)| part(name, list)).join("\n")
    }
}

impl Seen {
    fn words(&self) -> String {
        let leaves = if self.leaves { ", being deleted" } else { "" };
        format!("{:?} {:?}{leaves}", self.key, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: Kind) -> Key {
        Key { tenant: "one".to_owned(), kind, name: "chaos-0-0".to_owned() }
    }

    fn seen(kind: Kind, uid: &str, revision: u64) -> Seen {
        Seen { key: key(kind), version: Version { uid: uid.to_owned(), revision }, leaves: false }
    }

    fn model(of: &[Seen]) -> Model {
        let mut model = Model::default();
        of.iter().for_each(|seen| model.is(seen.key.clone(), seen.version.clone()));
        model
    }

    fn counts(verdict: &Verdict) -> [usize; 4] {
        [verdict.lost.len(), verdict.doubled.len(), verdict.orphans.len(), verdict.stale.len()]
    }

    #[test]
    fn what_is_on_both_sides_once_is_clean() {
        let both = [seen(Kind::Pod, "a", 1), seen(Kind::Service, "b", 0), seen(Kind::ConfigMap, "c", 2)];
        assert!(model(&both).judge(&both, &both).is_clean());
        assert!(model(&[]).judge(&[], &[]).is_clean());
    }

    #[test]
    fn missing_doubled_left_and_old_ones_are_told_apart() {
        let pod = seen(Kind::Pod, "a", 1);
        let model = model(std::slice::from_ref(&pod));
        let pods = |list: &[(&str, u64)]| list.iter().map(|(uid, n)| seen(Kind::Pod, uid, *n)).collect::<Vec<_>>();
        let judge = |inside: &[(&str, u64)], host: &[(&str, u64)]| counts(&model.judge(&pods(inside), &pods(host)));
        assert_eq!(judge(&[], &[("a", 1)]), [1, 0, 0, 0]);
        assert_eq!(judge(&[("a", 1)], &[]), [1, 0, 0, 0]);
        assert_eq!(judge(&[("a", 1)], &[("a", 1), ("a", 1)]), [0, 1, 0, 0]);
        assert_eq!(judge(&[("a", 1)], &[("a", 1), ("older", 1)]), [0, 0, 1, 0]);
        assert_eq!(judge(&[("a", 1), ("older", 1)], &[("a", 1)]), [0, 0, 1, 0]);
        assert_eq!(judge(&[("a", 1)], &[("a", 0)]), [0, 0, 0, 1]);
        assert_eq!(judge(&[("a", 0)], &[("a", 1)]), [0, 0, 0, 1]);
        assert_eq!(judge(&[("b", 1)], &[("b", 1)]), [2, 0, 2, 0]);
        let leaves = [Seen { leaves: true, ..pod.clone() }];
        assert_eq!(counts(&model.judge(&leaves, std::slice::from_ref(&pod))), [1, 0, 0, 0]);
        assert_eq!(counts(&model.judge(&[pod], &leaves)), [1, 0, 0, 0]);
    }

    #[test]
    fn a_deleted_one_must_be_gone_on_both_sides() {
        let service = [seen(Kind::Service, "a", 0)];
        let mut model = model(&service);
        model.gone(&service[0].key);
        assert_eq!(counts(&model.judge(&service, &service)), [0, 0, 2, 0]);
    }

    #[test]
    fn a_configmap_is_wanted_on_the_host_with_its_pod_only() {
        let (map, pod) = (seen(Kind::ConfigMap, "c", 0), seen(Kind::Pod, "a", 0));
        let alone = model(std::slice::from_ref(&map));
        assert!(alone.judge(std::slice::from_ref(&map), &[]).is_clean());
        let both = [map, pod.clone()];
        assert_eq!(counts(&model(&both).judge(&both, &[pod])), [1, 0, 0, 0]);
    }
}
