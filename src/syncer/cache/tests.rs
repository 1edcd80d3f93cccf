use super::*;
use serde_json::json;

fn entry(uid: &str, version: u64, data: &str) -> Entry {
    let mut object = json!({"metadata": {"uid": uid, "resourceVersion": version.to_string()}, "data": data});
    Entry::new(&mut object, |_| {})
}

#[test]
fn late_and_repeated_events_change_nothing() {
    let mut store = Store::default();
    assert!(store.observe("a", entry("1", 5, "x")));
    assert!(!store.observe("a", entry("1", 5, "x")));
    assert!(!store.observe("a", entry("1", 4, "old")));
    assert!(!store.observe("a", entry("1", 6, "x")), "only the version is new");
    assert!(store.observe("a", entry("1", 7, "y")));
    assert!(!store.forget(&"a", "0", 3), "the end of an earlier object of that name");
    assert!(store.forget(&"a", "1", 8));
}

#[test]
fn our_own_answer_does_not_revive_what_the_watch_saw_end() {
    let mut store = Store::default();
    store.observe("a", entry("1", 10, "x"));
    store.forget(&"a", "1", 12);
    assert!(!store.learn("a", entry("1", 10, "x")));
    assert!(store.is_empty());
    assert!(store.learn("a", entry("2", 13, "x")));
    assert!(!store.observe("a", entry("2", 13, "x")), "the watch brings the same: no work");
}

#[test]
fn a_list_replaces_what_it_is_newer_than() {
    let mut store = Store::default();
    store.observe("gone", entry("1", 5, "x"));
    store.observe("kept", entry("2", 6, "x"));
    store.learn("mine", entry("3", 20, "x"));
    let changed = store.replace(vec![("kept", entry("2", 6, "x")), ("new", entry("4", 9, "x"))], 10);
    assert_eq!(
        changed.iter().map(|(k, old)| (*k, old.is_some())).collect::<Vec<_>>(),
        [("new", false), ("gone", true)]
    );
    assert_eq!(store.iter().map(|(k, _)| *k).collect::<Vec<_>>(), ["kept", "mine", "new"]);
}

#[test]
fn a_server_that_began_anew_is_believed() {
    let mut store = Store::default();
    store.observe("a", entry("1", 500, "x"));
    let changed = store.replace(vec![("b", entry("2", 3, "x"))], 4);
    assert_eq!(changed.iter().map(|(k, _)| *k).collect::<Vec<_>>(), ["b", "a"]);
    assert!(store.observe("a", entry("3", 5, "x")), "its versions count from the new beginning");
}

#[test]
fn what_was_cut_is_there_and_comes_back_when_there_is_room() {
    let mut store = Store::default();
    let large = "x".repeat(10_000);
    store.observe("a", entry("1", 5, &large).cut("ns", "a"));
    assert!(store.bytes() < 200 && store.get(&"a").is_some_and(|e| e.is_cut() && e.weight() > 10_000));
    assert_eq!(store.get(&"a").map(|e| e.object()["metadata"]["name"].clone()), Some(json!("a")));
    assert!(!store.refill("a", entry("2", 6, &large)), "another object of that name");
    assert!(!store.refill("a", entry("1", 4, &large)), "an older state");
    assert!(store.refill("a", entry("1", 5, &large)) && store.bytes() > 10_000);
    assert!(!store.refill("a", entry("1", 6, &large)), "it is whole");
    store.replace(vec![("b", entry("3", 7, ""))], 8);
    assert_eq!(store.bytes(), store.get(&"b").map_or(0, Entry::size));
    store.forget(&"b", "3", 9);
    assert_eq!(store.bytes(), 0);
}

#[test]
fn what_is_not_kept_still_makes_a_difference() {
    let strip = |v: &mut Value| {
        v.as_object_mut().expect("object").remove("data");
    };
    let one = Entry::new(&mut json!({"metadata": {"uid": "1"}, "data": "a"}), strip);
    let two = Entry::new(&mut json!({"metadata": {"uid": "1"}, "data": "b"}), strip);
    assert!(one.differs(&two));
    assert_eq!(one.object(), json!({"metadata": {"uid": "1"}}));
}

#[test]
fn phases_are_counted_through_every_change() {
    let mut store = Store::default();
    let counts = |store: &Store<&str>| [0, 1, 2].map(|phase| store.in_phase(phase));
    store.observe("a", entry("1", 1, "x").in_phase(1));
    store.observe("b", entry("2", 2, "x").in_phase(1));
    store.observe("c", entry("3", 3, "x"));
    assert_eq!(counts(&store), [1, 2, 0]);
    store.observe("a", entry("1", 4, "y").in_phase(2));
    store.observe("a", entry("1", 3, "late").in_phase(1));
    store.learn("b", entry("2", 5, "y").in_phase(2).cut("ns", "b"));
    store.refill("b", entry("2", 5, "y").in_phase(2));
    store.amend(&"b", |object| object["more"] = true.into());
    assert_eq!(counts(&store), [1, 0, 2]);
    store.forget(&"a", "1", 6);
    assert_eq!(counts(&store), [1, 0, 1]);
    store.replace(vec![("c", entry("3", 3, "x").in_phase(1)), ("d", entry("4", 7, "x").in_phase(1))], 8);
    assert_eq!(counts(&store), [0, 2, 0], "a list is all there is");
    assert_eq!(store.in_phase(200), 0);
}
