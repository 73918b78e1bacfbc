//! Sequences of records that the fold once accepted and must refuse.

mod approvals;
mod authorize;
mod break_glass;
mod changes;
mod due;
mod generations;
mod groups;
mod history;
mod logins;
mod more;
mod registry;
mod replaced;
mod rules;
mod waits;
mod waits_random;

use super::super::commit::{Commit, EncodedRecord, WriterHead, pack};
use super::super::record::*;
use super::tests::{Log, id_of, reason};
use super::*;
use mayfly_base::refusal::Reason;

/// A defect that is made in a record, with its description.
type Defect<T> = (&'static str, fn(&mut T));

fn generation(number: u32, reset_time: bool) -> Record {
    let begun = GenerationBegun { generation: number, store: vec![2; 16], reset_time, ..Default::default() };
    Record::new(Author::Mayfly("recovered".into()), Event::GenerationBegun(begun))
}

fn note() -> Record {
    Record::new(Author::LocalUid(0), Event::Maintained(Maintained::default()))
}

fn by_operator(event: Event) -> Record {
    Record::new(Author::LocalUid(0), event)
}

fn asked(log: &mut Log, task: &[u8]) -> (Vec<u8>, Record) {
    let approval = log.id();
    let asked = ApprovalRequested {
        approval: approval.clone(),
        digest: vec![3; 32],
        of: ApprovalKind::Exchange as i32,
        task: task.to_vec(),
        caller: "spiffe://a.example/agent".into(),
        upstream: "echo".into(),
        upstream_version: 1,
        environment: "dev".into(),
        scopes: vec!["read".into()],
        kind: 1,
        tool: "t".into(),
        ttl: 30_000,
        opens: task.is_empty(),
        approvers: vec![ada()],
        expires_at: log.time.0 + 60_000,
        ..Default::default()
    };
    (approval, Record::new(Author::LocalUid(0), Event::ApprovalAsked(asked.into())))
}

fn given(log: &Log, approval: &[u8]) -> Record {
    given_by(log, Author::Person(ada()), approval)
}

fn ada() -> Principal {
    Principal { issuer: "https://idp.example".into(), sub: "ada".into() }
}

fn given_by(log: &Log, who: Author, approval: &[u8]) -> Record {
    let given = ApprovalDecided {
        approval: approval.to_vec(),
        given: true,
        reason: String::new(),
        digest: vec![3; 32],
        login: Vec::new(),
    };
    Record::new(who, Event::ApprovalDecided(given)).decided_at(log.state.head)
}
