//! Outgoing webhooks: posts events of the ledger, one after the other, to configured receivers.
//!
//! Each webhook has a thread that reads the ledger from the webhook's position, so that issuing never waits. The position is a named value
//! of the store, written after the delivery: after a crash the newest events may be delivered again, under the same id. A delivery that is
//! not confirmed is retried with growing pauses for a day; then the event is given up, counted and listed. Retention keeps records that
//! were not delivered yet.

mod delivery;
mod position;
mod sender;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use mayfly_authority::authority::Authority;
use mayfly_authority::webhook::{TEST, TestDelivery, WebhookSenders, WebhookStatus};
use mayfly_base::system::System;
use mayfly_base::trace::Tracer;
use mayfly_config::config::WebhookConfig;
use mayfly_verify::seq::Millis;
pub(super) use position::value_name;

/// The running webhooks of a server. Dropping them ends their threads; all positions are stored.
pub struct Webhooks {
    running: Vec<WebhookThread>,
    all: Arc<RwLock<Vec<Arc<Hook>>>>,
    /// Number of threads ever started, used for their names.
    begun: usize,
}

/// The thread of one webhook.
struct WebhookThread {
    hook: Arc<Hook>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// The data of one webhook that other threads read.
struct Hook {
    of: WebhookConfig,
    system: System,
    tracer: Arc<Tracer>,
    standing: Mutex<WebhookStatus>,
}

struct All(Arc<RwLock<Vec<Arc<Hook>>>>);

impl Webhooks {
    /// Starts each webhook at its stored position; a new webhook begins with the next commit.
    pub fn start(authority: &Arc<Authority>, hooks: &[WebhookConfig]) -> io::Result<Webhooks> {
        let mut webhooks = Webhooks { running: Vec::new(), all: Arc::default(), begun: 0 };
        // Set once, here.
        let _ = authority.webhooks.set(Box::new(All(webhooks.all.clone())));
        webhooks.set(authority, hooks)?;
        Ok(webhooks)
    }

    /// Replaces the set of webhooks: a webhook whose section changed or was removed is ended first; an unchanged one continues.
    pub fn set(&mut self, authority: &Arc<Authority>, hooks: &[WebhookConfig]) -> io::Result<()> {
        let goes_on = |teller: &WebhookThread| hooks.contains(&teller.hook.of);
        let (stay, end): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running).into_iter().partition(goes_on);
        self.running = stay;
        Self::end(end);
        for of in hooks {
            if !self.running.iter().any(|teller| teller.hook.of == *of) {
                let teller = self.begin(authority, of)?;
                self.running.push(teller);
            }
        }
        // In the order of the configuration.
        let place = |teller: &WebhookThread| hooks.iter().position(|hook| hook.name == teller.hook.of.name);
        self.running.sort_by_key(place);
        *self.all.write() = self.running.iter().map(|teller| teller.hook.clone()).collect();
        Ok(())
    }

    fn begin(&mut self, authority: &Arc<Authority>, of: &WebhookConfig) -> io::Result<WebhookThread> {
        let standing = WebhookStatus {
            name: of.name.clone(),
            url: of.url.shown().to_owned(),
            events: of.events.clone(),
            environments: of.environments.clone(),
            ..WebhookStatus::default()
        };
        let (system, tracer) = (authority.system.clone(), authority.tracer.clone());
        let hook = Arc::new(Hook { of: of.clone(), system, tracer, standing: Mutex::new(standing) });
        // Before the server accepts calls, so that every later event is delivered.
        let kept = position::begin(authority, &of.name).map_err(io::Error::other)?;
        let (stop, stopping) = watch::channel(false);
        let run = sender::WebhookSender::new(hook.clone(), kept, stopping)?;
        let authority = Arc::downgrade(authority);
        let name = format!("webhook-{}", self.begun);
        self.begun += 1;
        let thread = std::thread::Builder::new().name(name).spawn(move || run.run(&authority))?;
        Ok(WebhookThread { hook, stop, thread })
    }

    fn end(tellers: Vec<WebhookThread>) {
        for teller in &tellers {
            teller.stop.send_replace(true);
            teller.thread.thread().unpark();
        }
        for teller in tellers {
            if teller.thread.join().is_err() {
                tracing::error!(webhook = teller.hook.of.name, "the thread of a webhook panicked");
            }
        }
    }
}

impl Drop for Webhooks {
    fn drop(&mut self) {
        Self::end(std::mem::take(&mut self.running));
    }
}

impl WebhookSenders for All {
    fn standing(&self) -> Vec<WebhookStatus> {
        self.0.read().iter().map(|hook| hook.standing.lock().clone()).collect()
    }

    fn test(&self, name: &str) -> Option<TestDelivery<'_>> {
        let hook = self.0.read().iter().find(|hook| hook.of.name == name).cloned()?;
        Some(Box::pin(async move {
            let now: Millis = hook.system.wall();
            let body = serde_json::json!({ "type": TEST, "timestamp": now.to_string(), "data": { "webhook": hook.of.name } });
            let id = format!("msg_test_{}", data_encoding::HEXLOWER.encode(&hook.system.id16()));
            delivery::post(&hook.of, &hook.system, &id, &body.to_string(), None).await
        }))
    }
}
