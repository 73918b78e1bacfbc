//! TokenService: exchanges, renewals, returns and introspection of credentials.

use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::super::peer::{self, Peer};
use super::super::status::status;
use super::super::wire;
use super::exchange::answer::{issued_to_pb, result_to_pb};
use super::exchange::{CheckedRequest, ReceivedRequest, batch, exchange_one, stream};
use super::{authorize, note, request_checks};
use mayfly_authority::admission::admission_queue::Ticket;
use mayfly_authority::authority::Authority;
use mayfly_authority::exchange::introspect::IntrospectionCaller;
use mayfly_authority::metrics::exchanges::ExchangeOutcome;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_base::system::Stopwatch;
use mayfly_base::trace;
use mayfly_credential::{CredentialKind, IssuedCredential};
use mayfly_identity::caller::{Caller, Operator};
use mayfly_ledger::state::refused_by;
use mayfly_policy::exchange_request::{self, ExchangeRequest, RequestedCertificateKey, TaskChoice, digest_of};
use mayfly_policy::{admin, decide::caller_facts};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::exchange_request::PublicKey;
use mayfly_proto::mayfly::v1::renew_request::PublicKey::{CertificateRequest, SshPublicKey};
use mayfly_proto::mayfly::v1::token_service_server::TokenService;
use mayfly_verify::seq::CredentialId;

/// The service.
#[derive(Clone)]
pub struct TokenApi(pub Arc<Authority>);

impl TokenApi {
    /// Admits a batch and answers it: the result of each exchange, in the order of the requests.
    pub(super) async fn answer_batch<R: ReceivedRequest>(
        &self,
        caller: &Caller,
        exchanges: Vec<R>,
        all_or_nothing: bool,
    ) -> Result<Vec<Result<IssuedCredential, Error>>, Status> {
        let taken = self.take_in(caller, exchanges.iter().map(R::upstream))?;
        taken.run(self.batch(caller, exchanges, all_or_nothing)).await.map_err(status)
    }

    /// Admits exchanges with these upstreams, if there is time for them.
    fn take_in<'a>(&self, caller: &Caller, upstreams: impl ExactSizeIterator<Item = &'a str>) -> Result<Ticket, Status> {
        let (read, count) = (Stopwatch::start(), upstreams.len().min(limits::BATCH));
        let taken = self.0.intake.take(count);
        if taken.is_err() {
            self.0.intake.refused(count, read);
            self.0.exchange_metrics.overloaded(upstreams.take(count));
        }
        taken.map_err(Error::Refusal).inspect_err(|no| note(&self.0, caller, no, "exchange", "")).map_err(status)
    }

    async fn batch<R: ReceivedRequest>(
        &self,
        caller: &Caller,
        exchanges: Vec<R>,
        all_or_nothing: bool,
    ) -> Result<Vec<Result<IssuedCredential, Error>>, Error> {
        let count = exchanges.len();
        if count == 0 || count > limits::BATCH {
            return Err(Error::Refusal(Refusal::field("exchanges", format!("1 to {} of them, not {count}", limits::BATCH))));
        }
        if !all_or_nothing {
            return Ok(batch::exchange_each(&self.0, caller, exchanges).await);
        }
        Ok(self.all_or_none(caller, exchanges).await?.into_iter().map(Ok).collect())
    }

    /// Issues all exchanges of a batch or none. The first refusal is that of the batch and names its exchange.
    async fn all_or_none(&self, caller: &Caller, asks: Vec<impl ReceivedRequest>) -> Result<Vec<IssuedCredential>, Error> {
        let (authority, call, count) = (&self.0, trace::current(), asks.len());
        let asked: Vec<_> = asks.into_iter().map(ReceivedRequest::check).collect();
        let malformed = asked.iter().enumerate().find_map(|(n, want)| Some((n, want.as_ref().err()?.1.clone())));
        let malformed = malformed.or_else(|| repeated_id(&asked));
        let known: Vec<ExchangeRequest> =
            asked.into_iter().flatten().map(|want| ExchangeRequest { traced: call.clone(), ..*want }).collect();
        if let Some((n, no)) = malformed {
            let end = Err(Error::Refusal(no.of_part(&item(n))));
            known.iter().for_each(|want| authority.exchange_metrics.count(&want.upstream, &end));
            (known.len()..count).for_each(|_| authority.exchange_metrics.count_stray(ExchangeOutcome::Refused));
            return end;
        }
        let wants = known;
        let outcome = authority.exchange_all(caller, &wants).await;
        // Either all exchanges of the batch are issued or none is, so all are counted with the same outcome.
        let end = outcome.as_ref().map(|_| ()).map_err(|(_, no)| no.clone());
        wants.iter().for_each(|want| authority.exchange_metrics.count(&want.upstream, &end));
        outcome.map_err(|(n, no)| {
            if let Some(want) = wants.get(n) {
                batch::refused(authority, caller, want, &no);
            }
            no.of_part(&item(n))
        })
    }
}

/// The first exchange that has the request id of an exchange before it. They could not be issued as one.
fn repeated_id(asked: &[CheckedRequest]) -> Option<(usize, Refusal)> {
    let ids: Vec<Option<&str>> = asked.iter().map(|want| want.as_ref().ok()?.request_id.as_deref()).collect();
    ids.iter().enumerate().find_map(|(n, id)| {
        let first = ids.iter().position(|other| id.is_some() && other == id).filter(|first| *first < n)?;
        let what = format!("is that of exchanges[{first}] as well; each exchange of a batch has one of its own");
        Some((n, Refusal::field("request_id", what)))
    })
}

/// The name of an exchange of a batch in the request.
fn item(n: usize) -> String {
    format!("exchanges[{n}]")
}

pub(super) fn task_of(want: &ExchangeRequest) -> String {
    match &want.task {
        TaskChoice::Named(id) => id.to_string(),
        TaskChoice::Inline(_) => String::new(),
    }
}

#[tonic::async_trait]
impl TokenService for TokenApi {
    // A listener answers these three methods by the fast path, where there is one (`exchange/fast`).
    async fn exchange(&self, request: Request<pb::ExchangeRequest>) -> Result<Response<pb::ExchangeResponse>, Status> {
        let caller = peer::caller(&request)?;
        let taken = self.take_in(&caller, std::iter::once(request.get_ref().upstream.as_str()))?;
        let one = exchange_one(&self.0, &caller, (request.into_inner(), trace::current()), std::future::pending);
        let issued = taken.run(one).await.map_err(status)?;
        Ok(Response::new(pb::ExchangeResponse { issued: Some(issued_to_pb(issued)) }))
    }

    async fn batch_exchange(
        &self,
        request: Request<pb::BatchExchangeRequest>,
    ) -> Result<Response<pb::BatchExchangeResponse>, Status> {
        let caller = peer::caller(&request)?;
        let pb::BatchExchangeRequest { exchanges, all_or_nothing } = request.into_inner();
        let results = self.answer_batch(&caller, exchanges, all_or_nothing).await?.into_iter().map(result_to_pb).collect();
        Ok(Response::new(pb::BatchExchangeResponse { results }))
    }

    type StreamExchangeStream = ReceiverStream<Result<pb::StreamExchangeResponse, Status>>;

    async fn stream_exchange(
        &self,
        request: Request<Streaming<pb::StreamExchangeRequest>>,
    ) -> Result<Response<Self::StreamExchangeStream>, Status> {
        let caller = peer::caller(&request)?;
        let answers = stream::answer(self.0.clone(), caller, request.into_inner(), trace::current());
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewResponse>, Status> {
        let caller = peer::caller(&request)?;
        let ask = request.get_ref();
        let issued = async {
            let certified = match ask.public_key.clone() {
                Some(CertificateRequest(der)) => Some(PublicKey::CertificateRequest(der)),
                Some(SshPublicKey(text)) => Some(PublicKey::SshPublicKey(text)),
                None => None,
            };
            let certified = certified.map(RequestedCertificateKey::from_pb).transpose()?;
            let id: CredentialId = exchange_request::id("credential_id", &ask.credential_id)?;
            let ttl = exchange_request::duration("ttl", ask.ttl.as_ref())?;
            let named = idempotency_key_of(&ask.request_id, ask)?;
            self.0.renew(&caller, id, ttl, named, certified).await
        };
        let issued = issued.await.inspect_err(|no| note(&self.0, &caller, no, "renew", "")).map_err(status)?;
        Ok(Response::new(pb::RenewResponse { issued: Some(issued_to_pb(issued)) }))
    }

    async fn release(&self, request: Request<pb::ReleaseRequest>) -> Result<Response<pb::ReleaseResponse>, Status> {
        let caller = request_checks::caller(&self.0, &request, "release")?;
        let released = async {
            let id: CredentialId = exchange_request::id("credential_id", &request.get_ref().credential_id)?;
            let seq = self.0.release(&caller, id).await?;
            Ok((seq, self.0.ledger.peek(|s| s.credentials.get(&id).and_then(|l| CredentialKind::from_number(l.kind().into())))))
        };
        let (seq, kind) = released.await.map_err(status)?;
        // A credential that mayfly makes has no object at an upstream. An object at an upstream is undone from now on.
        let upstream_state = match kind {
            Some(kind) if !kind.made_locally() => pb::UpstreamState::Pending,
            _ => pb::UpstreamState::Unspecified,
        };
        Ok(Response::new(pb::ReleaseResponse { seq: seq.as_u64(), upstream_state: upstream_state.into() }))
    }

    async fn introspect(&self, request: Request<pb::IntrospectRequest>) -> Result<Response<pb::IntrospectResponse>, Status> {
        let asker = match request.extensions().get::<Peer>() {
            Some(Peer::Workload(_)) => IntrospectionCaller::Workload(request_checks::caller(&self.0, &request, "introspect")?),
            _ => IntrospectionCaller::Operator(peer::operator(&request)?),
        };
        let now = self.0.system.wall();
        let show =
            |state: &mayfly_ledger::State, live: &mayfly_ledger::state::LiveCredential| wire::credential_to_pb(state, live, now);
        let found = self.0.introspect(&asker, &request.get_ref().token, show).await.map_err(status)?;
        Ok(Response::new(match found {
            Some((credential, seq)) => {
                pb::IntrospectResponse { active: true, credential: Some(credential), at_seq: seq.as_u64() }
            }
            None => pb::IntrospectResponse::default(),
        }))
    }

    async fn authorize(&self, request: Request<pb::AuthorizeRequest>) -> Result<Response<pb::AuthorizeResponse>, Status> {
        let caller = request_checks::caller(&self.0, &request, "authorize")?;
        let ask = request.into_inner();
        let (upstream, task) = (ask.upstream.clone(), ask.task_id.clone());
        let answer = authorize::authorize(&self.0, &caller, ask).await;
        answer.map(Response::new).map_err(|no| {
            note(&self.0, &caller, &no, &upstream, &task);
            status(no)
        })
    }

    async fn whoami(&self, request: Request<pb::WhoamiRequest>) -> Result<Response<pb::WhoamiResponse>, Status> {
        if let Some(Peer::Local(uid)) = request.extensions().get::<Peer>() {
            let identity = wire::identity_of_who(&mayfly_ledger::record::Author::LocalUid(*uid));
            let operates = self.operates(&Operator::LocalUid(*uid));
            let operator = self.0.admit::<admin::Observe>(&Operator::LocalUid(*uid), None).is_ok();
            return Ok(Response::new(pb::WhoamiResponse { identity: Some(identity), operator, operates, ..Default::default() }));
        }
        let caller = peer::caller(&request)?;
        self.0.still_stands(&caller).map_err(status)?;
        match self.0.shut_out(&caller) {
            // A caller with a revoked SVID gets no information; a locked caller gets the rule that locks it.
            Some(hit) if !hit.lock => Err(status(Error::Refusal(refused_by(&hit, "this caller")))),
            _ => Ok(Response::new(self.who(&caller))),
        }
    }
}

impl TokenApi {
    fn operates(&self, operator: &Operator) -> Vec<pb::OperatedEnvironment> {
        let shown = |(environment, actions): (String, Vec<&str>)| pb::OperatedEnvironment {
            environment,
            actions: actions.into_iter().map(str::to_owned).collect(),
        };
        self.0.operates(operator).into_iter().map(shown).collect()
    }

    fn who(&self, caller: &Caller) -> pb::WhoamiResponse {
        let compiled = self.0.catalog.now();
        let own = compiled.environments().find_map(|(_, p)| Some((p.set.environment_of(caller.id())?, p)));
        let roles = own.map_or_else(Vec::new, |(_, p)| p.set.roles_of(caller.id()).into_iter().map(str::to_owned).collect());
        let serves = compiled.upstreams().filter(|r| r.upstream.served_by(caller.id())).map(|r| r.upstream.name.clone());
        let operates = self.operates(&Operator::Svid(caller.clone()));
        let view = self.0.ledger.view();
        let locks = view.read(|s| s.rules.blocks(&caller_facts(caller, &view))).filter(|hit| hit.lock);
        let evidence = mayfly_policy::decide::svid_of(caller);
        pb::WhoamiResponse {
            identity: Some(wire::identity_of_who(&mayfly_ledger::record::Author::of(caller))),
            environment: own.map_or_else(String::new, |(e, _)| e.to_owned()),
            roles,
            svid: Some(wire::svid_to_pb(caller.id().trust_domain(), &evidence)),
            serves: serves.collect(),
            operator: !operates.is_empty(),
            operates,
            person: caller.person().map(|person| wire::person_to_pb(caller.id().as_str(), person)),
            locks: locks.map(|hit| wire::lock_to_pb(hit.seq, 0, &hit.target, None)).into_iter().collect(),
        }
    }
}

/// The request id with the digest of the whole request, if the request has an id.
pub(super) fn idempotency_key_of(
    request_id: &str,
    message: &impl prost::Message,
) -> Result<mayfly_authority::tasks::IdempotencyKey, Refusal> {
    if request_id.is_empty() {
        return Ok(None);
    }
    let id = exchange_request::text("request_id", request_id, limits::REQUEST_ID_BYTES)?;
    trace::note(|| vec![("mayfly.request.id", trace::plain(&id).into())]);
    Ok(Some((id, digest_of(message))))
}
