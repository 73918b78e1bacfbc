//! Basic values: sequence numbers, times, identifiers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A record's sequence number: its ordinal in the order of the store, assigned by the fold and never reused.
///
/// 8 bits of generation above 45 bits of count, so that it stays below 2^53 and JSON numbers keep it exact (RFC 8259, section 6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Seq(u64);

const COUNT_BITS: u32 = 45;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

impl Seq {
    /// Before the first record: everything is newer.
    pub const ZERO: Seq = Seq(0);

    /// The greatest possible sequence number.
    pub const LAST: Seq = Seq((1 << (COUNT_BITS + 8)) - 1);

    /// The sequence number before the first record of a generation.
    pub const fn start_of(generation: u8) -> Seq {
        Seq((generation as u64) << COUNT_BITS)
    }

    /// `None` for a number that no store can have assigned: above 2^53 − 1.
    pub const fn from_u64(n: u64) -> Option<Seq> {
        if n >> (COUNT_BITS + 8) == 0 { Some(Seq(n)) } else { None }
    }

    /// The number as on the wire and in claims.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The generation.
    pub const fn generation(self) -> u8 {
        (self.0 >> COUNT_BITS) as u8
    }

    /// The count within the generation.
    pub const fn count(self) -> u64 {
        self.0 & COUNT_MAX
    }

    /// The next sequence number in the same generation; `None` after its 2^45 numbers are used up.
    pub const fn next(self) -> Option<Seq> {
        if self.count() == COUNT_MAX { None } else { Some(Seq(self.0 + 1)) }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seq({}:{})", self.generation(), self.count())
    }
}

impl FromStr for Seq {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Seq, Self::Err> {
        s.parse().ok().and_then(Seq::from_u64).ok_or("a seq is a whole number from 0 to 9007199254740991")
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Millis(pub u64);

impl Millis {
    /// Later by `ms`, saturating.
    pub const fn plus(self, ms: u64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }

    /// Earlier by `ms`, saturating at 1970.
    pub const fn minus(self, ms: u64) -> Millis {
        Millis(self.0.saturating_sub(ms))
    }

    /// Whole seconds, rounded down: the unit of `iat` and `exp` (RFC 7519, section 2, NumericDate).
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// A time from whole seconds.
    pub const fn from_seconds(s: u64) -> Millis {
        Millis(s.saturating_mul(1000))
    }

    /// Milliseconds since `earlier`; 0 if that is not earlier.
    pub const fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// RFC 3339 in UTC with seconds, for people.
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = i64::try_from(self.seconds()).ok().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
        match at.and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok()) {
            Some(text) => f.write_str(&text),
            None => write!(f, "{}ms", self.0),
        }
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The prefix of the text form.
            pub const PREFIX: &'static str = $prefix;

            /// Length of the text form, in bytes.
            pub const TEXT: usize = $prefix.len() + 26;

            /// Writes the text form into the caller's buffer.
            pub fn write<'a>(&self, out: &'a mut [u8; $prefix.len() + 26]) -> &'a str {
                *out = self.text();
                std::str::from_utf8(out).unwrap_or_default()
            }

            /// The text form as ASCII bytes.
            pub fn text(&self) -> [u8; $prefix.len() + 26] {
                let mut out = [0; $prefix.len() + 26];
                let (prefix, rest) = out.split_at_mut($prefix.len());
                prefix.copy_from_slice($prefix.as_bytes());
                rest.copy_from_slice(&id_text(&self.0));
                out
            }

            /// The text form as a string.
            pub fn to_text(&self) -> String {
                self.write(&mut [0; $name::TEXT]).to_owned()
            }

            /// An id from 16 random bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> $name {
                $name(bytes)
            }

            /// An id from a record; `None` unless it is 16 bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<$name> {
                bytes.try_into().ok().map($name)
            }

            /// The 16 bytes, as in records.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Written in one piece, because two pieces would make a String allocate twice.
                f.write_str(self.write(&mut [0; $name::TEXT]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(s: &str) -> Result<$name, IdError> {
                let rest = s.strip_prefix($prefix).ok_or(IdError { prefix: $prefix })?;
                let mut out = [0u8; 16];
                if rest.len() != 26 {
                    return Err(IdError { prefix: $prefix });
                }
                ID_ALPHABET.decode_mut(rest.as_bytes(), &mut out).map_err(|_| IdError { prefix: $prefix })?;
                Ok($name(out))
            }
        }
    };
}

/// A text that is not a valid id of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {prefix} and 26 characters of a-z and 2-7")]
pub struct IdError {
    prefix: &'static str,
}

/// The alphabet of ids: base32 (RFC 4648, section 6) in lower case, without padding.
const ID_SYMBOLS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The 26 characters of an id. Written by hand, because each credential needs one and the library checks length and alphabet each time.
fn id_text(bytes: &[u8; 16]) -> [u8; 26] {
    // Five bits per character, from the left. The last character has the remaining three bits and two zero bits.
    let number = u128::from_be_bytes(*bytes);
    std::array::from_fn(|n| ID_SYMBOLS[(if n < 25 { number >> (123 - 5 * n) } else { number << 2 } & 31) as usize])
}

static ID_ALPHABET: std::sync::LazyLock<data_encoding::Encoding> = std::sync::LazyLock::new(|| {
    let mut spec = data_encoding::Specification::new();
    spec.symbols.push_str(str::from_utf8(ID_SYMBOLS).unwrap_or_default());
    // The alphabet is a constant of 32 distinct symbols, so building it cannot fail.
    spec.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
});

id!(
    /// The id of a task. Not a secret.
    TaskId,
    "task_"
);
id!(
    /// The id of a credential, `jti` of a JWT. Not a secret.
    CredentialId,
    "cred_"
);
id!(
    /// The id of a lease on a credential that an upstream made.
    LeaseId,
    "lease_"
);
id!(
    /// The id of an approval.
    ApprovalId,
    "appr_"
);
id!(
    /// The id of a store, assigned when the store was created. Everything sealed in the store is bound to it.
    StoreId,
    "store_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seq_fits_a_json_number_and_orders_by_generation_first() {
        let last = Seq::start_of(255);
        assert!(last.as_u64() < 1 << 53);
        assert!(Seq::start_of(2) > Seq(COUNT_MAX));
        assert_eq!(Seq(COUNT_MAX).next(), None);
        assert_eq!(Seq::from_u64(1 << 53), None);
        assert_eq!(Seq::start_of(3).next().map(|s| (s.generation(), s.count())), Some((3, 1)));
    }

    #[test]
    fn an_id_is_written_as_the_library_writes_base32() {
        for n in 0..128 {
            for bytes in
                [(1u128 << n).to_be_bytes(), (u128::MAX >> n).to_be_bytes(), (0x0123_4567_89ab_cdef_u128 << n).to_be_bytes()]
            {
                assert_eq!(id_text(&bytes)[..], *ID_ALPHABET.encode(&bytes).as_bytes());
            }
        }
    }

    #[test]
    fn ids_round_trip_and_refuse_all_else() {
        let id = TaskId::from_bytes([7; 16]);
        assert_eq!(id.to_string().parse::<TaskId>(), Ok(id));
        assert_eq!(id.to_string().len(), 31);
        assert!(id.to_string().parse::<CredentialId>().is_err());
        assert!("task_".parse::<TaskId>().is_err());
        let mut padded = id.to_string();
        padded.push('a');
        assert!(padded.parse::<TaskId>().is_err());
        // The last character carries 2 bits of padding, which must be 0, so that each id has one text.
        let text = id.to_string();
        let twin = format!("{}{}", &text[..30], if text.ends_with('b') { 'c' } else { 'b' });
        assert!(twin.parse::<TaskId>().is_err());
    }
}
