//! SIGHUP: reads the configuration again and applies the changes that a running server can apply.
//!
//! First the whole configuration is checked, as `mayfly server validate` does. If it has an error, nothing of it is applied: the previous
//! configuration stays in effect, and the log names the errors. `mayfly_config::config::changes` lists the keys that a reload applies; the
//! log names the other changed keys, which take effect at the next start. Files of certificates, keys and bundles are read again at once,
//! as they are every few seconds anyway.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::export::Exporter;
use super::traces::SpanSender;
use super::webhook::{Webhooks, value_name};
use super::{check, config_mapping, telemetry};
use mayfly_authority::authority::{Authority, AuthorityLimits, ExportProgress};
use mayfly_base::document::terminal_text::one_line;
use mayfly_config::config::{ChangeActivation, Config, OidcIssuer};
use mayfly_config::files::PollSchedule;
use mayfly_ledger::LogReaders;

/// The outlets of the ledger: export, webhooks and traces. Each ends when its value is dropped.
#[derive(Default)]
pub(super) struct Outlets {
    pub export: Option<Exporter>,
    pub webhooks: Option<Webhooks>,
    pub traces: Option<SpanSender>,
}

/// The result of a reload.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reloaded {
    /// Keys and sections whose new values are in effect.
    pub taken: Vec<String>,
    /// Keys and sections whose new values wait for the next start.
    pub restart: Vec<String>,
    /// Changes that are valid and could not be applied.
    pub failed: Vec<String>,
}

/// The errors of a configuration that was not applied, one per line.
pub type ReloadErrors = Vec<String>;

/// The sources of the configuration.
pub(super) struct ConfigOrigin {
    pub file: PathBuf,
    pub environment: fn() -> Vec<(String, String)>,
}

/// Channels by which tasks that read files and fetch keys follow a reload.
#[derive(Clone)]
pub(super) struct ReloadChannels {
    /// Changes when files are to be read at once.
    pub files: watch::Receiver<u64>,
    pub issuers: watch::Receiver<Arc<Vec<OidcIssuer>>>,
    /// The configuration in effect.
    pub config: watch::Receiver<Arc<Config>>,
}

impl ReloadChannels {
    /// Polls at this interval, and whenever a reload asks for it.
    pub fn polls(&self, every: std::time::Duration) -> PollSchedule {
        PollSchedule::new(every, self.files.clone())
    }
}

/// Applies reloads to one server.
pub(super) struct Reloader {
    authority: Weak<Authority>,
    outlets: Arc<Mutex<Outlets>>,
    files: watch::Sender<u64>,
    issuers: watch::Sender<Arc<Vec<OidcIssuer>>>,
    /// The configuration in effect.
    current: Mutex<Config>,
    configs: watch::Sender<Arc<Config>>,
}

impl Reloader {
    pub fn new(config: &Config, authority: &Arc<Authority>, outlets: Arc<Mutex<Outlets>>) -> Reloader {
        Reloader {
            authority: Arc::downgrade(authority),
            outlets,
            files: watch::Sender::new(0),
            issuers: watch::Sender::new(Arc::new(config.oidc_issuers.clone())),
            current: Mutex::new(config.clone()),
            configs: watch::Sender::new(Arc::new(config.clone())),
        }
    }

    pub fn followed(&self) -> ReloadChannels {
        ReloadChannels { files: self.files.subscribe(), issuers: self.issuers.subscribe(), config: self.configs.subscribe() }
    }

    /// Reads the configuration again and applies the possible changes. The log has the result. Blocks until previous exports have ended.
    pub fn again(&self, origin: &ConfigOrigin) {
        let read = Config::load(&origin.file, (origin.environment)());
        let outcome = read.map_err(|wrong| wrong.iter().map(ToString::to_string).collect()).and_then(|next| self.take(&next));
        let Some(authority) = self.authority.upgrade() else { return };
        authority.counted.reloaded(outcome.is_ok());
        match outcome {
            Err(problems) => {
                for problem in &problems {
                    let problem = one_line(problem);
                    tracing::error!(problem, "the new configuration has an error");
                }
                tracing::error!(
                    problems = problems.len(),
                    "no part of the new configuration was applied; the previous configuration stays in effect"
                );
            }
            Ok(Reloaded { taken, restart, failed }) => {
                for what in &failed {
                    tracing::error!(what, "a part of the new configuration is valid but could not be applied");
                }
                if !restart.is_empty() {
                    tracing::warn!(keys = restart.join(","), "changed keys take effect only after a restart");
                }
                tracing::warn!(changed = taken.join(","), needs_restart = restart.join(","), "the configuration was reloaded");
            }
        }
    }

    /// Applies the possible changes of a configuration, or returns all its errors.
    pub fn take(&self, next: &Config) -> Result<Reloaded, ReloadErrors> {
        let Some(authority) = self.authority.upgrade() else { return Err(vec!["the server is stopping".to_owned()]) };
        // The files are read again even if the configuration is refused: their contents may have changed, or they may be gone.
        self.files.send_modify(|n| *n += 1);
        let wrong = check::for_reload(next, &authority);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let mut current = self.current.lock();
        let (taken, restart): (Vec<_>, Vec<_>) =
            current.changes(next).into_iter().partition(|c| c.takes == ChangeActivation::Reload);
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
        let settings = config_mapping::settings(next);
        authority.ledger.set_ceilings(settings.ceilings);
        authority.set_bounds(bounds(authority, next));
        authority.decider.set_longest(next.limits.credential_ttl_ms, next.limits.task_ttl_ms);
        authority.tracer.set(config_mapping::trace_settings(next));
        let mut outlets = self.outlets.lock();
        // New outlets keep history from being removed from now on; removed ones did so until now.
        let (was, is) = (config_mapping::settings(current), &settings);
        let both = |one: &[String], other: &[String]| one.iter().chain(other).cloned().collect::<Vec<_>>();
        authority.ledger.set_readers(LogReaders { export: was.export || is.export, followed: both(&was.followed, &is.followed) });
        if let Err(error) = outlets.again(authority, current, next) {
            failed.push(error);
        }
        authority.rotations.set_hooks(next.rotation_hooks.iter().cloned());
        let followed = next.webhooks.iter().map(|hook| value_name(&hook.name)).collect();
        authority.ledger.set_readers(LogReaders { export: is.export, followed });
    }
}

/// The limits after the reload: some are taken from the new configuration, the others stay.
fn bounds(authority: &Authority, next: &Config) -> AuthorityLimits {
    let next = config_mapping::bounds(next);
    AuthorityLimits {
        rules: next.rules,
        rules_per_caller: next.rules_per_caller,
        rates: next.rates,
        followers: next.followers,
        followers_per_caller: next.followers_per_caller,
        stream_in_flight: next.stream_in_flight,
        ..**authority.bounds.load()
    }
}

/// The issuers of the new configuration. An issuer whose key source is unchanged keeps its fetched keys.
fn issuers(authority: &Authority, tell: &watch::Sender<Arc<Vec<OidcIssuer>>>, current: &Config, next: &Config) {
    let (before, after) = (&current.oidc_issuers, &next.oidc_issuers);
    if before == after {
        return;
    }
    let source = |of: &OidcIssuer| (of.issuer.issuer.clone(), of.keys.clone(), of.ca_file.clone());
    let keeps = |section: &OidcIssuer| before.iter().any(|old| source(old) == source(section));
    authority.oidc.replace(after.iter().map(|section| (section.issuer.clone(), keeps(section))));
    tell.send_replace(Arc::new(next.oidc_issuers.clone()));
}

impl Outlets {
    /// Ends the outlets whose configuration changed, and starts the new ones at the position where the old ones ended.
    fn again(&mut self, authority: &Arc<Authority>, current: &Config, next: &Config) -> Result<(), String> {
        if let Some(webhooks) = &mut self.webhooks {
            webhooks.set(authority, &next.webhooks).map_err(|error| format!("webhooks: {error}"))?;
        }
        if current.audit_export != next.audit_export {
            self.export = None;
            *authority.exported.lock() = next.audit_export.as_ref().map(|_| ExportProgress::default());
            self.export_to(authority, next).map_err(|error| format!("audit.export: {error}"))?;
        }
        if current.traces != next.traces {
            self.traces = None;
            self.trace_to(authority, next).map_err(|error| format!("traces: {error}"))?;
        }
        Ok(())
    }

    /// Starts the continuous export, if one is configured.
    pub fn export_to(&mut self, authority: &Arc<Authority>, config: &Config) -> std::io::Result<()> {
        self.export = config.audit_export.as_ref().map(|to| Exporter::start(authority, to)).transpose()?;
        Ok(())
    }

    /// Starts to send traces, if a collector is configured.
    pub fn trace_to(&mut self, authority: &Arc<Authority>, config: &Config) -> std::io::Result<()> {
        let telling = config.traces.as_ref().map(|traces| {
            // OpenTelemetry requires a new instance id for each start.
            let instance = mayfly_base::trace::hex(&authority.system.id16());
            SpanSender::start(authority.tracer.clone(), &traces.to, &authority.system, instance)
        });
        self.traces = telling.transpose()?;
        Ok(())
    }
}
