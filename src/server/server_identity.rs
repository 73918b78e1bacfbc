//! The server's own identity: its certificate at the start, from files or from the SPIFFE Workload API.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::start_problem::StartFailure;
use mayfly_api::tls::CurrentCertificate;
use mayfly_authority::trust::TrustBundleSource;
use mayfly_authority::trust::own_svid::{NO_DNS, OwnSvid};
use mayfly_base::system::System;
use mayfly_config::config::Config;
use mayfly_config::files::FileProblem;
use mayfly_config::svid_files::{SvidFiles, TlsIdentity};
use mayfly_config::workload_api::{self, AgentError, AgentMessage};
use mayfly_identity::spiffe_id::SpiffeId;

/// The server's own certificate.
pub(super) struct ServerCertificate {
    /// The files of the certificate, if it does not come from the agent.
    pub files: Option<SvidFiles>,
    /// The certificate that TLS presents.
    pub current: CurrentCertificate,
    /// The SVID's data for status and logs.
    pub svid: Arc<OwnSvid>,
}

/// A certificate that TLS presents and that is no SVID, and its files.
pub(super) struct PublicTlsCertificate {
    pub files: SvidFiles,
    pub current: CurrentCertificate,
}

/// The agent's message, if a part of the configuration comes from the agent. Waits for the agent as long as the configuration says.
pub(super) async fn from_agent(config: &Config, system: &System) -> Result<Option<AgentMessage>, StartFailure> {
    let Some(api) = &config.workload_api else { return Ok(None) };
    let patience = Duration::from_millis(api.start_timeout_ms);
    workload_api::wait_for_first_message(&api.wanted, config.tls.is_none(), patience, system)
        .await
        .map(Some)
        .map_err(|no| StartFailure::Agent(Box::new(no)))
}

/// As [`from_agent`], blocking, for a thread that runs no runtime.
pub(super) fn wait_for_agent(config: &Config, system: &System) -> Result<Option<AgentMessage>, StartFailure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| StartFailure::System { what: "a runtime", error })?;
    runtime.block_on(from_agent(config, system))
}

/// The server's own SVID.
pub(super) fn certificate(config: &Config, given: Option<&AgentMessage>) -> Result<ServerCertificate, StartFailure> {
    let read = |pair: &mayfly_config::config::KeyPair| -> Result<_, FileProblem> {
        let mut files = SvidFiles::new(&pair.certificate, &pair.key);
        let loaded = files.load()?;
        let id = own_id(&loaded, &config.server.trust_domain, &pair.certificate)?;
        Ok((Some(files), loaded, id, pair.certificate.display().to_string()))
    };
    let (files, pair, id, place) = match (&config.tls, given, &config.workload_api) {
        (Some(pair), ..) => read(pair).map_err(|e| StartFailure::Files(vec![e]))?,
        (None, Some(given), Some(api)) => {
            let pair = given.svid.clone().map_err(|no| StartFailure::Agent(Box::new(no)))?;
            // The SVID was checked when the message arrived.
            let id = pair.spiffe_id().map_err(|defect| StartFailure::Tls(defect.to_string()))?;
            (None, pair, id, api.wanted.endpoint.to_string())
        }
        (None, ..) => return Err(StartFailure::Tls("neither files nor an agent give a certificate".to_owned())),
    };
    if !pair.has_dns_name() {
        tracing::warn!(mend = NO_DNS, "the server's certificate has no DNS name");
    }
    let source = if files.is_some() { TrustBundleSource::File } else { TrustBundleSource::WorkloadApi };
    tracing::info!(id = %id, source = source.as_str(), place, "the server's own SVID");
    let current: CurrentCertificate = Arc::new(ArcSwap::new(pair.certified_key().clone()));
    let svid = Arc::new(OwnSvid::new(id, source, place, current.clone()));
    Ok(ServerCertificate { files, current, svid })
}

/// The SPIFFE ID of the certificate, which must be of the server's trust domain.
fn own_id(pair: &TlsIdentity, trust_domain: &str, path: &Path) -> Result<SpiffeId, FileProblem> {
    let remedy = "name an X.509-SVID of the server's own trust domain under tls, or mend server.trust_domain";
    match pair.spiffe_id() {
        Ok(id) if id.trust_domain() == trust_domain => Ok(id),
        Ok(id) => Err(FileProblem::new(path, format!("is {id}, which is not of {trust_domain}"), remedy)),
        Err(defect) => Err(FileProblem::new(path, format!("is no X.509-SVID: {defect}"), remedy)),
    }
}

/// Checks that a renewed certificate has the same SPIFFE ID. Clients verify the server by its SPIFFE ID: a different one would lock all of
/// them out.
pub(super) fn check_same_id(pair: &TlsIdentity, own: &OwnSvid) -> Result<(), String> {
    let (id, place) = (own.id(), own.place());
    let remedy = "have the server's own certificate put there, or restart it under its new name";
    match pair.spiffe_id() {
        Ok(found) if found == *id => Ok(()),
        Ok(found) => Err(format!("{place}: is {found}, and this server is {id}; {remedy}")),
        Err(defect) => Err(format!("{place}: is no X.509-SVID: {defect}; {remedy}")),
    }
}

/// The public listener's certificate, if it has one of its own.
pub(super) fn public_certificate(config: &Config) -> Result<Option<PublicTlsCertificate>, StartFailure> {
    let Some(pair) = &config.public_tls else { return Ok(None) };
    let mut files = SvidFiles::new(&pair.certificate, &pair.key);
    let pair = files.load().map_err(|e| StartFailure::Files(vec![e]))?;
    Ok(Some(PublicTlsCertificate { files, current: Arc::new(ArcSwap::new(pair.certified_key().clone())) }))
}

/// The server's SVID for a command that only inspects, and the SVID's source.
pub fn inspect_svid(config: &Config, system: &System) -> Result<(TlsIdentity, String), String> {
    match (&config.tls, &config.workload_api) {
        (Some(pair), _) => {
            let own = SvidFiles::new(&pair.certificate, &pair.key).load().map_err(|e| e.to_string())?;
            Ok((own, pair.certificate.display().to_string()))
        }
        (None, Some(api)) => {
            let told = |no: AgentError| no.to_string();
            let given = workload_api::fetch_once(&api.wanted, system).map_err(told)?;
            Ok((given.svid.map_err(told)?, api.wanted.endpoint.to_string()))
        }
        (None, None) => Err("neither files nor an agent give a certificate".to_owned()),
    }
}
