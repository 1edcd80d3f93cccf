//! Amounts and durations as `metrics.k8s.io` writes them, finer than [`crate::config::Quantity`] counts.

use std::time::Duration;

use jiff::SignedDuration;

/// CPU: `12345678n`, `250m`, `2`.
pub(super) fn nanocores(text: &str) -> Option<u64> {
    let (number, factor) = match text.as_bytes().last()? {
        b'n' => (&text[..text.len() - 1], 1),
        b'u' => (&text[..text.len() - 1], 1_000),
        b'm' => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1_000_000_000),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let number: f64 = number.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)?;
    // Saturates where it is beyond every machine.
    Some((number * factor as f64) as u64)
}

/// `15.059s`, `1m0s`. Negative ones are none.
pub(super) fn duration(text: &str) -> Option<Duration> {
    Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_durations() {
        for (text, expected) in [
            ("12345678n", Some(12_345_678)),
            ("0", Some(0)),
            ("250m", Some(250_000_000)),
            ("3u", Some(3_000)),
            ("2", Some(2_000_000_000)),
            ("1.5", Some(1_500_000_000)),
            ("", None),
            ("n", None),
            ("-1n", None),
            ("NaN", None),
            ("many", None),
            ("99999999999999999999", Some(u64::MAX)),
        ] {
            assert_eq!(nanocores(text), expected, "{text}");
        }
        assert_eq!(duration("15.059s"), Some(Duration::from_millis(15_059)));
        assert_eq!(duration("1m0s"), Some(Duration::from_secs(60)));
        assert_eq!((duration("-1s"), duration("soon")), (None, None));
    }
}
