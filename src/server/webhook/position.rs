//! The position of a webhook, as the store keeps it.

use serde::{Deserialize, Serialize};

use mayfly_authority::authority::Authority;
use mayfly_authority::webhook::DeadLetter;
use mayfly_base::limits;
use mayfly_base::refusal::Fault;
use mayfly_ledger::reader::log_reader::LogCursor;
use mayfly_ledger::recovery::retention::parse_follower_position;
use mayfly_store::Precondition;
use mayfly_verify::seq::Seq;

/// The position of one webhook.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WebhookPosition {
    /// The next commit to examine.
    pub at: LogCursor,
    /// Every record up to here was delivered, given up, or is no event of this webhook.
    pub done: Seq,
    /// The total number of events that were given up.
    pub dead: u64,
    /// The most recent events that were given up, newest last.
    pub newest: Vec<DeadLetter>,
}

/// The part of the named value after the place.
#[derive(Serialize, Deserialize)]
struct Rest {
    done: u64,
    dead: u64,
    newest: Vec<DeadLetter>,
}

/// The name of a webhook's value in the store.
pub(crate) fn value_name(name: &str) -> String {
    format!("webhook/{name}")
}

/// The stored position of a webhook; a new webhook begins after the newest commit. The position is durable when this returns.
pub(super) fn begin(authority: &Authority, name: &str) -> Result<WebhookPosition, Fault> {
    let failed = |e| Fault::new(format!("reading the position of webhook {name}: {e}"));
    let bytes = authority.ledger.store().named(&value_name(name)).map_err(failed)?;
    let (_, end) = authority.ledger.ends();
    let Some((place, rest)) = bytes.as_deref().and_then(parse_follower_position) else {
        let kept = WebhookPosition { at: end, done: end.seq, dead: 0, newest: Vec::new() };
        kept.keep(authority, name)?;
        return Ok(kept);
    };
    let malformed = |e| Fault::new(format!("the stored position of webhook {name} is malformed: {e}"));
    let rest: Rest = serde_json::from_slice(rest).map_err(malformed)?;
    let at = authority.ledger.resume(place.seq)?.unwrap_or_else(|oldest| {
        tracing::error!(
            webhook = name,
            after = %place.seq,
            until = %oldest.seq,
            "records were removed before their events were sent to this webhook"
        );
        oldest
    });
    let done = Seq::from_u64(rest.done).unwrap_or(at.seq).max(at.seq).min(end.seq.max(at.seq));
    Ok(WebhookPosition { at, done, dead: rest.dead, newest: rest.newest })
}

impl WebhookPosition {
    /// Stores the position durably.
    pub fn keep(&self, authority: &Authority, name: &str) -> Result<(), Fault> {
        let rest = Rest { done: self.done.as_u64(), dead: self.dead, newest: self.newest.clone() };
        let rest = serde_json::to_vec(&rest).map_err(|e| Fault::new(e.to_string()))?;
        let bytes = [&self.at.to_bytes()[..], &rest].concat();
        let put = authority.ledger.store().put(&value_name(name), &bytes, Precondition::Any);
        put.map_err(|e| Fault::new(format!("writing the position of webhook {name}: {e}")))
    }

    /// Records an event that was given up.
    pub fn give_up(&mut self, dead: DeadLetter) {
        self.dead += 1;
        self.newest.push(dead);
        let beyond = self.newest.len().saturating_sub(limits::WEBHOOK_DEAD_LISTED);
        self.newest.drain(..beyond);
    }
}
