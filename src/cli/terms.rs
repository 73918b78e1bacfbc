//! The terms of a task, as flags, and the defaults for terms that are omitted.

use std::time::Duration;

use clap::Args;

use super::args::{self, wire_duration};
use super::error::CliError;
use super::server::ApiClient;
use mayfly_proto::mayfly::v1::{self as pb, upstream_service_client::UpstreamServiceClient};

/// The terms that a task is opened with. An omitted term never widens the task.
#[derive(Args, Clone)]
pub struct TermsArgs {
    /// Purpose of the task, shown in approvals and in the audit log
    #[arg(long, value_name = "TEXT")]
    pub purpose: String,
    /// Upstream with its scopes; can be repeated [default scope: the first that is not sensitive]
    #[arg(long, value_name = "NAME[=SCOPE,…]", required = true, value_parser = allowance)]
    pub upstream: Vec<pb::Allowance>,
    /// Tool that exchanges may name; can be repeated
    #[arg(long, value_name = "NAME")]
    pub tool: Vec<String>,
    /// Let exchanges name any tool that policy permits
    #[arg(long, conflicts_with = "tool")]
    pub any_tool: bool,
    /// Kind of credential; can be repeated [default: the kinds of the upstreams]
    #[arg(long, value_parser = args::kind())]
    pub kind: Vec<pb::CredentialKind>,
    /// SPIFFE ID that may also act in the task; can be repeated
    #[arg(long, value_name = "SPIFFE_ID")]
    pub caller: Vec<String>,
    /// Require that every credential issued in the task is bound to a key
    #[arg(long)]
    pub key_bound: bool,
    /// Lifetime of the task [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    pub ttl: Option<Duration>,
    /// Maximum lifetime of the task, extensions included [default: the value of --ttl]
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    pub max_ttl: Option<Duration>,
    /// End the task if no heartbeat arrives for this long
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    pub heartbeat: Option<Duration>,
}

/// Parses `github=repo:read,issues:read`.
pub fn allowance(text: &str) -> Result<pb::Allowance, String> {
    let (upstream, scopes) = text.split_once('=').unwrap_or((text, ""));
    let list: Vec<String> = scopes.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect();
    if upstream.is_empty() || (text.contains('=') && list.is_empty()) {
        return Err("expected an upstream with its scopes, like github=repo:read,issues:read".to_owned());
    }
    Ok(pb::Allowance { upstream: upstream.to_owned(), scopes: list })
}

impl TermsArgs {
    /// Converts the terms to their protobuf message. Asks the server about upstreams named without scopes.
    pub async fn on_the_wire(self, server: &ApiClient, parent: Option<String>) -> Result<pb::TaskTerms, CliError> {
        let mut upstreams: Vec<pb::Allowance> = Vec::new();
        for mut allowed in self.upstream {
            if allowed.scopes.is_empty() {
                allowed.scopes.push(first_scope(&registration(server, &allowed.upstream).await?, None)?);
            }
            match upstreams.iter_mut().find(|u| u.upstream == allowed.upstream) {
                Some(same) => same.scopes.extend(allowed.scopes),
                None => upstreams.push(allowed),
            }
        }
        Ok(pb::TaskTerms {
            purpose: self.purpose,
            upstreams,
            tools: self.tool,
            any_tool: self.any_tool,
            kinds: self.kind.into_iter().map(i32::from).collect(),
            callers: self.caller,
            key_bound: self.key_bound,
            ttl: self.ttl.map(wire_duration),
            max_ttl: self.max_ttl.map(wire_duration),
            heartbeat_interval: self.heartbeat.map(wire_duration),
            parent_task_id: parent.unwrap_or_default(),
        })
    }
}

/// Fetches the registration of an upstream.
pub async fn registration(server: &ApiClient, upstream: &str) -> Result<pb::Upstream, CliError> {
    let request = pb::GetUpstreamRequest { upstream: upstream.to_owned() };
    let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).get_upstream(q).await }).await?;
    answer.upstream.ok_or_else(|| CliError::ours("the server answered without the upstream"))
}

/// The default scope of an upstream: its first scope that is not sensitive and, in a task, that is among `within`.
pub fn first_scope(upstream: &pb::Upstream, within: Option<&[String]>) -> Result<String, CliError> {
    let allowed = |scope: &&pb::UpstreamScope| within.is_none_or(|list| list.contains(&scope.scope));
    let found = upstream.scopes.iter().filter(|s| !s.sensitive).find(allowed);
    found.map(|s| s.scope.clone()).ok_or_else(|| {
        let all: Vec<&str> = upstream.scopes.iter().filter(allowed).map(|s| s.scope.as_str()).collect();
        let choices = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
        CliError::Usage(format!(
            "{}: name the scopes; a sensitive one is never taken by default (there are: {choices})",
            upstream.upstream
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> pb::Upstream {
        let scope = |name: &str, sensitive| pb::UpstreamScope { scope: name.to_owned(), sensitive };
        pb::Upstream {
            upstream: "echo".to_owned(),
            scopes: vec![scope("admin", true), scope("read", false), scope("write", false)],
            ..pb::Upstream::default()
        }
    }

    #[test]
    fn a_scope_that_is_left_out_is_one_and_never_a_sensitive_one() {
        let within = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(first_scope(&echo(), None).unwrap(), "read");
        assert_eq!(first_scope(&echo(), Some(&within(&["write", "admin"]))).unwrap(), "write");
        let Err(CliError::Usage(text)) = first_scope(&echo(), Some(&within(&["admin"]))) else { panic!("taken") };
        assert!(text.contains("there are: admin"), "{text}");
    }

    #[test]
    fn an_upstream_comes_with_its_scopes() {
        assert_eq!(allowance("a=b:c,d").unwrap().scopes, ["b:c", "d"]);
        assert_eq!(allowance("a").unwrap(), pb::Allowance { upstream: "a".to_owned(), scopes: Vec::new() });
        assert!(allowance("=x").is_err() && allowance("a=").is_err() && allowance("").is_err());
    }
}
