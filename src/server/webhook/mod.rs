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

use parking_lot::Mutex;
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
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

/// One webhook, as others see it.
struct Hook {
    of: Webhook,
    system: System,
    tracer: Arc<Tracer>,
    standing: Mutex<Standing>,
}

struct All(Vec<Arc<Hook>>);

impl Webhooks {
    /// Begins each where it was; one that is new, with what comes from here on.
    pub fn start(authority: &Arc<Authority>, hooks: &[Webhook]) -> io::Result<Webhooks> {
        let (stop, stopping) = watch::channel(false);
        let mut webhooks = Webhooks { stop, threads: Vec::new() };
        let mut all = Vec::new();
        for of in hooks {
            let standing = Standing {
                name: of.name.clone(),
                url: of.url.shown().to_owned(),
                events: of.events.clone(),
                environments: of.environments.clone(),
                ..Standing::default()
            };
            let (system, tracer) = (authority.system.clone(), authority.tracer.clone());
            let hook = Arc::new(Hook { of: of.clone(), system, tracer, standing: Mutex::new(standing) });
            all.push(hook.clone());
            // Before anybody is served: what happens from now on is told.
            let kept = kept::begin(authority, &of.name).map_err(io::Error::other)?;
            let run = run::Run::new(hook, kept, stopping.clone())?;
            let authority = Arc::downgrade(authority);
            let name = format!("webhook-{}", webhooks.threads.len());
            webhooks.threads.push(std::thread::Builder::new().name(name).spawn(move || run.run(&authority))?);
        }
        // Set once, here.
        let _ = authority.webhooks.set(Box::new(All(all)));
        Ok(webhooks)
    }
}

impl Drop for Webhooks {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("a webhook ended by a panic");
            }
        }
    }
}

impl Tellers for All {
    fn standing(&self) -> Vec<Standing> {
        self.0.iter().map(|hook| hook.standing.lock().clone()).collect()
    }

    fn test(&self, name: &str) -> Option<Tested<'_>> {
        let hook = self.0.iter().find(|hook| hook.of.name == name)?;
        Some(Box::pin(async move {
            let now: Millis = hook.system.wall();
            let body = serde_json::json!({ "type": TEST, "timestamp": now.to_string(), "data": { "webhook": hook.of.name } });
            let id = format!("msg_test_{}", data_encoding::HEXLOWER.encode(&hook.system.id16()));
            call::post(&hook.of, &hook.system, &id, &body.to_string(), None).await
        }))
    }
}
