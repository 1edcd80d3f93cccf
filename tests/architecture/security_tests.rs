//! Every test that `docs/security-tests.md` names must exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A test in the page: `` `path/of/file.rs::name` ``.
fn named(page: &str) -> BTreeSet<(&str, &str)> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.filter_map(|text| text.split_once("::")).filter(|(file, _)| file.ends_with(".rs")).collect()
}

#[test]
fn every_test_that_the_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/security-tests.md")).expect("the page");
    let named = named(&page);
    assert!(named.len() > 90, "{} tests found in the page", named.len());
    let missing = named.iter().filter(|(file, name)| {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        !text.contains(&format!("fn {name}("))
    });
    let missing: Vec<_> = missing.map(|(file, name)| format!("{file}::{name}")).collect();
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
}
