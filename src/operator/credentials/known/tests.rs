use super::*;

const NOON: &str = "2026-01-01T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().expect("time")
}

/// `number` seconds after noon.
fn seen(namespace: &str, number: i64, is_answered: bool) -> Seen {
    Seen {
        namespace: namespace.to_owned(),
        name: format!("r{number}"),
        uid: format!("{namespace}-{number}"),
        version: "1".to_owned(),
        created: Timestamp::from_second(at(NOON).as_second() + number).expect("time"),
        is_answered,
        is_going: false,
    }
}

#[test]
fn a_flood_is_cut_to_the_newest_and_a_neighbours_request_is_open() {
    let mut known = Known::default();
    known.begin();
    for number in 0..5000 {
        known.put(seen("flood", number % 300 * 10 + number / 300, false), at(NOON));
    }
    known.put(seen("quiet", 1, false), at(NOON));
    assert_eq!(known.len(), MOST_KNOWN + 1);
    let now = at("2026-01-01T12:00:01Z");
    let work = known.work("flood", now).expect("work");
    assert_eq!((work.over.len(), work.open.len()), (DELETIONS, ANSWERS));
    assert_eq!(known.work("quiet", now).expect("work").open.len(), 1);
    assert_eq!(known.work("nobody", now), None);
    let mut steps = 0;
    while let Some(work) = known.work("flood", now).filter(|work| !work.over.is_empty()) {
        known.learn("flood", &Stepped { gone: work.over, ..Stepped::default() });
        steps += 1;
    }
    assert_eq!(steps, (MOST_KNOWN - MOST_KEPT).div_ceil(DELETIONS));
}

#[test]
fn what_had_no_room_is_listed_when_there_is_room_again() {
    let mut known = Known::default();
    known.begin();
    for number in 0..=MOST_KNOWN {
        known.put(seen("flood", i64::try_from(number).expect("small"), false), at(NOON));
    }
    known.put(seen("quiet", 1, false), at(NOON));
    known.remove("flood", "r0");
    assert!(!known.has_room_again(), "a list is under way");
    known.end();
    assert!(!known.has_room_again(), "one is not worth a list");
    for number in 0..MOST_KNOWN {
        known.remove("flood", &format!("r{number}"));
    }
    assert!(known.has_room_again(), "also when none is left of those that are known");
    assert_eq!(known.work("flood", at(NOON)), Some(Work::default()));
    assert_eq!(known.due("flood", at(NOON)), LIFE);
    known.begin();
    known.put(seen("flood", 1024, false), at(NOON));
    known.end();
    assert!(!known.has_room_again());
    assert_eq!(known.work("flood", at(NOON)).expect("known").open.len(), 1);
}

#[test]
fn what_is_being_deleted_takes_no_room() {
    let mut known = Known::default();
    known.put(seen("a", 0, false), at(NOON));
    let going = |number| Seen { is_going: true, ..seen("a", number, false) };
    assert!(!known.put(going(0), at(NOON)) && !known.put(going(1), at(NOON)));
    assert_eq!((known.len(), known.work("a", at(NOON))), (0, None));
    let json = br#"{"metadata":{"namespace":"a","name":"n","uid":"u","creationTimestamp":"2026-01-01T12:00:00Z",
        "deletionTimestamp":"2026-01-01T12:00:00Z"}}"#;
    assert!(Seen::read(json).expect("reads").is_going);
}

/// The operator's clock is an hour ahead of the API server's.
#[test]
fn a_clock_that_is_ahead_removes_nothing_early() {
    let (mut known, ahead) = (Known::default(), at("2026-01-01T13:00:00Z"));
    known.put(seen("a", 0, false), ahead);
    let work = known.work("a", ahead).expect("work");
    assert_eq!((work.over.len(), work.open.len()), (0, 1));
    known.learn("a", &Stepped { answered: work.open, ..Stepped::default() });
    assert_eq!(known.due("a", ahead), LIFE);
    assert_eq!(known.work("a", at("2026-01-01T13:10:00Z")).expect("known").over.len(), 1);
}

#[test]
fn what_is_answered_stays_for_some_minutes() {
    let mut known = Known::default();
    assert!(known.put(seen("a", 0, false), at(NOON)));
    assert!(!known.put(seen("a", 0, false), at(NOON)), "no news");
    let work = known.work("a", at(NOON)).expect("work");
    known.learn("a", &Stepped { answered: work.open, ..Stepped::default() });
    assert_eq!(known.work("a", at(NOON)), Some(Work::default()));
    assert!(
        !known.put(seen("a", 0, false), at(NOON)) || known.work("a", at(NOON)) == Some(Work::default()),
        "a late event"
    );
    assert_eq!(known.due("a", at(NOON)), LIFE);
    assert!(known.work("a", at("2026-01-01T12:09:59Z")).expect("known").over.is_empty());
    assert_eq!(known.work("a", at("2026-01-01T12:10:00Z")).expect("known").over.len(), 1);
    known.remove("a", "r0");
    assert_eq!(known.work("a", at(NOON)), None, "and nothing is kept of a namespace without any");
}

#[test]
fn what_waits_holds_up_nothing_behind_it() {
    let mut known = Known::default();
    for number in 0..20 {
        known.put(seen("a", number, false), at(NOON));
    }
    let names = |work: &Work| work.open.iter().map(|request| request.name.clone()).collect::<Vec<_>>();
    let first = known.work("a", at(NOON)).expect("work");
    assert_eq!(names(&first)[..2], ["r0", "r1"]);
    known.learn("a", &Stepped { waiting: first.open.clone(), ..Stepped::default() });
    let second = known.work("a", at(NOON)).expect("work");
    assert!(second.open.iter().all(|request| !first.open.contains(request)), "{second:?}");
}

#[test]
fn one_that_nobody_answered_in_time_goes_too() {
    let mut known = Known::default();
    known.put(seen("a", 0, false), at(NOON));
    let work = known.work("a", at("2026-01-01T13:00:00Z")).expect("work");
    assert_eq!((work.over.len(), work.open.len()), (1, 0));
}

#[test]
fn a_successor_of_the_same_name_is_another() {
    let mut known = Known::default();
    known.put(seen("a", 0, true), at(NOON));
    let successor = Seen { uid: "other".to_owned(), is_answered: false, ..seen("a", 0, false) };
    assert!(known.put(successor, at(NOON)));
    let work = known.work("a", at(NOON)).expect("work");
    assert_eq!(work.open[0].uid, "other");
    let old = Request { name: "r0".to_owned(), uid: "a-0".to_owned() };
    known.learn("a", &Stepped { gone: vec![old], ..Stepped::default() });
    assert_eq!(known.work("a", at(NOON)).expect("still there").open.len(), 1);
}

#[test]
fn a_list_tells_what_went_unnoticed() {
    let mut known = Known::default();
    known.begin();
    known.put(seen("a", 0, false), at(NOON));
    known.put(seen("b", 0, false), at(NOON));
    known.end();
    known.begin();
    known.put(seen("b", 0, false), at(NOON));
    known.end();
    assert_eq!(known.work("a", at(NOON)), None);
    assert!(known.work("b", at(NOON)).is_some());
}

#[test]
fn whatever_else_is_in_it_it_is_read() {
    let json =
        br#"{"metadata":{"namespace":"a","name":"n","uid":"u","creationTimestamp":"2026-01-01T12:00:00Z"},"spec":7}"#;
    assert!(!Seen::read(json).expect("reads").is_answered);
    assert!(Seen::read(br#"{"metadata":{"name":"n"}}"#).is_err());
}
