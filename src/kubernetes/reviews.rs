//! Whose a token is and whether he may read a page, as the host cluster judges: TokenReview, then SubjectAccessReview for
//! `get` on its nonresource URL. What kube-rbac-proxy and controller-runtime ask.
//!
//! Promises: only accepted tokens are remembered, by their digest and for one page, few, and believed for seconds; so a
//! revoked one is refused soon, and a flood of invented ones forgets nobody. Where there are too many, who has the most
//! forgets one of his own. A user whom the host lets read pages without number asks for new ones at a pace. Must not know what
//! is on a page.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::client::ApiClient;
use super::resources::{SUBJECT_REVIEWS, TOKEN_REVIEWS};
use crate::error::{Error, Kind, Result};
use crate::runtime::pace::Pace;

/// How long an accepted token is not asked about again.
const BELIEVED: Duration = Duration::from_secs(10);
/// How long it is told from one that nobody ever accepted. Scrapers come once in a minute or two.
const REMEMBERED: Duration = Duration::from_secs(600);
/// A scraper with a right to all pages of some hundred virtual clusters, and others.
const MAX_REMEMBERED: usize = 1024;
/// Tokens and pages of one user that are not remembered: so many at once, and so many a second. Of three hundred virtual
/// clusters, each a page scraped twice a minute, all are let in the first time already.
const NEW_AT_ONCE: u32 = 64;
const NEW_A_SECOND: u32 = 8;
/// Users whose pace is known.
const MAX_PACED: usize = 1024;
/// For all questions about one request together.
const DEADLINE: Duration = Duration::from_secs(5);

/// The host's judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its user may.
    Allowed,
    /// The token is nobody's.
    Unknown,
    /// Its user may not.
    Forbidden,
    /// Its user asks for too many pages that are new. Whether he may is not known.
    Hasty,
}

/// Asks the host, and remembers whom it accepted.
#[derive(Debug)]
pub struct Reviews {
    host: ApiClient,
    accepted: Mutex<Accepted>,
    paces: Mutex<Paces>,
}

/// How fast each user asks for what is new, and when he last did.
#[derive(Debug, Default)]
struct Paces(HashMap<[u8; 32], (Pace, Instant)>);

/// Accepted tokens, each for one page, oldest first.
#[derive(Debug, Default)]
struct Accepted(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    /// Of token and page.
    digest: [u8; 32],
    user: [u8; 32],
    at: Instant,
}

impl Reviews {
    /// Nobody is known yet.
    pub fn new(host: ApiClient) -> Self {
        Self { host, accepted: Mutex::default(), paces: Mutex::default() }
    }

    /// Whether the bearer of this token may `get` one of these paths, asked in turn. `Err`: the host could not be asked, and
    /// has allowed none.
    pub async fn judge(&self, token: &str, paths: &[impl AsRef<str>]) -> Result<Verdict> {
        if self.youngest(token, paths).is_some_and(|age| age < BELIEVED) {
            return Ok(Verdict::Allowed);
        }
        tokio::time::timeout(DEADLINE, self.ask(token, paths))
            .await
            .map_err(|_| Error::host(Kind::Timeout, "the host's API server does not judge a token in time"))?
    }

    /// Whether this token was accepted for one of these paths not long ago. It says nothing of now.
    pub fn was_accepted(&self, token: &str, paths: &[impl AsRef<str>]) -> bool {
        self.youngest(token, paths).is_some()
    }

    fn youngest(&self, token: &str, paths: &[impl AsRef<str>]) -> Option<Duration> {
        let (mut accepted, now) = (self.accepted.lock(), Instant::now());
        paths.iter().filter_map(|path| accepted.age(&digest(token, path.as_ref()), now)).min()
    }

    async fn ask(&self, token: &str, paths: &[impl AsRef<str>]) -> Result<Verdict> {
        let (asked, is_new) = (Instant::now(), !self.was_accepted(token, paths));
        let Some(user) = self.user(token).await? else {
            let mut accepted = self.accepted.lock();
            paths.iter().for_each(|path| accepted.forget(&digest(token, path.as_ref())));
            return Ok(Verdict::Unknown);
        };
        let whose: [u8; 32] = Sha256::digest(user["username"].as_str().unwrap_or_default()).into();
        if is_new && !self.paces.lock().pass(whose, asked) {
            return Ok(Verdict::Hasty);
        }
        let mut failed = None;
        for path in paths.iter().map(AsRef::as_ref) {
            let digest = digest(token, path);
            match self.may(&user, path).await {
                Ok(true) => {
                    self.accepted.lock().insert(digest, whose, asked);
                    return Ok(Verdict::Allowed);
                }
                Ok(false) => self.accepted.lock().forget(&digest),
                // Another path may be allowed all the same.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(Verdict::Forbidden), Err)
    }

    /// Whose the token is, as the host describes him; `None`: nobody's.
    async fn user(&self, token: &str) -> Result<Option<Value>> {
        let review = json!({
            "apiVersion": TOKEN_REVIEWS.api_version(), "kind": TOKEN_REVIEWS.kind, "spec": {"token": token},
        });
        let mut answer = self.host.create(&TOKEN_REVIEWS, None, &review).await?;
        let user = answer["status"]["user"].take();
        let is_somebody = user["username"].as_str().is_some_and(|name| !name.is_empty());
        Ok(Some(user).filter(|_| is_somebody && answer["status"]["authenticated"] == true))
    }

    async fn may(&self, user: &Value, path: &str) -> Result<bool> {
        let mut spec = json!({"user": user["username"], "nonResourceAttributes": {"path": path, "verb": "get"}});
        for key in ["uid", "groups", "extra"] {
            if !user[key].is_null() {
                spec[key] = user[key].clone();
            }
        }
        let review = json!({"apiVersion": SUBJECT_REVIEWS.api_version(), "kind": SUBJECT_REVIEWS.kind, "spec": spec});
        let answer = self.host.create(&SUBJECT_REVIEWS, None, &review).await?;
        let status = &answer["status"];
        Ok(status["allowed"] == true && status["denied"] != true)
    }
}

impl Paces {
    /// Whether this user may ask for something new. Who has been quiet for the longest is forgotten first: by then he may ask for
    /// as much as anybody, unless a thousand others came within seconds.
    fn pass(&mut self, user: [u8; 32], now: Instant) -> bool {
        if !self.0.contains_key(&user) && self.0.len() >= MAX_PACED {
            let quiet = self.0.iter().min_by_key(|(_, (_, at))| *at).map(|(user, _)| *user);
            quiet.and_then(|user| self.0.remove(&user));
        }
        let (pace, at) = self.0.entry(user).or_insert_with(|| (Pace::default(), now));
        *at = now;
        pace.pass(NEW_A_SECOND, NEW_AT_ONCE, now).is_ok()
    }
}

impl Accepted {
    /// How long ago it was accepted, if that was not long ago.
    fn age(&mut self, digest: &[u8; 32], now: Instant) -> Option<Duration> {
        let age = |entry: &Entry| now.saturating_duration_since(entry.at);
        self.0.retain(|entry| age(entry) < REMEMBERED);
        self.0.iter().find(|entry| entry.digest == *digest).map(age)
    }

    fn insert(&mut self, digest: [u8; 32], user: [u8; 32], at: Instant) {
        self.forget(&digest);
        if self.0.len() >= MAX_REMEMBERED {
            self.forget_one_of_many();
        }
        self.0.push(Entry { digest, user, at });
    }

    fn forget(&mut self, digest: &[u8; 32]) {
        self.0.retain(|entry| entry.digest != *digest);
    }

    /// The oldest of whoever has the most: however many tokens and paths one has, the others stay.
    fn forget_one_of_many(&mut self) {
        let mut counts: HashMap<[u8; 32], usize> = HashMap::new();
        for entry in &self.0 {
            *counts.entry(entry.user).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(user, _)| user);
        if let Some(at) = self.0.iter().position(|entry| Some(entry.user) == most) {
            self.0.remove(at);
        }
    }
}

/// No path has a zero byte.
fn digest(token: &str, path: &str) -> [u8; 32] {
    Sha256::new_with_prefix(path).chain_update([0]).chain_update(token).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_many_tokens_and_pages_forgets_his_own() {
        let (mut accepted, began) = (Accepted::default(), Instant::now());
        let (prometheus, hostile) = ([0; 32], [1; 32]);
        accepted.insert(digest("prometheus", "/fleet/metrics"), prometheus, began);
        let page = |n: usize| digest(&format!("token-{n}"), &format!("/fleet/metrics/team/c{n}"));
        for n in 0..2 * MAX_REMEMBERED {
            accepted.insert(page(n), hostile, began);
        }
        assert_eq!(accepted.0.len(), MAX_REMEMBERED);
        assert!(accepted.age(&digest("prometheus", "/fleet/metrics"), began).is_some());
        // All but one of the places are his, and the one past them took that of his oldest.
        let oldest = 2 * MAX_REMEMBERED - (MAX_REMEMBERED - 1);
        assert!(accepted.age(&page(oldest), began).is_some() && accepted.age(&page(oldest - 1), began).is_none());
    }

    #[test]
    fn new_pages_of_one_user_come_at_a_pace_and_others_are_not_held_up() {
        let (mut paces, began) = (Paces::default(), Instant::now());
        let mut pass = |user: u8, millis: u64| paces.pass([user; 32], began + Duration::from_millis(millis));
        assert_eq!((0..1000).filter(|_| pass(1, 0)).count(), NEW_AT_ONCE as usize);
        assert!(pass(2, 0), "somebody else");
        assert_eq!((0..1000).filter(|_| pass(1, 1000)).count(), NEW_A_SECOND as usize);
        // Three hundred pages, spread over half a minute as Prometheus spreads them.
        assert_eq!((0..300).filter(|n| pass(3, n * 100)).count(), 300);
    }

    #[test]
    fn so_many_users_have_a_pace_and_the_quiet_are_forgotten() {
        let (mut paces, began) = (Paces::default(), Instant::now());
        for n in 0..2 * MAX_PACED {
            paces.pass(Sha256::digest(n.to_be_bytes()).into(), began + Duration::from_millis(n as u64));
        }
        assert_eq!(paces.0.len(), MAX_PACED);
        let of = |n: usize| <[u8; 32]>::from(Sha256::digest(n.to_be_bytes()));
        assert!(paces.0.contains_key(&of(MAX_PACED)) && !paces.0.contains_key(&of(MAX_PACED - 1)));
    }

    #[test]
    fn what_is_accepted_again_is_young_and_what_is_old_is_forgotten() {
        let (mut accepted, began) = (Accepted::default(), Instant::now());
        let (later, end) = (began + BELIEVED, began + REMEMBERED);
        accepted.insert([7; 32], [0; 32], began);
        accepted.insert([8; 32], [0; 32], began);
        accepted.insert([7; 32], [0; 32], later);
        assert_eq!(accepted.age(&[7; 32], end), Some(REMEMBERED - BELIEVED));
        assert_eq!((accepted.age(&[8; 32], end), accepted.0.len()), (None, 1));
    }
}
