//! Imports the bundles of the configuration at the start.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::start::refused;
use super::start_problem::StartFailure;
use mayfly_authority::authority::Authority;
use mayfly_authority::trust::TrustBundleSource;
use mayfly_config::bundles::BundleFiles;
use mayfly_config::config::Config;
use mayfly_config::workload_api::AgentMessage;
use mayfly_identity::bundle::Bundle;
use mayfly_identity::spiffe_id::TrustDomain;

/// Records the bundle of each configured trust domain that the ledger does not know yet. For a known trust domain the ledger's bundle is in
/// effect already, and changes of its file are handled like any later change. The bundle of a trust domain that is no longer configured is
/// removed.
pub(super) async fn import_bundles(
    config: &Config,
    authority: &Authority,
    given: Option<&AgentMessage>,
) -> Result<BundleFiles, StartFailure> {
    let named = config.bundles.iter().filter_map(|b| Some((TrustDomain::parse(&b.trust_domain).ok()?, b.file.clone()?)));
    let mut files = BundleFiles::new(named);
    let known =
        authority.ledger.peek(|state| state.bundles.iter().map(|(d, b)| (d.clone(), b.clone())).collect::<BTreeMap<_, _>>());
    for (domain, bundle) in &known {
        let source = TrustBundleSource::from_text(&bundle.source).filter(|_| !bundle.removed);
        let configured = matches!(source, Some(TrustBundleSource::File | TrustBundleSource::WorkloadApi));
        if configured && !config.bundles.iter().any(|b| *b.trust_domain == **domain) {
            // Removing a trust domain from the configuration means that its members are no longer admitted.
            tracing::warn!(
                trust_domain = %domain,
                "the trust domain is no longer configured: its bundle is removed, and credentials that depend on it are revoked"
            );
            let Ok(domain) = TrustDomain::parse(domain) else { continue };
            authority.no_longer_named(&domain).await.map_err(refused(&format!("the removal of {domain}")))?;
        }
    }
    let ours = config.own_domain.as_ref().map(|own| own.trust_domain.as_str());
    for (domain, bundle) in known.iter().filter(|(domain, _)| Some(&***domain) != ours) {
        if !bundle.removed && TrustBundleSource::from_text(&bundle.source) == Some(TrustBundleSource::Own) {
            tracing::warn!(
                trust_domain = %domain,
                "the trust domain is no longer the server's own: its bundle is removed, and its logins are revoked"
            );
            let Ok(domain) = TrustDomain::parse(domain) else { continue };
            authority.no_longer_named(&domain).await.map_err(refused(&format!("the removal of {domain}")))?;
        }
    }
    let held = match files.read() {
        Ok(held) => held,
        Err(wrong) if config.bundles.iter().all(|b| known.contains_key(b.trust_domain.as_str())) => {
            wrong.iter().for_each(
                |problem| tracing::error!(%problem, "a trust bundle could not be read; the current trust bundle stays in effect"),
            );
            Vec::new()
        }
        Err(wrong) => return Err(StartFailure::Files(wrong)),
    };
    let found = held.into_iter().map(|(bundle, path)| (bundle, TrustBundleSource::File, path.display().to_string()));
    let given = given.map(|given| agent_bundles(config, given)).unwrap_or_default();
    for (bundle, source, place) in found.chain(given).filter(|(b, ..)| !known.contains_key(b.trust_domain().as_str())) {
        let found = authority.found_bundle(&bundle, source, &place).await;
        found.map_err(refused(&format!("the bundle of {}", bundle.trust_domain())))?;
    }
    Ok(files)
}

/// The agent's bundles of those trust domains whose bundle is configured to come from the agent. If the agent gives no bundle of a trust
/// domain, no member of that trust domain is admitted until it does.
fn agent_bundles(config: &Config, given: &AgentMessage) -> Vec<(Arc<Bundle>, TrustBundleSource, String)> {
    let place = config.workload_api.as_ref().map_or_else(String::new, |api| api.wanted.endpoint.to_string());
    let mut found = Vec::new();
    for domain in agent_trust_domains(config) {
        match given.bundle(&domain, None) {
            Ok(bundle) if given.names(&domain) => found.push((bundle, TrustBundleSource::WorkloadApi, place.clone())),
            Ok(_) => {
                tracing::warn!(
                    %place,
                    trust_domain = %domain,
                    "no bundle from the SPIFFE agent: members are not admitted until the server's entry federates with this trust domain"
                );
            }
            Err(defect) => {
                tracing::error!(%place, trust_domain = %domain, %defect, "the bundle from the SPIFFE agent is refused")
            }
        }
    }
    found
}

/// The trust domains whose bundles come from the agent. Other bundles that the agent gives are ignored.
pub(super) fn agent_trust_domains(config: &Config) -> Vec<TrustDomain> {
    let without = config.bundles.iter().filter(|b| b.file.is_none());
    without.filter_map(|b| TrustDomain::parse(&b.trust_domain).ok()).collect()
}
