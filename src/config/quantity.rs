//! Kubernetes quantities (`k8s.io/apimachinery/pkg/api/resource`), as far as amounts of CPU, memory and storage need them.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Kind, Result};

/// An amount such as `500m`, `2Gi` or `1e9`, ordered by what it amounts to.
#[derive(Debug, Clone)]
pub struct Quantity {
    text: String,
    /// In thousandths, rounded up.
    milli: u128,
}

/// Beyond every machine, and far below what could overflow.
const MOST_DIGITS: usize = 18;

impl Quantity {
    /// Reads one; negative ones and such of more than 18 digits are refused.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid =
            || Error::client(Kind::Invalid, format!("{text:?} is not a quantity: write it as 500m, 2, 512Mi or 10Gi"));
        let milli = milli(text).ok_or_else(invalid)?;
        Ok(Self { text: text.to_owned(), milli })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whole units, rounded up: bytes of memory.
    pub fn units(&self) -> u64 {
        u64::try_from(self.milli.div_ceil(1000)).unwrap_or(u64::MAX)
    }
}

fn milli(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > MOST_DIGITS || fraction.contains('.') {
        return None;
    }
    let value: u128 = digits.parse().ok()?;
    let (factor, divisor) = scale(suffix)?;
    let divisor = 10_u128.pow(u32::try_from(fraction.len()).ok()?) * divisor;
    Some((value * factor * 1000).div_ceil(divisor))
}

/// By what a suffix multiplies and divides.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    const DECIMAL: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const SMALL: [&str; 4] = ["", "m", "u", "n"];
    let power = |base: u128, of: &[&str]| of.iter().zip(0..).find(|(s, _)| **s == suffix).map(|(_, n)| base.pow(n));
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']).filter(|e| !e.is_empty()) {
        let exponent: i8 = exponent.parse().ok()?;
        let power =
            10_u128.checked_pow(u32::from(exponent.unsigned_abs())).filter(|_| exponent.unsigned_abs() <= 18)?;
        return Some(if exponent < 0 { (1, power) } else { (power, 1) });
    }
    power(1000, &DECIMAL)
        .or_else(|| power(1024, &BINARY))
        .map(|f| (f, 1))
        .or_else(|| power(1000, &SMALL).map(|d| (1, d)))
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.milli == other.milli
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.milli.cmp(&other.milli)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

impl schemars::JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        let of = |text: &str| Quantity::parse(text).map(|quantity| quantity.milli).ok();
        let gi = 1 << 30;
        for (text, milli) in [
            ("1", 1000),
            ("500m", 500),
            ("0.5", 500),
            ("1.5Gi", 1500 * gi),
            ("2Gi", 2000 * gi),
            ("1k", 1_000_000),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("1e-3", 1),
            ("100u", 1),
            ("1n", 1),
            ("0", 0),
            ("1E", 10_u128.pow(21)),
        ] {
            assert_eq!(of(text), Some(milli), "{text}");
        }
        for text in ["", "Gi", "-1", "+1", "1.2.3", "1 Gi", "1gi", "1e", "1e99", "9999999999999999999", "1e+", "½"] {
            assert_eq!(of(text), None, "{text}");
        }
        assert!(Quantity::parse("1Gi").expect("valid") > Quantity::parse("1G").expect("valid"));
        assert_eq!(Quantity::parse("1.5").expect("valid").units(), 2);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in "[0-9.]{0,20}[a-zA-Z0-9+-]{0,4}") {
            let _ = Quantity::parse(&text);
        }
    }
}
