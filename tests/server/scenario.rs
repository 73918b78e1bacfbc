//! One day of governance, readable for a security reviewer: two teams' servers in two environments, an agent and its sub-agent, an export
//! that a named person approves with a second factor, a use beyond the declared intent, a binding that is narrowed, a break-glass and its
//! review, an owner who leaves, and an audit that shows all of it without access to a server.

mod audit;
mod glass;

use std::process::Command;
use std::time::Duration;

use mayfly::cli::dev::{DevEngine, DevWorld};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::approval_service_client::ApprovalServiceClient;
use mayfly::pb::mayfly::v1::audit_service_client::AuditServiceClient;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::pb::mayfly::v1::upstream_service_client::UpstreamServiceClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::kit::{MAYFLY, PATIENCE, reason};
use crate::people_rig::{Person, Rig, no_change, second_factor};
use crate::policy_rig::approval_of;
use crate::receiver::{Receiver, hook};

const AGENT: &str = "agent/demo";
/// The sub-agent: the MCP server of the team in dev.
const DEV_SERVER: &str = "mcp/echo";
/// The same program, run by the team in prod.
const PROD_SERVER: &str = "mcp/repos";
/// A server of the upstream.
const SERVICE: &str = "service/echo";
const OPERATOR: &str = "operator/you";

/// The reviewer's requirements: tools of MCP servers need bindings, prod has its own server, uses match the declared intent.
const POLICY: &str = r#"
@id("tools-are-bound")
forbid (principal in Role::"mcp", action == Action::"Exchange", resource == Upstream::"echo")
when { context has tool } unless { context has binding };

@id("agents-hand-on")
permit (principal in Role::"agent", action == Action::"DelegateTask", resource == Upstream::"echo");

@id("prod-has-its-own-server")
permit (principal == Workload::"spiffe://dev.mayfly.internal/mcp/repos", action in Action::"Work", resource in Environment::"prod");

@id("uses") permit (principal, action == Action::"Use", resource);
@id("only-declared-tools") forbid (principal, action == Action::"Use", resource) unless { context.declared };
"#;

/// The world of two environments. The webhook `pager` receives urgent events.
fn world(world: &DevWorld, pager: &Receiver) {
    let edit = |path: &str, change: &dyn Fn(String) -> String| {
        let path = world.dir().join(path);
        std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
    };
    let echo = std::fs::read_to_string(world.dir().join("policy/upstreams/echo.toml")).unwrap();
    let issuer = echo.split("{ issuer = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    edit("policy/policy.cedar", &|text| text + POLICY + glass::POLICY);
    edit("policy/roles.toml", &|text| {
        text + "\n[environment.prod]\nids = [\"spiffe://dev.mayfly.internal/mcp/repos\"]\n"
            + &glass::RIGHTS.replace("ISSUER", issuer)
    });
    edit("policy/upstreams/tickets.toml", &|text| text.replace("service/tickets", SERVICE));
    edit("mayfly.toml", &|text| {
        let text = text.replace("environments = [\"dev\"]", "environments = [\"dev\", \"prod\"]");
        text.replace("[listen]\n", "[listen]\nmetrics = \"127.0.0.1:0\"\n")
    });
    hook(world.dir(), "pager", pager.address, "events = [\"break_glass.*\"]");
    let prod = echo.replace("\"echo\"", "\"echo-prod\"").replace("environment = \"dev\"", "environment = \"prod\"");
    let prod = prod.replace("https://echo.dev", "https://echo.prod").replace("127.0.0.1:7780", "127.0.0.1:7781");
    std::fs::write(world.dir().join("policy/upstreams/echo-prod.toml"), prod).unwrap();
}

struct Story(Rig);

impl Story {
    async fn channel(&self, who: &str) -> Channel {
        let addresses = self.0.running().addresses();
        let at = if who == OPERATOR { addresses.admin } else { addresses.workload };
        self.0.world.channel(who, at).await.unwrap()
    }

    async fn exchange(&self, who: &str, ask: pb::ExchangeRequest) -> Result<pb::Issued, Status> {
        let mut tokens = TokenServiceClient::new(self.channel(who).await);
        Ok(tokens.exchange(ask).await?.into_inner().issued.unwrap())
    }

    /// A person gives a pending approval, as it was shown to that person.
    async fn give(&self, who: &Person, admin: bool, id: &str) -> Result<(), Status> {
        let mut approvals = ApprovalServiceClient::new(self.0.channel(who, admin).await);
        let shown = approvals.get_approval(pb::GetApprovalRequest { approval_id: id.into() }).await?.into_inner();
        let request = pb::DecideApprovalRequest {
            approval_id: id.into(),
            request_sha256: shown.approval.unwrap().request_sha256,
            decision: pb::ApprovalDecision::Give.into(),
            reason: "looked at it".into(),
            confirmation: admin.then_some(pb::Confirmation { credentials: 0, all: true }),
            ..Default::default()
        };
        approvals.decide_approval(request).await.map(drop)
    }

    async fn bind(&self, version: u64, tools: &[&str]) -> Result<pb::SetBindingResponse, Status> {
        let binding = pb::Binding {
            binding: "dev-tools".into(),
            upstream: "echo".into(),
            callers: vec![format!("spiffe://dev.mayfly.internal/{DEV_SERVER}")],
            tools: tools.iter().map(|t| (*t).to_owned()).collect(),
            scopes: vec!["echo:read".into()],
            version,
            ..Default::default()
        };
        let confirmation = Some(pb::Confirmation { credentials: 0, all: true });
        let request =
            pb::SetBindingRequest { binding: Some(binding), reason: "reviewed".into(), confirmation, ..Default::default() };
        Ok(UpstreamServiceClient::new(self.channel(OPERATOR).await).set_binding(request).await?.into_inner())
    }

    async fn task(&self, id: &str) -> pb::Task {
        let mut tasks = TaskServiceClient::new(self.channel(OPERATOR).await);
        tasks.get_task(pb::GetTaskRequest { task_id: id.into() }).await.unwrap().into_inner().task.unwrap()
    }

    async fn good(&self, issued: &pb::Issued) -> bool {
        let Some(pb::issued::Answer::BearerToken(bearer)) = &issued.answer else { panic!("no bearer token") };
        let request = pb::IntrospectRequest { token: bearer.token.clone() };
        TokenServiceClient::new(self.channel(SERVICE).await).introspect(request).await.unwrap().into_inner().active
    }
}

/// One tool call in a task.
fn call(task: &str, scope: &str, tool: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(task.into())),
        upstream: "echo".into(),
        scopes: vec![scope.into()],
        tool: tool.into(),
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    }
}

/// The export of a table.
fn export(task: &str, table: &str) -> pb::ExchangeRequest {
    let arguments = pb::arguments::Arguments::Json(format!("{{\"table\":\"{table}\"}}"));
    pb::ExchangeRequest { arguments: Some(pb::Arguments { arguments: Some(arguments) }), ..call(task, "echo:admin", "export") }
}

/// A call in an inline task.
fn alone(upstream: &str, scope: &str) -> pb::ExchangeRequest {
    let terms = pb::TaskTerms {
        purpose: "look something up".into(),
        upstreams: vec![pb::Allowance { upstream: upstream.into(), scopes: vec![scope.into()] }],
        ..Default::default()
    };
    pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::OpenTask(terms)),
        upstream: upstream.into(),
        ..call("", scope, "")
    }
}

fn terms(scopes: &[&str], tools: &[&str], parent: &str) -> pb::TaskTerms {
    let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect();
    pb::TaskTerms {
        purpose: "quarterly report".into(),
        upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: texts(scopes) }],
        tools: texts(tools),
        parent_task_id: parent.into(),
        ..Default::default()
    }
}

/// Runs the program with a clean environment. Returns its exit code and output.
fn typed(args: &[&str]) -> (i32, String) {
    let mut command = Command::new(MAYFLY);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
        command.env_remove(name);
    }
    let out = command.args(args).output().unwrap();
    (out.status.code().unwrap(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}

/// Each environment's server serves its own environment, whatever policy says of the other.
async fn environments_are_walls(story: &Story) {
    story.exchange(PROD_SERVER, alone("echo-prod", "echo:read")).await.unwrap();
    for (who, upstream) in [(PROD_SERVER, "echo"), (DEV_SERVER, "echo-prod"), (AGENT, "echo-prod")] {
        let no = story.exchange(who, alone(upstream, "echo:read")).await.unwrap_err();
        assert_eq!(reason(&no), "ENVIRONMENT_WALL", "{who} and {upstream}");
    }
}

/// A binding needs a second operator, who signed in with the high class; then the server's bound tools work, and no other.
async fn tools_are_bound(story: &Story, ada: &Person) {
    let waits = approval_of(&story.bind(0, &["search", "summarize"]).await.unwrap_err());
    let weak = story.0.sign_in("bob", no_change).await;
    assert_eq!(reason(&story.give(&weak, true, &waits).await.unwrap_err()), "DENIED_BY_POLICY", "a password does not do");
    story.give(ada, true, &waits).await.unwrap();
}

/// The export waits for Ada, with her second factor; her approval is valid once, for that table.
async fn an_export_is_approved_by_a_named_person(story: &Story, task: &str, ada: &Person) {
    let waits = approval_of(&story.exchange(AGENT, export(task, "orders")).await.unwrap_err());
    let password = story.0.sign_in("ada", no_change).await;
    assert_eq!(reason(&story.give(&password, false, &waits).await.unwrap_err()), "DENIED_BY_POLICY");
    let stranger = story.0.sign_in("carol", second_factor).await;
    assert_eq!(reason(&story.give(&stranger, false, &waits).await.unwrap_err()), "NOT_FOUND", "nobody named her");
    story.give(ada, false, &waits).await.unwrap();
    let other = story.exchange(AGENT, export(task, "customers")).await.unwrap_err();
    assert_ne!(approval_of(&other), waits, "another table is another question");
    let issued = story.exchange(AGENT, export(task, "orders")).await.unwrap();
    assert_eq!(issued.approval_id, waits);
    assert_ne!(approval_of(&story.exchange(AGENT, export(task, "orders")).await.unwrap_err()), waits, "once");
}

/// The sub-agent's credential is used for something other than the declared intent: its task is held, and the agent's task continues.
async fn a_use_beyond_the_intent_holds_the_task(story: &Story, task: &str, child: &str) {
    let search = story.exchange(DEV_SERVER, call(child, "echo:read", "search")).await.unwrap();
    let now = story.0.running().authority().system.wall();
    let at = mayfly::serve::wire::timestamp(now);
    let used = pb::Use {
        credential_id: search.credential_id.clone(),
        tool: "delete_all".into(),
        outcome: pb::UseOutcome::Accepted.into(),
        at: Some(at),
        count: 1,
    };
    let mut audit = AuditServiceClient::new(story.channel(SERVICE).await);
    let answer = audit.report_use(pb::ReportUseRequest { uses: vec![used] }).await.unwrap().into_inner();
    assert!(answer.problems.is_empty(), "{answer:?}");
    let mut holds = Vec::new();
    for _ in 0..PATIENCE.as_millis() / 50 {
        holds = story.task(child).await.holds;
        if !holds.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(holds[0].reason.contains("tool delete_all, undeclared"), "{holds:?}");
    assert!(!story.good(&search).await);
    let no = story.exchange(DEV_SERVER, call(child, "echo:read", "search")).await.unwrap_err();
    assert!(no.message().contains("held by policy"), "{no:?}");
    assert!(story.task(task).await.holds.is_empty(), "the agent's own task goes on");
}

/// A narrower binding takes effect at once and revokes what it no longer covers.
async fn a_binding_is_narrowed(story: &Story, task: &str) {
    let stays = story.exchange(DEV_SERVER, call(task, "echo:read", "search")).await.unwrap();
    let goes = story.exchange(DEV_SERVER, call(task, "echo:read", "summarize")).await.unwrap();
    let done = story.bind(1, &["search"]).await.unwrap();
    assert_eq!((done.takes_another, done.hits.unwrap().credentials), (false, 1));
    assert_eq!((story.good(&stays).await, story.good(&goes).await), (true, false));
    let no = story.exchange(DEV_SERVER, call(task, "echo:read", "summarize")).await.unwrap_err();
    assert!(no.message().contains("tools-are-bound"), "{no:?}");
}

/// When an owner leaves, the owner's registrations stop working until another owner takes over; the affected number is reported first.
async fn an_owner_leaves(story: &Story, task: &str) {
    let request = pb::OffboardRequest { owner: "you".into(), reason: "left".into(), dry_run: true, ..Default::default() };
    let mut upstreams = UpstreamServiceClient::new(story.channel(OPERATOR).await);
    let first = upstreams.offboard(request.clone()).await.unwrap().into_inner();
    assert!(first.upstreams.iter().any(|u| u == "echo") && first.hits.unwrap().credentials > 0, "{first:?}");
    let confirmation = Some(pb::Confirmation { credentials: 0, all: true });
    upstreams.offboard(pb::OffboardRequest { dry_run: false, confirmation, ..request }).await.unwrap();
    let no = story.exchange(AGENT, call(task, "echo:read", "search")).await.unwrap_err();
    assert_eq!(reason(&no), "UPSTREAM_NOT_ACTIVE");
    assert!(no.message().contains("has left"), "{no:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_governance_from_the_wall_to_the_audit() {
    let pager = Receiver::new();
    let story = Story(Rig::edited(DevEngine::Redb, "", &|of| world(of, &pager)));
    let ada = story.0.sign_in("ada", second_factor).await;
    environments_are_walls(&story).await;
    tools_are_bound(&story, &ada).await;

    // The agent opens the day's task, names its server as a caller, and delegates a part of the task.
    let mut own = terms(&["echo:read", "echo:admin"], &["search", "summarize", "export"], "");
    own.callers = vec![format!("spiffe://dev.mayfly.internal/{DEV_SERVER}")];
    let mut agent = TaskServiceClient::new(story.channel(AGENT).await);
    let opened = agent.open_task(pb::OpenTaskRequest { terms: Some(own), ..Default::default() }).await.unwrap();
    let task = opened.into_inner().task.unwrap().task_id;
    let delegate = |scopes: &[&str]| pb::DelegateTaskRequest {
        terms: Some(terms(scopes, &["search"], &task)),
        caller: format!("spiffe://dev.mayfly.internal/{DEV_SERVER}"),
        ..Default::default()
    };
    let wider = agent.delegate_task(delegate(&["echo:read", "echo:write"])).await.unwrap_err();
    assert_eq!(reason(&wider), "WIDER_THAN_PARENT", "nobody hands on what they do not have");
    let child = agent.delegate_task(delegate(&["echo:read"])).await.unwrap().into_inner().task.unwrap().task_id;

    an_export_is_approved_by_a_named_person(&story, &task, &ada).await;
    a_use_beyond_the_intent_holds_the_task(&story, &task, &child).await;
    a_binding_is_narrowed(&story, &task).await;
    let context = story.0.world.write_context(OPERATOR, story.0.running().addresses().admin).unwrap();
    let night = glass::two_people_open_it_and_a_third_looks_at_it(&story, &pager, &ada, &context).await;
    an_owner_leaves(&story, &task).await;

    let reader = audit::Reader::new(&context);
    reader.tells(&task, &["task opened", "approval asked", "credential issued"]);
    glass::the_audit_tells_it(&reader, &night);
    for id in [&task, &night] {
        reader.no_lie_about_it_passes(id);
    }
}
