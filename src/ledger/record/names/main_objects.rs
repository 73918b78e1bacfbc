//! The main objects of a record. A record contains many names: an issuance names its task, its caller and its ancestors. It is *about* only
//! a few: the closing of a task is about the task, a revocation about its targets. The history index stores both, so that the records about
//! one id are found without reading all records that contain the id.
//!
//! An issuance is not listed here as being about its credential: it is among the oldest records that name the credential, and an entry
//! would enlarge the index.

use crate::record::*;
use crate::revocation::{Probe, Target};
use mayfly_verify::seq::{ApprovalId, CredentialId, LeaseId, TaskId};

/// The prefix of the names of revocation targets. The index stores names with this prefix next to each other.
pub const RULE: &str = "rule ";

/// A recovery, or a restore.
pub const GENERATION: &str = "about a generation";

/// An issuance with a lease at an upstream.
pub const LEASED: &str = "about a lease's issuance";

/// A record about a credential, task, approval or lease, by the id's readable form.
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

/// A version of an environment's policy set, or of its shadow policy set; or a request for approval of that version.
pub fn policy(environment: &str, audit: bool, version: u64) -> String {
    let of = if audit { "audited policy" } else { "policy" };
    format!("about {of} {version} of {environment}")
}

/// A version of an upstream's registration, or a request for approval of it.
pub fn upstream(name: &str, version: u64) -> String {
    format!("about upstream {version} of {name}")
}

/// A revocation of a target that this probe asks for.
pub fn rule(probe: &Probe<'_>) -> String {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    match probe {
        Probe::Credential(id) => format!("{RULE}{id}"),
        Probe::Task(id) => format!("{RULE}{id}"),
        Probe::Name(sort, name) => format!("{RULE}{sort:?} {name}"),
        Probe::Pair(sort, one, other) => format!("{RULE}{sort:?} {one} {other}"),
        Probe::TrustAnchor(digest) => format!("{RULE}anchor {}", hex(digest)),
        // For every version: whether a version is below the rule's is checked when the record is read.
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

/// Calls `see` with the main objects of an event.
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
            if let Some(changed) = e.change.as_ref().and_then(ProposedChangeRecord::event) {
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
