//! Who has which host name and port: decided by age, out of what all VirtualClusters ask for.
//!
//! Pure, and the only place that decides, so that every replica, every restart, the registry (who is served) and the
//! operator (certificates, conditions) agree, whatever order tenants come up in. Promises: a reserved name is nobody's
//! but its tenant's default; of several claims the oldest VirtualCluster's counts; whether a cluster is built or ready
//! does not matter, and one that is being deleted has nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::TenantId;
use super::reserved::{For, Reserved, normal};

/// What the schema allows; more of an object that got past it does not count.
const MAX_HOSTS: usize = 32;

/// How old a VirtualCluster is: by its creation, which no user can write, then by its uid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age {
    created: i64,
    uid: String,
    id: TenantId,
}

/// What one VirtualCluster asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    age: Age,
    hosts: Vec<String>,
    port: Option<u16>,
}

/// What all VirtualClusters that are there ask for.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    by_id: HashMap<TenantId, Claim>,
}

/// Who has what.
#[derive(Debug, Clone, Default)]
pub struct Owners {
    reserved: Arc<Reserved>,
    all: HashSet<TenantId>,
    hosts: HashMap<String, TenantId>,
    ports: HashMap<u16, TenantId>,
}

/// What becomes of the host names that one VirtualCluster asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Of `spec.expose.hosts`, in their order and in one spelling: what it is served under.
    pub accepted: Vec<String>,
    /// The others, as they were written.
    pub refused: Vec<Refusal>,
}

/// A host name that a VirtualCluster does not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// As it was written.
    pub host: String,
    /// Why.
    pub why: Why,
}

/// Why a VirtualCluster does not get a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It can be no SNI name.
    Invalid,
    /// It is not for tenants, or for one only.
    Reserved(For),
    /// The policy of the configuration does not list it.
    NotAllowed,
    /// An older VirtualCluster asks for it too.
    Taken(TenantId),
}

impl Age {
    /// Of a VirtualCluster. Without a creation time it is the youngest of all.
    pub fn new(created: Option<&str>, uid: &str, id: &TenantId) -> Self {
        let created = created.and_then(|text| text.parse::<Timestamp>().ok()).map_or(i64::MAX, Timestamp::as_second);
        Self { created, uid: uid.to_owned(), id: id.clone() }
    }

    /// Of a VirtualCluster object; `None` when its names are impossible ones.
    pub fn of(object: &Value) -> Option<Self> {
        let metadata = &object["metadata"];
        let uid = metadata["uid"].as_str().unwrap_or_default();
        Some(Self::new(metadata["creationTimestamp"].as_str(), uid, &TenantId::of(object)?))
    }

    /// uid.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Namespace and name.
    pub fn id(&self) -> &TenantId {
        &self.id
    }
}

impl Claims {
    /// Takes in a VirtualCluster as the API server shows it; whether that changed anything. It is read as loosely as
    /// possible: one that is too broken to be served keeps its names all the same.
    pub fn apply(&mut self, object: &Value) -> bool {
        let Some(age) = Age::of(object) else { return false };
        if !object["metadata"]["deletionTimestamp"].is_null() {
            return self.remove(&age.id);
        }
        let hosts = object["spec"]["expose"]["hosts"].as_array().into_iter().flatten();
        let hosts = hosts.filter_map(Value::as_str).take(MAX_HOSTS).map(str::to_owned).collect();
        let port = object["status"]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let claim = Claim { hosts, port, age };
        if self.by_id.get(&claim.age.id) == Some(&claim) {
            return false;
        }
        self.by_id.insert(claim.age.id.clone(), claim);
        true
    }

    /// The VirtualCluster is gone; whether it was there.
    pub fn remove(&mut self, id: &TenantId) -> bool {
        self.by_id.remove(id).is_some()
    }

    /// Takes in a whole list: what is not in it is gone. Whether that changed anything.
    pub fn replace(&mut self, objects: &[Value]) -> bool {
        let there: BTreeSet<TenantId> = objects.iter().filter_map(TenantId::of).collect();
        let before = self.by_id.len();
        self.by_id.retain(|id, _| there.contains(id));
        let mut changed = self.by_id.len() != before;
        for object in objects {
            changed |= self.apply(object);
        }
        changed
    }

    /// Who has what. Depends on nothing but the claims and the rules.
    pub fn owners(&self, reserved: &Arc<Reserved>) -> Owners {
        let mut claims: Vec<&Claim> = self.by_id.values().collect();
        claims.sort_by(|a, b| a.age.cmp(&b.age));
        let mut hosts = HashMap::with_capacity(claims.len());
        for id in self.by_id.keys() {
            // Its very own: labels hold no dots, so no two tenants have one name. Only the admin comes before.
            if let Some(host) = reserved.default_host(id).filter(|host| reserved.host(host) != Some(For::Shared)) {
                hosts.insert(host, id.clone());
            }
        }
        for claim in &claims {
            for host in claim.hosts.iter().filter_map(|host| normal(host)) {
                if reserved.host(&host).is_none() && reserved.is_allowed(&claim.age.id, &host) {
                    hosts.entry(host).or_insert_with(|| claim.age.id.clone());
                }
            }
        }
        let ports = port_owners(reserved, claims.iter().filter_map(|claim| Some((&claim.age, claim.port?))));
        Owners { reserved: Arc::clone(reserved), all: self.by_id.keys().cloned().collect(), hosts, ports }
    }

    /// Those for whom names are decided otherwise than before, and those who lost their port.
    pub fn affected(&self, before: &Owners, now: &Owners) -> Vec<TenantId> {
        let is_affected = |claim: &&Claim| {
            let (id, hosts) = (&claim.age.id, &claim.hosts);
            let has_port = |owners: &Owners| claim.port.is_some_and(|port| owners.port(port) == Some(id));
            before.judge(id, hosts) != now.judge(id, hosts) || (has_port(before) && !has_port(now))
        };
        self.by_id.values().filter(is_affected).map(|claim| claim.age.id.clone()).collect()
    }
}

/// Who has which port. A claim is for two: the API's and, next to it, the one of DNS; it counts only when no older one
/// overlaps it.
pub fn port_owners<'a>(
    reserved: &Reserved,
    claims: impl IntoIterator<Item = (&'a Age, u16)>,
) -> HashMap<u16, TenantId> {
    let mut claims: Vec<(&Age, u16)> = claims.into_iter().collect();
    claims.sort();
    let mut taken = BTreeSet::new();
    let mut owners = HashMap::with_capacity(claims.len());
    for (age, port) in claims {
        let Some(next) = port.checked_add(1) else { continue };
        if [port, next].iter().any(|port| reserved.is_port(*port) || taken.contains(port)) {
            continue;
        }
        taken.extend([port, next]);
        owners.insert(port, age.id.clone());
    }
    owners
}

impl Owners {
    /// Whether there is such a VirtualCluster, whatever it has.
    pub fn has(&self, id: &TenantId) -> bool {
        self.all.contains(id)
    }

    /// Who has a host name, in any spelling.
    pub fn host(&self, host: &str) -> Option<&TenantId> {
        self.hosts.get(&normal(host)?)
    }

    /// Whose port it is.
    pub fn port(&self, port: u16) -> Option<&TenantId> {
        self.ports.get(&port)
    }

    /// What becomes of the names that a VirtualCluster asks for in `spec.expose.hosts`. Its default name is spoken of
    /// only when it is the shared listener's.
    pub fn judge(&self, id: &TenantId, hosts: &[String]) -> Verdict {
        let mut verdict = Verdict::default();
        let default = self.reserved.default_host(id);
        if let Some(host) = default.as_ref().filter(|host| self.reserved.host(host) == Some(For::Shared)) {
            verdict.refused.push(Refusal { host: host.clone(), why: Why::Reserved(For::Shared) });
        }
        for written in hosts.iter().take(MAX_HOSTS) {
            match self.judge_one(id, written) {
                Ok(host) if !verdict.accepted.contains(&host) => verdict.accepted.push(host),
                Ok(_) => {}
                Err(why) => verdict.refused.push(Refusal { host: written.clone(), why }),
            }
        }
        verdict
    }

    fn judge_one(&self, id: &TenantId, written: &str) -> Result<String, Why> {
        let host = normal(written).ok_or(Why::Invalid)?;
        match (self.hosts.get(&host), self.reserved.host(&host)) {
            (Some(holder), _) if holder == id => Ok(host),
            (_, Some(reserved)) => Err(Why::Reserved(reserved)),
            (_, None) if !self.reserved.is_allowed(id, &host) => Err(Why::NotAllowed),
            (Some(holder), None) => Err(Why::Taken(holder.clone())),
            // Not seen among the claims yet: it counts from when it is.
            (None, None) => Ok(host),
        }
    }
}

impl Verdict {
    /// One word for a condition: why the first of the refused is.
    pub fn reason(&self) -> &'static str {
        match self.refused.first().map(|refusal| &refusal.why) {
            None => "Accepted",
            Some(Why::Invalid) => "Invalid",
            Some(Why::Reserved(_)) => "Reserved",
            Some(Why::NotAllowed) => "NotAllowed",
            Some(Why::Taken(_)) => "Taken",
        }
    }

    /// One sentence for each refused name.
    pub fn message(&self) -> String {
        self.refused.iter().map(Refusal::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        match &self.why {
            Why::Invalid => {
                write!(f, "{host:?} cannot be a TLS server name (letters beyond ASCII: write their xn-- form)")
            }
            Why::NotAllowed => {
                write!(f, "{host} is not one of the names that `policy.exposeDomains` of the configuration allows")
            }
            Why::Taken(holder) => write!(f, "{host} belongs to {holder}, which is older"),
            Why::Reserved(For::DefaultOf(holder)) => write!(f, "{host} is reserved for {holder}"),
            Why::Reserved(For::Shared) => write!(f, "{host} is reserved for the shared listener"),
            Why::Reserved(For::BaseDomain(base)) => {
                write!(f, "{host} is reserved: below {base} there are only names of the form NAME.NAMESPACE.{base}")
            }
            Why::Reserved(For::InCluster) => {
                write!(f, "{host} is reserved: inside of clusters it means something else")
            }
        }
    }
}

#[cfg(test)]
mod tests;
