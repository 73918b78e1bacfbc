//! What tasks were opened with, and what many of them have in common.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ledger::record::{Allowance, Ancestor, Identity, SvidEvidence, TaskOpened, TokenEvidence};
use crate::limits;
use crate::seq::{CredentialId, Millis, Seq, TaskId};

/// What a task was opened with. Only its deadline changes later.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Terms {
    /// Its id.
    pub id: TaskId,
    /// The task path: root first, this task last.
    pub path: Vec<TaskId>,
    /// The owner of each task on the path.
    pub owners: Arc<[Identity]>,
    /// The workload that opened it.
    pub opener: Arc<str>,
    /// Workloads that may act in it besides the opener.
    pub callers: Arc<[Box<str>]>,
    /// Its environment.
    pub environment: Arc<str>,
    /// What it is for, in the opener's words.
    pub purpose: Box<str>,
    /// What it may reach.
    pub allowance: Arc<Allowance>,
    /// When it was decided.
    pub opened_at: Millis,
    /// Beyond this no extension goes.
    pub max_deadline: Millis,
    /// Milliseconds between heartbeats, 0 for none.
    pub heartbeat: u64,
    /// The policy version that it was decided with.
    pub policy: u64,
    /// The SVID that it was opened with.
    pub svid: Option<Arc<SvidEvidence>>,
    /// On whose behalf it was opened, or what it is below was.
    pub behalf: Option<Arc<Behalf>>,
    /// The credential that its opener was identified by, where mayfly issued its SVID, or that it showed as a subject token.
    pub ancestor: Option<CredentialId>,
    /// It is a break-glass task, or below one.
    pub break_glass: bool,
    /// The seq of its record.
    pub seq: Seq,
    /// Its decision revision.
    pub revision: Seq,
}

/// By what a task is somebody else's: a token, a credential of ours that was shown, or both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Behalf {
    /// The subject token that it was opened with, or that the task above it rests on.
    pub token: Option<TokenEvidence>,
    /// The actors, outermost first, where it was itself opened with one.
    pub actors: Vec<Identity>,
    /// Where a credential of ours was shown: what that rests on, the first of the line first, and itself.
    pub line: Vec<Ancestor>,
}

impl Behalf {
    /// That of a task that is being opened.
    pub(super) fn of(opened: &TaskOpened) -> Option<Arc<Behalf>> {
        let behalf =
            Behalf { token: opened.subject_token.clone(), actors: opened.actors.clone(), line: opened.ancestors.clone() };
        let some = behalf.token.is_some() || !behalf.actors.is_empty() || !behalf.line.is_empty();
        some.then(|| Arc::new(behalf))
    }
}

/// Bytes of a task's terms that count for its opener: what its lists have above `limits::TASK_BYTES_FREE`.
pub(super) fn counted_bytes(opened: &TaskOpened) -> u64 {
    let callers = opened.callers.iter().map(String::len);
    bytes_above(callers, opened.allowance.as_ref(), opened.purpose.len())
}

/// Each name costs its text and its place in a list.
fn bytes_above(callers: impl Iterator<Item = usize>, allowance: Option<&Allowance>, purpose: usize) -> u64 {
    let text = |length: usize| length + std::mem::size_of::<String>();
    let (tools, upstreams) = allowance.map_or((&[][..], &[][..]), |a| (&a.tools[..], &a.upstreams[..]));
    let scopes = |scopes: &[String]| scopes.iter().map(|scope| text(scope.len())).sum::<usize>();
    let all = callers.map(text).sum::<usize>()
        + tools.iter().map(|tool| text(tool.len())).sum::<usize>()
        + upstreams.iter().map(|u| text(u.name.len()) + scopes(&u.scopes)).sum::<usize>()
        + purpose;
    (all as u64).saturating_sub(limits::TASK_BYTES_FREE)
}

impl Terms {
    /// Whether what takes the most memory is the same.
    pub(super) fn is_like(&self, other: &Terms) -> bool {
        self.callers == other.callers && self.allowance == other.allowance
    }

    /// What [`counted_bytes`] said of the record that it is from.
    pub(super) fn counted_bytes(&self) -> u64 {
        bytes_above(self.callers.iter().map(|c| c.len()), Some(self.allowance.as_ref()), self.purpose.len())
    }

    /// Takes over from another what is equal to its own. Most tasks of a caller are alike, and are in memory once then.
    pub(super) fn share(&mut self, other: &Terms) {
        fn one<T: PartialEq + ?Sized>(own: &mut Arc<T>, other: &Arc<T>) {
            if **own == **other {
                *own = other.clone();
            }
        }
        one(&mut self.opener, &other.opener);
        one(&mut self.environment, &other.environment);
        one(&mut self.owners, &other.owners);
        one(&mut self.callers, &other.callers);
        one(&mut self.allowance, &other.allowance);
        if let (Some(own), Some(other)) = (&mut self.svid, &other.svid) {
            one(own, other);
        }
        if let (Some(own), Some(other)) = (&mut self.behalf, &other.behalf) {
            one(own, other);
        }
    }
}
