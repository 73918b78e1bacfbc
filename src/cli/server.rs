//! Calls to the server. Every call has a deadline, and a call is retried only where a retry is idempotent.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use super::connect::no_way;
use super::context::ServerTarget;
use super::error::{CliError, ServerError};
use mayfly_base::backoff::Backoff;
use mayfly_base::refusal::Reason;
use mayfly_base::system::System;

/// Maximum number of attempts. With the pauses below, all attempts span about a second.
const TRIES: usize = 4;
/// The shortest and the longest pause between two attempts, milliseconds.
const PAUSES_MS: (u64, u64) = (100, 400);

/// A connection to the server.
#[derive(Clone)]
pub struct ApiClient {
    channel: Channel,
    address: String,
    deadline: Duration,
    system: System,
}

impl ApiClient {
    /// Connects. `deadline` bounds the connection and each call.
    pub async fn connect(target: &ServerTarget, system: System, deadline: Duration) -> Result<ApiClient, CliError> {
        let channel = super::connect::channel(target, &system, deadline).await?;
        Ok(ApiClient { channel, address: target.address(), deadline, system })
    }

    /// The same connection with a longer deadline, for calls that ask the server to wait.
    pub fn waiting(&self, more: Duration) -> ApiClient {
        ApiClient { deadline: self.deadline.saturating_add(more), ..self.clone() }
    }

    /// Makes one call. The call is retried within the deadline if the server was not ready or the state changed during the decision.
    ///
    /// Every request sent here must therefore be idempotent: a read, a request with a request id, or an end that is already done when it is
    /// retried.
    pub async fn call<Q, R, F, W>(&self, request: Q, send: F) -> Result<R, CliError>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> W,
        W: Future<Output = Result<Response<R>, Status>>,
    {
        let began = self.system.steady();
        let left = || self.deadline.saturating_sub(Duration::from_millis(self.system.steady().saturating_sub(began)));
        let mut pauses = Backoff::new(PAUSES_MS.0, PAUSES_MS.1).attempts(TRIES);
        loop {
            let mut asked = Request::new(request.clone());
            asked.set_timeout(left());
            let status = match tokio::time::timeout(left(), send(self.channel.clone(), asked)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => return Err(CliError::Late(self.deadline)),
            };
            let said = self.said(&status)?;
            // The server's retry delay takes precedence over a shorter pause.
            let pause = pauses.next().map(|pause| said.retry_after.unwrap_or_default().max(pause));
            let Some(pause) = pause.filter(|pause| worth_repeating(&said) && *pause < left()) else {
                return Err(CliError::Server(Box::new(said)));
            };
            tracing::debug!(code = ?said.code, reason = said.reason_text, ?pause, "trying again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Opens a stream of answers. The deadline applies to its opening. The stream is not retried, since only the caller knows how far it
    /// has read.
    pub async fn stream<Q, R, F, W>(&self, request: Q, send: F) -> Result<Streaming<R>, CliError>
    where
        F: Fn(Channel, Request<Q>) -> W,
        W: Future<Output = Result<Response<Streaming<R>>, Status>>,
    {
        match tokio::time::timeout(self.deadline, send(self.channel.clone(), Request::new(request))).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(CliError::Server(Box::new(self.said(&status)?))),
            Err(_) => Err(CliError::Late(self.deadline)),
        }
    }

    fn said(&self, status: &Status) -> Result<ServerError, CliError> {
        let mut said = ServerError::from_status(status);
        let broke = status.source().map(|cause| no_way(&self.address, cause));
        match broke {
            Some(error @ CliError::Handshake { .. }) => return Err(error),
            // tonic reports UNKNOWN for a connection that broke during a call.
            Some(CliError::Unreachable { what, .. }) if status.code() == Code::Unknown => {
                (said.code, said.message) = (Code::Unavailable, format!("the connection to {} broke: {what}", self.address));
            }
            _ => {}
        }
        match said.code {
            Code::DeadlineExceeded | Code::Cancelled if said.reason_text.is_empty() => Err(CliError::Late(self.deadline)),
            _ => Ok(said),
        }
    }
}

/// Whether a retry may help: the server was not ready, was briefly unreachable, or decided on an old state. A rate limit is not retried,
/// since more load does not help.
fn worth_repeating(said: &ServerError) -> bool {
    match said.reason {
        Some(reason) => matches!(reason, Reason::NotReady | Reason::DecidedOnOldState),
        None => said.reason_text.is_empty() && said.code == Code::Unavailable,
    }
}
