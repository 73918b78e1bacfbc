//! The thread of one webhook: reads on, tells in order, waits, gives up.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::Hook;
use super::delivery::post;
use super::position::WebhookPosition;
use mayfly_authority::authority::Authority;
use mayfly_authority::revocation::revoke::RevocationHits;
use mayfly_authority::webhook::{DeadLetter, WebhookEvent, is_of, may_be_event, webhook_event};
use mayfly_base::backoff::Backoff;
use mayfly_base::limits;
use mayfly_base::refusal::Fault;
use mayfly_base::system::Stopwatch;
use mayfly_ledger::reader::log_reader::{LogCommit, LogCursor};
use mayfly_ledger::reader::search::{HistoryFilter, Match};
use mayfly_ledger::record::{Author, Event};
use mayfly_store::StoreId;
use mayfly_verify::seq::{Millis, Seq};

/// The sender of one webhook.
pub(super) struct WebhookSender {
    hook: Arc<Hook>,
    kept: WebhookPosition,
    /// The position that was stored last.
    noted: WebhookPosition,
    watch: Stopwatch,
    runtime: Runtime,
    stopping: watch::Receiver<bool>,
    pauses: Backoff,
}

/// The result of sending an event.
enum Fate {
    Taken,
    GivenUp(String),
    Stopping,
}

impl WebhookSender {
    pub fn new(hook: Arc<Hook>, kept: WebhookPosition, stopping: watch::Receiver<bool>) -> io::Result<WebhookSender> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let pauses = Backoff::new(limits::WEBHOOK_RETRY_MIN_MS, limits::WEBHOOK_RETRY_MAX_MS);
        let run = WebhookSender { hook, noted: kept.clone(), kept, watch: Stopwatch::start(), runtime, stopping, pauses };
        run.tell_standing(|_| {});
        Ok(run)
    }

    fn stops(&self) -> bool {
        *self.stopping.borrow()
    }

    pub fn run(mut self, authority: &Weak<Authority>) {
        // The thread has a low priority, since it reads the whole log. The state is only read for events, which are few.
        mayfly_ledger::lower_thread_priority();
        while !self.stops() {
            // The server stops webhooks before it ends; if it is gone anyway, the thread ends, too.
            let Some(authority) = authority.upgrade() else { return };
            let went = self.process_piece(&authority);
            let noted = self.note(&authority, false);
            drop(authority);
            let more = match went.and_then(|more| noted.map(|()| more)) {
                Ok(more) => {
                    if !self.pauses.is_failing() {
                        self.tell_standing(|s| s.problem.clear());
                    }
                    more
                }
                Err(fault) => {
                    tracing::error!(webhook = self.hook.of.name, %fault, "events of a webhook could not be prepared; it is retried");
                    self.tell_standing(|s| s.problem = fault.what);
                    false
                }
            };
            if !more && !self.stops() {
                std::thread::park_timeout(Duration::from_millis(limits::WEBHOOK_LOOK_MS));
            }
        }
        if let Some(authority) = authority.upgrade()
            && let Err(fault) = self.note(&authority, true)
        {
            tracing::warn!(
                webhook = self.hook.of.name,
                %fault,
                "the position of a webhook could not be stored; the next start sends the newest events again"
            );
        }
    }

    /// Processes a piece of the log. Returns whether there may be more. Only that piece is held in memory while the receiver accepts no
    /// event.
    fn process_piece(&mut self, authority: &Authority) -> Result<bool, Fault> {
        let Some(steps) = authority.ledger.steps_with(self.kept.at, limits::READER_BYTES, may_be_event)? else {
            self.kept = super::position::begin(authority, &self.hook.of.name)?;
            return Ok(true);
        };
        for looked in &steps {
            if let Some(step) = &looked.step
                && !self.commit(authority, step)?
            {
                return Ok(false);
            }
            self.kept.at = LogCursor { position: looked.position + 1, seq: looked.last };
            self.kept.done = self.kept.done.max(looked.last);
        }
        if !steps.is_empty() {
            self.tell_standing(|_| {});
        }
        Ok(!steps.is_empty())
    }

    /// Sends the events of a commit. Returns false if the server stops meanwhile.
    fn commit(&mut self, authority: &Authority, step: &LogCommit) -> Result<bool, Fault> {
        let done = self.kept.done;
        for one in step.matches(&HistoryFilter::default())?.iter().filter(|one| one.past.seq > done) {
            if let Some((event, id)) = self.event(authority, one) {
                let (seq, at) = (one.past.seq, one.past.at);
                match self.tell(&event, &id, seq, at) {
                    Fate::Stopping => return Ok(false),
                    Fate::Taken => self.tell_standing(|s| s.delivered += 1),
                    Fate::GivenUp(problem) => {
                        let (kind, now) = (event.kind.to_owned(), self.hook.system.wall());
                        tracing::error!(
                            webhook = self.hook.of.name,
                            event = kind,
                            id,
                            problem,
                            "delivery of an event was given up"
                        );
                        self.kept.give_up(DeadLetter { id, kind, seq: seq.as_u64(), at: now.0, problem });
                    }
                }
                self.kept.done = seq;
                self.note(authority, true)?;
            }
        }
        Ok(true)
    }

    /// The event of a record, if the webhook subscribes to it, and its id, which is the same for each delivery attempt.
    fn event(&self, authority: &Authority, one: &Match) -> Option<(WebhookEvent, String)> {
        let hook = &self.hook.of;
        let (mut event, store) = authority.ledger.peek(|s| Some((webhook_event(&one.past.record, s)?, s.store)))?;
        let asked = hook.events.is_empty() || hook.events.iter().any(|pattern| is_of(event.kind, pattern));
        let id = format!("msg_{}_{}", StoreId::from_bytes(store), one.past.seq.as_u64());
        let told = asked && event.of.fits(&hook.environments);
        if told && let Some(hits) = self.hits(authority, one) {
            event.hit(&hits);
        }
        told.then_some((event, id))
    }

    /// The numbers that the author of a revocation or a lock was told. The count ends a moment after the record is durable, so the event
    /// waits for it. The event has no numbers if nobody counted, or if the server was restarted since: counting here would read the whole
    /// state on a thread of low priority.
    fn hits(&self, authority: &Authority, one: &Match) -> Option<RevocationHits> {
        if !matches!(one.past.record.event, Some(Event::Revoked(_))) {
            return None;
        }
        let counting = limits::WEBHOOK_HITS_MS;
        let by_mayfly = matches!(&one.past.record.author, Some(author) if matches!(author.who, Some(Author::Mayfly(_))));
        loop {
            let made = authority.feed.made(one.past.seq)?;
            let over = by_mayfly || self.hook.system.wall().since(one.past.at) >= counting || self.stops();
            if made.hits.is_some() || over {
                return made.hits;
            }
            std::thread::sleep(Duration::from_millis(counting / 20));
        }
    }

    /// Sends an event until the receiver accepts it, the event is too old, or the server stops.
    fn tell(&mut self, event: &WebhookEvent, id: &str, seq: Seq, at: Millis) -> Fate {
        let body = event.body(seq, at);
        loop {
            let old = self.hook.system.wall().since(at) >= limits::WEBHOOK_GIVE_UP_MS;
            let failing = self.hook.standing.lock().problem.clone();
            if old && self.pauses.is_failing() {
                // The previous attempt failed as well, so the receiver is not available and the old event is given up.
                return Fate::GivenUp(failing);
            }
            let hook = self.hook.clone();
            let mut part = hook.tracer.own("webhook");
            if let Some(part) = &mut part {
                let (name, id) = (hook.of.name.as_str().into(), id.into());
                let told = [("mayfly.webhook", name), ("mayfly.webhook.id", id), ("mayfly.event", event.kind.into())];
                part.note(told.into_iter().chain([("mayfly.seq", seq.as_u64().into())]));
            }
            let parent = part.as_ref().map(|part| part.context().header());
            let attempt = post(&hook.of, &hook.system, id, &body, parent);
            let Some(outcome) = self.unless_stopping(attempt) else { return Fate::Stopping };
            if let (Some(part), Err(_)) = (&mut part, &outcome) {
                part.failed("not_taken");
            }
            drop(part);
            match outcome {
                Ok(_) => {
                    self.pauses.succeeded();
                    self.tell_standing(|s| {
                        s.problem.clear();
                        s.since = None;
                    });
                    return Fate::Taken;
                }
                Err(problem) => {
                    if failing != problem {
                        tracing::warn!(webhook = hook.of.name, problem, "the receiver did not accept an event; it is retried");
                    }
                    let now = hook.system.wall();
                    self.tell_standing(|s| {
                        s.failed += 1;
                        s.problem = problem;
                        s.since.get_or_insert(now);
                    });
                }
            }
            if !self.runtime.block_on(self.pauses.wait_unless(&mut self.stopping)) {
                return Fate::Stopping;
            }
        }
    }

    fn unless_stopping<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut stopping = self.stopping.clone();
        self.runtime.block_on(async {
            tokio::select! {
                done = work => Some(done),
                _ = stopping.wait_for(|stops| *stops) => None,
            }
        })
    }

    /// Stores the position durably: at once, or if the stored position is old.
    fn note(&mut self, authority: &Authority, at_once: bool) -> Result<(), Fault> {
        let due = at_once || self.watch.us() >= limits::WEBHOOK_NOTE_MS * 1000;
        if self.kept == self.noted || !due {
            return Ok(());
        }
        self.kept.keep(authority, &self.hook.of.name)?;
        (self.noted, self.watch) = (self.kept.clone(), Stopwatch::start());
        Ok(())
    }

    fn tell_standing(&self, change: impl FnOnce(&mut mayfly_authority::webhook::WebhookStatus)) {
        let mut standing = self.hook.standing.lock();
        standing.seq = self.kept.done;
        standing.dead = self.kept.dead;
        standing.dead_newest.clone_from(&self.kept.newest);
        change(&mut standing);
    }
}
