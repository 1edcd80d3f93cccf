use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const MOST: u64 = 64 << 10;

fn event(tab: &Arc<Tab>, number: usize, bytes: usize) -> Event {
    let mut line = serde_json::to_vec(&serde_json::json!({"n": number, "x": "y".repeat(bytes)})).expect("JSON");
    line.push(b'\n');
    Event { tab: Arc::clone(tab), line }
}

fn add(spool: &Spool, tab: &Arc<Tab>, number: usize, bytes: usize) {
    let event = event(tab, number, bytes);
    let line = event.line.clone();
    spool.add(&[event], &line).expect("added");
}

fn number(line: &[u8]) -> usize {
    let value: serde_json::Value = serde_json::from_slice(line).expect("JSON");
    value["n"].as_u64().and_then(|n| n.try_into().ok()).expect("a number")
}

/// All that is left, taken batch by batch.
fn rest(spool: &Spool) -> Vec<usize> {
    let mut all = Vec::new();
    loop {
        let batch = spool.read().expect("read");
        if batch.is_end {
            return all;
        }
        all.extend(batch.lines.iter().map(|line| number(line)));
        spool.taken(batch.next).expect("taken");
    }
}

#[test]
fn what_was_added_is_read_in_order_and_leaves_the_disk() {
    let (folder, tab) = (tempfile::tempdir().expect("folder"), Arc::<Tab>::default());
    let spool = Spool::own(folder.path().to_str().expect("path"), MOST).expect("a spool");
    for n in 0..300 {
        add(&spool, &tab, n, 100);
    }
    assert!(numbers(&spool.folder).expect("listed").len() > 5);
    assert_eq!(tab.on_disk(), spool.bytes());
    assert!(spool.is_crowded() && spool.has_room(MOST - spool.bytes()) && !spool.has_room(MOST - spool.bytes() + 1));
    assert_eq!(rest(&spool), (0..300).collect::<Vec<_>>());
    assert_eq!(numbers(&spool.folder).expect("listed").len(), 1, "only the one that is written");
    assert!(spool.bytes() <= MOST / 16 + 200 && tab.on_disk() == spool.bytes());
    add(&spool, &tab, 300, 1);
    assert_eq!(rest(&spool), [300]);
}

#[test]
fn two_processes_have_one_each_and_the_third_takes_what_is_left() {
    let (folder, tab) = (tempfile::tempdir().expect("folder"), Arc::<Tab>::default());
    let path = folder.path().to_str().expect("path");
    let (first, second) = (Spool::own(path, MOST).expect("first"), Spool::own(path, MOST).expect("second"));
    assert_ne!(first.folder, second.folder);
    add(&first, &tab, 1, 1);
    add(&second, &tab, 2, 1);
    assert!(Spool::left(path).is_none(), "both are somebody's");
    drop(second);
    let left = Spool::left(path).expect("the second's");
    assert_eq!(rest(&left), [2]);
    left.remove().expect("removed");
    assert!(Spool::left(path).is_none());
    drop(first);
    let next = Spool::own(path, MOST).expect("next");
    assert_eq!(rest(&next), [1], "who takes a place takes what is in it");
}

#[test]
fn what_stands_in_no_order_is_left_out_and_nothing_behind_it() {
    let (folder, tab) = (tempfile::tempdir().expect("folder"), Arc::<Tab>::default());
    let path = folder.path().to_str().expect("path");
    let spool = Spool::own(path, MOST).expect("a spool");
    add(&spool, &tab, 1, 1);
    let (own, file) = (spool.folder.clone(), name(&spool.folder, 0));
    drop(spool);
    let mut bytes = fs::read(&file).expect("read");
    bytes.extend(b"\x00\xff garbage\n{\"n\":2}\n");
    fs::write(&file, bytes).expect("written");
    for cursor in ["", "x", "9 9", "0 99999", "-1 0"] {
        fs::write(own.join(CURSOR), cursor).expect("written");
        let spool = Spool::own(path, MOST).expect("a spool");
        let mut all = Vec::new();
        let batch = spool.read().expect("read");
        all.extend(batch.lines.iter().map(|line| number(line)));
        assert_eq!(all, [1, 2], "{cursor:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A process is ended at any byte that it wrote, and its cursor may be an older one: everything that was whole is read, at
    /// least once and in order.
    #[test]
    fn an_end_at_any_byte_loses_no_whole_line(
        sizes in proptest::collection::vec(0_usize..1500, 1..60),
        taken in 0_usize..4,
        cut in 0_usize..1600,
        loses_cursor in any::<bool>(),
    ) {
        let (folder, tab) = (tempfile::tempdir().expect("folder"), Arc::<Tab>::default());
        let path = folder.path().to_str().expect("path");
        let spool = Spool::own(path, MOST).expect("a spool");
        for (n, size) in sizes.iter().enumerate() {
            add(&spool, &tab, n, *size);
        }
        let mut seen = BTreeSet::new();
        for _ in 0..taken {
            let batch = spool.read().expect("read");
            seen.extend(batch.lines.iter().map(|line| number(line)));
            if !batch.is_end {
                spool.taken(batch.next).expect("taken");
            }
        }
        let (own, newest) = (spool.folder.clone(), numbers(&spool.folder).expect("listed").pop().expect("one"));
        drop(spool);
        let file = name(&own, newest);
        let bytes = fs::read(&file).expect("read");
        let left = bytes.len().saturating_sub(cut);
        let lost = bytes[left..].iter().filter(|byte| **byte == b'\n').count();
        fs::write(&file, &bytes[..left]).expect("cut");
        if loses_cursor {
            let _ = fs::remove_file(own.join(CURSOR));
        }
        let spool = Spool::own(path, MOST).expect("a spool");
        add(&spool, &tab, 1000, 1);
        let rest = rest(&spool);
        prop_assert!(rest.is_sorted(), "{rest:?}");
        seen.extend(&rest);
        let whole = (0..sizes.len() - lost).all(|n| seen.contains(&n));
        prop_assert!(whole && seen.contains(&1000), "{seen:?} of {}, {lost} cut", sizes.len());
    }
}

/// The disk takes nothing, and what was taken makes room all the same.
#[test]
fn a_cursor_that_cannot_be_written_keeps_nothing_on_the_disk() {
    let (folder, tab) = (tempfile::tempdir().expect("folder"), Arc::<Tab>::default());
    let spool = Spool::own(folder.path().to_str().expect("path"), MOST).expect("a spool");
    for n in 0..300 {
        add(&spool, &tab, n, 100);
    }
    fs::create_dir(spool.folder.join("cursor.new")).expect("in its way");
    let mut all = Vec::new();
    loop {
        let batch = spool.read().expect("read");
        if batch.is_end {
            break;
        }
        all.extend(batch.lines.iter().map(|line| number(line)));
        spool.taken(batch.next).expect_err("it cannot be written");
    }
    assert_eq!(all, (0..300).collect::<Vec<_>>(), "each once");
    assert_eq!(numbers(&spool.folder).expect("listed").len(), 1);
}

#[test]
fn a_process_that_never_sent_anything_leaves_nothing_that_fails() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().to_str().expect("path");
    drop(Spool::own(path, MOST).expect("a spool"));
    // One that nobody can read stands before it.
    fs::rename(folder.path().join("0"), folder.path().join("1")).expect("renamed");
    fs::create_dir_all(folder.path().join("0").join(LOCK)).expect("in its way");
    Spool::left(path).expect("what was left").remove().expect("removed");
    assert!(Spool::left(path).is_none());
}
