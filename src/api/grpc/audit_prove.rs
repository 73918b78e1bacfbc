//! GetCheckpoint, ExportRecords and VerifyLedger: evidence that the ledger was not changed.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::status::status;
use super::super::wire;
use super::audit_search::filter;
use super::request_checks;
use mayfly_authority::admission::operator_calls;
use mayfly_authority::authority::Authority;
use mayfly_authority::tasks::Actor;
use mayfly_base::refusal::Error;
use mayfly_ledger::record::{AuditReadKind, Author};
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
) -> Result<pb::GetCheckpointResponse, Error> {
    a.scope::<admin::ReadAudit>(request_checks::operator(actor)?)?;
    let signed = a.checkpoint().await?;
    let consistency = match ask.since_size {
        0 => Vec::new(),
        old => a.consistency(old, signed.checkpoint.size).await?,
    };
    let consistency = consistency.into_iter().map(|hash| hash.to_vec().into()).collect();
    Ok(pb::GetCheckpointResponse { checkpoint: signed.note, jwks: a.checkpoint_keys().await?, consistency })
}

/// The filter of a request, for people and for the signed statement.
pub(super) fn filter_to_json(asked: Option<&pb::RecordFilter>) -> Map<String, Value> {
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
pub async fn export(a: &Arc<Authority>, actor: &Actor, ask: &pb::ExportRecordsRequest) -> Result<ReceiverStream<Part>, Error> {
    let (filter, environment) = filter(ask.filter.as_ref())?;
    let operator = request_checks::operator(actor)?.clone();
    a.admit::<admin::ReadAudit>(&operator, environment.as_deref()).map_err(|no| name_one(no, &environment))?;
    let mut export = a.export(filter, filter_to_json(ask.filter.as_ref()), ask.since_size).await?;
    // The read is recorded before the first line is sent.
    let (who, asked) = (a.scope::<admin::ReadAudit>(&operator)?.who(), filter_text(ask.filter.as_ref()));
    let own = a.audit_read(&who, AuditReadKind::Export, &asked, 0).await;
    let (to, stream) = mpsc::channel(WAITING);
    let authority = a.clone();
    let call = operator_calls::OperatorCall::current();
    tokio::task::spawn_blocking(move || {
        let mut told = ExportRecorder { authority: authority.clone(), who, asked, records: 0, own };
        loop {
            let admit = || authority.admit::<admin::ReadAudit>(&operator, environment.as_deref());
            let admitted = operator_calls::within_sync(call.clone(), admit);
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
struct ExportRecorder {
    authority: Arc<Authority>,
    who: Author,
    asked: String,
    records: u64,
    /// Whether the beginning has a record of its own.
    own: bool,
}

impl Drop for ExportRecorder {
    fn drop(&mut self) {
        self.authority.audit_read_over(&self.who, AuditReadKind::Export, &self.asked, self.records, self.own);
    }
}

/// The filter of the request, in one line.
pub(super) fn filter_text(filter: Option<&pb::RecordFilter>) -> String {
    match filter_to_json(filter) {
        all if all.is_empty() => "everything".to_owned(),
        some => Value::Object(some).to_string(),
    }
}

/// An operator who may not export everything is told to name one environment.
fn name_one(no: Error, environment: &Option<String>) -> Error {
    match no {
        Error::Refusal(no) if environment.is_none() => {
            Error::Refusal(no.way_out("export one environment that you operate: mayfly audit export --environment NAME"))
        }
        no => no,
    }
}

/// Verifies a part of the ledger.
pub async fn verify(a: &Authority, actor: &Actor, ask: &pb::VerifyLedgerRequest) -> Result<pb::VerifyLedgerResponse, Error> {
    let (from, to) = (wire::seq("from_seq", ask.from_seq)?, wire::seq("to_seq", ask.to_seq)?);
    a.scope::<admin::ReadAudit>(request_checks::operator(actor)?)?;
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
