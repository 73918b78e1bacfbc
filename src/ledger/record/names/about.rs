//! What a record is about. A record names much: an issuance names its task, its caller and its ancestors. A record is about few things: a closing
//! is about its task, a revocation about its targets. The index of history holds both, so that the records about one id are found without reading
//! all that name it.
//!
//! An issuance is not about its credential here: it is among the oldest records that name it, and it would make the index larger.

use crate::ledger::record::*;
use crate::revocation::{Probe, Target};
use crate::seq::{ApprovalId, CredentialId, LeaseId, TaskId};

/// How the names of revocations' targets begin. The index keeps names that begin so beside each other.
pub const RULE: &str = "rule ";

/// A recovery, or a restore.
pub const GENERATION: &str = "about a generation";

/// An issuance of what was made at an upstream, with a lease.
pub const LEASED: &str = "about a lease's issuance";

/// A record about a credential, task, approval or lease, by its id as it is written.
pub fn id(text: impl std::fmt::Display) -> String {
    format!("about {text}")
}

/// A change of a signing key.
pub fn key(key: &str) -> String {
    format!("about key {key}")
}

/// A refusal of a caller.
pub fn refused(caller: &str) -> String {
    format!("about a refusal of {caller}")
}

/// A version of an environment's policy set, or of the one beside it; or somebody's asking for that version.
pub fn policy(environment: &str, audit: bool, version: u64) -> String {
    let of = if audit { "audited policy" } else { "policy" };
    format!("about {of} {version} of {environment}")
}

/// A version of an upstream's registration, or somebody's asking for it.
pub fn upstream(name: &str, version: u64) -> String {
    format!("about upstream {version} of {name}")
}

/// A revocation of a target that answers this question.
pub fn rule(probe: &Probe<'_>) -> String {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    match probe {
        Probe::Credential(id) => format!("{RULE}{id}"),
        Probe::Task(id) => format!("{RULE}{id}"),
        Probe::Name(sort, name) => format!("{RULE}{sort:?} {name}"),
        Probe::Pair(sort, one, other) => format!("{RULE}{sort:?} {one} {other}"),
        Probe::TrustAnchor(digest) => format!("{RULE}anchor {}", hex(digest)),
        // Whatever the version is: which versions are below it is looked at when the record is read.
        Probe::Policy(environment, _) => format!("{RULE}policy {environment}"),
        Probe::Svid(domain, key, serial) => format!("{RULE}svid {domain} {} {}", hex(key), hex(serial)),
        Probe::Everything => format!("{RULE}everything"),
    }
}

fn ids(text: Option<String>, see: &mut dyn FnMut(&str)) {
    if let Some(text) = text {
        see(&id(text));
    }
}

/// Shows `see` what a record of this event is about.
pub(super) fn of(event: &Event, see: &mut dyn FnMut(&str)) {
    let credential = |bytes: &[u8]| CredentialId::from_slice(bytes).map(|id| id.to_string());
    let task = |bytes: &[u8]| TaskId::from_slice(bytes).map(|id| id.to_string());
    let approval = |bytes: &[u8]| ApprovalId::from_slice(bytes).map(|id| id.to_string());
    let lease = |bytes: &[u8]| LeaseId::from_slice(bytes).map(|id| id.to_string());
    match event {
        Event::GenerationBegun(_) => see(GENERATION),
        Event::Issued(e) if !e.lease.is_empty() => see(LEASED),
        Event::TaskOpened(e) => ids(task(&e.task), see),
        Event::TaskClosed(e) => ids(task(&e.task), see),
        Event::TaskHeld(e) => ids(task(&e.task), see),
        Event::TaskResumed(e) => ids(task(&e.task), see),
        Event::TaskExtended(e) => ids(task(&e.task), see),
        Event::Released(e) => ids(credential(&e.credential), see),
        Event::Authorized(e) => {
            ids(credential(&e.credential), see);
            ids(e.decided.as_ref().and_then(|decided| task(&decided.task)), see);
        }
        Event::UsesReported(e) => {
            ids(credential(&e.credential), see);
            ids(task(&e.task), see);
        }
        Event::Refused(e) => {
            see(&refused(&e.caller));
            ids(Some(e.task.clone()).filter(|task| !task.is_empty()), see);
        }
        Event::Revoked(e) => {
            e.targets.iter().filter_map(|t| Target::from_record(t).ok()).for_each(|target| see(&rule(&target.probe())));
        }
        Event::ApprovalAsked(e) => {
            ids(approval(&e.approval), see);
            ids(e.terms.as_ref().and_then(|_| task(&e.task)), see);
            if let Some(changed) = e.change.as_ref().and_then(Change::event) {
                of(&changed, see);
            }
        }
        Event::ApprovalDecided(e) => ids(approval(&e.approval), see),
        Event::LeaseOpened(e) => {
            ids(lease(&e.lease), see);
            ids(credential(&e.credential), see);
        }
        Event::LeaseClosed(e) => ids(lease(&e.lease), see),
        Event::PolicySet(e) => see(&policy(&e.environment, e.audit_only, e.version)),
        Event::UpstreamSet(e) => see(&upstream(&e.name, e.version)),
        Event::KeyAdded(e) => see(&key(&e.key)),
        Event::KeyChanged(e) => see(&key(&e.key)),
        _ => {}
    }
}
