//! The bundles of the configuration, as the start takes them in.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::problem::Why;
use super::start::refused;
use crate::authority::Authority;
use crate::identity::bundle::Bundle;
use crate::identity::spiffe_id::TrustDomain;
use crate::sources::bundles::BundleFiles;
use crate::sources::config::Config;
use crate::sources::workload_api::Given;
use crate::trust::Source;

/// The bundles of the configuration. One whose trust domain the ledger does not know is taken in now. For one that it knows the ledger's
/// is in force already, and what changed in its file goes the way of every change.
pub(super) async fn take_in(config: &Config, authority: &Authority, given: Option<&Given>) -> Result<BundleFiles, Why> {
    let named = config.bundles.iter().filter_map(|b| Some((TrustDomain::parse(&b.trust_domain).ok()?, b.file.clone()?)));
    let mut files = BundleFiles::new(named);
    let known =
        authority.ledger.peek(|state| state.bundles.iter().map(|(d, b)| (d.clone(), b.clone())).collect::<BTreeMap<_, _>>());
    for (domain, bundle) in &known {
        let source = Source::from_text(&bundle.source).filter(|_| !bundle.removed);
        let configured = matches!(source, Some(Source::File | Source::WorkloadApi));
        if configured && !config.bundles.iter().any(|b| *b.trust_domain == **domain) {
            // Who takes a trust domain out of the configuration means that nobody of it comes in any more.
            tracing::warn!(trust_domain = %domain, "it is no longer configured: what it vouched for is revoked");
            let Ok(domain) = TrustDomain::parse(domain) else { continue };
            authority.no_longer_named(&domain).await.map_err(refused(&format!("the removal of {domain}")))?;
        }
    }
    let ours = config.own_domain.as_ref().map(|own| own.trust_domain.as_str());
    for (domain, bundle) in known.iter().filter(|(domain, _)| Some(&***domain) != ours) {
        if !bundle.removed && Source::from_text(&bundle.source) == Some(Source::Own) {
            tracing::warn!(trust_domain = %domain, "it is no longer our own trust domain: whoever signed in is out");
            let Ok(domain) = TrustDomain::parse(domain) else { continue };
            authority.no_longer_named(&domain).await.map_err(refused(&format!("the removal of {domain}")))?;
        }
    }
    let held = match files.read() {
        Ok(held) => held,
        Err(wrong) if config.bundles.iter().all(|b| known.contains_key(b.trust_domain.as_str())) => {
            wrong.iter().for_each(|problem| tracing::error!(%problem, "the bundle in force stays"));
            Vec::new()
        }
        Err(wrong) => return Err(Why::Files(wrong)),
    };
    let found = held.into_iter().map(|(bundle, path)| (bundle, Source::File, path.display().to_string()));
    let given = given.map(|given| agents(config, given)).unwrap_or_default();
    for (bundle, source, place) in found.chain(given).filter(|(b, ..)| !known.contains_key(b.trust_domain().as_str())) {
        let found = authority.found_bundle(&bundle, source, &place).await;
        found.map_err(refused(&format!("the bundle of {}", bundle.trust_domain())))?;
    }
    Ok(files)
}

/// The bundles that the agent gives, of those whose trust domain is configured to come from there. One that it does not give is waited for:
/// nobody of that trust domain comes in before.
fn agents(config: &Config, given: &Given) -> Vec<(Arc<Bundle>, Source, String)> {
    let place = config.workload_api.as_ref().map_or_else(String::new, |api| api.wanted.endpoint.to_string());
    let mut found = Vec::new();
    for domain in of_agent(config) {
        match given.bundle(&domain, None) {
            Ok(bundle) if given.names(&domain) => found.push((bundle, Source::WorkloadApi, place.clone())),
            Ok(_) => {
                tracing::warn!(%place, trust_domain = %domain, "no bundle is given: nobody of it can call; federate with it in our entry");
            }
            Err(defect) => tracing::error!(%place, trust_domain = %domain, %defect, "the bundle cannot be taken in"),
        }
    }
    found
}

/// The trust domains whose bundles the agent gives. What it gives beside them lets nobody in.
pub(super) fn of_agent(config: &Config) -> Vec<TrustDomain> {
    let without = config.bundles.iter().filter(|b| b.file.is_none());
    without.filter_map(|b| TrustDomain::parse(&b.trust_domain).ok()).collect()
}
