//! WatchCredentials: streams the issuance and the end of credentials as the records become durable.
//!
//! A watcher that reads slowly delays only its own stream: when the commits are ahead of it by `limits::WATCH_LAG`, the stream ends with an
//! error. The watcher's permission is checked again at each commit.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::status::status;
use super::super::wire;
use super::credential_filter::CredentialCriteria;
use super::request_checks;
use mayfly_authority::admission::operator_calls;
use mayfly_authority::authority::Authority;
use mayfly_authority::tasks::Actor;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_identity::caller::Operator;
use mayfly_ledger::Batch;
use mayfly_ledger::reader::history::{HistoryRecord, ScanEnd};
use mayfly_ledger::record::{CredentialIssued, Event, Record};
use mayfly_ledger::revocation::{Rules, Target};
use mayfly_ledger::state::{LiveCredential, State, Task};
use mayfly_ledger::stopping;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::{CredentialId, Millis, Seq, TaskId};

type WatchItem = Result<pb::WatchCredentialsResponse, Status>;

/// One watcher.
struct Watch {
    authority: Arc<Authority>,
    operator: Operator,
    filter: CredentialCriteria,
    to: mpsc::Sender<WatchItem>,
    /// The newest record that was sent or skipped.
    seen: Seq,
}

/// Whether the stream continues.
type WatchControl = ControlFlow<Option<Error>>;

/// Begins to watch.
pub async fn begin(
    authority: &Arc<Authority>,
    actor: &Actor,
    ask: &pb::WatchCredentialsRequest,
) -> Result<ReceiverStream<WatchItem>, Error> {
    let operator = request_checks::operator(actor)?.clone();
    let mut filter = CredentialCriteria::of(ask.filter.as_ref())?;
    filter.keep_to(authority.scope_of(&operator, filter.environment())?);
    let after = ask.resume_after.map(|seq| wire::seq("resume_after", seq)).transpose()?;
    // Subscribe before reading the head, so that no record falls between the two.
    let commits = authority.commits.subscribe();
    let head = authority.ledger.durable();
    let missed = match after {
        Some(after) if after > head => {
            return Err(Error::Refusal(Refusal::field("resume_after", format!("is beyond the head, which is {head}"))));
        }
        Some(after) => missed(authority, after).await?,
        None => Vec::new(),
    };
    let (to, stream) = mpsc::channel(limits::WATCH_QUEUE);
    let watch = Watch { authority: authority.clone(), operator, filter, to, seen: after.unwrap_or(head) };
    tokio::spawn(operator_calls::within(operator_calls::OperatorCall::current(), watch.run(missed, commits)));
    Ok(ReceiverStream::new(stream))
}

/// The records after a sequence number, in order. Refused with COMPACTED if there are too many, or if they are no longer kept.
async fn missed(authority: &Authority, after: Seq) -> Result<Vec<HistoryRecord>, Error> {
    let (mut records, recovered, reached) = authority
        .question(move |look| {
            let (mut records, mut recovered) = (Vec::new(), false);
            let reached = look.back(limits::WATCH_RESUME_BYTES, |past| {
                if past.seq <= after || records.len() >= limits::WATCH_RESUME {
                    return ControlFlow::Break(());
                }
                // The record of a new generation ended all credentials before it, and names none of them.
                if matches!(&past.record.event, Some(Event::GenerationBegun(e)) if e.generation > 1) {
                    recovered = true;
                    return ControlFlow::Break(());
                }
                if concerns(&past.record) {
                    records.push(past);
                }
                ControlFlow::Continue(())
            })?;
            Ok((records, recovered, reached))
        })
        .await?;
    let whole = match reached {
        ScanEnd::Enough => records.len() < limits::WATCH_RESUME,
        ScanEnd::Beginning => true,
        ScanEnd::Bound(seq) | ScanEnd::Removed(seq) => seq <= after,
    };
    if recovered || !whole {
        let no = Refusal::new(Reason::Compacted, format!("more records follow seq {after} than a stream can resume over"));
        return Err(Error::Refusal(no.way_out("list the credentials, then start a new watch without resume_after")));
    }
    records.reverse();
    Ok(records)
}

fn concerns(record: &Record) -> bool {
    matches!(
        record.event,
        Some(
            Event::Issued(_)
                | Event::Released(_)
                | Event::Revoked(_)
                | Event::TaskClosed(_)
                | Event::TaskHeld(_)
                | Event::TaskResumed(_)
        )
    )
}

impl Watch {
    async fn run(mut self, missed: Vec<HistoryRecord>, mut commits: broadcast::Receiver<Arc<Batch>>) {
        for past in missed {
            if let ControlFlow::Break(why) = self.tell(&past.record, past.seq, past.at).await {
                return self.end(why).await;
            }
        }
        let mut sign = tokio::time::interval(Duration::from_millis(limits::WATCH_SIGN_MS));
        sign.reset();
        let authority = self.authority.clone();
        loop {
            let goes = tokio::select! {
                batch = commits.recv() => match batch {
                    Ok(batch) => self.batch(&batch).await,
                    Err(RecvError::Lagged(_)) => ControlFlow::Break(Some(lagged())),
                    Err(RecvError::Closed) => ControlFlow::Break(None),
                },
                _ = sign.tick() => self.sign().await,
                () = self.to.closed() => ControlFlow::Break(None),
                () = authority.ends() => ControlFlow::Break(Some(Error::Refusal(stopping()))),
            };
            if let ControlFlow::Break(why) = goes {
                return self.end(why).await;
            }
        }
    }

    async fn end(self, why: Option<Error>) {
        if let Some(no) = why {
            let _ = self.to.send(Err(status(no))).await;
        }
    }

    /// Checks again whether and where the operator may observe: policy may have changed.
    fn admitted(&mut self) -> WatchControl {
        match self.authority.scope_of(&self.operator, self.filter.environment()) {
            Ok(sees) => {
                self.filter.keep_to(sees);
                ControlFlow::Continue(())
            }
            Err(no) => ControlFlow::Break(Some(no)),
        }
    }

    async fn batch(&mut self, batch: &Batch) -> WatchControl {
        self.admitted()?;
        for committed in &batch.records {
            let record = committed.whole().map_err(|fault| Some(Error::Fault(fault)));
            match record {
                Ok(record) => self.tell(&record, committed.seq, batch.time).await?,
                Err(why) => return ControlFlow::Break(why),
            }
        }
        ControlFlow::Continue(())
    }

    async fn sign(&mut self) -> WatchControl {
        self.admitted()?;
        let head = self.authority.ledger.durable();
        let at = Some(wire::timestamp(self.authority.system.wall()));
        let change = pb::CredentialChange::None.into();
        self.send(pb::WatchCredentialsResponse { seq: head.as_u64(), at, change, credential: None }).await
    }

    async fn send(&self, told: pb::WatchCredentialsResponse) -> WatchControl {
        match self.to.send(Ok(told)).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(None),
        }
    }

    /// Sends the events of one record.
    async fn tell(&mut self, record: &Record, seq: Seq, at: Millis) -> WatchControl {
        if seq <= self.seen {
            return ControlFlow::Continue(());
        }
        self.seen = seq;
        match &record.event {
            Some(Event::Issued(e)) => self.issued(e, record, seq, at).await,
            Some(Event::Released(e)) => {
                let id = CredentialId::from_slice(&e.credential);
                self.changed(seq, at, move |_, live, _| Some(live.id()) == id).await
            }
            Some(Event::Revoked(e)) if !e.lock_only => {
                let mut rules = Rules::default();
                for target in e.targets.iter().filter_map(|t| Target::from_record(t).ok()) {
                    rules.add(&target, Some(seq), None, Millis(u64::MAX));
                }
                self.changed(seq, at, move |state, live, task| rules.covers(&state.facts(live, task)).is_some()).await
            }
            Some(Event::TaskClosed(mayfly_ledger::record::TaskClosed { task, .. }))
            | Some(Event::TaskHeld(mayfly_ledger::record::TaskHeld { task, .. }))
            | Some(Event::TaskResumed(mayfly_ledger::record::TaskResumed { task, .. })) => {
                let id = TaskId::from_slice(task);
                self.changed(seq, at, move |_, _, task| id.is_some_and(|id| task.terms.path.contains(&id))).await
            }
            _ => ControlFlow::Continue(()),
        }
    }

    async fn issued(&self, e: &CredentialIssued, record: &Record, seq: Seq, at: Millis) -> WatchControl {
        let now = self.authority.system.wall();
        let shown = self.authority.ledger.settled(|s| {
            let task = TaskId::from_slice(&e.task).and_then(|id| s.tasks.get(&id));
            let path = task.map(|t| t.terms.path.clone()).unwrap_or_default();
            let fits = self.filter.fits_record(e, record.revision(), &path);
            fits.then(|| wire::credential_of_record(s, e, (seq, record.revision()), &path, now))
        });
        match shown.await {
            Ok(Some(credential)) if self.filter.tells(credential.state) => {
                self.say(pb::CredentialChange::Issued, credential, seq, at).await
            }
            Ok(_) => ControlFlow::Continue(()),
            Err(no) => ControlFlow::Break(Some(no)),
        }
    }

    /// Goes through the live credentials in pieces and sends those that the record affected.
    async fn changed(&self, seq: Seq, at: Millis, hit: impl Fn(&State, &LiveCredential<'_>, &Task) -> bool) -> WatchControl {
        let now = self.authority.system.wall();
        let mut place = 0;
        loop {
            let looked = self.authority.ledger.settled(|s| {
                let end = s.credentials.places().min(place + limits::WATCH_WALK);
                let live = (place..end).filter_map(|slot| s.credentials.at(slot));
                // The record did not affect credentials issued after it.
                let live = live.filter(|l| l.seq() < seq && l.expires_at() > at && self.filter.fits(s, l));
                let hit = live.filter(|l| s.tasks.at(l.task()).is_some_and(|task| hit(s, l, task)));
                (hit.map(|l| wire::credential_to_pb(s, &l, now)).collect::<Vec<_>>(), s.credentials.places())
            });
            let (shown, places) = match looked.await {
                Ok(looked) => looked,
                Err(no) => return ControlFlow::Break(Some(no)),
            };
            for credential in shown.into_iter().filter(|c| self.filter.tells(c.state)) {
                self.say(pb::CredentialChange::State, credential, seq, at).await?;
            }
            place = place.saturating_add(limits::WATCH_WALK);
            if place >= places {
                return ControlFlow::Continue(());
            }
            tokio::task::yield_now().await;
        }
    }

    async fn say(&self, change: pb::CredentialChange, credential: pb::Credential, seq: Seq, at: Millis) -> WatchControl {
        let at = Some(wire::timestamp(at));
        let change = change.into();
        self.send(pb::WatchCredentialsResponse { seq: seq.as_u64(), at, change, credential: Some(credential) }).await
    }
}

fn lagged() -> Error {
    let no = Refusal::limit("watch_lag", limits::WATCH_LAG as u64, Duration::from_secs(1));
    Error::Refusal(no.way_out("read faster, or narrow the filter; continue with resume_after"))
}
