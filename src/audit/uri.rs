//! A request's URI as an event may show it, and the command of an exec.
//!
//! Promises: of the query only parameters that are known to be harmless are left; nothing of the query of somebody else's
//! API (a pod's, a service's, behind `proxy`).

use percent_encoding::percent_decode_str;

use super::text::cut;

/// What stays of a query, as it was written. Not `continue`, which has keys of objects, and whatever is not known: tokens stand
/// in such.
const HARMLESS: [&str; 30] = [
    "allowWatchBookmarks",
    "container",
    "dryRun",
    "fieldManager",
    "fieldSelector",
    "fieldValidation",
    "follow",
    "force",
    "gracePeriodSeconds",
    "labelSelector",
    "limit",
    "limitBytes",
    "orphanDependents",
    "ports",
    "pretty",
    "previous",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "sinceSeconds",
    "sinceTime",
    "stderr",
    "stdin",
    "stdout",
    "tailLines",
    "timeout",
    "timeoutSeconds",
    "timestamps",
    "tty",
];
const WATCH: &str = "watch";
const COMMAND: &str = "command";
const LONGEST: usize = 1 << 10;
const LONGEST_COMMAND: usize = 1 << 10;
/// Of a command's words.
const MOST_WORDS: usize = 64;

/// Path and what is left of the query.
pub(super) fn shown(path: &str, query: &str, with_command: bool, is_proxy: bool) -> String {
    let mut shown = cut(path, LONGEST).to_owned();
    let kept = query.split('&').filter(|pair| {
        let key = pair.split_once('=').map_or(*pair, |(key, _)| key);
        let is_harmless = HARMLESS.contains(&key) || key == WATCH;
        (is_harmless || with_command && key == COMMAND) && !is_proxy && !pair.contains(';')
    });
    let mut separator = '?';
    for pair in kept {
        // What does not fit is left out, and all behind it: half a pair could be taken for another.
        if shown.len() + 1 + pair.len() > LONGEST || cut(pair, LONGEST) != pair {
            break;
        }
        shown.push(std::mem::replace(&mut separator, '&'));
        shown.push_str(pair);
    }
    cut(&shown, LONGEST).to_owned()
}

/// The words of an exec's command, those with anything unusual in quotes.
pub(super) fn command(query: &str) -> String {
    let mut command = String::new();
    let words = query.split('&').filter(|pair| !pair.contains(';')).filter_map(|pair| pair.split_once('='));
    for (_, word) in words.filter(|(key, _)| *key == COMMAND).take(MOST_WORDS) {
        let spaced = word.replace('+', " ");
        let word = percent_decode_str(&spaced).decode_utf8_lossy();
        if !command.is_empty() {
            command.push(' ');
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
        if !word.is_empty() && word.chars().all(is_plain) {
            command.push_str(&word);
        } else {
            command.push_str(&format!("{word:?}"));
        }
        if command.len() > LONGEST_COMMAND {
            break;
        }
    }
    cut(&command, LONGEST_COMMAND).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_harmless_is_left() {
        let exec =
            "container=c&command=sh&command=-c&command=cat+%2Fetc%2Fpw&stdin=true&token=s3cret&access_token=s3cret";
        assert_eq!(shown("/api/x", exec, false, false), "/api/x?container=c&stdin=true");
        assert!(shown("/api/x", exec, true, false).contains("command=sh&command=-c"));
        assert_eq!(shown("/p/proxy/", "watch=s3cret&container=s3cret", true, true), "/p/proxy/");
        assert_eq!(shown("/p", "s3cret&watch&wat%63h=s3cret&limit=1;token=s3cret", true, false), "/p?watch");
        assert_eq!(command(exec), "sh -c \"cat /etc/pw\"");
    }

    #[test]
    fn what_is_long_is_cut_between_parameters() {
        let long = format!("container={}&stdin=true", "a".repeat(2000));
        assert_eq!(shown("/p", &long, false, false), "/p");
        assert_eq!(shown(&"/p".repeat(3000), "watch=1", false, false).len(), LONGEST);
        assert!(command(&"command=%22%00&".repeat(5000)).len() <= LONGEST_COMMAND);
    }
}
