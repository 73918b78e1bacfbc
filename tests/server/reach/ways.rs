//! The ways in which a credential can rest on another grant, each made on a whole server.

use std::time::Duration;

use mayfly::cli::dev::{DevEngine, DevWorld as Dev};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::exchange_request::Task;
use mayfly::pb::mayfly::v1::issued::Answer;
use mayfly::pb::mayfly::v1::key_service_client::KeyServiceClient;
use mayfly::pb::mayfly::v1::open_break_glass_request::Open;
use mayfly::pb::mayfly::v1::policy_service_client::PolicyServiceClient;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::pb::mayfly::v1::upstream_service_client::UpstreamServiceClient;
use mayfly::revocation::TargetKind;
use mayfly::seq::CredentialId;
use serde_json::json;
use tokio::sync::OnceCell;
use tonic::transport::Channel;

use super::ground::Ground;
use super::table::Way;
use crate::kit::reason;
use crate::people_rig::{DOMAIN, Key, Person, Rig, no_change, second_factor};
use crate::policy_rig::approval_of;
use crate::provider::{Provider, seconds_now};

/// A credential, and the grant that it rests on.
pub struct Case {
    pub token: String,
    pub credential: String,
    pub ground: Ground,
}

/// The server, with people, CI jobs, and users of another issuer.
pub struct World {
    pub rig: Rig,
    users: Provider,
    hub: Provider,
    n: u32,
    /// The operator's connection.
    operator: OnceCell<Channel>,
    /// The task of the open break-glass, and the number of break-glass cases so far.
    glass: (String, u32),
    /// Each credential that was asked about, with its token.
    asked: Vec<(String, String)>,
    /// A credential that is unrelated to the grants of the cases. Only a target that names more than the grant of its case reaches it.
    bystander: String,
}

const POLICY: &str = r#"
@id("all-work")
permit (principal, action in Action::"Work", resource in Environment::"dev") when { !context.sensitive };

@id("jobs-sign-in")
permit (principal in Role::"jobs", action == Action::"SignIn", resource);

@id("break-glass")
permit (principal in Role::"people", action in Action::"Work", resource in Environment::"dev") when { context.break_glass };
"#;

/// Most break-glass cases. Each case has its own people, since a person may have only a few logins at a time.
const GLASSES: u32 = 32;

/// The people who open, join and review the break-glass of a case.
fn glass_people(n: u32) -> [String; 3] {
    assert!(n < GLASSES, "the rights name people for {GLASSES} cases");
    ["opens", "joins", "reviews"].map(|part| format!("{part}-{n}"))
}

fn rights() -> String {
    let ids = |parts: &[usize]| {
        let of = |n| parts.iter().map(move |part| format!("\"spiffe://{DOMAIN}/people/corp/{}\"", glass_people(n)[*part]));
        (0..GLASSES).flat_map(of).collect::<Vec<_>>().join(", ")
    };
    format!(
        "[break_glass.echo-down]\nenvironment = \"dev\"\nopen = [{}]\nreview = [{}]\nupstreams = {{ echo = [\"echo:read\"] }}\n\
         any_tool = true\n",
        ids(&[0, 1]),
        ids(&[2])
    )
}

const RULE: &str = r#"
[[attestation]]
name = "deploy"
issuer = "hub"
claims = { repository_id = "1296269", ref = "refs/heads/main" }
"#;

const LIFE: u64 = 3_600_000;
const REPOS: &str = "mcp/repos";
const ECHO: &str = "mcp/echo";
/// Tools at repos and at echo.
const TOOLS: [&str; 2] = ["search", "look"];

fn id(name: &str) -> String {
    Dev::id(name)
}

pub fn token_of(issued: &pb::Issued) -> String {
    let Some(Answer::BearerToken(bearer)) = &issued.answer else { panic!("no token: {issued:?}") };
    bearer.token.clone()
}

fn mine(token: &str) -> pb::SubjectToken {
    pb::SubjectToken { token: token.to_owned(), r#type: pb::SubjectTokenType::Mayfly.into() }
}

fn terms(callers: &[&str], parent: &str) -> pb::TaskTerms {
    let allowed = |upstream: &str, scope: &str| pb::Allowance { upstream: upstream.into(), scopes: vec![scope.into()] };
    pb::TaskTerms {
        purpose: "reach".into(),
        upstreams: vec![allowed("echo", "echo:read"), allowed("repos", "issues:read")],
        any_tool: true,
        callers: callers.iter().map(|name| id(name)).collect(),
        parent_task_id: parent.into(),
        ..Default::default()
    }
}

fn request(task: Task, upstream: &str) -> pb::ExchangeRequest {
    let (scope, tool) = if upstream == "echo" { ("echo:read", TOOLS[1]) } else { ("issues:read", TOOLS[0]) };
    pb::ExchangeRequest {
        task: Some(task),
        upstream: upstream.into(),
        scopes: vec![scope.into()],
        tool: tool.into(),
        kind: pb::CredentialKind::Jwt.into(),
        ..Default::default()
    }
}

fn within(task: &str, upstream: &str) -> pb::ExchangeRequest {
    request(Task::TaskId(task.into()), upstream)
}

/// A request for echo that presents a credential. The tool is the same: a credential vouches for its own tool only.
fn showing(token: &str, task: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest { subject_token: Some(mine(token)), tool: TOOLS[0].into(), ..within(task, "echo") }
}

fn made(issued: pb::Issued, ground: Ground) -> Case {
    Case { token: token_of(&issued), credential: issued.credential_id, ground }
}

impl World {
    pub async fn new() -> World {
        let (users, hub) = (Provider::start(), Provider::start());
        let sections = [
            users.section("users", &["dev"], "uses = [\"subject\"]\nscopes_claim = \"scope\""),
            hub.section("hub", &["dev"], "uses = [\"attest\"]\nplatform = \"github\""),
        ];
        let rig = Rig::edited(DevEngine::Redb, "", &|world| {
            let edit = |path: &str, change: &dyn Fn(String) -> String| {
                let path = world.dir().join(path);
                std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
            };
            edit("mayfly.toml", &|text| text + &sections.concat() + RULE);
            edit("policy/policy.cedar", &|text| text + POLICY);
            let people = format!("\"spiffe://{DOMAIN}/people\"]");
            edit("policy/roles.toml", &|text| {
                let text = text.replacen(&people, &format!("\"spiffe://{DOMAIN}/people\", \"spiffe://{DOMAIN}/ci\"]"), 1);
                format!("{text}\n[role.jobs]\nunder = [\"spiffe://{DOMAIN}/ci\"]\n{}", rights())
            });
        });
        let world = World {
            rig,
            users,
            hub,
            n: 0,
            operator: OnceCell::new(),
            glass: (String::new(), 0),
            asked: Vec::new(),
            bystander: String::new(),
        };
        world.bind().await;
        world
    }

    /// Creates the binding that covers the agents' requests at repos with the tool.
    async fn bind(&self) {
        let binding = pb::Binding {
            binding: "search-issues".into(),
            upstream: "repos".into(),
            callers_under: vec![id("agent")],
            tools: vec![TOOLS[0].into()],
            scopes: vec!["issues:read".into()],
            ..Default::default()
        };
        let confirmation = Some(pb::Confirmation { credentials: 0, all: true });
        let set = pb::SetBindingRequest { binding: Some(binding), reason: "test".into(), confirmation, ..Default::default() };
        let asked = UpstreamServiceClient::new(self.admin().await).set_binding(set).await.unwrap_err();
        let approval_id = approval_of(&asked);
        let ada = self.rig.sign_in("ada", second_factor).await;
        let mut approvals = pb::approval_service_client::ApprovalServiceClient::new(self.rig.channel(&ada, true).await);
        let shown =
            approvals.get_approval(pb::GetApprovalRequest { approval_id: approval_id.clone() }).await.unwrap().into_inner();
        let give = pb::DecideApprovalRequest {
            approval_id,
            request_sha256: shown.approval.unwrap().request_sha256,
            decision: pb::ApprovalDecision::Give.into(),
            reason: "looked at it".into(),
            confirmation,
            ..Default::default()
        };
        approvals.decide_approval(give).await.unwrap();
    }

    pub async fn admin(&self) -> Channel {
        let connect = async || self.rig.world.channel("operator/you", self.rig.running().addresses().admin).await.unwrap();
        self.operator.get_or_init(connect).await.clone()
    }

    async fn workload(&self, name: &str) -> Channel {
        self.rig.world.channel(name, self.rig.running().addresses().workload).await.unwrap()
    }

    /// Issues a new SVID to a workload.
    fn fresh(&self, name: &str) {
        self.rig.world.issue(name, LIFE).unwrap();
    }

    /// A new agent.
    fn agent(&mut self) -> String {
        self.n += 1;
        let name = format!("agent/r{}", self.n);
        self.fresh(&name);
        name
    }

    async fn exchange(&self, name: &str, ask: pb::ExchangeRequest) -> pb::Issued {
        let mut last = String::new();
        for _ in 0..100 {
            let answer = TokenServiceClient::new(self.workload(name).await).exchange(ask.clone()).await;
            match answer {
                Ok(issued) => return issued.into_inner().issued.unwrap(),
                // The server is about to use the next key after a revoked one, or the next version of the policy.
                Err(no) if ["NOT_READY", "DECIDED_ON_OLD_STATE"].contains(&reason(&no).as_str()) => {
                    last = no.message().to_owned();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(no) => panic!("{name}: {no:?}"),
            }
        }
        panic!("{name}: {last}")
    }

    async fn open(&self, name: &str, terms: pb::TaskTerms, subject_token: Option<pb::SubjectToken>) -> String {
        let open = pb::OpenTaskRequest { terms: Some(terms), subject_token, ..Default::default() };
        let opened = TaskServiceClient::new(self.workload(name).await).open_task(open).await;
        opened.unwrap_or_else(|no| panic!("{name}: {no:?}")).into_inner().task.unwrap().task_id
    }

    /// Separates a credential's ground from the credentials that rest on it: by new SVIDs, another key, or another version of the policy.
    async fn between(&self, sort: TargetKind) {
        [REPOS, ECHO].iter().for_each(|name| self.fresh(name));
        match sort {
            TargetKind::SigningKey => {
                let rotate = pb::RotateKeyRequest {
                    purpose: pb::KeyPurpose::AccessToken.into(),
                    environment: "dev".into(),
                    publish_ahead: Some(prost_types::Duration::default()),
                    ..Default::default()
                };
                KeyServiceClient::new(self.admin().await).rotate_key(rotate).await.unwrap();
            }
            TargetKind::PolicyBelow => self.next_policy().await,
            _ => {}
        }
    }

    async fn next_policy(&self) {
        let mut policies = PolicyServiceClient::new(self.admin().await);
        let get = pb::GetPolicyRequest { environment: "dev".into(), mode: pb::PolicyMode::Enforce.into(), version: None };
        let policy = policies.get_policy(get).await.unwrap().into_inner().policy.unwrap();
        let mut files = policy.files.unwrap();
        files.policies[0].text.push_str("\n// once more\n");
        let set = pb::SetPolicyRequest {
            environment: "dev".into(),
            mode: pb::PolicyMode::Enforce.into(),
            set: Some(pb::PolicySource { from: Some(pb::policy_source::From::Files(files)) }),
            read_version: policy.version,
            reason: "test".into(),
            confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
            ..Default::default()
        };
        policies.set_policy(set).await.unwrap();
    }

    /// A token of a new user for the server of repos.
    fn user(&mut self) -> pb::SubjectToken {
        self.n += 1;
        let mut claims = self.users.claims(&format!("user-{}", self.n), "https://repos.dev.mayfly.internal");
        (claims["scope"], claims["jti"]) = ("issues:read echo:read".into(), format!("t-{}", self.n).into());
        pb::SubjectToken { token: self.users.token(&claims), r#type: pb::SubjectTokenType::Oidc.into() }
    }

    /// The ground of a login, as the fold has it.
    fn login(&self, who: &Person) -> Ground {
        let id: CredentialId = who.answer.credential.parse().unwrap();
        let login = self.rig.running().authority().ledger.peek(|s| s.logins.get(&id).cloned()).unwrap();
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        Ground {
            credential: id.to_string(),
            caller: login.caller.to_string(),
            trust_domain: DOMAIN.into(),
            subject: (login.person.issuer.clone(), login.person.sub.clone()),
            environment: login.environment.to_string(),
            policy: login.policy,
            key: login.key.to_string(),
            svid: [hex(&login.svid.anchor), hex(&login.svid.issuing_key), hex(&login.svid.serial)],
            token: (login.token.issuer.clone(), login.token.id.clone()),
            ..Ground::default()
        }
    }

    async fn attested(&self) -> Person {
        let key = Key::new();
        let aud = format!("https://dev.mayfly.internal#{}", key.nonce());
        let mut claims = self.hub.claims("repo:acme/web:ref:refs/heads/main", &aud);
        let more = json!({
            "repository": "acme/web", "repository_id": "1296269", "repository_owner_id": "42", "ref": "refs/heads/main", "sha": "0a1b",
            "event_name": "push", "run_id": "700", "run_attempt": "1", "actor_id": "5", "runner_environment": "github-hosted",
            "jti": key.nonce(), "iat": seconds_now(),
        });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let body = json!({"token": self.hub.token(&claims), "csr": key.csr()}).to_string();
        let (https, base) = self.rig.public();
        for _ in 0..100 {
            let answer = https.post_json(&format!("{base}/attest"), body.clone(), 1 << 20).await.unwrap();
            if answer.status.is_success() {
                return Person::of(serde_json::from_slice(&answer.body).unwrap(), &key);
            }
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(text.contains("NOT_READY") || text.contains("DECIDED_ON_OLD_STATE"), "{text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no job is let in")
    }

    async fn as_person(&self, who: &Person, ask: pb::ExchangeRequest) -> pb::Issued {
        let mut last = String::new();
        for _ in 0..100 {
            match self.rig.exchange(who, ask.clone()).await {
                Ok(issued) => return issued,
                Err(no) if ["NOT_READY", "DECIDED_ON_OLD_STATE"].contains(&reason(&no).as_str()) => {
                    last = no.message().to_owned();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(no) => panic!("{no:?}"),
            }
        }
        panic!("{last}")
    }

    async fn open_as(&self, who: &Person, terms: pb::TaskTerms) -> String {
        let open = pb::OpenTaskRequest { terms: Some(terms), ..Default::default() };
        let mut tasks = TaskServiceClient::new(self.rig.channel(who, false).await);
        tasks.open_task(open).await.unwrap().into_inner().task.unwrap().task_id
    }

    /// A new agent opens a task in which the given callers act. Returns the agent, the task, and the ground of the opening.
    async fn opened(&mut self, sort: TargetKind, callers: &[&str]) -> (String, String, Ground) {
        let opener = self.agent();
        let task = self.open(&opener, terms(callers, ""), None).await;
        let own = self.exchange(&opener, within(&task, "echo")).await;
        let ground = Ground::of_opener(&token_of(&own), &task);
        self.between(sort).await;
        (opener, task, ground)
    }

    /// An agent's credential for repos, in a task in which both servers act: the task, the token, and the ground.
    async fn shown(&mut self, sort: TargetKind) -> (String, String, Ground) {
        let agent = self.agent();
        let task = self.open(&agent, terms(&[REPOS, ECHO], ""), None).await;
        let token = token_of(&self.exchange(&agent, within(&task, "repos")).await);
        let ground = Ground::of_shown(&token);
        self.between(sort).await;
        (task, token, ground)
    }

    /// The server of repos presents a credential and gets one for echo.
    async fn show(&self, token: &str, task: &str) -> pb::Issued {
        self.exchange(REPOS, showing(token, task)).await
    }

    /// The server of repos presents a credential to open a task below, and the server of echo acts in that task.
    async fn show_at_opening(&self, token: &str, task: &str) -> pb::Issued {
        let below = self.open(REPOS, terms(&[ECHO], task), Some(mine(token))).await;
        self.exchange(ECHO, within(&below, "echo")).await
    }

    /// A credential that rests on a grant in this way, and that grant.
    pub async fn make(&mut self, way: Way, sort: TargetKind) -> Case {
        match way {
            Way::Itself => {
                let agent = self.agent();
                let issued = self.exchange(&agent, request(Task::OpenTask(terms(&[], "")), "repos")).await;
                let ground = Ground::of_token(&token_of(&issued));
                made(issued, ground)
            }
            Way::Opener => {
                let (_, task, ground) = self.opened(sort, &[ECHO]).await;
                made(self.exchange(ECHO, within(&task, "echo")).await, ground)
            }
            Way::OpenerAbove => {
                let (_, task, ground) = self.opened(sort, &[REPOS, ECHO]).await;
                let below = self.open(REPOS, terms(&[ECHO], &task), None).await;
                made(self.exchange(ECHO, within(&below, "echo")).await, ground)
            }
            Way::OpenerOfTheRoot => {
                let (_, mut task, ground) = self.opened(sort, &[REPOS, ECHO]).await;
                for _ in 1..mayfly::limits::TASK_DEPTH {
                    task = self.open(REPOS, terms(&[ECHO], &task), None).await;
                }
                made(self.exchange(ECHO, within(&task, "echo")).await, ground)
            }
            Way::OpenerAboveInline => {
                let (_, task, ground) = self.opened(sort, &[ECHO]).await;
                made(self.exchange(ECHO, request(Task::OpenTask(terms(&[], &task)), "echo")).await, ground)
            }
            Way::Delegated => {
                let (opener, task, mut ground) = self.opened(sort, &[]).await;
                let delegate = pb::DelegateTaskRequest { terms: Some(terms(&[], &task)), caller: id(ECHO), ..Default::default() };
                let child = TaskServiceClient::new(self.workload(&opener).await).delegate_task(delegate).await.unwrap();
                let child = child.into_inner().task.unwrap().task_id;
                ground.task = child.clone();
                made(self.exchange(ECHO, within(&child, "echo")).await, ground)
            }
            Way::Shown => {
                let (task, token, ground) = self.shown(sort).await;
                made(self.show(&token, &task).await, ground)
            }
            Way::ShownBefore => {
                let (task, token, ground) = self.shown(sort).await;
                let second = token_of(&self.show(&token, &task).await);
                made(self.exchange(ECHO, showing(&second, &task)).await, ground)
            }
            Way::ShownAtOpening => {
                let (task, token, ground) = self.shown(sort).await;
                made(self.show_at_opening(&token, &task).await, ground)
            }
            Way::Renewed => {
                let agent = self.agent();
                let task = self.open(&agent, terms(&[], ""), None).await;
                let first = self.exchange(&agent, within(&task, "repos")).await;
                let ground = Ground::of_token(&token_of(&first));
                self.between(sort).await;
                self.fresh(&agent);
                let renew = pb::RenewRequest { credential_id: first.credential_id, ..Default::default() };
                let renewed = TokenServiceClient::new(self.workload(&agent).await).renew(renew).await.unwrap();
                made(renewed.into_inner().issued.unwrap(), ground)
            }
            Way::SubjectToken | Way::TokenAtOpening | Way::TokenOfTheShown => self.of_a_user(way, sort).await,
            Way::Login | Way::LoginOfTheOpener | Way::LoginOfTheShown | Way::LoginOfTheShownAtOpening => {
                self.n += 1;
                let person = self.rig.sign_in(&format!("person-{}", self.n), no_change).await;
                self.of_a_login(&person, way, sort).await
            }
            Way::Job | Way::JobOfTheOpener => {
                let job = self.attested().await;
                self.of_a_login(&job, way, sort).await
            }
            Way::GlassOpener | Way::GlassJoiner => self.in_break_glass(way, sort).await,
            Way::Descendant => {
                let agent = self.agent();
                let task = self.open(&agent, terms(&[REPOS, ECHO], ""), None).await;
                let own = self.exchange(&agent, within(&task, "repos")).await;
                self.between(sort).await;
                let below = self.show_at_opening(&token_of(&own), &task).await;
                made(own, Ground::of_token(&token_of(&below)))
            }
            Way::Approver => self.approved(sort).await,
        }
    }

    async fn of_a_user(&mut self, way: Way, sort: TargetKind) -> Case {
        let token = self.user();
        let (issuer, n) = (self.users.issuer.clone(), self.n);
        let ground =
            Ground { subject: (issuer.clone(), format!("user-{n}")), token: (issuer, format!("t-{n}")), ..Ground::default() };
        if way == Way::TokenAtOpening {
            // The server that opens the task neither owns the task nor acts in it.
            let own = self.exchange(REPOS, request(Task::OpenTask(terms(&[], "")), "repos")).await;
            let task = self.open(REPOS, terms(&[ECHO], ""), Some(token)).await;
            let opener = Ground::of_opener(&token_of(&own), &task);
            self.between(sort).await;
            let ground = Ground { subject: ground.subject, token: ground.token, ..opener };
            return made(self.exchange(ECHO, within(&task, "echo")).await, ground);
        }
        let ask = request(Task::OpenTask(terms(&[ECHO], "")), "repos");
        let first = self.exchange(REPOS, pb::ExchangeRequest { subject_token: Some(token), ..ask }).await;
        if way == Way::SubjectToken {
            return made(first, ground);
        }
        made(self.show(&token_of(&first), &first.task_id).await, ground)
    }

    async fn of_a_login(&mut self, who: &Person, way: Way, sort: TargetKind) -> Case {
        let ground = self.login(who);
        if matches!(way, Way::Login | Way::Job) {
            self.between(sort).await;
            return made(self.as_person(who, request(Task::OpenTask(terms(&[], "")), "echo")).await, ground);
        }
        let task = self.open_as(who, terms(&[REPOS, ECHO], "")).await;
        if matches!(way, Way::LoginOfTheOpener | Way::JobOfTheOpener) {
            self.between(sort).await;
            return made(self.exchange(ECHO, within(&task, "echo")).await, ground);
        }
        let first = token_of(&self.as_person(who, within(&task, "repos")).await);
        self.between(sort).await;
        let issued = match way {
            Way::LoginOfTheShown => self.show(&first, &task).await,
            _ => self.show_at_opening(&first, &task).await,
        };
        made(issued, ground)
    }

    /// A credential for an export that Ada approved.
    async fn approved(&mut self, sort: TargetKind) -> Case {
        let agent = self.agent();
        let ask =
            pb::ExchangeRequest { kind: pb::CredentialKind::Jwt.into(), ..crate::people_rig::exchange("echo:admin", "export") };
        let no = TokenServiceClient::new(self.workload(&agent).await).exchange(ask.clone()).await.unwrap_err();
        let ada = self.rig.sign_in("ada", second_factor).await;
        self.rig.give(&ada, &approval_of(&no)).await.unwrap();
        self.between(sort).await;
        made(self.exchange(&agent, ask).await, self.login(&ada))
    }

    async fn in_break_glass(&mut self, way: Way, sort: TargetKind) -> Case {
        let [opens, joins, _] = glass_people(self.glass.1);
        let (opener, joiner) = (self.rig.sign_in(&opens, no_change).await, self.rig.sign_in(&joins, no_change).await);
        let opened = self.rig.glass(&opener, Open::Rights("echo-down".into())).await.unwrap();
        self.glass.0 = opened.task.unwrap().task_id;
        self.rig.glass(&joiner, Open::TaskId(self.glass.0.clone())).await.unwrap();
        let (who, other) = if way == Way::GlassOpener { (&joiner, &opener) } else { (&opener, &joiner) };
        self.between(sort).await;
        made(self.as_person(who, within(&self.glass.0, "echo")).await, self.login(other))
    }

    /// Closes and reviews break-glass, since nobody could open another one otherwise.
    pub async fn close(&mut self, way: Way) {
        if way.is_break_glass() {
            let [opens, _, reviews] = glass_people(self.glass.1);
            let (opener, reviewer) = (self.rig.sign_in(&opens, no_change).await, self.rig.sign_in(&reviews, no_change).await);
            self.rig.close_glass(&opener, &self.glass.0).await.unwrap();
            self.rig.review_glass(&reviewer, &self.glass.0).await.unwrap();
            self.glass.1 += 1;
        }
    }

    /// The unrelated credential: of another workload, in a task of its own, with another scope of echo and another tool. The same
    /// credential is returned while it is good.
    pub async fn bystander(&mut self) -> String {
        if self.bystander.is_empty() || !self.is_good_in_the_fold(&self.bystander) {
            let terms = pb::TaskTerms {
                purpose: "reach".into(),
                upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:write".into()] }],
                any_tool: true,
                ..Default::default()
            };
            let ask = request(Task::OpenTask(terms), "echo");
            let ask = pb::ExchangeRequest { scopes: vec!["echo:write".into()], tool: "write".into(), ..ask };
            let name = self.agent();
            let issued = self.exchange(&name, ask).await;
            self.asked.push((issued.credential_id.clone(), token_of(&issued)));
            self.bystander = issued.credential_id;
        }
        self.bystander.clone()
    }

    pub fn remember(&mut self, case: &Case) {
        self.asked.push((case.credential.clone(), case.token.clone()));
    }

    /// Restarts the server, which reads the ledger anew, and returns the credentials whose state has changed.
    pub async fn differences_after_a_restart(&mut self) -> Vec<String> {
        let bystander = self.bystander().await;
        assert!(self.is_good_in_the_fold(&bystander), "something is good before the restart");
        let good = |world: &World| world.asked.iter().map(|(id, _)| world.is_good_in_the_fold(id)).collect::<Vec<bool>>();
        let before = good(self);
        self.rig.again();
        self.operator = OnceCell::new();
        let (after, mut out) = (good(self), Vec::new());
        for ((id, token), (before, after)) in self.asked.iter().zip(before.into_iter().zip(after)) {
            let active = self.introspects_as_active(token).await;
            if [after, active] != [before, before] {
                out.push(format!(
                    "after a restart, {id} is good by [fold, introspection] {:?}, and was {before}",
                    [after, active]
                ));
            }
        }
        out
    }
}
