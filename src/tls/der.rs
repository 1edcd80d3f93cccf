//! The little of DER that certificates of ours are written in. Pure.

/// Tags.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const UTF8_STRING: u8 = 0x0c;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `UTCTime` and `GeneralizedTime`.
pub(super) const TIMES: [u8; 2] = [0x17, 0x18];
/// Explicit tags of a context.
pub(super) const CONTEXT: [u8; 4] = [0xa0, 0xa1, 0xa2, 0xa3];
/// `[0]`, implicit, of bytes.
pub(super) const CONTEXT_BYTES: u8 = 0x80;
pub(super) const TRUE: [u8; 3] = [0x01, 0x01, 0xff];
pub(super) const NULL: [u8; 2] = [0x05, 0x00];

/// Tag, length and content.
pub(super) fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let length: Vec<u8> = content.len().to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            // A length of eight bytes at most.
            out.push(0x80 | length.len() as u8);
            out.extend(length);
        }
    }
    out.extend_from_slice(content);
    out
}

pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tagged(SEQUENCE, &parts.concat())
}

pub(super) fn set(content: &[u8]) -> Vec<u8> {
    tagged(SET, content)
}

/// Of a number without a sign, in whatever length.
pub(super) fn integer(number: &[u8]) -> Vec<u8> {
    let mut content: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
    if content.first().is_none_or(|first| *first >= 0x80) {
        content.insert(0, 0);
    }
    tagged(INTEGER, &content)
}

/// Of whole bytes.
pub(super) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    bits(0, bytes)
}

/// Of bytes whose last has so many bits that do not count.
pub(super) fn bits(unused: u8, bytes: &[u8]) -> Vec<u8> {
    tagged(BIT_STRING, &[&[unused], bytes].concat())
}

pub(super) fn octets(content: &[u8]) -> Vec<u8> {
    tagged(OCTET_STRING, content)
}

pub(super) fn text(text: &str) -> Vec<u8> {
    tagged(UTF8_STRING, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_numbers_have_one_form() {
        assert_eq!(tagged(4, &[1]), [4, 1, 1]);
        assert_eq!(tagged(4, &[0; 127])[..2], [4, 127]);
        assert_eq!(tagged(4, &[0; 128])[..3], [4, 0x81, 128]);
        assert_eq!(tagged(4, &[0; 300])[..4], [4, 0x82, 1, 44]);
        assert_eq!(integer(&[]), [2, 1, 0]);
        assert_eq!(integer(&[0, 0, 5]), [2, 1, 5]);
        assert_eq!(integer(&[0x80]), [2, 2, 0, 0x80]);
    }
}
