//! Webhooks out: events of the ledger, posted one after the other to those who asked for them.
//!
//! Each webhook has a thread that reads the ledger from where it was; nobody who issues waits for it. How far it came is a named value of the
//! store, written after what was told: after a crash the newest may be told again, under the same id. What is not taken is tried again with
//! growing pauses, for a day; then it is given up, counted and listed. Retention keeps what nobody was told of yet.

mod call;
mod kept;
mod run;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::authority::Authority;
use crate::seq::Millis;
use crate::sources::config::Webhook;
use crate::system::System;
use crate::trace::Tracer;
use crate::webhook::{Standing, TEST, Tellers, Tested};
pub(super) use kept::value_name;

/// The webhooks of a server, which run. Ended when they are dropped, with all that was told noted.
pub struct Webhooks {
    running: Vec<Teller>,
    all: Arc<RwLock<Vec<Arc<Hook>>>>,
    /// How many threads were ever begun: their names.
    begun: usize,
}

/// The thread of one webhook.
struct Teller {
    hook: Arc<Hook>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// One webhook, as others see it.
struct Hook {
    of: Webhook,
    system: System,
    tracer: Arc<Tracer>,
    standing: Mutex<Standing>,
}

struct All(Arc<RwLock<Vec<Arc<Hook>>>>);

impl Webhooks {
    /// Begins each where it was; one that is new, with what comes from here on.
    pub fn start(authority: &Arc<Authority>, hooks: &[Webhook]) -> io::Result<Webhooks> {
        let mut webhooks = Webhooks { running: Vec::new(), all: Arc::default(), begun: 0 };
        // Set once, here.
        let _ = authority.webhooks.set(Box::new(All(webhooks.all.clone())));
        webhooks.set(authority, hooks)?;
        Ok(webhooks)
    }

    /// These from here on: one whose section is another, or gone, is ended first, and one that is the same goes on.
    pub fn set(&mut self, authority: &Arc<Authority>, hooks: &[Webhook]) -> io::Result<()> {
        let same = |one: &Webhook, other: &Webhook| Webhook { line: 0, ..one.clone() } == Webhook { line: 0, ..other.clone() };
        let goes_on = |teller: &Teller| hooks.iter().any(|hook| same(hook, &teller.hook.of));
        let (stay, end): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running).into_iter().partition(goes_on);
        self.running = stay;
        Self::end(end);
        for of in hooks {
            if !self.running.iter().any(|teller| same(of, &teller.hook.of)) {
                let teller = self.begin(authority, of)?;
                self.running.push(teller);
            }
        }
        // In the order of the configuration.
        let place = |teller: &Teller| hooks.iter().position(|hook| hook.name == teller.hook.of.name);
        self.running.sort_by_key(place);
        *self.all.write() = self.running.iter().map(|teller| teller.hook.clone()).collect();
        Ok(())
    }

    fn begin(&mut self, authority: &Arc<Authority>, of: &Webhook) -> io::Result<Teller> {
        let standing = Standing {
            name: of.name.clone(),
            url: of.url.shown().to_owned(),
            events: of.events.clone(),
            environments: of.environments.clone(),
            ..Standing::default()
        };
        let (system, tracer) = (authority.system.clone(), authority.tracer.clone());
        let hook = Arc::new(Hook { of: of.clone(), system, tracer, standing: Mutex::new(standing) });
        // Before anybody is served: what happens from now on is told.
        let kept = kept::begin(authority, &of.name).map_err(io::Error::other)?;
        let (stop, stopping) = watch::channel(false);
        let run = run::Run::new(hook.clone(), kept, stopping)?;
        let authority = Arc::downgrade(authority);
        let name = format!("webhook-{}", self.begun);
        self.begun += 1;
        let thread = std::thread::Builder::new().name(name).spawn(move || run.run(&authority))?;
        Ok(Teller { hook, stop, thread })
    }

    fn end(tellers: Vec<Teller>) {
        for teller in &tellers {
            teller.stop.send_replace(true);
            teller.thread.thread().unpark();
        }
        for teller in tellers {
            if teller.thread.join().is_err() {
                tracing::error!(webhook = teller.hook.of.name, "a webhook ended by a panic");
            }
        }
    }
}

impl Drop for Webhooks {
    fn drop(&mut self) {
        Self::end(std::mem::take(&mut self.running));
    }
}

impl Tellers for All {
    fn standing(&self) -> Vec<Standing> {
        self.0.read().iter().map(|hook| hook.standing.lock().clone()).collect()
    }

    fn test(&self, name: &str) -> Option<Tested<'_>> {
        let hook = self.0.read().iter().find(|hook| hook.of.name == name).cloned()?;
        Some(Box::pin(async move {
            let now: Millis = hook.system.wall();
            let body = serde_json::json!({ "type": TEST, "timestamp": now.to_string(), "data": { "webhook": hook.of.name } });
            let id = format!("msg_test_{}", data_encoding::HEXLOWER.encode(&hook.system.id16()));
            call::post(&hook.of, &hook.system, &id, &body.to_string(), None).await
        }))
    }
}
