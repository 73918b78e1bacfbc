//! The present state of the server, with the version of everything. Reading it needs the right to read only.

use std::collections::BTreeMap;

use crate::error::CliError;
use crate::list;
use crate::policy::fetch_set;
use crate::server::ApiClient;
use mayfly_api::wire::{binding_from_pb, upstream_from_pb};
use mayfly_base::limits;
use mayfly_ledger::upstream::binding::Binding;
use mayfly_ledger::upstream::registry::Upstream;
use mayfly_proto::mayfly::v1::{
    self as pb, server_service_client::ServerServiceClient, upstream_service_client::UpstreamServiceClient,
};

/// A registration in effect.
#[derive(Debug)]
pub struct PresentUpstream {
    /// The registration.
    pub upstream: Upstream,
    /// The version in effect.
    pub version: u64,
    /// Whether it is active, disabled or retired.
    pub state: pb::RegistrationState,
}

/// A binding in effect, or the last version of one that was removed.
#[derive(Debug)]
pub struct PresentBinding {
    /// The binding. Without scopes, it was removed.
    pub binding: Binding,
    /// The version in effect.
    pub version: u64,
    /// The environment of its upstream.
    pub environment: String,
}

/// The documents in effect.
#[derive(Debug, Default)]
pub struct Present {
    /// The policy sets by environment. `None`: the environment has none.
    pub policies: BTreeMap<String, Option<pb::PolicySet>>,
    /// The registrations by name, retired ones included.
    pub upstreams: BTreeMap<String, PresentUpstream>,
    /// The bindings by name, removed ones included.
    pub bindings: BTreeMap<String, PresentBinding>,
}

impl Present {
    /// Whether a registration of this name can be issued for, or could again.
    pub fn registered(&self, upstream: &str) -> bool {
        self.upstreams.get(upstream).is_some_and(|found| found.state != pb::RegistrationState::Retired)
    }
}

/// Reads what is in effect.
pub async fn fetch(server: &ApiClient) -> Result<Present, CliError> {
    let status =
        server.call(pb::GetStatusRequest {}, |c, q| async move { ServerServiceClient::new(c).get_status(q).await }).await?;
    let mut present = Present::default();
    for environment in status.environments {
        let set = fetch_set(server, &environment, pb::PolicyMode::Enforce).await?;
        present.policies.insert(environment, set);
    }
    let of_server = |no| CliError::ours(format!("an answer of the server: {no}"));
    let page = |page_size, page_token| crate::upstream::page_of(server, &None, None, page_size, page_token);
    let (upstreams, more) = list::all(2 * limits::UPSTREAMS, &page).await?;
    whole(more, "upstreams")?;
    for found in upstreams {
        let (version, state) = (found.version, found.state());
        let upstream = upstream_from_pb(&found).map_err(of_server)?;
        present.upstreams.insert(upstream.name.clone(), PresentUpstream { upstream, version, state });
    }
    let page = |page_size, page_token| async move {
        let request = pb::ListBindingsRequest { page_size, page_token, ..Default::default() };
        let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).list_bindings(q).await }).await?;
        Ok((answer.bindings, answer.next_page_token))
    };
    let (bindings, more) = list::all(2 * limits::BINDINGS, &page).await?;
    whole(more, "bindings")?;
    for found in bindings {
        let binding = binding_from_pb(&found).map_err(of_server)?;
        let (version, environment) = (found.version, found.environment);
        present.bindings.insert(binding.name.clone(), PresentBinding { binding, version, environment });
    }
    Ok(present)
}

fn whole(more: bool, what: &str) -> Result<(), CliError> {
    match more {
        true => Err(CliError::ours(format!("the server has more {what} than this version of mayfly knows a bound for"))),
        false => Ok(()),
    }
}
