//! Query parameters as Go reads them.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The first value of a parameter, decoded; `None` when it is absent or cannot be decoded.
pub fn parameter(raw_query: &str, name: &str) -> Option<String> {
    raw_query.split('&').find_map(|pair| {
        // Go's url.ParseQuery drops pairs with a semicolon
        if pair.contains(';') {
            return None;
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key)? == name).then(|| decode(value))?
    })
}

/// A boolean parameter: absent, `0` and `false` are false, everything else (the empty value too) is true.
pub fn is_truthy(raw_query: &str, name: &str) -> bool {
    parameter(raw_query, name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
}

fn decode(text: &str) -> Option<String> {
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)
}
