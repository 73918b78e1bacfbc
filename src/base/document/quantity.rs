//! Durations like `1h30m` and sizes like `64MiB`.

use mayfly_verify::seq::Millis;

/// The form of a duration, for complaints.
pub const DURATION_FORM: &str = "a duration is written like 500ms, 30s, 5m, 1h30m or 7d";
/// The form of a size, for complaints.
pub const SIZE_FORM: &str = "a size is written like 512B, 64KiB, 64MiB or 1GiB";
/// The form of a moment, for complaints.
pub const MOMENT_FORM: &str = "a moment is written like 2027-06-30 (its start, UTC) or 2027-06-30T12:00:00Z";

/// Milliseconds of a duration: parts from large to small, each unit at most once.
pub fn duration_ms(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let (mut rest, mut total, mut last) = (text, 0u64, u64::MAX);
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, tail) = after.split_at_checked(end)?;
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        if *scale >= last {
            return None;
        }
        last = *scale;
        total = total.checked_add(number.checked_mul(*scale)?)?;
        rest = tail;
    }
    (last != u64::MAX).then_some(total)
}

/// Bytes of a size.
pub fn size_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let scale = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1u64 << 40,
        _ => return None,
    };
    number.checked_mul(scale)
}

/// A date (its start, UTC) or a date and time with its offset (RFC 3339).
pub fn moment(text: &str) -> Option<Millis> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let at = time::OffsetDateTime::parse(&whole, &time::format_description::well_known::Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(Millis)
}

/// A duration in the form that a person would write.
pub fn duration_text(mut ms: u64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, scale) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if ms / scale > 0 {
            out.push_str(&format!("{}{unit}", ms / scale));
            ms %= scale;
        }
    }
    out
}

/// A size in the form that a person would write, in the largest unit that keeps it whole.
pub fn size_text(bytes: u64) -> String {
    for (unit, scale) in [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= scale && bytes.is_multiple_of(scale) {
            return format!("{}{unit}", bytes / scale);
        }
    }
    format!("{bytes}B")
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_one_reading() {
        assert_eq!(duration_ms("1h30m"), Some(5_400_000));
        assert_eq!(duration_ms("500ms"), Some(500));
        assert_eq!(duration_ms("1m30s5ms"), Some(90_005));
        for bad in ["", "5", "m", "5 m", "1m1h", "1m1m", "-5m", "1.5h", "99999999999999999999s", "213503982335d", "5M"] {
            assert_eq!(duration_ms(bad), None, "{bad}");
        }
        assert_eq!(size_bytes("64MiB"), Some(64 << 20));
        for bad in ["", "64", "64MB", "64 MiB", "MiB", "-1B", "99999999999TiB"] {
            assert_eq!(size_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for ms in [0, 1, 999, 1000, 90_005, 5_400_000, 86_400_000 * 90] {
            assert_eq!(duration_ms(&duration_text(ms)), Some(ms));
        }
        for bytes in [0, 1, 1023, 1024, 64 << 20, (1 << 30) + 1] {
            assert_eq!(size_bytes(&size_text(bytes)), Some(bytes));
        }
    }

    #[test]
    fn a_date_is_its_start_in_utc() {
        assert_eq!(moment("1970-01-02"), Some(Millis(86_400_000)));
        assert_eq!(moment("1970-01-02T01:00:00+01:00"), Some(Millis(86_400_000)));
        for bad in ["1969-12-31", "2027-13-01", "2027-06-30T12:00:00", "soon", "2027-6-3"] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }
}
