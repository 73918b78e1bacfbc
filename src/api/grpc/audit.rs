//! AuditService: searches and explanations of the ledger's records.

use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::super::wire;
use super::request_checks::{self, refused};
use super::{audit_prove, audit_search, audit_tail, use_report};
use mayfly_authority::admission::operators::Environments;
use mayfly_authority::audit::explain::{ExplainFinding, ExplainTarget, GrantExplanation, SearchDepth, body};
use mayfly_authority::authority::Authority;
use mayfly_authority::tasks::Actor;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_ledger::reader::history::HistoryRecord;
use mayfly_ledger::record::AuditReadKind;
use mayfly_policy::{admin, exchange_request};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::audit_service_server::AuditService;

/// The service.
pub struct AuditApi(pub Arc<Authority>);

impl AuditApi {
    fn of(&self, actor: &Actor, ask: &pb::ExplainRequest) -> Result<ExplainTarget, Error> {
        use mayfly_proto::mayfly::v1::explain_request::Of as Named;
        let of = ask
            .of
            .as_ref()
            .ok_or_else(|| Refusal::field("of", "is missing: name the credential, request, task or record to explain"))?;
        Ok(match of {
            Named::CredentialId(id) => ExplainTarget::Credential(exchange_request::id("credential_id", id)?),
            Named::TaskId(id) => ExplainTarget::Task(exchange_request::id("task_id", id)?),
            Named::Seq(seq) => ExplainTarget::Seq(wire::seq("seq", *seq)?),
            Named::ApprovalId(id) => ExplainTarget::Approval(exchange_request::id("approval_id", id)?),
            Named::LeaseId(id) => ExplainTarget::Lease(exchange_request::id("lease_id", id)?),
            Named::Request(request) => {
                let id = exchange_request::text("request.request_id", &request.request_id, limits::REQUEST_ID_BYTES)?;
                if id.is_empty() {
                    return Err(Error::Refusal(Refusal::field("request.request_id", "is missing")));
                }
                let caller = match request_checks::filter("request.caller", &request.caller)? {
                    Some(caller) => caller.to_owned(),
                    None => self.who(actor)?,
                };
                ExplainTarget::Request { caller, id }
            }
        })
    }

    /// The caller's name, by which request ids are scoped.
    fn who(&self, actor: &Actor) -> Result<String, Error> {
        match actor {
            Actor::Workload(caller) => Ok(caller.id().as_str().to_owned()),
            Actor::Operator(operator) => Ok(self.0.scope::<admin::ReadAudit>(operator)?.who().name()),
        }
    }

    async fn explain(&self, actor: &Actor, ask: &pb::ExplainRequest) -> Result<pb::ExplainResponse, Error> {
        let explained = match actor {
            Actor::Workload(caller) => {
                let explained = self.0.explain(&self.of(actor, ask)?, SearchDepth::Memory).await?;
                if !explained.holders.iter().any(|h| h == caller.id().as_str()) {
                    return Err(request_checks::not_found("there is nothing of that name that you may see"));
                }
                explained
            }
            Actor::Operator(operator) => {
                // Checked before history is read, and again for the result.
                let of = self.of(actor, ask)?;
                self.0.admit_to_found::<admin::ReadAudit>(operator, self.environment_of(&of).as_deref())?;
                let explained = self.0.explain(&of, SearchDepth::History).await?;
                self.0.may_see::<admin::ReadAudit>(operator, &self.environments_of(&explained))?;
                let who = self.0.scope::<admin::ReadAudit>(operator)?.who();
                self.0.audit_read(&who, AuditReadKind::Explain, &explained_object(ask), explained.records.len() as u64).await;
                explained
            }
        };
        Ok(explained_to_pb(explained))
    }

    /// The environment of an object that is in memory.
    fn environment_of(&self, of: &ExplainTarget) -> Option<String> {
        match of {
            ExplainTarget::Credential(id) => self.0.environment_of_credential(id),
            ExplainTarget::Task(id) => self.0.environment_of_task(id),
            _ => None,
        }
    }

    /// The environments of an explanation: its own, or those of the records in it.
    fn environments_of(&self, explained: &GrantExplanation) -> Environments {
        match &explained.environment {
            Some(environment) => Environments::one(environment),
            None => {
                let records = explained.records.iter().map(|past| self.0.environments_of_record(&past.record));
                records.fold(Environments::Server, Environments::and)
            }
        }
    }
}

/// The object to be explained, as a person would name it.
fn explained_object(ask: &pb::ExplainRequest) -> String {
    use mayfly_proto::mayfly::v1::explain_request::Of as Named;
    match &ask.of {
        Some(Named::CredentialId(id)) => format!("credential {id}"),
        Some(Named::TaskId(id)) => format!("task {id}"),
        Some(Named::Seq(seq)) => format!("seq {seq}"),
        Some(Named::ApprovalId(id)) => format!("approval {id}"),
        Some(Named::LeaseId(id)) => format!("lease {id}"),
        Some(Named::Request(request)) => format!("request {} of {}", request.request_id, request.caller),
        None => String::new(),
    }
}

fn explained_to_pb(explained: GrantExplanation) -> pb::ExplainResponse {
    let finding =
        |f: ExplainFinding| pb::Finding { subject: f.subject.to_owned(), text: f.text, permits: f.permits, seq: f.seq.as_u64() };
    pb::ExplainResponse {
        summary: explained.summary,
        findings: explained.findings.into_iter().map(finding).collect(),
        records: explained.records.iter().map(record_to_pb).collect(),
        request_unknown: explained.request_unknown,
    }
}

/// Converts a record. The single embedded writer appends no void records, so no record has a reason for being void.
pub(super) fn record_to_pb(past: &HistoryRecord) -> pb::Record {
    let author = past.record.author.as_ref().and_then(|a| a.who.as_ref());
    pb::Record {
        seq: past.seq.as_u64(),
        at: Some(wire::timestamp(past.at)),
        event: past.record.event.as_ref().map_or_else(String::new, |e| body::name(e).to_owned()),
        author: author.map(wire::identity_of_who),
        void_because: String::new(),
        body: body::json(&past.record).to_string(),
        group: 0,
    }
}

#[tonic::async_trait]
impl AuditService for AuditApi {
    type TailRecordsStream = ReceiverStream<Result<pb::TailRecordsResponse, Status>>;
    type ExportRecordsStream = ReceiverStream<Result<pb::ExportRecordsResponse, Status>>;

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Result<Response<pb::ExplainResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "explain")?;
        self.explain(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "explain"))
    }

    async fn search_records(
        &self,
        request: Request<pb::SearchRecordsRequest>,
    ) -> Result<Response<pb::SearchRecordsResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "search")?;
        let found = audit_search::search(&self.0, &actor, request.get_ref()).await;
        found.map(Response::new).map_err(refused(&self.0, &actor, "search"))
    }

    async fn tail_records(&self, request: Request<pb::TailRecordsRequest>) -> Result<Response<Self::TailRecordsStream>, Status> {
        let actor = request_checks::actor(&self.0, &request, "tail")?;
        let stream = audit_tail::begin(&self.0, &actor, request.get_ref()).await;
        stream.map(Response::new).map_err(refused(&self.0, &actor, "tail"))
    }

    async fn get_checkpoint(
        &self,
        request: Request<pb::GetCheckpointRequest>,
    ) -> Result<Response<pb::GetCheckpointResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "checkpoint")?;
        let answer = audit_prove::checkpoint(&self.0, &actor, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "checkpoint"))
    }

    async fn export_records(
        &self,
        request: Request<pb::ExportRecordsRequest>,
    ) -> Result<Response<Self::ExportRecordsStream>, Status> {
        let actor = request_checks::actor(&self.0, &request, "export")?;
        let stream = audit_prove::export(&self.0, &actor, request.get_ref()).await;
        stream.map(Response::new).map_err(refused(&self.0, &actor, "export"))
    }

    async fn verify_ledger(
        &self,
        request: Request<pb::VerifyLedgerRequest>,
    ) -> Result<Response<pb::VerifyLedgerResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "verify")?;
        let answer = audit_prove::verify(&self.0, &actor, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "verify"))
    }

    async fn report_use(&self, request: Request<pb::ReportUseRequest>) -> Result<Response<pb::ReportUseResponse>, Status> {
        let caller = request_checks::caller(&self.0, &request, "report")?;
        let actor = Actor::Workload(caller.clone());
        let answer = use_report::report(&self.0, &caller, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "report"))
    }
}
