use super::*;

fn id(name: &str) -> TenantId {
    TenantId::parse("team", name).expect("id")
}

fn hour(text: &str) -> Hour {
    Hour::parse(text).expect("hour")
}

fn within(name: &str) -> Within {
    Within::parse(name).expect("place")
}

fn cpu(cpu: u64) -> Amounts {
    Amounts { cpu, calls: 1, ..Amounts::default() }
}

#[test]
fn what_is_written_is_read_again_and_nothing_else() {
    let mut rows = Rows::default();
    for (name, at, place, amount) in [
        ("dev", "2026-11-30T23", "default", 7),
        ("dev", "2026-12-01T00", "default", 8),
        ("dev", "2026-12-01T00", "-", 1),
        ("ci", "1969-12-31T23", "*", u64::MAX),
    ] {
        rows.add(&id(name), hour(at), within(place), &cpu(amount));
    }
    assert_eq!(rows.text().lines().next(), Some("@team/ci"));
    assert!(rows.text().contains("\n2026-11-30T23 default 0 7 0 0 0 0 1 0 0 0\n"), "{}", rows.text());
    assert_eq!(Rows::parse(&rows.text()), Ok(rows.clone()));
    assert_eq!(rows.by_day().text().matches("T00 ").count(), 4);
    for broken in ["2026-11-30T23 default 0 0 0 0 0 0 0 0 0 0", "@team", "@team/dev\n2026-11-30T24 a 0", "@a/b/c", "x"]
    {
        assert!(Rows::parse(broken).is_err(), "{broken}");
    }
    let line = "2026-11-30T23 default 0 7 0 0 0 0 1 0 0 0";
    for (from, to) in [("default", "Default"), ("T23", "T-1"), (" 7", " -7"), (" 7", ""), ("0 0", "0 0 0"), (" ", "  ")]
    {
        let broken = format!("@team/dev\n{}", line.replacen(from, to, 1));
        assert!(Rows::parse(&broken).is_err(), "{broken}");
    }
}

#[test]
fn parts_add_up_whatever_is_taken_away_between() {
    let (mut all, at) = (Rows::default(), hour("2026-11-30T15"));
    all.add(&id("dev"), at, within("a"), &cpu(5));
    let told = all.clone();
    all.add(&id("dev"), at, within("a"), &cpu(2));
    all.add(&id("ci"), at, within("a"), &cpu(3));
    let mut left = all.without(&told);
    assert_eq!(left.iter().map(|(_, _, _, amounts)| amounts.cpu).collect::<Vec<_>>(), [3, 2]);
    left.merge(&told);
    assert_eq!(left, all);
    assert!(all.without(&all).is_empty());
    let told = all.clone();
    all.add(&id("dev"), at, within("a"), &cpu(1));
    all.keep_apart(0);
    let left: Vec<_> = all.without(&told).iter().map(|(_, _, at, used)| (at.clone(), used.cpu)).collect();
    assert_eq!(left, [(Within::Others, 1)], "though they stand with the others since");
}

#[test]
fn namespaces_of_one_tenant_are_bounded_and_nothing_is_lost() {
    let (mut rows, at) = (Rows::default(), hour("2026-11-30T15"));
    for n in 0..1000 {
        rows.add(&id("dev"), at, within(&format!("n{n}")), &cpu(n));
    }
    rows.add(&id("ci"), at, within("own"), &cpu(1));
    let sum = |rows: &Rows| rows.iter().map(|(_, _, _, amounts)| amounts.cpu).sum::<u64>();
    assert_eq!((rows.iter().count(), sum(&rows)), (MOST_NAMESPACES + 2, 1000 * 999 / 2 + 1));
    let text = rows.fit(400);
    let most = format!(" n{} ", MOST_NAMESPACES - 1);
    assert!(text.len() <= 400 && text.contains(&most), "who used most stays apart: {text}");
    assert_eq!(sum(&rows), 1000 * 999 / 2 + 1);
    let mut few = Rows::default();
    for n in 0..MOST_NAMESPACES {
        few.add(&id("hostile"), at, within(&format!("{}-{n}", "x".repeat(50))), &cpu(1));
    }
    few.add(&id("honest"), at, within("default"), &cpu(1));
    assert!(few.fit(3_000).contains(" default "), "the few names of another stay");
}

#[test]
fn names_that_callers_invent_give_way_to_those_with_pods() {
    let (mut rows, at) = (Rows::default(), hour("2026-11-30T15"));
    let called = Amounts { calls: 1, ..Amounts::default() };
    for n in 0..MOST_NAMESPACES {
        rows.add(&id("dev"), at, within(&format!("invented-{n}")), &called);
    }
    rows.add(&id("dev"), at, within("real"), &cpu(7));
    rows.add(&id("dev"), at, within("late"), &called);
    let seen: BTreeMap<_, _> = rows.iter().map(|(_, _, at, used)| (at.to_string(), *used)).collect();
    assert_eq!((seen["real"].cpu, seen["*"].calls, seen.len()), (7, 2, MOST_NAMESPACES + 1));
}
