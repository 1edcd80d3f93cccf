//! Waiting, with something to look at: a spinner for a person, one line per change otherwise.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output;

/// How often the host API is asked while waiting.
pub(super) const POLL: Duration = Duration::from_millis(500);

/// One wait.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    last: String,
}

impl Progress {
    pub(super) fn start() -> Self {
        let bar = output::is_interactive().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, last: String::new() }
    }

    /// What is being waited for now.
    pub(super) fn say(&mut self, message: &str) {
        if message == self.last {
            return;
        }
        message.clone_into(&mut self.last);
        match &self.bar {
            Some(bar) => bar.set_message(message.to_owned()),
            None => output::note(message),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Reads `300ms`, `10s`, `5m` or `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: Result<crate::config::Span, _> = serde_json::from_value(serde_json::Value::String(text.to_owned()));
    parsed.map(|span| span.0).map_err(|e| e.to_string())
}
