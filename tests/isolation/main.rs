//! What Portico is attacked with: one table of rows (`rows.yaml`), each with the tests that show what is right. The page
//! `docs/security-tests.md` is made of it; `make isolation` runs the tests and says row by row what was seen.
#![allow(unreachable_pub, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod rows;
mod run;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::rows::{PAGE, Rows};
use crate::run::Seen;

/// Rows that must be there: findings of our own, whatever becomes of them.
const FINDINGS: [&str; 11] = ["S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "R1"];

#[test]
fn the_committed_page_is_the_generated_one() {
    let (path, page) = (root().join(PAGE), Rows::read().page());
    if std::env::var_os("PORTICO_BLESS").is_some() {
        fs::write(&path, &page).expect("written");
    }
    assert!(fs::read_to_string(&path).unwrap_or_default() == page, "{PAGE} is stale: make generated");
}

#[test]
fn every_test_that_a_row_names_exists() {
    let rows = Rows::read();
    let missing = rows.tests().into_iter().filter(|test| {
        let text = fs::read_to_string(root().join(test.file())).unwrap_or_default();
        !text.contains(&format!("fn {}(", test.name))
    });
    let missing: Vec<_> = missing.map(|test| test.to_string()).collect();
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
}

#[test]
fn every_row_says_what_shows_it_or_why_nothing_does() {
    let rows = Rows::read();
    let ids: Vec<_> = rows.all().map(|row| row.id.as_str()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "a row is there twice");
    for finding in FINDINGS {
        assert!(ids.contains(&finding), "{finding}");
    }
    for row in rows.all() {
        assert!(!row.tests.is_empty() || !row.gap.is_empty(), "{}", row.id);
    }
}

#[test]
fn outputs_are_read_as_cargo_writes_them() {
    let text = "running 4 tests\ntest a::b ... ok\ntest a::c ... FAILED\ntest d ... ignored, needs x: make x\n\
        test a::e - should panic ... ok\ntest a::f ... ok\n\nsuccesses:\n\n---- a::f stdout ----\nnot run: no go\n\nsuccesses:\n    a::b\n\
        test result: FAILED. 2 passed\n";
    let seen = run::read(text);
    assert_eq!(seen["a::b"], Seen::Held);
    assert_eq!(seen["a::c"], Seen::Failed);
    assert_eq!(seen["d"], Seen::NotRun("needs x: make x".to_owned()));
    assert_eq!(seen["a::f"], Seen::NotRun("no go".to_owned()));
    assert_eq!(seen.len(), 5);
}

#[test]
fn a_row_is_held_when_all_held_that_ran() {
    let (held, failed, away) = (Seen::Held, Seen::Failed, Seen::NotRun("no cluster".to_owned()));
    assert_eq!(run::row_of(&[]), ("none".to_owned(), false));
    assert_eq!(run::row_of(&[&held, &held]), ("held".to_owned(), false));
    assert_eq!(run::row_of(&[&held, &away]), ("held, 1 of 2 not run (no cluster)".to_owned(), false));
    assert_eq!(run::row_of(&[&away]), ("not run (no cluster)".to_owned(), false));
    assert_eq!(run::row_of(&[&held, &failed, &away]), ("FAILED".to_owned(), true));
    assert_eq!(run::row_of(&[&held, &Seen::Missing]), ("MISSING".to_owned(), true));
}

/// `make isolation`.
#[test]
#[ignore = "runs other tests: make isolation"]
fn table() {
    let rows = Rows::read();
    let (table, failed) = run::table(&rows, &run::all(&rows));
    println!("{table}");
    assert!(failed == 0, "{failed} rows are not held");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
