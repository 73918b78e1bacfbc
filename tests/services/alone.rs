//! A single operator never counts as two: random sequences of all calls of the admin listener by one person, under all sample policies. In
//! any order, nothing that needs two people takes effect, nobody approves their own request, and calls that an incident needs never wait.
//!
//! The calls are those of the proto: a new call needs a request here before this test passes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use http_body_util::{BodyExt, Full};
use mayfly::document::SourceFile as File;
use mayfly::identity::caller::Caller;
use mayfly::identity::svid;
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, Event, PolicySetUpdated as PolicyRecord, Record};
use mayfly::limits;
use mayfly::operator_calls::ApprovalMode;
use mayfly::pb::FILE_DESCRIPTOR_SET;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::policy::{GovernanceRules, PolicySet};
use mayfly::serve::connection_table::ConnectionActivity;
use mayfly::serve::grpc::{Services, admin_routes};
use mayfly::serve::peer::Peer;
use mayfly::serve::shares::ShareLimits;
use mayfly::serve::wire::upstream_to_pb;
use mayfly::trust::TrustBundleSource;
use mayfly::upstream::registry::Upstream;
use mayfly::upstream::widening::widened;
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Status;
use tonic_types::StatusExt;

use super::dice::{Dice, setting};
use super::kit::house::{DOMAIN, source};
use super::kit::pki;
use super::{World, world};

/// A trust domain that no policy names.
const ELSEWHERE: &str = "evil.example";

/// A policy that makes every possible action of operators wait for an approval.
const ALL_WAITS: &str = "\n@id(\"two-for-all\")\nforbid (principal, action in [Action::\"ManageKeys\", Action::\"ManageTrust\", \
    Action::\"ManagePolicy\", Action::\"ManageUpstreams\", Action::\"ManageTasks\", Action::\"ReadAudit\"], resource)\n\
    unless { context.approvals.count >= 1 };\n";

/// A policy under which exports need an approval, and break-glass rights.
const EXPORTS: &str = "\n@id(\"sensitive-takes-somebody\")\nforbid (principal, action == Action::\"Exchange\", resource)\n\
    when { context.sensitive } unless { context.approvals.count >= 1 };\n";
const RIGHTS: &str = "\n[break_glass.down]\nenvironment = \"dev\"\n\
    open = [\"spiffe://dev.mayfly.internal/operator/you\", \"spiffe://dev.mayfly.internal/operator/colleague\"]\n\
    review = [\"spiffe://dev.mayfly.internal/operator/mary\"]\nupstreams = { echo = [\"echo:read\"] }\nany_tool = true\n";

/// A sample: its name, its policies and its roles.
struct Sample {
    name: &'static str,
    policies: String,
    roles: String,
}

fn samples() -> Vec<Sample> {
    let (policies, roles) = (source("policy.cedar").text, source("roles.toml").text);
    let shipped = |file: &str| {
        let path = format!("{}/deploy/kubernetes/policy/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        // The texts in the domain and environment of the test.
        text.replace("example.org", DOMAIN).replace("prod", "dev")
    };
    vec![
        Sample { name: "deploy", policies: shipped("policy.cedar"), roles: shipped("roles.toml") },
        Sample { name: "dev", policies: policies.clone(), roles: roles.clone() },
        Sample { name: "dev, all waits", policies: policies.clone() + ALL_WAITS, roles: roles.clone() },
        Sample { name: "dev, exports wait", policies: policies + EXPORTS, roles: roles + RIGHTS },
    ]
}

/// Every call: service, method.
fn rpcs() -> Vec<(String, String)> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let services = set.file.into_iter().filter(|f| f.package() == "mayfly.v1").flat_map(|f| f.service);
    services.flat_map(|s| s.method.clone().into_iter().map(move |m| (s.name().to_owned(), m.name().to_owned()))).collect()
}

/// A person with everything that a single person can have: an operator's SVID, and root keys of their own.
struct Person {
    w: World,
    services: Services,
    you: Peer,
    own_roots: Vec<(String, pki::Authority)>,
    second_root: pki::Authority,
    dice: Dice,
    calls: u64,
    refused: BTreeMap<String, u64>,
}

/// The state that one person must not be able to change.
struct Start {
    governing: GovernanceRules,
    upstreams: BTreeMap<String, Upstream>,
    anchors: Vec<[u8; 32]>,
}

impl Person {
    fn new(sample: &Sample, seed: u64) -> Person {
        let w = world();
        let second_root = pki::Authority::root_from(&pki::Spec::ca(DOMAIN, "the second root"));
        let bundle = pki::bundle(DOMAIN, &[&w.house.root, &second_root]);
        w.run(w.authority().found_bundle(&bundle, TrustBundleSource::File, "dev.pem")).unwrap();
        let files = vec![File { file: "policy.cedar".into(), text: sample.policies.clone() }];
        let roles = File { file: "roles.toml".into(), text: sample.roles.clone() };
        let set = PolicySet::compile(files, roles).unwrap_or_else(|wrong| panic!("{}: {wrong:?}", sample.name));
        let record = PolicyRecord {
            environment: "dev".into(),
            version: 2,
            digest: set.digest().to_vec(),
            text: set.to_text().to_owned(),
            ..PolicyRecord::default()
        };
        let record = Record::new(Author::Mayfly("imported".into()), Event::PolicySet(record));
        w.run(w.authority().ledger.commit(ProposalKind::Change, vec![record])).unwrap();
        let services = admin_routes(w.authority(), &tonic_health::server::HealthReporter::new());
        let own_roots = [DOMAIN, ELSEWHERE]
            .map(|domain| (domain.to_owned(), pki::Authority::root_from(&pki::Spec::ca(domain, "a root of one's own"))));
        let you = w.admin("/operator/you");
        Person {
            w,
            services,
            you,
            own_roots: own_roots.into(),
            second_root,
            dice: Dice::new(seed),
            calls: 0,
            refused: BTreeMap::new(),
        }
    }

    fn start(&self) -> Start {
        let compiled = self.w.authority().catalog.now();
        let upstreams = compiled.upstreams().map(|r| (r.upstream.name.clone(), (*r.upstream).clone())).collect();
        let anchors = self.w.authority().ledger.peek(|s| s.bundles.get(DOMAIN).unwrap().anchors.clone());
        Start { governing: compiled.policy("dev").unwrap().set.governing(), upstreams, anchors }
    }

    /// The identities that the person can use: their own, and any that their own roots vouch for.
    fn identities(&self) -> Vec<Peer> {
        let mut all = vec![self.you.clone()];
        for (domain, root) in &self.own_roots {
            for path in ["/operator/colleague", "/operator/mary"] {
                let chain = root.svid(&format!("spiffe://{domain}{path}")).chain;
                let bundles = self.w.authority().bundles.load();
                if let Ok(svid) = svid::verify(&chain, &bundles, self.w.house.now(), limits::SVID_MAX_TTL_MS) {
                    all.push(Peer::Admin(Caller::from(&svid)));
                }
            }
        }
        all
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[usize::try_from(self.dice.below(of.len() as u64)).unwrap()]
    }

    /// Makes a call with one of the identities. Returns the reason of a refusal, empty for an answer.
    fn call(&mut self, peer: &Peer, service: &str, method: &str, message: Vec<u8>) -> String {
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).unwrap());
        body.put_slice(&message);
        let path = format!("/mayfly.v1.{service}/{method}");
        let request =
            http::Request::post(path).header("content-type", "application/grpc").body(Full::new(body.freeze())).unwrap();
        let calls = self.services.clone().on_connection(peer.clone(), ConnectionActivity::alone(ShareLimits::AUTHENTICATED));
        let said = self.w.run(async {
            let arrived = calls.arrived(&request);
            let answer = calls.answer(request, arrived, &Default::default());
            // A call that waits for something else counts as answered; it did nothing.
            let Ok(response) = tokio::time::timeout(Duration::from_secs(2), answer).await else { return None };
            let mut said = Status::from_header_map(response.headers());
            let mut body = response.into_body();
            // A stream that stays open is no refusal.
            while let Ok(Some(Ok(frame))) = tokio::time::timeout(Duration::from_millis(50), body.frame()).await {
                let Ok(trailers) = frame.into_trailers() else { break };
                said = Status::from_header_map(&trailers);
            }
            said
        });
        self.calls += 1;
        let said = said.filter(|s| s.code() != tonic::Code::Ok);
        let reason =
            said.map_or_else(String::new, |s| s.get_details_error_info().map_or(format!("{:?}", s.code()), |i| i.reason));
        *self.refused.entry(reason.clone()).or_default() += 1;
        let rpc = format!("{service}.{method}");
        assert!(ApprovalMode::of(&rpc) != ApprovalMode::Never || reason != "APPROVAL_NEEDED", "{rpc} waits");
        reason
    }

    fn turn(&mut self, rpcs: &[(String, String)]) {
        let identities = self.identities();
        let peer = identities[usize::try_from(self.dice.below(identities.len() as u64)).unwrap()].clone();
        // Every fourth call decides an approval, since approvals are the most promising attack.
        let (service, method) = match self.dice.below(4) {
            0 => ("ApprovalService".to_owned(), "DecideApproval".to_owned()),
            _ => rpcs[usize::try_from(self.dice.below(rpcs.len() as u64)).unwrap()].clone(),
        };
        if let Some(message) = self.request(&service, &method) {
            self.call(&peer, &service, &method, message);
        }
    }

    /// Requests the most valuable changes, and tries to approve them with each available identity.
    fn attack(&mut self) {
        for (service, method) in [
            ("TrustDomainService", "AddBundle"),
            ("TrustDomainService", "SetBundle"),
            ("PolicyService", "SetPolicy"),
            ("UpstreamService", "SetUpstream"),
            ("UpstreamService", "SetBinding"),
            ("KeyService", "RotateKey"),
            ("BreakGlassService", "OpenBreakGlass"),
        ] {
            let message = self.request(service, method).unwrap();
            self.call(&self.you.clone(), service, method, message);
        }
        for peer in self.identities() {
            for (id, digest) in self.approvals() {
                let message = give(&id, digest);
                self.call(&peer, "ApprovalService", "DecideApproval", message);
            }
        }
    }

    fn approvals(&self) -> Vec<(String, Vec<u8>)> {
        let waiting = |s: &mayfly::ledger::State| {
            let open = s.approvals.iter().filter(|(_, a)| a.decided.is_none());
            open.map(|(id, a)| (id.to_string(), a.asked.digest.clone())).collect()
        };
        self.w.authority().ledger.peek(waiting)
    }

    fn holds(&self, start: &Start, seed: u64, sample: &str) {
        let what = format!("sample {sample}, MAYFLY_ALONE_SEED={seed}");
        self.w.authority().ledger.peek(|s| {
            let given = s.approvals.iter().find(|(_, a)| a.decided.as_ref().is_some_and(|d| d.given));
            assert!(given.is_none(), "{what}: one person approved {given:?}");
            let fresh = |root: &&[u8; 32]| !start.anchors.contains(root);
            let added = s.bundles.get(DOMAIN).unwrap().anchors.iter().find(fresh);
            assert!(added.is_none(), "{what}: a root of the operators' domain was added");
            assert!(s.bindings.is_empty(), "{what}: a binding was added");
        });
        let compiled = self.w.authority().catalog.now();
        let governing = compiled.policy("dev").unwrap().set.governing();
        assert_eq!(governing.differences(&start.governing), Vec::<String>::new(), "{what}: what governs was changed");
        for now in compiled.upstreams().map(|r| &r.upstream) {
            match start.upstreams.get(&now.name) {
                Some(before) => assert_eq!(widened(before, now, |_| false), Vec::<String>::new(), "{what}: {}", now.name),
                None => assert!(
                    start.upstreams.values().all(|u| u.audience != now.audience && u.target != now.target),
                    "{what}: {} is another one's target",
                    now.name
                ),
            }
        }
    }
}

fn give(id: &str, digest: Vec<u8>) -> Vec<u8> {
    pb::DecideApprovalRequest {
        approval_id: id.into(),
        request_sha256: digest.into(),
        decision: pb::ApprovalDecision::Give.into(),
        reason: "looked at it".into(),
        confirmation: all(),
        ..Default::default()
    }
    .encode_to_vec()
}

fn all() -> Option<pb::Confirmation> {
    Some(pb::Confirmation { credentials: 0, all: true })
}

fn target(of: pb::target::Target) -> Vec<pb::Target> {
    vec![pb::Target { target: Some(of) }]
}

const WHY: &str = "because";

impl Person {
    fn bundle(&mut self) -> (String, Option<pb::Bundle>) {
        let n = usize::from(self.dice.chance(40));
        let (domain, root) = &self.own_roots[n];
        let text = match domain == DOMAIN && self.dice.chance(50) {
            true => format!("{}{}", self.w.house.root.pem(), root.pem()),
            false => root.pem(),
        };
        (domain.clone(), Some(pb::Bundle { bundle: Some(pb::bundle::Bundle::Pem(text)) }))
    }

    fn registration(&mut self) -> pb::Upstream {
        let name = self.one(&["echo", "repos", "tickets"]);
        let (upstream, version) = self.w.authority().ledger.peek(|s| {
            let version = s.upstreams.get(name).unwrap().clone();
            (Upstream::from_text(&version.text).unwrap(), version)
        });
        let mut shown = upstream_to_pb(&upstream, &version);
        match self.dice.below(8) {
            0 => shown.scopes.iter_mut().for_each(|s| s.sensitive = false),
            1 => shown.scopes.push(pb::UpstreamScope { scope: "all".into(), sensitive: false }),
            2 => shown.approvers = vec![approver(&format!("spiffe://{ELSEWHERE}/operator/mary"))],
            3 => shown.servers.push(format!("spiffe://{DOMAIN}/operator/you")),
            4 => shown.max_ttl = shown.max_ttl.map(|d| prost_types::Duration { seconds: d.seconds * 2, ..d }),
            5 => shown.scopes.truncate(1),
            6 => (shown.upstream, shown.version) = (format!("{name}-again"), 0),
            _ => {
                let name = format!("new-{}", self.calls);
                shown.audience = format!("https://{name}.example");
                shown.base_url = format!("https://{name}.example");
                shown.approvers = vec![approver(&format!("spiffe://{ELSEWHERE}/operator/mary"))];
                (shown.upstream, shown.version) = (name, 0);
            }
        }
        shown
    }

    fn policy(&mut self) -> pb::SetPolicyRequest {
        let (version, text) = self.w.authority().ledger.peek(|s| {
            let now = s.policies.get("dev").unwrap();
            (now.version, now.text.to_string())
        });
        let (policies, roles) = mayfly::policy::set::files(&text).unwrap();
        let file = |f: File| pb::PolicyFile { name: f.file, text: f.text };
        let (mut policies, mut roles): (Vec<_>, _) = (policies.into_iter().map(file).collect(), file(roles));
        match self.dice.below(3) {
            0 => policies[0].text.push_str("\n@id(\"all\") permit (principal, action in Action::\"Admin\", resource);\n"),
            1 => {
                roles.text = roles
                    .text
                    .replace("[role.operator]\n", &format!("[role.operator]\nids = [\"spiffe://{ELSEWHERE}/operator/mary\"]\n"))
            }
            _ => policies[0].text.push_str("\n// as it was\n"),
        }
        let files = pb::PolicyFiles { policies, roles: Some(roles) };
        pb::SetPolicyRequest {
            environment: "dev".into(),
            mode: pb::PolicyMode::Enforce.into(),
            set: Some(pb::PolicySource { from: Some(pb::policy_source::From::Files(files)) }),
            read_version: version,
            reason: WHY.into(),
            confirmation: all(),
            ..Default::default()
        }
    }

    fn task(&mut self) -> String {
        let tasks: Vec<String> = self.w.authority().ledger.peek(|s| s.tasks.iter().map(|t| t.terms.id.to_string()).collect());
        let n = self.dice.below(tasks.len() as u64);
        tasks.get(usize::try_from(n).unwrap()).cloned().unwrap_or_default()
    }

    fn key(&mut self) -> String {
        let keys: Vec<String> = self.w.authority().ledger.peek(|s| s.keys.keys().map(ToString::to_string).collect());
        let n = usize::try_from(self.dice.below(keys.len() as u64)).unwrap();
        keys[n].clone()
    }

    fn approval(&mut self) -> (String, Vec<u8>) {
        let waiting = self.approvals();
        let n = usize::try_from(self.dice.below(waiting.len() as u64)).unwrap();
        waiting.get(n).cloned().unwrap_or_default()
    }

    /// A request of each call; `None` for a call without a single request, such as a stream of requests.
    fn request(&mut self, service: &str, method: &str) -> Option<Vec<u8>> {
        let none = || Some(Vec::new());
        let why = || WHY.to_owned();
        let reason = why();
        Some(match (service, method) {
            ("KeyService", "RotateKey") => {
                let at_once = Some(prost_types::Duration::default());
                let (purpose, environment) = (pb::KeyPurpose::AccessToken.into(), "dev".into());
                pb::RotateKeyRequest { purpose, environment, publish_ahead: at_once, ..Default::default() }.encode_to_vec()
            }
            ("KeyService", "RetireKey") => {
                pb::RetireKeyRequest { key_id: self.key(), reason, confirmation: all(), ..Default::default() }.encode_to_vec()
            }
            ("KeyService", "CompromiseKey") => {
                pb::CompromiseKeyRequest { key_id: self.key(), reason, confirmation: all(), ..Default::default() }.encode_to_vec()
            }
            ("TrustDomainService", "AddBundle") => {
                let (trust_domain, bundle) = self.bundle();
                pb::AddBundleRequest { trust_domain, bundle, reason, ..Default::default() }.encode_to_vec()
            }
            ("TrustDomainService", "SetBundle") => {
                let (trust_domain, mut bundle) = self.bundle();
                if trust_domain == DOMAIN {
                    // Without the requester's own root no further call would be possible.
                    let text = format!("{}{}", self.w.house.root.pem(), self.own_roots[0].1.pem());
                    bundle = Some(pb::Bundle { bundle: Some(pb::bundle::Bundle::Pem(text)) });
                }
                pb::SetBundleRequest { trust_domain, bundle, reason, confirmation: all(), ..Default::default() }.encode_to_vec()
            }
            ("TrustDomainService", "RemoveTrustAnchor") => {
                let anchor = mayfly::identity::anchor::TrustAnchor::from_der(&self.second_root.certificate).unwrap();
                let (trust_domain, sha256) = (DOMAIN.into(), anchor.id().as_bytes().to_vec().into());
                pb::RemoveTrustAnchorRequest { trust_domain, sha256, reason, confirmation: all(), ..Default::default() }
                    .encode_to_vec()
            }
            ("TrustDomainService", "RemoveTrustDomain") => {
                let trust_domain = ELSEWHERE.into();
                pb::RemoveTrustDomainRequest { trust_domain, reason, confirmation: all(), ..Default::default() }.encode_to_vec()
            }
            ("TrustDomainService", "GetBundle") => pb::GetBundleRequest { trust_domain: DOMAIN.into() }.encode_to_vec(),
            ("PolicyService", "SetPolicy") => self.policy().encode_to_vec(),
            ("PolicyService", "GetPolicy") => {
                pb::GetPolicyRequest { environment: "dev".into(), ..Default::default() }.encode_to_vec()
            }
            ("UpstreamService", "SetUpstream") => {
                let upstream = Some(self.registration());
                pb::SetUpstreamRequest { upstream, reason, confirmation: all(), ..Default::default() }.encode_to_vec()
            }
            ("UpstreamService", "SetUpstreamState") => {
                let state = self.one(&[
                    &pb::RegistrationState::Active,
                    &pb::RegistrationState::Disabled,
                    &pb::RegistrationState::Retired,
                ]);
                let (upstream, state) = (self.one(&["echo", "repos", "tickets"]).into(), (*state).into());
                pb::SetUpstreamStateRequest { upstream, state, reason, confirmation: all(), ..Default::default() }.encode_to_vec()
            }
            ("UpstreamService", "SetBinding") => {
                let binding = pb::Binding {
                    binding: "mine".into(),
                    upstream: "echo".into(),
                    callers: vec![format!("spiffe://{DOMAIN}/mcp/echo")],
                    any_tool: true,
                    scopes: vec!["echo:read".into()],
                    ..Default::default()
                };
                pb::SetBindingRequest { binding: Some(binding), reason, confirmation: all(), ..Default::default() }
                    .encode_to_vec()
            }
            ("UpstreamService", "GetUpstream") => pb::GetUpstreamRequest { upstream: "echo".into() }.encode_to_vec(),
            ("UpstreamService", "Offboard") => {
                let owner = self.one(&["platform", "nobody"]).into();
                pb::OffboardRequest { owner, reason, confirmation: all(), ..Default::default() }.encode_to_vec()
            }
            ("UpstreamService", "ReturnOwner") => {
                let owner = self.one(&["platform", "nobody"]).into();
                pb::ReturnOwnerRequest { owner, reason, ..Default::default() }.encode_to_vec()
            }
            ("RevocationService", "Revoke") => {
                let targets = target(pb::target::Target::Caller(format!("spiffe://{DOMAIN}/agent/demo")));
                let issued_only = self.dice.chance(50);
                pb::RevokeRequest { targets, reason, issued_only, confirmation: all(), ..Default::default() }.encode_to_vec()
            }
            ("RevocationService", "AddLock") => {
                let targets = target(pb::target::Target::Upstream("tickets".into()));
                pb::AddLockRequest { targets, reason, ..Default::default() }.encode_to_vec()
            }
            ("RevocationService", "BlastRadius") => {
                let targets = target(pb::target::Target::Upstream("echo".into()));
                pb::BlastRadiusRequest { targets, ..Default::default() }.encode_to_vec()
            }
            ("RevocationService", "LiftLock") => {
                let locked = |s: &mayfly::ledger::State| s.rules.entries().into_iter().find_map(|(_, e)| e.lock);
                let seq = self.w.authority().ledger.peek(locked).map_or(1, |seq| seq.as_u64());
                pb::LiftLockRequest { seq, reason, ..Default::default() }.encode_to_vec()
            }
            ("TaskService", "OpenTask") => {
                let upstreams = vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] }];
                let terms = pb::TaskTerms { purpose: "a test".into(), upstreams, any_tool: true, ..Default::default() };
                pb::OpenTaskRequest { terms: Some(terms), ..Default::default() }.encode_to_vec()
            }
            ("TaskService", "HoldTask") => {
                pb::HoldTaskRequest { task_id: self.task(), reason, ..Default::default() }.encode_to_vec()
            }
            ("TaskService", "ResumeTask") => {
                pb::ResumeTaskRequest { task_id: self.task(), reason, ..Default::default() }.encode_to_vec()
            }
            ("TaskService", "CompleteTask") => pb::CompleteTaskRequest { task_id: self.task(), reason }.encode_to_vec(),
            ("TaskService", "CancelTask") => pb::CancelTaskRequest { task_id: self.task(), reason }.encode_to_vec(),
            ("TaskService", "GetTask") => pb::GetTaskRequest { task_id: self.task() }.encode_to_vec(),
            ("ApprovalService", "DecideApproval") => {
                let (id, digest) = self.approval();
                match self.dice.chance(90) {
                    true => give(&id, digest),
                    false => pb::DecideApprovalRequest {
                        approval_id: id,
                        request_sha256: digest.into(),
                        decision: pb::ApprovalDecision::Refuse.into(),
                        reason,
                        ..Default::default()
                    }
                    .encode_to_vec(),
                }
            }
            ("ApprovalService", "GetApproval") => pb::GetApprovalRequest { approval_id: self.approval().0 }.encode_to_vec(),
            ("BreakGlassService", "OpenBreakGlass") => {
                let open = match self.dice.chance(50) {
                    true => pb::open_break_glass_request::Open::Rights("down".into()),
                    false => pb::open_break_glass_request::Open::TaskId(self.task()),
                };
                pb::OpenBreakGlassRequest { open: Some(open), reason, environment: "dev".into(), ..Default::default() }
                    .encode_to_vec()
            }
            ("BreakGlassService", "CloseBreakGlass") => {
                pb::CloseBreakGlassRequest { task_id: self.task(), reason }.encode_to_vec()
            }
            ("BreakGlassService", "ReviewBreakGlass") => {
                pb::ReviewBreakGlassRequest { task_id: self.task(), review: reason, ..Default::default() }.encode_to_vec()
            }
            // A stream of requests cannot be approved as one request, and only issues.
            ("TokenService", "StreamExchange") => return None,
            // Calls that only read or that belong to workloads get an empty request, which must not permit more.
            ("KeyService", "GetJwks" | "GetUpstreamCa" | "ListKeys")
            | ("TrustDomainService", "ListTrustDomains")
            | ("PolicyService", "ValidatePolicy" | "ExplainPolicy" | "DiffPolicy")
            | ("UpstreamService", "ListUpstreams" | "TestUpstream" | "PutSecret" | "ListBindings" | "ListLeases" | "GetLease")
            | ("UpstreamService", "ConnectUpstream" | "CompleteConnection" | "DisconnectUpstream")
            | ("UpstreamService", "RetryLease" | "AbandonLease" | "ListSecrets" | "RemoveSecret")
            | ("RevocationService", "GetRevocation" | "ListRules" | "ListLocks" | "WatchRevocations")
            | ("RevocationService", "AcknowledgeRevocations" | "WaitForRevocation" | "ListFollowers")
            | ("TaskService", "DelegateTask" | "ListTasks" | "ExtendTask" | "HeartbeatTask" | "ListTaskCredentials")
            | ("ApprovalService", "ListApprovals" | "WatchApprovals")
            | ("BreakGlassService", "ListBreakGlass" | "GetBreakGlass")
            | (
                "AuditService",
                "Explain" | "SearchRecords" | "TailRecords" | "GetCheckpoint" | "ExportRecords" | "VerifyLedger",
            )
            | ("AuditService", "ReportUse")
            | ("CredentialService", "GetCredential" | "ListCredentials" | "WatchCredentials" | "LookupToken")
            | ("ServerService", "GetStatus" | "ListWebhooks" | "TestWebhook" | "Backup")
            | ("TokenService", "Exchange" | "BatchExchange" | "Renew" | "Release" | "Introspect" | "Authorize" | "Whoami") => {
                return none();
            }
            _ => panic!(
                "{service}.{method} is new: give it a request here, and say in src/authority/admission/operator_calls.rs how it stands to approvals"
            ),
        })
    }
}

fn approver(id: &str) -> pb::Approver {
    pb::Approver { who: Some(pb::approver::Who::SpiffeId(id.into())) }
}

#[test]
fn one_person_never_counts_as_two_and_an_incident_never_waits() {
    let (seed, runs, turns) =
        (setting("MAYFLY_ALONE_SEED", 1), setting("MAYFLY_ALONE_RUNS", 2), setting("MAYFLY_ALONE_TURNS", 120));
    let rpcs = rpcs();
    for sample in samples() {
        for run in 0..runs {
            let seed = seed + run;
            let mut person = Person::new(&sample, seed);
            let start = person.start();
            for (service, method) in &rpcs {
                // Each call once, so that chance leaves none out.
                if let Some(message) = person.request(service, method) {
                    let you = person.you.clone();
                    person.call(&you, service, method, message);
                }
            }
            for _ in 0..turns {
                person.turn(&rpcs);
            }
            person.attack();
            person.holds(&start, seed, sample.name);
            let (asked, answered) = (person.refused.get("APPROVAL_NEEDED"), person.refused.get(""));
            assert!(asked.is_some_and(|n| *n >= 3), "{}: too little was asked for: {:?}", sample.name, person.refused);
            assert!(answered.is_some_and(|n| *n >= 20), "{}: too little was done: {:?}", sample.name, person.refused);
            println!("sample {}, seed {seed}: {} calls, {:?}", sample.name, person.calls, person.refused);
        }
    }
}
