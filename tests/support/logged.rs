//! What a test has logged, and what of it should not be there.

use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

/// Everything that is written.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Writes here whatever anybody logs, libraries included.
    pub fn of_everything(&self) -> impl Subscriber + Send + Sync + use<> {
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(self.clone());
        tracing_subscriber::registry().with(EnvFilter::new("trace")).with(layer)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The first lines that show a secret in one of these forms.
pub fn showing(text: &str, secret: &str, forms: impl IntoIterator<Item = String>) -> Vec<String> {
    let of = |form: String| {
        let lines = text.lines().filter(move |line| line.contains(&form)).take(3);
        lines.map(|line| format!("{secret}: {line:.400}")).collect::<Vec<_>>()
    };
    forms.into_iter().flat_map(of).collect()
}
