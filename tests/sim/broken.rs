//! Possible defects of the fold or the feed. With each of them the simulation must find a violation: a check that cannot fail shows
//! nothing.

use mayfly::ledger::record::{ApprovalKind, Author, AuthorRecord, BreakGlassStep, Event, Maintained, Record};

use crate::model::lockable;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    Nothing,
    /// Every decision counts as made on the newest state.
    IgnoresRevision,
    /// Revocations do not lock.
    SkipsLocks,
    /// An approval is not used up.
    ApprovalsAgain,
    /// A task opens without the approval that it waits for.
    OpensAnyhow,
    /// A refused approval counts as given.
    TakesNoForYes,
    /// An extension does not use up its approval.
    MoreTimeAgain,
    /// Request ids are not remembered.
    ForgetsRequests,
    /// Holds have no effect.
    IgnoresHolds,
    /// Closing has no effect.
    IgnoresClosing,
    /// A credential that was given back stays valid.
    IgnoresRelease,
    /// The rule on a compromised key is left out.
    TrustsStolenKeys,
    /// Lifting a lock makes revoked credentials valid again.
    LiftsRevive,
    /// Presented evidence is not checked.
    TrustsEvidence,
    /// The credential that a retry replaces is not checked.
    ReplacesAnything,
    /// A deadline may be extended beyond its maximum.
    ExtendsForEver,
    /// The feed loses an event without a visible gap.
    FeedHidesGaps,
    /// A follower is told that it is fresh without proof.
    FreshWithoutProof,
    /// A writer answers before it has folded its own record.
    AnswersEarly,
    /// A restart loses the newest acknowledged commit.
    LosesTheLast,
    /// An action is authorized without a check.
    AuthorizesAnything,
    /// A task forgets the credential that it was opened with, and the ancestors of that credential.
    ForgetsTheLine,
    /// A login that was given back stays valid.
    NobodySignsOut,
    /// Break-glass is treated like any other task.
    GlassAlone,
    /// People who act in break-glass can make lasting changes.
    GlassLasts,
    /// A missing review of break-glass has no effect.
    GlassUnreviewed,
}

impl Broken {
    pub const ALL: [Broken; 25] = [
        Broken::IgnoresRevision,
        Broken::SkipsLocks,
        Broken::ApprovalsAgain,
        Broken::OpensAnyhow,
        Broken::TakesNoForYes,
        Broken::MoreTimeAgain,
        Broken::ForgetsRequests,
        Broken::IgnoresHolds,
        Broken::IgnoresClosing,
        Broken::IgnoresRelease,
        Broken::TrustsStolenKeys,
        Broken::LiftsRevive,
        Broken::TrustsEvidence,
        Broken::ReplacesAnything,
        Broken::ExtendsForEver,
        Broken::FeedHidesGaps,
        Broken::FreshWithoutProof,
        Broken::AnswersEarly,
        Broken::LosesTheLast,
        Broken::AuthorizesAnything,
        Broken::ForgetsTheLine,
        Broken::NobodySignsOut,
        Broken::GlassAlone,
        Broken::GlassLasts,
        Broken::GlassUnreviewed,
    ];

    /// The record as a fold with this defect would read it.
    pub fn sees(self, record: &Record, head: u64) -> Record {
        let mut record = record.clone();
        let nothing = Event::Maintained(Maintained::default());
        let Some(event) = &mut record.event else { return record };
        match (self, event) {
            (Broken::GlassAlone, Event::TaskOpened(e)) => e.break_glass = false,
            (Broken::GlassAlone, Event::Issued(e)) => e.break_glass = false,
            (Broken::GlassAlone, event @ Event::BreakGlass(_)) => *event = nothing,
            (Broken::GlassLasts, Event::PolicySet(_) | Event::UpstreamSet(_) | Event::BindingSet(_) | Event::LockLifted(_))
                if record.request.is_none() =>
            {
                record.author = Some(AuthorRecord { who: Some(Author::LocalUid(0)) });
            }
            (Broken::GlassUnreviewed, event @ Event::BreakGlass(_)) => {
                if matches!(event, Event::BreakGlass(e) if e.step == BreakGlassStep::Reviewed as i32) {
                    *event = nothing;
                }
            }
            (Broken::ReplacesAnything, Event::Issued(e)) if !e.replaces.is_empty() => {
                e.replaces.clear();
                record.request = None;
            }
            (Broken::IgnoresRevision, Event::Issued(_) | Event::TaskOpened(_) | Event::TaskExtended(_)) => record.revision = head,
            (Broken::SkipsLocks, Event::Revoked(e)) => e.issued_only = true,
            (Broken::ApprovalsAgain, Event::Issued(e)) => e.approval.clear(),
            (Broken::OpensAnyhow, Event::TaskOpened(e)) => e.approval.clear(),
            (Broken::OpensAnyhow, event @ Event::ApprovalAsked(_)) => {
                if matches!(event, Event::ApprovalAsked(e) if e.of() == ApprovalKind::Task) {
                    *event = nothing;
                }
            }
            (Broken::TakesNoForYes, Event::ApprovalDecided(e)) => e.given = true,
            (Broken::MoreTimeAgain, Event::TaskExtended(e)) => e.approval.clear(),
            (Broken::ForgetsRequests, _) => record.request = None,
            (Broken::AuthorizesAnything, event @ Event::Authorized(_)) => *event = nothing,
            // Both: the facts that are kept of the credential contain its ancestors as well.
            (Broken::ForgetsTheLine, Event::TaskOpened(e)) => {
                e.ancestor.clear();
                e.ancestors.clear();
            }
            (Broken::NobodySignsOut, event @ Event::LoggedOut(_)) => *event = nothing,
            (Broken::IgnoresHolds, event @ Event::TaskHeld(_)) => *event = nothing,
            (Broken::IgnoresClosing, event @ Event::TaskClosed(_)) => *event = nothing,
            (Broken::IgnoresRelease, event @ Event::Released(_)) => *event = nothing,
            (Broken::TrustsStolenKeys, event @ Event::KeyChanged(_)) => *event = nothing,
            (Broken::LiftsRevive, Event::Revoked(e)) if e.targets.iter().all(|t| t.aim.as_ref().is_some_and(lockable)) => {
                e.lock_only |= !e.issued_only;
            }
            (Broken::TrustsEvidence, Event::Issued(e)) => {
                e.shown.clear();
                e.renews.clear();
            }
            (Broken::ExtendsForEver, Event::TaskOpened(e)) => {
                e.max_deadline = e.opened_at + mayfly::limits::TASK_TTL_MS;
                e.deadline = e.max_deadline;
            }
            _ => {}
        }
        record
    }
}
