use super::*;
use crate::config::audit::AuditFile;

fn config(when_full: WhenFull) -> AuditConfig {
    let file = AuditFile { path: "/x".to_owned(), ..AuditFile::default() };
    AuditConfig {
        when_full,
        file,
        max_queued_bytes: 1 << 20,
        max_events_per_second_per_tenant: 1000,
        ..AuditConfig::default()
    }
}

fn trail(when_full: WhenFull) -> Arc<Trail> {
    Trail::new(&config(when_full)).expect("a trail")
}

fn counted(tab: &Tab) -> String {
    let mut families = crate::runtime::telemetry::Families::default();
    tab.collect(&mut families, &[("cluster", "x")]);
    format!("{families:?}")
}

fn add(trail: &Trail, tab: &Arc<Tab>, bytes: usize, now: Instant) {
    trail.add(tab, vec![b'x'; bytes], None, (true, false), now);
}

fn all(trail: &Trail) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        let taken = trail.take(Duration::ZERO);
        if taken.events.is_empty() {
            return all;
        }
        trail.done(&taken.events);
        all.extend(taken.events);
    }
}

#[test]
fn a_flood_has_a_quarter_of_what_waits_and_others_have_theirs() {
    let (trail, now) = (trail(WhenFull::Drop), Instant::now());
    let floods: Vec<Arc<Tab>> = (0..20).map(|_| Arc::default()).collect();
    for flood in &floods {
        for _ in 0..500 {
            add(&trail, flood, 4096, now);
        }
    }
    let quiet: Arc<Tab> = Arc::default();
    add(&trail, &quiet, 4096, now);
    assert!(trail.waiting() <= 2 << 20, "{}", trail.waiting());
    let events = all(&trail);
    let of = |tab: &Arc<Tab>| events.iter().filter(|event| Arc::ptr_eq(&event.tab, tab)).count();
    assert_eq!(of(&floods[0]), (1 << 20) / 4 / 4096, "the first had room for its quarter");
    assert_eq!(of(&quiet), 1, "and none of them keeps another out");
    assert!(floods.iter().all(|flood| of(flood) >= 3), "each has an even part");
    assert_eq!(trail.waiting(), 0);
    assert!(counted(&floods[0]).contains("436"), "what is lost is counted: {}", counted(&floods[0]));
}

#[test]
fn more_than_so_many_a_second_are_lost_and_counted() {
    let (trail, now, tab) = (trail(WhenFull::Drop), Instant::now(), Arc::default());
    for _ in 0..11_000 {
        add(&trail, &tab, 10, now);
    }
    assert_eq!(all(&trail).len(), 10_000);
    add(&trail, &tab, 10, now + Duration::from_millis(5));
    assert_eq!(all(&trail).len(), 1, "and later some more");
}

#[test]
fn where_requests_wait_each_has_its_place() {
    let (trail, now, tab) = (trail(WhenFull::Block), Instant::now(), Arc::<Tab>::default());
    let mut places: Vec<_> = std::iter::from_fn(|| trail.promise(&tab, true, now).ok().flatten()).collect();
    assert_eq!(places.len(), (1 << 20) / 4 / MOST_BYTES);
    assert_eq!(trail.promise(&tab, true, now).expect_err("no place"), Full::Own);
    let others: Vec<Arc<Tab>> = (0..16).map(|_| Arc::default()).collect();
    let taken: Vec<_> =
        others.iter().flat_map(|tab| (0..32).map_while(|_| trail.promise(tab, true, now).ok())).collect();
    let (late, mut its) = (Arc::default(), Vec::new());
    let full = loop {
        match trail.promise(&late, true, now) {
            Ok(place) => its.push(place),
            Err(full) => break full,
        }
    };
    assert_eq!((full, its.len()), (Full::All, 1), "who comes when all is full has an even part");
    trail.add(&tab, vec![b'x'; MOST_BYTES], places.pop(), (true, false), now);
    assert_eq!(all(&trail).len(), 1, "who has a place loses nothing, however full it is");
    drop((taken, its, places));
    assert_eq!(trail.waiting(), 0);
    assert!(trail.promise(&tab, true, now).expect("room again").is_some());
    assert!(self::trail(WhenFull::Drop).promise(&tab, true, now).expect("nobody waits").is_none());
}

#[test]
fn who_has_too_much_on_a_crowded_disk_waits_or_loses() {
    for when_full in [WhenFull::Drop, WhenFull::Block] {
        let (trail, now, tab) = (trail(when_full), Instant::now(), Arc::<Tab>::default());
        tab.spooled(512 << 20);
        assert!(trail.promise(&tab, true, now).is_ok(), "as long as there is room");
        trail.crowded(true);
        assert_eq!(trail.promise(&tab, true, now).is_err(), when_full == WhenFull::Block);
        add(&trail, &tab, 10, now);
        assert!(all(&trail).is_empty());
        add(&trail, &Arc::default(), 10, now);
        assert_eq!(all(&trail).len(), 1, "another does not");
        tab.sent(512 << 20);
        add(&trail, &tab, 10, now);
        assert_eq!(all(&trail).len(), 1);
    }
}

#[test]
fn a_closed_trail_says_what_is_the_last_of_it() {
    let (trail, now, tab) = (trail(WhenFull::Drop), Instant::now(), Arc::default());
    for _ in 0..300 {
        add(&trail, &tab, 10, now);
    }
    trail.close();
    add(&trail, &tab, 10, now);
    let (first, second) = (trail.take(Duration::ZERO), trail.take(Duration::ZERO));
    assert!(!first.is_last && second.is_last);
    assert_eq!(first.events.len() + second.events.len(), 300);
}
