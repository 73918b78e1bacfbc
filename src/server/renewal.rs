//! Renews the server's own SVID and the bundles while the server runs, from their files and from the SPIFFE Workload API.
//!
//! A source that fails changes nothing: the present SVID and bundles stay in use until they expire, and the problem is reported (log,
//! `mayfly status`, `mayfly doctor`, `mayfly_certificate_source_failing`, `mayfly_source_failing`).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::bundles::agent_trust_domains;
use super::server_identity::{ServerCertificate, check_same_id};
use mayfly_api::tls::CurrentCertificate;
use mayfly_authority::authority::Authority;
use mayfly_authority::source_health::{SourceHealth, SourceKind};
use mayfly_authority::trust::TrustBundleSource;
use mayfly_authority::trust::own_svid::{NO_DNS, OwnSvid};
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_config::bundles::{BundleFileProposal, BundleFileState, BundleFiles};
use mayfly_config::config::Config;
use mayfly_config::files::FileProblem;
use mayfly_config::svid_files::TlsIdentity;
use mayfly_config::workload_api::{Agent, AgentError, AgentMessage};
use mayfly_identity::bundle::{self, Bundle, Bundles};
use mayfly_identity::spiffe_id::TrustDomain;
use mayfly_verify::seq::Millis;

/// A bundle that is not in effect, and its source.
pub(super) struct BundleUpdate {
    pub bundle: Arc<Bundle>,
    pub source: TrustBundleSource,
    pub place: String,
}

impl BundleUpdate {
    /// A bundle from a file.
    pub fn of_file(proposal: BundleFileProposal) -> BundleUpdate {
        BundleUpdate { bundle: proposal.bundle, source: TrustBundleSource::File, place: proposal.path.display().to_string() }
    }
}

/// Applies and reports the result of reading the files of the public listener's certificate.
pub(super) fn own_file(found: Result<TlsIdentity, FileProblem>, svid: &OwnSvid, now: Millis) {
    match found {
        Ok(pair) => renew(&pair, svid, now),
        Err(problem) => trouble(&problem.to_string(), svid, now),
    }
}

fn renew(pair: &TlsIdentity, svid: &OwnSvid, now: Millis) {
    if let Err(problem) = check_same_id(pair, svid) {
        return trouble(&problem, svid, now);
    }
    if svid.renew(pair) {
        tracing::info!(ends = svid.ends().map(|at| at.to_string()), "the server's certificate was renewed");
        if !pair.has_dns_name() {
            tracing::warn!(mend = NO_DNS, "the server's certificate has no DNS name");
        }
    }
}

fn trouble(problem: &str, svid: &OwnSvid, now: Millis) {
    if svid.trouble(problem, now) {
        tracing::error!(%problem, "the server's SVID could not be renewed; the current SVID stays in use");
    }
}

/// Reports the results of reading files.
pub(super) struct SourceReporter {
    health: Arc<SourceHealth>,
    system: System,
}

impl SourceReporter {
    pub fn new(authority: &Authority) -> SourceReporter {
        SourceReporter { health: authority.source_health.clone(), system: authority.system.clone() }
    }

    /// Applies and reports the result of reading the files of the public listener's certificate.
    pub fn public(&self, found: Result<TlsIdentity, FileProblem>, current: &CurrentCertificate, place: &str) {
        let kind = SourceKind::PublicCertificate;
        match found {
            Ok(pair) => {
                current.store(pair.certified_key().clone());
                self.health.readable(kind, "", place);
            }
            Err(problem) => {
                self.health.unreadable(kind, "", place, &problem.to_string(), self.system.shown());
                tracing::error!(%problem, "the public listener's certificate could not be reloaded; the current certificate stays in use");
            }
        }
    }

    /// Reports the results of the last poll of bundle files. If a file differs from the bundle in effect, the ledger's answer to the
    /// proposal is reported instead.
    pub fn bundles(&self, files: &BundleFiles) {
        for (domain, path, standing) in files.standing() {
            let (kind, domain, place) = (SourceKind::Bundle, domain.as_str(), path.display().to_string());
            match standing {
                BundleFileState::InForce => drop(self.health.readable(kind, domain, &place)),
                BundleFileState::Differs => {}
                BundleFileState::Unusable(problem) => {
                    self.health.unreadable(kind, domain, &place, &problem.to_string(), self.system.shown());
                }
            }
        }
    }
}

/// A stream from the agent.
pub(super) struct AgentFollower {
    agent: Agent,
    heard: FollowerState,
}

/// The state of following the agent, and the users of what the agent provides.
struct FollowerState {
    /// The last message.
    given: Mutex<Option<AgentMessage>>,
    /// The trust domains whose bundles the agent provides.
    domains: Vec<TrustDomain>,
    svid: Arc<OwnSvid>,
    in_force: Arc<ArcSwap<Bundles>>,
    system: System,
    place: String,
    /// The problem of the agent itself, since its last message.
    away: Mutex<Option<AgentError>>,
    health: Arc<SourceHealth>,
}

impl AgentFollower {
    /// `None` if neither the SVID nor a bundle comes from an agent.
    pub fn of(config: &Config, authority: &Authority, own: &ServerCertificate) -> Option<AgentFollower> {
        let wanted = config.workload_api.as_ref()?.wanted.clone();
        let (place, system) = (wanted.endpoint.to_string(), authority.system.clone());
        let heard = FollowerState {
            given: Mutex::default(),
            domains: agent_trust_domains(config),
            svid: own.svid.clone(),
            in_force: authority.bundles.clone(),
            system: system.clone(),
            place,
            away: Mutex::default(),
            health: authority.source_health.clone(),
        };
        Some(AgentFollower { agent: Agent::new(wanted, system), heard })
    }

    /// Follows for ever. Drop the future to stop.
    pub async fn run(self, tell: mpsc::Sender<BundleUpdate>) {
        let AgentFollower { mut agent, heard } = self;
        let hear = async {
            loop {
                heard.take(agent.next().await);
                heard.propose(&tell);
            }
        };
        // A bundle that the ledger did not accept is proposed again until it is in effect.
        let again = async {
            let mut tick = interval(Duration::from_millis(limits::FILE_POLL_MS));
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                heard.propose(&tell);
            }
        };
        tokio::join!(hear, again);
    }
}

impl FollowerState {
    /// Replaces all that the agent provided before. A defect of the SVID does not keep the roots from being updated, nor the other way
    /// round.
    fn take(&self, next: Result<AgentMessage, AgentError>) {
        let now = self.system.shown();
        let given = match next {
            Ok(given) => given,
            Err(no) => return self.trouble(no, now),
        };
        *self.away.lock() = None;
        self.health.readable(SourceKind::WorkloadApi, "", &self.place);
        // If the SVID comes from files, its problems are reported by the code that reads the files.
        if self.svid.source() == TrustBundleSource::WorkloadApi {
            match &given.svid {
                Ok(pair) => renew(pair, &self.svid, now),
                Err(no) => trouble(&no.to_string(), &self.svid, now),
            }
        }
        *self.given.lock() = Some(given);
    }

    /// Reports that the agent does not answer: neither the SVID nor a bundle is renewed.
    fn trouble(&self, no: AgentError, now: Millis) {
        let problem = no.to_string();
        self.health.unreadable(SourceKind::WorkloadApi, "", &self.place, &problem, now);
        for domain in &self.domains {
            self.health.unreadable(SourceKind::Bundle, domain.as_str(), &self.place, &problem, now);
        }
        if self.svid.source() == TrustBundleSource::WorkloadApi {
            trouble(&problem, &self.svid, now);
        } else if self.away.lock().as_ref() != Some(&no) {
            tracing::warn!(problem, "the SPIFFE agent gave no update; the current trust bundles stay in effect");
        }
        *self.away.lock() = Some(no);
    }

    /// Proposes the bundles that are not in effect to the ledger.
    fn propose(&self, tell: &mpsc::Sender<BundleUpdate>) {
        let (given, away) = (self.given.lock(), self.away.lock().is_some());
        let Some(given) = given.as_ref() else { return };
        let in_force = self.in_force.load();
        for domain in &self.domains {
            let old = in_force.get(domain.as_str());
            let found =
                given.bundle(domain, old.map(Arc::as_ref)).and_then(|found| self.may_follow(old, found, given.names(domain)));
            let (kind, name) = (SourceKind::Bundle, domain.as_str());
            match found {
                // The last message of an agent that does not answer any more says nothing about the present bundle.
                Ok(None) if away => {}
                Ok(None) if old.is_none() => {
                    let problem =
                        "the agent gives no bundle of it: its members are refused until the server's entry federates with it";
                    if self.health.unreadable(kind, name, &self.place, problem, self.system.shown()) {
                        tracing::warn!(
                            place = %self.place,
                            trust_domain = %domain,
                            "the SPIFFE agent gives no bundle of this trust domain"
                        );
                    }
                }
                Ok(None) => drop(self.health.readable(kind, name, &self.place)),
                // A full queue means that the ledger is behind; the bundle is proposed again later.
                Ok(Some(bundle)) => {
                    drop(tell.try_send(BundleUpdate {
                        bundle,
                        source: TrustBundleSource::WorkloadApi,
                        place: self.place.clone(),
                    }));
                }
                Err(problem) => {
                    if self.health.unreadable(kind, name, &self.place, &problem, self.system.shown()) {
                        tracing::error!(
                            place = %self.place,
                            trust_domain = %domain,
                            %problem,
                            "the new trust bundle is not used; the current trust bundle stays in effect"
                        );
                    }
                }
            }
        }
    }

    /// The bundle to propose, if any: one that differs from `old` and may replace it. Without `old`, a bundle that the agent never gave is
    /// not proposed.
    fn may_follow(&self, old: Option<&Arc<Bundle>>, found: Arc<Bundle>, given: bool) -> Result<Option<Arc<Bundle>>, String> {
        let Some(old) = old else { return Ok(given.then_some(found)) };
        if **old == *found {
            return Ok(None);
        }
        bundle::check_successor(old, &found).map_err(|defect| defect.to_string())?;
        Ok(Some(found))
    }
}
