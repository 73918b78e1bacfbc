//! An MCP server on stdio with the official Rust SDK. Each call to the upstream uses its own credential, for this task, this tool and these
//! arguments.
//!
//! The task comes from the call's `_meta` or from `MAYFLY_TASK`; without either, a task is opened for the call. The server's address and
//! the identity come from the environment variables in the README.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use mayfly_client::{Credential, Mayfly, task_of_meta};
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock, RequestMetaObject};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler, ServiceExt as _, schemars, tool, tool_handler, tool_router, transport};
use tokio::net::TcpStream;

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[derive(serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
struct Query {
    /// The text to search for.
    query: String,
}

struct Echo {
    mayfly: Mayfly,
    tool_router: ToolRouter<Self>,
}

/// Errors go to the agent, so that it can ask for the rights that it lacks.
fn told(found: Result<String, Failed>) -> CallToolResult {
    match found {
        Ok(text) => CallToolResult::success(vec![ContentBlock::text(text)]),
        Err(no) => CallToolResult::error(vec![ContentBlock::text(no.to_string())]),
    }
}

#[tool_router]
impl Echo {
    #[tool(description = "Searches the echo upstream")]
    async fn search(&self, Parameters(query): Parameters<Query>, context: RequestContext<RoleServer>) -> CallToolResult {
        told(self.found(&query, &context.meta).await)
    }

    #[tool(description = "Listens to what was said")]
    async fn listen(&self, context: RequestContext<RoleServer>) -> CallToolResult {
        told(self.heard(&context.meta).await)
    }
}

// A short lifetime, to show the renewal while the server runs.
const LIFE: Duration = Duration::from_secs(3);

impl Echo {
    async fn heard(&self, meta: &RequestMetaObject) -> Result<String, Failed> {
        let task = task_of_meta(&serde_json::to_value(meta)?)?;
        // Without arguments: the calls of one task share the credential until shortly before it expires.
        let asked = self.mayfly.credential("echo").scope("echo:read").tool("listen").ttl(LIFE);
        let credential = asked.purpose("listen for whoever asked").task(task).get().await?;
        let (status, text) = get(&credential, "/said").await?;
        credential.used(status);
        Ok(format!("{status} {text}"))
    }

    async fn found(&self, query: &Query, meta: &RequestMetaObject) -> Result<String, Failed> {
        let task = task_of_meta(&serde_json::to_value(meta)?)?;
        let asked = self.mayfly.credential("echo").scope("echo:read").tool("search").arguments(query);
        let credential = asked.purpose("search for whoever asked").task(task).get().await?;
        let (status, text) = get(&credential, &format!("/search?query={}", query.query)).await?;
        credential.used(status);
        credential.release().await?;
        Ok(format!("{status} {text}"))
    }
}

/// Fetches from the upstream. It runs on this host; elsewhere it would be called over TLS.
async fn get(credential: &Credential, path: &str) -> Result<(u16, String), Failed> {
    let host = credential.base_url().trim_start_matches("http://");
    let stream = TokioIo::new(TcpStream::connect(host).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection);
    let mut request = http::Request::get(path).header("host", host).body(Empty::<Bytes>::new())?;
    request.headers_mut().extend(credential.headers());
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

#[tool_handler(router = self.tool_router, name = "echo", version = "1.0.0")]
impl ServerHandler for Echo {}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mayfly = Mayfly::from_env().await?;
    let echo = Echo { mayfly: mayfly.clone(), tool_router: Echo::tool_router() };
    // Runs until the client closes stdin.
    echo.serve(transport::stdio()).await?.waiting().await?;
    mayfly.close().await;
    Ok(())
}
