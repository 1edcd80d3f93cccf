//! No circle of files: a file never imports one that, through whatever others, imports it.
//!
//! Read from the text: `use` trees and qualified paths, each followed through re-exports to the file that defines the name.
//! A module that only declares and re-exports its children is a face and takes nothing from them; one that uses them does.
//! Tests and what only tests use stand aside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One circle: its files, and what ties each to the next of them.
pub(crate) fn circles(src: &Path, files: &[PathBuf]) -> Vec<String> {
    let house = House::read(src, files);
    let edges: BTreeMap<&Module, BTreeMap<Module, BTreeSet<String>>> =
        house.files.iter().map(|(module, file)| (module, house.taken(module, file))).collect();
    let reach = |from: &Module| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(at) = open.pop() {
            for next in edges.get(&at).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> = edges.keys().map(|module| (*module, reach(module))).collect();
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    for (module, reaches) in &reached {
        if !reaches.contains(*module) || told.contains(*module) {
            continue;
        }
        let circle: BTreeSet<&Module> =
            reaches.iter().filter(|other| reached.get(other).is_some_and(|r| r.contains(*module))).collect();
        told.extend(circle.iter().map(|member| (*member).clone()));
        found.push(describe(&circle, &edges));
    }
    found
}

type Module = Vec<String>;

fn describe(circle: &BTreeSet<&Module>, edges: &BTreeMap<&Module, BTreeMap<Module, BTreeSet<String>>>) -> String {
    let mut text = format!("a circle of {} files:", circle.len());
    for from in circle {
        for (to, names) in edges.get(*from).into_iter().flatten().filter(|(to, _)| circle.contains(to)) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            text.push_str(&format!("\n  {} takes from {}: {}", from.join("/"), to.join("/"), names.join(", ")));
        }
    }
    text
}

struct House {
    files: BTreeMap<Module, File>,
}

#[derive(Default)]
struct File {
    /// Paths that it names, absolute or as written when they begin with a child.
    taken: BTreeSet<Module>,
    /// Names that it hands on, each with the path behind it.
    handed_on: BTreeMap<String, Module>,
}

impl House {
    fn read(src: &Path, files: &[PathBuf]) -> Self {
        let mut house = Self { files: BTreeMap::new() };
        let modules: BTreeSet<Module> = files.iter().filter_map(|file| module(src, file)).collect();
        for path in files {
            let Some(module) = module(src, path) else { continue };
            let text = fs::read_to_string(path).expect("readable");
            let code = super::without_comments(&text);
            let code = code.split(super::INLINE_TESTS).next().unwrap_or_default();
            house.files.insert(module.clone(), File::read(&module, code, &modules));
        }
        house
    }

    fn taken(&self, own: &Module, file: &File) -> BTreeMap<Module, BTreeSet<String>> {
        let mut taken: BTreeMap<Module, BTreeSet<String>> = BTreeMap::new();
        for path in &file.taken {
            if let Some((target, name)) = self.resolve(path, 0)
                && target != *own
            {
                taken.entry(target).or_default().insert(name);
            }
        }
        taken
    }

    /// The file that defines what this path names, through re-exports.
    fn resolve(&self, path: &[String], depth: usize) -> Option<(Module, String)> {
        let known = (0..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]))?;
        let module = path[..known].to_vec();
        let Some(name) = path.get(known) else { return Some((module, "itself".to_owned())) };
        match self.files.get(&module).and_then(|file| file.handed_on.get(name)) {
            Some(behind) if depth < 8 => {
                let rest = [behind.as_slice(), &path[known + 1..]].concat();
                self.resolve(&rest, depth + 1)
            }
            _ => Some((module, name.clone())),
        }
    }
}

impl File {
    fn read(module: &Module, code: &str, modules: &BTreeSet<Module>) -> Self {
        let mut file = Self::default();
        let mut rest = String::new();
        for statement in code.split_inclusive(';') {
            let Some((is_public, tree)) = use_tree(statement) else {
                rest.push_str(statement);
                continue;
            };
            let mut paths = Vec::new();
            flatten(&[], tree, &mut paths);
            for (path, name) in paths {
                let Some(path) = absolute(module, &path, modules) else { continue };
                if is_public {
                    file.handed_on.insert(name, path);
                } else {
                    file.taken.insert(path);
                }
            }
        }
        // What is handed on and used here, too, is taken.
        let words: BTreeSet<&str> = rest.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let used =
            file.handed_on.iter().filter(|(name, _)| words.contains(name.as_str())).map(|(_, path)| path.clone());
        file.taken.extend(used);
        file.taken.extend(qualified(&rest).iter().filter_map(|path| absolute(module, path, modules)));
        file
    }
}

/// The tree of a statement that is a `use`, and whether it hands on.
fn use_tree(statement: &str) -> Option<(bool, &str)> {
    let at = statement.rfind("use ")?;
    let before = statement[..at].lines().last().unwrap_or_default().trim();
    let is_public = before.starts_with("pub");
    let is_use = before.is_empty() || (is_public && before.trim_end_matches(')').split('(').count() <= 2);
    is_use.then(|| (is_public, statement[at + 4..].trim_end_matches(';')))
}

/// `a::{b, c::D as E}` as paths, each with the name under which it is known.
fn flatten(before: &[String], tree: &str, paths: &mut Vec<(Module, String)>) {
    let tree = tree.trim();
    let (head, group) = match tree.split_once('{') {
        Some((head, group)) => (head, group.rsplit_once('}').map(|(inside, _)| inside)),
        None => (tree, None),
    };
    let (head, alias) = head.split_once(" as ").unwrap_or((head, ""));
    let segments = head.split("::").map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned);
    let path: Module = before.iter().cloned().chain(segments).collect();
    let Some(group) = group else {
        let mut path = path;
        if path.last().is_some_and(|last| last == "self" && path.len() > 1) {
            path.pop();
        }
        let name = if alias.is_empty() { path.last().cloned().unwrap_or_default() } else { alias.trim().to_owned() };
        paths.push((path, name));
        return;
    };
    let (mut depth, mut start) = (0usize, 0);
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                if !group[start..at].trim().is_empty() {
                    flatten(&path, &group[start..at], paths);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// `a::b::C` wherever it stands.
fn qualified(code: &str) -> Vec<Module> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.split(|c| !is_word(c))
        .map(|word| word.split("::").take_while(|s| !s.is_empty() && !s.contains(':')).map(str::to_owned).collect())
        .filter(|path: &Module| path.len() > 1)
        .collect()
}

/// From the root; `None` where the path begins outside of the package or with a name that a `use` brought.
fn absolute(module: &Module, path: &[String], modules: &BTreeSet<Module>) -> Option<Module> {
    let mut base = module.clone();
    let first = path.first()?.as_str();
    let rest = match first {
        "crate" => {
            base.clear();
            &path[1..]
        }
        "self" => &path[1..],
        "super" => {
            let levels = path.iter().take_while(|segment| *segment == "super").count();
            base.truncate(base.len().saturating_sub(levels));
            &path[levels..]
        }
        _ => {
            base.push(first.to_owned());
            if !modules.contains(&base) {
                return None;
            }
            &path[1..]
        }
    };
    base.extend(rest.iter().cloned());
    Some(base)
}

/// `None` for tests, for what only they use, and for the roots.
fn module(src: &Path, file: &Path) -> Option<Module> {
    let relative = file.strip_prefix(src).expect("below src").to_string_lossy().replace('\\', "/");
    let path: Module = relative.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let is_test = |part: &String| part == "tests" || part == "testing" || part == "samples" || part.ends_with("_tests");
    let is_root = path.len() == 1 && (path[0] == "lib" || path[0] == "main");
    (!is_root && !path.iter().any(is_test)).then_some(path)
}
