//! Background work of a server: reads certificates and bundles again, ends tasks without heartbeats, writes heartbeats, rotates keys,
//! undoes objects at upstreams, and reports health.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::metrics::{MetricsAccess, TOKEN_EVERY};
use super::reload::ReloadChannels;
use super::renewal::{self, AgentFollower, BundleUpdate};
use super::server_identity::{PublicTlsCertificate, ServerCertificate};
use super::start::PublicTls;
use super::threads::ServiceInputs;
use super::{healthcheck, import, source_check};
use mayfly_api::connection_end::Stopping;
use mayfly_authority::authority::Authority;
use mayfly_authority::source_health::SourceKind;
use mayfly_authority::trust::keys;
use mayfly_base::limits;
use mayfly_base::refusal::Reason;
use mayfly_config::bundles::{BundleFilePoll, BundleFiles};
use mayfly_config::config::Config;
use mayfly_config::oidc;
use mayfly_ledger::record::Event;
use mayfly_ledger::state::State;
use mayfly_ledger::{CommittedRecord, Ledger};
use mayfly_verify::seq::{Millis, TaskId};

/// The service whose health tells whether the server issues.
const TOKENS: &str = "mayfly.v1.TokenService";
/// Interval of checks of key schedules.
const KEYS_EVERY: Duration = Duration::from_secs(60);

/// Interval of warnings about registrations that will soon stop issuing, milliseconds.
const TOLD_EVERY_MS: u64 = 24 * 3_600_000;

/// The background work and its inputs.
pub(super) struct Upkeep {
    authority: Arc<Authority>,
    own: ServerCertificate,
    follow: Option<AgentFollower>,
    public: Option<PublicTlsCertificate>,
    public_tls: PublicTls,
    bundles: BundleFiles,
    followed: ReloadChannels,
    metrics: MetricsAccess,
    health: HealthReporter,
    stopping: Stopping,
}

impl Upkeep {
    pub fn new(config: &Config, served: ServiceInputs, health: HealthReporter, stopping: Stopping) -> Upkeep {
        let ServiceInputs { authority, own, public, public_tls, bundles, followed, metrics } = served;
        let follow = AgentFollower::of(config, &authority, &own);
        Upkeep { authority, own, follow, public, public_tls, bundles, followed, metrics, health, stopping }
    }

    pub fn public_tls(&self) -> PublicTls {
        self.public_tls.clone()
    }

    /// Runs until the server stops.
    pub async fn run(self) {
        let Upkeep { authority, own, follow, public, bundles, followed, metrics, health, mut stopping, .. } = self;
        // `mayfly server validate` compares the sealing key with that of the running server.
        if let Some(fingerprint) = authority.sealer.fingerprint() {
            health.set_service_status(healthcheck::sealing_key_service(&fingerprint), ServingStatus::Serving).await;
            health.set_service_status(healthcheck::SEALING_KEY, ServingStatus::Serving).await;
        }
        let polls = || followed.polls(Duration::from_millis(limits::FILE_POLL_MS));
        let (tell, told) = mpsc::channel(16);
        let system = authority.system.clone();
        let own_watch = async {
            let ServerCertificate { files: Some(files), svid, .. } = own else { return };
            files.watch(polls(), |found| renewal::own_file(found, &svid, system.shown())).await;
        };
        let to_ledger = tell.clone();
        let agent_watch = async {
            if let Some(follow) = follow {
                follow.run(to_ledger).await;
            }
        };
        let health_of_sources = renewal::SourceReporter::new(&authority);
        let public_watch = async {
            let Some(PublicTlsCertificate { files, current, .. }) = public else { return };
            let place = files.certificates().display().to_string();
            files.watch(polls(), |found| health_of_sources.public(found, &current, &place)).await;
        };
        let found_bundle = move |found| match found {
            // A full queue means that the ledger is behind; the next poll finds the same bundle again.
            BundleFilePoll::Proposal(proposal) => drop(tell.try_send(BundleUpdate::of_file(proposal))),
            BundleFilePoll::Problem(problem) => {
                tracing::error!(%problem, "a trust bundle cannot be read; the current trust bundle stays in effect")
            }
        };
        let in_force = authority.bundles.clone();
        let bundle_watch = bundles.watch(polls(), in_force, (found_bundle, |all: &BundleFiles| health_of_sources.bundles(all)));
        let silent = HeartbeatDeadlines::follow(&authority.ledger);
        // Health has its own task: the other tasks may wait for a stalled disk, which health has to report.
        let (ledger, reporter) = (authority.ledger.clone(), health.clone());
        let telling = tokio::spawn(async move { report_health(&ledger, &reporter).await });
        tokio::select! {
            _ = stopping.wait_for(|stops| *stops) => {}
            ((), (), (), (), (), (), (), (), (), (), (), (), (), (), (), (), (), ()) = async { tokio::join!(
                own_watch,
                agent_watch,
                public_watch,
                bundle_watch,
                record_bundles(&authority, told),
                heartbeats_written(&authority),
                counts_written(&authority),
                uses_followed(&authority),
                silent_ended(&authority, &silent),
                keys_due(&authority),
                certificate_lists_signed(&authority),
                registry_due(&authority),
                connections_tended(&authority),
                secrets_rotated(&authority),
                drift(&authority, &followed),
                metrics.keep(&authority, followed.polls(TOKEN_EVERY)),
                // Undoing that is dropped in progress is repeated after the next start, which is safe.
                authority.leases.clone().run(),
                oidc::refresh_keys(
                    authority.oidc.clone(),
                    followed.issuers.clone(),
                    (authority.source_health.clone(), authority.system.clone()),
                ),
            ) } => {}
        }
        telling.abort();
        authority.write_last_audit_reads();
        health.set_service_status("", ServingStatus::NotServing).await;
        health.set_service_status(TOKENS, ServingStatus::NotServing).await;
    }
}

/// Keeps the grants of upstreams that people have signed in to: refreshes them before they end for want of use, and revokes those that ended.
async fn connections_tended(authority: &Arc<Authority>) {
    let mut every = interval(Duration::from_millis(limits::OAUTH_TEND_MS));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let authority = authority.clone();
        // In a task of its own, so that a stop does not drop a refresh whose answer is on its way.
        let _ = tokio::spawn(async move { authority.tend_connections().await }).await;
    }
}

/// Records the bundles that files and the agent propose. Their effect follows from the record.
async fn record_bundles(authority: &Authority, mut told: mpsc::Receiver<BundleUpdate>) {
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    let sources = &authority.source_health;
    while let Some(BundleUpdate { bundle, source, place }) = told.recv().await {
        let domain = bundle.trust_domain().as_str().to_owned();
        match authority.found_bundle(&bundle, source, &place).await {
            Ok(None) => {
                sources.readable(SourceKind::Bundle, &domain, &place);
                said.remove(&domain);
            }
            Ok(Some(seq)) => {
                sources.readable(SourceKind::Bundle, &domain, &place);
                tracing::warn!(trust_domain = domain, %seq, "the trust bundle changed");
            }
            Err(no) => {
                // The bundle is proposed repeatedly; its problem is logged once.
                let why = no.to_string();
                let problem = format!("the bundle that was found is not taken in: {why}");
                sources.unreadable(SourceKind::Bundle, &domain, &place, &problem, authority.system.shown());
                if said.insert(domain, why.clone()).as_ref() != Some(&why) {
                    tracing::error!(%place, %why, "the new trust bundle was refused; the current trust bundle stays in effect");
                }
            }
        }
    }
}

/// The times at which tasks with a heartbeat become due for a check, so that not all tasks are checked each second. An ended task is
/// removed at once, so that there are no more entries than tasks in the ledger.
struct HeartbeatDeadlines {
    looks: Arc<Mutex<DueTimes>>,
}

/// Due times, with each task once.
#[derive(Default)]
struct DueTimes {
    at: BTreeSet<(Millis, TaskId)>,
    of: HashMap<TaskId, Millis>,
}

impl DueTimes {
    fn look(&mut self, id: TaskId, at: Millis) {
        self.forget(id);
        self.at.insert((at, id));
        self.of.insert(id, at);
    }

    fn forget(&mut self, id: TaskId) {
        if let Some(at) = self.of.remove(&id) {
            self.at.remove(&(at, id));
        }
    }

    /// Removes and returns the tasks that are due.
    fn due(&mut self, now: Millis) -> Vec<TaskId> {
        let mut due = Vec::new();
        while let Some((at, id)) = self.at.first().copied().filter(|(at, _)| *at < now) {
            self.at.remove(&(at, id));
            self.of.remove(&id);
            due.push(id);
        }
        due
    }
}

impl HeartbeatDeadlines {
    fn follow(ledger: &Ledger) -> HeartbeatDeadlines {
        let looks: Arc<Mutex<DueTimes>> = Arc::default();
        let ours = looks.clone();
        // The observer is registered before the state is read: a task that is opened in between is added twice, which does no harm.
        ledger.observe(move |batch| {
            for record in batch.records.iter().filter_map(CommittedRecord::change) {
                match &record.event {
                    Some(Event::TaskOpened(e)) if e.heartbeat > 0 => {
                        if let Some(id) = TaskId::from_slice(&e.task) {
                            ours.lock().look(id, batch.time.plus(e.heartbeat));
                        }
                    }
                    Some(Event::TaskClosed(e)) => {
                        if let Some(id) = TaskId::from_slice(&e.task) {
                            ours.lock().forget(id);
                        }
                    }
                    _ => {}
                }
            }
        });
        ledger.peek(|state| {
            let mut looks = looks.lock();
            for task in state.tasks.iter().filter(|t| t.terms.heartbeat > 0 && t.closed.is_none()) {
                looks.look(task.terms.id, task.alive_at.plus(task.terms.heartbeat));
            }
        });
        HeartbeatDeadlines { looks }
    }

    /// The tasks that are to be ended now. A task whose heartbeat came in time is checked again when the next one is due; a returned task
    /// is checked again until it has ended.
    fn due(&self, state: &State, now: Millis) -> Vec<TaskId> {
        let mut looks = self.looks.lock();
        let mut silent = Vec::new();
        for id in looks.due(now) {
            let Some(task) = state.tasks.get(&id).filter(|t| t.closed.is_none() && now < t.deadline) else { continue };
            let next = if task.silent(now) {
                silent.push(id);
                now.plus(5 * limits::TASK_TICK_MS)
            } else {
                task.alive_at.plus(task.terms.heartbeat).max(now).plus(1)
            };
            looks.look(id, next);
        }
        silent
    }
}

/// A timer for work that is done once a second. Each kind of work has its own loop, so that slow work delays no other.
fn seconds() -> Interval {
    let mut tick = interval(Duration::from_millis(limits::TASK_TICK_MS));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

/// Writes heartbeats.
async fn heartbeats_written(authority: &Authority) {
    let mut tick = seconds();
    loop {
        tick.tick().await;
        authority.heartbeats.flush(&authority.ledger).await;
    }
}

/// Writes counted refusals, and once a minute the differences between policy sets.
async fn counts_written(authority: &Authority) {
    let mut tick = seconds();
    let mut minute = authority.system.wall().0 / 60_000;
    loop {
        tick.tick().await;
        let now = authority.system.wall().0 / 60_000;
        if std::mem::replace(&mut minute, now) != now {
            authority.write_differences();
        }
        authority.write_counted(authority.system.wall());
        authority.write_audit_reads();
        for (listener, clause, left_out) in authority.refused_handshakes.left_out(authority.system.steady()) {
            tracing::warn!(listener, clause, left_out, "more handshakes were refused in a minute than are logged individually");
        }
    }
}

/// Signs the lists of revoked certificates, within a second after a certificate ended.
async fn certificate_lists_signed(authority: &Authority) {
    let mut tick = interval(Duration::from_millis(limits::CERTIFICATE_LISTS_MS));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(no) = authority.tend_certificate_lists().await {
            tracing::error!(%no, "the lists of revoked certificates could not be signed; the last ones are served");
        }
    }
}

/// Checks and writes reported uses.
async fn uses_followed(authority: &Authority) {
    let mut tick = seconds();
    loop {
        tick.tick().await;
        authority.follow_uses().await;
    }
}

/// Ends tasks without heartbeats, approvals that were not decided in time, and expired break-glass tasks.
async fn silent_ended(authority: &Authority, silent: &HeartbeatDeadlines) {
    let mut tick = seconds();
    let mut suspended = suspended_ms(authority);
    loop {
        tick.tick().await;
        let slept = suspended_ms(authority).saturating_sub(suspended);
        if slept >= limits::HEARTBEAT_MIN_MS {
            match authority.resumed_after(slept).await {
                Ok(()) => suspended += slept,
                // No task is ended for missing heartbeats that the server could not accept; the record is tried again in the next second.
                Err(no) => {
                    tracing::error!(%no, "the extension of all heartbeat deadlines by one interval could not be written");
                    continue;
                }
            }
        }
        // After a jump of the clock all tasks would seem silent, and while the ledger cannot be written no heartbeat is accepted.
        if authority.ledger.stopped().is_some_and(|no| matches!(no.reason, Reason::ClockSkew | Reason::NotReady)) {
            continue;
        }
        let now = authority.system.wall();
        for id in authority.ledger.peek(|state| silent.due(state, now)) {
            // A heartbeat that arrived in time and is being written counts; the task is checked again in a few seconds.
            if !authority.heartbeats.is_waiting(&id) {
                authority.end_silent(id, now);
            }
        }
        authority.end_unapproved(now);
        authority.end_break_glass_tasks();
    }
}

/// How long the machine has been suspended since the process began, milliseconds.
fn suspended_ms(authority: &Authority) -> u64 {
    authority.system.steady().saturating_sub(authority.system.awake())
}

async fn keys_due(authority: &Authority) {
    let mut tick = interval(KEYS_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Without a key nothing is issued, so the replacement of a revoked key does not wait for the next tick.
        tokio::select! {
            _ = tick.tick() => {}
            () = authority.key_revoked.notified() => {}
        }
        keys::run_key_maintenance(authority).await;
    }
}

/// Rotates static secrets. What is dropped in progress is killed, and the step is repeated after the next start.
async fn secrets_rotated(authority: &Arc<Authority>) {
    let (mut tick, mut running) = (seconds(), tokio::task::JoinSet::new());
    loop {
        authority.rotate_due_secrets(&mut running).await;
        tokio::select! {
            _ = tick.tick() => {}
            () = authority.rotations.wake.notified() => {}
        }
    }
}

/// Continues revocations of changed registrations and bindings that a stop interrupted; once a day, warns about registrations that will
/// soon stop issuing.
async fn registry_due(authority: &Authority) {
    let mut tick = interval(KEYS_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: Option<Millis> = None;
    loop {
        tick.tick().await;
        if let Err(no) = authority.sweep_arguments(false).await {
            tracing::error!(%no, "stored arguments of decided or expired approvals could not be listed for deletion");
        }
        if let Err(no) = authority.finish_narrowings().await {
            tracing::error!(%no, "credentials that a change of policy or registration refuses could not be revoked yet");
        }
        authority.tell_due();
        let now = authority.system.wall();
        if told.is_none_or(|told| now.since(told) >= TOLD_EVERY_MS) {
            told = Some(now);
            for (upstream, finding) in authority.stopping_soon() {
                tracing::warn!(upstream, finding = finding.text, "an upstream needs attention");
            }
        }
    }
}

/// Compares the files of policies and registrations with the ledger at intervals, since both may change at any time.
async fn drift(authority: &Arc<Authority>, followed: &ReloadChannels) {
    let (mut polls, mut configs) = (followed.polls(KEYS_EVERY), followed.config.clone());
    loop {
        let (ours, config) = (authority.clone(), configs.borrow_and_update().clone());
        let looked = tokio::task::spawn_blocking(move || {
            source_check::check(&ours, &config);
            import::drift(&ours, &config)
        });
        let Ok(found) = looked.await else { return };
        if **authority.drift.load() != found {
            tracing::warn!(
                differences = found.len(),
                "the differences between the ledger and the files of policies and registrations have changed; the ledger is authoritative"
            );
            authority.drift.store(Arc::new(found));
        }
        // A reload asks for a look first and puts its configuration in force then.
        tokio::select! {
            () = polls.next() => {}
            changed = configs.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn report_health(ledger: &Ledger, health: &HealthReporter) {
    let mut tick = interval(Duration::from_millis(limits::TASK_TICK_MS));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let status = |serves| if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
    let mut said = None;
    loop {
        tick.tick().await;
        let now = (ledger.writes(), ledger.stopped().is_none());
        if said != Some(now) {
            said = Some(now);
            health.set_service_status("", status(now.0)).await;
            health.set_service_status(TOKENS, status(now.0 && now.1)).await;
        }
    }
}
