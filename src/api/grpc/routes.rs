//! The services of each listener.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Body as HttpBody;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use tower::Service as _;

use super::super::connection_table::ConnectionActivity;
use super::super::peer::{self, Peer};
use super::super::status::status;
use super::super::unread_answers::{AnswerMessages, counted};
use super::approval::ApprovalApi;
use super::audit::AuditApi;
use super::break_glass::BreakGlassApi;
use super::credential::CredentialApi;
#[cfg(feature = "fast")]
use super::exchange::fast::{self, UnaryBatcher, UnaryExchange};
use super::exchange::{EXCHANGE, STREAM_EXCHANGE};
use super::key::KeyApi;
use super::policy::PolicyApi;
use super::revocation::RevocationApi;
use super::server::ServerApi;
use super::task::TaskApi;
use super::token::TokenApi;
use super::trust_domain::TrustDomainApi;
use super::upstream::UpstreamApi;
use super::{call_approval, call_trace};
use mayfly_authority::admission::admission_queue::Ticket;
use mayfly_authority::authority::Authority;
use mayfly_authority::metrics::calls::CountedCall;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_base::system::Stopwatch;
use mayfly_base::trace::CallTrace;
use mayfly_proto as pb;
use mayfly_proto::mayfly::v1::approval_service_server::ApprovalServiceServer;
use mayfly_proto::mayfly::v1::audit_service_server::AuditServiceServer;
use mayfly_proto::mayfly::v1::break_glass_service_server::BreakGlassServiceServer;
use mayfly_proto::mayfly::v1::credential_service_server::CredentialServiceServer;
use mayfly_proto::mayfly::v1::key_service_server::KeyServiceServer;
use mayfly_proto::mayfly::v1::policy_service_server::PolicyServiceServer;
use mayfly_proto::mayfly::v1::revocation_service_server::RevocationServiceServer;
use mayfly_proto::mayfly::v1::server_service_server::ServerServiceServer;
use mayfly_proto::mayfly::v1::task_service_server::TaskServiceServer;
use mayfly_proto::mayfly::v1::token_service_server::TokenServiceServer;
use mayfly_proto::mayfly::v1::trust_domain_service_server::TrustDomainServiceServer;
use mayfly_proto::mayfly::v1::upstream_service_server::UpstreamServiceServer;

/// The data of a call at the time when it is read.
pub struct CallArrival {
    pub(super) read: Stopwatch,
    /// The result of the admission queue, for a single exchange.
    pub(super) taken: Option<Result<Ticket, Refusal>>,
}

impl CallArrival {
    /// Whether the call is refused by overload.
    pub fn is_refused(&self) -> bool {
        matches!(self.taken, Some(Err(_)))
    }

    /// The time since the call was read.
    pub fn read(&self) -> Stopwatch {
        self.read
    }
}

/// The services of one listener.
#[derive(Clone)]
pub struct Services {
    /// The token service. Nearly all calls are for it, so they bypass the router, which saves its work for each call.
    tokens: TokenServiceServer<TokenApi>,
    /// The same service without tonic's server around it.
    own: TokenApi,
    others: Routes,
}

/// The services for the calls of one connection; clones share their state.
#[derive(Clone)]
pub struct ConnectionServices(Arc<OnConnection>);

struct OnConnection {
    services: Services,
    peer: Peer,
    /// The resources that the connection holds: unread answers, calls in progress.
    activity: Arc<ConnectionActivity>,
    /// Batches the connection's single exchanges; `None` for a peer that may not exchange.
    #[cfg(feature = "fast")]
    batcher: Option<Arc<UnaryBatcher>>,
}

/// The pending answer of one call.
#[allow(clippy::large_enum_variant, reason = "nearly all are exchanges; a box would cost each an allocation")]
pub enum PendingCall<B: HttpBody> {
    /// A single exchange, as nearly all calls are.
    #[cfg(feature = "fast")]
    Exchange(UnaryExchange<B>),
    /// Boxed: otherwise the router's future would enlarge the future of every call.
    Other(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
    /// Never made: without the fast path, no variant names the body.
    #[cfg(not(feature = "fast"))]
    Unused(std::marker::PhantomData<fn() -> B>, std::convert::Infallible),
}

impl<B> Future for PendingCall<B>
where
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Unpin,
{
    type Output = Response<Body>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        match self.get_mut() {
            #[cfg(feature = "fast")]
            PendingCall::Exchange(exchange) => Pin::new(exchange).poll(cx),
            PendingCall::Other(other) => other.as_mut().poll(cx),
            #[cfg(not(feature = "fast"))]
            PendingCall::Unused(_, never) => match *never {},
        }
    }
}

impl Services {
    fn new(authority: &Arc<Authority>, others: Routes) -> Services {
        let own = TokenApi(authority.clone());
        let tokens = TokenServiceServer::new(own.clone()).max_decoding_message_size(limits::REQUEST_BYTES);
        Services { tokens, own, others: others.prepare() }
    }

    /// The services for one connection of this peer.
    pub fn on_connection(self, peer: Peer, activity: Arc<ConnectionActivity>) -> ConnectionServices {
        #[cfg(feature = "fast")]
        let caller = peer::caller_of(Some(&peer)).ok();
        ConnectionServices(Arc::new(OnConnection {
            #[cfg(feature = "fast")]
            batcher: caller.map(|caller| UnaryBatcher::new(self.own.0.clone(), caller)),
            services: self,
            peer,
            activity,
        }))
    }

    async fn answer<B>(self, peer: Peer, mut call: Request<B>, traced: CallTrace) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Unpin,
    {
        call.extensions_mut().insert(peer.clone());
        #[cfg(feature = "fast")]
        if self.own.0.exchange_path.is_fast() && fast::answers(call.uri().path()) {
            return fast::answer(&self.own, call, traced).await;
        }
        if let Peer::Admin(_) | Peer::Local(_) = &peer {
            let authority = self.own.0.clone();
            return call_approval::serve_with_approval(&authority, &peer, call, |call| self.route(call, traced)).await;
        }
        if is_for_operators(call.uri().path()) {
            return status(Error::Refusal(peer::wrong_listener_for_service())).into_http();
        }
        self.route(call, traced).await
    }

    async fn route<B>(mut self, call: Request<B>, traced: CallTrace) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Unpin,
    {
        let service = call.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        let Ok(answer) = match service {
            Some((pb::mayfly::v1::token_service_server::SERVICE_NAME, _)) => traced.scope(self.tokens.call(call)).await,
            _ => traced.scope(self.others.call(call.map(Body::new))).await,
        };
        answer
    }
}

impl ConnectionServices {
    /// Admits a call that was just read. Called when the call is read, since calls that wait for their first poll have to be counted.
    pub fn arrived<B>(&self, call: &Request<B>) -> CallArrival {
        let one = self.takes_fast_path(call);
        CallArrival { read: Stopwatch::start(), taken: one.then(|| self.authority().intake.take(1)) }
    }

    /// Counts a call that was just read.
    pub fn counted(&self, path: &str, arrived: &CallArrival) -> CountedCall {
        CountedCall::new(self.authority().call_metrics.clone(), path, arrived.read())
    }

    /// The trace of a call that was just read.
    pub fn traced<B>(&self, call: &Request<B>, arrived: &CallArrival) -> CallTrace {
        call_trace::begin_trace(&self.authority().tracer, self.peer(), call, arrived.read)
    }

    /// Answers one call.
    pub fn answer<B>(&self, call: Request<B>, arrived: CallArrival, traced: &CallTrace) -> PendingCall<B>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Unpin,
    {
        #[cfg(feature = "fast")]
        if self.takes_fast_path(&call) {
            self.activity().exchanged();
            return PendingCall::Exchange(UnaryExchange::new(self.clone(), call, arrived, traced.clone()));
        }
        let _ = arrived;
        let activity = self.activity();
        let admitted = activity.share().may_answer(0).and_then(|()| activity.call());
        let under_way = match admitted {
            Ok(under_way) => under_way,
            Err(no) => return PendingCall::Other(Box::pin(ready(status(Error::Refusal(no)).into_http()))),
        };
        let (long, answers) = (is_long(call.uri().path()), answers_of(call.uri().path()));
        let activity = activity.clone();
        let answer = self.0.services.clone().answer(self.peer().clone(), call, traced.clone());
        PendingCall::Other(Box::pin(async move {
            let answer = match long {
                true => activity.share().long(answer).await.unwrap_or_else(|| stopped().into_http()),
                false => answer.await,
            };
            counted(answer, answers, &activity, under_way)
        }))
    }

    /// The resources that the connection holds.
    pub fn activity(&self) -> &Arc<ConnectionActivity> {
        &self.0.activity
    }

    pub(super) fn authority(&self) -> &Arc<Authority> {
        &self.0.services.own.0
    }

    pub(super) fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// Whether a call is a single exchange that the fast path answers.
    fn takes_fast_path<B>(&self, call: &Request<B>) -> bool {
        call.uri().path() == EXCHANGE && self.authority().exchange_path.is_fast()
    }

    #[cfg(feature = "fast")]
    pub(super) fn batcher(&self) -> Option<&Arc<UnaryBatcher>> {
        self.0.batcher.as_ref()
    }

    /// The server of the token service.
    #[cfg(feature = "fast")]
    pub(super) fn tokens(&self) -> TokenServiceServer<TokenApi> {
        self.0.services.tokens.clone()
    }
}

/// Whether a path is of a service that only the admin listener and the operators' socket have.
fn is_for_operators(path: &str) -> bool {
    const SERVICES: [&str; 2] =
        [pb::mayfly::v1::server_service_server::SERVICE_NAME, pb::mayfly::v1::policy_service_server::SERVICE_NAME];
    path.strip_prefix('/').and_then(|path| path.split_once('/')).is_some_and(|(service, _)| SERVICES.contains(&service))
}

fn stopped() -> tonic::Status {
    status(Error::Refusal(Refusal::new(Reason::NotReady, "the server is stopping")))
}

/// Whether a call of this path sends a stream of messages.
pub fn streams_messages(path: &str) -> bool {
    path == STREAM_EXCHANGE || path.ends_with("/ServerReflectionInfo")
}

/// Whether a call of this path is answered with a stream of messages.
pub fn answers_of(path: &str) -> AnswerMessages {
    const MANY: &[&str] = &["Watch", "Tail", "Export", "Backup", "Stream", "ServerReflection"];
    let method = path.rsplit('/').next().unwrap_or_default();
    if MANY.iter().any(|word| method.starts_with(word)) { AnswerMessages::Many } else { AnswerMessages::One }
}

/// Whether a call of this path may read much of the state: lists, searches, counts. Such calls run on separate threads.
fn is_long(path: &str) -> bool {
    const LONG: &[&str] = &["List", "Search", "Explain", "BlastRadius", "Inventory", "Diff"];
    let method = path.rsplit('/').next().unwrap_or_default();
    LONG.iter().any(|word| method.contains(word))
}

/// The services for workloads.
pub fn workload_routes(authority: &Arc<Authority>, health: &HealthReporter) -> Services {
    Services::new(authority, on_both(authority, health))
}

/// The services for operators: all services for workloads, and those for operators only. Reflection is served here only.
pub fn admin_routes(authority: &Arc<Authority>, health: &HealthReporter) -> Services {
    let server = ServerServiceServer::new(ServerApi(authority.clone()));
    let policies = PolicyServiceServer::new(PolicyApi(authority.clone()));
    let routes = on_both(authority, health)
        .add_service(server.max_decoding_message_size(limits::REQUEST_BYTES))
        .add_service(policies.max_decoding_message_size(limits::REQUEST_BYTES));
    Services::new(authority, reflection(routes))
}

/// The services of both listeners, except the token service.
fn on_both(authority: &Arc<Authority>, health: &HealthReporter) -> Routes {
    let health = HealthServer::new(HealthService::from_health_reporter(health.clone()));
    let revocations = RevocationServiceServer::new(RevocationApi(authority.clone()));
    let tasks = TaskServiceServer::new(TaskApi(authority.clone()));
    let keys = KeyServiceServer::new(KeyApi(authority.clone()));
    let domains = TrustDomainServiceServer::new(TrustDomainApi(authority.clone()));
    let credentials = CredentialServiceServer::new(CredentialApi(authority.clone()));
    let audit = AuditServiceServer::new(AuditApi(authority.clone()));
    let upstreams = UpstreamServiceServer::new(UpstreamApi(authority.clone()));
    let approvals = ApprovalServiceServer::new(ApprovalApi(authority.clone()));
    let break_glass = BreakGlassServiceServer::new(BreakGlassApi(authority.clone()));
    Routes::new(health.max_decoding_message_size(limits::REQUEST_BYTES))
        .add_service(revocations.max_decoding_message_size(limits::REQUEST_BYTES))
        .add_service(tasks.max_decoding_message_size(limits::REQUEST_BYTES))
        .add_service(keys.max_decoding_message_size(limits::REQUEST_BYTES))
        .add_service(domains.max_decoding_message_size(limits::REQUEST_BYTES))
        .add_service(credentials.max_decoding_message_size(limits::REQUEST_BYTES))
        .add_service(audit.max_decoding_message_size(limits::REQUEST_BYTES))
        .add_service(upstreams.max_decoding_message_size(limits::REQUEST_BYTES))
        .add_service(approvals.max_decoding_message_size(limits::REQUEST_BYTES))
        .add_service(break_glass.max_decoding_message_size(limits::REQUEST_BYTES))
}

/// Adds reflection. The descriptors are built in, so an error cannot occur in a tested server; on an error there is no reflection.
fn reflection(routes: Routes) -> Routes {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => {
            let (v1, v1alpha) = (v1.max_decoding_message_size(limits::REQUEST_BYTES), v1alpha);
            routes.add_service(v1).add_service(v1alpha.max_decoding_message_size(limits::REQUEST_BYTES))
        }
        (v1, v1alpha) => {
            let error = v1.err().or(v1alpha.err()).map(|e| e.to_string()).unwrap_or_default();
            tracing::error!(error, "gRPC reflection could not be set up and is not served");
            routes
        }
    }
}
