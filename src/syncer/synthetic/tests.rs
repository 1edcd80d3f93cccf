use super::*;
use crate::kubernetes::resources::{CLAIMS, NODES, STORAGE_CLASSES, VOLUMES};
use crate::syncer::catalog::Catalog;
use crate::syncer::incoming::{Incoming, pack_virtual};

/// Remembers what there is.
#[derive(Default)]
struct Known {
    names: Mutex<Vec<String>>,
    state: Mutex<Option<SourceState>>,
}

impl Feed for Known {
    fn pack(&self, object: Value) -> Incoming {
        pack_virtual(&Catalog::new(vec![Arc::new(crate::syncer::kinds::cluster::NodeKind)]), 0, object)
    }

    fn applied(&self, incoming: Incoming) {
        let mut names = self.names.lock();
        names.retain(|n| *n != incoming.key.name);
        names.push(incoming.key.name);
        names.sort();
    }

    fn deleted(&self, incoming: Incoming) {
        self.names.lock().retain(|n| *n != incoming.key.name);
    }

    fn delivered(&self, _version: u64) {}

    fn known(&self, _key: &crate::syncer::kind::ObjectKey) -> Option<Incoming> {
        None
    }

    fn list(&self, _key: &crate::syncer::kind::ObjectKey, _bytes: usize) -> Option<usize> {
        Some(0)
    }

    fn unlist(&self, _bytes: usize) {}

    fn replaced(&self, list: Vec<Incoming>, _version: u64) {
        *self.names.lock() = list.into_iter().map(|i| i.key.name).collect();
    }

    fn state(&self, state: SourceState) {
        *self.state.lock() = Some(state);
    }
}

fn own() -> OwnPlace {
    OwnPlace { node: "n0".to_owned(), node_ip: "10.0.0.1".to_owned(), version: "v1.34.4".to_owned() }
}

fn pod(node: &str) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"nodeName": node}, "status": {"hostIP": "10.0.0.7"}})
}

fn names(known: &Known) -> Vec<String> {
    known.names.lock().clone()
}

#[test]
fn nodes_are_there_as_long_as_pods_are_on_them() {
    let known = Arc::new(Known::default());
    let nodes = Synthetic::new(&NODES, &(Arc::clone(&known) as Arc<dyn Feed>), &own()).expect("made up");
    nodes.saw("a", Some(&pod("n1")));
    assert!(names(&known).is_empty(), "nothing before it is needed");
    nodes.begin();
    assert_eq!(names(&known), ["n0", "n1"]);
    assert_eq!(*known.state.lock(), Some(SourceState::Synced));
    nodes.saw("b", Some(&pod("n1")));
    nodes.saw("b", Some(&pod("n1")));
    nodes.saw("c", Some(&pod("")));
    nodes.saw("c", Some(&pod("n2")));
    assert_eq!(names(&known), ["n0", "n1", "n2"]);
    nodes.saw("a", None);
    assert_eq!(names(&known), ["n0", "n1", "n2"], "b is still there");
    nodes.saw("b", None);
    nodes.saw("c", None);
    nodes.saw("c", None);
    assert_eq!(names(&known), ["n0"], "our own node stays");
    nodes.saw("d", Some(&pod("n0")));
    nodes.saw("d", None);
    assert_eq!(names(&known), ["n0"]);
}

#[test]
fn nothing_is_made_up_while_the_real_ones_may_be_read() {
    let known = Arc::new(Known::default());
    let nodes = Synthetic::new(&NODES, &(Arc::clone(&known) as Arc<dyn Feed>), &own()).expect("made up");
    nodes.begin();
    nodes.end();
    nodes.saw("a", Some(&pod("n1")));
    assert_eq!(names(&known), ["n0"]);
    nodes.begin();
    assert_eq!(names(&known), ["n0", "n1"], "what happened meanwhile is known");
}

#[test]
fn a_made_up_node_is_found_by_the_hosts_name() {
    let node = node_of(&pod("n1"), &own()).expect("a node");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    assert_eq!(node["status"]["addresses"][0], json!({"type": "InternalIP", "address": "10.0.0.7"}));
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "v1.34.4");
}

#[test]
fn volumes_come_from_bound_claims_and_name_them() {
    let claim = json!({
        "metadata": {"name": "data-x-default-x-vc1", "namespace": "team", "uid": "u1"},
        "spec": {"volumeName": "pv1", "storageClassName": "fast", "accessModes": ["ReadWriteOnce"], "resources": {}},
        "status": {"phase": "Bound", "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"]},
    });
    let volume = volume_of(&claim, &own()).expect("a volume");
    assert_eq!(json::name(&volume), "pv1");
    assert_eq!(volume["spec"]["claimRef"]["uid"], "u1");
    assert_eq!(volume["spec"]["capacity"]["storage"], "5Gi");
    let mut pending = claim;
    pending["status"]["phase"] = json!("Pending");
    assert!(volume_of(&pending, &own()).is_none());
    for (resource, from) in [(VOLUMES, Some(CLAIMS.kind)), (STORAGE_CLASSES, None)] {
        let made = Synthetic::new(&resource, &(Arc::new(Known::default()) as Arc<dyn Feed>), &own());
        assert_eq!(made.map(|m| m.made_from()), from);
    }
}
