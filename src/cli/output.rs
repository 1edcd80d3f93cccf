//! The only place that writes to stdout and stderr. Results go to stdout, everything said to the person to stderr.
#![expect(clippy::print_stdout, reason = "the one place")]

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use super::failure::{Failure, Outcome};

/// Form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// The objects as JSON.
    Json,
    /// The objects as YAML.
    Yaml,
    /// `virtualcluster.portico.dev/NAME`, one a line.
    Name,
}

/// A line of the result.
pub(super) fn line(text: &str) {
    println!("{text}");
}

/// A whole result, newline at its end included; a reader that has gone away is no failure.
pub(super) fn text(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Something the person should know that is not the result.
pub(super) fn note(text: &str) {
    eprintln!("{text}");
}

/// Asks a person; None when nobody is there to answer.
pub(super) fn ask(question: &str) -> Option<String> {
    if !(std::io::stdin().is_terminal() && is_interactive()) {
        return None;
    }
    eprint!("{question} ");
    let mut answer = String::new();
    let read = std::io::stderr().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
    read.ok().map(|_| answer.trim().to_owned())
}

/// Why the command failed.
pub(super) fn failure(failure: &Failure) {
    eprintln!("error: {}", failure.what());
    if !failure.hint().is_empty() {
        eprintln!("hint: {}", failure.hint());
    }
}

/// Whether a person watches.
pub(super) fn is_interactive() -> bool {
    std::io::stderr().is_terminal()
}

/// Rows under a header, columns aligned, no lines.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>) {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let header = header.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(header).chain(rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        line(cells.join("   ").trim_end());
    }
}

/// Objects as JSON or YAML; `false` for the forms that the caller prints.
pub(super) fn structured<T: Serialize>(format: Format, value: &T) -> Outcome<bool> {
    match format {
        Format::Json => {
            let json = serde_json::to_string_pretty(value).map_err(|e| unprintable(&e))?;
            text(&format!("{json}\n"));
            Ok(true)
        }
        Format::Yaml => {
            text(&yaml(value)?);
            Ok(true)
        }
        Format::Table | Format::Name => Ok(false),
    }
}

/// A YAML document, newline at its end.
pub(super) fn yaml<T: Serialize>(value: &T) -> Outcome<String> {
    let mut yaml = serde_saphyr::to_string(value).map_err(|e| unprintable(&e))?;
    if !yaml.ends_with('\n') {
        yaml.push('\n');
    }
    Ok(yaml)
}

fn unprintable(error: &dyn std::error::Error) -> Failure {
    Failure::new(format!("the result cannot be written: {error}"), "please report this with the command")
}
