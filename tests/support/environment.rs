//! What a bench is told by its environment.
#![allow(dead_code, unreachable_pub, clippy::panic)]

use std::fmt::Display;
use std::str::FromStr;

/// One that must be there.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: benches/run prepares the bench and sets it"))
}

/// A number, or this one where it is not set.
pub fn number<T: FromStr + Display>(name: &str, default: T) -> T {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
