//! Bindings: requested by one operator, approved by another, required by policy, narrowed immediately.

use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::pb::mayfly::v1::upstream_service_client::UpstreamServiceClient;
use mayfly::serve::client;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::kit::reason;
use crate::policy_rig::{Rig, approval_of};

const MCP: &str = "spiffe://dev.mayfly.internal/mcp/echo";

/// An MCP server may use a tool only under a binding.
const BOUND: &str = "\n@id(\"tools-are-bound\")\nforbid (principal in Role::\"mcp\", action == Action::\"Exchange\", resource)\n\
                     when { context has tool } unless { context has binding };\n";

fn binding(name: &str, tools: &[&str], scopes: &[&str]) -> pb::Binding {
    let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect();
    pb::Binding {
        binding: name.into(),
        upstream: "echo".into(),
        callers: vec![MCP.into()],
        tools: texts(tools),
        scopes: texts(scopes),
        ..Default::default()
    }
}

async fn upstreams(rig: &Rig) -> UpstreamServiceClient<Channel> {
    UpstreamServiceClient::new(rig.up.world.channel("operator/you", rig.up.admin()).await.unwrap())
}

fn request(binding: pb::Binding) -> pb::SetBindingRequest {
    let confirmation = Some(pb::Confirmation { credentials: 0, all: true });
    pb::SetBindingRequest { binding: Some(binding), reason: "test".into(), confirmation, ..Default::default() }
}

async fn set(rig: &Rig, binding: pb::Binding) -> Result<pb::SetBindingResponse, Status> {
    upstreams(rig).await.set_binding(request(binding)).await.map(tonic::Response::into_inner)
}

async fn list(rig: &Rig) -> Vec<pb::Binding> {
    let request = pb::ListBindingsRequest { upstream: "echo".into(), ..Default::default() };
    upstreams(rig).await.list_bindings(request).await.unwrap().into_inner().bindings
}

/// Adds a binding, with the approval of the other operator.
async fn added(rig: &Rig, binding: pb::Binding) {
    let id = approval_of(&set(rig, binding).await.unwrap_err());
    rig.give("operator/colleague", &id, true).await.unwrap();
}

/// A tool call of the MCP server.
async fn call(rig: &Rig, change: impl Fn(&mut pb::ExchangeRequest)) -> Result<pb::Issued, Status> {
    let terms = pb::TaskTerms {
        purpose: "test".into(),
        upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into(), "echo:write".into()] }],
        any_tool: true,
        ..Default::default()
    };
    let mut request = pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::OpenTask(terms)),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        tool: "search".into(),
        ..Default::default()
    };
    change(&mut request);
    TokenServiceClient::new(rig.up.channel("mcp/echo").await).exchange(request).await.map(|r| r.into_inner().issued.unwrap())
}

async fn tool(rig: &Rig, tool: &str, scope: &str) -> Result<pb::Issued, Status> {
    call(rig, |r| (r.tool, r.scopes) = (tool.into(), vec![scope.into()])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_takes_effect_when_somebody_else_approves_it() {
    let rig = Rig::new();
    rig.put(&|text| text + BOUND).await.unwrap();
    assert_eq!(reason(&tool(&rig, "search", "echo:read").await.unwrap_err()), "DENIED_BY_POLICY");
    let new = binding("echo-search", &["search"], &["echo:read"]);
    let would = upstreams(&rig).await.set_binding(pb::SetBindingRequest { dry_run: true, ..request(new.clone()) }).await.unwrap();
    let would = would.into_inner();
    assert!(would.takes_another && !would.not_read, "{would:?}");
    let mut socket = UpstreamServiceClient::new(client::unix(&rig.up.socket()).await.unwrap());
    assert_eq!(reason(&socket.set_binding(request(new.clone())).await.unwrap_err()), "NOT_YOURS");
    let id = approval_of(&set(&rig, new.clone()).await.unwrap_err());
    assert!(list(&rig).await.is_empty());
    assert_eq!(reason(&tool(&rig, "search", "echo:read").await.unwrap_err()), "DENIED_BY_POLICY", "it waits");
    let shown = rig.show("operator/colleague", &id).await;
    let Some(pb::approval_change::To::Binding(asked)) = shown.change.unwrap().to else { panic!("no binding") };
    assert_eq!(
        (asked.tools.as_slice(), asked.version, shown.governs),
        (&["search".to_owned()][..], 1, vec!["binding echo-search".to_owned()])
    );
    assert_eq!(reason(&rig.give("operator/you", &id, true).await.unwrap_err()), "NOT_YOURS", "whoever asked");
    rig.give("operator/colleague", &id, true).await.unwrap();
    let there = list(&rig).await.remove(0);
    assert_eq!((there.version, there.environment.as_str(), there.callers.as_slice()), (1, "dev", &[MCP.to_owned()][..]));
    let issued = tool(&rig, "search", "echo:read").await.unwrap();
    assert!(rig.good(&issued).await);
    for (name, scope) in [("delete", "echo:read"), ("search", "echo:write")] {
        assert_eq!(reason(&tool(&rig, name, scope).await.unwrap_err()), "DENIED_BY_POLICY", "{name} {scope}");
    }
    // A request that names a binding has to be covered by this binding.
    call(&rig, |r| r.binding = "echo-search".into()).await.unwrap();
    let no = call(&rig, |r| (r.binding, r.tool) = ("echo-search".into(), "delete".into())).await.unwrap_err();
    assert_eq!(reason(&no), "OUTSIDE_UPSTREAM", "{no:?}");
    assert_eq!(reason(&call(&rig, |r| r.binding = "other".into()).await.unwrap_err()), "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrower_binding_takes_effect_at_once_and_revokes_what_it_no_longer_covers() {
    let rig = Rig::new();
    rig.put(&|text| text + BOUND).await.unwrap();
    added(&rig, binding("echo-tools", &["search", "write"], &["echo:read", "echo:write"])).await;
    added(&rig, binding("echo-other", &["other"], &["echo:read"])).await;
    let stays = [tool(&rig, "search", "echo:read").await.unwrap(), tool(&rig, "other", "echo:read").await.unwrap()];
    let goes = [tool(&rig, "write", "echo:write").await.unwrap(), tool(&rig, "search", "echo:write").await.unwrap()];
    let narrower = pb::Binding { version: 1, ..binding("echo-tools", &["search"], &["echo:read"]) };
    let unconfirmed = pb::SetBindingRequest { confirmation: None, ..request(narrower.clone()) };
    assert_eq!(reason(&upstreams(&rig).await.set_binding(unconfirmed).await.unwrap_err()), "CONFIRM_NEEDED");
    let done = set(&rig, narrower.clone()).await.unwrap();
    assert_eq!((done.hits.unwrap().credentials, done.beyond, done.takes_another), (2, 0, false));
    for issued in &goes {
        assert!(!rig.good(issued).await);
    }
    for issued in &stays {
        assert!(rig.good(issued).await);
    }
    assert_eq!(reason(&set(&rig, narrower).await.unwrap_err()), "DECIDED_ON_OLD_STATE");
    // Widening the binding again needs the approval of another operator.
    let wider = pb::Binding { version: 2, ..binding("echo-tools", &["search", "write"], &["echo:read"]) };
    approval_of(&set(&rig, wider).await.unwrap_err());
    // Removing the binding revokes everything that it covered.
    let none = pb::Binding { version: 2, callers: Vec::new(), ..binding("echo-tools", &[], &[]) };
    assert_eq!(set(&rig, none).await.unwrap().hits.unwrap().credentials, 1);
    assert!(!rig.good(&stays[0]).await && rig.good(&stays[1]).await);
    assert_eq!(reason(&tool(&rig, "search", "echo:read").await.unwrap_err()), "DENIED_BY_POLICY");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_is_of_something_that_is_there() {
    let rig = Rig::new();
    let fields = async |binding: pb::Binding| {
        let no = set(&rig, binding).await.unwrap_err();
        assert_eq!(reason(&no), "INVALID_FIELD", "{no:?}");
        no.get_error_details().bad_request().unwrap().field_violations[0].field.clone()
    };
    let good = binding("b", &["search"], &["echo:read"]);
    assert_eq!(fields(pb::Binding { scopes: vec!["echo:fly".into()], ..good.clone() }).await, "binding.scopes");
    assert_eq!(fields(pb::Binding { callers: vec!["mcp".into()], ..good.clone() }).await, "binding.callers");
    assert_eq!(fields(pb::Binding { callers: Vec::new(), ..good.clone() }).await, "binding.callers");
    assert_eq!(fields(pb::Binding { any_tool: true, ..good.clone() }).await, "binding.any_tool");
    assert_eq!(reason(&set(&rig, pb::Binding { upstream: "none".into(), ..good.clone() }).await.unwrap_err()), "NOT_FOUND");
    added(&rig, good.clone()).await;
    let moved = pb::Binding { version: 1, upstream: "repos".into(), scopes: vec!["repo:read".into()], ..good.clone() };
    assert_eq!(fields(moved).await, "binding.upstream");
    let mut operator = upstreams(&rig).await;
    let unread = operator.set_binding(pb::SetBindingRequest { dry_run: true, ..request(binding("c", &["x"], &["echo:read"])) });
    assert!(unread.await.unwrap().into_inner().not_read, "no policy asks for a binding");
    let mut agent = UpstreamServiceClient::new(rig.up.channel("agent/demo").await);
    assert_eq!(reason(&agent.set_binding(request(good)).await.unwrap_err()), "NOT_AUTHENTICATED");
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_that_come_together_are_each_bound_by_their_tool() {
    let rig = Rig::new();
    rig.put(&|text| text + BOUND).await.unwrap();
    added(&rig, binding("echo-search", &["search"], &["echo:read"])).await;
    added(&rig, binding("echo-list", &["list"], &["echo:read"])).await;
    let first = tool(&rig, "search", "echo:read").await.unwrap();
    let exchanges = ["search", "list", "delete", "list", "search"].map(|tool| pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(first.task_id.clone())),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        tool: tool.into(),
        ..Default::default()
    });
    let request = pb::BatchExchangeRequest { exchanges: exchanges.to_vec(), ..Default::default() };
    let mut tokens = TokenServiceClient::new(rig.up.channel("mcp/echo").await);
    let results = tokens.batch_exchange(request).await.unwrap().into_inner().results;
    let good: Vec<bool> = results.iter().map(|r| matches!(r.result, Some(pb::exchange_result::Result::Issued(_)))).collect();
    assert_eq!(good, [true, true, false, true, true]);
    // Each credential is under its own binding: removing one binding leaves the credentials of the others.
    let none = pb::Binding { version: 1, callers: Vec::new(), ..binding("echo-list", &[], &[]) };
    assert_eq!(set(&rig, none).await.unwrap().hits.unwrap().credentials, 2);
    assert!(rig.good(&first).await);
}
