//! The layer rule, circles of files, file sizes and module conventions, checked on the sources themselves.
//!
//! Arrows point only downward and siblings never import each other; `src/lib.rs` names the layers, this table enforces
//! them.
#![allow(clippy::expect_used, clippy::panic)]

mod boards;
mod circles;

use std::fs;
use std::path::{Path, PathBuf};

/// Layers from the bottom up.
const LAYERS: &[Layer] = &[
    Layer {
        name: "base",
        // They know each other freely: `config` speaks `error`, `runtime` too.
        siblings: Siblings::Free,
        modules: &["config", "error", "runtime", "tls"],
    },
    Layer {
        name: "domain",
        siblings: Siblings::Free,
        modules: &["exposition", "names", "crd", "audit", "issuers", "roster", "translate"],
    },
    Layer { name: "upstream", siblings: Siblings::Never, modules: &["upstream"] },
    Layer { name: "kubernetes", siblings: Siblings::Never, modules: &["kubernetes"] },
    Layer { name: "state", siblings: Siblings::Never, modules: &["tenant", "usage", "consumption", "trail"] },
    Layer {
        name: "planes",
        siblings: Siblings::Never,
        modules: &["gateway", "syncer", "operator", "sidecar", "dns", "metering", "archive", "admin"],
    },
    Layer { name: "wiring", siblings: Siblings::Free, modules: &["app", "cli"] },
];

/// What the domain layer must not know: it is pure.
const NOT_PURE: &[&str] =
    &["hyper::", "hyper_util::", "tokio::", "kube::", "std::net::Tcp", "std::net::Udp", "std::fs::"];
/// The derive that makes the custom resource lives in `kube`.
const MAY_USE_KUBE: &str = "crd";
const INLINE_TESTS: &str = "\nmod tests {";
const LONGEST_FILE: usize = 400;
const LONGEST_INLINE_TESTS: usize = 100;

struct Layer {
    name: &'static str,
    siblings: Siblings,
    modules: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Siblings {
    Free,
    Never,
}

#[test]
fn the_sources_keep_the_rules() {
    let found = check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// All violations in a source tree, one line each.
fn check(src: &Path) -> Vec<String> {
    let mut files = Vec::new();
    collect(src, &mut files);
    files.sort();
    assert!(!files.is_empty(), "no sources in {}", src.display());
    let mut found = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).expect("readable");
        let relative = file.strip_prefix(src).expect("below src").to_string_lossy().replace('\\', "/");
        let name = |what: String| format!("src/{relative}: {what}");
        found.extend(conventions(&relative, &text).into_iter().map(name));
        let module = module_of(&relative);
        if module == "lib" || module == "main" {
            continue;
        }
        let Some(own) = layer_of(&module) else {
            found.push(name(format!("module `{module}` stands in no layer; add it to tests/architecture")));
            continue;
        };
        let code = without_comments(&text);
        for (line, target) in edges(&code, relative.split('/').count()) {
            if let Err(why) = allowed(&module, own, &target) {
                found.push(format!("src/{relative}:{line}: {why}"));
            }
        }
        if LAYERS[own].name == "domain" && module_file(&relative) != "tests.rs" {
            found.extend(impure(&module, &code).into_iter().map(name));
        }
    }
    found.extend(circles::circles(src, &files));
    found
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// `gateway/forward.rs` and `gateway.rs` belong to `gateway`.
fn module_of(relative: &str) -> String {
    let top = relative.split('/').next().unwrap_or(relative);
    top.trim_end_matches(".rs").to_owned()
}

/// Its layer, counted from the bottom.
fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|l| l.modules.contains(&module))
}

fn allowed(module: &str, own: usize, target: &str) -> Result<(), String> {
    if target == module {
        return Ok(());
    }
    let Some(other) = layer_of(target) else { return Err(format!("imports `{target}`, which stands in no layer")) };
    let (mine, its) = (&LAYERS[own], &LAYERS[other]);
    if other > own {
        return Err(format!("`{module}` ({}) imports `{target}` ({}) above it", mine.name, its.name));
    }
    if other == own && mine.siblings == Siblings::Never {
        return Err(format!("`{module}` imports its sibling `{target}` ({})", mine.name));
    }
    Ok(())
}

/// Every `crate::x` in the code, imports and plain paths alike, with its line. As many `super::` as the
/// module's path has segments lead to the root as well.
fn edges(code: &str, depth: usize) -> Vec<(usize, String)> {
    const ROOT: &str = "crate::";
    let mut found = Vec::new();
    for (at, _) in code.match_indices(ROOT) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + ROOT.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(group_heads(group).into_iter().map(|head| (line, head)));
        } else {
            found.push((line, identifier(rest)));
        }
    }
    let tests_at = code.find(INLINE_TESTS).unwrap_or(code.len());
    let mut after = 0;
    for (at, word) in code.match_indices("super::") {
        if at < after {
            continue;
        }
        let run = code[at..].split("super::").take_while(|between| between.is_empty()).count();
        after = at + run * word.len();
        // One level per segment of the module's path, one more inside `mod tests`.
        if run == depth + usize::from(at > tests_at) {
            found.push((code[..at].matches('\n').count() + 1, identifier(&code[after..])));
        }
    }
    found.retain(|(_, target)| !target.is_empty());
    found
}

/// First segments of `{a::b, c::{d, e}}`, given what follows the opening brace.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut fresh) = (0usize, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && (c.is_alphabetic() || c == '_') => {
                heads.push(identifier(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn impure(module: &str, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let code = code.split(INLINE_TESTS).next().unwrap_or_default();
    for word in NOT_PURE {
        if *word == "kube::" && module == MAY_USE_KUBE {
            continue;
        }
        for (at, _) in code.match_indices(word) {
            if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                let line = code[..at].matches('\n').count() + 1;
                found.push(format!("line {line}: the domain layer is pure and must not use `{word}`"));
            }
        }
    }
    found
}

fn conventions(relative: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if relative.ends_with("mod.rs") && module_file(relative) == "mod.rs" {
        found.push("modules are `foo.rs` beside `foo/`, never `mod.rs`".to_owned());
    }
    let first = text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default();
    if !first.starts_with("//!") && module_file(relative) != "tests.rs" {
        found.push("begins without `//!`: what it owns, what it promises, what it must not know".to_owned());
    }
    let lines = text.lines().count();
    if lines > LONGEST_FILE {
        found.push(format!("{lines} lines; the longest file has {LONGEST_FILE}"));
    }
    let inline = inline_tests(text);
    if inline > LONGEST_INLINE_TESTS {
        found.push(format!("{inline} lines of tests inside; over {LONGEST_INLINE_TESTS} they go to foo/tests.rs"));
    }
    found
}

fn module_file(relative: &str) -> &str {
    relative.rsplit('/').next().unwrap_or(relative)
}

/// Lines from `mod tests {` to the end of the file, where style law puts them.
fn inline_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    match lines.iter().position(|l| l.starts_with("mod tests {")) {
        Some(at) => lines.len() - at,
        None => 0,
    }
}

/// The code with `//` comments and string contents blanked; line breaks stay.
fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    for line in text.lines() {
        let (mut quoted, mut escaped, mut previous) = (false, false, ' ');
        for c in line.chars() {
            if !quoted && c == '/' && previous == '/' {
                code.pop();
                break;
            }
            if c == '"' && !escaped && previous != '\'' {
                quoted = !quoted;
            }
            code.push(if quoted { ' ' } else { c });
            escaped = quoted && c == '\\' && !escaped;
            previous = c;
        }
        code.push('\n');
    }
    code
}

mod the_test_itself {
    use super::*;

    /// Writes a tree and returns what the check finds in it.
    fn found_in(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().expect("folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            fs::write(path, text).expect("written");
        }
        check(folder.path())
    }

    #[test]
    fn accepts_what_is_right() {
        let found = found_in(&[
            ("lib.rs", "//! Root.\npub mod gateway;\n"),
            ("gateway.rs", "//! G.\nmod forward;\nuse crate::{error::Error, tenant::{Registry, Tenant}};\n"),
            ("gateway/forward.rs", "//! F. See crate::syncer.\nuse crate::gateway::Ctx; // not crate::dns\n"),
            (
                "gateway/intercept/log.rs",
                "//! L.\nuse super::super::forward;\nmod tests {\n    use super::super::tunnel;\n}\n",
            ),
            ("tenant.rs", "//! R.\nuse crate::upstream::Pool;\n"),
            ("crd.rs", "//! C.\nuse kube::CustomResource;\n"),
            ("names.rs", "//! N.\nconst TEXT: &str = \"tokio::spawn crate::app\";\n"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn sees_upward_and_sideways_edges() {
        for (file, line) in [
            ("error.rs", "use crate::names::TenantId;"),
            ("names.rs", "use crate::upstream::Pool;"),
            ("upstream.rs", "use crate::kubernetes::Resource;"),
            ("tenant.rs", "fn f() { crate::gateway::serve() }"),
            ("gateway/forward.rs", "use crate::syncer::Engine;"),
            ("dns.rs", "use crate::{error::Error, admin};"),
            ("syncer.rs", "use crate::{\n    error::{Error, Kind},\n    dns::Parts,\n};"),
            ("operator.rs", "use crate::cli::Command;"),
            ("operator.rs", "use super::gateway::Ctx;"),
            ("operator/steps.rs", "use super::super::gateway::Ctx;"),
            ("operator.rs", "mod tests {\n    use super::super::gateway::Ctx;\n}"),
            ("kubernetes.rs", "use crate::tenant::Tenant;"),
            ("gateway.rs", "use crate::unheard::Of;"),
            ("unheard.rs", "use crate::error::Error;"),
        ] {
            let found = found_in(&[(file, &format!("//! M.\n{line}\n"))]);
            assert_eq!(found.len(), 1, "{file}: {line}: {found:?}");
        }
    }

    #[test]
    fn sees_io_in_the_domain() {
        for line in ["use hyper::Body;", "use tokio::time;", "fn f(x: kube::Client) {}", "use std::fs::File;"] {
            let found = found_in(&[("names.rs", &format!("//! N.\n{line}\n"))]);
            assert_eq!(found.len(), 1, "{line}: {found:?}");
        }
        assert_eq!(found_in(&[("crd.rs", "//! C.\nuse tokio::time;\n")]).len(), 1);
    }

    #[test]
    fn sees_circles_of_files() {
        for files in [
            // Two files, straight.
            [("runtime/a.rs", "use super::b::B;"), ("runtime/b.rs", "use crate::runtime::a::A;"), ("runtime.rs", "")],
            // Through what a face hands on.
            [("runtime/a.rs", "use super::b::B;"), ("runtime/b.rs", "use super::A;"), ("runtime.rs", "pub use a::A;")],
            // A room that uses its child, whose child uses the room.
            [
                ("runtime.rs", "fn f() { a::f() }"),
                ("runtime/a.rs", "use super::b;"),
                ("runtime/b.rs", "use super::Room;"),
            ],
        ] {
            let texts = files.map(|(path, line)| (path, format!("//! M.\n{line}\n")));
            let found = found_in(&texts.each_ref().map(|(path, text)| (*path, text.as_str())));
            assert_eq!(found.len(), 1, "{files:?}: {found:?}");
            assert!(found[0].starts_with("a circle of "), "{found:?}");
        }
    }

    #[test]
    fn a_face_and_tests_make_no_circle() {
        let found = found_in(&[
            ("runtime.rs", "//! G.\nmod a;\npub use a::{A, Other};\npub struct Room;\n"),
            ("runtime/a.rs", "//! A.\nuse super::Room;\nuse super::b::{self, B as Bee};\n"),
            ("runtime/b.rs", "//! B.\n// super::a::A\nfn f() {}\n\nmod tests {\n    use super::super::a::A;\n}\n"),
            ("runtime/a/tests.rs", "use crate::runtime::a::A;\n"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn sees_broken_conventions() {
        let long = format!("//! L.\n{}", "\n".repeat(LONGEST_FILE));
        let tests = format!("//! T.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(LONGEST_INLINE_TESTS));
        for (file, text) in [
            ("runtime.rs", long.as_str()),
            ("runtime.rs", &tests),
            ("runtime/mod.rs", "//! M.\n"),
            ("runtime.rs", "use std::fmt;\n"),
        ] {
            let found = found_in(&[(file, text)]);
            assert_eq!(found.len(), 1, "{file}: {found:?}");
        }
    }
}
