//! Tokens of the issuers that a virtual cluster accepts beside its own: judged here alone, and asserted to its API server.
//!
//! Promises: nobody is somebody by a token that an issuer of this very tenant has not signed, for it and in time; what was judged is
//! remembered for five minutes at most, within a bound of bytes, and holds only while its issuer's entry is the same; who is in use is not judged
//! again by the same keys, so nobody's rubbish makes him a stranger; judging takes one of the strangers' places. Keys that have not been read
//! again for an hour count no more. Must not know how keys are read, or what is asked by whoever is known.

mod fetch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::identity::{Identity, Signed, Token};
use super::known::{Recent, TokenDigest};
use super::published::{Asked, Held, Published};
use super::turns::Turns;
use crate::error::Result;
use crate::issuers::{Claims, Issuer, Issuers, Refusal, User};
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::runtime::pace::Pace;
use crate::runtime::telemetry::Families;
use crate::upstream::reach::Closed;

/// A verdict is believed for one to two of these, by the same keys and entry.
const BELIEVED: Duration = Duration::from_secs(150);
/// Bytes of users that are remembered, in each of two periods.
const MOST_BYTES: usize = 512 << 10;
/// What a remembered user takes beside his names.
const BESIDE: usize = 256;
/// Tokens of a tenant that are judged in a second, and of all: as many as of ServiceAccounts.
const A_SECOND: u32 = 200;
const ALL_A_SECOND: u32 = 2000;
/// Keys are read again for those who come later when they are older.
const OLD: Duration = Duration::from_secs(300);
/// Keys that were not read again for so long are none.
const STALE: Duration = Duration::from_secs(3600);

/// Of one tenant.
#[derive(Debug)]
pub(super) struct Jwts {
    /// Keys of each issuer that somebody showed a token of.
    keys: Mutex<Vec<(Arc<Issuer>, Arc<Published>)>>,
    /// Of all these keys, and of those before them: none is ever meant for another.
    versions: Arc<AtomicU64>,
    known: Recent<Arc<Bearer>>,
    pace: Pace,
    judged: [AtomicU64; OUTCOMES.len()],
    read: [AtomicU64; 2],
}

/// Somebody who is known by a token of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// Who he is.
    pub identity: Identity,
    /// By whose entry.
    issuer: Arc<Issuer>,
    ends: i64,
    /// Of the keys.
    version: u64,
}

/// Why a token of an issuer is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Of what it says.
    Claims(Refusal),
    /// It is not signed with the issuer's key of that name, or by an algorithm that key does not have.
    Signature,
    /// The issuer has no such key.
    Key,
    /// It is not written as one.
    Form,
    /// The issuer's keys cannot be read, and those that were are too old.
    NoKeys,
}

/// What a token is.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Its bearer is known.
    Known(Arc<Bearer>),
    /// An issuer's, and false.
    False(Fault),
    /// An issuer's, and it cannot be judged now: too many are.
    TooMany,
}

/// A token that says that it is of one of the tenant's issuers; nothing of it is proven.
pub(super) struct Read<'a> {
    text: &'a str,
    claims: Claims,
    issuer: &'a Arc<Issuer>,
}

/// Where and when somebody shows one.
pub(super) struct Shown<'a> {
    pub(super) tenant: &'a TenantId,
    pub(super) issuers: &'a Issuers,
    pub(super) digest: &'a TokenDigest,
    pub(super) of_all: &'a Pace,
    pub(super) turns: &'a Turns,
    /// Where no issuer is asked.
    pub(super) closed: &'a Closed,
    pub(super) clock: &'a Clock,
}

const OUTCOMES: [&str; Refusal::WORDS.len() + 6] = {
    let [a, b, c, d, e, f, g] = Refusal::WORDS;
    [a, b, c, d, e, f, g, "true", "signature", "key", "form", "no-keys", "too-many"]
};

impl Default for Jwts {
    fn default() -> Self {
        Self {
            keys: Mutex::default(),
            versions: Arc::default(),
            known: Recent::within(BELIEVED, MOST_BYTES),
            pace: Pace::default(),
            judged: Default::default(),
            read: Default::default(),
        }
    }
}

impl Jwts {
    /// Whose a token is that was judged a moment ago.
    pub(super) fn known(&self, shown: &Shown<'_>) -> Option<Arc<Bearer>> {
        let (now, digest) = (shown.clock.instant(), shown.digest);
        let (bearer, is_fresh) = self.known.get(digest, now)?;
        if !bearer.holds(shown.issuers, shown.clock.now()) {
            self.known.forget(digest);
            return None;
        }
        let published = self.published_of(&bearer.issuer)?;
        let held = fresh(&published, now)?;
        if held.version != bearer.version {
            return None;
        }
        if !is_fresh {
            self.known.insert_of(*digest, Arc::clone(&bearer), bearer.weight(), now);
            // Also where nobody comes who is judged anew: a key that was withdrawn ends by this.
            look_again(&published, &held, &bearer.issuer, shown);
        }
        Some(bearer)
    }

    /// Judges one. Waits for keys, some seconds at most.
    pub(super) async fn judge(&self, read: &Read<'_>, shown: &Shown<'_>) -> Verdict {
        let now = shown.clock.instant();
        let passes = |pace: &Pace, most| pace.pass(most, most, now).is_ok();
        if !passes(&self.pace, A_SECOND) || !passes(shown.of_all, ALL_A_SECOND) {
            self.count("too-many");
            return Verdict::TooMany;
        }
        let outcome = self.bearer(read, shown).await;
        self.count(outcome.as_ref().map_or_else(|fault| fault.word(), |_| "true"));
        match outcome {
            Ok(bearer) => {
                let bearer = Arc::new(bearer);
                self.known.insert_of(*shown.digest, Arc::clone(&bearer), bearer.weight(), shown.clock.instant());
                Verdict::Known(bearer)
            }
            Err(fault) => Verdict::False(fault),
        }
    }

    /// Shows what was judged.
    pub(super) fn collect(&self, families: &mut Families, tenant: &[(&'static str, &str)]) {
        for (outcome, counter) in OUTCOMES.iter().zip(&self.judged) {
            let count = counter.load(Ordering::Relaxed);
            if count > 0 {
                families.counter(
                    "portico_gateway_jwt_judged_total",
                    "Tokens of the issuers of spec.auth.jwt that were judged, each once in some minutes.",
                    &[tenant, &[("outcome", outcome)]].concat(),
                    count,
                );
            }
        }
        let mut counts = self.read.each_ref().map(|count| count.load(Ordering::Relaxed));
        for (_, published) in &*self.keys.lock() {
            let of_one = published.counts().map(|(_, count)| count);
            counts.iter_mut().zip(of_one).for_each(|(sum, count)| *sum += count);
        }
        for (outcome, count) in ["read", "failed"].into_iter().zip(counts).filter(|(_, count)| *count > 0) {
            families.counter(
                "portico_gateway_jwt_keys_total",
                "How often issuers of spec.auth.jwt were asked for their keys.",
                &[tenant, &[("outcome", outcome)]].concat(),
                count,
            );
        }
    }

    /// One of each, for the page about metrics.
    #[cfg(test)]
    pub(super) fn count_all(&self) {
        OUTCOMES.iter().for_each(|outcome| self.count(outcome));
        self.read.iter().for_each(|count| _ = count.fetch_add(1, Ordering::Relaxed));
    }

    async fn bearer(&self, read: &Read<'_>, shown: &Shown<'_>) -> Result<Bearer, Fault> {
        let Read { text, claims, issuer } = read;
        let token = Token::read(text).ok_or(Fault::Form)?;
        let published = self.published(issuer, shown.issuers);
        let version = self.signed(&token, issuer, &published, shown).await?;
        let user = issuer.user(claims, shown.clock.now().as_second()).map_err(Fault::Claims)?;
        let (ends, identity) = (user.ends, identity(user));
        // What cannot be said to an API server is nobody.
        if identity.front_proxy_headers().is_err() {
            return Err(Fault::Claims(Refusal::Username));
        }
        Ok(Bearer { identity, issuer: Arc::clone(issuer), ends, version })
    }

    /// By which keys it is signed. Keys that are missing, or by which it is not, are asked for once.
    async fn signed(
        &self,
        token: &Token<'_>,
        issuer: &Arc<Issuer>,
        published: &Arc<Published>,
        shown: &Shown<'_>,
    ) -> Result<u64, Fault> {
        let mut has_asked = false;
        loop {
            let now = shown.clock.instant();
            let fault = match fresh(published, now) {
                Some(held) => match held.keys.signed(token) {
                    Signed::Yes => {
                        look_again(published, &held, issuer, shown);
                        return Ok(held.version);
                    }
                    Signed::No => Fault::Signature,
                    Signed::UnknownKey => Fault::Key,
                },
                None => Fault::NoKeys,
            };
            // Other keys under the same name come with time only; a forged signature shall not have an issuer asked.
            let is_young = |held: Arc<Held>| now.saturating_duration_since(held.since) <= OLD;
            let is_settled = fault == Fault::Signature && fresh(published, now).is_some_and(is_young);
            if has_asked || is_settled {
                return Err(fault);
            }
            let asked = shown.ask(published, issuer).ok_or(fault)?;
            asked.answered().await;
            has_asked = true;
        }
    }

    /// The keys of this issuer, by its very entry: one that is listed anew or changed has none. Those of issuers that are no longer
    /// listed go.
    fn published(&self, issuer: &Arc<Issuer>, issuers: &Issuers) -> Arc<Published> {
        let mut keys = self.keys.lock();
        keys.retain(|(of, published)| {
            let stays = issuers.iter().any(|listed| Arc::ptr_eq(listed, of));
            if !stays {
                let counts = published.counts().map(|(_, count)| count);
                self.read.iter().zip(counts).for_each(|(sum, count)| _ = sum.fetch_add(count, Ordering::Relaxed));
            }
            stays
        });
        if let Some((_, published)) = keys.iter().find(|(of, _)| Arc::ptr_eq(of, issuer)) {
            return Arc::clone(published);
        }
        let published = Arc::new(Published::counted_by(&self.versions));
        keys.push((Arc::clone(issuer), Arc::clone(&published)));
        published
    }

    fn published_of(&self, issuer: &Arc<Issuer>) -> Option<Arc<Published>> {
        let keys = self.keys.lock();
        keys.iter().find(|(of, _)| Arc::ptr_eq(of, issuer)).map(|(_, published)| Arc::clone(published))
    }

    fn count(&self, outcome: &str) {
        let at = OUTCOMES.iter().position(|one| *one == outcome);
        if let Some(counter) = at.and_then(|at| self.judged.get(at)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<'a> Read<'a> {
    /// Of a value of `Authorization`. `None`: it is none of theirs, and others judge it.
    pub(super) fn of(value: &'a HeaderValue, issuers: &'a Issuers) -> Option<Self> {
        let (_, text) = value.to_str().ok()?.split_once(' ')?;
        let claims = claims(text)?;
        let issuer = issuers.of(claims.text("iss")?)?;
        Some(Self { text, claims, issuer })
    }
}

impl Shown<'_> {
    /// Has an issuer asked for its keys; `None`: it was asked a moment ago.
    fn ask(&self, published: &Published, issuer: &Arc<Issuer>) -> Option<Asked> {
        fetch::ask(published, issuer, self.tenant, (self.turns, self.closed), self.clock)
    }
}

impl Bearer {
    /// Whether he still is who he is: his token's time is not over, and his issuer's entry is as it was.
    pub(super) fn holds(&self, issuers: &Issuers, now: Timestamp) -> bool {
        now.as_second() <= self.ends && issuers.of(&self.issuer.url).is_some_and(|issuer| *issuer == self.issuer)
    }

    /// How long until his token's time is over.
    pub(super) fn left(&self, now: Timestamp) -> Duration {
        let end = Timestamp::from_second(self.ends.saturating_add(1)).unwrap_or(Timestamp::MAX);
        Duration::try_from(end.duration_since(now)).unwrap_or_default()
    }

    fn weight(&self) -> usize {
        let Identity { user, groups, uid, extra } = &self.identity;
        let of = |text: &String| text.len() + size_of::<String>();
        let extra: usize = extra.iter().map(|(key, values)| of(key) + values.iter().map(of).sum::<usize>()).sum();
        BESIDE + of(user) + groups.iter().map(of).sum::<usize>() + uid.as_ref().map_or(0, of) + extra
    }
}

impl Fault {
    /// For metrics.
    fn word(self) -> &'static str {
        match self {
            Self::Claims(refusal) => refusal.word(),
            Self::Signature => "signature",
            Self::Key => "key",
            Self::Form => "form",
            Self::NoKeys => "no-keys",
        }
    }

    /// For the log.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::Claims(refusal) => refusal.flag(),
            Self::Signature => "JSIG",
            Self::Key => "JKEY",
            Self::Form => "JFRM",
            Self::NoKeys => "JDWN",
        }
    }
}

/// Has keys that are old read again, for those who come later.
fn look_again(published: &Arc<Published>, held: &Held, issuer: &Arc<Issuer>, shown: &Shown<'_>) {
    if shown.clock.instant().saturating_duration_since(held.since) > OLD {
        drop(shown.ask(published, issuer));
    }
}

fn fresh(published: &Published, now: Instant) -> Option<Arc<Held>> {
    published.held().filter(|held| now.saturating_duration_since(held.since) <= STALE)
}

/// What a token says, if it has the form of one; anybody's word. Of what is too long nothing.
fn claims(text: &str) -> Option<Claims> {
    if !Token::is_one(text) {
        return None;
    }
    let part = text.split('.').nth(1)?;
    Claims::parse(&URL_SAFE_NO_PAD.decode(part).ok()?)
}

fn identity(user: User) -> Identity {
    Identity { user: user.name, groups: user.groups, uid: user.uid, extra: user.extra }
}
