//! How the server's own SVID and the bundles change while it runs: what their files say, and what the agent gives.
//!
//! Nothing here ends what works: what was had stays in use until it ends by itself, and what is wrong is told (log, `mayfly status`,
//! `mayfly doctor`, `mayfly_certificate_source_failing`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::bundles::of_agent;
use super::own::{Own, still_us};
use crate::authority::Authority;
use crate::identity::bundle::{self, Bundle, Bundles};
use crate::identity::spiffe_id::TrustDomain;
use crate::limits;
use crate::own_svid::{NO_DNS, OwnSvid};
use crate::seq::Millis;
use crate::sources::bundles::Proposal;
use crate::sources::config::Config;
use crate::sources::files::FileProblem;
use crate::sources::svid_files::OwnPair;
use crate::sources::workload_api::{Agent, Given, NoSvid};
use crate::system::System;
use crate::trust::Source;

/// A bundle that is not in force, and where it was found.
pub(super) struct Changed {
    pub bundle: Arc<Bundle>,
    pub source: Source,
    pub place: String,
}

impl Changed {
    /// One of a file.
    pub fn of_file(proposal: Proposal) -> Changed {
        Changed { bundle: proposal.bundle, source: Source::File, place: proposal.path.display().to_string() }
    }
}

/// What was found in the files of the server's own certificate.
pub(super) fn own_file(found: Result<OwnPair, FileProblem>, svid: &OwnSvid, now: Millis) {
    match found {
        Ok(pair) => renew(&pair, svid, now),
        Err(problem) => trouble(&problem.to_string(), svid, now),
    }
}

fn renew(pair: &OwnPair, svid: &OwnSvid, now: Millis) {
    if let Err(problem) = still_us(pair, svid) {
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
        tracing::error!(%problem, "the certificate in use stays");
    }
}

/// The agent, as it is followed.
pub(super) struct Follow {
    agent: Agent,
    heard: Heard,
}

/// What came of it, and where that goes.
struct Heard {
    /// The last message.
    given: Mutex<Option<Given>>,
    /// The trust domains whose bundles it gives.
    domains: Vec<TrustDomain>,
    svid: Arc<OwnSvid>,
    in_force: Arc<ArcSwap<Bundles>>,
    system: System,
    place: String,
    /// What is wrong with a bundle, as it was said last.
    said: Mutex<BTreeMap<TrustDomain, String>>,
    /// What is wrong with the agent, where the SVID does not come from there.
    said_of_agent: Mutex<Option<NoSvid>>,
}

impl Follow {
    /// `None` where nothing comes from an agent.
    pub fn of(config: &Config, authority: &Authority, own: &Own) -> Option<Follow> {
        let wanted = config.workload_api.as_ref()?.wanted.clone();
        let (place, system) = (wanted.endpoint.to_string(), authority.system.clone());
        let heard = Heard {
            given: Mutex::default(),
            domains: of_agent(config),
            svid: own.svid.clone(),
            in_force: authority.bundles.clone(),
            system: system.clone(),
            place,
            said: Mutex::default(),
            said_of_agent: Mutex::default(),
        };
        Some(Follow { agent: Agent::new(wanted, system), heard })
    }

    /// Follows for ever. Drop the future to stop.
    pub async fn run(self, tell: mpsc::Sender<Changed>) {
        let Follow { mut agent, heard } = self;
        let hear = async {
            loop {
                heard.take(agent.next().await);
                heard.propose(&tell);
            }
        };
        // What the ledger did not take is proposed again, until it is in force.
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

impl Heard {
    /// The whole set is replaced; what is wrong with the SVID keeps no root in force, and the other way round.
    fn take(&self, next: Result<Given, NoSvid>) {
        let now = self.system.shown();
        let given = match next {
            Ok(given) => given,
            Err(no) => return self.trouble(&no, now),
        };
        *self.said_of_agent.lock() = None;
        // Where it comes from files, those tell of it.
        if self.svid.source() == Source::WorkloadApi {
            match &given.svid {
                Ok(pair) => renew(pair, &self.svid, now),
                Err(no) => self.trouble(no, now),
            }
        }
        *self.given.lock() = Some(given);
    }

    fn trouble(&self, no: &NoSvid, now: Millis) {
        match self.svid.source() {
            Source::WorkloadApi => trouble(&no.to_string(), &self.svid, now),
            _ if self.said_of_agent.lock().replace(no.clone()).as_ref() == Some(no) => {}
            _ => tracing::warn!(problem = %no, "the bundles in force stay"),
        }
    }

    /// What is not in force goes to the ledger.
    fn propose(&self, tell: &mpsc::Sender<Changed>) {
        let given = self.given.lock();
        let Some(given) = given.as_ref() else { return };
        let in_force = self.in_force.load();
        for domain in &self.domains {
            let old = in_force.get(domain.as_str());
            let found =
                given.bundle(domain, old.map(Arc::as_ref)).and_then(|found| self.may_follow(old, found, given.names(domain)));
            match found {
                Ok(None) => drop(self.said.lock().remove(domain)),
                // A full line means that the ledger is behind; it is proposed again.
                Ok(Some(bundle)) => {
                    self.said.lock().remove(domain);
                    drop(tell.try_send(Changed { bundle, source: Source::WorkloadApi, place: self.place.clone() }));
                }
                Err(problem) => {
                    if self.said.lock().insert(domain.clone(), problem.clone()).as_ref() != Some(&problem) {
                        tracing::error!(place = %self.place, trust_domain = %domain, %problem, "the bundle in force stays");
                    }
                }
            }
        }
    }

    /// A bundle that takes another one's place, where it may. One that the agent never gave is none yet.
    fn may_follow(&self, old: Option<&Arc<Bundle>>, found: Arc<Bundle>, given: bool) -> Result<Option<Arc<Bundle>>, String> {
        let Some(old) = old else { return Ok(given.then_some(found)) };
        if **old == *found {
            return Ok(None);
        }
        bundle::check_successor(old, &found).map_err(|defect| defect.to_string())?;
        Ok(Some(found))
    }
}
