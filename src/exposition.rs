//! Prometheus' text format, line by line: what kubelets, API servers and Portico itself show of themselves.
//!
//! Promises: nothing is kept but the line at hand, whose length is bounded; what is not well formed is told apart and never
//! handed on, so a value cannot become another line or another label. Knows version 0.0.4 and what OpenMetrics 1.0 adds to a
//! line (<https://prometheus.io/docs/instrumenting/exposition_formats/>). Names in quotes (UTF-8 names) are malformed here.
//! Must not know where lines come from and what families mean. Does no IO.

mod line;
mod write;

#[cfg(test)]
mod tests;

pub use line::{Labels, Line, Lines, Sample};
pub use write::{comment, label, sample};
