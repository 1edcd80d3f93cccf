//! The tokens that are shown at one tenant: what its keys say of them, and what its API server said a moment ago.
//!
//! Promises: what is judged here is remembered for five minutes at most, so that nobody's keys are computed with per request;
//! forged tokens cost so much of the processor in a second and no more, whoever shows them; one that the API server refuses
//! though it is signed and in time has nothing of the tenant's for some seconds. This is about resources, never about
//! rights: each request is judged again by the API server. Must not know requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;

use super::buffer::Share;
use super::identity::{Bearer, Fault, Judgement, Keys, LONGEST_DOCUMENT, Token};
use super::known::{Recent, TokenDigest};
pub(super) use super::published::Asked;
use super::published::{DEADLINE, Held, Published};
use crate::error::Result;
use crate::runtime::answers::{Answers, Terms};
use crate::runtime::clock::Clock;
use crate::runtime::pace::Pace;
use crate::runtime::telemetry::Families;
use crate::tenant::Tenant;

/// That the API server accepted a token is believed for one to two of these: it keeps its own judgements for ten seconds.
const SAID: Duration = Duration::from_secs(5);
/// What its keys say of one, likewise, and never beyond the token's own time.
const SIGNED: Duration = Duration::from_secs(150);
/// Tokens of a tenant that are judged in a second, each some hundred microseconds: two per cent of a core.
const A_SECOND: u32 = 200;
/// Of all tenants together: a fifth of a core.
const ALL_A_SECOND: u32 = 2000;
/// How often keys are asked for at most.
const PAUSE: Duration = Duration::from_secs(10);
const CONFIGURATION: &str = "/.well-known/openid-configuration";
const SET: &str = "/openid/v1/jwks";
/// An API server refuses to show the set as anything else (406), `application/json` included.
const KEY_SET: &str = "application/jwk-set+json";
/// Keys are asked for anew when they are older and somebody shows a token.
const OLD: Duration = Duration::from_secs(300);

/// What the API server says of a token by which something is open is its answer for whatever else is open by it.
const SAID_AGAIN: Duration = Duration::from_secs(30);
/// Tokens of which that is kept.
const MOST_AGAIN: usize = 1024;

/// What a token is taken for.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Signed by the API server, and in time.
    Known(Arc<Bearer>),
    /// The same, but the API server has just refused it.
    Refused(Arc<Bearer>),
    /// The API server does not accept it.
    False(Fault),
    /// The API server's to judge, whenever it comes.
    Foreign,
    /// The API server's to judge this time.
    Unjudged,
    /// To be judged when the keys are there.
    Awaits(Asked),
}

/// Of one tenant.
#[derive(Debug)]
pub(super) struct Tokens {
    published: Published,
    pace: Pace,
    signed: Recent<Signed>,
    /// By the API server; whether there is nothing to judge here.
    accepted: Recent<bool>,
    /// By the API server, though they are signed and in time.
    refused: Recent<()>,
    /// Whether it takes back those by which something is open.
    pub(super) taken_back: Answers<TokenDigest, bool>,
    judged: [AtomicU64; OUTCOMES.len()],
}

/// A token that somebody shows.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) tenant: &'a Arc<Tenant>,
    pub(super) digest: &'a TokenDigest,
    /// `Authorization`, as it goes to the backend.
    pub(super) value: &'a HeaderValue,
    /// What the keys are drawn on while they are read.
    pub(super) buffers: &'a Arc<Share>,
    /// How often tokens of all tenants are judged.
    pub(super) of_all: &'a Pace,
    pub(super) clock: &'a Clock,
}

#[derive(Debug, Clone)]
struct Signed {
    bearer: Arc<Bearer>,
    /// Of the keys.
    version: u64,
}

const TRUE: &str = "true";
const FOREIGN: &str = "foreign";
const NO_KEYS: &str = "no-keys";
const TOO_MANY: &str = "too-many";
const TAKEN_BACK: &str = "taken-back";
const OUTCOMES: [&str; Fault::WORDS.len() + 5] = {
    let [a, b, c, d, e, f] = Fault::WORDS;
    [a, b, c, d, e, f, TRUE, FOREIGN, NO_KEYS, TOO_MANY, TAKEN_BACK]
};

impl Default for Tokens {
    fn default() -> Self {
        Self {
            published: Published::default(),
            pace: Pace::default(),
            signed: Recent::new(SIGNED),
            accepted: Recent::new(SAID),
            // As long as its signature is believed; a proof of the opposite ends it at once.
            refused: Recent::new(SIGNED),
            taken_back: Answers::new(Terms::new("token asked again", SAID_AGAIN, MOST_AGAIN)),
            judged: Default::default(),
        }
    }
}

impl Shown<'_> {
    fn ask(&self, published: &Published) -> Option<Asked> {
        let (tenant, buffers) = (Arc::clone(self.tenant), Arc::clone(self.buffers));
        published.ask(PAUSE, self.clock, || (tenant.generation, read(tenant, buffers)))
    }
}

impl Tokens {
    /// What to take a token for now.
    pub(super) fn judge(&self, shown: &Shown<'_>) -> Verdict {
        let (now, digest) = (shown.clock.instant(), shown.digest);
        if let Some((signed, is_fresh)) = self.signed.get(digest, now)
            && signed.version == self.published.version()
        {
            if !is_fresh {
                // By the same keys it is as true as before; who has just been seen is not put among those who are judged anew.
                self.signed.insert(*digest, signed.clone(), now);
                self.look_at_keys(shown);
            }
            return self.of_signed(signed.bearer, shown);
        }
        let text = shown.value.to_str().ok().and_then(|value| value.split_once(' ')).map(|(_, token)| token);
        let Some(text) = text.filter(|text| Token::is_one(text)) else { return Verdict::Foreign };
        if self.accepted.get(digest, now).is_some_and(|(is_foreign, _)| is_foreign) {
            return Verdict::Foreign;
        }
        let passes = |pace: &Pace, most| pace.pass(most, most, now).is_ok();
        if !passes(&self.pace, A_SECOND) || !passes(shown.of_all, ALL_A_SECOND) {
            self.count(TOO_MANY);
            return Verdict::Unjudged;
        }
        let verdict = Token::read(text).map_or(Verdict::Foreign, |token| self.by_keys(token, shown));
        match &verdict {
            Verdict::False(fault) => self.count(fault.word()),
            Verdict::Foreign => self.count(FOREIGN),
            Verdict::Unjudged => self.count(NO_KEYS),
            Verdict::Known(_) | Verdict::Refused(_) => self.count(TRUE),
            Verdict::Awaits(_) => {}
        }
        verdict
    }

    /// Whether it was judged here, or by the API server, a moment ago.
    pub(super) fn knows(&self, token: &TokenDigest, clock: &Clock) -> bool {
        let now = clock.instant();
        self.signed.has(token, now) || self.accepted.has(token, now)
    }

    /// Whether the API server has just accepted it, and whether that need not be noted again.
    pub(super) fn accepted(&self, token: &TokenDigest, clock: &Clock) -> Option<bool> {
        self.accepted.get(token, clock.instant()).map(|(_, is_fresh)| is_fresh)
    }

    /// Notes that the API server has just accepted it.
    pub(super) fn accept(&self, token: TokenDigest, is_foreign: bool, clock: &Clock) {
        self.refused.forget(&token);
        self.accepted.insert(token, is_foreign, clock.instant());
    }

    /// Notes that the API server has just refused it.
    pub(super) fn refuse(&self, token: TokenDigest, is_signed: bool, clock: &Clock) {
        self.accepted.forget(&token);
        if is_signed {
            self.count(TAKEN_BACK);
            self.refused.insert(token, (), clock.instant());
        }
    }

    /// Shows what was judged.
    pub(super) fn collect(&self, families: &mut Families, tenant: &[(&'static str, &str)]) {
        for (outcome, counter) in OUTCOMES.iter().zip(&self.judged) {
            let count = counter.load(Ordering::Relaxed);
            if count > 0 {
                families.counter(
                    "portico_gateway_tokens_judged_total",
                    "Tokens that were judged by the keys of their virtual cluster, or could not be; `taken-back`: good by its \
                     keys, and refused by its API server.",
                    &[tenant, &[("outcome", outcome)]].concat(),
                    count,
                );
            }
        }
        for (outcome, count) in self.published.counts() {
            families.counter(
                "portico_gateway_token_keys_total",
                "How often an API server was asked for the keys of its tokens.",
                &[tenant, &[("outcome", outcome)]].concat(),
                count,
            );
        }
    }

    /// One of each, for the page about metrics.
    #[cfg(test)]
    pub(super) fn count_all(&self) {
        OUTCOMES.iter().for_each(|outcome| self.count(outcome));
    }

    fn by_keys(&self, token: Token<'_>, shown: &Shown<'_>) -> Verdict {
        let is_of_account = token.is_of_account();
        let Some(held) = self.published.held() else {
            return if is_of_account { self.awaits(shown) } else { Verdict::Foreign };
        };
        let is_of_before = held.generation < shown.tenant.generation;
        let age = shown.clock.instant().saturating_duration_since(held.since);
        let is_old = is_of_before || age > OLD;
        match held.keys.judge(token, shown.tenant.audiences, shown.clock.now()) {
            Judgement::True(bearer) => {
                self.look_at_keys(shown);
                let bearer = Arc::new(bearer);
                let signed = Signed { bearer: Arc::clone(&bearer), version: held.version };
                self.signed.insert(*shown.digest, signed, shown.clock.instant());
                self.of_signed(bearer, shown)
            }
            // Other keys may have come under the same names.
            Judgement::False(Fault::Signature | Fault::Algorithm) if is_old => self.awaits(shown),
            Judgement::False(fault) => Verdict::False(fault),
            Judgement::Foreign => {
                if is_of_account {
                    // Its issuer may be another one by now.
                    self.look_at_keys(shown);
                }
                Verdict::Foreign
            }
            // Of an API server that is not ours it is not known that it publishes all of its keys.
            Judgement::UnknownKey if shown.tenant.audiences.is_some() && !is_of_before && age < PAUSE => {
                Verdict::False(Fault::Key)
            }
            Judgement::UnknownKey => self.awaits(shown),
        }
    }

    /// Has keys asked for that are old, for those who come later.
    fn look_at_keys(&self, shown: &Shown<'_>) {
        let now = shown.clock.instant();
        let is_old =
            |held: &Held| held.generation < shown.tenant.generation || now.saturating_duration_since(held.since) > OLD;
        if self.published.held().is_some_and(|held| is_old(&held)) {
            drop(shown.ask(&self.published));
        }
    }

    fn awaits(&self, shown: &Shown<'_>) -> Verdict {
        shown.ask(&self.published).map_or(Verdict::Unjudged, Verdict::Awaits)
    }

    fn of_signed(&self, bearer: Arc<Bearer>, shown: &Shown<'_>) -> Verdict {
        if bearer.is_over(shown.clock.now()) {
            self.count(Fault::Expired.word());
            return Verdict::False(Fault::Expired);
        }
        match self.refused.has(shown.digest, shown.clock.instant()) {
            true => Verdict::Refused(bearer),
            false => Verdict::Known(bearer),
        }
    }

    fn count(&self, outcome: &str) {
        let at = OUTCOMES.iter().position(|one| *one == outcome);
        if let Some(counter) = at.and_then(|at| self.judged.get(at)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn read(tenant: Arc<Tenant>, buffers: Arc<Share>) -> Result<Keys> {
    let _drawn = buffers.draw(2 * LONGEST_DOCUMENT)?;
    let configuration = tenant.api.get_bounded(CONFIGURATION, DEADLINE, LONGEST_DOCUMENT).await?;
    let set = tenant.api.get_as(SET, KEY_SET, DEADLINE, LONGEST_DOCUMENT).await?;
    Keys::read(&configuration, &set)
}

#[cfg(test)]
mod tests;
