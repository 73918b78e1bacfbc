//! Asks the agent of the SPIFFE Workload API once: what a start would get now.

use super::{ConfigValidator, Severity};
use crate::workload_api::{AgentErrorReason, AgentMessage, fetch_once};
use mayfly_authority::trust::own_svid::NO_DNS;
use mayfly_base::system::System;

impl ConfigValidator<'_> {
    /// The agent's message. An unreachable agent, or an agent that does not know this process, is no error: a start waits for the agent,
    /// and may run as another user.
    pub(super) fn agent(&mut self, given: Option<AgentMessage>) -> Option<AgentMessage> {
        let api = self.config.workload_api.clone()?;
        let key = "workload_api.socket";
        let found = given.map_or_else(|| fetch_once(&api.wanted, &System::real()), Ok);
        let given = match found {
            Ok(given) => given,
            Err(no) => {
                let waits = match no.why {
                    AgentErrorReason::NotKnown => "; a start waits for that",
                    _ => ", and a start waits for it",
                };
                let what =
                    format!("the SPIFFE Workload API at {}: {}{waits} {} s", no.endpoint, no.what, api.start_timeout_ms / 1000);
                self.warning(key, what, no.remedy);
                return None;
            }
        };
        if self.config.tls.is_none() {
            match &given.svid {
                Ok(pair) if !pair.has_dns_name() => {
                    let id = pair.spiffe_id().map_or_else(|_| String::new(), |id| id.to_string());
                    self.warning(key, format!("the SVID of {id} has no DNS name"), NO_DNS);
                }
                Ok(_) => {}
                Err(no) => self.error(key, format!("{}: {}", no.endpoint, no.what), no.remedy.clone()),
            }
        }
        for (place, bundle) in self.config.bundles.iter().enumerate().filter(|(_, bundle)| bundle.file.is_none()) {
            let Ok(domain) = mayfly_identity::spiffe_id::TrustDomain::parse(&bundle.trust_domain) else { continue };
            match given.bundle(&domain, None) {
                Err(defect) => {
                    let what = format!("{}: the bundle of {domain} {defect}", api.wanted.endpoint);
                    self.in_list(Severity::Error, ("bundles", place), what, "look at what the agent logs");
                }
                Ok(_) if given.names(&domain) => {}
                Ok(_) => {
                    let what = format!("{} gives no bundle of {domain}: nobody of it can call", api.wanted.endpoint);
                    let remedy = "federate with it in our entry: spire-server entry update -federatesWith";
                    self.in_list(Severity::Warning, ("bundles", place), what, remedy);
                }
            }
        }
        Some(given)
    }
}
