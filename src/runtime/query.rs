//! A query as Go's `net/url` reads it, so that what is judged here is what servers do.

use percent_encoding::percent_decode;

/// Parameters in order, decoded; pairs with a semicolon or a bad encoding are left out. Bytes, since a command's arguments need not be
/// UTF-8.
pub fn pairs(raw_query: &str) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + '_ {
    raw_query.split('&').filter_map(pair)
}

/// One of them.
pub fn pair(written: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    if written.is_empty() || written.contains(';') {
        return None;
    }
    let (key, value) = written.split_once('=').unwrap_or((written, ""));
    Some((decode(key)?, decode(value)?))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    let valid = bytes
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'%')
        .all(|(at, _)| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)));
    valid.then(|| percent_decode(text.replace('+', " ").as_bytes()).collect())
}
