//! One stream of the revocation feed: first a snapshot or the missed events, then live events, with heartbeats in between.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::super::status::status;
use super::super::wire;
use super::request_checks;
use super::revocation::lock_index;
use mayfly_authority::admission::operator_calls;
use mayfly_authority::admission::operators::Environments;
use mayfly_authority::authority::Authority;
use mayfly_authority::revocation::feed::{FeedStart, FollowerSession, SentEvent, rolled_back};
use mayfly_authority::tasks::Actor;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_identity::caller::{Caller, Operator};
use mayfly_ledger::record::Author;
use mayfly_ledger::recovery::rollback_check::SeenWriterHead;
use mayfly_ledger::revocation::Target;
use mayfly_ledger::revocation::event::{FeedEvent, snapshot_of};
use mayfly_ledger::state::refused_by;
use mayfly_ledger::stopping;
use mayfly_policy::admin;
use mayfly_policy::exchange_request;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::watch_revocations_response::Event;
use mayfly_verify::seq::Seq;

/// The stream of feed messages to a follower.
pub type Events = Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::WatchRevocationsResponse, Status>> + Send>>;

/// Rules in one part of a snapshot: some 200 KB.
const PART: usize = 1_000;

/// The kind of follower: a server of the upstreams that it names, or an operator.
pub enum FeedCaller {
    /// A workload on the workload listener.
    Server(Caller),
    /// An operator on the admin listener or the socket.
    Operator(Operator),
}

impl FeedCaller {
    /// The admitted caller.
    pub fn of<T>(authority: &Authority, request: &Request<T>, rpc: &'static str) -> Result<FeedCaller, Status> {
        Ok(match request_checks::actor(authority, request, rpc)? {
            Actor::Workload(caller) => FeedCaller::Server(caller),
            Actor::Operator(operator) => FeedCaller::Operator(operator),
        })
    }

    /// The follower's identity in the list of followers.
    pub fn who(&self) -> Author {
        match self {
            FeedCaller::Server(caller) | FeedCaller::Operator(Operator::Svid(caller)) => Author::of(caller),
            FeedCaller::Operator(Operator::LocalUid(uid)) => Author::LocalUid(*uid),
        }
    }

    /// Whether the follower may follow now: checked when the stream begins, and again at each event and heartbeat. A follower that a rule
    /// locks out is sent that rule first, so that it refuses the covered credentials at once instead of when its feed has expired. `told`:
    /// the sequence number up to which events were sent.
    fn may(&self, authority: &Authority, upstreams: &[String], told: Seq) -> Result<(), Error> {
        let caller = match self {
            FeedCaller::Operator(operator) => {
                let compiled = authority.catalog.now();
                let of = |name: &String| compiled.upstream(name).map(|r| r.upstream.environment.clone());
                // An operator follows like a server of the upstreams that the request names; if it names none, for every environment.
                let environments = match upstreams.iter().map(of).collect::<Option<_>>() {
                    Some(environments) if !upstreams.is_empty() => Environments::Of(environments),
                    _ => Environments::Every,
                };
                return authority.admit_in::<admin::Observe>(operator, &environments).map(drop);
            }
            FeedCaller::Server(caller) => caller,
        };
        authority.still_stands(caller)?;
        if let Some(hit) = authority.shut_out(caller).filter(|hit| hit.seq <= told) {
            return Err(Error::Refusal(refused_by(&hit, "this follower")));
        }
        let compiled = authority.catalog.now();
        let serves = |name: &String| compiled.upstream(name).is_some_and(|r| r.upstream.served_by(caller.id()));
        if upstreams.is_empty() || upstreams.len() > limits::TASK_LIST || !upstreams.iter().all(serves) {
            let what = format!("{} may follow for upstreams that it serves; name them in upstreams", caller.id());
            let no = Refusal::new(Reason::NotYours, what).way_out("the upstream's registration names its servers");
            return Err(Error::Refusal(no));
        }
        Ok(())
    }
}

/// Registers the follower and begins its stream.
pub async fn start(authority: Arc<Authority>, follows: FeedCaller, ask: pb::WatchRevocationsRequest) -> Result<Events, Error> {
    follows.may(&authority, &ask.upstreams, Seq::LAST)?;
    let name = exchange_request::name("follower", &ask.follower)?;
    if name.len() > limits::FOLLOWER_NAME_BYTES {
        return Err(Error::Refusal(Refusal::field("follower", format!("at most {} bytes", limits::FOLLOWER_NAME_BYTES))));
    }
    let resume = ask.resume_after.map(|n| wire::seq("resume_after", n)).transpose()?;
    let who = follows.who();
    let proven = went_on(&authority, &who, &name, resume, ask.seen.as_ref()).await?;
    let head = authority.ledger.durable();
    let (live, beginning) = authority.feed.follow(resume, head)?;
    let applied = resume.filter(|_| proven).unwrap_or(Seq::ZERO);
    let registered = authority.followers.register(&who, &name, ask.upstreams.clone(), applied, authority.system.wall())?;
    let (out, stream) = mpsc::channel(64);
    let last = resume.unwrap_or(Seq::ZERO);
    tokio::spawn(operator_calls::within(operator_calls::OperatorCall::current(), async move {
        let mut one = FeedStream { authority, follows, upstreams: ask.upstreams, registered, out, live, last };
        let ended = one.run(beginning).await;
        if let Err(Some(no)) = ended {
            let _ = one.out.send(Err(status(no))).await;
        }
        one.authority.followers.ended(&one.registered, one.authority.system.wall());
    }));
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// Refuses a follower that has seen more than this server has, or another history: the server was reset to an older state. Returns `true`
/// if the head that the follower has seen was found in the ledger, which confirms the position that the follower claims.
async fn went_on(
    authority: &Arc<Authority>,
    who: &Author,
    name: &str,
    resume: Option<Seq>,
    seen: Option<&pb::SeenHead>,
) -> Result<bool, Error> {
    let head = authority.ledger.durable();
    let at = seen.map(|seen| wire::seq("seen.seq", seen.seq)).transpose()?;
    let newest = resume.max(at);
    let back = |newest: Seq, found: String| {
        authority.followers.seen_beyond(who, name, newest, head);
        Error::Refusal(rolled_back(found))
    };
    if let Some(newest) = newest.filter(|newest| *newest > head) {
        return Err(back(newest, format!("this follower has seen seq {newest}, and this server stands at {head}")));
    }
    // A head of an earlier generation is not compared: the current generation began by revoking everything issued before.
    let (Some(seen), Some(at)) = (seen, at.filter(|at| at.generation() == head.generation())) else {
        return match resume.filter(|after| after.generation() == head.generation() && authority.followers.is_beyond(who, name)) {
            Some(after) => Err(back(after, format!("this follower has seen another history up to seq {after}"))),
            None => Ok(false),
        };
    };
    let ends = ends_seen(seen)?;
    let (ledger, any) = (authority.ledger.clone(), !ends.is_empty());
    let compared = tokio::task::spawn_blocking(move || ledger.lacks(&ends)).await;
    match compared.map_err(|e| Fault::new(format!("comparing what a follower has seen: {e}")))?? {
        Some(end) => {
            let what =
                format!("this follower has seen another commit {} of writer {} than this server has", end.commit, end.writer);
            Err(back(at, what))
        }
        None => Ok(any && resume.is_none_or(|after| after <= at)),
    }
}

fn ends_seen(seen: &pb::SeenHead) -> Result<Vec<SeenWriterHead>, Refusal> {
    if seen.heads.len() > limits::CHAIN_HEADS {
        return Err(Refusal::field("seen.heads", format!("at most {}", limits::CHAIN_HEADS)));
    }
    let one = |head: &pb::ChainHead| {
        let writer = head.writer.parse().ok()?;
        Some(SeenWriterHead { writer, commit: head.commit, hash: head.header_sha256[..].try_into().ok()? })
    };
    let bad = || Refusal::field("seen.heads", "each head must have a writer number and a 32-byte SHA-256, as in a heartbeat");
    seen.heads.iter().map(|head| one(head).ok_or_else(bad)).collect()
}

struct FeedStream {
    authority: Arc<Authority>,
    follows: FeedCaller,
    upstreams: Vec<String>,
    registered: FollowerSession,
    out: mpsc::Sender<Result<pb::WatchRevocationsResponse, Status>>,
    live: broadcast::Receiver<Arc<SentEvent>>,
    /// The sequence number of the newest event that was sent.
    last: Seq,
}

/// Why a stream ended: with a refusal to send, or because the follower disconnected.
type End = Option<Error>;

impl FeedStream {
    async fn run(&mut self, beginning: FeedStart) -> Result<(), End> {
        match beginning {
            FeedStart::Snapshot => self.snapshot().await?,
            FeedStart::Missed(missed) => {
                for sent in missed {
                    self.event(&sent).await?;
                }
            }
        }
        let every = Duration::from_millis(self.authority.followers.max_age_ms() / 10).max(Duration::from_millis(100));
        let mut beat = tokio::time::interval(every);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let authority = self.authority.clone();
        let mut ends = pin!(authority.ends());
        loop {
            tokio::select! {
                () = &mut ends => {
                    // Before the stream ends, send the events of all changes that were acknowledged until now.
                    self.told_so_far().await?;
                    return Err(Some(Error::Refusal(stopping())));
                }
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
        // Recorded before sending, since the follower's acknowledgement may arrive before `send` returns. A snapshot counts as sent with
        // its last part.
        let whole = !matches!(&event, Event::Snapshot(part) if !part.last);
        let sent = if whole { seq } else { Seq::ZERO };
        let message = pb::WatchRevocationsResponse { seq: seq.as_u64(), previous_seq: previous.as_u64(), event: Some(event) };
        if !self.authority.followers.sent(&self.registered, sent, self.authority.system.wall()) {
            let no = Refusal::new(Reason::NotReady, "a newer stream of this follower replaced this stream");
            return Err(Some(Error::Refusal(no)));
        }
        self.out.send(Ok(message)).await.map_err(|_| None)
    }

    async fn snapshot(&mut self) -> Result<(), End> {
        let read = |s: &mayfly_ledger::State| {
            let locks: Vec<(Seq, Target)> = s.rules.entries().into_iter().filter_map(|(t, e)| Some((e.lock?, t))).collect();
            (snapshot_of(s), locks)
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

    async fn event(&mut self, sent: &SentEvent) -> Result<(), End> {
        let seq = sent.event.seq();
        // The event was already sent: in the snapshot, or among the missed events.
        if seq <= self.last {
            return Ok(());
        }
        self.send(seq, sent.previous, event_to_pb(&sent.event)).await?;
        self.last = seq;
        self.may_go_on()
    }

    fn may_go_on(&self) -> Result<(), End> {
        self.follows.may(&self.authority, &self.upstreams, self.last).map_err(Some)
    }

    /// Sends the events that are in the queue now.
    async fn told_so_far(&mut self) -> Result<(), End> {
        loop {
            match self.live.try_recv() {
                Ok(sent) => self.event(&sent).await?,
                Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => return Ok(()),
                Err(broadcast::error::TryRecvError::Lagged(n)) => return Err(Some(lagged(n))),
            }
        }
    }

    /// Sends the head and the time at which this replica's view was proven fresh: an embedded store has no view but its own.
    async fn heartbeat(&mut self) -> Result<(), End> {
        self.may_go_on()?;
        if !self.authority.ledger.writes() {
            return Ok(());
        }
        // The feed's own head: every event up to it is in this stream's queue, so no event is counted as seen without having been sent.
        let head = self.authority.feed.head();
        let settled = self.authority.ledger.settled(|s| (s.writers.clone(), s.time, s.time_generation));
        let (chains, time, time_generation) = settled.await.map_err(Some)?;
        let fresh_at = self.authority.system.wall().max(time);
        self.told_so_far().await?;
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

fn lagged(n: u64) -> Error {
    let no = Refusal::new(Reason::LimitReached, format!("this follower fell {n} events behind: begin with a snapshot"));
    Error::Refusal(no.by("feed_lag").retry(Duration::from_secs(1)))
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
