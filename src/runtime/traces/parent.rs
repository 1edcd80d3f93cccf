//! The trace that a request is part of, as its headers name it (W3C Trace Context, `traceparent` and `tracestate`).

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Trace, span and whether it is sampled.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What vendors add to it.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Of `tracestate`: what everybody must pass on at least. A longer one is left out.
const LONGEST_STATE: usize = 512;

/// Whose part a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
    pub(super) is_sampled: bool,
    pub(super) state: Option<HeaderValue>,
}

impl Parent {
    /// `None` where there is none, or it cannot be read: then the request begins a trace of its own.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let (only, None) = (all.next()?, all.next()) else { return None };
        let mut parent = Self::parse(only.as_bytes())?;
        let mut states = headers.get_all(TRACESTATE).iter();
        if let (Some(state), None) = (states.next(), states.next())
            && state.len() <= LONGEST_STATE
            && state.to_str().is_ok()
        {
            parent.state = Some(state.clone());
        }
        Some(parent)
    }

    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        // version-trace-span-flags; later versions may add to it.
        let (known, rest) = text.split_at_checked(55)?;
        let is_hex = |part: &[u8]| part.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
        let [version, trace, span, flags] = known.split(|b| *b == b'-').collect::<Vec<_>>().try_into().ok()?;
        let fits = (version.len(), trace.len(), span.len(), flags.len()) == (2, 32, 16, 2);
        if !fits || ![version, trace, span, flags].into_iter().all(is_hex) || version == b"ff" {
            return None;
        }
        if !rest.is_empty() && (version == b"00" || rest.first() != Some(&b'-')) {
            return None;
        }
        let trace: [u8; 16] = bytes(trace)?;
        let span: [u8; 8] = bytes(span)?;
        let [flags] = bytes::<1>(flags)?;
        let is_none = trace == [0; 16] || span == [0; 8];
        (!is_none).then_some(Self { trace, span, is_sampled: flags & 1 == 1, state: None })
    }
}

/// As it is said to whoever does a part of it; sampled.
pub(super) fn said(trace: &[u8; 16], span: &[u8; 8]) -> Option<HeaderValue> {
    let mut value =
        HeaderValue::try_from(format!("00-{}-{}-01", HEXLOWER.encode(trace), HEXLOWER.encode(span))).ok()?;
    // Each is another one: in HPACK's tables it would only push out what comes again.
    value.set_sensitive(true);
    Some(value)
}

fn bytes<const N: usize>(hex: &[u8]) -> Option<[u8; N]> {
    HEXLOWER_PERMISSIVE.decode(hex).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parsed(text: &str) -> Option<Parent> {
        Parent::parse(text.as_bytes())
    }

    #[test]
    fn what_is_written_is_read() {
        let parent = parsed(GOOD).expect("good");
        assert!(parent.is_sampled);
        assert_eq!(said(&parent.trace, &parent.span).expect("a value"), GOOD);
        assert!(!parsed(&GOOD.replace("-01", "-00")).expect("good").is_sampled);
        assert!(parsed(&format!("{}-more", GOOD.replacen("00", "01", 1))).is_some(), "a later version");
    }

    #[test]
    fn what_is_not_exactly_that_is_none() {
        let zero_trace = GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32));
        let zero_span = GOOD.replace("b7ad6b7169203331", &"0".repeat(16));
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD}x"),
            &GOOD.to_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replace('-', "_"),
            &GOOD.replace("0af", "0ag"),
            &zero_trace,
            &zero_span,
            &format!("{}x", GOOD.replacen("00", "01", 1)),
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn several_are_none_and_a_long_state_is_left_out() {
        let mut headers = HeaderMap::new();
        let value = |text: &str| HeaderValue::try_from(text).expect("a value");
        headers.append(TRACEPARENT, value(GOOD));
        headers.insert(TRACESTATE, value("a=1"));
        assert_eq!(Parent::of(&headers).and_then(|parent| parent.state), Some(value("a=1")));
        headers.insert(TRACESTATE, value(&"a".repeat(513)));
        assert_eq!(Parent::of(&headers).expect("read").state, None);
        headers.append(TRACEPARENT, value(GOOD));
        assert_eq!(Parent::of(&headers), None);
    }
}
