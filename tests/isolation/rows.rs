//! The rows, and the page that is made of them.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde::Deserialize;

pub const PAGE: &str = "docs/security-tests.md";

const HEAD: &str = "# Which test covers which attack

One row for each attack on others' proxies, gateways and syncers that Portico is tested against, and for each finding of our
own: what is tried, what is right, and the tests that show it. What no test shows stands in the last column. `make isolation`
runs these tests and prints the table with what was seen; `make test` runs them with all others.

This page is generated from `tests/isolation/rows.yaml`: change it there, then run `make generated`. A test checks that every
test named here exists.

Tests called `fuzzed` try a kept corpus (`tests/fuzz/corpus`) and mutations of it: a short round in `make unit`, as long as is
wanted with `make fuzz`, where `FUZZ_SEED` and `FUZZ_ITERATIONS` say which and how long. What fails is made shorter and written
into the corpus: mend it, give the file a name that says what it is, and commit both. `make h2spec` runs the cases of h2spec.
";

/// All of it.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Rows(Vec<Section>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    title: String,
    rows: Vec<Row>,
}

/// One attack.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub id: String,
    pub tried: String,
    pub right: String,
    pub tests: Vec<Test>,
    /// What no test shows, and why.
    #[serde(default)]
    pub gap: String,
}

/// A test by its file, under `tests` unless it is of `src`, and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Test {
    path: String,
    pub name: String,
}

impl TryFrom<String> for Test {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once("::") {
            Some((path, name)) if path.ends_with(".rs") => Ok(Self { path: path.to_owned(), name: name.to_owned() }),
            _ => Err(format!("{text} is no file.rs::test")),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.file(), self.name)
    }
}

impl Test {
    /// From the root of the repository.
    pub fn file(&self) -> String {
        if self.path.starts_with("src/") { self.path.clone() } else { format!("tests/{}", self.path) }
    }

    /// The target it is compiled into: `lib`, or the name of a folder in `tests`.
    pub fn target(&self) -> &str {
        if self.path.starts_with("src/") { "lib" } else { self.path.split('/').next().unwrap_or_default() }
    }

    /// The module of its file in its target, with `::` behind it.
    fn module(&self) -> String {
        let file = self.path.trim_end_matches(".rs");
        let file = file.split_once('/').map_or("", |(_, rest)| rest);
        if file == "main" { String::new() } else { format!("{}::", file.replace('/', "::")) }
    }

    /// How its target lists it, when it does not stand in a module of its file.
    pub fn path_in_target(&self) -> String {
        format!("{}{}", self.module(), self.name)
    }

    /// Whether this path of a test in its target, as cargo lists it, is this one.
    pub fn is(&self, listed: &str) -> bool {
        let rest = listed.strip_prefix(&self.module());
        // Tests inside of a file stand in modules of it.
        rest.is_some_and(|rest| rest.rsplit("::").next() == Some(self.name.as_str()))
    }
}

impl Rows {
    pub fn read() -> Self {
        serde_saphyr::from_str(include_str!("rows.yaml")).expect("rows.yaml is a list of sections with rows")
    }

    pub fn all(&self) -> impl Iterator<Item = &Row> {
        self.0.iter().flat_map(|section| &section.rows)
    }

    /// Each test once.
    pub fn tests(&self) -> BTreeSet<&Test> {
        self.all().flat_map(|row| &row.tests).collect()
    }

    pub fn page(&self) -> String {
        let mut page = HEAD.to_owned();
        for section in &self.0 {
            let _ = write!(
                page,
                "\n## {}\n\n| attack | tried | right | tests | not covered |\n|---|---|---|---|---|\n",
                section.title
            );
            for row in &section.rows {
                let tests: Vec<_> = row.tests.iter().map(|test| format!("`{test}`")).collect();
                let tests = if tests.is_empty() { "none".to_owned() } else { tests.join(", ") };
                let _ = writeln!(page, "| {} | {} | {} | {tests} | {} |", row.id, row.tried, row.right, row.gap);
            }
        }
        page
    }
}
