//! Parsers of argument values: durations, times, digests, ids and words of closed lists. The error of each parser says which form is
//! accepted.

use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::time::Duration;

use clap::builder::TypedValueParser;
use zeroize::Zeroizing;

use super::error::CliError;
use mayfly_base::bounded_file;
use mayfly_base::document::quantity;
use mayfly_credential::kind::TABLE;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::{CredentialId, Millis, TaskId};

/// Parses the greatest number of rows to print: a whole number from 1.
pub fn limit(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|rows| *rows > 0).ok_or_else(|| "expected a whole number from 1".to_owned())
}

/// Parses a duration: `90s`, `5m`, `1h30m`, `250ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    quantity::duration_ms(text).map(Duration::from_millis).ok_or_else(|| quantity::DURATION_FORM.to_owned())
}

/// Prints a duration in the form that [`duration`] parses.
pub fn duration_text(duration: Duration) -> String {
    quantity::duration_text(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Parses a time in RFC 3339, like `2026-11-20T08:00:00Z`.
pub fn time(text: &str) -> Result<Millis, String> {
    quantity::moment(text).ok_or_else(|| quantity::MOMENT_FORM.to_owned())
}

/// A time, or a duration relative to now: `2026-11-20T08:00:00Z`, `1h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// An absolute time.
    At(Millis),
    /// A distance from now: into the past for an event, into the future for a deadline.
    FromNow(Duration),
}

impl When {
    /// Resolves to a time at which something happened: a duration counts back from `now`.
    pub fn past(self, now: Millis) -> Millis {
        match self {
            When::At(at) => at,
            When::FromNow(ago) => Millis(now.0.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))),
        }
    }

    /// Resolves to a time at which something will happen: a duration counts forward from `now`.
    pub fn future(self, now: Millis) -> Millis {
        match self {
            When::At(at) => at,
            When::FromNow(then) => now.plus(u64::try_from(then.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// Parses a time, or a duration relative to now.
pub fn when(text: &str) -> Result<When, String> {
    let at = quantity::moment(text).map(When::At);
    let ago = || quantity::duration_ms(text).map(Duration::from_millis).map(When::FromNow);
    at.or_else(ago).ok_or_else(|| format!("{}; {}", quantity::DURATION_FORM, quantity::MOMENT_FORM))
}

/// Converts a time to its protobuf message.
pub fn timestamp(at: Millis) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(at.seconds()).unwrap_or(i64::MAX),
        nanos: i32::try_from(at.0 % 1000).unwrap_or(0) * 1_000_000,
    }
}

/// Converts a duration to its protobuf message.
pub fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// Parses a SHA-256 in hexadecimal, optionally with the prefix `sha256:` or with colons between the bytes, as openssl prints it.
pub fn sha256(text: &str) -> Result<[u8; 32], String> {
    let bytes = hex(text.strip_prefix("sha256:").unwrap_or(text))?;
    bytes.try_into().map_err(|_| "expected the 64 hexadecimal digits of a SHA-256".to_owned())
}

/// Parses bytes in hexadecimal, in upper or lower case, optionally with colons between the bytes.
pub fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    data_encoding::HEXLOWER_PERMISSIVE
        .decode(digits.as_bytes())
        .map_err(|_| "expected an even number of hexadecimal digits".to_owned())
}

/// Parses a task id.
pub fn task_id(text: &str) -> Result<String, String> {
    text.parse::<TaskId>().map(|id| id.to_string()).map_err(|e| e.to_string())
}

/// Parses a credential id.
pub fn credential_id(text: &str) -> Result<String, String> {
    text.parse::<CredentialId>().map(|id| id.to_string()).map_err(|e| e.to_string())
}

/// Parses a value of a protobuf enum in the form that output uses: `pending_approval` for `TASK_STATE_PENDING_APPROVAL`.
macro_rules! wire_word {
    ($enum:ty, $prefix:literal) => {{
        use clap::builder::TypedValueParser as _;
        let name = |n: i32| <$enum>::try_from(n).ok().map(|e| e.as_str_name());
        // The numbers of the protobuf enums are small and have no gaps; 0 (unspecified) is never offered.
        let words = (1..64).filter_map(name).filter_map(|n| n.strip_prefix($prefix)).map(str::to_ascii_lowercase);
        clap::builder::PossibleValuesParser::new(words).try_map(|word: String| {
            let full = format!("{}{}", $prefix, word.to_ascii_uppercase());
            <$enum>::from_str_name(&full).ok_or_else(|| format!("{word:?} is not known"))
        })
    }};
}
pub(crate) use wire_word;

/// Parses a kind of credential that this version issues.
pub fn kind() -> impl TypedValueParser<Value = pb::CredentialKind> {
    let served = || TABLE.iter().filter(|line| line.kind.served());
    clap::builder::PossibleValuesParser::new(served().map(|line| line.name)).try_map(move |name: String| {
        let number = served().find(|line| line.name == name).map(|line| line.kind.number());
        let known =
            number.and_then(|number| i32::try_from(number).ok()).and_then(|number| pb::CredentialKind::try_from(number).ok());
        known.ok_or_else(|| format!("{name:?} is no kind of credential that this version issues"))
    })
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> CliError + '_ {
    move |e| match e.kind() {
        ErrorKind::FileTooLarge => CliError::Usage(format!("{}: {e}", path.display())),
        _ => CliError::Local(format!("{}: cannot be read: {e}", path.display())),
    }
}

/// Reads a file of the connection settings, such as the trust bundle: a regular file of at most `max` bytes.
pub fn read_regular(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, CliError> {
    bounded_file::read(path, max).map_err(unreadable(path))
}

/// Reads a document of at most `max` bytes that a command works on: a file, the pipe of `<(command)`, or stdin for `-`. The content is
/// wiped from memory when it is dropped.
pub fn read(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, CliError> {
    if path != Path::new("-") {
        return bounded_file::read_named(path, max).map_err(unreadable(path));
    }
    // The whole capacity is reserved at once: a growing buffer would leave copies of a secret in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max + 1));
    std::io::stdin().lock().take(max as u64 + 1).read_to_end(&mut bytes).map_err(unreadable(path))?;
    if bytes.len() > max {
        return Err(CliError::Usage(format!("{}: has more than {max} bytes", path.display())));
    }
    Ok(bytes)
}

/// Reads a whole file as text, like [`read`].
pub fn read_text(path: &Path, max: usize) -> Result<Zeroizing<String>, CliError> {
    let bytes = read(path, max)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| CliError::Usage(format!("{}: is not UTF-8", path.display())))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_on_the_wire_keep_their_milliseconds() {
        assert_eq!(timestamp(Millis(1500)), prost_types::Timestamp { seconds: 1, nanos: 500_000_000 });
        assert_eq!(wire_duration(Duration::from_millis(1500)), prost_types::Duration { seconds: 1, nanos: 500_000_000 });
        assert_eq!(duration("1h30m").map(duration_text), Ok("1h30m".to_owned()));
        assert!(duration("5").is_err() && time("tomorrow").is_err());
    }

    #[test]
    fn a_time_is_a_moment_or_a_duration_from_now() {
        let now = Millis(10 * 3_600_000);
        let past = |text| when(text).map(|when| when.past(now).0);
        assert_eq!(past("1h"), Ok(9 * 3_600_000));
        assert_eq!(past("1h30m"), Ok(8 * 3_600_000 + 1_800_000));
        assert_eq!(past("7d"), Ok(0), "not before 1970");
        assert_eq!(past("1970-01-01T02:00:00Z"), Ok(2 * 3_600_000));
        assert_eq!(past("1970-01-02"), Ok(24 * 3_600_000));
        assert_eq!(when("30m").map(|when| when.future(now).0), Ok(10 * 3_600_000 + 1_800_000));
        for wrong in ["", "5", "tomorrow", "-1h", "1 h"] {
            assert!(when(wrong).is_err_and(|why| why.contains("1h30m") && why.contains("T12:00:00Z")), "{wrong}");
        }
    }

    #[test]
    fn words_of_the_wire_are_those_that_output_shows() {
        use clap::builder::TypedValueParser as _;
        let command = clap::Command::new("x");
        let parser = wire_word!(mayfly_proto::mayfly::v1::TaskState, "TASK_STATE_");
        let parse = |word: &str| parser.parse_ref(&command, None, std::ffi::OsStr::new(word));
        assert_eq!(parse("pending_approval").unwrap(), mayfly_proto::mayfly::v1::TaskState::PendingApproval);
        assert!(parse("unspecified").is_err() && parse("gone").is_err());
        assert_eq!(parser.possible_values().unwrap().count(), 7);
    }

    #[test]
    fn digests_as_tools_print_them() {
        let plain = "00".repeat(31) + "ff";
        let colons = vec!["00"; 31].join(":") + ":FF";
        assert_eq!(sha256(&plain), sha256(&colons));
        assert_eq!(sha256(&format!("sha256:{plain}")).unwrap()[31], 255);
        assert!(sha256("ff").is_err());
        assert!(hex("f").is_err());
        assert!(hex("zz").is_err());
    }
}
