//! Static secrets: which versions exist, which one is handed out, and what is due. The values themselves are sealed in the store.

use serde::{Deserialize, Serialize};

use crate::record::{Author, SecretChanged, SecretStep, SecretStored};
use mayfly_base::limits;
use mayfly_base::refusal::{Reason, Refusal};
use mayfly_verify::seq::{Millis, Seq};

use super::Verdict;

/// The state of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretState {
    /// Made by a rotation and not verified yet. It is not handed out.
    Candidate,
    /// Handed out.
    Current,
    /// No longer handed out, but still valid at the vendor.
    Retiring,
    /// Over.
    Ended,
}

/// A version of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretVersion {
    /// The number of the version.
    pub version: u64,
    /// The version's state.
    pub state: SecretState,
    /// The id of the named value with the sealed secret. It is deleted once the version is over.
    pub value: [u8; 16],
    /// The only target that the version is handed out for.
    pub target: Box<str>,
    /// A keyed digest of the secret.
    pub digest: Box<[u8]>,
    /// When it was stored.
    pub stored_at: Millis,
    /// Since when it is in this state.
    pub since: Millis,
    /// The seq of the record that put it in this state.
    pub seq: Seq,
    /// Who gave it, or had it made.
    pub by: Option<Box<Author>>,
    /// A rotation made it.
    pub rotated: bool,
    /// The version is revoked at the vendor without an overlap, once another version is in use.
    pub at_once: bool,
}

/// A request to rotate a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationRequest {
    /// The version to be rotated away.
    pub version: u64,
    /// When it was requested.
    pub at: Millis,
    /// Why.
    pub reason: Box<str>,
}

/// The secret of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedSecret {
    /// The environment of the upstream.
    pub environment: Box<str>,
    /// The highest version so far.
    pub last: u64,
    /// The versions, in order: all that are not over, and the newest of those that are.
    pub versions: Vec<SecretVersion>,
    /// The version that is handed out is to be rotated.
    pub requested: Option<RotationRequest>,
    /// A rotation has begun, and its secret is not stored yet.
    pub attempt: Option<[u8; 16]>,
}

impl ManagedSecret {
    /// The version that is handed out.
    pub fn current(&self) -> Option<&SecretVersion> {
        self.versions.iter().find(|v| v.state == SecretState::Current)
    }

    /// The version that a rotation made and that is not verified yet.
    pub fn candidate(&self) -> Option<&SecretVersion> {
        self.versions.iter().find(|v| v.state == SecretState::Candidate)
    }

    /// A version; `None` if it never existed, or was over long ago.
    pub fn version(&self, number: u64) -> Option<&SecretVersion> {
        self.versions.iter().find(|v| v.version == number)
    }

    /// Whether a version is not over: it may still be valid at the vendor.
    pub fn is_live(&self, number: u64) -> bool {
        self.version(number).is_some_and(|v| v.state != SecretState::Ended)
    }

    /// The versions that are not over.
    pub fn live(&self) -> impl Iterator<Item = &SecretVersion> {
        self.versions.iter().filter(|v| v.state != SecretState::Ended)
    }

    pub(super) fn may_store(&self, e: &SecretStored) -> Verdict {
        if e.version != self.last + 1 {
            let what = format!("version {} of the secret of {} would come next, not {}", self.last + 1, e.upstream, e.version);
            return Err(Refusal::new(Reason::DecidedOnOldState, what));
        }
        if !e.attempt.is_empty() && self.attempt.map(Vec::from).as_ref() != Some(&e.attempt) {
            return Err(Refusal::new(Reason::DecidedOnOldState, format!("another rotation of {} is in progress", e.upstream)));
        }
        let staying = self.live().filter(|v| !e.ends_previous || v.state != SecretState::Current).count();
        if staying >= limits::SECRET_LIVE_VERSIONS {
            let no = Refusal::limit("secret_live_versions", limits::SECRET_LIVE_VERSIONS as u64, std::time::Duration::ZERO);
            return Err(
                no.way_out(format!("mayfly secret show {} says which versions could not be revoked, and why", e.upstream))
            );
        }
        Ok(())
    }

    pub(super) fn store(&mut self, e: &SecretStored, by: Option<Box<Author>>, (seq, now): (Seq, Millis)) {
        if e.current {
            let state = if e.ends_previous { SecretState::Ended } else { SecretState::Retiring };
            self.supersede(state, (seq, now));
            self.requested = None;
        }
        if !e.attempt.is_empty() {
            self.attempt = None;
        }
        self.environment = e.environment.as_str().into();
        self.last = e.version;
        self.versions.push(SecretVersion {
            version: e.version,
            state: if e.current { SecretState::Current } else { SecretState::Candidate },
            value: e.value.as_slice().try_into().unwrap_or_default(),
            target: e.target.as_str().into(),
            digest: e.digest.as_slice().into(),
            stored_at: now,
            since: now,
            seq,
            by,
            rotated: !e.attempt.is_empty(),
            at_once: false,
        });
        self.prune();
    }

    pub(super) fn may_change(&self, e: &SecretChanged) -> Verdict {
        let stale = |what: &str| {
            Err(Refusal::new(Reason::DecidedOnOldState, format!("version {} of the secret of {} {what}", e.version, e.upstream)))
        };
        let state = self.version(e.version).map(|v| v.state);
        match SecretStep::try_from(e.step) {
            Ok(SecretStep::RotationRequested) => match state {
                Some(SecretState::Current) if self.requested.is_none() => Ok(()),
                Some(SecretState::Current) => {
                    Err(Refusal::new(Reason::AlreadyExists, format!("a rotation of the secret of {} was requested", e.upstream)))
                }
                _ => stale("is not handed out"),
            },
            Ok(SecretStep::RotationBegun) => match (self.attempt, self.candidate()) {
                _ if <[u8; 16]>::try_from(&e.attempt[..]).is_err() => {
                    Err(Refusal::new(Reason::InvalidField, "a record with a rotation attempt that is not 16 bytes"))
                }
                (None, None) if state == Some(SecretState::Current) => Ok(()),
                _ => stale("is not handed out, or another rotation is in progress"),
            },
            Ok(SecretStep::Current) if state == Some(SecretState::Candidate) => Ok(()),
            Ok(SecretStep::Current) => stale("does not wait for its verification"),
            Ok(SecretStep::Ended) if matches!(state, Some(SecretState::Candidate | SecretState::Retiring)) => Ok(()),
            Ok(SecretStep::Ended) => stale("is handed out, or is over"),
            Ok(SecretStep::Removed) if self.live().next().is_some() => Ok(()),
            Ok(SecretStep::Removed) => Err(Refusal::new(Reason::NotFound, format!("upstream {} has no secret", e.upstream))),
            Ok(SecretStep::Unspecified) | Err(_) => {
                Err(Refusal::new(Reason::InvalidField, "a record with an unknown step of a secret"))
            }
        }
    }

    pub(super) fn change(&mut self, e: &SecretChanged, place: (Seq, Millis)) {
        match SecretStep::try_from(e.step).unwrap_or(SecretStep::Unspecified) {
            SecretStep::RotationRequested => {
                self.requested = Some(RotationRequest { version: e.version, at: place.1, reason: e.reason.as_str().into() });
                if let Some(version) = self.versions.iter_mut().find(|v| v.version == e.version) {
                    version.at_once |= e.at_once;
                }
            }
            SecretStep::RotationBegun => self.attempt = e.attempt.as_slice().try_into().ok(),
            SecretStep::Current => {
                self.supersede(SecretState::Retiring, place);
                self.put(e.version, SecretState::Current, place);
                self.requested = None;
            }
            SecretStep::Ended => self.put(e.version, SecretState::Ended, place),
            SecretStep::Removed => {
                for version in self.versions.iter_mut().filter(|v| v.state != SecretState::Ended) {
                    version.state = SecretState::Ended;
                    (version.seq, version.since) = place;
                }
                (self.requested, self.attempt) = (None, None);
            }
            SecretStep::Unspecified => {}
        }
        self.prune();
    }

    fn supersede(&mut self, state: SecretState, place: (Seq, Millis)) {
        if let Some(number) = self.current().map(|v| v.version) {
            self.put(number, state, place);
        }
    }

    fn put(&mut self, number: u64, state: SecretState, (seq, now): (Seq, Millis)) {
        if let Some(version) = self.versions.iter_mut().find(|v| v.version == number) {
            (version.state, version.seq, version.since) = (state, seq, now);
        }
    }

    /// Forgets the oldest versions that are over, beyond a bound.
    fn prune(&mut self) {
        let over = self.versions.iter().filter(|v| v.state == SecretState::Ended).count();
        let mut extra = over.saturating_sub(limits::SECRET_ENDED_VERSIONS);
        self.versions.retain(|v| {
            let goes = v.state == SecretState::Ended && extra > 0;
            extra -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(version: u64, current: bool, attempt: &[u8]) -> SecretStored {
        let (upstream, environment) = ("sentry".to_owned(), "prod".to_owned());
        let (value, attempt) = (vec![version as u8; 16], attempt.to_vec());
        SecretStored { upstream, environment, version, value, current, attempt, ..SecretStored::default() }
    }

    fn step(version: u64, step: SecretStep, attempt: &[u8]) -> SecretChanged {
        SecretChanged {
            upstream: "sentry".into(),
            version,
            step: step as i32,
            attempt: attempt.to_vec(),
            ..SecretChanged::default()
        }
    }

    fn place(n: u64) -> (Seq, Millis) {
        (Seq::from_u64(n).unwrap(), Millis(n * 1000))
    }

    #[test]
    fn a_rotation_never_leaves_the_secret_without_a_version_that_is_handed_out() {
        let mut secret = ManagedSecret::default();
        secret.may_store(&stored(1, true, &[])).unwrap();
        secret.store(&stored(1, true, &[]), None, place(1));
        assert!(secret.may_store(&stored(1, true, &[])).is_err() && secret.may_store(&stored(3, true, &[])).is_err());
        let (one, other) = ([1; 16], [2; 16]);
        secret.may_change(&step(1, SecretStep::RotationRequested, &[])).unwrap();
        secret.change(&step(1, SecretStep::RotationRequested, &[]), place(2));
        assert!(secret.may_change(&step(1, SecretStep::RotationRequested, &[])).is_err(), "once");
        secret.may_change(&step(1, SecretStep::RotationBegun, &one)).unwrap();
        secret.change(&step(1, SecretStep::RotationBegun, &one), place(3));
        assert!(secret.may_change(&step(1, SecretStep::RotationBegun, &other)).is_err(), "one at a time");
        assert!(secret.may_store(&stored(2, false, &other)).is_err(), "of another attempt");
        secret.may_store(&stored(2, false, &one)).unwrap();
        secret.store(&stored(2, false, &one), None, place(4));
        assert_eq!((secret.current().unwrap().version, secret.candidate().unwrap().version), (1, 2));
        assert!(secret.may_change(&step(1, SecretStep::Ended, &[])).is_err(), "what is handed out does not end");
        secret.may_change(&step(2, SecretStep::Current, &[])).unwrap();
        secret.change(&step(2, SecretStep::Current, &[]), place(5));
        assert_eq!((secret.current().unwrap().version, secret.version(1).unwrap().state), (2, SecretState::Retiring));
        assert!(secret.requested.is_none() && secret.attempt.is_none());
        secret.may_change(&step(1, SecretStep::Ended, &[])).unwrap();
        secret.change(&step(1, SecretStep::Ended, &[]), place(6));
        assert!(!secret.is_live(1) && secret.is_live(2));
        secret.change(&step(0, SecretStep::Removed, &[]), place(7));
        assert!(secret.current().is_none() && secret.may_change(&step(0, SecretStep::Removed, &[])).is_err());
        assert!(secret.may_store(&stored(2, true, &[])).is_err(), "numbers are not used again");
        secret.may_store(&stored(3, true, &[])).unwrap();
    }

    #[test]
    fn versions_are_bounded() {
        let mut secret = ManagedSecret::default();
        for n in 1..=limits::SECRET_LIVE_VERSIONS as u64 {
            secret.may_store(&stored(n, true, &[])).unwrap();
            secret.store(&stored(n, true, &[]), None, place(n));
        }
        let next = limits::SECRET_LIVE_VERSIONS as u64 + 1;
        assert_eq!(secret.may_store(&stored(next, true, &[])).unwrap_err().reason, Reason::LimitReached);
        let ends = SecretStored { ends_previous: true, ..stored(next, true, &[]) };
        secret.may_store(&ends).unwrap();
        for n in 0..40 {
            let ends = SecretStored { ends_previous: true, ..stored(next + n, true, &[]) };
            secret.store(&ends, None, place(next + n));
        }
        assert_eq!(secret.versions.len(), limits::SECRET_LIVE_VERSIONS + limits::SECRET_ENDED_VERSIONS);
    }
}
