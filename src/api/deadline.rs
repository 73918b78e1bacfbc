//! The caller's deadline: `grpc-timeout` (gRPC over HTTP/2, "Requests", Timeout). No work is done for a caller that no longer waits.

use std::time::Duration;

use http::HeaderMap;

use mayfly_base::refusal::{Reason, Refusal};

const HEADER: &str = "grpc-timeout";
/// Most digits of the timeout's number, by the specification.
const DIGITS: usize = 8;

/// The time for which the caller waits, counted from now; `None` if the headers set no deadline.
pub(super) fn caller_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(first) = headers.get(HEADER) else { return Ok(None) };
    let once = headers.get_all(HEADER).iter().nth(1).is_none();
    match parse(first.as_bytes()).filter(|_| once) {
        Some(within) => Ok(Some(within)),
        None => Err(Refusal::field(HEADER, "must be 1 to 8 digits and a unit, one of H, M, S, m, u, n, once, like 500m")),
    }
}

fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |n: u64, digit| n * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The answer to a call whose deadline has passed. Proposals that the call already made to the ledger are still decided there.
pub(super) fn deadline_passed(within: Duration) -> Refusal {
    let what = format!("the deadline of this call, {within:?}, has passed; the request may have been carried out all the same");
    Refusal::new(Reason::DeadlineExceeded, what).by(HEADER).way_out(
        "check first whether the request took effect; a repeat with the same request_id gets the result of the first call",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit_and_nothing_else() {
        let good = [
            ("1H", Duration::from_secs(3600)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("02M", Duration::from_secs(120)),
            ("30S", Duration::from_secs(30)),
            ("500m", Duration::from_millis(500)),
            ("7u", Duration::from_micros(7)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("0S", Duration::ZERO),
        ];
        for (text, expected) in good {
            assert_eq!(parse(text.as_bytes()), Some(expected), "{text}");
        }
        for text in
            ["", "S", "5", "5s", "5h", "5D", "123456789S", "-1S", "+1S", " 1S", "1 S", "1S ", "1.5S", "1e3S", "0x1S", "\u{0661}S"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn headers_say_it_once_or_not_at_all() {
        let mut headers = HeaderMap::new();
        assert_eq!(caller_timeout(&headers), Ok(None));
        headers.insert(HEADER, "2S".parse().unwrap());
        assert_eq!(caller_timeout(&headers), Ok(Some(Duration::from_secs(2))));
        headers.append(HEADER, "2S".parse().unwrap());
        let no = caller_timeout(&headers).unwrap_err();
        assert_eq!((no.reason, no.field), (Reason::InvalidField, Some("grpc-timeout")));
    }
}
