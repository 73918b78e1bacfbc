//! SIGHUP: the configuration is read again, and what a running server can take of it takes effect at once.
//!
//! First all of it is looked at, by what `mayfly server validate` looks with. Where something is wrong, nothing of it is taken: the server goes
//! on with what it had, and the log says what is wrong. Which keys a reload takes stands in `sources::config::changes`; the log names the
//! others, which the next start takes. Files of certificates, keys and bundles are looked at again at once, as they are anyway every few seconds.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::export::Exporter;
use super::traces::Telling;
use super::webhook::{Webhooks, value_name};
use super::{check, given, telemetry};
use crate::authority::{Authority, Bounds, Exported};
use crate::ledger::Readers;
use crate::sources::config::{Config, OidcIssuer, Takes};
use crate::sources::files::Polls;

/// Those who tell others of the ledger. Each ends when it is dropped.
#[derive(Default)]
pub(super) struct Outlets {
    pub export: Option<Exporter>,
    pub webhooks: Option<Webhooks>,
    pub traces: Option<Telling>,
}

/// What a reload came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reloaded {
    /// Keys and sections whose new values are in force.
    pub taken: Vec<String>,
    /// Keys and sections that are different and wait for the next start.
    pub restart: Vec<String>,
    /// What could not be put in force though it is valid.
    pub failed: Vec<String>,
}

/// Why nothing of a configuration was taken, each problem as a line.
pub type NotTaken = Vec<String>;

/// Where the configuration is read from.
pub(super) struct Origin {
    pub file: PathBuf,
    pub environment: fn() -> Vec<(String, String)>,
}

/// How those that read files and fetch keys follow a reload.
#[derive(Clone)]
pub(super) struct Followed {
    /// Changes when files are to be looked at now.
    pub files: watch::Receiver<u64>,
    pub issuers: watch::Receiver<Arc<Vec<OidcIssuer>>>,
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
}

impl Followed {
    /// Looks at files in this rhythm, and when a reload asks for it.
    pub fn polls(&self, every: std::time::Duration) -> Polls {
        Polls::new(every, self.files.clone())
    }
}

/// What reloads put in force, in one server.
pub(super) struct Reloading {
    authority: Weak<Authority>,
    outlets: Arc<Mutex<Outlets>>,
    files: watch::Sender<u64>,
    issuers: watch::Sender<Arc<Vec<OidcIssuer>>>,
    /// The configuration in force. Keys that wait for a restart have the values of the start.
    current: Mutex<Config>,
    configs: watch::Sender<Arc<Config>>,
}

impl Reloading {
    pub fn new(config: &Config, authority: &Arc<Authority>, outlets: Arc<Mutex<Outlets>>) -> Reloading {
        Reloading {
            authority: Arc::downgrade(authority),
            outlets,
            files: watch::Sender::new(0),
            issuers: watch::Sender::new(Arc::new(config.oidc_issuers.clone())),
            current: Mutex::new(config.clone()),
            configs: watch::Sender::new(Arc::new(config.clone())),
        }
    }

    pub fn followed(&self) -> Followed {
        Followed { files: self.files.subscribe(), issuers: self.issuers.subscribe(), config: self.configs.subscribe() }
    }

    /// Reads the configuration again and takes what can be taken. The log tells all of it. Blocks for as long as exports take to end.
    pub fn again(&self, origin: &Origin) {
        let read = Config::load(&origin.file, (origin.environment)());
        let outcome = read.map_err(|wrong| wrong.iter().map(ToString::to_string).collect()).and_then(|next| self.take(&next));
        let Some(authority) = self.authority.upgrade() else { return };
        authority.counted.reloaded(outcome.is_ok());
        match outcome {
            Err(problems) => {
                for problem in &problems {
                    tracing::error!(problem, "the configuration was read again and is wrong");
                }
                tracing::error!(problems = problems.len(), "nothing of it was taken; the configuration in force stays");
            }
            Ok(Reloaded { taken, restart, failed }) => {
                for what in &failed {
                    tracing::error!(what, "it is valid and could not be put in force");
                }
                if !restart.is_empty() {
                    tracing::warn!(keys = restart.join(","), "these are different and need a restart");
                }
                tracing::warn!(changed = taken.join(","), needs_restart = restart.join(","), "the configuration was read again");
            }
        }
    }

    /// Takes what can be taken of a configuration, or says everything that is wrong with it.
    pub fn take(&self, next: &Config) -> Result<Reloaded, NotTaken> {
        let Some(authority) = self.authority.upgrade() else { return Err(vec!["the server is stopping".to_owned()]) };
        // The files are read again even if the configuration is refused: their contents may have changed, or they may be gone.
        self.files.send_modify(|n| *n += 1);
        let wrong = check::for_reload(next, &authority);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let mut current = self.current.lock();
        let (taken, restart): (Vec<_>, Vec<_>) = current.changes(next).into_iter().partition(|c| c.takes == Takes::Reload);
        let mut reloaded = Reloaded {
            taken: taken.into_iter().map(|change| change.what).collect(),
            restart: restart.into_iter().map(|change| change.what).collect(),
            failed: Vec::new(),
        };
        self.put_in_force(&authority, &current, next, &mut reloaded.failed);
        *current = current.with_reloaded(next);
        self.configs.send_replace(Arc::new(current.clone()));
        authority.drift.store(Arc::new(super::import::drift(&authority, &current)));
        Ok(reloaded)
    }

    fn put_in_force(&self, authority: &Arc<Authority>, current: &Config, next: &Config, failed: &mut Vec<String>) {
        if current.log.level != next.log.level
            && let Err(why) = telemetry::set_level(&next.log.level)
        {
            failed.push(format!("log.level: {why}"));
        }
        issuers(authority, &self.issuers, current, next);
        if let (Some(own), Some(settings)) = (&authority.own_domain, &next.own_domain) {
            own.set(settings.clone());
        }
        let settings = given::settings(next);
        authority.ledger.set_ceilings(settings.ceilings);
        authority.set_bounds(bounds(authority, next));
        authority.decider.set_longest(next.limits.credential_ttl_ms, next.limits.task_ttl_ms);
        authority.tracer.set(given::traced(next));
        let mut outlets = self.outlets.lock();
        // Those who are new hold history from here on; those who are gone held it until now.
        let (was, is) = (given::settings(current), &settings);
        let both = |one: &[String], other: &[String]| one.iter().chain(other).cloned().collect::<Vec<_>>();
        authority.ledger.set_readers(Readers { export: was.export || is.export, followed: both(&was.followed, &is.followed) });
        if let Err(error) = outlets.again(authority, current, next) {
            failed.push(error);
        }
        let followed = next.webhooks.iter().map(|hook| value_name(&hook.name)).collect();
        authority.ledger.set_readers(Readers { export: is.export, followed });
    }
}

/// Bounds that a reload takes; the others stay.
fn bounds(authority: &Authority, next: &Config) -> Bounds {
    let next = given::bounds(next);
    Bounds {
        rules: next.rules,
        rules_per_caller: next.rules_per_caller,
        rates: next.rates,
        followers: next.followers,
        followers_per_caller: next.followers_per_caller,
        stream_in_flight: next.stream_in_flight,
        ..**authority.bounds.load()
    }
}

/// Those of the sections. The keys at hand of one whose keys come from where they came from stay.
fn issuers(authority: &Authority, tell: &watch::Sender<Arc<Vec<OidcIssuer>>>, current: &Config, next: &Config) {
    let plain = |config: &Config| -> Vec<OidcIssuer> {
        config.oidc_issuers.iter().map(|section| OidcIssuer { line: 0, ..section.clone() }).collect()
    };
    let (before, after) = (plain(current), plain(next));
    if before == after {
        return;
    }
    let source = |of: &OidcIssuer| (of.issuer.issuer.clone(), of.keys.clone(), of.ca_file.clone());
    let keeps = |section: &OidcIssuer| before.iter().any(|old| source(old) == source(section));
    authority.oidc.replace(after.iter().map(|section| (section.issuer.clone(), keeps(section))));
    tell.send_replace(Arc::new(next.oidc_issuers.clone()));
}

impl Outlets {
    /// Ends those whose configuration is another, and begins the new ones where the old ones ended.
    fn again(&mut self, authority: &Arc<Authority>, current: &Config, next: &Config) -> Result<(), String> {
        if let Some(webhooks) = &mut self.webhooks {
            webhooks.set(authority, &next.webhooks).map_err(|error| format!("webhooks: {error}"))?;
        }
        if current.audit_export != next.audit_export {
            self.export = None;
            *authority.exported.lock() = next.audit_export.as_ref().map(|_| Exported::default());
            self.export_to(authority, next).map_err(|error| format!("audit.export: {error}"))?;
        }
        if current.traces != next.traces {
            self.traces = None;
            self.trace_to(authority, next).map_err(|error| format!("traces: {error}"))?;
        }
        Ok(())
    }

    /// Begins the continuous export, where one is configured.
    pub fn export_to(&mut self, authority: &Arc<Authority>, config: &Config) -> std::io::Result<()> {
        self.export = config.audit_export.as_ref().map(|to| Exporter::start(authority, to)).transpose()?;
        Ok(())
    }

    /// Begins to tell traces, where a collector is configured.
    pub fn trace_to(&mut self, authority: &Arc<Authority>, config: &Config) -> std::io::Result<()> {
        let telling = config.traces.as_ref().map(|traces| {
            // Another one with each start, as OpenTelemetry wants it.
            let instance = crate::trace::hex(&authority.system.id16());
            Telling::start(authority.tracer.clone(), &traces.to, &authority.system, instance)
        });
        self.traces = telling.transpose()?;
        Ok(())
    }
}
