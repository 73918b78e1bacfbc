//! Fetches the keys of OIDC issuers: at the start, in the background, and when a token names an unknown key.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::config::{IssuerKeySource, OidcIssuer};
use super::files;
use super::https::HttpsClient;
use mayfly_authority::people::oidc_issuers::{IssuerState, Issuers};
use mayfly_authority::source_health::{SourceHealth, SourceKind};
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_identity::oidc::IssuerKeys;
use mayfly_identity::oidc::discovery::{Discovery, document_url};

/// Fetches the keys of all issuers for ever, and follows changes of `configured`. Drop the future to stop.
pub async fn refresh_keys(
    issuers: Arc<Issuers>,
    mut configured: watch::Receiver<Arc<Vec<OidcIssuer>>>,
    (health, system): (Arc<SourceHealth>, System),
) {
    loop {
        let sections = configured.borrow_and_update().clone();
        health.retain(SourceKind::OidcIssuer, |name| sections.iter().any(|section| section.issuer.name == name));
        // Dropping the previous set ends its tasks.
        let mut each = tokio::task::JoinSet::new();
        for known in issuers.all() {
            let of = |section: &&OidcIssuer| section.issuer == *known.issuer;
            let Some(section) = sections.iter().find(of).cloned() else { continue };
            let (health, system) = (health.clone(), system.clone());
            each.spawn(async move { refresh_issuer_keys(&known, &section, (&health, &system)).await });
        }
        if configured.changed().await.is_err() {
            // The sender is gone, so the configuration no longer changes.
            while each.join_next().await.is_some() {}
            return std::future::pending().await;
        }
    }
}

async fn refresh_issuer_keys(known: &IssuerState, configured: &OidcIssuer, (health, system): (&SourceHealth, &System)) {
    let (kind, name, place) = (SourceKind::OidcIssuer, known.issuer.name.as_str(), place_of(configured));
    loop {
        known.begin(system);
        let pause = match fetch(configured, system).await {
            Ok(keys) => {
                if health.readable(kind, name, &place) {
                    tracing::info!(issuer = known.issuer.name, "the keys of the issuer were fetched again");
                }
                known.end(Some(keys), system);
                match configured.keys {
                    IssuerKeySource::File(_) => limits::OIDC_RETRY_MS,
                    _ => limits::OIDC_REFRESH_MS,
                }
            }
            Err(why) => {
                // The fetch is repeated; the same problem is logged once.
                if health.unreadable(kind, name, &place, &why, system.shown()) {
                    tracing::error!(
                        issuer = known.issuer.name,
                        %why,
                        "the issuer's keys could not be fetched; cached keys stay in use for an hour"
                    );
                }
                known.end(None, system);
                limits::OIDC_RETRY_MS
            }
        };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            () = known.wanted() => {}
        }
    }
}

/// The file or URL of the issuer's keys.
fn place_of(configured: &OidcIssuer) -> String {
    match &configured.keys {
        IssuerKeySource::File(path) => path.display().to_string(),
        IssuerKeySource::Url(url) => url.clone(),
        _ => document_url(&configured.issuer.issuer),
    }
}

/// Fetches the present keys of an issuer.
pub async fn fetch(configured: &OidcIssuer, system: &System) -> Result<IssuerKeys, String> {
    let parse = |from: &str, document: &[u8]| IssuerKeys::parse(document).map_err(|e| format!("{from} {e}"));
    let most = limits::OIDC_DOCUMENT_BYTES;
    if let IssuerKeySource::File(path) = &configured.keys {
        let read = path.clone();
        let read = tokio::task::spawn_blocking(move || files::read(&read, most)).await.map_err(|e| e.to_string())?;
        let (document, _) = read.map_err(|problem| problem.to_string())?;
        return parse(&path.display().to_string(), &document);
    }
    // Created for each fetch, since the roots may have changed.
    let (ca_file, system) = (configured.ca_file.clone(), system.clone());
    let https =
        tokio::task::spawn_blocking(move || HttpsClient::new(ca_file.as_deref(), &system)).await.map_err(|e| e.to_string())?;
    let https = https.map_err(|problem| problem.to_string())?;
    let url = match &configured.keys {
        IssuerKeySource::Url(url) => url.clone(),
        _ => discover(&https, &configured.issuer.issuer).await?.jwks_uri,
    };
    let document = https.document(&url, most).await.map_err(|e| e.to_string())?;
    parse(&url, &document)
}

/// Fetches the discovery document of an issuer.
pub async fn discover(https: &HttpsClient, issuer: &str) -> Result<Discovery, String> {
    let url = document_url(issuer);
    let document = https.document(&url, limits::OIDC_DOCUMENT_BYTES).await.map_err(|e| e.to_string())?;
    Discovery::parse(&document, issuer).map_err(|e| format!("{url} {e}"))
}
