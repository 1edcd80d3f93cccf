//! What people are told of the tenant: what is waited for, and facts that are no problem.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Result;

/// What people may know of it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct State(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    problem: Option<String>,
    served: bool,
    notes: Vec<String>,
}

impl State {
    /// What is waited for or wrong; None while all is well.
    pub fn problem(&self) -> Option<String> {
        let shown = self.0.lock();
        match &shown.problem {
            Some(problem) => Some(problem.clone()),
            None if shown.served => None,
            None => Some("k3s' files are not read yet".to_owned()),
        }
    }

    /// Facts that are no problem of readiness.
    pub fn notes(&self) -> Vec<String> {
        self.0.lock().notes.clone()
    }

    pub(super) fn settle(&self, outcome: &Result<()>) {
        let mut shown = self.0.lock();
        let problem = outcome.as_ref().err().map(ToString::to_string);
        if problem != shown.problem {
            match &problem {
                Some(problem) => tracing::info!(%problem, "waiting"),
                None => tracing::info!("served"),
            }
        }
        shown.served |= outcome.is_ok();
        shown.problem = problem;
    }

    pub(super) fn note(&self, about: &str, text: &str) {
        let line = format!("{about}: {text}");
        let mut shown = self.0.lock();
        if shown.notes.contains(&line) {
            return;
        }
        tracing::info!("{line}");
        let prefix = format!("{about}: ");
        shown.notes.retain(|note| !note.starts_with(&prefix));
        shown.notes.push(line);
    }
}
