//! What one tenant's host Services take of nodes and load balancers, kept as they change: a plan that asks for the sum looks
//! at those that take something, of which there are as few as the policy allows, and not at all Services.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde_json::Value;

use crate::translate::summary::Exposure;

/// By host name; those that take nothing are not in it.
#[derive(Debug, Default)]
pub struct Exposed(Mutex<HashMap<String, Exposure>>);

impl Exposed {
    /// The tenant's host Service of this name is now this; None: there is none.
    pub fn set(&self, name: &str, service: Option<&Value>) {
        let exposure = service.map(Exposure::of).unwrap_or_default();
        let mut all = self.0.lock();
        if exposure == Exposure::default() {
            all.remove(name);
        } else {
            all.insert(name.to_owned(), exposure);
        }
    }

    /// All together but for one.
    pub fn but(&self, except: Option<&str>) -> Exposure {
        let all = self.0.lock();
        let others = all.iter().filter(|(name, _)| Some(name.as_str()) != except);
        others.map(|(_, exposure)| *exposure).fold(Exposure::default(), Exposure::and)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_takes_nothing_is_forgotten() {
        let exposed = Exposed::default();
        let service = |kind: &str, ports: usize| json!({"spec": {"type": kind, "ports": vec![json!({}); ports]}});
        exposed.set("a", Some(&service("NodePort", 2)));
        exposed.set("b", Some(&service("LoadBalancer", 1)));
        exposed.set("c", Some(&service("ClusterIP", 9)));
        assert_eq!(exposed.0.lock().len(), 2);
        assert_eq!(exposed.but(None), Exposure { node_ports: 3, load_balancers: 1 });
        assert_eq!(exposed.but(Some("b")), Exposure { node_ports: 2, load_balancers: 0 });
        exposed.set("a", Some(&service("ClusterIP", 2)));
        exposed.set("b", None);
        assert_eq!((exposed.but(None), exposed.0.lock().len()), (Exposure::default(), 0));
    }
}
