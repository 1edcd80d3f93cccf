use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::gateway::buffer::Budget;
use crate::gateway::identity::Keys;
use crate::gateway::identity::signed::{Key, but, claims, documents};
use crate::gateway::known::TokenKey;
use crate::tenant::memory::Account;
use crate::tenant::testing;

const NOW: i64 = 1_800_000_000;

/// One tenant whose API server does not answer.
struct Door {
    tenant: Arc<Tenant>,
    tokens: Tokens,
    key: TokenKey,
    buffers: Arc<Share>,
    of_all: Arc<Pace>,
    clock: Clock,
}

impl Door {
    fn new() -> Self {
        let clock = Clock::going(Timestamp::from_second(NOW).expect("a time"), 1);
        let tenant = testing::tenant("alpha", 1, "a.example.com", 1);
        let buffers = Share::of(Arc::new(Budget::new(16 << 20)), Arc::<Account>::default());
        let (key, of_all) = (TokenKey::new(&clock), Arc::default());
        Self { tenant, tokens: Tokens::default(), key, buffers, of_all, clock }
    }

    fn publishes(self, keys: &[&Key]) -> Self {
        let [configuration, set] = documents(keys).map(|document| document.to_string());
        let keys = Keys::read(configuration.as_bytes(), set.as_bytes()).expect("keys");
        self.tokens.published.hold(keys, self.tenant.generation, self.clock.instant());
        self
    }

    fn digest(&self, token: &str) -> (TokenDigest, HeaderValue) {
        let value = HeaderValue::try_from(format!("Bearer {token}")).expect("a value");
        (self.key.digest(&self.tenant, &value), value)
    }

    fn judge(&self, token: &str) -> Verdict {
        let (digest, value) = self.digest(token);
        let (tenant, buffers, of_all, clock) = (&self.tenant, &self.buffers, &*self.of_all, &self.clock);
        self.tokens.judge(&Shown { tenant, digest: &digest, value: &value, buffers, of_all, clock })
    }

    fn counted(&self, outcome: &str) -> u64 {
        let at = OUTCOMES.iter().position(|one| *one == outcome).expect("an outcome");
        self.tokens.judged[at].load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_token_is_judged_once_in_some_minutes_and_never_beyond_its_time() {
    let key = Key::ec();
    let door = Door::new().publishes(&[&key]);
    let token = key.of(&claims("web", NOW));
    for _ in 0..1000 {
        let Verdict::Known(bearer) = door.judge(&token) else { panic!("known") };
        assert_eq!(bearer.user, "system:serviceaccount:default:web");
    }
    assert_eq!(door.counted(TRUE), 1);
    tokio::time::advance(2 * SIGNED).await;
    assert!(matches!(door.judge(&token), Verdict::Known(_)));
    assert_eq!(door.counted(TRUE), 2);
    let short = key.of(&but(claims("web", NOW), &json!({"exp": NOW + 300})));
    assert!(matches!(door.judge(&short), Verdict::Known(_)));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(matches!(door.judge(&short), Verdict::Known(_)), "the minute of the API server's");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(matches!(door.judge(&short), Verdict::False(Fault::Expired)), "though it is remembered");
    assert_eq!(door.counted(TRUE), 3);
}

#[tokio::test(start_paused = true)]
async fn forged_tokens_are_judged_so_often_in_a_second_and_then_they_are_strangers() {
    let (key, thief) = (Key::ec(), Key::ec());
    let (a, b) = (Door::new().publishes(&[&key]), Door::new().publishes(&[&key]));
    let good = key.of(&claims("web", NOW));
    assert!(matches!(a.judge(&good), Verdict::Known(_)));
    let forged = thief.token(&key.head(), &claims("web", NOW));
    let flood = || (0..1000).filter(|_| matches!(a.judge(&forged), Verdict::False(Fault::Signature))).count();
    assert_eq!(flood(), A_SECOND as usize - 1);
    assert!(matches!(a.judge(&forged), Verdict::Unjudged));
    assert!(matches!(a.judge(&good), Verdict::Known(_)), "what is remembered is not judged");
    assert!(matches!(b.judge(&good), Verdict::Known(_)), "at another tenant");
    assert!(matches!(a.judge("opaque"), Verdict::Foreign), "which has no part in it");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(flood(), A_SECOND as usize);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_known_stays_so_under_a_flood_though_his_verdict_ages() {
    let (key, thief) = (Key::ec(), Key::ec());
    let door = Door::new().publishes(&[&key]);
    let (good, forged) = (key.of(&claims("web", NOW)), thief.token(&key.head(), &claims("web", NOW)));
    assert!(matches!(door.judge(&good), Verdict::Known(_)));
    for _ in 0..10 {
        tokio::time::advance(SIGNED - Duration::from_secs(1)).await;
        (0..1000).for_each(|_| drop(door.judge(&forged)));
        assert!(matches!(door.judge(&forged), Verdict::Unjudged));
        assert!(matches!(door.judge(&good), Verdict::Known(_)));
    }
    assert_eq!(door.counted(TRUE), 1, "by the same keys it is as true as before");
}

#[tokio::test(start_paused = true)]
async fn tokens_of_all_tenants_together_are_judged_at_a_pace_as_well() {
    let (key, thief) = (Key::ec(), Key::ec());
    let forged = thief.token(&key.head(), &claims("web", NOW));
    let of_all = Arc::<Pace>::default();
    let doors = (0..12).map(|_| Door { of_all: Arc::clone(&of_all), ..Door::new().publishes(&[&key]) });
    let is_judged = |door: &Door| matches!(door.judge(&forged), Verdict::False(Fault::Signature));
    let judged: usize = doors.map(|door| (0..300).filter(|_| is_judged(&door)).count()).sum();
    assert_eq!(judged, ALL_A_SECOND as usize);
}

#[tokio::test(start_paused = true)]
async fn what_old_keys_do_not_know_is_false_only_when_newer_ones_do_not_either() {
    let (first, second) = (Key::ec(), Key::ec());
    let door = Door::new().publishes(&[&first]);
    let reused = second.token(&first.head(), &claims("web", NOW));
    assert!(matches!(door.judge(&reused), Verdict::False(Fault::Signature)));
    tokio::time::advance(OLD + Duration::from_secs(1)).await;
    assert!(matches!(door.judge(&reused), Verdict::Awaits(_)), "they may have been exchanged");
    let door = door.publishes(&[&first]);
    assert!(matches!(door.judge(&reused), Verdict::False(Fault::Signature)));
}

#[tokio::test(start_paused = true)]
async fn of_a_new_generation_good_tokens_do_not_wait_for_its_keys() {
    let (key, other) = (Key::ec(), Key::ec());
    let mut door = Door::new().publishes(&[&key]);
    door.tenant = testing::tenant("alpha", 2, "a.example.com", 1);
    assert!(matches!(door.judge(&key.of(&claims("web", NOW))), Verdict::Known(_)));
    assert!(matches!(door.judge(&other.of(&claims("web", NOW))), Verdict::Awaits(_)), "asked for behind it");
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_took_back_stays_so_for_some_seconds_or_until_it_says_otherwise() {
    let key = Key::ec();
    let door = Door::new().publishes(&[&key]);
    let token = key.of(&claims("web", NOW));
    let (digest, _) = door.digest(&token);
    door.tokens.accept(digest, false, &door.clock);
    door.tokens.refuse(digest, true, &door.clock);
    assert!(door.tokens.accepted(&digest, &door.clock).is_none());
    assert!(matches!(door.judge(&token), Verdict::Refused(_)));
    tokio::time::advance(SIGNED).await;
    assert!(matches!(door.judge(&token), Verdict::Refused(_)));
    tokio::time::advance(SIGNED).await;
    assert!(matches!(door.judge(&token), Verdict::Known(_)));
    door.tokens.refuse(digest, true, &door.clock);
    door.tokens.accept(digest, false, &door.clock);
    assert!(matches!(door.judge(&token), Verdict::Known(_)));
    let (opaque, _) = door.digest("opaque");
    door.tokens.refuse(opaque, false, &door.clock);
    assert_eq!(door.counted(TAKEN_BACK), 2, "nobody else's is kept");
}

#[tokio::test(start_paused = true)]
async fn other_keys_are_asked_for_at_a_pace_and_end_what_the_first_ones_signed() {
    let (first, second) = (Key::ec(), Key::ec());
    let door = Door::new().publishes(&[&first]);
    let (old, new) = (first.of(&claims("web", NOW)), second.of(&claims("web", NOW)));
    assert!(matches!(door.judge(&old), Verdict::Known(_)));
    assert!(matches!(door.judge(&new), Verdict::False(Fault::Key)), "they were read just now");
    tokio::time::advance(PAUSE).await;
    let Verdict::Awaits(asked) = door.judge(&new) else { panic!("asked") };
    assert!(matches!(door.judge(&new), Verdict::Awaits(_)), "together");
    asked.answered().await;
    assert!(matches!(door.judge(&new), Verdict::Unjudged), "nobody answered, and nobody is asked again at once");
    assert!(matches!(door.judge(&old), Verdict::Known(_)), "what is known is used on");
    let door = door.publishes(&[&second]);
    assert!(matches!(door.judge(&new), Verdict::Known(_)));
    assert!(matches!(door.judge(&old), Verdict::False(Fault::Key)));
}

#[tokio::test(start_paused = true)]
async fn of_an_api_server_whose_arguments_are_not_ours_less_is_false() {
    let (key, other) = (Key::ec(), Key::ec());
    let mut door = Door::new().publishes(&[&key]);
    door.tenant = Arc::new(Tenant { audiences: None, ..Arc::into_inner(door.tenant).expect("one") });
    let elsewhere = key.of(&but(claims("web", NOW), &json!({"aud": ["vault"]})));
    assert!(matches!(door.judge(&elsewhere), Verdict::Foreign));
    assert!(matches!(door.judge(&other.of(&claims("web", NOW))), Verdict::Awaits(_)), "it may publish not all of them");
    assert!(matches!(door.judge(&key.of(&claims("web", NOW))), Verdict::Known(_)));
    assert!(matches!(door.judge(&key.of(&claims("web", NOW - 9999))), Verdict::False(Fault::Expired)));
}

/// What is not ours to judge is read once while the API server accepts it.
#[tokio::test(start_paused = true)]
async fn tokens_of_others_cost_nothing_once_they_are_accepted() {
    let door = Door::new().publishes(&[&Key::ec()]);
    let token = Key::ec().of(&but(claims("web", NOW), &json!({"iss": "https://login.example.com", "sub": "jane"})));
    assert!(matches!(door.judge(&token), Verdict::Foreign));
    door.tokens.accept(door.digest(&token).0, true, &door.clock);
    for _ in 0..1000 {
        assert!(matches!(door.judge(&token), Verdict::Foreign));
    }
    assert_eq!((door.counted(FOREIGN), door.counted(TOO_MANY)), (1, 0));
}
