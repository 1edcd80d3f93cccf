//! One line taken apart, and a body cut into lines.

use std::borrow::Cow;

/// More labels than any family has; a line of more is malformed.
const MOST_LABELS: usize = 64;

/// A line, borrowed from the text it was read in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Line<'a> {
    /// `# TYPE family kind`.
    Type {
        /// Name of the family.
        family: &'a str,
        /// `counter`, `gauge`, `histogram`, `summary`, `untyped`, or a word of OpenMetrics.
        kind: &'a str,
    },
    /// `# HELP family text`, the text as written; `# UNIT` likewise.
    About {
        /// `HELP` or `UNIT`.
        word: &'a str,
        /// Name of the family.
        family: &'a str,
        /// The rest, escapes left in.
        text: &'a str,
    },
    /// A value.
    Sample(Sample<'a>),
    /// `# EOF`: nothing may follow.
    End,
    /// An empty line or a comment that says nothing.
    Nothing,
}

/// One value of one series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// With its suffix, such as `_bucket`.
    pub name: &'a str,
    /// What is between the braces.
    pub labels: Labels<'a>,
    /// The number as written.
    pub value: &'a str,
    /// When it was taken, as written: milliseconds, or seconds in OpenMetrics.
    pub timestamp: Option<&'a str>,
}

impl Sample<'_> {
    /// The value as a number.
    pub fn number(&self) -> f64 {
        number(self.value).unwrap_or(f64::NAN)
    }
}

/// Labels as written, well formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Labels<'a>(&'a str);

impl<'a> Labels<'a> {
    /// Name and value of each, the value with its escapes.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (name, value, after) = first_label(rest)?;
            rest = after;
            Some((name, value))
        })
    }

    /// The value of one, escapes resolved.
    pub fn get(self, name: &str) -> Option<Cow<'a, str>> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| unescaped(value))
    }
}

impl<'a> Line<'a> {
    /// Reads one line without its end. `None`: it is malformed.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?;
        let text = text.strip_suffix('\r').unwrap_or(text).trim_matches([' ', '\t']);
        match text.strip_prefix('#') {
            Some(comment) => parse_comment(comment),
            None if text.is_empty() => Some(Self::Nothing),
            None => parse_sample(text).map(Self::Sample),
        }
    }
}

/// Cuts what comes in pieces into lines.
#[derive(Debug)]
pub struct Lines {
    begun: Vec<u8>,
    longest: usize,
    /// In the rest of a line that was too long.
    skips: bool,
    too_long: u64,
}

impl Lines {
    /// Lines of at most `longest` bytes; longer ones are left out and counted.
    pub fn new(longest: usize) -> Self {
        Self { begun: Vec::new(), longest, skips: false, too_long: 0 }
    }

    /// How many lines were left out.
    pub fn too_long(&self) -> u64 {
        self.too_long
    }

    /// The lines that end in this piece.
    pub fn push(&mut self, mut piece: &[u8], mut each: impl FnMut(&[u8])) {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (&piece[..end], &piece[end + 1..]);
            piece = rest;
            if std::mem::take(&mut self.skips) {
                continue;
            }
            if self.begun.len() + line.len() > self.longest {
                self.too_long += 1;
                self.begun.clear();
            } else if self.begun.is_empty() {
                each(line);
            } else {
                self.begun.extend_from_slice(line);
                each(&self.begun);
                self.begun.clear();
            }
        }
        if self.skips {
            return;
        }
        if self.begun.len() + piece.len() > self.longest {
            self.too_long += 1;
            self.skips = true;
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(piece);
        }
    }

    /// The last line, when the body ended without a line end. Whether the body was whole, the caller knows: of one that broke
    /// off this is not a line.
    pub fn finish(&mut self, each: impl FnOnce(&[u8])) {
        if !std::mem::take(&mut self.skips) && !self.begun.is_empty() {
            each(&self.begun);
        }
        self.begun = Vec::new();
    }
}

fn parse_comment(comment: &str) -> Option<Line<'_>> {
    let comment = comment.trim_start_matches([' ', '\t']);
    if comment == "EOF" {
        return Some(Line::End);
    }
    let Some((word @ ("TYPE" | "HELP" | "UNIT"), rest)) = comment.split_once([' ', '\t']) else {
        return Some(Line::Nothing);
    };
    let (family, text) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    if !is_name(family, true) {
        return None;
    }
    if word != "TYPE" {
        return Some(Line::About { word, family, text });
    }
    let kind = text.trim_matches([' ', '\t']);
    let is_word = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase());
    is_word.then_some(Line::Type { family, kind })
}

fn parse_sample(text: &str) -> Option<Sample<'_>> {
    let end = text.find(['{', ' ', '\t'])?;
    let (name, rest) = text.split_at(end);
    if !is_name(name, true) {
        return None;
    }
    let rest = rest.trim_start_matches([' ', '\t']);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inner) => {
            let end = labels_end(inner)?;
            (Labels(&inner[..end]), &inner[end + 1..])
        }
        None => (Labels::default(), rest),
    };
    // An exemplar is left out: its labels are a caller's words.
    let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
    let mut words = rest.split_ascii_whitespace();
    let value = words.next().filter(|value| number(value).is_some())?;
    let timestamp = words.next();
    let is_time = timestamp.is_none_or(|time| number(time).is_some_and(f64::is_finite));
    (is_time && words.next().is_none()).then_some(Sample { name, labels, value, timestamp })
}

/// Where the closing brace is, when all before it is well formed.
fn labels_end(inner: &str) -> Option<usize> {
    let (mut rest, mut count) = (inner, 0);
    loop {
        let at = rest.trim_start_matches([' ', '\t', ',']);
        if at.starts_with('}') {
            return Some(inner.len() - at.len());
        }
        count += 1;
        let (_, _, after) = first_label(at).filter(|_| count <= MOST_LABELS)?;
        if !after.trim_start_matches([' ', '\t']).starts_with([',', '}']) {
            return None;
        }
        rest = after;
    }
}

/// Name, value as written, and what follows.
fn first_label(text: &str) -> Option<(&str, &str, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let (name, rest) = text.split_once('=')?;
    let name = name.trim_end_matches([' ', '\t']);
    let rest = rest.trim_start_matches([' ', '\t']).strip_prefix('"')?;
    if !is_name(name, false) {
        return None;
    }
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((name, &rest[..at], &rest[at + 1..])),
            _ => {}
        }
    }
    None
}

fn is_name(name: &str, with_colons: bool) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (with_colons && byte == b':');
    !name.is_empty() && name.bytes().all(is_part) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Go's words for what is no number are Rust's too; what Rust takes beyond Go's (`infinity`) does no harm.
fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

fn unescaped(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let (mut text, mut characters) = (String::with_capacity(value.len()), value.chars());
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('n') => text.push('\n'),
                Some(other @ ('\\' | '"')) => text.push(other),
                Some(other) => text.extend(['\\', other]),
                None => text.push('\\'),
            },
            (other, false) => text.push(other),
        }
    }
    Cow::Owned(text)
}
