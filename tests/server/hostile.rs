//! Text of callers never acts on a terminal, in a log or in a file: hostile text in every field that a caller sets, and every command that
//! shows it, in every form.

use std::path::Path;
use std::process::{Command, Stdio};

use mayfly::cli::dev::{Settings, World};
use mayfly::document::shown::is_unsafe;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::approval_service_client::ApprovalServiceClient;
use mayfly::pb::mayfly::v1::audit_service_client::AuditServiceClient;
use mayfly::pb::mayfly::v1::break_glass_service_client::BreakGlassServiceClient;
use mayfly::pb::mayfly::v1::open_break_glass_request::Open;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::pb::mayfly::v1::upstream_service_client::UpstreamServiceClient;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use crate::kit::{MAYFLY, world};
use crate::provider::Provider;

/// A color, a title, a cursor, the C1 form of the same, other lines, another direction, what is not seen, what ends a line elsewhere, a
/// formula, a tag. `MARK` says that it came through.
const HOSTILE: &str = "=MARK\u{1b}[31mred\u{1b}]0;title\u{7}\u{9b}2J\nnext\rback\u{8}\t\u{202e}txet\u{2066}\u{200b}\u{feff}\u{2028}\u{85}\u{e0041}<b>\",;'";
/// What of it is no control character: free text takes it.
const UNSEEN: &str = "=MARK\u{202e}txet\u{2066}\u{200b}\u{feff}\u{2028}\u{ad}\u{e0041}\u{fe0f}<b>\",;'";
/// With a NUL, which messages can hold and command lines cannot.
const WITH_NUL: &str = "MARK\0\u{1b}[2J\u{202e}\0";

const POLICY: &str = r#"
@id("break-glass")
permit (principal in Role::"operator", action in Action::"Work", resource in Environment::"dev") when { context.break_glass };
@id("agents-export")
permit (principal in Role::"agent", action in Action::"Work", resource == Upstream::"tickets");
@id("exports-need-somebody")
forbid (principal, action == Action::"Exchange", resource == Upstream::"tickets")
when { context.sensitive } unless { context.approvals.count >= 1 };
@id("uses") permit (principal, action == Action::"Use", resource);
@id("only-declared-tools") forbid (principal, action == Action::"Use", resource) unless { context.declared };
"#;

const RIGHTS: &str = r#"
[break_glass.down]
environment = "dev"
open = ["spiffe://dev.mayfly.internal/operator/you", "spiffe://dev.mayfly.internal/operator/colleague"]
review = ["spiffe://dev.mayfly.internal/operator/auditor"]
upstreams = { echo = ["echo:read"] }
any_tool = true
"#;

struct Rig {
    child: mayfly::cli::dev::Child,
    provider: Provider,
    world: World,
    _dir: TempDir,
}

fn rig() -> Rig {
    let provider = Provider::start();
    let (dir, world) = world(Settings::default());
    let add = |path: &str, more: &str| {
        let path = world.dir().join(path);
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + more).unwrap();
    };
    add("policy/policy.cedar", POLICY);
    add("policy/roles.toml", RIGHTS);
    add("mayfly.toml", &provider.section("idp", &["dev"], "uses = [\"subject\"]\ngroups_claim = \"groups\""));
    let child = world.spawn(Path::new(MAYFLY)).unwrap();
    Rig { child, provider, world, _dir: dir }
}

impl Rig {
    async fn channel(&self, who: &str, admin: bool) -> Channel {
        let addresses = self.child.addresses();
        self.world.channel(who, if admin { addresses.admin } else { addresses.workload }).await.unwrap()
    }

    async fn open(&self, terms: pb::TaskTerms, token: Option<pb::SubjectToken>, who: &str) -> Result<pb::Task, Status> {
        let request = pb::OpenTaskRequest { terms: Some(terms), subject_token: token, ..Default::default() };
        let opened = TaskServiceClient::new(self.channel(who, false).await).open_task(request).await?;
        Ok(opened.into_inner().task.unwrap())
    }

    async fn exchange(&self, ask: pb::ExchangeRequest) -> Result<pb::Issued, Status> {
        let answer = TokenServiceClient::new(self.channel("agent/demo", false).await).exchange(ask).await?;
        Ok(answer.into_inner().issued.unwrap())
    }

    /// What a command says, on both streams, and how it ended.
    fn says(&self, context: &Path, args: &[&str]) -> (String, Option<i32>) {
        let mut command = Command::new(MAYFLY);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
            command.env_remove(name);
        }
        let out = command.arg("--config").arg(context).args(args).stdin(Stdio::null()).output().unwrap();
        let bytes = [out.stdout, out.stderr].concat();
        let text = String::from_utf8(bytes).unwrap_or_else(|no| panic!("{args:?}: {no}"));
        harmless(&format!("{args:?}"), &text);
        (text, out.status.code())
    }
}

/// Nothing but what stands there, and the ends of our own lines.
fn harmless(what: &str, text: &str) {
    for (n, line) in text.lines().enumerate() {
        if let Some(c) = line.chars().find(|c| is_unsafe(*c)) {
            panic!("{what}, line {}: {c:?} in {line:?}", n + 1);
        }
        assert!(!line.starts_with("next"), "{what}, line {}: somebody else's line: {line:?}", n + 1);
    }
    assert!(!text.contains('\r'), "{what}");
}

fn allowed(upstream: &str, scope: &str) -> Vec<pb::Allowance> {
    vec![pb::Allowance { upstream: upstream.into(), scopes: vec![scope.into()] }]
}

fn json(text: &str) -> Option<pb::Arguments> {
    let value = serde_json::json!({ "table": text, text: [text] }).to_string();
    Some(pb::Arguments { arguments: Some(pb::arguments::Arguments::Json(value)) })
}

/// Everything that there is to name afterwards.
#[derive(Default)]
struct Made {
    tasks: Vec<String>,
    credentials: Vec<String>,
    approvals: Vec<String>,
    glass: String,
}

/// Each field that a caller can set, and each in which it is refused, is sent the text.
async fn sent(rig: &Rig, text: &str) -> Made {
    let mut made = Made::default();
    let named = |purpose: &str, tool: &str| pb::TaskTerms {
        purpose: purpose.into(),
        upstreams: allowed("echo", "echo:read"),
        tools: vec![tool.into()],
        ..Default::default()
    };
    // Where it is refused, that is in words, which are told and recorded.
    let mut opened = rig.open(named(text, text), None, "agent/demo").await;
    for (purpose, tool) in [(text, "MARK-tool"), ("MARK purpose", text), ("MARK purpose", "MARK-tool")] {
        if opened.is_err() {
            opened = rig.open(named(purpose, tool), None, "agent/demo").await;
        }
    }
    let opened = opened.unwrap();
    let tool = opened.terms.as_ref().unwrap().tools[0].clone();
    made.tasks.push(opened.task_id.clone());
    let call = |tool: &str, purpose: &str, request_id: &str| pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(opened.task_id.clone())),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        tool: tool.into(),
        purpose: purpose.into(),
        request_id: request_id.into(),
        arguments: json(text),
        ..Default::default()
    };
    for ask in [call(&tool, text, ""), call(&tool, "plain", text), call(text, "plain", "")] {
        if let Ok(issued) = rig.exchange(ask).await {
            made.credentials.push(issued.credential_id);
        }
    }
    for (field, value) in [("upstream", text), ("scope", text), ("binding", text), ("caller", text), ("task", text)] {
        let mut ask = call(&tool, "plain", "");
        match field {
            "upstream" => ask.upstream = value.into(),
            "scope" => ask.scopes = vec![value.into()],
            "binding" => ask.binding = value.into(),
            "task" => ask.task = Some(pb::exchange_request::Task::TaskId(value.into())),
            _ => {
                let terms = pb::TaskTerms { callers: vec![value.into()], ..named("p", "t") };
                assert!(rig.open(terms, None, "agent/demo").await.is_err());
                continue;
            }
        }
        assert!(rig.exchange(ask).await.is_err(), "{field}");
    }
    behalf(rig, text, &mut made).await;
    approvals(rig, text, &mut made).await;
    acts(rig, text, &made).await;
    glass(rig, text, &mut made).await;
    made
}

/// A subject, its groups and whoever acted for it, as its issuer calls them.
async fn behalf(rig: &Rig, text: &str, made: &mut Made) {
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    for sub in [text, plain.as_str()] {
        let mut claims = rig.provider.claims(sub, "https://github.dev.mayfly.internal");
        claims["jti"] = sub.into();
        claims["groups"] = serde_json::json!([sub]);
        claims["act"] = serde_json::json!({ "sub": sub });
        let token = pb::SubjectToken { token: rig.provider.token(&claims), r#type: pb::SubjectTokenType::Oidc.into() };
        let terms = pb::TaskTerms { purpose: text.into(), upstreams: allowed("github", "issues:read"), ..Default::default() };
        if let Ok(task) = rig.open(terms, Some(token), "mcp/github").await {
            made.tasks.push(task.task_id);
        }
    }
}

async fn approvals(rig: &Rig, text: &str, made: &mut Made) {
    for (n, tool) in [text, "export"].into_iter().enumerate() {
        let terms = pb::TaskTerms {
            purpose: text.into(),
            upstreams: allowed("tickets", "tickets:delete"),
            any_tool: true,
            ..Default::default()
        };
        let ask = pb::ExchangeRequest {
            task: Some(pb::exchange_request::Task::OpenTask(terms)),
            upstream: "tickets".into(),
            scopes: vec!["tickets:delete".into()],
            tool: tool.into(),
            purpose: text.into(),
            arguments: json(&format!("{text}{n}")),
            ..Default::default()
        };
        let no = rig.exchange(ask).await.unwrap_err();
        let details = no.get_error_details();
        made.approvals
            .extend(details.error_info().and_then(|i| i.metadata.get("approval_id").cloned()).filter(|id| !id.is_empty()));
    }
    let mut operators = ApprovalServiceClient::new(rig.channel("operator/you", true).await);
    if let Some(first) = made.approvals.first() {
        let request = pb::GetApprovalRequest { approval_id: first.clone() };
        let shown = operators.get_approval(request).await.unwrap().into_inner().approval.unwrap();
        let decide = pb::DecideApprovalRequest {
            approval_id: first.clone(),
            request_sha256: shown.request_sha256,
            decision: pb::ApprovalDecision::Refuse.into(),
            reason: text.into(),
            ..Default::default()
        };
        let _ = operators.decide_approval(decide).await;
    }
}

/// What takes away, and what is told of uses.
async fn acts(rig: &Rig, text: &str, made: &Made) {
    let mut tasks = TaskServiceClient::new(rig.channel("operator/you", true).await);
    let hold = pb::HoldTaskRequest { task_id: made.tasks[0].clone(), reason: text.into(), ..Default::default() };
    let _ = tasks.hold_task(hold).await;
    let mut revocations = RevocationServiceClient::new(rig.channel("operator/you", true).await);
    for target in [
        pb::target::Target::Tool(text.into()),
        pb::target::Target::Tool("MARK\u{202e}".into()),
        pb::target::Target::Binding(text.into()),
        pb::target::Target::Subject(pb::Subject { issuer: rig.provider.issuer.clone(), sub: text.into() }),
        pb::target::Target::Caller("spiffe://dev.mayfly.internal/agent/nobody".into()),
    ] {
        let targets = vec![pb::Target { target: Some(target) }];
        let revoke = pb::RevokeRequest { targets, reason: text.into(), request_id: text.into(), ..Default::default() };
        let _ = revocations.revoke(revoke).await;
    }
    let target = Some(pb::target::Target::Caller("spiffe://dev.mayfly.internal/agent/other".into()));
    let lock = pb::AddLockRequest { targets: vec![pb::Target { target }], reason: text.into(), ..Default::default() };
    let _ = revocations.add_lock(lock).await;
    let used = |tool: &str| pb::Use {
        credential_id: made.credentials.first().cloned().unwrap_or_default(),
        tool: tool.into(),
        outcome: pb::UseOutcome::Accepted.into(),
        at: Some(mayfly::serve::wire::timestamp(mayfly::system::System::real().wall())),
        count: 1,
    };
    let mut audit = AuditServiceClient::new(rig.channel("service/echo", false).await);
    let _ = audit.report_use(pb::ReportUseRequest { uses: vec![used(text), used("MARK\u{2066}")] }).await;
    let mut upstreams = UpstreamServiceClient::new(rig.channel("operator/you", true).await);
    let request = pb::GetUpstreamRequest { upstream: "github".into() };
    let mut upstream = upstreams.get_upstream(request).await.unwrap().into_inner().upstream.unwrap();
    (upstream.purpose, upstream.owner) = (text.into(), text.into());
    let confirmation = Some(pb::Confirmation { credentials: 0, all: true });
    let _ = upstreams.set_upstream(pb::SetUpstreamRequest { upstream: Some(upstream), confirmation, ..Default::default() }).await;
    let left = pb::OffboardRequest { owner: text.into(), reason: text.into(), ..Default::default() };
    let _ = upstreams.offboard(left).await;
    // What a caller calls itself. A header can hold no control character, but what changes the direction.
    let mut request = Request::new(pb::GetTaskRequest { task_id: text.into() });
    let value = tonic::metadata::AsciiMetadataValue::try_from("MARK\u{202e}\u{200b}".as_bytes());
    if let Ok(value) = value {
        request.metadata_mut().insert("x-caller", value.clone());
        request.metadata_mut().insert("user-agent", value);
    }
    let _ = tasks.get_task(request).await;
}

async fn glass(rig: &Rig, text: &str, made: &mut Made) {
    let mut first = BreakGlassServiceClient::new(rig.channel("operator/you", false).await);
    let open = |open: Open| pb::OpenBreakGlassRequest { open: Some(open), reason: text.into(), ..Default::default() };
    let _ = first.open_break_glass(open(Open::Rights(text.into()))).await;
    let Ok(opened) = first.open_break_glass(open(Open::Rights("down".into()))).await else { return };
    let task = opened.into_inner().break_glass.unwrap().task.unwrap().task_id;
    let mut second = BreakGlassServiceClient::new(rig.channel("operator/colleague", false).await);
    let _ = second.open_break_glass(open(Open::TaskId(task.clone()))).await;
    let _ = second.close_break_glass(pb::CloseBreakGlassRequest { task_id: task.clone(), reason: text.into() }).await;
    let mut third = BreakGlassServiceClient::new(rig.channel("operator/auditor", false).await);
    let review = pb::ReviewBreakGlassRequest { task_id: task.clone(), review: text.into(), ..Default::default() };
    let _ = third.review_break_glass(review).await;
    made.glass = task;
}

/// Every command that shows any of it, in these forms. How many of them showed it.
fn shown(rig: &Rig, made: &Made, lists: bool, forms: &[&str]) -> usize {
    let admin = rig.world.write_context("operator/you", rig.child.addresses().admin).unwrap();
    let mut asked: Vec<Vec<&str>> = [
        "task list --state active --state held",
        "approval list",
        "approval list --state refused",
        "break-glass list",
        "lock list",
        "rules list",
        "credential list",
        "upstream list",
        "binding list",
        "follower list",
        "lease list",
        "webhook list",
        "status",
        "whoami",
        "report inventory",
        "report broad",
        "report unreviewed",
        "audit search --limit 200",
        "blast-radius --upstream echo",
        "upstream show github",
        "policy diff dev --version 1",
    ]
    .iter()
    .filter(|_| lists)
    .map(|line| line.split(' ').collect())
    .collect();
    for task in made.tasks.iter().map(String::as_str).chain([&*made.glass]).filter(|task| !task.is_empty()) {
        asked.extend(
            [
                vec!["task", "show", task],
                vec!["task", "show", task, "--tree"],
                vec!["explain", task],
                vec!["audit", "search", task],
            ]
            .into_iter()
            .chain([vec!["blast-radius", "--task", task], vec!["break-glass", "show", task]]),
        );
    }
    for id in &made.credentials {
        asked.extend([vec!["credential", "show", id], vec!["explain", id], vec!["blast-radius", "--credential", id]]);
    }
    for id in &made.approvals {
        asked.extend([vec!["approval", "show", id], vec!["explain", id]]);
    }
    let (mut showed, mut wrong) = (0, Vec::new());
    for args in &asked {
        for form in forms {
            let (said, code) = rig.says(&admin, &[&args[..], &["-o", form]].concat());
            // There is no such command, so nothing was shown.
            wrong.extend((code == Some(2)).then(|| format!("{args:?} {form}: {said}")));
            showed += usize::from(said.contains("MARK"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    showed
}

/// What somebody types: refused or not, what is answered to it acts on nothing.
fn typed(rig: &Rig, text: &str) {
    let agent = rig.world.write_context("agent/demo", rig.child.addresses().workload).unwrap();
    let admin = rig.world.write_context("operator/you", rig.child.addresses().admin).unwrap();
    for form in ["table", "json"] {
        for args in [
            vec!["get", "echo", "--scope", "echo:read", "--purpose", text],
            vec!["get", text, "--scope", text, "--purpose", text],
            vec!["get", "echo", "--scope", "echo:read", "--purpose", "p", "--tool", text, "--request-id", text],
            vec!["task", "open", "--upstream", text, "--purpose", text],
            vec!["task", "show", text],
            vec!["explain", text],
            vec!["explain", "--request", text],
            vec![text],
            vec!["task", "list", text],
            vec!["--config", text, "task", "list"],
        ] {
            rig.says(&agent, &[&args[..], &["-o", form]].concat());
        }
        for args in [
            vec!["revoke", "--subject", "https://idp.example", text, "--reason", text],
            vec!["revoke", "--caller", text, "--reason", text],
            vec!["revoke", "--tool", text, "--reason", text],
            vec!["lock", "add", "--tool", text, "--reason", text],
            vec!["audit", "search", text],
            vec!["task", "list", "--environment", text],
            vec!["upstream", "show", text],
            vec!["policy", "show", text],
        ] {
            rig.says(&admin, &[&args[..], &["-o", form]].concat());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_caller_says_acts_on_a_terminal_a_log_or_a_file() {
    let rig = rig();
    let mut made = Vec::new();
    for text in [HOSTILE, WITH_NUL, UNSEEN] {
        made.push(sent(&rig, text).await);
    }
    tokio::task::block_in_place(|| {
        typed(&rig, HOSTILE);
        typed(&rig, UNSEEN);
        // What free text takes is seen everywhere; of the others, what was recorded where they were refused.
        let showed = shown(&rig, &made[2], true, &["table", "wide", "json", "csv"]);
        for made in &made[..2] {
            shown(&rig, made, false, &["table"]);
        }
        assert!(showed >= 50, "it was to be seen in {showed} answers only, so this test tests little");
    });
    let log = std::fs::read_to_string(rig.world.dir().join("server.log")).unwrap();
    assert!(log.contains("MARK"), "the log tells of what was said: {log}");
    harmless("the log", &log);
    rig.child.kill();
}
