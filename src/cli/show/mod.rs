//! The objects that commands print: one file per noun, each with stable snake_case field names.
//!
//! Ids and names are texts, times are RFC 3339 in UTC, durations are milliseconds (`_ms`), digests and serial numbers are hexadecimal, and
//! words of closed lists are lower case. A value of a closed list that this version does not know is shown as `unknown_` and its number,
//! never omitted.
#![allow(missing_docs, reason = "the fields are those of the wire, whose comments say what they mean")]

pub mod approval;
pub mod binding;
pub mod blast_radius;
pub mod break_glass;
pub mod credential;
pub mod explain;
pub mod issued;
pub mod key;
pub mod lease;
pub mod policy;
pub mod revocation;
pub mod status;
pub mod task;
pub mod trust_domain;
pub mod upstream;
pub mod webhook;
pub mod whoami;

use serde::Serialize;

use mayfly_base::plural::{counted, one_or};
use mayfly_proto::mayfly::v1 as pb;

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

/// The sequence number of a record; `None` for protobuf's 0.
pub fn some_seq(seq: u64) -> Option<u64> {
    (seq > 0).then_some(seq)
}

/// The word of an enum value: its name without the prefix, in lower case.
pub fn word(name: Option<&'static str>, prefix: &str, number: i32) -> String {
    match name.and_then(|n| n.strip_prefix(prefix)) {
        Some(name) => name.to_ascii_lowercase(),
        None => format!("unknown_{number}"),
    }
}

/// Implements `word` for a protobuf enum.
macro_rules! shown_word {
    ($enum:ty, $prefix:literal, $number:expr) => {{
        let number: i32 = $number;
        $crate::show::word(<$enum>::try_from(number).ok().map(|e| e.as_str_name()), $prefix, number)
    }};
}
pub(crate) use shown_word;

/// A table cell; `-` if the text is absent.
pub fn or_dash(text: Option<&str>) -> String {
    text.filter(|t| !t.is_empty()).unwrap_or("-").to_owned()
}

/// A table cell; `-` if the number is absent.
pub fn number_or_dash(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |n| n.to_string())
}

/// A table cell for a bool.
pub fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// The author of an action: one field, as in the protobuf message.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum AuthorView {
    SpiffeId(String),
    Person(SubjectView),
    LocalUid(u32),
    Mayfly(String),
}

impl AuthorView {
    /// Converts an identity; `None` if the server sent none.
    pub fn of(identity: Option<pb::Identity>) -> Option<AuthorView> {
        use mayfly_proto::mayfly::v1::identity::Identity;
        Some(match identity?.identity? {
            Identity::SpiffeId(id) => AuthorView::SpiffeId(id),
            Identity::Person(subject) => AuthorView::Person(subject.into()),
            Identity::LocalUid(uid) => AuthorView::LocalUid(uid),
            Identity::Mayfly(cause) => AuthorView::Mayfly(cause),
        })
    }

    /// A table cell.
    pub fn text(who: Option<&AuthorView>) -> String {
        match who {
            Some(AuthorView::SpiffeId(id)) => id.clone(),
            Some(AuthorView::Person(subject)) => format!("{} at {}", subject.sub, subject.issuer),
            Some(AuthorView::LocalUid(uid)) => format!("uid {uid}"),
            Some(AuthorView::Mayfly(cause)) => format!("mayfly ({cause})"),
            None => "-".to_owned(),
        }
    }
}

/// A subject: always issuer and subject.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct SubjectView {
    pub issuer: String,
    pub sub: String,
}

impl From<pb::Subject> for SubjectView {
    fn from(from: pb::Subject) -> SubjectView {
        SubjectView { issuer: from.issuer, sub: from.sub }
    }
}

/// The numbers of objects that a revocation covers.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HitsView {
    pub credentials: u64,
    pub tasks: u64,
    pub callers: u64,
    pub overlapping: bool,
    pub tasks_ended: u64,
}

impl From<Option<pb::Hits>> for HitsView {
    fn from(from: Option<pb::Hits>) -> HitsView {
        let from = from.unwrap_or_default();
        let pb::Hits { credentials, tasks, callers, overlapping, tasks_ended } = from;
        HitsView { credentials, tasks, callers, overlapping, tasks_ended }
    }
}

impl HitsView {
    /// The text for people.
    pub fn text(&self) -> String {
        let counts = [(self.credentials, "credential"), (self.tasks, "task"), (self.callers, "caller")];
        // "At most 0" says no more than 0.
        let first = counts.iter().position(|(n, _)| *n > 0).filter(|_| self.overlapping);
        let text = |(at, (n, noun)): (usize, (u64, &str))| {
            format!("{}{}", if first == Some(at) { "at most " } else { "" }, counted(n, noun))
        };
        counts.into_iter().enumerate().map(text).collect::<Vec<_>>().join(", ")
    }

    /// The text of what is refused from now on, and which tasks end. The callers are named as holders of the credentials; they are not
    /// refused themselves.
    pub fn refused(&self) -> String {
        let most = if self.overlapping && self.credentials > 0 { "at most " } else { "" };
        let verb = one_or(self.credentials, "is", "are");
        let whose = match self.credentials {
            0 => String::new(),
            _ => format!(", of {}", counted(self.callers, "caller")),
        };
        format!("{most}{} {verb} refused from now on{whose}; {}", counted(self.credentials, "credential"), self.ends(false))
    }

    /// The text of how many tasks end or would end.
    pub fn ends(&self, would: bool) -> String {
        let (ended, left) = (self.tasks_ended, self.tasks.saturating_sub(self.tasks_ended));
        let verb = match (would, ended) {
            (true, _) => "would end",
            (false, 1) => "ends",
            (false, _) => "end",
        };
        match (ended, left) {
            (0, _) => format!("no task {}", if would { "would end" } else { "ends" }),
            (_, 0) => {
                format!("{} {verb}: nothing is granted in {} any more", counted(ended, "task"), one_or(ended, "it", "them"))
            }
            _ => format!("{} {verb}, {} {}", counted(ended, "task"), counted(left, "other"), one_or(left, "goes on", "go on")),
        }
    }

    /// Three cells: credentials, tasks, callers.
    pub fn cells(&self) -> [String; 3] {
        [self.credentials, self.tasks, self.callers].map(|n| n.to_string())
    }
}

/// A target: its kind and its values.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct TargetView {
    /// The kind, as its flag is named.
    pub kind: &'static str,
    /// The values, in the order in which the flag takes them.
    pub values: Vec<String>,
    /// The flag with its values, ready to type.
    pub flag: String,
}

impl TargetView {
    /// Converts a target; `None` if the server sent none.
    pub fn of(target: Option<&pb::Target>) -> Option<TargetView> {
        let target = target?;
        let (kind, values) = super::targets::flag_and_values(target);
        Some(TargetView { kind, values, flag: super::targets::typed(target) })
    }

    /// A table cell.
    pub fn text(&self) -> String {
        [self.kind.to_owned()].into_iter().chain(self.values.iter().cloned()).collect::<Vec<_>>().join(" ")
    }
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

    #[test]
    fn an_upper_bound_of_nothing_is_nothing() {
        let hits = |credentials, tasks, callers| HitsView { credentials, tasks, callers, overlapping: true, tasks_ended: 0 };
        assert_eq!(hits(3, 1, 2).text(), "at most 3 credentials, 1 task, 2 callers");
        assert_eq!(hits(0, 2, 0).text(), "0 credentials, at most 2 tasks, 0 callers");
        assert_eq!(hits(0, 0, 0).text(), "0 credentials, 0 tasks, 0 callers");
        assert!(hits(0, 0, 0).refused().starts_with("0 credentials are refused from now on"), "{}", hits(0, 0, 0).refused());
        assert!(hits(1, 1, 1).refused().starts_with("at most 1 credential is refused"), "{}", hits(1, 1, 1).refused());
    }

    #[test]
    fn a_word_that_is_not_known_is_shown_by_its_number() {
        assert_eq!(shown_word!(pb::TaskState, "TASK_STATE_", 1), "pending_approval");
        assert_eq!(shown_word!(pb::TaskState, "TASK_STATE_", 99), "unknown_99");
    }
}
