//! Operators of environments: every rpc of the admin listener, called by an operator who is permitted everything in one of three
//! environments, works there and reveals nothing of the others.

use std::collections::BTreeSet;
use std::time::Duration;

use mayfly::credential::keyring::generate;
use mayfly::document::SourceFile;
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{
    ApprovalKind, ApprovalRequested, Author, Event, KeyPurpose, KeyState, LeaseOpened, PolicySetUpdated as PolicyRecord,
    Principal, Record, UpstreamUpdated,
};
use mayfly::pb::FILE_DESCRIPTOR_SET;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::approval_service_server::ApprovalService;
use mayfly::pb::mayfly::v1::audit_service_server::AuditService;
use mayfly::pb::mayfly::v1::break_glass_service_server::BreakGlassService;
use mayfly::pb::mayfly::v1::credential_service_server::CredentialService;
use mayfly::pb::mayfly::v1::key_service_server::KeyService;
use mayfly::pb::mayfly::v1::policy_service_server::PolicyService;
use mayfly::pb::mayfly::v1::revocation_service_server::RevocationService;
use mayfly::pb::mayfly::v1::server_service_server::ServerService;
use mayfly::pb::mayfly::v1::task_service_server::TaskService;
use mayfly::pb::mayfly::v1::token_service_server::TokenService;
use mayfly::pb::mayfly::v1::trust_domain_service_server::TrustDomainService;
use mayfly::pb::mayfly::v1::upstream_service_server::UpstreamService;
use mayfly::policy::PolicySet;
use mayfly::refusal::Error;
use mayfly::revocation::Target;
use mayfly::seq::LeaseId;
use mayfly::serve::grpc::{
    approval, audit, break_glass, credential, key, policy, revocation, server, task, token as tokens, trust_domain, upstream,
};
use mayfly::serve::wire::target_to_pb;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio_stream::{Stream, StreamExt as _};

use super::kit::house::{DOMAIN, Open, house_serving, source};
use super::*;

const POLICY: &str = r#"
@id("work") permit (principal in Role::"agent", action in Action::"Work", resource);
@id("approve") permit (principal, action == Action::"Approve", resource);
@id("operators") permit (principal in Role::"operator", action in Action::"Admin", resource);
@id("asks") forbid (principal, action == Action::"Exchange", resource) when { context has tool && context.tool == "asks" }
  unless { context.approvals.count >= 1 };
"#;

/// The objects of an environment, made anew for each call.
struct Things {
    environment: &'static str,
    upstream: String,
    agent: String,
    task: String,
    credential: String,
    token: String,
    key: String,
    lease: String,
    approval: String,
    digest: Vec<u8>,
    glass: String,
    /// A lock and a rule over callers of the environment.
    lock: u64,
    rule: u64,
}

impl Things {
    /// The names that an answer to an operator of another environment must not contain.
    fn names(&self) -> Vec<String> {
        let Things { upstream, agent, task, credential, key, lease, approval, glass, .. } = self;
        let quoted = format!("{:?}", self.environment);
        [upstream, agent, task, credential, key, lease, approval, glass, &quoted].into_iter().cloned().collect()
    }
}

struct Land {
    w: World,
    count: std::cell::Cell<u8>,
}

impl Land {
    /// The test authority with `prod` and `stage` beside its own environment.
    fn new() -> Land {
        Land::of(world())
    }

    fn of(w: World) -> Land {
        let land = Land { w, count: 0.into() };
        for environment in ["prod", "stage"] {
            land.commit(land.environment(environment));
        }
        land
    }

    fn commit(&self, events: Vec<Event>) {
        let records = events.into_iter().map(|event| Record::new(Author::Mayfly("test".into()), event)).collect();
        self.w.run(self.w.authority().ledger.commit(ProposalKind::Change, records)).unwrap();
    }

    fn environment(&self, name: &str) -> Vec<Event> {
        let roles = format!(
            "[role.agent]\nunder = ['spiffe://{DOMAIN}/{name}']\n\
             [role.operator]\nids = ['spiffe://{DOMAIN}/operator/{name}', 'spiffe://{DOMAIN}/operator/all']\n\
             [environment.{name}]\nunder = ['spiffe://{DOMAIN}/{name}']\n\
             [break_glass.down]\nenvironment = '{name}'\nreview = ['spiffe://{DOMAIN}/{name}/mary']\n\
             open = ['spiffe://{DOMAIN}/{name}/ada', 'spiffe://{DOMAIN}/{name}/bob']\n\
             upstreams = {{ echo-{name} = ['echo:read'] }}\n"
        );
        let set =
            PolicySet::compile(vec![SourceFile::new("policy.cedar", POLICY)], SourceFile::new("roles.toml", roles)).unwrap();
        let policy = PolicyRecord {
            environment: name.into(),
            version: 1,
            digest: set.digest().to_vec(),
            text: set.to_text().to_owned(),
            ..PolicyRecord::default()
        };
        let text = source("upstreams/echo.toml").text.replace("\"echo\"", &format!("\"echo-{name}\""));
        let text = text.replace("\"dev\"", &format!("{name:?}")).replace("https://echo.", &format!("https://echo-{name}."));
        let text =
            text.replace("7780", if name == "prod" { "7781" } else { "7782" }).replace("\"you\"", &format!("\"you-{name}\""));
        let text = text.replace("/operator/you", &format!("/{name}/mary"));
        let upstream = mayfly::upstream::file::parse(&SourceFile::new("echo.toml", text), &[]).unwrap();
        let set = UpstreamUpdated {
            name: upstream.name.clone(),
            version: 1,
            digest: upstream.digest().to_vec(),
            text: upstream.to_text(),
            ..UpstreamUpdated::default()
        };
        let mut events = vec![Event::PolicySet(policy), Event::UpstreamSet(set)];
        for purpose in [KeyPurpose::AccessToken, KeyPurpose::Reference] {
            let key = generate(purpose, name, KeyState::Active, &Open, &self.w.authority().system).unwrap();
            events.push(Event::KeyAdded(key.keep(&*self.w.authority().ledger.store()).unwrap()));
        }
        events
    }

    fn things(&self, environment: &'static str) -> Things {
        let w = &self.w;
        let n = self.count.get() + 1;
        self.count.set(n);
        let (upstream, path) = (format!("echo-{environment}"), format!("/{environment}/agent-{n}"));
        let caller = w.house.caller(&path);
        let mut want = wanted(TaskChoice::Inline(
            mayfly::policy::exchange_request::TaskRequest {
                upstreams: vec![(upstream.clone(), vec!["echo:read".into()])],
                ..terms()
            }
            .into(),
        ));
        want.upstream = upstream.as_str().into();
        let issued = w.run(w.authority().exchange(&caller, &want)).unwrap();
        let (task, credential) = (issued.summary().about.task, issued.summary().credential);
        want.task = TaskChoice::Named(task);
        want.tool = "asks".into();
        let asked = w.run(w.authority().exchange(&caller, &want));
        let Err(Error::Refusal(_)) = asked else { panic!("nobody has to approve") };
        let approval = w.authority().ledger.peek(|s| {
            let mine = s.approvals.iter().find(|(_, a)| a.asked.caller == caller.id().as_str());
            mine.map(|(id, a)| (id.to_string(), a.asked.digest.clone())).unwrap()
        });
        let lease = LeaseOpened {
            lease: vec![n; 16],
            credential: vec![n; 16],
            task: task.as_bytes().to_vec(),
            upstream: upstream.clone(),
            kind: 5,
            handle: format!("role-{environment}-{n}"),
            ends_at: 0,
            terms: String::new(),
        };
        let record = Record::new(Author::LocalUid(0), Event::LeaseOpened(lease));
        w.run(w.authority().ledger.commit(ProposalKind::Grant, vec![record])).unwrap();
        let service = break_glass::BreakGlassApi(w.authority().clone());
        let open = pb::OpenBreakGlassRequest {
            reason: "down".into(),
            environment: environment.into(),
            open: Some(pb::open_break_glass_request::Open::Rights("down".into())),
            ..Default::default()
        };
        let glass = w.run(service.open_break_glass(ask(&w.admin(&format!("/{environment}/ada")), open)));
        let idle = |n: &str| Target::Caller(format!("spiffe://{DOMAIN}/{environment}/{n}").as_str().into());
        let locked = w.run(revocation::RevocationApi(w.authority().clone()).add_lock(ask(&ROOT, lock(&[idle("idle")]))));
        let ruled = w.run(revocation::RevocationApi(w.authority().clone()).revoke(ask(&ROOT, revoke(&[idle("gone")], true))));
        let key = w.authority().ledger.peek(|s| {
            let of =
                |k: &mayfly::ledger::state::ManagedKey| *k.environment == *environment && k.purpose == KeyPurpose::AccessToken;
            s.keys.iter().find(|(_, k)| of(k)).map(|(id, _)| id.to_string()).unwrap()
        });
        let glass = match glass {
            Ok(opened) => opened.into_inner().break_glass.unwrap().task.unwrap().task_id,
            // Only one break-glass task may wait for its second person at a time.
            Err(_) => {
                let of = |g: &mayfly::ledger::state::BreakGlassTask| *g.environment == *environment;
                w.authority()
                    .ledger
                    .peek(|s| s.break_glass_tasks.iter().find(|(_, g)| of(g)).map(|(id, _)| id.to_string()).unwrap_or_default())
            }
        };
        Things {
            environment,
            upstream,
            agent: caller.id().as_str().to_owned(),
            task: task.to_string(),
            credential: credential.to_string(),
            token: token(issued),
            key,
            lease: LeaseId::from_bytes([n; 16]).to_string(),
            approval: approval.0,
            digest: approval.1,
            glass,
            lock: ok(locked).seq,
            rule: ok(ruled).seq,
        }
    }
}

fn revoke(targets: &[Target], issued_only: bool) -> pb::RevokeRequest {
    let confirmation = Some(pb::Confirmation { all: true, ..Default::default() });
    let targets = targets.iter().map(target_to_pb).collect();
    pb::RevokeRequest { targets, issued_only, reason: "a test".into(), confirmation, ..Default::default() }
}

fn lock(targets: &[Target]) -> pb::AddLockRequest {
    pb::AddLockRequest { targets: targets.iter().map(target_to_pb).collect(), reason: "a test".into(), ..Default::default() }
}

/// The messages of a stream within a moment.
async fn told<T: std::fmt::Debug>(stream: impl Stream<Item = Result<T, Status>>) -> Result<String, Status> {
    let mut stream = std::pin::pin!(stream);
    let mut out = String::new();
    while let Ok(Some(one)) = tokio::time::timeout(Duration::from_millis(200), stream.next()).await {
        out.push_str(&format!("{:?}\n", one?));
    }
    Ok(out)
}

type Answer = Result<String, Status>;
type Call = Box<dyn Fn(&Land, &Things, &Peer) -> Answer>;

/// How an rpc depends on environments.
enum Row {
    /// The rpc concerns an object of one environment, or lists the objects of the environments that the operator may see.
    Environment(Call),
    /// The rpc reads an object of no environment.
    Server(Call),
    /// The rpc changes or reads an object of every environment.
    Each(Call),
    /// The rpc does not evaluate policy for operators, for this reason.
    NotOperators(#[expect(dead_code, reason = "it is for who reads the table")] &'static str),
}

macro_rules! call {
    ($service:path, $method:ident, $things:ident => $request:expr) => {
        Box::new(|l: &Land, $things: &Things, who: &Peer| {
            let answer = l.w.run($service(l.w.authority().clone()).$method(ask(who, $request)));
            answer.map(|a| format!("{:?}", a.into_inner()))
        })
    };
}

macro_rules! stream {
    ($service:path, $method:ident, $things:ident => $request:expr) => {
        Box::new(|l: &Land, $things: &Things, who: &Peer| {
            l.w.run(async { told($service(l.w.authority().clone()).$method(ask(who, $request)).await?.into_inner()).await })
        })
    };
}

mod rows;

fn only(environment: &str) -> Option<pb::RecordFilter> {
    Some(pb::RecordFilter { environment: environment.into(), ..Default::default() })
}

struct Hooks;

impl mayfly::webhook::WebhookSenders for Hooks {
    fn standing(&self) -> Vec<mayfly::webhook::WebhookStatus> {
        let hook = |environment: &str| mayfly::webhook::WebhookStatus {
            name: format!("echo-{environment}"),
            environments: vec![environment.to_owned()],
            problem: format!("spiffe://{DOMAIN}/{environment}/agent did not answer"),
            ..Default::default()
        };
        vec![hook("prod"), hook("stage")]
    }

    fn test(&self, _: &str) -> Option<mayfly::webhook::TestDelivery<'_>> {
        Some(Box::pin(async { Ok(204) }))
    }
}

fn reason_of(no: &Status) -> String {
    no.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

fn denied(answer: &Answer) -> bool {
    answer.as_ref().is_err_and(|no| reason_of(no) == "DENIED_BY_POLICY")
}

/// Refused because of the caller, or as if the object did not exist.
fn shut(answer: &Answer) -> bool {
    answer.as_ref().is_err_and(|no| ["DENIED_BY_POLICY", "NOT_FOUND"].contains(&reason_of(no).as_str()))
}

/// The rpcs, as the service descriptors name them.
fn served() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let files = set.file.iter().filter(|f| f.package() == "mayfly.v1");
    let services = files.flat_map(|f| &f.service);
    services.flat_map(|s| s.method.iter().map(|m| format!("{}.{}", s.name(), m.name()))).collect()
}

#[test]
fn every_rpc_asks_policy_of_the_environment_that_it_is_about_and_of_no_other() {
    let rows = rows::all();
    let known: BTreeSet<String> = rows.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(known, served(), "each rpc stands in the table: say how it has to do with environments");
    let land = Land::new();
    assert!(land.w.authority().webhooks.set(Box::new(Hooks)).is_ok());
    let (one, all) = (land.w.admin("/operator/prod"), land.w.admin("/operator/all"));
    let mut wrong = Vec::new();
    for (name, row) in &rows {
        let (prod, stage) = (land.things("prod"), land.things("stage"));
        let tells = |answer: &Answer| {
            let text = answer.as_ref().map_or_else(|no| no.message().to_owned(), Clone::clone);
            stage.names().into_iter().find(|name| !name.is_empty() && text.contains(name.as_str()))
        };
        match row {
            Row::Environment(call) => {
                let answer = call(&land, &prod, &one);
                if shut(&answer) {
                    wrong.push(format!("{name}: who operates prod is refused there: {answer:?}"));
                }
                if let Some(told) = answer.is_ok().then(|| tells(&answer)).flatten() {
                    wrong.push(format!("{name}: who operates prod is told of {told}"));
                }
                let answer = call(&land, &stage, &one);
                if let (false, Some(told)) = (shut(&answer), tells(&answer)) {
                    wrong.push(format!("{name}: who operates prod is served in stage, and told of {told}: {answer:?}"));
                }
            }
            Row::Server(call) => {
                let answer = call(&land, &prod, &one);
                if denied(&answer) || tells(&answer).is_some() {
                    wrong.push(format!("{name}: who operates one environment may look at it: {answer:?}"));
                }
            }
            Row::Each(call) => {
                let answer = call(&land, &prod, &one);
                if !denied(&answer) {
                    wrong.push(format!("{name}: it spans all environments, and one was enough: {answer:?}"));
                }
                let answer = call(&land, &prod, &all);
                if denied(&answer) {
                    wrong.push(format!("{name}: who operates every environment is refused: {answer:?}"));
                }
            }
            Row::NotOperators(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn whoami_says_which_environments_one_operates() {
    let land = Land::new();
    let service = tokens::TokenApi(land.w.authority().clone());
    let who = |path: &str| ok(land.w.run(service.whoami(ask(&land.w.admin(path), pb::WhoamiRequest {}))));
    let operates = |answer: &pb::WhoamiResponse| answer.operates.iter().map(|o| o.environment.clone()).collect::<Vec<_>>();
    let one = who("/operator/prod");
    assert!(one.operator);
    // The test's own environment names all callers under /operator.
    assert_eq!(operates(&one), ["dev", "prod"]);
    assert!(one.operates[1].actions.contains(&"Revoke".to_owned()), "{one:?}");
    let agent = who("/prod/agent-1");
    assert!(!agent.operator && operates(&agent).is_empty());
}

#[test]
fn an_environment_that_was_taken_out_of_the_configuration_is_not_served() {
    let land = Land::of(World { house: house_serving(&["dev", "prod"]), runtime: runtime() });
    let w = &land.w;
    let names_the_setting = |no: &Error| {
        let Error::Refusal(no) = no else { panic!("{no}") };
        assert_eq!(no.reason, Reason::EnvironmentWall, "{no}");
        assert!(no.message.contains("stage is not in server.environments"), "{no}");
        assert_eq!(no.rule.as_deref(), Some("server.environments"));
    };
    land.things("prod");
    // Nothing is issued, and no task is opened.
    let agent = w.house.caller("/stage/agent");
    let upstreams = vec![("echo-stage".to_owned(), vec!["echo:read".to_owned()])];
    let terms = mayfly::policy::exchange_request::TaskRequest { upstreams, ..terms() };
    let mut want = wanted(TaskChoice::Inline(terms.clone().into()));
    want.upstream = "echo-stage".into();
    names_the_setting(&w.run(w.authority().exchange(&agent, &want)).map(drop).unwrap_err());
    let opened = w.run(w.authority().open_task(&agent, &terms, &None, mayfly::openings::OpenTaskOptions::default()));
    names_the_setting(&opened.map(drop).unwrap_err());
    // An approval requested before is not given.
    let mary = format!("spiffe://{DOMAIN}/stage/mary");
    land.commit(vec![Event::ApprovalAsked(Box::new(ApprovalRequested {
        approval: vec![9; 16],
        digest: vec![8; 32],
        caller: format!("spiffe://{DOMAIN}/stage/agent"),
        expires_at: w.house.now().plus(60_000).0,
        of: ApprovalKind::Exchange as i32,
        environment: "stage".into(),
        upstream: "echo-stage".into(),
        upstream_version: 1,
        scopes: vec!["echo:read".into()],
        approvers: vec![Principal { issuer: DOMAIN.into(), sub: mary }],
        ..ApprovalRequested::default()
    }))]);
    let request = pb::DecideApprovalRequest {
        approval_id: mayfly::seq::ApprovalId::from_bytes([9; 16]).to_string(),
        request_sha256: vec![8; 32].into(),
        decision: pb::ApprovalDecision::Give.into(),
        reason: "yes".into(),
        ..Default::default()
    };
    let service = approval::ApprovalApi(w.authority().clone());
    let no = refused(w.run(service.decide_approval(ask(&w.admin("/stage/mary"), request))), Reason::EnvironmentWall);
    assert!(no.message().contains("server.environments"), "{no}");
    // The status reports the environment, and its operators can still inspect and revoke.
    let status =
        ok(w.run(server::ServerApi(w.authority().clone()).get_status(ask(&w.admin("/operator/stage"), pb::GetStatusRequest {}))));
    assert_eq!((status.environments, status.environments_not_served), (vec!["dev".to_owned()], vec!["stage".to_owned()]));
    assert!(status.warnings.iter().any(|warning| warning.contains("mayfly revoke --environment stage")), "{:?}", status.warnings);
    let all = revoke(&[Target::Environment("stage".into())], true);
    ok(w.run(revocation::RevocationApi(w.authority().clone()).revoke(ask(&w.admin("/operator/stage"), all))));
    // Nothing can be registered in it either.
    let upstreams = upstream::UpstreamApi(w.authority().clone());
    let get = upstreams.get_upstream(ask(&ROOT, pb::GetUpstreamRequest { upstream: "echo-stage".into() }));
    let upstream = ok(w.run(get)).upstream.map(|u| pb::Upstream { purpose: "another one".into(), ..u });
    bad(
        w.run(upstreams.set_upstream(ask(&ROOT, pb::SetUpstreamRequest { upstream, ..Default::default() }))),
        "upstream.environment",
    );
}

#[test]
fn a_revocation_that_leaves_a_lock_takes_the_right_to_lock() {
    let land = Land::new();
    let w = &land.w;
    let roles = format!(
        "[role.agent]\nunder = ['spiffe://{DOMAIN}/prod']\n[role.revoker]\nids = ['spiffe://{DOMAIN}/operator/revoker']\n\
         [environment.prod]\nunder = ['spiffe://{DOMAIN}/prod']\n"
    );
    let policy = format!(
        "{POLICY}\n@id(\"revokes\") permit (principal in Role::\"revoker\", action in [Action::\"Revoke\", Action::\"Observe\"], resource);\n"
    )
    .replace("@id(\"operators\") permit (principal in Role::\"operator\", action in Action::\"Admin\", resource);", "");
    let set = PolicySet::compile(vec![SourceFile::new("policy.cedar", policy)], SourceFile::new("roles.toml", roles)).unwrap();
    land.commit(vec![Event::PolicySet(PolicyRecord {
        environment: "prod".into(),
        version: 2,
        digest: set.digest().to_vec(),
        text: set.to_text().to_owned(),
        ..PolicyRecord::default()
    })]);
    let service = revocation::RevocationApi(w.authority().clone());
    let who = w.admin("/operator/revoker");
    let t = land.things("prod");
    let of_agent = [Target::UpstreamScope(t.upstream.as_str().into(), "echo:read".into())];
    let no = refused(w.run(service.revoke(ask(&who, revoke(&of_agent, false)))), Reason::DeniedByPolicy);
    assert!(no.message().contains("may not Lock in prod") && no.message().contains("nothing was revoked"), "{no}");
    let info = no.get_details_error_info().unwrap();
    assert!(info.metadata["way_out"].contains("--issued-only"), "{info:?}");
    let held = || w.authority().ledger.peek(|s| s.rules.get(&of_agent[0]));
    assert!(held().is_none(), "nothing was done");
    let done = ok(w.run(service.revoke(ask(&who, revoke(&of_agent, true)))));
    assert!(done.locks.is_empty() && done.hits.unwrap().credentials == 1, "{done:?}");
    assert!(held().is_some_and(|entry| entry.lock.is_none()));
    // For a target that cannot be locked, no permission to lock is needed.
    ok(w.run(service.revoke(ask(&who, revoke(&[Target::Credential(t.credential.parse().unwrap())], false)))));
    refused(w.run(service.add_lock(ask(&who, lock(&of_agent)))), Reason::DeniedByPolicy);
}

/// The answers to an operator of all calls that name an environment.
fn told_of(land: &Land, who: &Peer, name: &str) -> Vec<String> {
    let w = &land.w;
    let (policies, keys) = (policy::PolicyApi(w.authority().clone()), key::KeyApi(w.authority().clone()));
    let (rules, tasks) = (revocation::RevocationApi(w.authority().clone()), task::TaskApi(w.authority().clone()));
    let (upstreams, credentials) =
        (upstream::UpstreamApi(w.authority().clone()), credential::CredentialApi(w.authority().clone()));
    let set = || Some(pb::PolicySource { from: Some(pb::policy_source::From::InForce(true)) });
    let target = || vec![target_to_pb(&Target::Environment(name.into()))];
    let environment = || name.to_owned();
    let reason = || "a test".to_owned();
    let purpose = pb::KeyPurpose::AccessToken.into();
    let filter = pb::CredentialFilter { environment: environment(), ..Default::default() };
    macro_rules! told {
        ($($api:ident.$call:ident($ask:expr)),+ $(,)?) => {vec![$({
            let no = w.run($api.$call(ask(who, $ask))).map(drop).expect_err(stringify!($call));
            let info = no.get_details_error_info().unwrap();
            let mut more: Vec<(String, String)> = info.metadata.into_iter().collect();
            more.sort();
            format!("{}: {:?} {} {} {more:?}", stringify!($call), no.code(), info.reason, no.message())
        }),+]};
    }
    told![
        policies.get_policy(pb::GetPolicyRequest { environment: environment(), ..Default::default() }),
        policies.validate_policy(pb::ValidatePolicyRequest { environment: environment(), set: set() }),
        policies.diff_policy(pb::DiffPolicyRequest { environment: environment(), set: set(), since: None }),
        policies.set_policy(pb::SetPolicyRequest {
            environment: environment(),
            set: set(),
            reason: reason(),
            ..Default::default()
        }),
        keys.rotate_key(pb::RotateKeyRequest { purpose, environment: environment(), ..Default::default() }),
        keys.list_keys(pb::ListKeysRequest { issuer: w.authority().decider.issuer_of(name), ..Default::default() }),
        rules.revoke(revoke(&[Target::Environment(name.into())], true)),
        rules.revoke(pb::RevokeRequest { dry_run: true, ..revoke(&[Target::Environment(name.into())], true) }),
        rules.blast_radius(pb::BlastRadiusRequest { targets: target(), most: 0 }),
        rules.add_lock(lock(&[Target::Environment(name.into())])),
        rules.list_locks(pb::ListLocksRequest { target: target().pop(), ..Default::default() }),
        rules.list_rules(pb::ListRulesRequest { target: target().pop(), ..Default::default() }),
        tasks.list_tasks(pb::ListTasksRequest { environment: environment(), ..Default::default() }),
        upstreams.list_upstreams(pb::ListUpstreamsRequest { environment: environment(), ..Default::default() }),
        credentials.list_credentials(pb::ListCredentialsRequest { filter: Some(filter.clone()), ..Default::default() }),
    ]
}

#[test]
fn who_has_no_right_anywhere_does_not_learn_which_environments_exist() {
    let land = Land::new();
    let nobody = land.w.admin("/nobody");
    let (there, missing) = (told_of(&land, &nobody, "prod"), told_of(&land, &nobody, "nosuch"));
    assert_eq!(there, missing);
    for told in &there {
        assert!(told.contains("DENIED_BY_POLICY") && told.contains("the policy set of no environment permits it"), "{told}");
        assert!(!["dev", "prod", "stage", "nosuch"].iter().any(|name| told.contains(&format!(" {name}"))), "{told}");
    }
    // An operator of some environments is told of those, and of no other that was not named.
    for told in told_of(&land, &land.w.admin("/operator/stage"), "nosuch") {
        assert!(!told.contains("prod"), "{told}");
    }
    let policies = policy::PolicyApi(land.w.authority().clone());
    let show = |who: &str, name: &str| {
        let request = pb::GetPolicyRequest { environment: name.into(), ..Default::default() };
        let no = land.w.run(policies.get_policy(ask(&land.w.admin(who), request))).map(drop).unwrap_err();
        let way_out = no.get_details_error_info().unwrap().metadata["way_out"].clone();
        (no.message().to_owned(), way_out)
    };
    let (message, way_out) = show("/operator/stage", "nosuch");
    assert!(message.contains("there is no environment nosuch") && way_out == "name one of: dev, stage", "{message} {way_out}");
    let (message, way_out) = show("/operator/stage", "prod");
    assert!(
        message.contains("may not Observe in prod") && way_out.contains("your rights are in: dev, stage;"),
        "{message} {way_out}"
    );
}

/// A list that is empty because its environment was mistyped is none.
#[test]
fn lists_of_an_environment_that_does_not_exist_are_refused() {
    let land = Land::new();
    let w = &land.w;
    let rules = revocation::RevocationApi(w.authority().clone());
    let tasks = task::TaskApi(w.authority().clone());
    for who in [ROOT, w.admin("/operator/stage")] {
        let of = |name: &str| Some(target_to_pb(&Target::Environment(name.into())));
        refused(
            w.run(rules.list_locks(ask(&who, pb::ListLocksRequest { target: of("nosuch"), ..Default::default() }))),
            Reason::NotFound,
        );
        refused(
            w.run(rules.list_rules(ask(&who, pb::ListRulesRequest { target: of("nosuch"), ..Default::default() }))),
            Reason::NotFound,
        );
        let ask_tasks = |name: &str| pb::ListTasksRequest { environment: name.into(), ..Default::default() };
        refused(w.run(tasks.list_tasks(ask(&who, ask_tasks("nosuch")))), Reason::NotFound);
        assert!(
            ok(w.run(rules.list_locks(ask(&who, pb::ListLocksRequest { target: of("stage"), ..Default::default() }))))
                .locks
                .is_empty()
        );
        ok(w.run(tasks.list_tasks(ask(&who, ask_tasks("stage")))));
    }
    // A lock that was added by force is listed.
    let forced = pb::AddLockRequest { force: true, ..lock(&[Target::Environment("nosuch".into())]) };
    ok(w.run(rules.add_lock(ask(&ROOT, forced))));
    let target = Some(target_to_pb(&Target::Environment("nosuch".into())));
    let locks = ok(w.run(rules.list_locks(ask(&ROOT, pb::ListLocksRequest { target, ..Default::default() })))).locks;
    assert_eq!(locks.len(), 1);
}

#[test]
fn the_uid_of_users_whom_nobody_knows_is_no_operator() {
    let land = Land::new();
    let service = server::ServerApi(land.w.authority().clone());
    let status = land.w.run(service.get_status(ask(&Peer::Local(limits::OVERFLOW_UID), pb::GetStatusRequest {})));
    let no = refused(status, Reason::DeniedByPolicy);
    assert!(no.message().contains("identifies nobody"), "{no}");
    assert!(!no.get_details_error_info().unwrap().metadata["way_out"].contains("admin.uids"), "it is no use to admit it");
}

#[test]
fn a_task_names_no_callers_of_other_environments() {
    let land = Land::new();
    let w = &land.w;
    let agent = w.house.caller("/prod/agent");
    let open = |callers: &[&str], delegate| {
        let callers = callers.iter().map(|path| format!("spiffe://{path}")).collect();
        let upstreams = vec![("echo-prod".to_owned(), vec!["echo:read".to_owned()])];
        let terms = mayfly::policy::exchange_request::TaskRequest { upstreams, callers, ..terms() };
        let how = mayfly::openings::OpenTaskOptions { delegate, ..Default::default() };
        w.run(w.authority().open_task(&agent, &terms, &None, how))
    };
    let prod = format!("{DOMAIN}/prod/other");
    for outside in [format!("{DOMAIN}/stage/agent"), "other.example/prod/agent".to_owned(), format!("{DOMAIN}/operator/prod")] {
        for (callers, delegate) in
            [(vec![outside.as_str()], false), (vec![prod.as_str(), outside.as_str()], false), (vec![outside.as_str()], true)]
        {
            let Err(Error::Refusal(no)) = open(&callers, delegate) else { panic!("{callers:?}") };
            assert_eq!(no.reason, Reason::EnvironmentWall, "{no}");
            assert!(no.message.contains(&outside), "{no}");
        }
    }
    open(&[&prod], false).unwrap();
    ok(w.run(
        revocation::RevocationApi(w.authority().clone())
            .add_lock(ask(&ROOT, lock(&[Target::Caller(format!("spiffe://{prod}").as_str().into())]))),
    ));
    let Err(Error::Refusal(no)) = open(&[&prod], false) else { panic!("it is locked out") };
    assert_eq!(no.reason, Reason::Locked, "{no}");
}
