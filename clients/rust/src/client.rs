//! The client behind [`Mayfly::credential`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mayfly_verify::clock::{Clock as _, RealClock};
use mayfly_verify::seq::TaskId;
use tokio::sync::{oneshot, watch};

use crate::background::Background;
use crate::cache::{Cache, CacheLookup, CachedResult, ExchangeKey};
use crate::credential::{Credential, ObtainedCredential};
use crate::error::Error;
use crate::exchange::{RetryingClient, Traceparent};
use crate::limits;
use crate::link::Link;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::exchange_request::Task;
use crate::random;
use crate::request::{self, CredentialRequest};
use crate::settings::Settings;
use crate::uses::UseReporter;

/// A client of mayfly. Clones share the same connection, credentials and use reports.
#[derive(Clone)]
pub struct Mayfly {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) calls: RetryingClient,
    pub(crate) cache: Cache,
    uses: UseReporter,
    pub(crate) background: Background,
    pub(crate) clock: RealClock,
    pub(crate) settings: Settings,
    pub(crate) closed: AtomicBool,
}

/// The task that a call's `_meta` names as `mayfly/task`. An agent uses it to tell the task to a stdio server. Use it only where no token
/// came with the call; with a token, the task is that of the token ([`Verified::task_id`](crate::middleware::Verified::task_id)), if it has
/// one.
///
/// A malformed task id is an error and never counts as none: without a task, the call would run in a task of this workload's own, with all
/// its rights.
pub fn task_of_meta(meta: &serde_json::Value) -> Result<Option<String>, Error> {
    let Some(named) = meta.get("mayfly/task") else { return Ok(None) };
    let id = named.as_str().and_then(|text| text.parse::<TaskId>().ok());
    let id =
        id.ok_or_else(|| Error::Settings("_meta[\"mayfly/task\"] is no task id: right would be one like task_...".to_owned()))?;
    Ok(Some(id.to_string()))
}

impl Mayfly {
    /// Connects with settings from the environment ([`Settings::from_env`]). Invalid settings are reported here.
    pub async fn from_env() -> Result<Mayfly, Error> {
        Mayfly::connect(Settings::from_env()?).await
    }

    /// Connects with the given settings.
    pub async fn connect(settings: Settings) -> Result<Mayfly, Error> {
        let link = Link::connect(&settings).await?;
        let inner = Inner {
            calls: RetryingClient::new(link.clone(), settings.streaming),
            cache: Cache::default(),
            uses: UseReporter::begin(link),
            background: Background::here(),
            clock: RealClock::new(),
            settings,
            closed: AtomicBool::new(false),
        };
        Ok(Mayfly { inner: Arc::new(inner) })
    }

    /// Starts building a request for a credential for an upstream.
    pub fn credential(&self, upstream: &str) -> CredentialRequest {
        CredentialRequest::new(self.clone(), upstream)
    }

    /// Obtains up to eight credentials in one call, in the order of the requests: all are issued or none. If one is refused, what upstreams
    /// had made for the others is undone, and the refusal's `upstream` names the one that was refused.
    ///
    /// The credentials are shared and retried like those of [`CredentialRequest::get`]. A request whose credential is shared already is not
    /// sent again. Requests without a task open one each. An approval is not waited for.
    pub async fn credentials(&self, requests: impl IntoIterator<Item = CredentialRequest>) -> Result<Vec<Credential>, Error> {
        let mut requests: Vec<CredentialRequest> = requests.into_iter().take(limits::AT_ONCE + 1).collect();
        match requests.len() {
            1 => return Ok(vec![requests.swap_remove(0).get().await?]),
            2..=limits::AT_ONCE => {}
            0 => return Err(Error::Settings(format!("no credential is requested: right would be 1 to {}", limits::AT_ONCE))),
            _ => {
                let what = format!("more than {0} credentials are requested: right would be 1 to {0}", limits::AT_ONCE);
                return Err(Error::Settings(what));
            }
        }
        let asks = requests.into_iter().map(|one| one.one_of_several(self)).collect::<Result<Vec<_>, _>>()?;
        self.obtain_all(asks).await
    }

    /// Whether both are the same client.
    pub(crate) fn is(&self, other: &Mayfly) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The connection, for calls that this client has no method for.
    pub fn link(&self) -> &Link {
        self.inner.calls.link()
    }

    /// Uses that were added but never reported: too many were queued, or it is unknown whether mayfly counted them.
    pub fn lost_uses(&self) -> u64 {
        self.inner.uses.lost()
    }

    pub(crate) fn default_task(&self) -> Option<String> {
        self.inner.settings.task.clone()
    }

    /// Releases all credentials and sends the remaining use reports, within ten seconds. Later requests are refused.
    pub async fn close(&self) {
        self.inner.closed.store(true, Ordering::SeqCst);
        let closing = async {
            self.inner.drain();
            self.inner.uses.flush().await;
            // Credentials whose exchange is still in progress are released when they arrive.
            self.inner.background.ended().await;
        };
        if tokio::time::timeout(limits::CLOSE, closing).await.is_err() {
            tracing::warn!("the remaining credentials could not be given back in time; they stay valid until they expire");
        }
    }

    pub(crate) async fn obtain(&self, ask: pb::ExchangeRequest) -> Result<Credential, Error> {
        let inner = &self.inner;
        if inner.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        // Evaluated here because the exchange may run in a task of its own.
        let parent = inner.settings.traceparent.and_then(|says| says());
        let Some(key) = request::key(&ask) else { return inner.alone(ask, parent).await };
        // One or two iterations suffice, unless the credential's lifetime is hardly longer than an exchange takes.
        for _ in 0..3 {
            if inner.closed.load(Ordering::SeqCst) {
                return Err(Error::Closed);
            }
            let mut hears = match inner.cache.find(key, inner.clock.moment()) {
                CacheLookup::Here(live) => return Ok(inner.held(live, Some(key))),
                CacheLookup::Full => return inner.alone(ask, parent).await,
                CacheLookup::Wait(hears) => hears,
                CacheLookup::Ask(says) => {
                    let hears = says.subscribe();
                    inner.ask(key, (ask.clone(), parent.clone()), says);
                    hears
                }
            };
            // The exchange continues when this caller is dropped: another caller may wait for it, and the server may have issued the
            // credential already.
            // An exchange in a batch tells nothing when the batch was refused, since that may be for another request of the batch.
            if let Ok(Some(Err(no))) = hears.wait_for(Option::is_some).await.map(|told| told.clone()) {
                return Err(no);
            }
        }
        inner.alone(ask, parent).await
    }
}

impl Inner {
    pub(crate) fn uses(&self) -> &UseReporter {
        &self.uses
    }

    pub(crate) fn held(self: &Arc<Self>, live: Arc<ObtainedCredential>, shared: Option<ExchangeKey>) -> Credential {
        Credential { live, inner: self.clone(), shared, given_back: false }
    }

    /// Obtains a credential that is not shared. The exchange continues when its caller is dropped, and the credential is then released on
    /// its own; the caller may also be dropped after the result was sent but before it was received.
    async fn alone(self: &Arc<Self>, ask: pb::ExchangeRequest, parent: Traceparent) -> Result<Credential, Error> {
        let inner = self.clone();
        let (says, hears) = oneshot::channel();
        self.background.begin(async move {
            let outcome = inner.exchange(ask, parent).await;
            drop(says.send(outcome.map(|live| inner.held(live, None))));
        });
        hears.await.unwrap_or(Err(Error::Closed))
    }

    /// Obtains a shared credential in the background.
    fn ask(
        self: &Arc<Self>,
        key: ExchangeKey,
        (ask, parent): (pb::ExchangeRequest, Traceparent),
        says: watch::Sender<Option<CachedResult>>,
    ) {
        let inner = self.clone();
        self.background.begin(async move {
            // The lifetime counts from before the exchange, by both clocks: the steady clock may stop while the machine is suspended, and
            // the wall clock may be set back.
            let asked_at = inner.clock.moment();
            let outcome = inner.exchange(ask, parent).await;
            match &outcome {
                Ok(live) => {
                    if let Some(before) = inner.cache.put(key, live.clone(), asked_at, (random::jitter(), 0)) {
                        inner.give_back_later(before);
                    }
                    // The credential has no holder yet and may never get one.
                    inner.linger(key, 0, inner.settings.idle.max(limits::IDLE));
                    // The client may have been closed, and its credentials released, before this one arrived.
                    if inner.closed.load(Ordering::SeqCst) {
                        inner.drain();
                    }
                }
                Err(_) => inner.cache.failed(key),
            }
            says.send_replace(Some(outcome));
        });
    }

    async fn exchange(&self, ask: pb::ExchangeRequest, parent: Traceparent) -> CachedResult {
        let (own_task, tool) = (matches!(ask.task, Some(Task::OpenTask(_))), ask.tool.clone());
        let issued = self.calls.exchange(ask, parent).await?;
        ObtainedCredential::of(issued, own_task, &tool).map(Arc::new)
    }

    /// Removes a holder of a shared credential.
    pub(crate) fn leave(self: &Arc<Self>, key: ExchangeKey, live: &Arc<ObtainedCredential>) {
        match self.cache.leave(key, live) {
            Ok(old) => self.give_back_later(old),
            Err(Some(visits)) => self.linger(key, visits, self.settings.idle),
            Err(None) => {}
        }
    }

    /// Releases the current shared credential unless it is handed out again within `time`.
    fn linger(self: &Arc<Self>, key: ExchangeKey, visits: u64, time: Duration) {
        if self.closed.load(Ordering::SeqCst) {
            return;
        }
        // Closing does not wait for this timer, because closing releases the credential itself.
        let inner = Arc::downgrade(self);
        self.background.aside(async move {
            tokio::time::sleep(time).await;
            if let Some(inner) = inner.upgrade()
                && let Some(live) = inner.cache.forget(key, visits)
            {
                inner.give_back_later(live);
            }
        });
    }

    /// Releases all shared credentials, with or without holders.
    pub(crate) fn drain(&self) {
        self.cache.drain().into_iter().for_each(|live| self.give_back_later(live));
    }

    /// Releases a credential and waits for it. The release continues when the caller is dropped.
    pub(crate) async fn give_back(&self, live: Arc<ObtainedCredential>) -> Result<(), Error> {
        self.begin_giving_back(live).await.unwrap_or(Err(Error::Closed))
    }

    /// Releases a credential without waiting.
    pub(crate) fn give_back_later(&self, live: Arc<ObtainedCredential>) {
        drop(self.begin_giving_back(live));
    }

    /// Uses only `calls`, since the client itself may already be dropped.
    fn begin_giving_back(&self, live: Arc<ObtainedCredential>) -> oneshot::Receiver<Result<(), Error>> {
        let calls = self.calls.clone();
        let (says, hears) = oneshot::channel();
        self.background.begin(async move {
            if let Err(Err(no)) = says.send(give_back(&calls, &live).await) {
                tracing::warn!(credential_id = live.id, %no, "a credential could not be given back; it stays valid until it expires");
            }
        });
        hears
    }
}

/// Completes a task that was opened for the credential, which ends the credential too; otherwise releases the credential.
async fn give_back(calls: &RetryingClient, live: &ObtainedCredential) -> Result<(), Error> {
    match live.own_task {
        true => calls.complete(&live.task).await,
        false => calls.release(&live.id).await,
    }
}

/// A client that is dropped without [`Mayfly::close`] releases its shared credentials as long as the runtime exists.
impl Drop for Inner {
    fn drop(&mut self) {
        self.drain();
    }
}
