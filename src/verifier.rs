//! For relying services: verifies credentials offline, and follows revocations. Fails closed.
//!
//! Signing-key rules are asked first, then signature, issuer, audience, life and possession, then the rules against the token's decision
//! revision. Without a whole and fresh feed everything is refused.

pub mod check;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tonic::transport::Channel;
use tonic::{Code, Status};

pub use check::{Checker, Need, NotTaken, Refused};

use crate::credential::jwt::{Claims, Jwks};
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::key_service_client::KeyServiceClient;
use crate::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use crate::pb::mayfly::v1::watch_revocations_response::Event;
use crate::revocation::follower::{Missed, Moment};
use crate::seq::Seq;
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

/// Verifies credentials for one relying service.
pub struct Verifier {
    settings: Settings,
    system: System,
    checker: RwLock<Checker>,
}

impl Verifier {
    /// Knows nothing yet, and refuses everything.
    pub fn new(settings: Settings, system: System) -> Arc<Verifier> {
        let checker = RwLock::new(Checker::new(&settings.issuer, &settings.audience));
        Arc::new(Verifier { settings, system, checker })
    }

    fn moment(&self) -> Moment {
        Moment { wall: self.system.wall(), steady: self.system.steady() }
    }

    /// Everything up to here was applied.
    pub fn applied(&self) -> Seq {
        self.checker.read().applied()
    }

    /// It knows the revocations and the keys, and accepts what is good.
    pub fn ready(&self) -> bool {
        self.checker.read().is_ready(self.moment())
    }

    /// Checks a credential for one use.
    pub fn check(&self, token: &str, need: Need<'_>) -> Result<Claims, Refused> {
        self.checker.read().check(token, &need, self.moment())
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
        let ask = pb::WatchRevocationsRequest {
            follower: self.settings.follower.clone(),
            resume_after: self.checker.write().begin_stream().map(Seq::as_u64),
            upstreams: self.settings.upstreams.clone(),
        };
        let mut client = RevocationServiceClient::new(channel.clone());
        let mut stream = match client.watch_revocations(ask).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => {
                if status.code() == Code::OutOfRange {
                    self.checker.write().needs_snapshot();
                }
                return Err(status);
            }
        };
        while let Some(message) = stream.message().await? {
            let before = self.applied();
            let taken = self.checker.write().take(&message, self.moment());
            match taken {
                Ok(()) | Err(NotTaken::Missed(Missed::Old { .. })) => {}
                Err(lost) => return Err(Status::data_loss(lost.to_string())),
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
        self.checker.write().set_keys(keys);
        Ok(())
    }
}
