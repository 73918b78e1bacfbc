//! Parses messages of the revocation feed. A message that is not understood is an error: skipping a rule would miss a revocation.

use mayfly_verify::check::Message;
use mayfly_verify::limits;
use mayfly_verify::revocation::record::{PolicyBelow, Principal, RecordedTarget, SvidTarget, TargetRecord};
use mayfly_verify::revocation::{ChainHead, FeedEvent, FeedSnapshot, Heartbeat, Target};
use mayfly_verify::seq::{CredentialId, Millis, Seq, TaskId};

use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::target::Target as Wire;
use crate::pb::mayfly::v1::watch_revocations_response::Event;

/// Why a message is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the feed sent {0}")]
pub struct NotRead(pub String);

fn bad(what: impl Into<String>) -> NotRead {
    NotRead(what.into())
}

/// Parses a message.
pub fn read(message: &pb::WatchRevocationsResponse) -> Result<Message, NotRead> {
    let seq = seq(message.seq)?;
    let previous = self::seq(message.previous_seq)?;
    Ok(match message.event.as_ref().ok_or_else(|| bad("an event of a sort that is not known"))? {
        Event::Snapshot(part) => Message::Part { part: snapshot(seq, part)?, last: part.last },
        Event::Heartbeat(beat) if beat.heads.is_empty() => Message::Heartbeat(heartbeat(seq, previous, beat)?),
        Event::Heartbeat(beat) => Message::HeartbeatWithHeads(heartbeat(seq, previous, beat)?, heads(&beat.heads)?),
        Event::Rule(e) => {
            let event = FeedEvent::Rule { seq, targets: targets(&e.targets)?, drop_after: until(e)?, locks: e.locks };
            Message::Event { previous, event }
        }
        Event::Hold(e) => Message::Event { previous, event: FeedEvent::Hold { seq, task: task(&e.task_id)? } },
        Event::Resume(e) => Message::Event { previous, event: FeedEvent::Resume { seq, task: task(&e.task_id)? } },
        // Locks only prevent new grants, which a follower does not issue. An unknown target is therefore harmless.
        Event::Lock(_) => Message::Event { previous, event: FeedEvent::Lock { seq, targets: Vec::new() } },
        Event::Lift(_) => Message::Event { previous, event: FeedEvent::Lift { seq, targets: Vec::new() } },
    })
}

fn heartbeat(head: Seq, previous: Seq, beat: &pb::HeartbeatEvent) -> Result<Heartbeat, NotRead> {
    let fresh_at = beat.fresh_at.as_ref().and_then(millis).ok_or_else(|| bad("a heartbeat without its time"))?;
    // A heartbeat without a valid maximum age is valid for no time.
    let max_age = beat.max_age.as_ref().map_or(0, |d| {
        let nanos = u64::try_from(d.nanos).unwrap_or_default();
        u64::try_from(d.seconds).unwrap_or_default().saturating_mul(1000).saturating_add(nanos / 1_000_000)
    });
    // Without this field, nothing of an older generation is considered certain.
    let time_generation = u8::try_from(beat.time_generation).ok().filter(|g| *g > 0).unwrap_or(head.generation());
    Ok(Heartbeat { head, previous, fresh_at, max_age, time_generation })
}

fn heads(all: &[pb::ChainHead]) -> Result<Vec<ChainHead>, NotRead> {
    let one = |head: &pb::ChainHead| {
        let header_sha256 = head.header_sha256[..].try_into().map_err(|_| bad("the hash of a commit that has not 32 bytes"))?;
        Ok(ChainHead { writer: head.writer.as_str().into(), commit: head.commit, header_sha256 })
    };
    match all.len() > limits::CHAIN_HEADS {
        true => Err(bad("more chains of commits than there can be")),
        false => all.iter().map(one).collect(),
    }
}

/// The newest head that the follower has seen, for opening a stream.
pub(crate) fn seen_to_pb((head, chains): (Seq, &[ChainHead])) -> pb::SeenHead {
    let one = |c: &ChainHead| pb::ChainHead {
        writer: c.writer.to_string(),
        commit: c.commit,
        header_sha256: c.header_sha256.to_vec().into(),
    };
    pb::SeenHead { seq: head.as_u64(), heads: chains.iter().map(one).collect() }
}

fn snapshot(seq: Seq, part: &pb::SnapshotPart) -> Result<FeedSnapshot, NotRead> {
    let mut out = FeedSnapshot { seq, ..FeedSnapshot::default() };
    for rule in &part.rules {
        let (seq, until) = (self::seq(rule.seq)?, until(rule)?);
        out.rules.extend(targets(&rule.targets)?.into_iter().map(|target| (target, seq, until)));
    }
    for hold in &part.holds {
        out.holds.push(task(&hold.task_id)?);
    }
    Ok(out)
}

fn seq(n: u64) -> Result<Seq, NotRead> {
    Seq::from_u64(n).ok_or_else(|| bad("a seq above 2^53"))
}

/// The time after which a rule may be dropped; `None`: never.
fn until(rule: &pb::RuleEvent) -> Result<Option<Millis>, NotRead> {
    let read = |at| millis(at).ok_or_else(|| bad("a rule that ends at no time"));
    rule.drop_after.as_ref().map(read).transpose()
}

fn targets(all: &[pb::Target]) -> Result<Vec<Target>, NotRead> {
    all.iter().map(target).collect()
}

/// Parses a target by way of its persisted form, which checks lengths and canonical names. A target that fails there would match nothing.
fn target(target: &pb::Target) -> Result<Target, NotRead> {
    let of = |e: &dyn std::fmt::Display| bad(format!("a target: {e}"));
    let two = |issuer: &str, sub: &str| Principal { issuer: issuer.to_owned(), sub: sub.to_owned() };
    let aim = match target.target.as_ref().ok_or_else(|| bad("a target of a sort that is not known"))? {
        Wire::CredentialId(id) => RecordedTarget::Credential(id.parse::<CredentialId>().map_err(|e| of(&e))?.as_bytes().to_vec()),
        Wire::TaskId(id) => RecordedTarget::Task(id.parse::<TaskId>().map_err(|e| of(&e))?.as_bytes().to_vec()),
        Wire::Caller(id) => RecordedTarget::Caller(id.clone()),
        Wire::SpiffeIdPrefix(id) => RecordedTarget::Prefix(id.clone()),
        Wire::TrustDomain(name) => RecordedTarget::TrustDomain(name.clone()),
        // A root is identified by its digest alone; the domain is informational.
        Wire::TrustAnchor(t) => RecordedTarget::TrustAnchor(t.sha256.to_vec()),
        Wire::Subject(t) => {
            // On the wire the issuer of a workload is its trust domain's SPIFFE ID; in tokens it is the bare name.
            let workload = t.sub.starts_with(SPIFFE);
            let bare = t.issuer.strip_prefix(SPIFFE).filter(|_| workload);
            RecordedTarget::Subject(two(bare.unwrap_or(&t.issuer), &t.sub))
        }
        Wire::Upstream(name) => RecordedTarget::Upstream(name.clone()),
        Wire::UpstreamScope(t) => RecordedTarget::UpstreamScope(two(&t.upstream, &t.scope)),
        Wire::Binding(name) => RecordedTarget::Binding(name.clone()),
        Wire::Tool(name) => RecordedTarget::Tool(name.clone()),
        Wire::Environment(name) => RecordedTarget::Environment(name.clone()),
        Wire::PolicyBelow(t) => {
            RecordedTarget::PolicyBelow(PolicyBelow { environment: t.environment.clone(), version: t.version })
        }
        Wire::SigningKey(key) => RecordedTarget::SigningKey(key.clone()),
        Wire::Svid(t) => RecordedTarget::Svid(SvidTarget {
            trust_domain: t.trust_domain.clone(),
            issuing_key: t.issuing_key_sha256.to_vec(),
            serial: t.serial.to_vec(),
        }),
        Wire::SubjectToken(t) => RecordedTarget::SubjectToken(two(&t.issuer, &t.id)),
        Wire::Everything(_) => RecordedTarget::Everything(true),
    };
    Target::from_record(&TargetRecord { aim: Some(aim) }).map_err(|e| of(&e))
}

const SPIFFE: &str = "spiffe://";

fn task(id: &str) -> Result<TaskId, NotRead> {
    id.parse().map_err(|e| bad(format!("a task id: {e}")))
}

/// Converts a timestamp; `None` where it is before 1970 or malformed.
fn millis(at: &prost_types::Timestamp) -> Option<Millis> {
    let seconds = u64::try_from(at.seconds).ok()?;
    let nanos = u64::try_from(at.nanos).ok().filter(|n| *n < 1_000_000_000)?;
    seconds.checked_mul(1000)?.checked_add(nanos / 1_000_000).map(Millis)
}
