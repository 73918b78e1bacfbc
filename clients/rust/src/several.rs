//! Several credentials in one call: all are issued or none. Shared credentials are used where they exist; the others are exchanged in one
//! batch and shared afterwards, like those of single requests.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mayfly_verify::clock::Clock as _;
use tokio::sync::{oneshot, watch};

use crate::cache::{BatchLookup, CachedResult, ExchangeKey};
use crate::client::{Inner, Mayfly};
use crate::credential::{Credential, ObtainedCredential};
use crate::error::Error;
use crate::exchange::Traceparent;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::exchange_request::Task;
use crate::pb::mayfly::v1::exchange_result;
use crate::{random, request};

/// How often a batch waits for an equal exchange in progress, and then looks again, before it exchanges without sharing.
const ROUNDS: usize = 3;

/// The exchanges that a call has to make, and where their credentials belong.
#[derive(Default)]
struct Batch {
    asks: Vec<pb::ExchangeRequest>,
    /// For each exchange: the requests that get its credential. Several where they are equal.
    places: Vec<Vec<usize>>,
    /// For each exchange whose credential is shared: the key, and the sender that equal requests wait for.
    shared: Vec<Option<(ExchangeKey, watch::Sender<Option<CachedResult>>)>>,
}

impl Mayfly {
    /// Obtains all credentials, in the order of the requests, or none.
    pub(crate) async fn obtain_all(&self, asks: Vec<pb::ExchangeRequest>) -> Result<Vec<Credential>, Error> {
        let inner = &self.inner;
        if inner.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        let parent = inner.settings.traceparent.and_then(|says| says());
        let keys: Vec<Option<ExchangeKey>> = asks.iter().map(request::key).collect();
        let mut found = None;
        for _ in 0..ROUNDS {
            match inner.cache.find_all(&keys, inner.clock.moment()) {
                Ok(each) => {
                    found = Some(each);
                    break;
                }
                // The outcome does not matter: nothing was begun yet that could fail with it.
                Err(mut hears) => drop(hears.wait_for(Option::is_some).await),
            }
        }
        let found = found.unwrap_or_else(|| asks.iter().map(|_| BatchLookup::Ask(None)).collect());
        // From here on, the call holds the credentials that are shared already. It leaves them if the others are refused.
        let mut held: Vec<Option<Credential>> = Vec::with_capacity(asks.len());
        let mut batch = Batch::default();
        let mut index = vec![0; asks.len()];
        for (n, ((found, ask), key)) in found.into_iter().zip(asks).zip(keys).enumerate() {
            held.push(match found {
                BatchLookup::Here(live) => Some(inner.held(live, key)),
                BatchLookup::Same(earlier) => {
                    batch.places[index[earlier]].push(n);
                    None
                }
                BatchLookup::Ask(says) => {
                    index[n] = batch.asks.len();
                    batch.asks.push(ask);
                    batch.places.push(vec![n]);
                    batch.shared.push(key.zip(says));
                    None
                }
            });
        }
        // The exchange continues when the caller is dropped; its credentials are then released on their own.
        let (says, hears) = oneshot::channel();
        let obtaining = inner.clone();
        inner.background.begin(async move { drop(says.send(obtaining.complete(held, batch, parent).await)) });
        hears.await.unwrap_or(Err(Error::Closed))
    }
}

impl Inner {
    /// Exchanges for the credentials that are missing.
    async fn complete(
        self: &Arc<Self>,
        mut held: Vec<Option<Credential>>,
        batch: Batch,
        parent: Traceparent,
    ) -> Result<Vec<Credential>, Error> {
        if !batch.asks.is_empty() {
            // The lifetime counts from before the exchange, as for a single one.
            let asked_at = self.clock.moment();
            let outcome = match self.closed.load(Ordering::SeqCst) {
                true => Err(Error::Closed),
                false => self.exchange_all(batch.asks, parent).await,
            };
            let every = match outcome {
                Ok(every) => every,
                Err(no) => {
                    // Equal requests that wait are told nothing, and make their own exchange: the refusal may not be for them.
                    batch.shared.iter().flatten().for_each(|(key, _)| self.cache.failed(*key));
                    return Err(no);
                }
            };
            for ((live, places), shared) in every.into_iter().zip(batch.places).zip(batch.shared) {
                if let Some((key, _)) = &shared
                    && let Some(before) = self.cache.put(*key, live.clone(), asked_at, (random::jitter(), places.len()))
                {
                    self.give_back_later(before);
                }
                for n in places {
                    held[n] = Some(self.held(live.clone(), shared.as_ref().map(|(key, _)| *key)));
                }
                if let Some((_, says)) = shared {
                    says.send_replace(Some(Ok(live)));
                }
            }
        }
        // The client may have been closed, and its credentials released, before these arrived.
        if self.closed.load(Ordering::SeqCst) {
            self.drain();
        }
        Ok(held.into_iter().flatten().collect())
    }

    /// Exchanges for all credentials or none.
    async fn exchange_all(
        &self,
        asks: Vec<pb::ExchangeRequest>,
        parent: Traceparent,
    ) -> Result<Vec<Arc<ObtainedCredential>>, Error> {
        let about: Vec<_> = asks.iter().map(|ask| (matches!(ask.task, Some(Task::OpenTask(_))), ask.tool.clone())).collect();
        let results = self.calls.exchange_all(asks, parent).await?;
        let count = about.len();
        let whole = results.len() == count;
        let (mut obtained, mut issued, mut wrong) = (Vec::with_capacity(count), Vec::new(), None);
        for (result, (own_task, tool)) in results.into_iter().zip(about) {
            let Some(exchange_result::Result::Issued(one)) = result.result else { continue };
            issued.push((own_task, one.task_id.clone(), one.credential_id.clone()));
            match ObtainedCredential::of(one, own_task, &tool) {
                Ok(live) => obtained.push(Arc::new(live)),
                Err(no) => wrong = Some(no),
            }
        }
        if whole && obtained.len() == count {
            return Ok(obtained);
        }
        // All or none also where this client cannot use one of them.
        for (own_task, task, credential) in issued {
            let ended = match own_task {
                true => self.calls.complete(&task).await,
                false => self.calls.release(&credential).await,
            };
            if let Err(no) = ended {
                tracing::warn!(credential_id = credential, %no, "a credential could not be given back; it stays valid until it expires");
            }
        }
        Err(wrong.unwrap_or_else(|| Error::fault("an answer without a credential for each exchange of the batch")))
    }
}
