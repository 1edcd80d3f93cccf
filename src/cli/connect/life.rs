//! How long what was written will live, in words. Pure.

use std::time::Duration;

use jiff::Timestamp;

/// `NAME is good until TIME (2h from now)`, and that this is shorter than what was asked for, when it is.
pub(super) fn note(what: &str, ends: Timestamp, asked: Option<Duration>, now: Timestamp) -> String {
    let left = ends.duration_since(now).as_secs();
    let until = ends.strftime("%Y-%m-%dT%H:%M:%SZ");
    if left <= 0 {
        return format!("note: {what} ended at {until}: it is refused; run connect again in a minute");
    }
    // What was granted whole has lost a moment on its way.
    let is_short = asked.is_some_and(|asked| left + 30 < i64::try_from(asked.as_secs()).unwrap_or(i64::MAX));
    let short = if is_short { ", less than was asked for" } else { "" };
    format!("{what} is good until {until} ({}{short})", about(left))
}

fn about(seconds: i64) -> String {
    // Rounded, so that an hour that lost a second is one.
    let minutes = (seconds + 30) / 60;
    match minutes {
        0..=1 => format!("{seconds}s"),
        2..=119 => format!("{minutes}m"),
        120..=2879 => format!("{}h", (minutes + 30) / 60),
        _ => format!("{}d", (minutes + 720) / 1440),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_said_with_what_is_left() {
        let now: Timestamp = "2026-01-01T00:00:01Z".parse().expect("time");
        let said = |ends: &str, asked| note("the token", ends.parse().expect("time"), asked, now);
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(said("2026-01-01T01:00:00Z", hour), "the token is good until 2026-01-01T01:00:00Z (60m)");
        assert!(said("2026-01-01T00:30:00Z", hour).ends_with("(30m, less than was asked for)"));
        assert!(said("2027-01-01T00:00:00Z", None).ends_with("(365d)"));
        assert!(said("2025-01-01T00:00:00Z", None).starts_with("note: the token ended at"));
    }
}
