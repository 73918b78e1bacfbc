//! One stream of the feed: a snapshot or what was missed, then what comes, with heartbeats between.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::super::peer::{self, Peer};
use super::super::status::status;
use super::super::wire;
use super::revocation::lock_index;
use crate::authority::Authority;
use crate::feed::{Beginning, Registered, Sent};
use crate::ledger::record::Who;
use crate::limits;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::watch_revocations_response::Event;
use crate::policy::Admin;
use crate::policy::wanted;
use crate::refusal::{No, Reason, Refusal};
use crate::revocation::Target;
use crate::revocation::event::{FeedEvent, FeedSnapshot};
use crate::seq::Seq;

/// What a follower reads.
pub type Events = Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::WatchRevocationsResponse, Status>> + Send>>;

/// Rules in one part of a snapshot: some 200 KB.
const PART: usize = 1_000;

/// A follower is a server of the upstreams that it names, or an operator.
pub fn may_watch(authority: &Authority, request: &Request<pb::WatchRevocationsRequest>) -> Result<(), Status> {
    let Some(Peer::Workload(_)) = request.extensions().get::<Peer>() else {
        return authority.admit(&peer::operator(request)?, Admin::Observe, None).map(drop).map_err(status);
    };
    let caller = peer::caller(request)?;
    authority.still_stands(&caller).map_err(status)?;
    let compiled = authority.catalog.now();
    let named = &request.get_ref().upstreams;
    let serves = |name: &String| compiled.upstream(name).is_some_and(|r| r.upstream.served_by(caller.id()));
    if named.is_empty() || named.len() > limits::TASK_LIST || !named.iter().all(serves) {
        let what = format!("{} may follow for upstreams that it serves; name them in upstreams", caller.id());
        let no = Refusal::new(Reason::NotYours, what).way_out("the upstream's registration names its servers");
        return Err(status(No::Refusal(no)));
    }
    Ok(())
}

/// Registers the follower and begins its stream.
pub async fn start(authority: Arc<Authority>, who: Who, ask: pb::WatchRevocationsRequest) -> Result<Events, No> {
    let name = wanted::name("follower", &ask.follower)?;
    if name.len() > limits::FOLLOWER_NAME_BYTES {
        return Err(No::Refusal(Refusal::field("follower", format!("at most {} bytes", limits::FOLLOWER_NAME_BYTES))));
    }
    let resume = ask.resume_after.map(|n| wire::seq("resume_after", n)).transpose()?;
    let head = authority.ledger.durable();
    let (live, beginning) = authority.feed.follow(resume, head)?;
    let applied = resume.unwrap_or(Seq::ZERO);
    let registered = authority.followers.register(&who, &name, ask.upstreams, applied, authority.system.wall())?;
    let (out, stream) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut one = One { authority, registered, out, live, last: applied };
        let ended = one.run(beginning).await;
        if let Err(Some(no)) = ended {
            let _ = one.out.send(Err(status(no))).await;
        }
        one.authority.followers.ended(&one.registered, one.authority.system.wall());
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

struct One {
    authority: Arc<Authority>,
    registered: Registered,
    out: mpsc::Sender<Result<pb::WatchRevocationsResponse, Status>>,
    live: broadcast::Receiver<Arc<Sent>>,
    /// The seq of the newest event that was sent.
    last: Seq,
}

/// Why a stream ended: with something to say, or because nobody listens any more.
type End = Option<No>;

impl One {
    async fn run(&mut self, beginning: Beginning) -> Result<(), End> {
        match beginning {
            Beginning::Snapshot => self.snapshot().await?,
            Beginning::Missed(missed) => {
                for sent in missed {
                    self.event(&sent).await?;
                }
            }
        }
        let every = Duration::from_millis(self.authority.followers.max_age_ms() / 10).max(Duration::from_millis(100));
        let mut beat = tokio::time::interval(every);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => self.heartbeat().await?,
                () = self.out.closed() => return Err(None),
                next = self.live.recv() => match next {
                    Ok(sent) => self.event(&sent).await?,
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                    Err(broadcast::error::RecvError::Lagged(n)) => return Err(Some(lagged(n))),
                },
            }
        }
    }

    async fn send(&mut self, seq: Seq, previous: Seq, event: Event) -> Result<(), End> {
        let message = pb::WatchRevocationsResponse { seq: seq.as_u64(), previous_seq: previous.as_u64(), event: Some(event) };
        // Noted before it is sent: an acknowledgement may be faster than we are.
        if !self.authority.followers.sent(&self.registered, seq, self.authority.system.wall()) {
            let no = Refusal::new(Reason::NotReady, "a newer stream of this follower took over");
            return Err(Some(No::Refusal(no)));
        }
        self.out.send(Ok(message)).await.map_err(|_| None)
    }

    async fn snapshot(&mut self) -> Result<(), End> {
        let read = |s: &crate::ledger::State| {
            let locks: Vec<(Seq, Target)> = s.rules.entries().into_iter().filter_map(|(t, e)| Some((e.lock?, t))).collect();
            (FeedSnapshot::of(s), locks)
        };
        let (snapshot, locks) = self.authority.ledger.settled(read).await.map_err(Some)?;
        let seq = snapshot.seq;
        let mut rules = snapshot.rules.into_iter().map(|(target, seq, drop_after)| pb::RuleEvent {
            seq: seq.as_u64(),
            targets: vec![wire::target_to_pb(&target)],
            drop_after: drop_after.map(wire::timestamp),
            locks: false,
        });
        let mut holds = snapshot.holds.into_iter().map(|task| pb::HoldEvent { seq: seq.as_u64(), task_id: task.to_string() });
        let mut locks = locks.into_iter().map(|(seq, target)| lock_to_pb(seq, std::slice::from_ref(&target)));
        loop {
            let part = pb::SnapshotPart {
                rules: rules.by_ref().take(PART).collect(),
                holds: holds.by_ref().take(PART).collect(),
                locks: locks.by_ref().take(PART).collect(),
                last: false,
            };
            let last = part.rules.len() < PART && part.holds.len() < PART && part.locks.len() < PART;
            self.send(seq, Seq::ZERO, Event::Snapshot(pb::SnapshotPart { last, ..part })).await?;
            if last {
                self.last = seq;
                return Ok(());
            }
        }
    }

    async fn event(&mut self, sent: &Sent) -> Result<(), End> {
        let seq = sent.event.seq();
        // In the snapshot, or among what was missed.
        if seq <= self.last {
            return Ok(());
        }
        self.send(seq, sent.previous, event_to_pb(&sent.event)).await?;
        self.last = seq;
        Ok(())
    }

    /// The head, and when this replica's view was proven fresh: an embedded store has no view but its own.
    async fn heartbeat(&mut self) -> Result<(), End> {
        if !self.authority.ledger.writes() {
            return Ok(());
        }
        // The feed's own head: every event up to it is in this stream's queue, so none is passed over as seen.
        let head = self.authority.feed.head();
        let settled = self.authority.ledger.settled(|s| (s.writers.clone(), s.time, s.time_generation));
        let (chains, time, time_generation) = settled.await.map_err(Some)?;
        let fresh_at = self.authority.system.wall().max(time);
        loop {
            match self.live.try_recv() {
                Ok(sent) => self.event(&sent).await?,
                Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => break,
                Err(broadcast::error::TryRecvError::Lagged(n)) => return Err(Some(lagged(n))),
            }
        }
        let heads = chains.iter().map(|(writer, chain)| pb::ChainHead {
            writer: writer.to_string(),
            commit: chain.number,
            header_sha256: chain.hash.to_vec().into(),
        });
        let beat = pb::HeartbeatEvent {
            fresh_at: Some(wire::timestamp(fresh_at)),
            max_age: Some(wire::duration(self.authority.followers.max_age_ms())),
            heads: heads.collect(),
            time_generation: time_generation.into(),
        };
        let head = head.max(self.last);
        self.send(head, self.last, Event::Heartbeat(beat)).await
    }
}

fn lagged(n: u64) -> No {
    let no = Refusal::new(Reason::LimitReached, format!("this follower fell {n} events behind: begin with a snapshot"));
    No::Refusal(no.by("feed_lag").retry(Duration::from_secs(1)))
}

fn lock_to_pb(seq: Seq, targets: &[Target]) -> pb::LockEvent {
    let locked = targets.iter().map(|t| pb::LockedTarget { index: lock_index(t), target: Some(wire::target_to_pb(t)) });
    pb::LockEvent { seq: seq.as_u64(), locked: locked.collect() }
}

fn event_to_pb(event: &FeedEvent) -> Event {
    match event {
        FeedEvent::Rule { seq, targets, drop_after, locks } => Event::Rule(pb::RuleEvent {
            seq: seq.as_u64(),
            targets: targets.iter().map(wire::target_to_pb).collect(),
            drop_after: drop_after.map(wire::timestamp),
            locks: *locks,
        }),
        FeedEvent::Lock { seq, targets } => Event::Lock(lock_to_pb(*seq, targets)),
        FeedEvent::Lift { seq, targets } => {
            Event::Lift(pb::LiftEvent { seq: seq.as_u64(), targets: targets.iter().map(wire::target_to_pb).collect() })
        }
        FeedEvent::Hold { seq, task } => Event::Hold(pb::HoldEvent { seq: seq.as_u64(), task_id: task.to_string() }),
        FeedEvent::Resume { seq, task } => Event::Resume(pb::ResumeEvent { seq: seq.as_u64(), task_id: task.to_string() }),
    }
}
