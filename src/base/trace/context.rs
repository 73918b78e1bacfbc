//! `traceparent` (W3C Trace Context, sections 3.2 and 4): the trace that a call belongs to. A malformed header is ignored.

use crate::limits;

/// A trace id.
pub type TraceId = [u8; 16];
/// A span id.
pub type SpanId = [u8; 8];

/// The trace context that a caller sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceContext {
    /// The trace id.
    pub trace: TraceId,
    /// The caller's span id.
    pub span: SpanId,
    /// The caller may have recorded its own spans.
    pub sampled: bool,
}

/// Length of version 00, in bytes.
const LENGTH: usize = 55;

impl TraceContext {
    /// Parses a `traceparent`. `None`: malformed, upper-case digits, an id of zeros, or version ff. A version above 00 may continue after a
    /// further hyphen; of its flags only the one that version 00 defines is used.
    pub fn parse(text: &[u8]) -> Option<TraceContext> {
        if text.len() > limits::TRACEPARENT_BYTES {
            return None;
        }
        let (known, more) = text.split_at_checked(LENGTH)?;
        let [version, trace, span, flags] = fields(known)?;
        let version = byte(version)?;
        let fits = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.is_empty() || more.first() == Some(&b'-'),
        };
        let (trace, span) = (id::<16>(trace)?, id::<8>(span)?);
        let sampled = byte(flags)? & 1 == 1;
        fits.then_some(TraceContext { trace, span, sampled })
    }

    /// The header text, version 00.
    pub fn header(&self) -> String {
        format!("00-{}-{}-{:02x}", hex(&self.trace), hex(&self.span), u8::from(self.sampled))
    }
}

/// Lower-case hexadecimal, as in headers and records.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// The four fields of version 00, at their fixed positions.
fn fields(known: &[u8]) -> Option<[&[u8]; 4]> {
    let hyphens = [2, 35, 52].iter().all(|at| known.get(*at) == Some(&b'-'));
    let fields = [known.get(..2)?, known.get(3..35)?, known.get(36..52)?, known.get(53..LENGTH)?];
    hyphens.then_some(fields)
}

/// An id of lower-case digits that are not all 0.
fn id<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut id = [0; N];
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    for (to, pair) in id.iter_mut().zip(pairs) {
        *to = byte(pair)?;
    }
    (pairs.len() == N && id.iter().any(|b| *b != 0)).then_some(id)
}

fn byte(pair: &[u8]) -> Option<u8> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let context = TraceContext::parse(GOOD.as_bytes()).unwrap();
        assert_eq!((hex(&context.trace).as_str(), context.sampled), ("4bf92f3577b34da6a3ce929d0e0e4736", true));
        assert_eq!(context.header(), GOOD);
        let not =
            TraceContext::parse(&GOOD.as_bytes().iter().rev().skip(1).rev().copied().chain(*b"0").collect::<Vec<_>>()).unwrap();
        assert!(!not.sampled);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for (text, sampled) in [
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like", true),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", true),
        ] {
            assert_eq!(TraceContext::parse(text.as_bytes()).map(|c| c.sampled), Some(sampled), "{text}");
        }
    }

    #[test]
    fn what_the_specification_calls_invalid_is_ignored() {
        for text in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0F-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1",
        ] {
            assert_eq!(TraceContext::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(TraceContext::parse(format!("cc{}-{}", &GOOD[2..], "x".repeat(limits::TRACEPARENT_BYTES)).as_bytes()), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace: [u8; 16], span: [u8; 8], sampled: bool) {
            let context = TraceContext { trace, span, sampled };
            let zero = trace == [0; 16] || span == [0; 8];
            prop_assert_eq!(TraceContext::parse(context.header().as_bytes()), (!zero).then_some(context));
        }

        #[test]
        fn one_wrong_byte_never_gives_another_trace(at in 0usize..55, byte: u8) {
            let mut text = GOOD.as_bytes().to_vec();
            text[at] = byte;
            if let Some(context) = TraceContext::parse(&text) {
                let written = context.header();
                prop_assert_eq!(&written.as_bytes()[3..52], &text[3..52], "read as what stands there");
            }
        }
    }
}
