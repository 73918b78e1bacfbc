//! GetCheckpoint, ExportRecords and VerifyLedger: evidence that the ledger was not changed.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::status::status;
use super::super::wire;
use super::ask;
use super::audit_search::filter;
use mayfly_authority::admission::calls;
use mayfly_authority::authority::Authority;
use mayfly_authority::tasks::Actor;
use mayfly_base::refusal::No;
use mayfly_ledger::record::{ReadOf, Who};
use mayfly_policy::admin;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::Seq;

/// Pieces of an export queued for the client: about `limits::READER_BYTES` each, and one more piece is being made.
const WAITING: usize = 1;

/// The newest checkpoint.
pub async fn checkpoint(
    a: &Arc<Authority>,
    actor: &Actor,
    ask: &pb::GetCheckpointRequest,
) -> Result<pb::GetCheckpointResponse, No> {
    a.scope::<admin::ReadAudit>(ask::operator(actor)?)?;
    let signed = a.checkpoint().await?;
    let consistency = match ask.since_size {
        0 => Vec::new(),
        old => a.consistency(old, signed.checkpoint.size).await?,
    };
    let consistency = consistency.into_iter().map(|hash| hash.to_vec().into()).collect();
    Ok(pb::GetCheckpointResponse { checkpoint: signed.note, jwks: a.checkpoint_keys().await?, consistency })
}

/// The filter of a request, for people and for the signed statement.
pub(super) fn told(asked: Option<&pb::RecordFilter>) -> Map<String, Value> {
    let f = asked.cloned().unwrap_or_default();
    let time = |at: Option<prost_types::Timestamp>| at.as_ref().and_then(wire::millis).map(|at| json!(at.0));
    let text = |text: String| Some(text).filter(|t| !t.is_empty()).map(Value::from);
    let all = [
        ("since_ms", time(f.since)),
        ("until_ms", time(f.until)),
        ("event", text(f.event)),
        ("names", text(f.names)),
        ("task_id", text(f.task_id)),
        ("workload", text(f.workload)),
        ("upstream", text(f.upstream)),
        ("tool", text(f.tool)),
        ("environment", text(f.environment)),
        ("seq", Some(f.seq).filter(|s| *s > 0).map(Value::from)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

type Part = Result<pb::ExportRecordsResponse, Status>;

/// Begins an export.
pub async fn export(a: &Arc<Authority>, actor: &Actor, ask: &pb::ExportRecordsRequest) -> Result<ReceiverStream<Part>, No> {
    let (filter, environment) = filter(ask.filter.as_ref())?;
    let operator = ask::operator(actor)?.clone();
    a.admit::<admin::ReadAudit>(&operator, environment.as_deref()).map_err(|no| name_one(no, &environment))?;
    let mut export = a.export(filter, told(ask.filter.as_ref()), ask.since_size).await?;
    // The read is recorded before the first line is sent.
    let (who, asked) = (a.scope::<admin::ReadAudit>(&operator)?.who(), asked(ask.filter.as_ref()));
    let own = a.audit_read(&who, ReadOf::Export, &asked, 0).await;
    let (to, stream) = mpsc::channel(WAITING);
    let authority = a.clone();
    let call = calls::Call::current();
    tokio::task::spawn_blocking(move || {
        let mut told = Over { authority: authority.clone(), who, asked, records: 0, own };
        loop {
            let admit = || authority.admit::<admin::ReadAudit>(&operator, environment.as_deref());
            let admitted = calls::within_sync(call.clone(), admit);
            let part = match admitted.and_then(|_| export.lines()) {
                Ok(None) => return,
                Ok(Some(text)) => {
                    told.records = export.records();
                    Ok(pb::ExportRecordsResponse { lines: text.into() })
                }
                Err(no) => Err(status(no)),
            };
            let over = part.is_err();
            // The client is gone, or the export has ended.
            if to.blocking_send(part).is_err() || over {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(stream))
}

/// Records the number of sent records when an export ends, completely or not.
struct Over {
    authority: Arc<Authority>,
    who: Who,
    asked: String,
    records: u64,
    /// Whether the beginning has a record of its own.
    own: bool,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.authority.audit_read_over(&self.who, ReadOf::Export, &self.asked, self.records, self.own);
    }
}

/// The filter of the request, in one line.
pub(super) fn asked(filter: Option<&pb::RecordFilter>) -> String {
    match told(filter) {
        all if all.is_empty() => "everything".to_owned(),
        some => Value::Object(some).to_string(),
    }
}

/// An operator who may not export everything is told to name one environment.
fn name_one(no: No, environment: &Option<String>) -> No {
    match no {
        No::Refusal(no) if environment.is_none() => {
            No::Refusal(no.way_out("export one environment that you operate: mayfly audit export --environment NAME"))
        }
        no => no,
    }
}

/// Verifies a part of the ledger.
pub async fn verify(a: &Authority, actor: &Actor, ask: &pb::VerifyLedgerRequest) -> Result<pb::VerifyLedgerResponse, No> {
    let (from, to) = (wire::seq("from_seq", ask.from_seq)?, wire::seq("to_seq", ask.to_seq)?);
    a.scope::<admin::ReadAudit>(ask::operator(actor)?)?;
    let verified = a.verify(from, to).await?;
    let (broken_at, problem) = verified.broken.unwrap_or((Seq::ZERO, String::new()));
    Ok(pb::VerifyLedgerResponse {
        records: verified.records,
        broken_at: broken_at.as_u64(),
        problem,
        verified_to: verified.to.as_u64(),
        head: verified.head.as_u64(),
    })
}
