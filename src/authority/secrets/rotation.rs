//! Rotating static secrets by hooks, on a schedule and on request.
//!
//! ```text
//! due ─▶ begun, durable ─▶ create ─▶ candidate, durable ─▶ verify ─▶ current, durable ─▶ overlap ─▶ revoke the old one ─▶ ended
//!              └── killed, failed: create again with the same attempt        └── not valid: revoke the candidate ─▶ ended, begin anew
//! ```
//!
//! Each step is decided from the ledger alone, so that a server that was killed anywhere goes on with the step that is due. The version in
//! use stays in use until another one was verified, and is revoked at the vendor only after that: no failure and no kill loses the only
//! secret that works. A step that fails is tried again, with growing pauses, for as long as it takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::hook::{HookAction, HookReply, HookRequest, HookSecret, RotationHook, words};
use super::vault::SealedSecret;
use super::{RotationProgress, by_schedule, check, requested_step};
use crate::authority::Authority;
use mayfly_base::backoff::Backoff;
use mayfly_base::limits;
use mayfly_credential::secret::stored_settings;
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::{Event, Record, SecretChanged, SecretStep, SecretStored};
use mayfly_ledger::state::{ManagedSecret, SecretState};
use mayfly_ledger::upstream::registry::{Kind, Upstream};
use mayfly_verify::seq::Millis;

/// The rotation of static secrets by hooks.
#[derive(Default)]
pub struct SecretRotations {
    hooks: ArcSwap<BTreeMap<String, Arc<RotationHook>>>,
    tracks: Mutex<BTreeMap<(String, Track), TrackProgress>>,
    /// Notified when a step is to be tried at once.
    pub wake: tokio::sync::Notify,
}

/// The two things that happen to a secret beside each other: neither waits for the other where it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Track {
    /// Making a version and putting it in use.
    Make,
    /// Revoking versions that were rotated away.
    Revoke,
}

struct TrackProgress {
    running: bool,
    attempts: u32,
    last: String,
    /// When the next attempt is due, by the monotonic clock.
    next_at: u64,
    pauses: Backoff,
}

impl Default for TrackProgress {
    fn default() -> TrackProgress {
        let pauses = Backoff::new(limits::SECRET_RETRY_MIN_MS, limits::SECRET_RETRY_MAX_MS);
        TrackProgress { running: false, attempts: 0, last: String::new(), next_at: 0, pauses }
    }
}

/// The next step of a track.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RotationStep {
    /// The schedule says that the version is to be rotated.
    Request(u64),
    /// A rotation begins.
    Begin(u64),
    /// The hook makes a secret for this attempt.
    Create([u8; 16]),
    /// The hook verifies the candidate.
    Verify(u64),
    /// The hook revokes a version that was rotated away.
    Revoke(u64),
}

fn next_make(secret: &ManagedSecret, rotation_ms: Option<u64>, now: Millis) -> Option<RotationStep> {
    let current = secret.current()?;
    match (secret.candidate(), secret.attempt) {
        (Some(candidate), _) => Some(RotationStep::Verify(candidate.version)),
        (None, Some(attempt)) => Some(RotationStep::Create(attempt)),
        (None, None) if secret.requested.is_some() => Some(RotationStep::Begin(current.version)),
        (None, None) => {
            let due = current.stored_at.plus(rotation_ms?);
            (due <= now).then_some(RotationStep::Request(current.version))
        }
    }
}

fn next_revoke(secret: &ManagedSecret, overlap_ms: u64, now: Millis) -> Option<RotationStep> {
    let due = |v: &&mayfly_ledger::state::SecretVersion| {
        v.state == SecretState::Retiring && (v.at_once || v.since.plus(overlap_ms) <= now)
    };
    secret.versions.iter().find(due).map(|v| RotationStep::Revoke(v.version))
}

impl SecretRotations {
    /// Replaces the hooks.
    pub fn set_hooks(&self, hooks: impl IntoIterator<Item = RotationHook>) {
        let hooks = hooks.into_iter().map(|hook| (hook.upstream.clone(), Arc::new(hook)));
        self.hooks.store(Arc::new(hooks.collect()));
    }

    /// Whether a hook rotates the secret of an upstream.
    pub fn has_hook(&self, upstream: &str) -> bool {
        self.hooks.load().contains_key(upstream)
    }

    /// The failed attempts of the steps that are due, the one with the most of them. `now`: the monotonic clock.
    pub fn progress(&self, upstream: &str, now: u64) -> RotationProgress {
        let tracks = self.tracks.lock();
        let of = [Track::Make, Track::Revoke].map(|track| tracks.get(&(upstream.to_owned(), track)));
        let worst = of.into_iter().flatten().filter(|t| t.attempts > 0).max_by_key(|t| t.attempts);
        worst.map_or_else(RotationProgress::default, |t| RotationProgress {
            attempts: t.attempts,
            last: t.last.clone(),
            next_in_ms: t.next_at.saturating_sub(now),
        })
    }

    /// The number of secrets of which a step fails.
    pub fn failing(&self) -> usize {
        let tracks = self.tracks.lock();
        let names: std::collections::BTreeSet<&str> =
            tracks.iter().filter(|(_, t)| t.attempts > 0).map(|((name, _), _)| name.as_str()).collect();
        names.len()
    }

    /// Has the next steps of an upstream tried at once.
    pub fn try_now(&self, upstream: &str) {
        for track in [Track::Make, Track::Revoke] {
            if let Some(progress) = self.tracks.lock().get_mut(&(upstream.to_owned(), track)) {
                progress.next_at = 0;
            }
        }
        self.wake.notify_one();
    }

    /// Takes a track for an attempt, unless one is under way or not due yet.
    fn take(&self, key: &(String, Track), now: u64) -> bool {
        let mut tracks = self.tracks.lock();
        let progress = tracks.entry(key.clone()).or_default();
        let free = !progress.running && progress.next_at <= now;
        progress.running |= free;
        free
    }

    fn ended(&self, key: &(String, Track), result: &Result<(), String>, now: u64) {
        let mut tracks = self.tracks.lock();
        match result {
            Ok(()) => drop(tracks.remove(key)),
            Err(why) => {
                let progress = tracks.entry(key.clone()).or_default();
                progress.running = false;
                progress.attempts += 1;
                progress.last.clone_from(why);
                let pause = progress.pauses.next().map_or(limits::SECRET_RETRY_MAX_MS, |pause| pause.as_millis() as u64);
                progress.next_at = now.saturating_add(pause);
            }
        }
    }

    /// Forgets the failures of upstreams that have nothing due.
    fn keep_only(&self, due: &[(String, Track)]) {
        self.tracks.lock().retain(|key, progress| progress.running || due.contains(key));
    }
}

/// A secret with what a step needs of its registration and its hook.
struct Rotated {
    hook: Arc<RotationHook>,
    upstream: Arc<Upstream>,
    secret: Arc<ManagedSecret>,
}

impl Authority {
    /// Takes the steps that are due, each on a task of its own, at most `limits::SECRET_ROTATIONS` at once. Called about once a second.
    pub async fn rotate_due_secrets(self: &Arc<Self>, running: &mut tokio::task::JoinSet<()>) {
        while running.try_join_next().is_some() {}
        // After a step of the clock, secrets would seem due.
        if self.ledger.stopped().is_some() {
            return;
        }
        let (now, steady, hooks) = (self.system.wall(), self.system.steady(), self.rotations.hooks.load_full());
        if hooks.is_empty() {
            return self.rotations.keep_only(&[]);
        }
        let Ok(secrets) = self.ledger.settled(|s| s.secrets.clone()).await else { return };
        let compiled = self.catalog.now();
        let mut due = Vec::new();
        let mut steps = Vec::new();
        for (name, hook) in hooks.iter() {
            let registered = compiled.upstream(name).filter(|r| r.upstream.issues(Kind::Secret));
            let (Some(registered), Some(secret)) = (registered, secrets.get(name.as_str())) else { continue };
            let upstream = registered.upstream.clone();
            let overlap = stored_settings(&upstream.settings).map_or(limits::SECRET_OVERLAP_MS, |s| s.overlap_ms);
            let rotation = upstream.rotation.map(|seconds| seconds.saturating_mul(1000));
            for (track, step) in
                [(Track::Make, next_make(secret, rotation, now)), (Track::Revoke, next_revoke(secret, overlap, now))]
            {
                let Some(step) = step else { continue };
                due.push((name.clone(), track));
                steps.push((
                    (name.clone(), track),
                    step,
                    Rotated { hook: hook.clone(), upstream: upstream.clone(), secret: secret.clone() },
                ));
            }
        }
        self.rotations.keep_only(&due);
        for (key, step, rotated) in steps {
            if running.len() >= limits::SECRET_ROTATIONS || !self.rotations.take(&key, steady) {
                continue;
            }
            let authority = self.clone();
            running.spawn(async move {
                let result = authority.step(&step, &rotated).await;
                if let Err(why) = &result {
                    tracing::warn!(upstream = %key.0, step = ?step, %why, "a step of the rotation of a secret failed; it is tried again");
                }
                authority.rotations.ended(&key, &result, authority.system.steady());
                authority.rotations.wake.notify_one();
            });
        }
    }

    async fn step(&self, step: &RotationStep, of: &Rotated) -> Result<(), String> {
        match step {
            RotationStep::Request(version) => {
                let why = "its rotation is due by the schedule of the registration";
                let event = requested_step(&of.upstream.name, &of.upstream.environment, *version, why, false);
                self.commit_step(event).await
            }
            RotationStep::Begin(version) => {
                if let Some(problem) = of.hook.problem() {
                    return Err(problem);
                }
                let attempt = self.system.random16().to_vec();
                self.commit_step(changed(of, *version, SecretStep::RotationBegun, "", attempt)).await
            }
            RotationStep::Create(attempt) => self.create(of, *attempt).await,
            RotationStep::Verify(version) => self.verify_candidate(of, *version).await,
            RotationStep::Revoke(version) => {
                self.revoke_version(of, *version).await?;
                let why = "revoked at the vendor by the hook";
                self.commit_step(changed(of, *version, SecretStep::Ended, why, Vec::new())).await?;
                self.sweep_secrets().await;
                Ok(())
            }
        }
    }

    async fn commit_step(&self, event: Event) -> Result<(), String> {
        let record = Record::new(by_schedule("rotation of a secret"), event);
        self.ledger.commit(ProposalKind::Change, vec![record]).await.map(|_| ()).map_err(|no| no.to_string())
    }

    async fn opened(&self, of: &Rotated, version: u64) -> Result<SealedSecret, String> {
        let found = of.secret.version(version).ok_or_else(|| format!("there is no version {version}"))?;
        let opened = self.open_secret(&of.secret.environment, found).await.map_err(|no| no.to_string())?;
        // A hook gets the secret for the target that it was stored for, and for no other.
        if *found.target != of.upstream.target {
            return Err(format!(
                "version {version} was stored for {}, and the registration names {} now: mayfly secret put {}",
                found.target, of.upstream.target, of.upstream.name
            ));
        }
        Ok(opened)
    }

    async fn create(&self, of: &Rotated, attempt: [u8; 16]) -> Result<(), String> {
        let current = of.secret.current().map(|v| v.version).ok_or("there is no version in use")?;
        let opened = self.opened(of, current).await?;
        let named = data_encoding::HEXLOWER.encode(&attempt);
        let ask = HookRequest {
            action: HookAction::Create,
            attempt: &named,
            current: Some(secret_of(&opened, current)?),
            ..request(of)
        };
        let reply = of.hook.call(&ask).await.map_err(|e| e.0)?;
        let Some(value) = &reply.value else { return Err(format!("the hook made no secret: {}", words(&reply, &ask))) };
        if value.as_bytes() == opened.value {
            return Err("the hook returned the secret that is in use already".to_owned());
        }
        check(value.as_bytes(), &of.upstream).map_err(|no| no.to_string())?;
        let id = reply.id.clone().unwrap_or_default();
        if id.len() > limits::NAME_BYTES {
            return Err(format!("the hook returned an id of {} bytes; at most {} are kept", id.len(), limits::NAME_BYTES));
        }
        let sealed = SealedSecret { value: value.as_bytes().to_vec(), id };
        let _one = self.changing.lock().await;
        let stored = self.keep_secret(&of.upstream, sealed, Some(attempt)).await.map_err(|no| no.to_string())?;
        self.commit_step(Event::SecretStored(SecretStored { current: false, ..stored })).await
    }

    async fn verify_candidate(&self, of: &Rotated, version: u64) -> Result<(), String> {
        let opened = self.opened(of, version).await?;
        let ask = HookRequest { action: HookAction::Verify, secret: Some(secret_of(&opened, version)?), ..request(of) };
        let reply = of.hook.call(&ask).await.map_err(|e| e.0)?;
        match reply.valid {
            Some(true) => {
                self.commit_step(changed(of, version, SecretStep::Current, "verified by the hook", Vec::new())).await?;
                tracing::info!(upstream = %of.upstream.name, version, "a rotated secret was verified and is handed out from now on");
                Ok(())
            }
            Some(false) => {
                let why = format!("version {version} is not valid: {}", words(&reply, &ask));
                self.revoke_version(of, version).await.map_err(|no| format!("{why}; and it could not be revoked: {no}"))?;
                self.commit_step(changed(of, version, SecretStep::Ended, "the hook found it not valid", Vec::new())).await?;
                self.sweep_secrets().await;
                // The rotation begins anew, after the pause of a failure.
                Err(why)
            }
            None => Err(format!("the hook did not verify the secret: {}", words(&reply, &ask))),
        }
    }

    /// Has the hook revoke a version that is not handed out.
    async fn revoke_version(&self, of: &Rotated, version: u64) -> Result<(), String> {
        let opened = self.opened(of, version).await?;
        let current = of.secret.current().map(|v| v.version).filter(|current| *current != version);
        let current = current.ok_or("there is no other version in use")?;
        let in_use = self.opened(of, current).await?;
        let ask = HookRequest {
            action: HookAction::Revoke,
            current: Some(secret_of(&in_use, current)?),
            secret: Some(secret_of(&opened, version)?),
            ..request(of)
        };
        let reply: HookReply = of.hook.call(&ask).await.map_err(|e| e.0)?;
        match reply.revoked {
            Some(true) => Ok(()),
            _ => Err(format!("the hook did not revoke version {version}: {}", words(&reply, &ask))),
        }
    }
}

fn changed(of: &Rotated, version: u64, step: SecretStep, reason: &str, attempt: Vec<u8>) -> Event {
    Event::SecretChanged(SecretChanged {
        upstream: of.upstream.name.clone(),
        environment: of.upstream.environment.clone(),
        version,
        step: step as i32,
        reason: reason.to_owned(),
        attempt,
        at_once: false,
    })
}

fn request(of: &Rotated) -> HookRequest<'_> {
    HookRequest {
        action: HookAction::Create,
        upstream: &of.upstream.name,
        environment: &of.upstream.environment,
        target: &of.upstream.target,
        attempt: "",
        current: None,
        secret: None,
    }
}

fn secret_of(sealed: &SealedSecret, version: u64) -> Result<HookSecret<'_>, String> {
    let value = std::str::from_utf8(&sealed.value);
    let value = value.map_err(|_| format!("version {version} is not UTF-8 text, and the hook's contract is JSON"))?;
    Ok(HookSecret { version, value, id: &sealed.id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_ledger::state::{RotationRequest, SecretVersion};
    use mayfly_verify::seq::Seq;

    fn version(number: u64, state: SecretState, stored_at: u64, since: u64, at_once: bool) -> SecretVersion {
        SecretVersion {
            version: number,
            state,
            value: [0; 16],
            target: "https://vendor.example.org".into(),
            digest: Box::default(),
            stored_at: Millis(stored_at),
            since: Millis(since),
            seq: Seq::ZERO,
            by: None,
            rotated: false,
            at_once,
        }
    }

    #[test]
    fn each_step_follows_from_the_state_alone() {
        let mut secret = ManagedSecret::default();
        assert_eq!(next_make(&secret, Some(100), Millis(1000)), None, "nothing is stored");
        secret.versions.push(version(1, SecretState::Current, 1000, 1000, false));
        assert_eq!(next_make(&secret, Some(100), Millis(1099)), None);
        assert_eq!(next_make(&secret, Some(100), Millis(1100)), Some(RotationStep::Request(1)));
        assert_eq!(next_make(&secret, None, Millis(9999)), None);
        secret.requested = Some(RotationRequest { version: 1, at: Millis(1100), reason: "due".into() });
        assert_eq!(next_make(&secret, Some(100), Millis(1100)), Some(RotationStep::Begin(1)));
        secret.attempt = Some([7; 16]);
        assert_eq!(next_make(&secret, Some(100), Millis(1100)), Some(RotationStep::Create([7; 16])));
        secret.attempt = None;
        secret.versions.push(version(2, SecretState::Candidate, 1200, 1200, false));
        assert_eq!(next_make(&secret, Some(100), Millis(1200)), Some(RotationStep::Verify(2)));
        assert_eq!(next_revoke(&secret, 0, Millis(1200)), None, "nothing was replaced yet");
    }

    #[test]
    fn an_old_version_is_revoked_after_the_overlap_or_at_once() {
        let mut secret = ManagedSecret::default();
        secret.versions.push(version(1, SecretState::Retiring, 1000, 2000, false));
        secret.versions.push(version(2, SecretState::Current, 2000, 2000, false));
        assert_eq!(next_revoke(&secret, 500, Millis(2499)), None);
        assert_eq!(next_revoke(&secret, 500, Millis(2500)), Some(RotationStep::Revoke(1)));
        secret.versions[0].at_once = true;
        assert_eq!(next_revoke(&secret, 500, Millis(2001)), Some(RotationStep::Revoke(1)));
        secret.versions[0].state = SecretState::Ended;
        assert_eq!(next_revoke(&secret, 0, Millis(9999)), None);
    }

    #[test]
    fn a_failure_pauses_its_own_track_only() {
        let rotations = SecretRotations::default();
        let (make, revoke) = (("vendor".to_owned(), Track::Make), ("vendor".to_owned(), Track::Revoke));
        assert!(rotations.take(&make, 100) && !rotations.take(&make, 100), "one attempt at a time");
        rotations.ended(&make, &Err("the vendor is down".to_owned()), 200);
        assert!(!rotations.take(&make, 201) && rotations.take(&revoke, 201));
        let progress = rotations.progress("vendor", 201);
        assert_eq!((progress.attempts, progress.last.as_str(), rotations.failing()), (1, "the vendor is down", 1));
        assert!(progress.next_in_ms >= limits::SECRET_RETRY_MIN_MS - 1, "{progress:?}");
        rotations.try_now("vendor");
        assert!(rotations.take(&make, 202));
        rotations.ended(&make, &Ok(()), 203);
        assert_eq!((rotations.failing(), rotations.progress("other", 0)), (0, RotationProgress::default()));
    }
}
