//! Moments as people name them: so long ago, or a day or time.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::{Timestamp, tz::TimeZone};

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    /// So long before now.
    Ago(Duration),
    /// Then.
    At(Timestamp),
}

impl Span {
    /// The moment, as seen from `now`.
    pub(super) fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH).max(Timestamp::UNIX_EPOCH),
            Self::At(at) => at,
        }
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(ago) = ago(text) {
            return Ok(Self::Ago(ago));
        }
        let utc = |at: DateTime| at.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
        let at = text.parse::<Timestamp>().ok();
        let at = at.or_else(|| utc(text.parse().ok()?));
        at.map(Self::At).ok_or_else(|| "write 90m, 24h or 7d, or a day or time as 2026-11-01T12:00:00Z".to_owned())
    }
}

fn ago(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_as_people_name_them() {
        let now: Timestamp = "2026-11-30T15:30:00Z".parse().expect("time");
        for (text, seen) in [
            ("90m", "2026-11-30T14:00:00Z"),
            ("24h", "2026-11-29T15:30:00Z"),
            ("7d", "2026-11-23T15:30:00Z"),
            ("2026-11-01", "2026-11-01T00:00:00Z"),
            ("2026-11-01T12:00", "2026-11-01T12:00:00Z"),
            ("2026-11-01T12:00:00+02:00", "2026-11-01T10:00:00Z"),
        ] {
            assert_eq!(text.parse::<Span>().expect(text).before(now).to_string(), seen, "{text}");
        }
        for broken in ["", "h", "1", "-1h", "1y", "yesterday", "2026-13-01", "99999999999999999999d"] {
            assert!(broken.parse::<Span>().is_err(), "{broken}");
        }
        assert_eq!(Span::Ago(Duration::MAX).before(now), Timestamp::UNIX_EPOCH);
    }
}
