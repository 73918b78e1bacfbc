//! A test double of the server with canned answers, and runs of the program against it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use mayfly::pb::mayfly::v1 as pb;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

type Handler = Box<dyn Fn(Box<dyn Any>) -> Box<dyn Any> + Send + Sync>;
type Answers<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

/// The canned answers by request type. A request without one gets NOT_FOUND without details.
#[derive(Clone, Default)]
pub struct Double(Arc<Mutex<HashMap<TypeId, Handler>>>);

impl Double {
    /// Answers requests of this type by `handler`.
    pub fn on<Q: 'static, R: 'static>(&self, handler: impl Fn(Q) -> Result<R, Status> + Send + Sync + 'static) {
        let any = move |request: Box<dyn Any>| -> Box<dyn Any> { Box::new(handler(*request.downcast::<Q>().unwrap())) };
        self.0.lock().unwrap().insert(TypeId::of::<Q>(), Box::new(any));
    }

    fn answer<Q: 'static, R: 'static>(&self, request: Request<Q>) -> Result<R, Status> {
        match self.0.lock().unwrap().get(&TypeId::of::<Q>()) {
            Some(handler) => *handler(Box::new(request.into_inner())).downcast::<Result<R, Status>>().unwrap(),
            None => Err(Status::not_found("no answer was given to the double")),
        }
    }
}

macro_rules! unary {
    ($module:ident::$trait:ident { $($method:ident($ask:ident) -> $answer:ident,)* } $($rest:tt)*) => {
        #[tonic::async_trait]
        impl pb::$module::$trait for Double {
            $(async fn $method(&self, request: Request<pb::$ask>) -> Result<Response<pb::$answer>, Status> {
                self.answer(request).map(Response::new)
            })*
            $($rest)*
        }
    };
}

/// A stream of the handler's list, which then stays open like a real one.
fn open_stream<R: Send + 'static>(list: Vec<Result<R, Status>>) -> Response<Answers<R>> {
    Response::new(Box::pin(tokio_stream::iter(list)))
}

unary! { task_service_server::TaskService {
    open_task(OpenTaskRequest) -> OpenTaskResponse,
    delegate_task(DelegateTaskRequest) -> DelegateTaskResponse,
    get_task(GetTaskRequest) -> GetTaskResponse,
    list_tasks(ListTasksRequest) -> ListTasksResponse,
    extend_task(ExtendTaskRequest) -> ExtendTaskResponse,
    heartbeat_task(HeartbeatTaskRequest) -> HeartbeatTaskResponse,
    hold_task(HoldTaskRequest) -> HoldTaskResponse,
    resume_task(ResumeTaskRequest) -> ResumeTaskResponse,
    complete_task(CompleteTaskRequest) -> CompleteTaskResponse,
    cancel_task(CancelTaskRequest) -> CancelTaskResponse,
    list_task_credentials(ListTaskCredentialsRequest) -> ListTaskCredentialsResponse,
}}

unary! { token_service_server::TokenService {
    exchange(ExchangeRequest) -> ExchangeResponse,
    batch_exchange(BatchExchangeRequest) -> BatchExchangeResponse,
    renew(RenewRequest) -> RenewResponse,
    release(ReleaseRequest) -> ReleaseResponse,
    introspect(IntrospectRequest) -> IntrospectResponse,
    authorize(AuthorizeRequest) -> AuthorizeResponse,
    whoami(WhoamiRequest) -> WhoamiResponse,
}
    type StreamExchangeStream = Answers<pb::StreamExchangeResponse>;
    async fn stream_exchange(
        &self,
        _: Request<Streaming<pb::StreamExchangeRequest>>,
    ) -> Result<Response<Self::StreamExchangeStream>, Status> {
        Err(Status::unimplemented("not by the command line"))
    }
}

unary! { revocation_service_server::RevocationService {
    revoke(RevokeRequest) -> RevokeResponse,
    blast_radius(BlastRadiusRequest) -> BlastRadiusResponse,
    get_revocation(GetRevocationRequest) -> GetRevocationResponse,
    list_rules(ListRulesRequest) -> ListRulesResponse,
    add_lock(AddLockRequest) -> AddLockResponse,
    list_locks(ListLocksRequest) -> ListLocksResponse,
    lift_lock(LiftLockRequest) -> LiftLockResponse,
    acknowledge_revocations(AcknowledgeRevocationsRequest) -> AcknowledgeRevocationsResponse,
    wait_for_revocation(WaitForRevocationRequest) -> WaitForRevocationResponse,
    list_followers(ListFollowersRequest) -> ListFollowersResponse,
}
    type WatchRevocationsStream = Answers<pb::WatchRevocationsResponse>;
    async fn watch_revocations(
        &self,
        _: Request<pb::WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        Err(Status::unimplemented("not by the command line"))
    }
}

unary! { credential_service_server::CredentialService {
    get_credential(GetCredentialRequest) -> GetCredentialResponse,
    list_credentials(ListCredentialsRequest) -> ListCredentialsResponse,
    lookup_token(LookupTokenRequest) -> LookupTokenResponse,
}
    type WatchCredentialsStream = Answers<pb::WatchCredentialsResponse>;
    async fn watch_credentials(
        &self,
        request: Request<pb::WatchCredentialsRequest>,
    ) -> Result<Response<Self::WatchCredentialsStream>, Status> {
        self.answer(request).map(open_stream)
    }
}

unary! { key_service_server::KeyService {
    get_jwks(GetJwksRequest) -> GetJwksResponse,
    get_upstream_ca(GetUpstreamCaRequest) -> GetUpstreamCaResponse,
    list_keys(ListKeysRequest) -> ListKeysResponse,
    rotate_key(RotateKeyRequest) -> RotateKeyResponse,
    retire_key(RetireKeyRequest) -> RetireKeyResponse,
    compromise_key(CompromiseKeyRequest) -> CompromiseKeyResponse,
}}

unary! { trust_domain_service_server::TrustDomainService {
    list_trust_domains(ListTrustDomainsRequest) -> ListTrustDomainsResponse,
    get_bundle(GetBundleRequest) -> GetBundleResponse,
    add_bundle(AddBundleRequest) -> AddBundleResponse,
    set_bundle(SetBundleRequest) -> SetBundleResponse,
    remove_trust_anchor(RemoveTrustAnchorRequest) -> RemoveTrustAnchorResponse,
    remove_trust_domain(RemoveTrustDomainRequest) -> RemoveTrustDomainResponse,
}}

unary! { upstream_service_server::UpstreamService {
    get_upstream(GetUpstreamRequest) -> GetUpstreamResponse,
    list_upstreams(ListUpstreamsRequest) -> ListUpstreamsResponse,
    set_upstream(SetUpstreamRequest) -> SetUpstreamResponse,
    set_upstream_state(SetUpstreamStateRequest) -> SetUpstreamStateResponse,
    offboard(OffboardRequest) -> OffboardResponse,
    return_owner(ReturnOwnerRequest) -> ReturnOwnerResponse,
    test_upstream(TestUpstreamRequest) -> TestUpstreamResponse,
    connect_upstream(ConnectUpstreamRequest) -> ConnectUpstreamResponse,
    complete_connection(CompleteConnectionRequest) -> CompleteConnectionResponse,
    disconnect_upstream(DisconnectUpstreamRequest) -> DisconnectUpstreamResponse,
    put_secret(PutSecretRequest) -> PutSecretResponse,
    list_secrets(ListSecretsRequest) -> ListSecretsResponse,
    remove_secret(RemoveSecretRequest) -> RemoveSecretResponse,
    list_bindings(ListBindingsRequest) -> ListBindingsResponse,
    set_binding(SetBindingRequest) -> SetBindingResponse,
    list_leases(ListLeasesRequest) -> ListLeasesResponse,
    get_lease(GetLeaseRequest) -> GetLeaseResponse,
    retry_lease(RetryLeaseRequest) -> RetryLeaseResponse,
    abandon_lease(AbandonLeaseRequest) -> AbandonLeaseResponse,
}}

unary! { policy_service_server::PolicyService {
    get_policy(GetPolicyRequest) -> GetPolicyResponse,
    validate_policy(ValidatePolicyRequest) -> ValidatePolicyResponse,
    explain_policy(ExplainPolicyRequest) -> ExplainPolicyResponse,
    diff_policy(DiffPolicyRequest) -> DiffPolicyResponse,
    set_policy(SetPolicyRequest) -> SetPolicyResponse,
} }

unary! { approval_service_server::ApprovalService {
    list_approvals(ListApprovalsRequest) -> ListApprovalsResponse,
    get_approval(GetApprovalRequest) -> GetApprovalResponse,
    decide_approval(DecideApprovalRequest) -> DecideApprovalResponse,
}
    type WatchApprovalsStream = Answers<pb::WatchApprovalsResponse>;
    async fn watch_approvals(&self, _: Request<pb::WatchApprovalsRequest>) -> Result<Response<Self::WatchApprovalsStream>, Status> {
        Err(Status::unimplemented("not by this double"))
    }
}

unary! { break_glass_service_server::BreakGlassService {
    open_break_glass(OpenBreakGlassRequest) -> OpenBreakGlassResponse,
    close_break_glass(CloseBreakGlassRequest) -> CloseBreakGlassResponse,
    review_break_glass(ReviewBreakGlassRequest) -> ReviewBreakGlassResponse,
    list_break_glass(ListBreakGlassRequest) -> ListBreakGlassResponse,
    get_break_glass(GetBreakGlassRequest) -> GetBreakGlassResponse,
}}

unary! { server_service_server::ServerService {
    get_status(GetStatusRequest) -> GetStatusResponse,
    list_webhooks(ListWebhooksRequest) -> ListWebhooksResponse,
    test_webhook(TestWebhookRequest) -> TestWebhookResponse,
}
    type BackupStream = Answers<pb::BackupResponse>;
    async fn backup(&self, request: Request<pb::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        self.answer(request).map(open_stream)
    }
}

unary! { audit_service_server::AuditService {
    explain(ExplainRequest) -> ExplainResponse,
    search_records(SearchRecordsRequest) -> SearchRecordsResponse,
    verify_ledger(VerifyLedgerRequest) -> VerifyLedgerResponse,
    get_checkpoint(GetCheckpointRequest) -> GetCheckpointResponse,
    report_use(ReportUseRequest) -> ReportUseResponse,
}
    type TailRecordsStream = Answers<pb::TailRecordsResponse>;
    type ExportRecordsStream = Answers<pb::ExportRecordsResponse>;
    async fn export_records(
        &self,
        request: Request<pb::ExportRecordsRequest>,
    ) -> Result<Response<Self::ExportRecordsStream>, Status> {
        self.answer(request).map(open_stream)
    }
    async fn tail_records(&self, request: Request<pb::TailRecordsRequest>) -> Result<Response<Self::TailRecordsStream>, Status> {
        self.answer(request).map(open_stream)
    }
}

/// All services of the double.
pub fn router(double: &Double) -> tonic::transport::server::Router {
    tonic::transport::Server::builder()
        .add_service(pb::task_service_server::TaskServiceServer::new(double.clone()))
        .add_service(pb::token_service_server::TokenServiceServer::new(double.clone()))
        .add_service(pb::revocation_service_server::RevocationServiceServer::new(double.clone()))
        .add_service(pb::credential_service_server::CredentialServiceServer::new(double.clone()))
        .add_service(pb::key_service_server::KeyServiceServer::new(double.clone()))
        .add_service(pb::trust_domain_service_server::TrustDomainServiceServer::new(double.clone()))
        .add_service(pb::upstream_service_server::UpstreamServiceServer::new(double.clone()))
        .add_service(pb::policy_service_server::PolicyServiceServer::new(double.clone()))
        .add_service(pb::approval_service_server::ApprovalServiceServer::new(double.clone()))
        .add_service(pb::break_glass_service_server::BreakGlassServiceServer::new(double.clone()))
        .add_service(pb::server_service_server::ServerServiceServer::new(double.clone()))
        .add_service(pb::audit_service_server::AuditServiceServer::new(double.clone()))
}

/// A double that listens on a Unix socket in a folder of its own.
pub struct Stage {
    pub double: Double,
    pub folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

/// The output of a run of the program.
#[derive(Debug)]
pub struct Ran {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Stage {
    pub fn new() -> Stage {
        let (double, folder) = (Double::default(), tempfile::tempdir().unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let socket = folder.path().join("admin.sock");
        let serving = router(&double);
        runtime.spawn(async move {
            let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
            serving.serve_with_incoming(incoming.map(|s| s)).await.unwrap();
        });
        while !folder.path().join("admin.sock").exists() {
            std::thread::yield_now();
        }
        Stage { double, folder, _runtime: runtime }
    }

    /// Runs the program with these words, separated by spaces, against the double.
    pub fn run(&self, line: &str) -> Ran {
        self.run_with(line, "")
    }

    /// Runs the program with a text on stdin.
    pub fn run_with(&self, line: &str, stdin: &str) -> Ran {
        let mut command = self.command(&line.split_whitespace().collect::<Vec<_>>());
        ran(&mut command, stdin)
    }

    /// The program with arguments that may contain spaces.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = program(self.folder.path());
        command.env("MAYFLY_ADDRESS", format!("unix:{}/admin.sock", self.folder.path().display())).args(words);
        command
    }
}

/// The program with an environment of its own.
pub fn program(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command.env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").current_dir(home);
    command
}

/// Runs the program until it ends.
pub fn ran(command: &mut Command, stdin: &str) -> Ran {
    use std::io::Write as _;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that does not read stdin may have ended before this is written.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ran {
        exit: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ran {
    /// The stdout of a successful run.
    pub fn ok(self) -> String {
        assert_eq!(self.exit, 0, "{self:?}");
        self.stdout
    }

    /// The stdout as JSON.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.exit, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }
}
