//! Deciding once more about what was issued: whether a policy set or a registration would still permit it.

use super::place::{Lists, Place};
use super::seconds;
use crate::identity::spiffe_id::SpiffeId;
use crate::ledger::record::Issued;
use crate::ledger::state::{Live, State, Task};
use crate::policy::action::{Action, Work};
use crate::policy::cache::Verdicts;
use crate::policy::request::{self, Question};
use crate::policy::set::PolicySet;
use crate::seq::{CredentialId, Millis, Seq, TaskId};
use crate::store::Position;
use crate::upstream::registry::{Kind, Upstream};

/// A live credential, as it would be asked for again.
pub struct Held {
    /// Its id.
    pub id: CredentialId,
    /// Its record's seq.
    pub seq: Seq,
    /// The place of its commit.
    pub at: Position,
    /// Whom it was issued to.
    pub caller: Box<str>,
    /// The upstream.
    pub upstream: Box<str>,
    /// The scopes that it carries.
    pub scopes: Vec<Box<str>>,
    /// The tool that it serves for; empty for none.
    pub tool: Box<str>,
    /// The binding that permitted it; empty for none.
    pub binding: Box<str>,
    /// The credential kind, by its persisted number.
    pub kind: u8,
    /// Its end.
    pub expires_at: Millis,
    /// It renews another one.
    renewal: bool,
    place: Place,
    /// Purpose and arguments digest: not in memory, but in its record.
    own: Option<(String, Vec<u8>)>,
}

impl Held {
    /// As it stands in a state.
    pub fn of(state: &State, live: &Live<'_>, task: &Task) -> Held {
        let boxed = |text: &str| Box::from(text);
        Held {
            id: live.id(),
            seq: live.seq(),
            at: live.at(),
            caller: live.caller().into(),
            upstream: live.upstream().into(),
            scopes: live.scopes().into_iter().map(boxed).collect(),
            tool: live.tool().into(),
            binding: live.binding().into(),
            kind: live.kind(),
            expires_at: live.expires_at(),
            renewal: !live.ancestors().is_empty(),
            place: Place::open(state, task, live.caller()),
            own: None,
        }
    }

    /// Adds what only its record knows.
    pub fn with_record(&mut self, issued: &Issued) {
        self.own = Some((issued.purpose.clone(), issued.arguments.clone()));
    }

    /// Whether an upstream's registration still has room for it: its kind, its scopes, and the life that it has left.
    pub fn within(&self, upstream: &Upstream, now: Millis) -> bool {
        Kind::from_tag(self.kind).is_some_and(|kind| upstream.issues(kind))
            && self.scopes.iter().all(|scope| upstream.scope(scope).is_some())
            && self.expires_at <= upstream.expires
            && self.expires_at.since(now) <= upstream.ttl.max.saturating_mul(1000)
    }
}

/// Whether deciding again needs what only records know.
pub fn reads_records(set: &PolicySet) -> bool {
    let reads = set.reads(Action::Work(Work::Exchange));
    !reads.understood() || reads.reads_own()
}

/// Whether a set permits what somebody holds, at this moment: the wall and Cedar, no bound of time.
pub fn still_permits(verdicts: &Verdicts, set: &PolicySet, upstream: &Upstream, held: &Held, now: Millis) -> bool {
    let Ok(caller) = SpiffeId::parse(&held.caller) else { return false };
    if set.environment_of(&caller) != Some(&upstream.environment) {
        return false;
    }
    let scopes: Vec<&str> = held.scopes.iter().map(|s| &**s).collect();
    let (mut digest, mut id) = ([0; 43], [0; TaskId::TEXT]);
    let arguments = held.own.as_ref().and_then(|(_, arguments)| <&[u8; 32]>::try_from(&arguments[..]).ok());
    let purpose = held.own.as_ref().map_or_else(|| held.place.purpose(), |(purpose, _)| purpose);
    let lists = Lists::of(&held.place);
    let ask = request::Ask {
        environment: &upstream.environment,
        intent: request::Intent {
            purpose,
            tool: (!held.tool.is_empty()).then_some(&*held.tool),
            arguments_digest: arguments.map(|d| request::digest_text(d, &mut digest)),
            kind: Kind::from_tag(held.kind),
            scopes: &scopes,
        },
        ttl_seconds: seconds(held.expires_at.since(now)),
        renewal: held.renewal,
        task: lists.facts(&held.place, &upstream.environment, Some(held.place.id.write(&mut id))),
        counts: held.place.counts,
        now,
        ..request::Ask::default()
    };
    verdicts.verdict(set, &Question::work(&caller, Work::Exchange, upstream, &ask)).permits()
}
