//! Calls: each has a deadline, and is repeated only where a repeat does nothing twice.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use super::connect::no_way;
use super::context::Target;
use super::error::{CliError, ServerSaid};
use crate::refusal::Reason;
use crate::system::System;

/// Tries in all. With the waits below they span about a second.
const TRIES: u32 = 4;
/// The first wait between two tries; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// A server that commands call.
#[derive(Clone)]
pub struct Server {
    channel: Channel,
    address: String,
    deadline: Duration,
    system: System,
}

impl Server {
    /// Connects. `deadline` bounds the connection and each call on it.
    pub async fn connect(target: &Target, system: System, deadline: Duration) -> Result<Server, CliError> {
        let channel = super::connect::channel(target, &system, deadline).await?;
        Ok(Server { channel, address: target.address(), deadline, system })
    }

    /// The same server, whose calls may take longer by what they are asked to wait.
    pub fn waiting(&self, more: Duration) -> Server {
        Server { deadline: self.deadline.saturating_add(more), ..self.clone() }
    }

    /// One call. It is repeated when the server was not ready or the state moved under the decision, within the deadline.
    ///
    /// So everything that is sent through here must be safe to repeat: a read, a request with a request id, or an end that a repeat finds done.
    pub async fn call<Q, R, F, W>(&self, request: Q, send: F) -> Result<R, CliError>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> W,
        W: Future<Output = Result<Response<R>, Status>>,
    {
        let began = self.system.steady();
        let left = || self.deadline.saturating_sub(Duration::from_millis(self.system.steady().saturating_sub(began)));
        let mut wait = FIRST_WAIT;
        for last in (0..TRIES).map(|n| n + 1 == TRIES) {
            let mut asked = Request::new(request.clone());
            asked.set_timeout(left());
            let status = match tokio::time::timeout(left(), send(self.channel.clone(), asked)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => break,
            };
            let said = self.said(&status)?;
            let pause = said.retry_after.unwrap_or(wait).max(wait);
            if last || !worth_repeating(&said) || pause >= left() {
                return Err(CliError::Server(Box::new(said)));
            }
            tracing::debug!(code = ?said.code, reason = said.reason_text, ?pause, "trying again");
            tokio::time::sleep(pause).await;
            wait = wait.saturating_mul(2);
        }
        Err(CliError::Late(self.deadline))
    }

    /// A stream of answers. The deadline is for its beginning; it is not repeated, since the caller knows how far it came.
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

    fn said(&self, status: &Status) -> Result<ServerSaid, CliError> {
        let mut said = ServerSaid::from_status(status);
        let broke = status.source().map(|cause| no_way(&self.address, cause));
        match broke {
            Some(error @ CliError::Handshake { .. }) => return Err(error),
            // tonic says UNKNOWN of a connection that broke under a call.
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

/// Not ready, gone for a moment, or decided on an old state. A limit is not: more load does not mend it.
fn worth_repeating(said: &ServerSaid) -> bool {
    match said.reason {
        Some(reason) => matches!(reason, Reason::NotReady | Reason::DecidedOnOldState),
        None => said.reason_text.is_empty() && said.code == Code::Unavailable,
    }
}
