//! Percentiles of what was measured.
#![allow(dead_code, unreachable_pub, unused_imports)]

use std::time::Duration;

/// The smallest value that so many of a hundred do not exceed; `None` of nothing.
pub fn percentile(values: &[Duration], share: usize) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * share).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let millis = |list: &[u64]| list.iter().map(|n| Duration::from_millis(*n)).collect::<Vec<_>>();
        let at = |list: &[u64], share| percentile(&millis(list), share).map(|value| value.as_millis());
        assert_eq!(at(&[], 50), None);
        assert_eq!((at(&[7], 1), at(&[7], 50), at(&[7], 100)), (Some(7), Some(7), Some(7)));
        assert_eq!((at(&[3, 1, 2, 4], 50), at(&[3, 1, 2, 4], 99)), (Some(2), Some(4)));
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!((at(&hundred, 50), at(&hundred, 99), at(&hundred, 100)), (Some(50), Some(99), Some(100)));
    }
}
