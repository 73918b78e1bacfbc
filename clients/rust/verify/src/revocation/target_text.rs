//! The text form of targets, which the CLI prints and parses.

use std::fmt;

use super::facts::Probe;
use super::record::{PolicyBelow, Principal, RecordedTarget, SvidTarget, TargetRecord};
use super::target::{BadTarget, Target, bad};
use super::target_kind::TargetKind;
use crate::seq::{CredentialId, TaskId};

/// `sort:value`, with a space between the values of a pair. The CLI prints this form, and [`Target::parse`] parses it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |b: &[u8]| data_encoding::HEXLOWER.encode(b);
        let word = self.sort().word();
        match self.probe() {
            Probe::Credential(id) => write!(f, "{word}:{id}"),
            Probe::Task(id) => write!(f, "{word}:{id}"),
            Probe::Name(_, n) => write!(f, "{word}:{n}"),
            Probe::Pair(_, a, b) => write!(f, "{word}:{a} {b}"),
            Probe::TrustAnchor(h) => write!(f, "{word}:{}", hex(h)),
            Probe::Policy(e, v) => write!(f, "{word}:{e} {v}"),
            Probe::Svid(td, key, serial) => write!(f, "{word}:{td} {} {}", hex(key), hex(serial)),
            Probe::Everything => f.write_str(word),
        }
    }
}

impl Target {
    /// Parses the form that [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Result<Target, BadTarget> {
        let (word, value) = text.split_once(':').unwrap_or((text, ""));
        let sort = TargetKind::ALL.into_iter().find(|s| s.word() == word).ok_or_else(|| {
            let words: Vec<_> = TargetKind::ALL.iter().map(|s| s.word()).collect();
            bad(format!("{word:?} is no sort of target; the sorts are {}", words.join(", ")))
        })?;
        let hex = |t: &str| {
            data_encoding::HEXLOWER_PERMISSIVE
                .decode(t.as_bytes())
                .map_err(|e| bad(format!("{word}: {t:?} is not hexadecimal: {e}")))
        };
        let two = || value.split_once(' ').ok_or_else(|| bad(format!("{word}: write it as \"{word}:FIRST SECOND\"")));
        let pair = || two().map(|(a, b)| Principal { issuer: a.to_owned(), sub: b.to_owned() });
        let aim = match sort {
            TargetKind::Credential => RecordedTarget::Credential(
                value.parse::<CredentialId>().map_err(|e| bad(format!("{word}: {e}")))?.as_bytes().to_vec(),
            ),
            TargetKind::Task => {
                RecordedTarget::Task(value.parse::<TaskId>().map_err(|e| bad(format!("{word}: {e}")))?.as_bytes().to_vec())
            }
            TargetKind::Caller => RecordedTarget::Caller(value.into()),
            TargetKind::Prefix => RecordedTarget::Prefix(value.into()),
            TargetKind::TrustDomain => RecordedTarget::TrustDomain(value.into()),
            TargetKind::TrustAnchor => RecordedTarget::TrustAnchor(hex(value)?),
            TargetKind::Subject => RecordedTarget::Subject(pair()?),
            TargetKind::Upstream => RecordedTarget::Upstream(value.into()),
            TargetKind::UpstreamScope => RecordedTarget::UpstreamScope(pair()?),
            TargetKind::Binding => RecordedTarget::Binding(value.into()),
            TargetKind::Tool => RecordedTarget::Tool(value.into()),
            TargetKind::Environment => RecordedTarget::Environment(value.into()),
            TargetKind::PolicyBelow => {
                let (environment, version) = two()?;
                let version = version.parse().map_err(|_| bad(format!("{word}: {version:?} is no version number")))?;
                RecordedTarget::PolicyBelow(PolicyBelow { environment: environment.into(), version })
            }
            TargetKind::SigningKey => RecordedTarget::SigningKey(value.into()),
            TargetKind::Svid => {
                let parts: Vec<&str> = value.split(' ').collect();
                let [td, key, serial] = parts[..] else {
                    return Err(bad("svid: write it as \"svid:TRUST-DOMAIN ISSUING-KEY-SHA256 SERIAL\" in hexadecimal"));
                };
                RecordedTarget::Svid(SvidTarget { trust_domain: td.into(), issuing_key: hex(key)?, serial: hex(serial)? })
            }
            TargetKind::SubjectToken => RecordedTarget::SubjectToken(pair()?),
            TargetKind::Everything if value.is_empty() => RecordedTarget::Everything(true),
            TargetKind::Everything => return Err(bad("everything takes no value")),
        };
        Target::from_record(&TargetRecord { aim: Some(aim) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::target::one_of_each;
    use crate::revocation::target_kind::SORTS;

    #[test]
    fn every_sort_round_trips_through_its_record_and_its_text() {
        let all = one_of_each();
        assert_eq!(all.len(), SORTS);
        for (i, target) in all.into_iter().enumerate() {
            assert_eq!(target.sort() as usize, i);
            assert_eq!(TargetKind::ALL[i], target.sort());
            assert_eq!(Target::from_record(&target.to_record()), Ok(target.clone()));
            assert_eq!(Target::parse(&target.to_string()), Ok(target));
        }
    }

    #[test]
    fn what_matches_nothing_is_no_target() {
        for text in [
            "",
            "caller",
            "caller:",
            "caller:https://a",
            "task:cred_x",
            "prefix:spiffe://A/",
            "svid:a b",
            "everything:x",
            "nothing",
        ] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
