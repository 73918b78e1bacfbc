//! Changes of the registry by operators: what is refused, what a change revokes, and the findings for an auditor.

use mayfly::cli::dev::DevSettings;
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, Event, Record, UpstreamUpdated};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::approval_service_client::ApprovalServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::pb::mayfly::v1::upstream_service_client::UpstreamServiceClient;
use mayfly::upstream::registry::Upstream;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::kit::{Up, reason};
use crate::policy_rig::approval_of;

struct Rig {
    up: Up,
}

impl Rig {
    fn new() -> Rig {
        Rig { up: Up::new(DevSettings::default()) }
    }

    async fn upstreams(&self) -> UpstreamServiceClient<Channel> {
        UpstreamServiceClient::new(self.up.world.channel("operator/you", self.up.admin()).await.unwrap())
    }

    async fn get(&self, name: &str) -> pb::Upstream {
        let request = pb::GetUpstreamRequest { upstream: name.into() };
        self.upstreams().await.get_upstream(request).await.unwrap().into_inner().upstream.unwrap()
    }

    async fn set(&self, upstream: pb::Upstream, confirm: bool) -> Result<pb::SetUpstreamResponse, Status> {
        let confirmation = confirm.then_some(pb::Confirmation { credentials: 0, all: true });
        let request = pb::SetUpstreamRequest { upstream: Some(upstream), confirmation, ..Default::default() };
        self.upstreams().await.set_upstream(request).await.map(tonic::Response::into_inner)
    }

    /// Makes a change that gives more, requested by one operator and approved by another. Returns the number of revoked credentials.
    async fn with_colleague(&self, upstream: pb::Upstream) -> u64 {
        let id = approval_of(&self.set(upstream, true).await.unwrap_err());
        let mut approvals =
            ApprovalServiceClient::new(self.up.world.channel("operator/colleague", self.up.admin()).await.unwrap());
        let shown = approvals.get_approval(pb::GetApprovalRequest { approval_id: id.clone() }).await.unwrap().into_inner();
        let give = pb::DecideApprovalRequest {
            approval_id: id,
            request_sha256: shown.approval.unwrap().request_sha256,
            decision: pb::ApprovalDecision::Give.into(),
            reason: "looked at it".into(),
            confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
            ..Default::default()
        };
        approvals.decide_approval(give).await.unwrap().into_inner().hits.unwrap().credentials
    }

    async fn dry_run(&self, upstream: pb::Upstream) -> Result<pb::SetUpstreamResponse, Status> {
        let request = pb::SetUpstreamRequest { upstream: Some(upstream), dry_run: true, ..Default::default() };
        self.upstreams().await.set_upstream(request).await.map(tonic::Response::into_inner)
    }

    async fn state(&self, name: &str, state: pb::RegistrationState) -> Result<pb::SetUpstreamStateResponse, Status> {
        let request = pb::SetUpstreamStateRequest {
            upstream: name.into(),
            state: state.into(),
            reason: "test".into(),
            confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
            ..Default::default()
        };
        self.upstreams().await.set_upstream_state(request).await.map(tonic::Response::into_inner)
    }

    /// A credential of agent/demo for the echo upstream, in an inline task.
    async fn exchange(&self, scope: &str, ttl_s: i64) -> Result<pb::Issued, Status> {
        let channel = self.up.channel("agent/demo").await;
        let terms = pb::TaskTerms {
            purpose: "test".into(),
            upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec![scope.into()] }],
            ..Default::default()
        };
        let request = pb::ExchangeRequest {
            task: Some(pb::exchange_request::Task::OpenTask(terms)),
            upstream: "echo".into(),
            scopes: vec![scope.into()],
            ttl: Some(prost_types::Duration { seconds: ttl_s, nanos: 0 }),
            purpose: "test".into(),
            ..Default::default()
        };
        TokenServiceClient::new(channel).exchange(request).await.map(|r| r.into_inner().issued.unwrap())
    }

    /// Whether a credential is active, as introspection tells the echo service.
    async fn good(&self, issued: &pb::Issued) -> bool {
        let Some(pb::issued::Answer::BearerToken(bearer)) = &issued.answer else { panic!("no bearer token") };
        let request = pb::IntrospectRequest { token: bearer.token.clone() };
        let mut service = TokenServiceClient::new(self.up.channel("service/echo").await);
        service.introspect(request).await.unwrap().into_inner().active
    }
}

/// A registration in addition to the samples.
fn another(of: pb::Upstream, name: &str) -> pb::Upstream {
    pb::Upstream {
        upstream: name.into(),
        version: 0,
        audience: format!("https://{name}.example"),
        base_url: format!("https://{name}.example"),
        ..of
    }
}

fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    details.bad_request().map_or_else(Vec::new, |b| b.field_violations.iter().map(|v| v.field.clone()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_registered_changed_disabled_enabled_and_retired() {
    let rig = Rig::new();
    let new = another(rig.get("echo").await, "wiki");
    let would = rig.dry_run(new.clone()).await.unwrap().upstream.unwrap();
    assert_eq!((would.version, would.seq), (1, 0));
    let none = pb::GetUpstreamRequest { upstream: "wiki".into() };
    assert_eq!(reason(&rig.upstreams().await.get_upstream(none).await.unwrap_err()), "NOT_FOUND", "a dry run does nothing");
    let made = rig.set(new.clone(), false).await.unwrap().upstream.unwrap();
    assert_eq!((made.version, made.state()), (1, pb::RegistrationState::Active));
    assert!(made.seq > 0 && made.author.is_some());
    assert_eq!(reason(&rig.set(new.clone(), false).await.unwrap_err()), "ALREADY_EXISTS");
    let changed = pb::Upstream { purpose: "another".into(), ..made.clone() };
    let changed = rig.set(changed, false).await.unwrap().upstream.unwrap();
    assert_eq!((changed.version, changed.purpose.as_str()), (2, "another"));
    let stale = pb::Upstream { purpose: "a third".into(), ..made };
    assert_eq!(reason(&rig.set(stale, false).await.unwrap_err()), "DECIDED_ON_OLD_STATE");
    let same = rig.set(changed.clone(), false).await.unwrap().upstream.unwrap();
    assert_eq!(same.version, 2, "what changes nothing is no version");
    for (state, version) in
        [(pb::RegistrationState::Disabled, 3), (pb::RegistrationState::Active, 4), (pb::RegistrationState::Retired, 5)]
    {
        let upstream = rig.state("wiki", state).await.unwrap().upstream.unwrap();
        assert_eq!((upstream.version, upstream.state()), (version, state));
    }
    assert_eq!(reason(&rig.state("wiki", pb::RegistrationState::Active).await.unwrap_err()), "UPSTREAM_NOT_ACTIVE");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lacks_something_is_refused_with_all_that_is_missing() {
    let rig = Rig::new();
    let bare = pb::Upstream { upstream: "wiki".into(), owner: "you".into(), ..Default::default() };
    let no = rig.set(bare, false).await.unwrap_err();
    assert_eq!(reason(&no), "INVALID_FIELD");
    let missing = fields(&no);
    for field in ["purpose", "environment", "classification", "servers", "approvers", "kinds", "scopes", "min_ttl", "expires_at"]
    {
        // An empty list of approvers is valid.
        let there = missing.contains(&format!("upstream.{field}"));
        assert_eq!(there, field != "approvers", "{field}: {missing:?}");
    }
    let past = pb::Upstream {
        expires_at: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        environment: "nowhere".into(),
        ..another(rig.get("echo").await, "wiki")
    };
    assert_eq!(fields(&rig.set(past, false).await.unwrap_err()), ["upstream.environment", "upstream.expires_at"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_registrations_of_one_target_are_refused() {
    let rig = Rig::new();
    let echo = rig.get("echo").await;
    for (field, clash) in [
        ("target", pb::Upstream { base_url: "HTTP://127.0.0.1:7780/".into(), ..another(echo.clone(), "wiki") }),
        ("audience", pb::Upstream { audience: echo.audience.clone(), ..another(echo.clone(), "wiki") }),
    ] {
        for no in [rig.dry_run(clash.clone()).await.unwrap_err(), rig.set(clash.clone(), false).await.unwrap_err()] {
            assert_eq!(reason(&no), "ALREADY_EXISTS");
            assert!(no.message().contains(field) && no.message().contains("echo"), "{}", no.message());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrower_registration_revokes_what_it_would_refuse_and_nothing_else() {
    let rig = Rig::new();
    let (reads, writes, long) = (
        rig.exchange("echo:read", 60).await.unwrap(),
        rig.exchange("echo:write", 60).await.unwrap(),
        rig.exchange("echo:read", 900).await.unwrap(),
    );
    let echo = rig.get("echo").await;
    assert_eq!(echo.live_credentials, 3);
    // A scope is removed: one revocation rule, regardless of the number of credentials.
    let fewer =
        pb::Upstream { scopes: echo.scopes.iter().filter(|s| s.scope != "echo:write").cloned().collect(), ..echo.clone() };
    let would = rig.dry_run(fewer.clone()).await.unwrap();
    assert_eq!((would.hits.unwrap().credentials, would.beyond), (1, 0));
    assert!(rig.good(&writes).await);
    let done = rig.set(fewer, false).await.unwrap();
    assert_eq!(done.hits.unwrap().credentials, 1);
    assert_eq!((rig.good(&reads).await, rig.good(&writes).await, rig.good(&long).await), (true, false, true));
    // Shorter maximum TTL: credentials that live longer are revoked, each by its own target.
    let shorter = pb::Upstream { max_ttl: Some(prost_types::Duration { seconds: 300, nanos: 0 }), ..done.upstream.unwrap() };
    let done = rig.set(shorter, false).await.unwrap();
    assert_eq!((done.hits.unwrap().credentials, done.beyond), (1, 0));
    assert_eq!((rig.good(&reads).await, rig.good(&long).await), (true, false));
    // The credential can be requested again, with a shorter TTL.
    let again = rig.exchange("echo:read", 60).await.unwrap();
    assert!(rig.good(&again).await);
    // Another audience: all existing credentials are for the wrong audience.
    let moved = pb::Upstream { audience: "https://moved.example".into(), ..done.upstream.unwrap() };
    assert_eq!(reason(&rig.set(moved.clone(), false).await.unwrap_err()), "CONFIRM_NEEDED");
    assert!(rig.good(&reads).await, "what was not confirmed did nothing");
    assert_eq!(rig.with_colleague(moved).await, 2);
    assert_eq!((rig.good(&reads).await, rig.good(&again).await), (false, false));
    assert!(rig.good(&rig.exchange("echo:read", 60).await.unwrap()).await, "nothing is locked");
    // A wider registration revokes nothing.
    let wider = pb::Upstream { max_ttl: Some(prost_types::Duration { seconds: 600, nanos: 0 }), ..rig.get("echo").await };
    assert_eq!(rig.with_colleague(wider).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn narrowing_that_a_stop_cut_short_goes_on() {
    let rig = Rig::new();
    let authority = rig.up.running().authority().clone();
    let early = rig.exchange("echo:read", 900).await.unwrap();
    let looked = authority.ledger.durable();
    let late = rig.exchange("echo:read", 900).await.unwrap();
    // The state that a server leaves when it is killed between the change and the second search.
    let text = authority.ledger.peek(|s| s.upstreams["echo"].text.clone());
    let mut shorter = Upstream::from_text(&text).unwrap();
    shorter.ttl.max = 300;
    let set = UpstreamUpdated {
        name: "echo".into(),
        version: 2,
        digest: shorter.digest().to_vec(),
        text: shorter.to_text(),
        looked: looked.as_u64(),
        ..UpstreamUpdated::default()
    };
    authority.ledger.commit(ProposalKind::Change, vec![Record::new(Author::LocalUid(0), Event::UpstreamSet(set))]).await.unwrap();
    assert!(rig.good(&late).await);
    authority.finish_narrowings().await.unwrap();
    assert_eq!((rig.good(&early).await, rig.good(&late).await), (true, false), "what the first look saw was its to revoke");
    assert!(authority.ledger.peek(|s| s.narrowing().is_empty()));
    let head = authority.ledger.durable();
    authority.finish_narrowings().await.unwrap();
    assert_eq!(authority.ledger.durable(), head, "it is done once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policy_no_longer_permits_by_a_registration_is_revoked_with_it() {
    let rig = Rig::new();
    let held = rig.exchange("echo:read", 60).await.unwrap();
    // The sample policy permits agents only scopes that are not sensitive.
    let echo = rig.get("echo").await;
    let scopes = echo.scopes.iter().map(|s| pb::UpstreamScope { sensitive: true, ..s.clone() }).collect();
    let stricter = pb::Upstream { scopes, ..echo };
    let done = rig.set(stricter, false).await.unwrap();
    assert_eq!((done.hits.unwrap().credentials, done.beyond), (1, 0));
    assert!(!rig.good(&held).await);
}

/// The command line, as one of the operators, in the world's directory.
fn mayfly(up: &Up, who: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let context = up.world.write_context(who, up.admin()).unwrap();
    let mut command = std::process::Command::new(crate::kit::MAYFLY);
    let out = command.arg("--config").arg(context).args(args).current_dir(up.world.dir()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

/// Two operators take the same version as a file. The change of the second must not undo that of the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_an_older_version_does_not_undo_the_change_of_a_colleague() {
    let rig = Rig::new();
    let run = |who: &str, args: &[&str]| tokio::task::block_in_place(|| mayfly(&rig.up, who, args));
    let (exit, file, said) = run("operator/you", &["upstream", "show", "echo", "--file"]);
    assert!(exit == Some(0) && file.starts_with("# version 1\n"), "{file}{said}");
    let path = rig.up.world.dir().join("mine.toml");
    let purpose = |text: &str, to: &str| -> String {
        let line = |l: &str| if l.starts_with("purpose = ") { format!("purpose = \"{to}\"\n") } else { format!("{l}\n") };
        text.lines().map(line).collect()
    };
    std::fs::write(rig.up.world.dir().join("theirs.toml"), purpose(&file, "theirs")).unwrap();
    let (exit, _, said) = run("operator/colleague", &["upstream", "change", "theirs.toml"]);
    assert_eq!(exit, Some(0), "{said}");
    assert_eq!(rig.get("echo").await.version, 2);

    std::fs::write(&path, purpose(&file, "mine")).unwrap();
    for more in [&[][..], &["--dry-run"], &["--version", "1"]] {
        let (exit, _, said) = run("operator/you", &[&["upstream", "change", "mine.toml"], more].concat());
        assert_eq!(exit, Some(8), "{more:?}: {said}");
        assert!(said.contains("[DECIDED_ON_OLD_STATE]") && said.contains("mayfly upstream show echo --file"), "{said}");
    }
    let (exit, _, said) = run("operator/you", &["upstream", "change", "mine.toml", "--version", "2"]);
    assert!(exit == Some(2) && said.contains("based on version 1, and --version says 2"), "{said}");
    assert_eq!(rig.get("echo").await.purpose, "theirs");

    // The present file, with the same change.
    let (_, file, _) = run("operator/you", &["upstream", "show", "echo", "--file"]);
    std::fs::write(&path, purpose(&file, "mine")).unwrap();
    let (exit, _, said) = run("operator/you", &["upstream", "change", "mine.toml"]);
    assert_eq!(exit, Some(0), "{said}");
    assert_eq!((rig.get("echo").await.version, rig.get("echo").await.purpose.as_str()), (3, "mine"));
    // Without the line the version in effect counts, as before.
    let without: String = purpose(&file, "again").lines().skip(1).map(|l| format!("{l}\n")).collect();
    std::fs::write(&path, without).unwrap();
    assert_eq!(run("operator/you", &["upstream", "change", "mine.toml"]).0, Some(0));
}

/// An operator's command that was sent to the port of workloads, and a request id that nobody used.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_at_the_wrong_listener_and_an_unknown_request_say_so() {
    let rig = Rig::new();
    let context = rig.up.world.write_context("operator/you", rig.up.workload()).unwrap();
    let run = |context: &std::path::Path, args: &[&str]| {
        let mut command = std::process::Command::new(crate::kit::MAYFLY);
        let out = tokio::task::block_in_place(|| command.arg("--config").arg(context).args(args).output().unwrap());
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    for args in [&["status"][..], &["policy", "show", "dev"], &["revoke", "--everything", "--reason", "test", "--confirm", "all"]]
    {
        let (exit, said) = run(&context, args);
        assert_ne!(exit, Some(0));
        assert!(said.contains("this address is the workload listener") && said.contains("listen.admin"), "{args:?}: {said}");
        assert!(!said.contains("this version"), "{args:?}: {said}");
    }
    // An operator who was refused something has refusals on record.
    let admin = rig.up.world.write_context("operator/you", rig.up.admin()).unwrap();
    assert_ne!(run(&admin, &["task", "hold", "task_aaaaaaaaaaaaaaaaaaaaaaaaaa", "--reason", "x"]).0, Some(0));
    let (exit, said) = run(&admin, &["explain", "--request-id", "nope"]);
    assert_eq!(exit, Some(3), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn disabling_revokes_and_stops_and_enabling_brings_nothing_back() {
    let rig = Rig::new();
    let held = rig.exchange("echo:read", 60).await.unwrap();
    let done = rig.state("echo", pb::RegistrationState::Disabled).await.unwrap();
    assert_eq!(done.hits.unwrap().credentials, 1);
    assert!(!rig.good(&held).await);
    assert_eq!(reason(&rig.exchange("echo:read", 60).await.unwrap_err()), "UPSTREAM_NOT_ACTIVE");
    rig.state("echo", pb::RegistrationState::Active).await.unwrap();
    assert!(!rig.good(&held).await);
    assert!(rig.good(&rig.exchange("echo:read", 60).await.unwrap()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_left_stops_what_it_owned_until_somebody_takes_over() {
    let rig = Rig::new();
    let held = rig.exchange("echo:read", 60).await.unwrap();
    let leave = pb::OffboardRequest {
        owner: "you".into(),
        reason: "gone".into(),
        confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
        request_id: "leave-1".into(),
        ..Default::default()
    };
    let mut upstreams = rig.upstreams().await;
    let left = upstreams.offboard(leave.clone()).await.unwrap().into_inner();
    assert_eq!(
        (left.upstreams.clone(), left.hits.unwrap().credentials),
        (vec!["echo".into(), "repos".into(), "tickets".into()], 1)
    );
    let again = upstreams.offboard(leave).await.unwrap().into_inner();
    assert_eq!((again.seq, again.hits.unwrap().credentials), (left.seq, 1), "a repeat is answered like the first");
    assert!(!rig.good(&held).await);
    let no = rig.exchange("echo:read", 60).await.unwrap_err();
    assert_eq!(reason(&no), "UPSTREAM_NOT_ACTIVE");
    assert!(no.message().contains("you, has left"), "{}", no.message());
    let echo = rig.get("echo").await;
    let problems: Vec<_> = echo.findings.iter().map(pb::RegistrationFinding::problem).collect();
    assert!(problems.contains(&pb::RegistrationProblem::Ownerless), "{problems:?}");
    let status =
        pb::server_service_client::ServerServiceClient::new(rig.up.world.channel("operator/you", rig.up.admin()).await.unwrap())
            .get_status(pb::GetStatusRequest {})
            .await
            .unwrap()
            .into_inner();
    assert_eq!(status.warnings.len(), 3, "{:?}", status.warnings);
    rig.set(pb::Upstream { owner: "ada".into(), ..echo }, false).await.unwrap();
    rig.exchange("echo:read", 60).await.unwrap();
    let back = pb::ReturnOwnerRequest { owner: "you".into(), reason: "back".into(), ..Default::default() };
    let back = upstreams.return_owner(back).await.unwrap().into_inner();
    assert_eq!(back.upstreams, ["repos", "tickets"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_change_nothing_and_are_told_no_findings() {
    let rig = Rig::new();
    let echo = rig.get("echo").await;
    let mut agent = UpstreamServiceClient::new(rig.up.channel("agent/demo").await);
    let request = pb::SetUpstreamRequest { upstream: Some(another(echo, "wiki")), ..Default::default() };
    assert_eq!(reason(&agent.set_upstream(request).await.unwrap_err()), "NOT_AUTHENTICATED");
    let seen = agent.get_upstream(pb::GetUpstreamRequest { upstream: "echo".into() }).await.unwrap().into_inner();
    let seen = seen.upstream.unwrap();
    assert!(seen.findings.is_empty() && seen.live_credentials == 0);
}
