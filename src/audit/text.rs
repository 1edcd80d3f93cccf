//! Texts that a client chose, cut.

/// As much of a text as takes at most so many bytes within a JSON string.
pub fn cut(text: &str, most: usize) -> &str {
    let mut left = most;
    for (at, c) in text.char_indices() {
        let cost = match c {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            c if c < ' ' => 6,
            c => c.len_utf8(),
        };
        let Some(rest) = left.checked_sub(cost) else { return text.get(..at).unwrap_or_default() };
        left = rest;
    }
    text
}

/// Of several texts at most so many, each cut, and together not above `all`.
pub(super) fn cut_all<'a>(texts: impl Iterator<Item = &'a str>, many: usize, each: usize, all: usize) -> Vec<String> {
    let mut left = all;
    let mut kept = Vec::new();
    for text in texts.take(many) {
        let text = cut(text, each.min(left));
        // Its quotes and its comma count as well; six times its length is the most that it takes.
        let taken = serde_json::to_string(text).map_or(usize::MAX, |json| json.len() + 1);
        if taken > left {
            break;
        }
        left -= taken;
        kept.push(text.to_owned());
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_left_fits(text in "[\\x00-\\x7f\u{e9}\u{1f600}\"\\\\]{0,60}", most in 0_usize..80) {
            let left = cut(&text, most);
            let json = serde_json::to_string(left).expect("JSON").len() - 2;
            prop_assert!(json <= most && text.starts_with(left));
            let next = text[left.len()..].chars().next();
            prop_assert!(next.is_none_or(|c| json + 6 > most || json + c.len_utf8() > most), "no more is lost than must be");
        }
    }

    #[test]
    fn few_are_left_of_many() {
        let many = ["aaaa"; 100];
        assert_eq!(cut_all(many.into_iter(), 3, 2, 100), ["aa", "aa", "aa"]);
        assert_eq!(cut_all(many.into_iter(), 100, 10, 15).len(), 2);
    }
}
