//! Kubeconfig files: written whole or not at all, for the user's eyes only, and never over something else.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::kubeconfig;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;

/// Writes a kubeconfig, replacing only what is one already.
pub(super) fn write_kubeconfig(path: &Path, document: &Value) -> Outcome<()> {
    if let Ok(old) = std::fs::read_to_string(path)
        && !old.trim().is_empty()
        && !kubeconfig::is_kubeconfig(&old)
    {
        return Err(Failure::new(
            format!("{} exists and is no kubeconfig", path.display()),
            "choose another file with --kube-config",
        ));
    }
    write(path, &output::yaml(document)?)
}

/// Adds a context to a kubeconfig of the user.
pub(super) fn merge_into(path: &Path, document: &Value) -> Outcome<()> {
    let unusable = |e: &dyn std::fmt::Display| {
        Failure::new(
            format!("{} cannot be changed: {e}", path.display()),
            "leave out --update-current, or give your kubeconfig in KUBECONFIG",
        )
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(unusable(&error)),
    };
    let old: Value =
        if text.trim().is_empty() { Value::Null } else { serde_saphyr::from_str(&text).map_err(|e| unusable(&e))? };
    write(path, &output::yaml(&kubeconfig::merge(old, document))?)
}

/// The file that kubectl changes: the first in KUBECONFIG, else `~/.kube/config`.
pub(super) fn users_kubeconfig() -> Outcome<PathBuf> {
    let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let first = std::env::split_paths(&listed).find(|p| !p.as_os_str().is_empty());
    first.or_else(|| std::env::home_dir().map(|home| home.join(".kube/config"))).ok_or_else(|| {
        Failure::new("there is neither KUBECONFIG nor a home directory", "set KUBECONFIG, or use --kube-config FILE")
    })
}

/// Writes beside the target and renames, following a symlink to the file it means.
fn write(path: &Path, text: &str) -> Outcome<()> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let unwritable = |e: std::io::Error| {
        Failure::new(format!("{} cannot be written: {e}", path.display()), "choose another file with --kube-config")
    };
    if let Some(parent) = target.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(unwritable)?;
    }
    let mut beside = target.clone().into_os_string();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = create_private(&beside, text).and_then(|()| std::fs::rename(&beside, &target));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written.map_err(unwritable)
}

fn create_private(path: &Path, text: &str) -> std::io::Result<()> {
    let _ = std::fs::remove_file(path);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A kubeconfig for one command, removed after it.
pub(super) struct Temporary {
    path: PathBuf,
}

impl Temporary {
    pub(super) fn write(document: &Value) -> Outcome<Self> {
        let name = format!("portico-{}-{:016x}.yaml", std::process::id(), rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        create_private(&path, &output::yaml(document)?).map_err(|e| {
            Failure::new(format!("{} cannot be written: {e}", path.display()), "set TMPDIR to a writable directory")
        })?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt as _;

    fn config(name: &str) -> Value {
        json!({"kind": "Config", "clusters": [{"name": name}], "users": [], "contexts": [], "current-context": name})
    }

    #[test]
    fn files_are_private_and_only_kubeconfigs_are_replaced() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("k.yaml");
        write_kubeconfig(&path, &config("a")).expect("new");
        write_kubeconfig(&path, &config("b")).expect("replaced");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 1, "nothing is left beside it");
        std::fs::write(&path, "kind: Deployment\n").expect("write");
        assert!(write_kubeconfig(&path, &config("c")).is_err());
    }

    #[test]
    fn merging_makes_the_file_and_its_directory() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join(".kube/config");
        merge_into(&path, &config("a")).expect("new");
        merge_into(&path, &config("b")).expect("merged");
        let merged: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).expect("read")).expect("yaml");
        assert_eq!(merged["clusters"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn a_temporary_file_goes_away() {
        let file = Temporary::write(&config("a")).expect("written");
        let path = file.path().to_owned();
        assert!(path.exists());
        drop(file);
        assert!(!path.exists());
    }
}
