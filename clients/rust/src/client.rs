//! The client: what is behind [`Mayfly::credential`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mayfly_verify::clock::{Clock as _, RealClock};
use mayfly_verify::seq::TaskId;
use tokio::sync::{oneshot, watch};

use crate::background::Background;
use crate::cache::{Cache, Found, Key, Outcome};
use crate::credential::{Credential, Live};
use crate::error::Error;
use crate::exchange::{Calls, Parent};
use crate::limits;
use crate::link::Link;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::exchange_request::Task;
use crate::random;
use crate::request::{self, CredentialRequest};
use crate::settings::Settings;
use crate::uses::Uses;

/// A client of mayfly. Clones are the same client.
#[derive(Clone)]
pub struct Mayfly {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    calls: Calls,
    cache: Cache,
    uses: Uses,
    background: Background,
    clock: RealClock,
    settings: Settings,
    closed: AtomicBool,
}

/// The task that a call's `_meta` names (`mayfly/task`): how an agent tells a stdio server. It is asked only where no token came with the call:
/// there the task is that of the token ([`Verified::task_id`](crate::middleware::Verified::task_id)), or none.
///
/// What names no task is refused, and never taken for none: without a task the call would have one of this workload's own, with all its rights.
pub fn task_of_meta(meta: &serde_json::Value) -> Result<Option<String>, Error> {
    let Some(named) = meta.get("mayfly/task") else { return Ok(None) };
    let id = named.as_str().and_then(|text| text.parse::<TaskId>().ok());
    let id =
        id.ok_or_else(|| Error::Settings("_meta[\"mayfly/task\"] is no task id: right would be one like task_...".to_owned()))?;
    Ok(Some(id.to_string()))
}

impl Mayfly {
    /// By the environment ([`Settings::from_env`]). It connects, so that what is wrong shows here.
    pub async fn from_env() -> Result<Mayfly, Error> {
        Mayfly::connect(Settings::from_env()?).await
    }

    /// By settings.
    pub async fn connect(settings: Settings) -> Result<Mayfly, Error> {
        let link = Link::connect(&settings).await?;
        let inner = Inner {
            calls: Calls::new(link.clone(), settings.streaming),
            cache: Cache::default(),
            uses: Uses::begin(link),
            background: Background::here(),
            clock: RealClock::new(),
            settings,
            closed: AtomicBool::new(false),
        };
        Ok(Mayfly { inner: Arc::new(inner) })
    }

    /// A credential for an upstream, to be built and got.
    pub fn credential(&self, upstream: &str) -> CredentialRequest {
        CredentialRequest::new(self.clone(), upstream)
    }

    /// The connection: for calls that this client has no method for.
    pub fn link(&self) -> &Link {
        self.inner.calls.link()
    }

    /// Uses that were told and never reported: too many waited, or it is not known whether mayfly took them.
    pub fn lost_uses(&self) -> u64 {
        self.inner.uses.lost()
    }

    pub(crate) fn default_task(&self) -> Option<String> {
        self.inner.settings.task.clone()
    }

    /// Gives everything back and sends what is to be reported, within ten seconds. What is asked for afterwards is refused.
    pub async fn close(&self) {
        self.inner.closed.store(true, Ordering::SeqCst);
        let closing = async {
            self.inner.drain();
            self.inner.uses.flush().await;
            // What was asked for before, and comes meanwhile, is given back there.
            self.inner.background.ended().await;
        };
        if tokio::time::timeout(limits::CLOSE, closing).await.is_err() {
            tracing::warn!("not everything was given back in time; it ends by itself");
        }
    }

    pub(crate) async fn obtain(&self, ask: pb::ExchangeRequest) -> Result<Credential, Error> {
        let inner = &self.inner;
        if inner.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        // Here, since what asks may be a task of its own.
        let parent = inner.settings.traceparent.and_then(|says| says());
        let Some(key) = request::key(&ask) else { return inner.alone(ask, parent).await };
        // Once or twice is enough, but for one that lives hardly longer than asking for it takes.
        for _ in 0..3 {
            if inner.closed.load(Ordering::SeqCst) {
                return Err(Error::Closed);
            }
            let mut hears = match inner.cache.find(key, inner.clock.moment()) {
                Found::Here(live) => return Ok(inner.held(live, Some(key))),
                Found::Full => return inner.alone(ask, parent).await,
                Found::Wait(hears) => hears,
                Found::Ask(says) => {
                    let hears = says.subscribe();
                    inner.ask(key, (ask.clone(), parent.clone()), says);
                    hears
                }
            };
            // It goes on when this caller is dropped: another may wait for it, and the server has issued it.
            let told = hears.wait_for(Option::is_some).await.map_err(|_| Error::Closed)?.clone();
            if let Some(Err(no)) = told {
                return Err(no);
            }
        }
        inner.alone(ask, parent).await
    }
}

impl Inner {
    pub(crate) fn uses(&self) -> &Uses {
        &self.uses
    }

    fn held(self: &Arc<Self>, live: Arc<Live>, shared: Option<Key>) -> Credential {
        Credential { live, inner: self.clone(), shared, given_back: false }
    }

    /// One that is not shared. It too goes on when its caller is dropped, and is then given back: by itself, since the caller may also be
    /// dropped when it was told already and has not looked.
    async fn alone(self: &Arc<Self>, ask: pb::ExchangeRequest, parent: Parent) -> Result<Credential, Error> {
        let inner = self.clone();
        let (says, hears) = oneshot::channel();
        self.background.begin(async move {
            let outcome = inner.exchange(ask, parent).await;
            drop(says.send(outcome.map(|live| inner.held(live, None))));
        });
        hears.await.unwrap_or(Err(Error::Closed))
    }

    /// One that is shared, asked for in the background.
    fn ask(self: &Arc<Self>, key: Key, (ask, parent): (pb::ExchangeRequest, Parent), says: watch::Sender<Option<Outcome>>) {
        let inner = self.clone();
        self.background.begin(async move {
            // Its life counts from before it was asked for, by both clocks: the steady one may stand still while the machine is suspended,
            // the wall clock may be set back.
            let asked_at = inner.clock.moment();
            let outcome = inner.exchange(ask, parent).await;
            match &outcome {
                Ok(live) => {
                    if let Some(before) = inner.cache.put(key, live.clone(), asked_at, random::jitter()) {
                        inner.give_back_later(before);
                    }
                    // Nobody holds it yet, and perhaps nobody will.
                    inner.linger(key, 0, inner.settings.idle.max(limits::IDLE));
                    // Whoever closed meanwhile may have given back all there was before this came.
                    if inner.closed.load(Ordering::SeqCst) {
                        inner.drain();
                    }
                }
                Err(_) => inner.cache.failed(key),
            }
            says.send_replace(Some(outcome));
        });
    }

    async fn exchange(&self, ask: pb::ExchangeRequest, parent: Parent) -> Outcome {
        let (own_task, tool) = (matches!(ask.task, Some(Task::OpenTask(_))), ask.tool.clone());
        let issued = self.calls.exchange(ask, parent).await?;
        Live::of(issued, own_task, &tool).map(Arc::new)
    }

    /// A holder of a shared one leaves.
    pub(crate) fn leave(self: &Arc<Self>, key: Key, live: &Arc<Live>) {
        match self.cache.leave(key, live) {
            Ok(old) => self.give_back_later(old),
            Err(Some(visits)) => self.linger(key, visits, self.settings.idle),
            Err(None) => {}
        }
    }

    /// Gives the current one back, unless somebody comes for it within a while.
    fn linger(self: &Arc<Self>, key: Key, visits: u64, time: Duration) {
        if self.closed.load(Ordering::SeqCst) {
            return;
        }
        // Not among what closing waits for: closing gives it back by itself.
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

    /// Gives all that is shared back, held or not.
    fn drain(&self) {
        self.cache.drain().into_iter().for_each(|live| self.give_back_later(live));
    }

    /// Gives one back. It goes on when whoever waits for it is dropped.
    pub(crate) async fn give_back(&self, live: Arc<Live>) -> Result<(), Error> {
        self.begin_giving_back(live).await.unwrap_or(Err(Error::Closed))
    }

    /// The same, with nobody who waits.
    pub(crate) fn give_back_later(&self, live: Arc<Live>) {
        drop(self.begin_giving_back(live));
    }

    /// By the calls alone: the last of the client may be gone by then.
    fn begin_giving_back(&self, live: Arc<Live>) -> oneshot::Receiver<Result<(), Error>> {
        let calls = self.calls.clone();
        let (says, hears) = oneshot::channel();
        self.background.begin(async move {
            if let Err(Err(no)) = says.send(give_back(&calls, &live).await) {
                tracing::warn!(credential_id = live.id, %no, "a credential could not be given back; it ends by itself");
            }
        });
        hears
    }
}

/// A task that was opened for it is completed, which ends it too.
async fn give_back(calls: &Calls, live: &Live) -> Result<(), Error> {
    match live.own_task {
        true => calls.complete(&live.task).await,
        false => calls.release(&live.id).await,
    }
}

/// A client that is dropped without [`Mayfly::close`] gives back what it shared, as long as the runtime lasts.
impl Drop for Inner {
    fn drop(&mut self) {
        self.drain();
    }
}
