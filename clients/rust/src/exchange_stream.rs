//! One stream for all exchanges, for high rates. A new stream is opened when the old one breaks, and on the new connection when the SVID
//! rotates. Exchanges in progress are then sent again with the same request id, and the server answers with what it did.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use crate::error::Error;
use crate::limits;
use crate::link::Link;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::stream_exchange_request::Ask;
use crate::pb::mayfly::v1::stream_exchange_response::Result as Answer;
use crate::pb::mayfly::v1::token_service_client::TokenServiceClient;

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Result<pb::Issued, Error>>>>>;

/// Exchanges over a stream.
#[derive(Clone)]
pub struct ExchangeStream {
    to: mpsc::Sender<(pb::ExchangeRequest, oneshot::Sender<Result<pb::Issued, Error>>)>,
}

impl ExchangeStream {
    /// Opens a stream with the first exchange. The stream ends when the last clone is dropped.
    pub fn begin(link: Link) -> ExchangeStream {
        let (to, from) = mpsc::channel(limits::LANE);
        tokio::spawn(drive(link, from));
        ExchangeStream { to }
    }

    /// Makes one exchange.
    pub async fn exchange(&self, ask: pb::ExchangeRequest, within: Duration) -> Result<pb::Issued, Error> {
        let (answer, answered) = oneshot::channel();
        let asking = async {
            self.to.send((ask, answer)).await.map_err(|_| Error::Closed)?;
            answered.await.unwrap_or_else(|_| Err(Error::unavailable("the stream ended")))
        };
        tokio::time::timeout(within, asking).await.unwrap_or_else(|_| Err(Error::unavailable("no answer in time")))
    }
}

/// Runs one stream after the other.
async fn drive(link: Link, mut from: mpsc::Receiver<(pb::ExchangeRequest, oneshot::Sender<Result<pb::Issued, Error>>)>) {
    let mut renewals = link.renewals();
    while let Some(first) = from.recv().await {
        let waiting = Waiting::default();
        let (to, out) = mpsc::channel(limits::LANE);
        let reading = tokio::spawn(answers(link.clone(), out, waiting.clone()));
        renewals.mark_unchanged();
        let mut next = Some(first);
        while let Some((ask, answer)) = next.take() {
            waiting.lock().insert(ask.request_id.clone(), answer);
            let message = pb::StreamExchangeRequest { ask: Some(Ask::Exchange(ask)) };
            if to.send(message).await.is_err() {
                break;
            }
            next = tokio::select! {
                more = from.recv() => match more {
                    Some(more) => Some(more),
                    None => return,
                },
                // The next exchange opens a stream on the new connection. This stream is read to its end.
                _ = renewals.changed() => None,
                () = to.closed() => None,
            };
        }
        drop(to);
        drop(reading);
    }
}

/// Reads the answers of one stream to its end. Exchanges without an answer by then get an error that allows a retry.
async fn answers(link: Link, out: mpsc::Receiver<pb::StreamExchangeRequest>, waiting: Waiting) {
    let mut client = TokenServiceClient::new(link.channel());
    let ended = match client.stream_exchange(ReceiverStream::new(out)).await {
        Err(status) => Error::from(status),
        Ok(stream) => {
            let mut stream = stream.into_inner();
            loop {
                match stream.message().await {
                    Ok(Some(message)) => {
                        let Some(answer) = waiting.lock().remove(&message.request_id) else { continue };
                        let _ = answer.send(match message.result {
                            Some(Answer::Issued(issued)) => Ok(issued),
                            Some(Answer::Problem(problem)) => Err(problem.into()),
                            None => Err(Error::fault("an answer without a credential")),
                        });
                    }
                    Ok(None) => break Error::unavailable("the stream ended"),
                    Err(status) => break Error::from(status),
                }
            }
        }
    };
    for (_, answer) in waiting.lock().drain() {
        let _ = answer.send(Err(ended.clone()));
    }
}
