//! TailRecords: records as they become durable.
//!
//! A stream reads the ledger itself, from its own position, and only as fast as its client takes the records: no other task waits for it,
//! and nothing is kept for it in memory. Once it has caught up it may lag by `limits::TAIL_LAG` commits; then it ends with an error.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::status::status;
use super::super::wire;
use super::audit_prove::filter_text;
use super::audit_search::{filter, match_to_pb};
use super::request_checks;
use mayfly_authority::admission::operator_calls;
use mayfly_authority::admission::operators::OperatorScope;
use mayfly_authority::audit::AuditReader;
use mayfly_authority::authority::Authority;
use mayfly_authority::tasks::Actor;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_identity::caller::Operator;
use mayfly_ledger::reader::search::HistoryFilter;
use mayfly_ledger::record::{AuditReadKind, Record};
use mayfly_ledger::stopping;
use mayfly_policy::admin;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::Seq;

type TailItem = Result<pb::TailRecordsResponse, Status>;

/// Whether the stream continues.
type TailControl = ControlFlow<Option<Error>>;

struct Tail {
    authority: Arc<Authority>,
    operator: Operator,
    environment: Option<String>,
    /// The environments that the operator may see; `None`: all records that match.
    scope: Option<OperatorScope<admin::ReadAudit>>,
    filter: HistoryFilter,
    reader: AuditReader,
    after: Seq,
    to: mpsc::Sender<TailItem>,
}

/// Begins a stream.
pub async fn begin(a: &Arc<Authority>, actor: &Actor, ask: &pb::TailRecordsRequest) -> Result<ReceiverStream<TailItem>, Error> {
    let (filter, environment) = filter(ask.filter.as_ref())?;
    let operator = request_checks::operator(actor)?.clone();
    let scope = a.scope_of(&operator, environment.as_deref())?;
    let after = ask.resume_after.map(|seq| wire::seq("resume_after", seq)).transpose()?;
    let reader = a.read_after(after).await?;
    let who = a.scope::<admin::ReadAudit>(&operator)?.who();
    a.audit_read(&who, AuditReadKind::Tail, &filter_text(ask.filter.as_ref()), 0).await;
    let (to, stream) = mpsc::channel(limits::WATCH_QUEUE);
    let after = after.unwrap_or(reader.seq());
    let tail = Tail { authority: a.clone(), operator, environment, scope, filter, reader, after, to };
    tokio::spawn(operator_calls::within(operator_calls::OperatorCall::current(), tail.run()));
    Ok(ReceiverStream::new(stream))
}

impl Tail {
    async fn run(mut self) {
        if let Err(Some(no)) = self.follow().await {
            let _ = self.to.send(Err(status(no))).await;
        }
    }

    async fn follow(&mut self) -> Result<(), Option<Error>> {
        let mut durable = self.authority.ledger.durable_watch();
        let mut sign = tokio::time::interval(Duration::from_millis(limits::WATCH_SIGN_MS));
        sign.reset();
        let mut caught_up = false;
        loop {
            // Marked before reading: records that become durable from here on wake the stream again.
            durable.mark_unchanged();
            to_result(self.admitted())?;
            if caught_up && self.reader.behind() > limits::TAIL_LAG {
                return Err(Some(lagged()));
            }
            let steps = self.reader.next().await.map_err(Some)?;
            if !steps.is_empty() {
                for step in steps {
                    to_result(self.tell(step).await)?;
                }
                continue;
            }
            caught_up = true;
            tokio::select! {
                changed = durable.changed() => changed.map_err(|_| None)?,
                _ = sign.tick() => to_result(self.send(None, self.reader.seq()).await)?,
                () = self.to.closed() => return Ok(()),
                () = self.authority.ends() => return Err(Some(Error::Refusal(stopping()))),
            }
        }
    }

    /// Whether the operator is still permitted to read, and which environments: policy may have changed.
    fn admitted(&mut self) -> TailControl {
        match self.authority.scope_of(&self.operator, self.environment.as_deref()) {
            Ok(scope) => {
                self.scope = scope;
                ControlFlow::Continue(())
            }
            Err(no) => ControlFlow::Break(Some(no)),
        }
    }

    async fn tell(&self, step: mayfly_ledger::reader::log_reader::LogCommit) -> TailControl {
        let matches = match step.matches(&self.filter) {
            Ok(matches) => matches,
            Err(fault) => return ControlFlow::Break(Some(Error::Fault(fault))),
        };
        let seen = |record: &Record| {
            self.scope.as_ref().is_none_or(|scope| scope.has_all(&self.authority.environments_of_record(record)))
        };
        for one in matches.into_iter().filter(|m| m.past.seq > self.after && seen(&m.past.record)) {
            self.send(Some(match_to_pb(&one)), one.past.seq).await?;
        }
        ControlFlow::Continue(())
    }

    async fn send(&self, record: Option<pb::Record>, seq: Seq) -> TailControl {
        match self.to.send(Ok(pb::TailRecordsResponse { record, seq: seq.as_u64() })).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(None),
        }
    }
}

fn to_result(goes: TailControl) -> Result<(), Option<Error>> {
    match goes {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(why) => Err(why),
    }
}

fn lagged() -> Error {
    let no = Refusal::limit("tail_lag", limits::TAIL_LAG, Duration::from_secs(1));
    Error::Refusal(no.way_out("read faster, or narrow the filter; continue with resume_after"))
}
