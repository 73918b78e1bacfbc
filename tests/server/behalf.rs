//! Delegation over real mTLS: a server of an upstream with a user's token of a real issuer on loopback, the command line, and an approver
//! who may not approve what is done on her own behalf.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mayfly::cli::dev::DevSettings;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::exchange_request::Task;
use mayfly::pb::mayfly::v1::issued::Answer;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::system::System;
use serde_json::{Value, json};
use tonic::Status;

use crate::kit::{MAYFLY, Up, reason};
use crate::provider::Provider;

const REPOS: &str = "https://repos.dev.mayfly.internal";
const SERVER: &str = "spiffe://dev.mayfly.internal/mcp/repos";

/// A server that trusts the issuer for subjects, once the issuer's keys have been fetched.
async fn up(provider: &Provider) -> Up {
    let section = "uses = [\"subject\"]\nscopes_claim = \"scope\"";
    let up = Up::with_config(DevSettings::default(), &provider.section("idp", &["dev"], section));
    let known = &up.running().authority().oidc.all()[0];
    for _ in 0..500 {
        if known.keys(&System::real()).is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    up
}

fn user(provider: &Provider) -> Value {
    let mut claims = provider.claims("ada", REPOS);
    (claims["scope"], claims["jti"]) = ("issues:read issues:write".into(), "token-7".into());
    claims
}

fn terms() -> pb::TaskTerms {
    let repos = pb::Allowance { upstream: "repos".into(), scopes: vec!["issues:read".into()] };
    pb::TaskTerms { purpose: "triage".into(), upstreams: vec![repos], ..Default::default() }
}

fn ask(token: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest {
        task: Some(Task::OpenTask(terms())),
        upstream: "repos".into(),
        scopes: vec!["issues:read".into()],
        subject_token: Some(pb::SubjectToken { token: token.to_owned(), r#type: pb::SubjectTokenType::Oidc.into() }),
        ..Default::default()
    }
}

async fn exchange(up: &Up, name: &str, ask: pb::ExchangeRequest) -> Result<pb::Issued, Status> {
    let answer = TokenServiceClient::new(up.channel(name).await).exchange(ask).await?;
    Ok(answer.into_inner().issued.unwrap())
}

fn claims_of(issued: &pb::Issued) -> Value {
    let Some(Answer::BearerToken(bearer)) = &issued.answer else { panic!("{issued:?}") };
    let payload = bearer.token.split('.').nth(1).unwrap();
    serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_token_of_a_real_issuer_becomes_the_subject_of_a_credential() {
    let provider = Provider::start();
    let up = up(&provider).await;
    let issued = exchange(&up, "mcp/repos", ask(&provider.token(&user(&provider)))).await.unwrap();
    let claims = claims_of(&issued);
    assert_eq!((claims["sub"].as_str(), claims["act"]["sub"].as_str()), (Some("ada"), Some(SERVER)));
    assert_eq!(claims["https://mayfly.dev/claims"]["sub_iss"], provider.issuer);
    assert_eq!(claims["https://mayfly.dev/claims"]["subject_token"], json!({"iss": provider.issuer, "id": "token-7"}));
    assert_eq!(claims["client_id"], SERVER);
    // Only the server for which the token was issued can use it, and only for what the user has rights to.
    let stolen = exchange(&up, "agent/demo", ask(&provider.token(&user(&provider)))).await.unwrap_err();
    assert_eq!((reason(&stolen).as_str(), stolen.code()), ("INVALID_FIELD", tonic::Code::InvalidArgument));
    let mut wider = ask(&provider.token(&user(&provider)));
    wider.scopes = vec!["repo:read".into()];
    wider.task = Some(Task::OpenTask(pb::TaskTerms::default()));
    assert_eq!(reason(&exchange(&up, "mcp/repos", wider).await.unwrap_err()), "WIDER_THAN_PARENT");
    let nothing = pb::SubjectToken { token: provider.token(&user(&provider)), r#type: 0 };
    let untyped = pb::ExchangeRequest { subject_token: Some(nothing), ..ask("") };
    assert_eq!(reason(&exchange(&up, "mcp/repos", untyped).await.unwrap_err()), "INVALID_FIELD");
    // A batch and a stream are handled in the same way.
    let both = vec![ask(&provider.token(&user(&provider))), ask("a.b.c")];
    let batch = pb::BatchExchangeRequest { exchanges: both, all_or_nothing: false };
    let results =
        TokenServiceClient::new(up.channel("mcp/repos").await).batch_exchange(batch).await.unwrap().into_inner().results;
    let is_issued = |r: &pb::ExchangeResult| matches!(r.result, Some(pb::exchange_result::Result::Issued(_)));
    assert_eq!(results.iter().map(is_issued).collect::<Vec<_>>(), [true, false]);
    let named = pb::ExchangeRequest { request_id: "s-1".into(), ..ask(&provider.token(&user(&provider))) };
    let message = pb::StreamExchangeRequest { ask: Some(pb::stream_exchange_request::Ask::Exchange(named)) };
    let stream =
        TokenServiceClient::new(up.channel("mcp/repos").await).stream_exchange(tokio_stream::once(message)).await.unwrap();
    let answer = stream.into_inner().message().await.unwrap().unwrap();
    assert!(matches!(answer.result, Some(pb::stream_exchange_response::Result::Issued(_))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_issuer_has_just_begun_to_use_is_fetched_for_the_call() {
    let provider = Provider::start();
    let up = up(&provider).await;
    tokio::time::sleep(Duration::from_millis(mayfly::limits::OIDC_REFETCH_MS + 200)).await;
    provider.rotate_to("k2", crate::signer::Signer::new("ES256"), true);
    provider.withdraw("k1");
    assert!(exchange(&up, "mcp/repos", ask(&provider.token(&user(&provider)))).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_for_a_user_is_the_users_and_explain_says_for_whom() {
    let provider = Provider::start();
    let up = up(&provider).await;
    let token = provider.token(&user(&provider));
    let sent = pb::SubjectToken { token: token.clone(), r#type: pb::SubjectTokenType::Oidc.into() };
    let open = pb::OpenTaskRequest { terms: Some(terms()), subject_token: Some(sent), ..Default::default() };
    let task = TaskServiceClient::new(up.channel("mcp/repos").await).open_task(open).await.unwrap().into_inner().task.unwrap();
    let Some(pb::identity::Identity::Person(owner)) = task.owner.unwrap().identity else { panic!("no person") };
    assert_eq!((owner.issuer.as_str(), owner.sub.as_str()), (provider.issuer.as_str(), "ada"));
    let at = pb::ExchangeRequest { task: Some(Task::TaskId(task.task_id.clone())), ..ask(&token) };
    let issued = exchange(&up, "mcp/repos", at).await.unwrap();
    let context = up.world.write_context("operator/you", up.admin()).unwrap();
    let said = mayfly(&context, &["explain", &issued.credential_id], None);
    assert!(said.contains("on behalf of") && said.contains("ada") && said.contains("token-7"), "{said}");
    assert!(!said.contains(&token), "the token is nowhere");
}

fn mayfly(context: &Path, args: &[&str], stdin: Option<&str>) -> String {
    use std::io::Write as _;
    let mut command = Command::new(MAYFLY);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
        command.env_remove(name);
    }
    command.args(args).arg("--config").arg(context);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.unwrap_or_default().as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{args:?}: {said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_takes_the_token_from_stdin_or_a_file() {
    let provider = Provider::start();
    let up = up(&provider).await;
    let context = up.world.write_context("mcp/repos", up.workload()).unwrap();
    let token = provider.token(&user(&provider));
    let by = ["--subject-token", "-", "--subject-token-type", "oidc"];
    let get = [&["get", "repos", "--scope", "issues:read", "--purpose", "triage"][..], &by].concat();
    let said = mayfly(&context, &get, Some(&token));
    assert!(said.contains("bounded by"), "{said}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{token}\n")).unwrap();
    let path = file.path().to_str().unwrap();
    let by = ["--subject-token", path, "--subject-token-type", "oidc"];
    let open = [&["task", "open", "--upstream", "repos=issues:read", "--purpose", "triage", "-o", "name"][..], &by].concat();
    let task = mayfly(&context, &open, None).trim().to_owned();
    let child = ["task", "open", "--parent", &task, "--upstream", "repos=issues:read", "--purpose", "a part", "-o", "name"];
    let child = mayfly(&context, &child, None).trim().to_owned();
    let tree = mayfly(&context, &["task", "show", &task, "--tree"], None);
    let (first, second) = (tree.find(&task).unwrap(), tree.find(&format!("└ {child}")).unwrap());
    assert!(first < second && tree.contains("ada"), "{tree}");
    mayfly(&context, &["task", "complete", &task], None);
    let tree = mayfly(&context, &["task", "show", &task, "--tree", "--ended"], None);
    assert_eq!(tree.matches("completed").count(), 2, "{tree}");
}

const FOR_SOMEBODY: &str = r#"
@id("for-somebody-takes-somebody")
forbid (principal, action == Action::"Exchange", resource == Upstream::"repos")
when { context has subject }
unless { context.approvals.count >= 1 };
"#;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_approves_what_is_done_on_their_own_behalf() {
    use mayfly::pb::mayfly::v1::approval_service_client::ApprovalServiceClient;
    use tonic_types::StatusExt as _;
    let (you, colleague) = ("spiffe://dev.mayfly.internal/operator/you", "spiffe://dev.mayfly.internal/operator/colleague");
    let (_dir, world) = crate::kit::world(DevSettings { engine: mayfly::cli::dev::DevEngine::Memory, ..DevSettings::default() });
    let add = |path: &str, change: &dyn Fn(String) -> String| {
        let path = world.dir().join(path);
        std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
    };
    add("policy/policy.cedar", &|text| text + FOR_SOMEBODY);
    add("policy/upstreams/repos.toml", &|text| text.replace(&format!("[\"{you}\"]"), &format!("[\"{you}\", \"{colleague}\"]")));
    // The trust domain gets a JWT authority beside its root.
    let signer = crate::signer::Signer::new("ES256");
    let mut jwk = signer.jwk();
    (jwk["use"], jwk["kid"]) = ("jwt-svid".into(), "jwt1".into());
    add("bundle.pem", &|pem| {
        let root: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        json!({"keys": [{"use": "x509-svid", "kty": "EC", "x5c": [root]}, jwk]}).to_string()
    });
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    let now = System::real().wall().seconds();
    let claims = json!({"sub": you, "aud": [REPOS], "iat": now, "exp": now + 300});
    let token = signer.token(&json!({"alg": "ES256", "kid": "jwt1", "typ": "JWT"}), &claims);
    let sent = pb::SubjectToken { token, r#type: pb::SubjectTokenType::JwtSvid.into() };
    let want = pb::ExchangeRequest { subject_token: Some(sent), ..ask("") };
    let server = world.channel("mcp/repos", running.addresses().workload).await.unwrap();
    let no = TokenServiceClient::new(server.clone()).exchange(want.clone()).await.unwrap_err();
    assert_eq!(reason(&no), "APPROVAL_NEEDED", "{no:?}");
    let id = no.get_error_details().error_info().and_then(|i| i.metadata.get("approval_id").cloned()).unwrap();
    let give = |name: &'static str| {
        let channel = world.channel(name, running.addresses().admin);
        let id = id.clone();
        async move {
            let mut approvals = ApprovalServiceClient::new(channel.await.unwrap());
            let shown =
                approvals.get_approval(pb::GetApprovalRequest { approval_id: id.clone() }).await?.into_inner().approval.unwrap();
            assert_eq!(shown.subject.unwrap().sub, you, "who approves sees on whose behalf");
            let decision = pb::DecideApprovalRequest {
                approval_id: id,
                request_sha256: shown.request_sha256,
                decision: pb::ApprovalDecision::Give.into(),
                reason: "as agreed".into(),
                ..Default::default()
            };
            approvals.decide_approval(decision).await
        }
    };
    let own = give("operator/you").await.unwrap_err();
    assert_eq!(reason(&own), "NOT_YOURS", "{own:?}");
    give("operator/colleague").await.unwrap();
    let issued = TokenServiceClient::new(server).exchange(want).await.unwrap().into_inner().issued.unwrap();
    assert_eq!((claims_of(&issued)["sub"].as_str(), issued.approval_id), (Some(you), id));
    running.stop();
}
