//! The services for operators on a whole authority in memory: the effect of each rpc, its refusals, and its errors on invalid input.

#[path = "../kit/mod.rs"]
mod kit;

mod access;
mod alone;
mod approval;
mod audit;
mod audit_prove;
mod audit_search;
#[cfg(feature = "fast")]
mod both_paths;
mod certificates;
mod credential;
#[path = "../kit/dice.rs"]
mod dice;
mod environments;
mod history;
mod intake;
mod key;
mod lease;
mod line;
mod locked;
mod lookup;
mod many_roots;
mod others;
mod revocation;
mod stream;
mod task;
mod trust;

use kit::house::{House, house, house_of_one, runtime, terms, wanted};
use mayfly::authority::Authority;
use mayfly::credential::IssuedCredential;
use mayfly::identity::caller::Caller;
use mayfly::identity::svid;
use mayfly::ledger::reader::history::{HistoryRecord, LogEnd};
use mayfly::ledger::reader::history_query::CancelFlag;
use mayfly::ledger::record::Event;
use mayfly::limits;
use mayfly::policy::exchange_request::TaskChoice;
use mayfly::refusal::Reason;
use mayfly::serve::peer::Peer;
use std::sync::Arc;
use tonic::{Request, Response, Status};
use tonic_types::StatusExt;

/// The uid that is permitted everything.
const ROOT: Peer = Peer::Local(1000);

/// A test authority, a runtime, and callers.
struct World {
    house: House,
    runtime: tokio::runtime::Runtime,
}

fn world() -> World {
    World { house: house(), runtime: runtime() }
}

/// The same with a single operator, so that actions that need two people are possible over the local socket.
fn world_of_one() -> World {
    World { house: house_of_one(), runtime: runtime() }
}

impl World {
    fn authority(&self) -> &Arc<Authority> {
        &self.house.authority
    }

    fn svid(&self, path: &str) -> svid::VerifiedSvid {
        let chain = self.house.root.svid(&format!("spiffe://{}{path}", kit::house::DOMAIN)).chain;
        svid::verify(&chain, &self.authority().bundles.load(), self.house.now(), limits::SVID_MAX_TTL_MS).unwrap()
    }

    /// A peer on the workload listener.
    fn workload(&self, path: &str) -> Peer {
        Peer::Workload(Caller::from(&self.svid(path)))
    }

    /// A peer on the admin listener.
    fn admin(&self, path: &str) -> Peer {
        Peer::Admin(Caller::from(&self.svid(path)))
    }

    fn run<F: Future>(&self, f: F) -> F::Output {
        self.runtime.block_on(f)
    }

    /// Issues a credential for echo in a task of its own.
    fn issue(&self, path: &str) -> IssuedCredential {
        let caller = self.house.caller(path);
        self.run(self.authority().exchange(&caller, &wanted(TaskChoice::Inline(terms().into())))).unwrap()
    }

    /// Advances time, and lets the ledger take note.
    fn pass(&self, ms: u64) {
        self.house.clock.advance(ms);
        let note = mayfly::ledger::record::Maintained { what: "time passes".into() };
        let record = mayfly::ledger::record::Record::new(
            mayfly::ledger::record::Author::Mayfly("test".into()),
            mayfly::ledger::record::Event::Maintained(note),
        );
        self.run(self.authority().ledger.commit(mayfly::ledger::ProposalKind::Change, vec![record])).unwrap();
    }
}

fn ask<T>(peer: &Peer, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(peer.clone());
    request
}

/// The token of a bearer credential.
fn token(issued: IssuedCredential) -> String {
    match issued.into_parts().2 {
        mayfly::credential::CredentialMaterial::Bearer { token, .. } => token.into_text(),
        _ => panic!("not a bearer token"),
    }
}

#[track_caller]
fn refused<T>(answer: Result<Response<T>, Status>, reason: Reason) -> Status {
    let status = match answer {
        Ok(_) => panic!("it was not refused"),
        Err(status) => status,
    };
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no reason: {status}"));
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.as_str(), "mayfly.dev"), "{status}");
    assert_eq!(status.code() as i32, reason.code() as i32);
    status
}

/// Checks that a call was refused for a field, which is named.
#[track_caller]
fn bad<T>(answer: Result<Response<T>, Status>, field: &str) {
    let status = refused(answer, Reason::InvalidField);
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations.first().map(|v| v.field.as_str()), Some(field), "{status}");
}

#[track_caller]
fn ok<T>(answer: Result<Response<T>, Status>) -> T {
    match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) => panic!("{:?} {}", status.get_details_error_info().map(|i| i.reason), status.message()),
    }
}

/// The refusals in the audit log, newest first: caller, the subject of the request, reason.
fn refusals(w: &World) -> Vec<(String, String, String)> {
    let ledger = &w.authority().ledger;
    let end = ledger.peek(|s| LogEnd { position: s.position, seq: s.head });
    let mut found = Vec::new();
    let note = |past: HistoryRecord| {
        if let Some(Event::Refused(e)) = past.record.event {
            found.push((e.caller, e.asked, e.reason));
        }
        std::ops::ControlFlow::Continue(())
    };
    ledger.look_back(end, usize::MAX, &CancelFlag::default(), note).unwrap();
    found
}
