//! Calls to the server with retries. All attempts of an exchange have the same request id, so the server treats them as one request.

use std::time::Duration;

use backon::Retryable as _;
use tonic::Request;

use crate::backoff::backoff;
use crate::error::Error;
use crate::exchange_stream::ExchangeStream;
use crate::limits;
use crate::link::Link;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::task_service_client::TaskServiceClient;
use crate::pb::mayfly::v1::token_service_client::TokenServiceClient;
use crate::random;

/// The caller's `traceparent`.
pub type Traceparent = Option<String>;

/// The calls over one connection.
#[derive(Clone)]
pub struct RetryingClient {
    link: Link,
    lane: Option<ExchangeStream>,
}

impl RetryingClient {
    /// Calls over a connection. `streaming`: exchanges go over one stream.
    pub fn new(link: Link, streaming: bool) -> RetryingClient {
        let lane = streaming.then(|| ExchangeStream::begin(link.clone()));
        RetryingClient { link, lane }
    }

    /// The connection.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Exchanges for a credential. The request id is generated here.
    pub async fn exchange(&self, mut ask: pb::ExchangeRequest, parent: Traceparent) -> Result<pb::Issued, Error> {
        ask.request_id = random::request_id()?;
        let wait = ask.wait_for_approval.as_ref().and_then(|d| Duration::try_from(*d).ok()).unwrap_or_default();
        again(limits::ATTEMPTS + wait, || async {
            let within = limits::CALL + wait;
            match &self.lane {
                Some(lane) => lane.exchange(ask.clone(), within).await,
                None => {
                    let mut client = TokenServiceClient::new(self.link.channel());
                    let answer =
                        bounded(within, client.exchange(within_trace(timed(ask.clone(), within), parent.as_deref()))).await?;
                    answer.issued.ok_or_else(|| Error::fault("an answer without a credential"))
                }
            }
        })
        .await
    }

    /// Exchanges for all credentials, in the order of the requests, or for none. The request ids are generated here and are kept when the
    /// call is repeated, so that a repeat is answered with the same credentials.
    pub async fn exchange_all(
        &self,
        mut asks: Vec<pb::ExchangeRequest>,
        parent: Traceparent,
    ) -> Result<Vec<pb::ExchangeResult>, Error> {
        for ask in &mut asks {
            ask.request_id = random::request_id()?;
        }
        let upstreams: Vec<String> = asks.iter().map(|ask| ask.upstream.clone()).collect();
        let batch = pb::BatchExchangeRequest { exchanges: asks, all_or_nothing: true };
        let answered = again(limits::ATTEMPTS, || async {
            let mut client = TokenServiceClient::new(self.link.channel());
            let request = within_trace(timed(batch.clone(), limits::CALL), parent.as_deref());
            bounded(limits::CALL, client.batch_exchange(request)).await
        });
        Ok(answered.await.map_err(|no| no.of_batch(&upstreams))?.results)
    }

    /// Releases a credential. A credential that has ended already counts as released.
    pub async fn release(&self, credential_id: &str) -> Result<(), Error> {
        let ask = pb::ReleaseRequest { credential_id: credential_id.to_owned() };
        let released = again(limits::ATTEMPTS, || async {
            let mut client = TokenServiceClient::new(self.link.channel());
            bounded(limits::CALL, client.release(timed(ask.clone(), limits::CALL))).await
        });
        over(released.await.map(drop))
    }

    /// Completes a task. A task that has ended already counts as completed.
    pub async fn complete(&self, task_id: &str) -> Result<(), Error> {
        let ask = pb::CompleteTaskRequest { task_id: task_id.to_owned(), ..Default::default() };
        let completed = again(limits::ATTEMPTS, || async {
            let mut client = TaskServiceClient::new(self.link.channel());
            bounded(limits::CALL, client.complete_task(timed(ask.clone(), limits::CALL))).await
        });
        over(completed.await.map(drop))
    }
}

/// Treats an object that has already ended as success.
fn over(ended: Result<(), Error>) -> Result<(), Error> {
    match ended {
        Err(Error::Denied(r)) if matches!(&*r.reason, "CREDENTIAL_NOT_ACTIVE" | "TASK_NOT_ACTIVE" | "NOT_FOUND") => Ok(()),
        other => other,
    }
}

/// Retries until the call succeeds, is refused for good, or the time is up.
async fn again<T, W>(within: Duration, attempt: impl FnMut() -> W) -> Result<T, Error>
where
    W: Future<Output = Result<T, Error>>,
{
    let pauses = backoff(limits::RETRY_MIN, limits::RETRY_MAX).with_max_times(limits::TRIES);
    // The server's retry delay takes precedence over a shorter pause.
    let adjusted = |no: &Error, pause: Option<Duration>| pause.map(|pause| no.retry_after().unwrap_or_default().max(pause));
    match tokio::time::timeout(within, attempt.retry(pauses).when(Error::may_pass).adjust(adjusted)).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::unavailable(format!("no answer within {} s", within.as_secs()))),
    }
}

/// Adds the caller's `traceparent`. An invalid one is left out.
fn within_trace<T>(mut request: Request<T>, parent: Option<&str>) -> Request<T> {
    if let Some(parent) = parent.and_then(|text| text.parse().ok()) {
        request.metadata_mut().insert("traceparent", parent);
    }
    request
}

/// Adds a deadline that the server sees.
fn timed<T>(message: T, within: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(within);
    request
}

/// Adds a deadline on the client's side, for a server that does not answer at all.
async fn bounded<T>(within: Duration, call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, Error> {
    match tokio::time::timeout(within + Duration::from_secs(1), call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Error::unavailable("the server did not answer in time")),
    }
}
