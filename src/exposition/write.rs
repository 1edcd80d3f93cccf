//! Lines written.

use super::line::Sample;

/// Writes a sample under `name` with the given labels before its own ones, of which those stay that `keep` wants. A label
/// that is given is never one of its own as well.
pub fn sample(out: &mut Vec<u8>, name: &str, sample: &Sample<'_>, given: &[(&str, &str)], keep: impl Fn(&str) -> bool) {
    out.extend_from_slice(name.as_bytes());
    let mut separator = b'{';
    for (name, value) in given {
        out.push(std::mem::replace(&mut separator, b','));
        label(out, name, value);
    }
    for (name, raw) in sample.labels.iter() {
        if keep(name) && !given.iter().any(|(other, _)| *other == name) {
            out.push(std::mem::replace(&mut separator, b','));
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"=\"");
            out.extend_from_slice(raw.as_bytes());
            out.push(b'"');
        }
    }
    if separator == b',' {
        out.push(b'}');
    }
    out.push(b' ');
    out.extend_from_slice(sample.value.as_bytes());
    if let Some(timestamp) = sample.timestamp {
        out.push(b' ');
        out.extend_from_slice(timestamp.as_bytes());
    }
    out.push(b'\n');
}

/// Writes one label, its value escaped.
pub fn label(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    for byte in value.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            other => out.push(other),
        }
    }
    out.push(b'"');
}

/// Writes `# WORD family text`; the text is one line.
pub fn comment(out: &mut Vec<u8>, word: &str, family: &str, text: &str) {
    for part in ["# ", word, " ", family, " "] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    out.push(b'\n');
}
