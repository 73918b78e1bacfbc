//! For relying services: verifies credentials offline, and follows revocations. Fails closed.
//!
//! Signing-key rules are asked first, then signature, issuer, audience, life and possession, then the rules against the token's decision
//! revision. Without a whole and fresh feed everything is refused.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::credential::jwt::{self, Claims, Expect, Jwks, Possession, TokenDefect};
use crate::limits;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::key_service_client::KeyServiceClient;
use crate::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use crate::pb::mayfly::v1::watch_revocations_response::Event;
use crate::revocation::Target;
use crate::revocation::event::{FeedEvent, FeedSnapshot};
use crate::revocation::follower::{Follower, FollowerRefusal, Heartbeat, Life, Missed, Moment};
use crate::seq::{Millis, Seq};
use crate::serve::wire;
use crate::system::System;

/// How long to wait before following again after the feed broke.
const AGAIN: Duration = Duration::from_millis(200);

/// What a relying service is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name as a follower: one per instance.
    pub follower: String,
    /// The upstreams that it serves.
    pub upstreams: Vec<String>,
    /// `iss` that it accepts.
    pub issuer: String,
    /// `aud` that it accepts.
    pub audience: String,
}

/// Why a credential is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The token itself.
    #[error("{0}")]
    Token(#[from] TokenDefect),
    /// What the feed says, or that it cannot be known.
    #[error("{0}")]
    Rule(#[from] FollowerRefusal),
    /// It lacks the scope.
    #[error("it lacks the scope {0}")]
    Scope(String),
    /// It was issued for another tool.
    #[error("it was issued for the tool {0:?}")]
    Tool(String),
}

/// What a use needs besides a good credential.
#[derive(Clone, Copy, Debug, Default)]
pub struct Need<'a> {
    /// The scope; empty for none.
    pub scope: &'a str,
    /// The tool that calls, where the credential names one; empty where the upstream does not know it.
    pub tool: &'a str,
    /// SHA-256 of the client certificate of the TLS session, where there is one.
    pub certificate: Option<&'a [u8; 32]>,
}

/// Verifies credentials for one relying service.
pub struct Verifier {
    settings: Settings,
    system: System,
    follower: Mutex<Follower>,
    keys: ArcSwap<Jwks>,
}

impl Verifier {
    /// Knows nothing yet, and refuses everything.
    pub fn new(settings: Settings, system: System) -> Arc<Verifier> {
        Arc::new(Verifier { settings, system, follower: Mutex::new(Follower::new()), keys: ArcSwap::default() })
    }

    fn moment(&self) -> Moment {
        Moment { wall: self.system.wall(), steady: self.system.steady() }
    }

    /// Everything up to here was applied.
    pub fn applied(&self) -> Seq {
        self.follower.lock().applied()
    }

    /// It knows the revocations and the keys, and accepts what is good.
    pub fn ready(&self) -> bool {
        self.follower.lock().is_fresh(self.moment()) && self.keys.load().kids().next().is_some()
    }

    /// Checks a credential for one use.
    pub fn check(&self, token: &str, need: Need<'_>) -> Result<Claims, Refused> {
        let now = self.moment();
        let follower = self.follower.lock();
        let expect = Expect {
            issuer: &self.settings.issuer,
            audience: &self.settings.audience,
            now: follower.time(now),
            max_ttl_ms: limits::CREDENTIAL_TTL_MS,
            skew_ms: limits::CLOCK_SKEW_MS,
            possession: need.certificate.map_or(Possession::None, Possession::Certificate),
        };
        let (claims, kid) = jwt::verify(token, &self.keys.load(), &expect, |kid| follower.revokes_key(kid))?;
        let life = Life { issued_at: Millis::from_seconds(claims.iat), expires_at: Millis::from_seconds(claims.exp) };
        follower.check(&claims.facts(&kid), life, now)?;
        if !need.scope.is_empty() && !claims.scope.split(' ').any(|s| s == need.scope) {
            return Err(Refused::Scope(need.scope.to_owned()));
        }
        let tool = &*claims.own.tool;
        if !need.tool.is_empty() && !tool.is_empty() && tool != need.tool {
            return Err(Refused::Tool(tool.to_owned()));
        }
        Ok(claims)
    }

    /// Follows until the task that runs it is dropped. Errors are retried; meanwhile the feed grows stale, and everything is refused.
    pub async fn follow(self: Arc<Self>, channel: Channel) {
        loop {
            let ended = self.follow_once(channel.clone()).await;
            tracing::debug!(?ended, "the feed ended");
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn follow_once(&self, channel: Channel) -> Result<(), Status> {
        self.load_keys(channel.clone()).await?;
        let resume = {
            let follower = self.follower.lock();
            follower.is_whole().then(|| follower.applied().as_u64())
        };
        let ask = pb::WatchRevocationsRequest {
            follower: self.settings.follower.clone(),
            resume_after: resume,
            upstreams: self.settings.upstreams.clone(),
        };
        let mut client = RevocationServiceClient::new(channel.clone());
        let mut stream = match client.watch_revocations(ask).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => {
                if status.code() == Code::OutOfRange {
                    *self.follower.lock() = Follower::new();
                }
                return Err(status);
            }
        };
        let mut snapshot = FeedSnapshot::default();
        while let Some(message) = stream.message().await? {
            let before = self.applied();
            if let Err(missed) = self.take(&message, &mut snapshot)? {
                match missed {
                    Missed::Old { .. } => {}
                    Missed::Gap { .. } | Missed::NoSnapshot => {
                        *self.follower.lock() = Follower::new();
                        return Err(Status::data_loss(missed.to_string()));
                    }
                }
            }
            let applied = self.applied();
            if applied > before {
                let ack =
                    pb::AcknowledgeRevocationsRequest { follower: self.settings.follower.clone(), applied_seq: applied.as_u64() };
                client.acknowledge_revocations(ack).await?;
            }
            // A new key signs only after it was published for a while; a compromised one is refused by its rule at once.
            if matches!(message.event, Some(Event::Heartbeat(_))) {
                self.load_keys(channel.clone()).await?;
            }
        }
        Ok(())
    }

    async fn load_keys(&self, channel: Channel) -> Result<(), Status> {
        let of = Some(pb::get_jwks_request::Of::Issuer(self.settings.issuer.clone()));
        let answer = KeyServiceClient::new(channel).get_jwks(pb::GetJwksRequest { of }).await?.into_inner();
        let keys = Jwks::parse(&answer.jwks).map_err(|e| Status::data_loss(e.to_string()))?;
        self.keys.store(Arc::new(keys));
        Ok(())
    }

    /// Takes one message. The outer error: it is malformed.
    fn take(&self, message: &pb::WatchRevocationsResponse, snapshot: &mut FeedSnapshot) -> Result<Result<(), Missed>, Status> {
        let bad = |what: &str| Status::data_loss(format!("the feed sent {what}"));
        let seq = Seq::from_u64(message.seq).ok_or_else(|| bad("a seq above 2^53"))?;
        let previous = Seq::from_u64(message.previous_seq).ok_or_else(|| bad("a seq above 2^53"))?;
        let mut follower = self.follower.lock();
        match message.event.as_ref().ok_or_else(|| bad("an event of a sort that is not known"))? {
            Event::Snapshot(part) => {
                add_part(snapshot, part)?;
                snapshot.seq = seq;
                if !part.last {
                    return Ok(Ok(()));
                }
                Ok(follower.begin(&std::mem::take(snapshot)))
            }
            Event::Heartbeat(beat) => {
                let fresh_at =
                    beat.fresh_at.as_ref().and_then(wire::millis).ok_or_else(|| bad("a heartbeat without its time"))?;
                let max_age = beat
                    .max_age
                    .as_ref()
                    .map_or(0, |d| d.seconds.unsigned_abs() * 1000 + u64::from(d.nanos.unsigned_abs()) / 1_000_000);
                // One that does not say: nothing of an older generation is taken for certain.
                let time_generation = u8::try_from(beat.time_generation).ok().filter(|g| *g > 0).unwrap_or(seq.generation());
                let beat = Heartbeat { head: seq, previous, fresh_at, max_age, time_generation };
                Ok(follower.heartbeat(beat, self.moment()))
            }
            event => {
                let event = event_from_pb(seq, event)?;
                Ok(follower.apply(previous, &event))
            }
        }
    }
}

fn targets(all: &[pb::Target]) -> Result<Vec<Target>, Status> {
    let read = |t| wire::target_from_pb("targets", t).map_err(|e| Status::data_loss(format!("the feed sent a target: {e}")));
    all.iter().map(read).collect()
}

fn task(id: &str) -> Result<crate::seq::TaskId, Status> {
    id.parse().map_err(|e| Status::data_loss(format!("the feed sent a task id: {e}")))
}

fn add_part(snapshot: &mut FeedSnapshot, part: &pb::SnapshotPart) -> Result<(), Status> {
    for rule in &part.rules {
        let seq = Seq::from_u64(rule.seq).ok_or_else(|| Status::data_loss("the feed sent a seq above 2^53"))?;
        let until = rule.drop_after.as_ref().and_then(wire::millis);
        snapshot.rules.extend(targets(&rule.targets)?.into_iter().map(|target| (target, seq, until)));
    }
    for hold in &part.holds {
        snapshot.holds.push(task(&hold.task_id)?);
    }
    Ok(())
}

fn event_from_pb(seq: Seq, event: &Event) -> Result<FeedEvent, Status> {
    Ok(match event {
        Event::Rule(e) => FeedEvent::Rule {
            seq,
            targets: targets(&e.targets)?,
            drop_after: e.drop_after.as_ref().and_then(wire::millis),
            locks: e.locks,
        },
        Event::Hold(e) => FeedEvent::Hold { seq, task: task(&e.task_id)? },
        Event::Resume(e) => FeedEvent::Resume { seq, task: task(&e.task_id)? },
        Event::Lock(e) => {
            let locked: Vec<pb::Target> = e.locked.iter().filter_map(|l| l.target.clone()).collect();
            FeedEvent::Lock { seq, targets: targets(&locked)? }
        }
        Event::Lift(e) => FeedEvent::Lift { seq, targets: targets(&e.targets)? },
        Event::Snapshot(_) | Event::Heartbeat(_) => return Err(Status::data_loss("the feed sent a part out of place")),
    })
}
