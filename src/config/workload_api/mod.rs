//! The SPIFFE Workload API as a source of the server's own SVID and of the bundles that come with it, with updates whenever one of them
//! changes.
//!
//! - [`Agent`]: keeps the streams open, and reopens them after growing pauses; [`wait_for_first_message`] waits for what a start needs.
//! - [`AgentMessage`]: the content of one message, each part checked separately. A defect in one part leaves the others usable.

mod message;

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

pub use mayfly_client::agent::Endpoint;
use mayfly_client::agent::{jwt_bundles, x509_svids};
use mayfly_client::pb::workload::{JwtBundlesResponse, X509SvidResponse};
use tokio::time::sleep;
use tonic::{Code, Status, Streaming};

pub use message::{AgentMessage, bundle_of};

use mayfly_base::backoff::Backoff;
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_identity::spiffe_id::{SpiffeId, TrustDomain};

/// The parameters of a request to an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentRequest {
    /// The agent's address.
    pub endpoint: Endpoint,
    /// The trust domain of the server's SVID.
    pub trust_domain: TrustDomain,
    /// Selects one of several SVIDs by its SPIFFE ID.
    pub id: Option<SpiffeId>,
    /// Selects one of several SVIDs by its hint.
    pub hint: Option<String>,
}

/// Why no SVID arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgentErrorReason {
    /// No agent answers there, or not in time.
    Away,
    /// The agent has no identity for this process.
    NotKnown,
    /// The agent's SVID is not usable.
    Unusable,
    /// The agent's SVID is of another trust domain, and waiting does not change that.
    OtherDomain,
}

/// Why there is no SVID, and the remedy. Never contains received data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentError {
    /// The kind of problem.
    pub why: AgentErrorReason,
    /// The agent's address.
    pub endpoint: Endpoint,
    /// The problem.
    pub what: String,
    /// The remedy.
    pub remedy: String,
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the SPIFFE Workload API at {}: {}; {}", self.endpoint, self.what, self.remedy)
    }
}

impl AgentRequest {
    pub(super) fn no(&self, why: AgentErrorReason, what: impl ToString, remedy: impl Into<String>) -> AgentError {
        AgentError { why, endpoint: self.endpoint.clone(), what: what.to_string(), remedy: remedy.into() }
    }

    /// The meaning of the agent's status.
    fn said(&self, status: &Status) -> AgentError {
        let uid = rustix::process::geteuid().as_raw();
        match status.code() {
            Code::PermissionDenied => {
                let id = self.id.as_ref().map_or_else(|| format!("spiffe://{}/mayfly", self.trust_domain), ToString::to_string);
                let entry =
                    format!("spire-server entry create -parentID AGENT -spiffeID {id} -selector unix:uid:{uid} -dns NAME");
                let what = format!("it has no identity for this process (uid {uid}): {}", status.message());
                self.no(AgentErrorReason::NotKnown, what, format!("register it: {entry}"))
            }
            _ => {
                let look = match &self.endpoint {
                    Endpoint::Unix(path) => format!("ls -l {}", shell_quoted(path)),
                    Endpoint::Tcp(address) => format!("nc -vz {} {}", address.ip(), address.port()),
                };
                let remedy = format!("start the agent, or mend workload_api.socket; whether anybody is there: {look}");
                self.no(AgentErrorReason::Away, status.message(), remedy)
            }
        }
    }
}

/// A connection to an agent, with reconnection.
pub struct Agent {
    wanted: AgentRequest,
    system: System,
    streams: Option<Streams>,
    pauses: Backoff,
    /// The pause before the next attempt.
    pause: Option<Duration>,
}

/// The streams of one session, and the last message of each.
struct Streams {
    endpoint: Endpoint,
    svids: Streaming<X509SvidResponse>,
    jwt: Jwt,
    last_svids: Option<X509SvidResponse>,
    /// `None` until the first message.
    last_jwt: Option<JwtBundlesResponse>,
    /// The pauses of the stream of JWT bundles, which reconnects independently of the SVIDs.
    pauses: Backoff,
}

/// The stream of JWT bundles.
enum Jwt {
    /// The stream is being opened, perhaps after a pause.
    Coming(Pin<Box<dyn Future<Output = Result<Streaming<JwtBundlesResponse>, Status>> + Send>>),
    Open(Box<Streaming<JwtBundlesResponse>>),
    /// The agent serves no JWT bundles to this process.
    NotServed,
}

/// An event of this stream.
enum JwtStreamEvent {
    Begun(Result<Streaming<JwtBundlesResponse>, Status>),
    Said(Result<JwtBundlesResponse, Status>),
}

impl Agent {
    /// Creates the agent; the first request is made by [`Agent::next`].
    pub fn new(wanted: AgentRequest, system: System) -> Agent {
        Agent { wanted, system, streams: None, pauses: pauses(), pause: None }
    }

    /// The next message, or why there is none. After an error the next call reconnects, after a pause.
    pub async fn next(&mut self) -> Result<AgentMessage, AgentError> {
        if let Some(pause) = self.pause.take() {
            sleep(pause).await;
        }
        let heard = self.heard().await;
        match &heard {
            Ok(_) => self.pauses.succeeded(),
            Err(_) => (self.streams, self.pause) = (None, self.pauses.next()),
        }
        heard.map_err(|status| self.wanted.said(&status))
    }

    async fn heard(&mut self) -> Result<AgentMessage, Status> {
        let streams = match &mut self.streams {
            Some(streams) => {
                streams.next().await?;
                streams
            }
            none => {
                let begun = async {
                    let mut streams = Streams::begin(&self.wanted.endpoint).await?;
                    streams.next().await.map(|()| streams)
                };
                none.insert(in_time("SVID", begun).await?)
            }
        };
        let svids = streams.last_svids.clone().unwrap_or_default();
        Ok(AgentMessage::read(&self.wanted, &svids, streams.last_jwt.as_ref(), self.system.wall()))
    }
}

fn pauses() -> Backoff {
    Backoff::new(limits::WORKLOAD_API_RETRY_MIN_MS, limits::WORKLOAD_API_RETRY_MAX_MS)
}

/// Whether the agent has no JWT bundles for this process; the rest of its data is used nonetheless.
fn lacks_jwt_bundles(status: &Status) -> bool {
    matches!(status.code(), Code::Unimplemented | Code::PermissionDenied | Code::InvalidArgument)
}

impl Streams {
    async fn begin(endpoint: &Endpoint) -> Result<Streams, Status> {
        let svids = x509_svids(endpoint).await?;
        let (endpoint, jwt) = (endpoint.clone(), Jwt::coming(endpoint, Duration::ZERO));
        Ok(Streams { endpoint, svids, jwt, last_svids: None, last_jwt: None, pauses: pauses() })
    }

    /// Waits for a new message, after at least one message of SVIDs.
    async fn next(&mut self) -> Result<(), Status> {
        loop {
            tokio::select! {
                said = self.svids.message() => {
                    self.last_svids = Some(said?.ok_or_else(ended)?);
                    return Ok(());
                }
                told = self.jwt.next() => {
                    if self.take(told) && self.last_svids.is_some() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Handles an event and returns whether there is new content. A failure of the JWT bundles does not affect the SVIDs: the last bundles
    /// stay in effect, and the stream is reopened, so that a withdrawn key is not trusted for the agent's whole life.
    fn take(&mut self, told: JwtStreamEvent) -> bool {
        match told {
            JwtStreamEvent::Begun(Ok(stream)) => self.jwt = Jwt::Open(Box::new(stream)),
            JwtStreamEvent::Said(Ok(said)) => {
                self.last_jwt = Some(said);
                self.pauses.succeeded();
                return true;
            }
            JwtStreamEvent::Begun(Err(status)) | JwtStreamEvent::Said(Err(status)) if lacks_jwt_bundles(&status) => {
                (self.jwt, self.last_jwt) = (Jwt::NotServed, Some(JwtBundlesResponse::default()));
                return true;
            }
            JwtStreamEvent::Begun(Err(status)) | JwtStreamEvent::Said(Err(status)) => {
                let pause = self.pauses.next().unwrap_or(Duration::from_millis(limits::WORKLOAD_API_RETRY_MAX_MS));
                tracing::info!(
                    agent = %self.endpoint,
                    problem = status.message(),
                    ?pause,
                    "the agent sent no JWT bundles; the current JWT bundles stay in use"
                );
                self.jwt = Jwt::coming(&self.endpoint, pause);
            }
        }
        false
    }
}

impl Jwt {
    fn coming(endpoint: &Endpoint, pause: Duration) -> Jwt {
        let endpoint = endpoint.clone();
        Jwt::Coming(Box::pin(async move {
            sleep(pause).await;
            in_time("JWT bundle", jwt_bundles(&endpoint)).await
        }))
    }

    /// Cancel-safe: dropping the future loses no message.
    async fn next(&mut self) -> JwtStreamEvent {
        match self {
            Jwt::Coming(stream) => JwtStreamEvent::Begun(stream.await),
            Jwt::Open(stream) => JwtStreamEvent::Said(stream.message().await.and_then(|said| said.ok_or_else(ended))),
            Jwt::NotServed => std::future::pending().await,
        }
    }
}

/// Limits the wait for an agent that neither answers nor fails.
async fn in_time<T>(what: &str, asked: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let most = Duration::from_millis(limits::WORKLOAD_API_FIRST_MS);
    let late = |_| Status::deadline_exceeded(format!("no {what} within {} s", most.as_secs()));
    tokio::time::timeout(most, asked).await.map_err(late)?
}

fn ended() -> Status {
    Status::unavailable("the stream ended")
}

/// Waits at most `patience` for a first message, with a usable SVID if one is needed. Each distinct problem meanwhile is logged once.
pub async fn wait_for_first_message(
    wanted: &AgentRequest,
    svid_needed: bool,
    patience: Duration,
    system: &System,
) -> Result<AgentMessage, AgentError> {
    let mut agent = Agent::new(wanted.clone(), system.clone());
    let mut last = None;
    let waiting = async {
        loop {
            let no = match agent.next().await {
                Ok(given) => match given.svid.as_ref().err().filter(|_| svid_needed) {
                    None => return Ok(given),
                    Some(no) => no.clone(),
                },
                Err(no) => no,
            };
            if no.why == AgentErrorReason::OtherDomain {
                return Err(no);
            }
            if last.as_ref() != Some(&no) {
                tracing::warn!(problem = %no, seconds = patience.as_secs(), "waiting for the SPIFFE agent");
            }
            last = Some(no);
        }
    };
    let outcome = tokio::time::timeout(patience, waiting).await;
    outcome.unwrap_or_else(|_| Err(last.unwrap_or_else(|| wanted.said(&Status::unavailable("it does not answer")))))
}

/// Asks once, for commands: works on any thread, also on one that runs a runtime.
pub fn fetch_once(wanted: &AgentRequest, system: &System) -> Result<AgentMessage, AgentError> {
    let asked = std::thread::scope(|scope| {
        let asking = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let patience = Duration::from_millis(limits::WORKLOAD_API_LOOK_MS);
            let mut agent = Agent::new(wanted.clone(), system.clone());
            runtime.block_on(async { tokio::time::timeout(patience, agent.next()).await.ok() })
        };
        scope.spawn(asking).join().ok().flatten()
    });
    asked.unwrap_or_else(|| Err(wanted.said(&Status::unavailable("it does not answer"))))
}
