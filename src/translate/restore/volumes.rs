//! Volumes of a pod on the way back. A token comes from a Secret of Portico's on the host, under a key that tells which
//! volume and source of the virtual pod it is for; there they must be again, or the next token would get another key.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value, json};

use super::super::pod::{env, volumes};
use super::super::{View, identity, json, legacy, pod};
use super::back::{Back, is_adopted};
use super::kinds::CLAIM;
use super::origin::Pod;
use super::unknown::{UNKNOWN, is_unknown};

/// Lifetime that an API server asks for when it adds a token volume.
const EXPIRATION: u64 = 3607;

/// The Secret that a host pod mounts its tokens from, if it mounts any.
pub(super) fn token_secret(host: &Value, key: (&str, &str), view: &View) -> Option<String> {
    match identity::annotation(host, pod::TOKEN_SECRET) {
        "" => pod::token_secret_of(key, identity::recorded_uid(host), view),
        recorded => Some(recorded.to_owned()),
    }
}

/// Whether a projected volume of the pod has this Secret.
pub(super) fn mounts(host: &Value, secret: &str) -> bool {
    let sources = |volume| json::items(volume, "/projected/sources").iter();
    json::items(host, "/spec/volumes").iter().flat_map(sources).any(|s| json::text(s, "/secret/name") == secret)
}

/// The volumes that Portico made, with the tenant's tokens and fields. The answer has their places in the virtual pod, for
/// [`prune`]: a place for each volume with a token.
pub(super) fn own(
    spec: &mut Map<String, Value>,
    host: &Value,
    made: &Pod<'_>,
    back: &mut Back<'_>,
) -> Vec<Option<usize>> {
    let Some(Value::Array(volumes)) = spec.get_mut("volumes") else { return Vec::new() };
    let made = made.list("volumes");
    volumes.retain(|volume| volume.is_object() && made.has(json::text(volume, "/name")));
    let tokens = Tokens::of(host, back);
    let spec = back.names.token_spec(&tokens.secret).unwrap_or_default();
    let known = volumes::tokens_of_spec(&spec);
    let count = json::items(host, "/spec/volumes").len();
    let mut places = Vec::new();
    for volume in volumes.iter_mut().filter_map(Value::as_object_mut) {
        let name = volume.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut place = None;
        json::within(volume, "downwardAPI", |source| json::each(source, "items", env::unmap_field));
        json::within(volume, "projected", |projected| {
            let Some(Value::Array(sources)) = projected.get_mut("sources") else { return };
            for (at, source) in sources.iter_mut().enumerate() {
                if let Some((v, key, path)) = tokens.token(source, at) {
                    place = place.or((v < count).then_some(v));
                    let (audience, seconds) = known.get(key).cloned().unwrap_or_else(|| {
                        back.lose(format!(
                            "volume {name}: for whom its token is (now the API server) and for how long"
                        ));
                        (String::new(), EXPIRATION)
                    });
                    *source = token_source(path, &audience, seconds);
                } else if let Some(path) = tokens.of_vcluster(source) {
                    *source = token_source(path, "", EXPIRATION);
                    back.lose(format!("volume {name}: the token in it is worth nothing until the pod is made again"));
                } else if let Value::Object(source) = source {
                    json::within(source, "downwardAPI", |api| json::each(api, "items", env::unmap_field));
                }
            }
        });
        if is_of_template(volume, &name, back) {
            back.lose(format!("volume {name}: its claim no longer goes with the pod, if it was made for it"));
        }
        places.push(place);
    }
    places
}

/// Drops what holds a name that is not the tenant's, and puts the volumes with tokens where they were. Empty ones stand in
/// for what stood before them and is gone.
pub(super) fn prune(spec: &mut Map<String, Value>, places: &[Option<usize>], back: &mut Back<'_>) {
    let Some(Value::Array(volumes)) = spec.remove("volumes") else { return };
    let (mut placed, mut others) = (BTreeMap::new(), VecDeque::new());
    for (mut volume, place) in volumes.into_iter().zip(places.iter().copied().chain(std::iter::repeat(None))) {
        if let Value::Object(volume) = &mut volume {
            json::within(volume, "projected", prune_sources);
        }
        if is_unknown(&volume) {
            back.lose(format!("volume {} is left out", json::text(&volume, "/name")));
            continue;
        }
        match place {
            Some(place) if !placed.contains_key(&place) => drop(placed.insert(place, volume)),
            _ => others.push_back(volume),
        }
    }
    let mut out = Vec::new();
    while !placed.is_empty() || !others.is_empty() {
        let next = placed.remove(&out.len()).or_else(|| others.pop_front());
        out.push(next.unwrap_or_else(|| json!({"name": format!("left-out-{}", out.len()), "emptyDir": {}})));
    }
    if !out.is_empty() {
        spec.insert("volumes".to_owned(), Value::Array(out));
    }
}

/// A source before a token keeps its place, empty.
fn prune_sources(projected: &mut Map<String, Value>) {
    let Some(Value::Array(sources)) = projected.get_mut("sources") else { return };
    let last = sources.iter().rposition(|source| json::has(source, "/serviceAccountToken"));
    let mut at = 0;
    sources.retain_mut(|source| {
        let keeps_place = last.is_some_and(|last| at < last);
        at += 1;
        if !is_unknown(source) {
            return true;
        }
        *source = json!({"downwardAPI": {}});
        keeps_place
    });
}

/// What a projected source of a host pod is when it carries a token.
struct Tokens<'a> {
    /// Portico's Secret.
    secret: String,
    /// Secrets that vcluster put in the place of projected tokens, as `Secret/name`.
    of_vcluster: BTreeSet<&'a str>,
}

impl<'a> Tokens<'a> {
    fn of(host: &'a Value, back: &Back<'_>) -> Self {
        let secret = token_secret(host, (&back.namespace, &back.name), back.view).unwrap_or_default();
        let used = if is_adopted(host) { identity::annotation(host, legacy::ALSO_USES) } else { "" };
        Self { secret, of_vcluster: used.split(',').filter(|used| !used.is_empty()).collect() }
    }

    /// Place of its volume in the virtual pod, key in the Secret, and path.
    fn token<'s>(&self, source: &'s Value, at: usize) -> Option<(usize, &'s str, &'s str)> {
        if self.secret.is_empty() || json::text(source, "/secret/name") != self.secret {
            return None;
        }
        let [item] = json::items(source, "/secret/items") else { return None };
        let key = json::text(item, "/key");
        let (volume, _) = volumes::token_place(key).filter(|(_, source)| *source == at)?;
        Some((volume, key, json::text(item, "/path")))
    }

    fn of_vcluster<'s>(&self, source: &'s Value) -> Option<&'s str> {
        let [item] = json::items(source, "/secret/items") else { return None };
        let secret = format!("Secret/{}", json::text(source, "/secret/name"));
        let is_one = json::text(item, "/key") == "token" && self.of_vcluster.contains(secret.as_str());
        is_one.then(|| json::text(item, "/path"))
    }
}

fn token_source(path: &str, audience: &str, seconds: u64) -> Value {
    let mut token = json!({"path": path, "expirationSeconds": seconds});
    if !audience.is_empty() {
        token["audience"] = json!(audience);
    }
    json!({"serviceAccountToken": token})
}

/// Whether a volume may have had a claim template: its claim then has this very name.
fn is_of_template(volume: &Map<String, Value>, name: &str, back: &Back<'_>) -> bool {
    let claim = volume.get("persistentVolumeClaim").map_or("", |source| json::text(source, "/claimName"));
    !claim.is_empty()
        && claim != UNKNOWN
        && back.reference(CLAIM, claim).is_some_and(|own| own == format!("{}-{name}", back.name))
}
