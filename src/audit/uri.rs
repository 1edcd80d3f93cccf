//! A request's URI as an event may show it, and the command of an exec.
//!
//! Promises: of the query only parameters that are known to be harmless are left; nothing of the query of somebody else's
//! API (a pod's, a service's, behind `proxy`).

use super::text::cut;
use crate::runtime::query;

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
/// Behind what is left of a command.
const CUT: &str = " …";
/// Of a command's words.
const MOST_WORDS: usize = 64;

/// Path and what is left of the query.
pub(super) fn shown(path: &str, query: &str, with_command: bool, is_proxy: bool) -> String {
    let mut shown = cut(path, LONGEST).to_owned();
    let kept = query.split('&').filter(|pair| {
        let key = pair.split_once('=').map_or(*pair, |(key, _)| key);
        let is_harmless = HARMLESS.contains(&key) || key == WATCH;
        let is_command = || with_command && query::pair(pair).is_some_and(|(key, _)| key == COMMAND.as_bytes());
        (is_harmless || is_command()) && !is_proxy && !pair.contains(';')
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

/// The words of an exec's command as whoever runs it reads them, those with anything unusual in quotes.
pub(super) fn command(query: &str) -> String {
    let mut command = String::new();
    let words = query::pairs(query).filter(|(key, _)| key == COMMAND.as_bytes());
    for (number, (_, word)) in words.enumerate() {
        // Whoever reads it shall know that there is more.
        if number == MOST_WORDS || command.len() > LONGEST_COMMAND {
            return format!("{}{CUT}", cut(&command, LONGEST_COMMAND));
        }
        let word = String::from_utf8_lossy(&word);
        if !command.is_empty() {
            command.push(' ');
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
        if !word.is_empty() && word.chars().all(is_plain) {
            command.push_str(&word);
        } else {
            command.push_str(&format!("{word:?}"));
        }
    }
    if command.len() > LONGEST_COMMAND {
        return format!("{}{CUT}", cut(&command, LONGEST_COMMAND));
    }
    command
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
        assert!(command(&"command=%22%00&".repeat(5000)).len() <= LONGEST_COMMAND + CUT.len());
    }

    /// What is run is what is read here: keys may be encoded, and words may be many.
    #[test]
    fn nothing_of_a_command_is_hidden() {
        assert_eq!(command("comm%61nd=sh&command=-c&com%6Dand=evil"), "sh -c evil");
        assert!(shown("/p", "comm%61nd=sh", true, false).contains("comm%61nd=sh"));
        assert_eq!(command("command=a%zz&command=b;c&command=d"), "d", "the others are not run either");
        let padded = format!("command=env&{}command=evil", "command=A%3D1&".repeat(64));
        assert!(command(&padded).ends_with(CUT), "{}", command(&padded));
        let long = format!("command=echo&command={}&command=evil", "a".repeat(2000));
        assert!(command(&long).ends_with(CUT));
    }
}
