//! What one question may cost, whatever a tenant wrote.

use super::*;

/// The recipe of a process killed by one question: 1000 endpoints with 5000 ports each, in 305 KB.
#[test]
fn an_answer_has_no_more_records_than_fit_a_message() {
    let zone = zone();
    zone.put_slice(9, "shop", "empty-1", hostile_slice("empty", 1000, 5000)).expect("room");
    for (room, kind) in [(ROOM, SERVICES), (ROOM, ANY), (ROOM, A), (1232, SERVICES), (1232, A), (512, SERVICES)] {
        let (outcome, work) = within(&zone, "empty.shop.svc.cluster.local.", kind, room);
        let Outcome::Found { answers, additionals } = outcome else { panic!("found") };
        let (least, most) = if kind == SERVICES { (room / 60, room / 40) } else { (room / 66, room / 16) };
        assert!((least..=most).contains(&answers.len()), "{} records in {room} bytes", answers.len());
        assert!(additionals.is_empty() && work <= MOST_WORK, "{} beside, work {work}", additionals.len());
    }
    // One of many ports is found without a walk over all pairs.
    let (outcome, work) = within(&zone, "_p4999._tcp.empty.shop.svc.cluster.local.", SERVICES, ROOM);
    assert!(matches!(outcome, Outcome::Found { answers, .. } if answers.len() == 1000));
    assert!(work < 4000, "work {work}");
    for (asked, kind) in [("_tcp.empty.shop.svc.cluster.local.", A), ("_x._tcp.empty.shop.svc.cluster.local.", A)] {
        assert!(within(&zone, asked, kind, ROOM).1 < 400, "{asked}");
    }
}

#[test]
fn what_repeats_costs_no_more_than_what_does_not() {
    let zone = zone();
    let ports: Vec<_> = (0..1000).map(|i| port(&format!("p{i}"), "tcp", 80)).collect();
    let one_name: Vec<_> =
        (0..1000).map(|i| endpoint(&format!("10.9.{}.{}", i / 250, i % 250), Some("same"), true)).collect();
    for i in 0..10 {
        let repeated = slice("empty", one_name.clone(), ports.clone());
        zone.put_slice(9, "shop", &format!("empty-{i}"), repeated).expect("room");
    }
    let (outcome, work) = within(&zone, "empty.shop.svc.cluster.local.", SERVICES, ROOM);
    let Outcome::Found { answers, .. } = outcome else { panic!("found") };
    assert!(answers.len() == 1 && work <= MOST_WORK, "{} records, work {work}", answers.len());
    let (outcome, work) = within(&zone, "same.empty.shop.svc.cluster.local.", A, ROOM);
    let Outcome::Found { answers, .. } = outcome else { panic!("found") };
    assert!(answers.len() == 1000 && work <= MOST_WORK, "{} records, work {work}", answers.len());
    let (outcome, work) = within(&zone, "1.0.9.10.in-addr.arpa.", POINTER, ROOM);
    let Outcome::Found { answers, .. } = outcome else { panic!("found") };
    assert!(answers.len() == 1 && work <= MOST_WORK, "{} records, work {work}", answers.len());
}
