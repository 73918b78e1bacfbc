//! `[workload_api]`: which agent to ask, which of its SVIDs to use, and which other parts of the configuration come from the agent.

use std::path::Path;

use super::build::key_pair;
use super::values::{Conflict, Values};
use super::{KeyPair, WorkloadApiConfig};
use crate::workload_api::{AgentRequest, Endpoint};
use mayfly_identity::spiffe_id::{SpiffeId, TrustDomain};

/// The standard variable for the agent's address (SPIFFE Workload Endpoint, section 4).
const VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";

/// The files of `[tls]`, and the agent, if an agent is needed for what `[tls]` and `[[bundles]]` leave out.
pub(super) fn identity(
    values: &Values,
    base: &Path,
    environment: &[(String, String)],
    conflict: &mut Conflict<'_>,
) -> (Option<KeyPair>, Option<WorkloadApiConfig>) {
    let Some(files) = key_pair(values, base, ["tls.certificate", "tls.key"], conflict) else { return (None, None) };
    let without = values.bundles.iter().find(|bundle| bundle.file.is_none());
    let set = values.text("workload_api.socket");
    if files.is_some() && without.is_none() {
        if set.is_some() {
            let remedy = "leave tls out, or the file of one of [[bundles]]; or leave workload_api out";
            conflict("workload_api.socket", "workload_api.socket is set, and nothing comes from there", remedy);
        }
        return (files, None);
    }
    let named = || environment.iter().find(|(name, value)| name == VARIABLE && !value.is_empty()).map(|(_, value)| value.clone());
    let Some(socket) = set.or_else(named) else {
        let what = match without {
            Some(bundle) if files.is_some() => {
                format!("the bundle of {} has no file, and no workload_api.socket is set", bundle.trust_domain)
            }
            _ => "lacks tls.certificate and tls.key, or workload_api.socket".to_owned(),
        };
        let key = if files.is_some() { "bundles.file" } else { "tls.certificate" };
        conflict(key, &what, "name the files, or the agent's socket: unix:/PATH (SPIFFE_ENDPOINT_SOCKET says it as well)");
        return (files, None);
    };
    (files, agent(values, &socket, conflict))
}

fn agent(values: &Values, socket: &str, conflict: &mut Conflict<'_>) -> Option<WorkloadApiConfig> {
    let (key, name) = match values.values.contains_key("workload_api.socket") {
        true => ("workload_api.socket", "workload_api.socket"),
        false => ("workload_api.socket", VARIABLE),
    };
    let endpoint = match Endpoint::parse(socket) {
        // The agent's message contains the private key.
        Ok(Endpoint::Tcp(address)) if !address.ip().is_loopback() => {
            let remedy = "name an agent of this host: over a network the private key would be read along";
            conflict(key, &format!("{name} is {socket:?}, no loopback address"), remedy);
            return None;
        }
        Ok(endpoint) => endpoint,
        Err(wrong) => {
            conflict(key, &format!("{name}: {wrong}"), "like unix:/run/spire/agent.sock");
            return None;
        }
    };
    let own = values.text("server.trust_domain");
    let id = match values.text("workload_api.spiffe_id").map(|text| (SpiffeId::parse(&text), text)) {
        None => None,
        Some((Ok(id), _)) if own.as_ref().is_none_or(|own| own == id.trust_domain()) => Some(id),
        Some((Ok(id), _)) => {
            let what = format!("workload_api.spiffe_id is {id}, which is not of server.trust_domain");
            conflict("workload_api.spiffe_id", &what, "name an SVID of the server's own trust domain");
            return None;
        }
        Some((Err(defect), text)) => {
            let what = format!("workload_api.spiffe_id is {text:?}: {defect}");
            conflict("workload_api.spiffe_id", &what, "like spiffe://example.org/mayfly");
            return None;
        }
    };
    let wanted =
        AgentRequest { endpoint, trust_domain: TrustDomain::parse(&own?).ok()?, id, hint: values.text("workload_api.hint") };
    Some(WorkloadApiConfig { wanted, start_timeout_ms: values.number("workload_api.start_timeout")? })
}
