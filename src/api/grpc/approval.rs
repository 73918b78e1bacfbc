//! ApprovalService: lists and watches pending approvals, and takes the approvers' decisions.

use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::super::status::status;
use super::super::wire;
use super::page::{PageRequest, within_bytes};
use super::request_checks::{self, refused};
use mayfly_authority::admission::operator_calls;
use mayfly_authority::authority::Authority;
use mayfly_authority::people::approvals::{ApprovalVisibility, ApproverDecision};
use mayfly_authority::tasks::Actor;
use mayfly_base::document::terminal_text;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_ledger::record::{ApprovalRequested, Event};
use mayfly_ledger::state::Approval;
use mayfly_ledger::{Batch, CommittedRecord, State};
use mayfly_policy::exchange_request;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::approval_service_server::ApprovalService;
use mayfly_verify::seq::{ApprovalId, Seq};

/// The gRPC service.
pub struct ApprovalApi(pub Arc<Authority>);

fn none(id: ApprovalId) -> Error {
    request_checks::not_found(format!("there is no approval {id} that you may see"))
}

/// Whether an approval concerns an upstream. An approval of a task concerns every upstream for which policy requires the approval.
fn about(asked: &ApprovalRequested, upstream: &str) -> bool {
    let mut others = asked.terms.iter().flat_map(|t| &t.registrations);
    asked.upstream == upstream || others.any(|r| r.upstream == upstream)
}

impl ApprovalApi {
    async fn list(&self, actor: &Actor, ask: pb::ListApprovalsRequest) -> Result<pb::ListApprovalsResponse, Error> {
        let upstream = request_checks::filter("upstream", &ask.upstream)?;
        let wanted = match pb::ApprovalState::try_from(ask.state) {
            Ok(pb::ApprovalState::Unspecified) => pb::ApprovalState::Waiting,
            Ok(state) => state,
            Err(_) => return Err(Refusal::field("state", format!("{} is no state of an approval", ask.state)).into()),
        };
        let page = PageRequest::from(ask.page_size, &ask.page_token)?;
        let now = self.0.system.wall();
        let all = self.0.ledger.settled(|s| {
            let fits = |a: &&Approval| upstream.is_none_or(|u| about(&a.asked, u)) && wire::approval_state(s, a, now) == wanted;
            let found = s.approvals.iter().filter(|(_, a)| fits(a));
            found.map(|(id, a)| (a.seq, (a.asked.clone(), wire::approval_to_pb(s, *id, a, now)))).collect::<Vec<_>>()
        });
        let sees = |(asked, _): &(Arc<ApprovalRequested>, pb::Approval)| self.0.sees(actor, asked) != ApprovalVisibility::Nothing;
        let (found, next_page_token) = page.newest(all.await?.into_iter(), sees);
        let approvals = found.into_iter().map(|(asked, mut shown)| {
            shown.access = self.0.approval_access(&asked);
            shown
        });
        Ok(pb::ListApprovalsResponse { approvals: approvals.collect(), next_page_token })
    }

    async fn get(&self, actor: &Actor, id: ApprovalId) -> Result<pb::Approval, Error> {
        let now = self.0.system.wall();
        let found = self.0.ledger.settled(|s| {
            let approval = s.approvals.get(&id)?;
            Some((approval.asked.clone(), wire::approval_to_pb(s, id, approval, now)))
        });
        let (asked, mut shown) = found.await?.ok_or_else(|| none(id))?;
        let waits = shown.state() == pb::ApprovalState::Waiting;
        match self.0.sees(actor, &asked) {
            ApprovalVisibility::Nothing => return Err(none(id)),
            ApprovalVisibility::WithoutArguments => {}
            ApprovalVisibility::Whole if waits => {
                let arguments = self.0.arguments_of(id, &asked.environment).await?;
                shown.arguments_json = arguments.map_or_else(String::new, |json| terminal_text::json(&json).into_owned());
            }
            ApprovalVisibility::Whole => {}
        }
        shown.access = self.0.approval_access(&asked);
        if waits {
            shown.change = wire::change_to_pb(&asked, now)?;
        }
        Ok(shown)
    }

    async fn decide(&self, actor: &Actor, ask: &pb::DecideApprovalRequest) -> Result<pb::DecideApprovalResponse, Error> {
        let id: ApprovalId = exchange_request::id("approval_id", &ask.approval_id)?;
        let digest = ask.request_sha256.as_ref().try_into();
        let digest = digest
            .map_err(|_| Refusal::field("request_sha256", "must be the 32-byte digest of the request as it was displayed"))?;
        let given = match pb::ApprovalDecision::try_from(ask.decision) {
            Ok(pb::ApprovalDecision::Give) => true,
            Ok(pb::ApprovalDecision::Refuse) => false,
            Ok(pb::ApprovalDecision::Unspecified) | Err(_) => {
                return Err(Refusal::field("decision", "is missing or unknown: GIVE or REFUSE").into());
            }
        };
        let terms = request_checks::change_options(ask, ask.dry_run, ask.confirmation.as_ref(), &ask.request_id)?;
        let reason = request_checks::reason(&ask.reason)?;
        let hits = self.0.decide_approval(actor, &ApproverDecision { id, digest, given, reason, terms }).await?;
        // The decision is made: the approver gets the result, regardless of what else the approver may see and even if the approval ends
        // right now.
        let now = self.0.system.wall();
        let shown = self.0.ledger.settled(|s| s.approvals.get(&id).map(|a| wire::approval_to_pb(s, id, a, now))).await?;
        let ended = || pb::Approval { approval_id: id.to_string(), state: pb::ApprovalState::Ended.into(), ..Default::default() };
        Ok(pb::DecideApprovalResponse { approval: Some(shown.unwrap_or_else(ended)), hits: Some(super::hits_to_pb(&hits)) })
    }
}

/// Sends events to one watcher, until the watcher disconnects or cannot keep up.
struct Watch {
    authority: Arc<Authority>,
    actor: Actor,
    upstream: Option<String>,
    to: mpsc::Sender<Result<pb::WatchApprovalsResponse, Status>>,
}

impl Watch {
    async fn run(self, mut commits: broadcast::Receiver<Arc<Batch>>) {
        let waiting = self.authority.ledger.peek(|s| {
            let open = s.approvals.iter().filter(|(_, a)| a.decided.is_none());
            let mut open: Vec<(Seq, ApprovalId)> = open.map(|(id, a)| (a.seq, *id)).collect();
            open.sort_unstable_by_key(|(seq, _)| *seq);
            open
        });
        let now = self.authority.system.wall();
        for (_, id) in waiting {
            let waits = |s: &State, a: &Approval| wire::approval_state(s, a, now) == pb::ApprovalState::Waiting;
            if !self.tell(id, waits).await {
                return;
            }
        }
        loop {
            let batch = tokio::select! {
                batch = commits.recv() => batch,
                () = self.to.closed() => return,
            };
            let batch = match batch {
                Ok(batch) => batch,
                Err(RecvError::Lagged(_)) => {
                    let no = Refusal::new(Reason::LimitReached, "the client reads this stream too slowly");
                    return drop(self.to.send(Err(status(Error::Refusal(no)))).await);
                }
                Err(RecvError::Closed) => return,
            };
            // A watcher that has been locked out meanwhile gets nothing more.
            if !self.let_in() {
                return;
            }
            for record in batch.records.iter().filter_map(CommittedRecord::change) {
                let id = match &record.event {
                    Some(Event::ApprovalAsked(e)) => ApprovalId::from_slice(&e.approval),
                    Some(Event::ApprovalDecided(e)) => ApprovalId::from_slice(&e.approval),
                    _ => None,
                };
                if let Some(id) = id
                    && !self.tell(id, |_, _| true).await
                {
                    return;
                }
            }
        }
    }

    fn let_in(&self) -> bool {
        use mayfly_identity::caller::Operator;
        match &self.actor {
            Actor::Workload(caller) | Actor::Operator(Operator::Svid(caller)) => {
                self.authority.let_in(caller, "this watcher").is_ok()
            }
            Actor::Operator(Operator::LocalUid(_)) => true,
        }
    }

    /// Sends one approval if this watcher may see it. Returns whether the watcher is still connected.
    async fn tell(&self, id: ApprovalId, fits: impl Fn(&State, &Approval) -> bool) -> bool {
        let now = self.authority.system.wall();
        let found = self.authority.ledger.settled(|s| {
            let approval = s.approvals.get(&id).filter(|a| fits(s, a))?;
            Some((approval.asked.clone(), wire::approval_to_pb(s, id, approval, now)))
        });
        let (asked, mut shown) = match found.await {
            Ok(Some(found)) => found,
            Ok(None) => return true,
            Err(no) => {
                let _ = self.to.send(Err(status(no))).await;
                return false;
            }
        };
        shown.access = self.authority.approval_access(&asked);
        let of = self.upstream.as_ref().is_none_or(|u| about(&asked, u));
        if !of || self.authority.sees(&self.actor, &asked) == ApprovalVisibility::Nothing {
            return true;
        }
        self.to.send(Ok(pb::WatchApprovalsResponse { approval: Some(shown) })).await.is_ok()
    }
}

#[tonic::async_trait]
impl ApprovalService for ApprovalApi {
    async fn list_approvals(
        &self,
        request: Request<pb::ListApprovalsRequest>,
    ) -> Result<Response<pb::ListApprovalsResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "list_approvals")?;
        let listed = within_bytes(request.get_ref(), |ask| self.list(&actor, ask));
        listed.await.map(Response::new).map_err(refused(&self.0, &actor, "list_approvals"))
    }

    async fn get_approval(&self, request: Request<pb::GetApprovalRequest>) -> Result<Response<pb::GetApprovalResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "get_approval")?;
        let no = refused(&self.0, &actor, "get_approval");
        let id = exchange_request::id("approval_id", &request.get_ref().approval_id).map_err(|e| no(e.into()))?;
        let approval = self.get(&actor, id).await.map_err(no)?;
        Ok(Response::new(pb::GetApprovalResponse { approval: Some(approval) }))
    }

    async fn decide_approval(
        &self,
        request: Request<pb::DecideApprovalRequest>,
    ) -> Result<Response<pb::DecideApprovalResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "decide_approval")?;
        let answer = self.decide(&actor, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "decide_approval"))
    }

    type WatchApprovalsStream = ReceiverStream<Result<pb::WatchApprovalsResponse, Status>>;

    async fn watch_approvals(
        &self,
        request: Request<pb::WatchApprovalsRequest>,
    ) -> Result<Response<Self::WatchApprovalsStream>, Status> {
        let actor = request_checks::actor(&self.0, &request, "watch_approvals")?;
        let upstream = request_checks::filter("upstream", &request.get_ref().upstream);
        let upstream = upstream.map_err(|no| refused(&self.0, &actor, "watch_approvals")(no.into()))?.map(str::to_owned);
        // Subscribe to new commits first, then list existing approvals, so that none is missed.
        let commits = self.0.commits.subscribe();
        let (to, stream) = mpsc::channel(limits::WATCH_QUEUE);
        let watch = Watch { authority: self.0.clone(), actor, upstream, to };
        tokio::spawn(operator_calls::within(operator_calls::OperatorCall::current(), watch.run(commits)));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
