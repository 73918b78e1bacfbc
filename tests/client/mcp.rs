//! The example of an MCP server, called by a client of the same SDK, in front of an upstream that verifies credentials. Its SVID rotates,
//! its credential is renewed, and both are refused once the task was revoked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use mayfly::cli::dev::{DevSettings, DevWorld};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly_client::middleware::{Protect, Verified};
use rmcp::model::{CallToolRequestParams, CallToolResult, RequestMetaObject};
use rmcp::service::RunningService;
use rmcp::transport::TokioChildProcess;
use rmcp::{RoleClient, ServiceExt as _};
use serde_json::json;

use super::kit::{PATIENCE, Up};
use super::protect::{RESOURCE, following};

const SERVER: &str = "mcp/echo";

/// The example as `cargo test --workspace` builds it. For a single package, cargo would select other features and build all dependencies
/// again.
fn example() -> PathBuf {
    let build = ["build", "--quiet", "--locked", "--workspace", "--example", "mcp_server"];
    let built = Command::new(env!("CARGO")).args(build).current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
    assert!(built.success(), "the example is built");
    Path::new(env!("CARGO_BIN_EXE_mayfly")).parent().unwrap().join("examples/mcp_server")
}

/// Answers with the search text, to callers with a credential for that search.
async fn search(axum::Extension(verified): axum::Extension<Verified>, uri: axum::http::Uri) -> (axum::http::StatusCode, String) {
    let query = uri.query().unwrap_or_default().trim_start_matches("query=").to_owned();
    match verified.serves("echo:read", "search", &json!({"query": query})) {
        Ok(()) => (axum::http::StatusCode::OK, format!("nothing like {query}")),
        Err(no) => (axum::http::StatusCode::FORBIDDEN, no.to_string()),
    }
}

async fn said(axum::Extension(verified): axum::Extension<Verified>) -> String {
    verified.claims().jti.to_string()
}

/// The upstream, on this listener.
async fn serve(listener: tokio::net::TcpListener, up: &Up) {
    let verifier = following(up).await;
    let protect = Protect::new(verifier.clone(), RESOURCE).scope("echo:read");
    let service = Router::new().route("/search", get(search)).route("/said", get(said)).layer(protect);
    tokio::spawn(async move {
        let _following = verifier;
        axum::serve(listener, service).await
    });
}

struct Agent {
    client: RunningService<RoleClient, ()>,
    task: String,
}

impl Agent {
    /// Opens a task in which the server may act, and starts the server.
    async fn begin(up: &Up, program: &Path) -> Agent {
        let terms = pb::TaskTerms {
            purpose: "look something up".into(),
            upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] }],
            tools: vec!["search".into(), "listen".into()],
            callers: vec![DevWorld::id(SERVER)],
            ..Default::default()
        };
        let ask = pb::OpenTaskRequest { terms: Some(terms), ..Default::default() };
        let opened = TaskServiceClient::new(up.channel("agent/demo").await).open_task(ask).await.unwrap();
        let svid = up.world.svid(SERVER);
        let mut command = tokio::process::Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
            command.env_remove(name);
        }
        command.env("MAYFLY_ADDRESS", up.running.addresses().workload.to_string());
        command.env("MAYFLY_SERVER_ID", Up::server_id().to_string());
        command.env("MAYFLY_SVID", svid.certificate).env("MAYFLY_KEY", svid.key).env("MAYFLY_BUNDLE", up.world.bundle());
        let (server, _) = TokioChildProcess::builder(command).stderr(Stdio::inherit()).spawn().unwrap();
        let client = tokio::time::timeout(PATIENCE, ().serve(server)).await.unwrap().unwrap();
        Agent { client, task: opened.into_inner().task.unwrap().task_id }
    }

    async fn call(&self, tool: &'static str, arguments: serde_json::Value) -> (bool, String) {
        let mut meta = RequestMetaObject::new();
        meta.insert("mayfly/task".into(), json!(self.task));
        let mut params = CallToolRequestParams::new(tool);
        params.arguments = arguments.as_object().cloned();
        params.meta = Some(meta);
        let answer = tokio::time::timeout(PATIENCE, self.client.call_tool(params)).await.unwrap().unwrap();
        (answer.is_error.unwrap_or_default(), text(&answer))
    }
}

fn text(answer: &CallToolResult) -> String {
    let value = serde_json::to_value(answer).unwrap();
    value["content"][0]["text"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mcp_server_works_while_its_svid_rotates_and_its_credential_is_renewed_and_stops_when_its_task_is_revoked() {
    let program = tokio::task::spawn_blocking(example).await.unwrap();
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let up = Up::edited(DevSettings::default(), |echo| echo.replace("127.0.0.1:7780", &at));
    serve(listener, &up).await;
    up.world.issue(SERVER, 6_000).unwrap();
    let agent = Agent::begin(&up, &program).await;
    let tools = agent.client.list_all_tools().await.unwrap();
    assert_eq!(tools.iter().map(|t| &*t.name).collect::<std::collections::BTreeSet<_>>(), ["listen", "search"].into());

    let mut credentials = std::collections::BTreeSet::new();
    for round in 0..24 {
        // Each SVID lives for six seconds, and so does the connection made with it.
        if round % 6 == 0 {
            up.world.issue(SERVER, 6_000).unwrap();
        }
        let found = agent.call("search", json!({"query": format!("moth{round}")})).await;
        assert_eq!(found, (false, format!("200 nothing like moth{round}")));
        let (failed, heard) = agent.call("listen", json!({})).await;
        assert!(!failed && heard.starts_with("200 cred_"), "{heard}");
        credentials.insert(heard);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert!((2..12).contains(&credentials.len()), "shared by calls, and renewed: {credentials:?}");

    let held = up.client("agent/demo").await;
    let held = held.credential("echo").scope("echo:read").tool("listen").task(agent.task.clone()).get().await.unwrap();
    let revoke = ["revoke", "--task", &agent.task, "--reason", "enough", "--wait", "--confirm", "all"];
    let told = up.operator(&revoke);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    // The upstream refuses the credential it holds, and mayfly refuses to issue another one.
    let (_, heard) = agent.call("listen", json!({})).await;
    assert!(!heard.starts_with("200"), "{heard}");
    let (failed, no) = agent.call("search", json!({"query": "moths"})).await;
    assert!(failed && no.contains(&agent.task), "{no}");
    assert!(!up.is_active(held.token().expose()).await);
    agent.client.cancel().await.unwrap();
}
