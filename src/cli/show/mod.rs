//! The objects that commands print: messages of the server, with the columns of each for people.
//!
//! - [`message`]: the JSON of a message, made by its descriptor.
//! - [`answer`]: what the server answered, with what the command knows besides.
//! - One file per noun for everything else that is shown: texts that are derived, and objects of commands.
//!
//! Ids and names are texts, times are RFC 3339 in UTC, durations are milliseconds (`_ms`), digests and serial numbers are hexadecimal, and
//! words of closed lists are lower case. A value of a closed list that this version does not know is shown as `unknown_` and its number,
//! never omitted. What is absent is null.

pub mod answer;
pub mod approval;
pub mod blast_radius;
pub mod differences;
pub mod hits;
pub mod issued;
mod load;
pub mod message;
pub mod policy;
mod rows;
pub mod task;
pub mod upstream;

use prost_reflect::prost::{Message, Name};
use serde::{Serialize, Serializer};

use crate::out::tree::OrderedJson;
use mayfly_proto::mayfly::v1 as pb;

/// A message, as commands print it.
#[derive(Clone, Debug)]
pub struct Shown<M>(pub M);

impl<M: Message + Name> Shown<M> {
    /// The JSON.
    pub fn json(&self) -> OrderedJson {
        message::json(&self.0)
    }
}

impl<M: Message + Name> Serialize for Shown<M> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.json().serialize(to)
    }
}

/// Wraps messages for printing.
pub fn shown<M>(messages: Vec<M>) -> Vec<Shown<M>> {
    messages.into_iter().map(Shown).collect()
}

/// Implements `Printable`, and `Row` if there are columns, for an object with a method `json`: its name, the columns that are always shown,
/// and those of `-o wide`. The name and each cell is the text below dotted keys, or a text in parentheses.
macro_rules! printed {
    ($type:ty, $this:ident, $name:tt) => {
        impl $crate::out::Printable for $type {
            fn name(&self) -> String {
                let ($this, json) = (&self.0, || self.json());
                let _ = ($this, &json);
                $crate::show::printed_text!(json, $name)
            }
        }
    };
    ($type:ty, $this:ident, $name:tt, [$($heading:literal: $cell:tt),* $(,)?], [$($wide:literal: $wide_cell:tt),* $(,)?]) => {
        $crate::show::printed!($type, $this, $name);

        impl $crate::out::Row for $type {
            const COLUMNS: &'static [&'static str] = &[$($heading),*];
            const WIDE: &'static [&'static str] = &[$($wide),*];

            fn cells(&self) -> Vec<String> {
                let ($this, json) = (&self.0, self.json());
                let _ = $this;
                let json = || &json;
                let cells = [$($crate::show::printed_text!(json, $cell),)* $($crate::show::printed_text!(json, $wide_cell)),*];
                cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }).collect()
            }
        }
    };
}
pub(crate) use printed;

/// A text below dotted keys of a JSON, or the text in parentheses.
macro_rules! printed_text {
    ($json:ident, $path:literal) => {
        $json().text_at($path)
    };
    ($json:ident, ($text:expr)) => {
        $text
    };
}
pub(crate) use printed_text;

/// A time as RFC 3339 with as many digits as it has; `None` if it is absent or invalid.
pub fn time(at: Option<prost_types::Timestamp>) -> Option<String> {
    let at = at?;
    let nanos = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    at.format(&time::format_description::well_known::Rfc3339).ok()
}

/// A duration in milliseconds; a negative one stays negative.
pub fn ms(duration: Option<prost_types::Duration>) -> Option<i64> {
    let d = duration?;
    d.seconds.checked_mul(1000)?.checked_add(i64::from(d.nanos / 1_000_000))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// The text for the author of an action; `-` if the server named none.
pub fn author(who: &Option<pb::Identity>) -> String {
    use mayfly_proto::mayfly::v1::identity::Identity;
    match who.as_ref().and_then(|who| who.identity.as_ref()) {
        Some(Identity::SpiffeId(id)) => id.clone(),
        Some(Identity::Person(subject)) => format!("{} at {}", subject.sub, subject.issuer),
        Some(Identity::LocalUid(uid)) => format!("uid {uid}"),
        Some(Identity::Mayfly(cause)) => format!("mayfly ({cause})"),
        None => "-".to_owned(),
    }
}

/// The text for a target; empty if the server named none.
pub fn target(target: &Option<pb::Target>) -> String {
    target.as_ref().map(super::targets::words).unwrap_or_default()
}

/// Why a lock locks: its reason, where the server says it, and in any case its number and its target.
pub fn why(lock: &pb::Lock) -> String {
    let target = lock.target.as_ref().map_or_else(|| "an unknown target".to_owned(), super::targets::words);
    let named = format!("lock {} on {target}", lock.seq);
    if lock.reason.is_empty() { named } else { format!("{} ({named})", lock.reason) }
}

/// The texts, joined.
pub fn joined(texts: impl IntoIterator<Item = String>, by: &str) -> String {
    texts.into_iter().collect::<Vec<_>>().join(by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_and_what_is_none_stays_none() {
        let at = |seconds, nanos| time(Some(prost_types::Timestamp { seconds, nanos }));
        assert_eq!(at(1_795_161_600, 0).as_deref(), Some("2026-11-20T08:00:00Z"));
        assert_eq!(at(1_795_161_600, 250_000_000).as_deref(), Some("2026-11-20T08:00:00.25Z"));
        assert_eq!(at(i64::MAX, 0), None);
        assert_eq!(time(None), None);
        assert_eq!(ms(Some(prost_types::Duration { seconds: -1, nanos: -500_000_000 })), Some(-1500));
    }
}
