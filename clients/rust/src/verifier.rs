//! Verifies credentials offline for a relying service, and follows revocations. Fails closed.

use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder as _;
use mayfly_verify::check::{Checked, Checker, Need, Refused};
use mayfly_verify::clock::{Clock, RealClock};
use mayfly_verify::revocation::follower::Missed;
use mayfly_verify::seq::Seq;
use mayfly_verify::token::Jwks;
use parking_lot::RwLock;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::wire::seen_to_pb;
pub use crate::wire::{NotRead, read};

use crate::backoff::backoff;
use crate::client::Mayfly;
use crate::limits;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::key_service_client::KeyServiceClient;
use crate::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use crate::pb::mayfly::v1::watch_revocations_response::Event;

/// The settings of a relying service.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of this follower, unique per instance.
    pub follower: String,
    /// The upstreams that the service serves.
    pub upstreams: Vec<String>,
    /// The accepted `iss`.
    pub issuer: String,
    /// The accepted `aud`.
    pub audience: String,
}

/// Verifies credentials for one relying service.
pub struct Verifier {
    settings: Settings,
    clock: Arc<dyn Clock>,
    checker: RwLock<Checker>,
}

/// Keeps a verifier following the feed until it is dropped.
pub struct Following {
    verifier: Arc<Verifier>,
    task: JoinHandle<()>,
}

impl std::ops::Deref for Following {
    type Target = Arc<Verifier>;

    fn deref(&self) -> &Arc<Verifier> {
        &self.verifier
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Verifier {
    /// A verifier without rules and keys, which refuses every credential until it follows the feed.
    pub fn new(settings: Settings, clock: impl Clock + 'static) -> Arc<Verifier> {
        let checker = RwLock::new(Checker::new(&settings.issuer, &settings.audience));
        Arc::new(Verifier { settings, clock: Arc::new(clock), checker })
    }

    /// A verifier that follows the feed over a client's connection, in the background.
    pub fn begin(settings: Settings, mayfly: &Mayfly) -> Following {
        let verifier = Verifier::new(settings, RealClock::new());
        let link = mayfly.link().clone();
        let task = tokio::spawn(verifier.clone().follow_by(move || link.channel()));
        Following { verifier, task }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The sequence number up to which the feed has been applied.
    pub fn applied(&self) -> Seq {
        self.checker.read().applied()
    }

    /// Whether the verifier has the rules and keys, up to date, and can accept credentials.
    pub fn ready(&self) -> bool {
        self.checker.read().is_ready(self.clock.moment())
    }

    /// Waits until the verifier is ready.
    pub async fn until_ready(&self) {
        while !self.ready() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Checks a credential for one use. Signature and claims of a credential that was checked before are not verified again.
    pub fn check(&self, token: &str, need: Need<'_>) -> Result<Arc<Checked>, Refused> {
        self.checker.read().check(token, &need, self.clock.moment())
    }

    /// Follows the feed until the future is dropped. Errors are retried; meanwhile the feed becomes stale and every credential is refused.
    pub async fn follow(self: Arc<Self>, channel: Channel) {
        self.follow_by(move || channel.clone()).await;
    }

    /// The same, with the connection that `channel` returns for each new stream.
    pub async fn follow_by(self: Arc<Self>, channel: impl Fn() -> Channel) {
        let pauses = backoff(limits::FOLLOW_AGAIN, limits::FOLLOW_AGAIN_MAX);
        let mut pause = pauses.build();
        loop {
            let before = self.applied();
            let trusted = self.checker.read().rolled_back().is_none();
            let ended = self.follow_once(channel()).await;
            if let Some(why) = self.checker.read().rolled_back().filter(|_| trusted) {
                tracing::error!(
                    %why,
                    "the server runs on an older copy of its ledger: every credential is refused until it begins a new generation \
                     (an operator runs: mayfly server recover)"
                );
            }
            if let Err(status) = ended {
                tracing::warn!(code = ?status.code(), message = status.message(), "the revocation feed ended; reconnecting");
            }
            if self.applied() > before {
                pause = pauses.build();
            }
            tokio::time::sleep(pause.next().unwrap_or(limits::FOLLOW_AGAIN_MAX)).await;
        }
    }

    async fn follow_once(&self, channel: Channel) -> Result<(), Status> {
        self.load_keys(channel.clone()).await?;
        let (resume_after, seen) = {
            let mut checker = self.checker.write();
            (checker.begin_stream().map(Seq::as_u64), checker.seen().map(seen_to_pb))
        };
        let (follower, upstreams) = (self.settings.follower.clone(), self.settings.upstreams.clone());
        let ask = pb::WatchRevocationsRequest { follower, resume_after, upstreams, seen };
        let mut client = RevocationServiceClient::new(channel.clone());
        let mut stream = match within(limits::FOLLOW_CALL, client.watch_revocations(ask)).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => {
                if went_back(&status) {
                    self.checker.write().told_rolled_back(status.message());
                } else if status.code() == Code::OutOfRange {
                    self.checker.write().resync();
                }
                return Err(status);
            }
        };
        // Acknowledgements count per stream: the server of this stream may not be the one that received the earlier ones.
        let mut acknowledged = None;
        while let Some(message) = within(limits::SILENCE, stream.message()).await? {
            self.take(&message)?;
            let applied = self.applied();
            let whole_part = !matches!(&message.event, Some(Event::Snapshot(part)) if !part.last);
            if whole_part && acknowledged.is_none_or(|before| applied > before) {
                let ack =
                    pb::AcknowledgeRevocationsRequest { follower: self.settings.follower.clone(), applied_seq: applied.as_u64() };
                within(limits::FOLLOW_CALL, client.acknowledge_revocations(ack)).await?;
                acknowledged = Some(applied);
            }
            // A new key is published before it signs, so loading keys with each heartbeat is early enough. A compromised key is refused by
            // its rule at once.
            if matches!(message.event, Some(Event::Heartbeat(_))) {
                self.load_keys(channel.clone()).await?;
            }
        }
        Ok(())
    }

    /// Applies one message of the feed. A message that was applied before has no effect. A gap, a message that is not understood, or a
    /// server that fell behind an earlier state ends the stream.
    fn take(&self, message: &pb::WatchRevocationsResponse) -> Result<(), Status> {
        let message = read(message).map_err(|e| Status::data_loss(e.to_string()))?;
        let mut checker = self.checker.write();
        match checker.take(message, self.clock.moment()) {
            Ok(()) => Ok(()),
            Err(Missed::Old { .. }) if checker.rolled_back().is_some() => {
                let why = checker.rolled_back().map(ToString::to_string).unwrap_or_default();
                Err(Status::data_loss(format!("the server runs on an older copy of its ledger: {why}")))
            }
            Err(old @ Missed::Old { .. }) => {
                tracing::debug!(%old, "a message of the revocation feed is outdated and was ignored");
                Ok(())
            }
            Err(lost) => Err(Status::data_loss(lost.to_string())),
        }
    }

    async fn load_keys(&self, channel: Channel) -> Result<(), Status> {
        let of = Some(pb::get_jwks_request::Of::Issuer(self.settings.issuer.clone()));
        let mut client = KeyServiceClient::new(channel);
        let answer = within(limits::FOLLOW_CALL, client.get_jwks(pb::GetJwksRequest { of })).await?.into_inner();
        let keys = Jwks::parse(&answer.jwks).map_err(|e| Status::data_loss(e.to_string()))?;
        self.checker.write().set_keys(keys);
        Ok(())
    }
}

/// Whether the server reports that its ledger is behind what the follower has seen. Earlier versions report it by the field alone.
fn went_back(status: &Status) -> bool {
    let details = status.get_error_details();
    let by_field = |bad: &tonic_types::BadRequest| bad.field_violations.iter().any(|v| v.field == "resume_after");
    details.error_info().is_some_and(|info| info.reason == "LEDGER_ROLLED_BACK") || details.bad_request().is_some_and(by_field)
}

/// Limits the wait for an answer, since the connection may be dead without an error.
async fn within<T>(time: Duration, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(time, answer).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("the feed said nothing in time")))
}
