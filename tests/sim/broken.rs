//! Ways in which a fold or a feed could be wrong. With each of them the simulation must find something: a check that cannot fail shows
//! nothing.

use mayfly::ledger::record::{ApprovalOf, Author, Event, GlassStep, Maintained, Record, Who};

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
    /// Whoever refuses gives.
    TakesNoForYes,
    /// More time does not use up its approval.
    MoreTimeAgain,
    /// Request ids are not remembered.
    ForgetsRequests,
    /// Holds have no effect.
    IgnoresHolds,
    /// Closing has no effect.
    IgnoresClosing,
    /// A credential that was given back is as good as before.
    IgnoresRelease,
    /// A compromised key's rule is left out.
    TrustsStolenKeys,
    /// Lifting a lock brings back what the revocation took.
    LiftsRevive,
    /// What was shown as evidence is not looked at.
    TrustsEvidence,
    /// What a repeat replaces is not looked at.
    ReplacesAnything,
    /// A deadline may be extended beyond its maximum.
    ExtendsForEver,
    /// The feed loses an event and does not let it show.
    FeedHidesGaps,
    /// A follower is told that it is fresh without having heard of anything.
    FreshWithoutProof,
    /// A writer answers before it folded its own record.
    AnswersEarly,
    /// A restart forgets the newest commit that was acknowledged.
    LosesTheLast,
    /// An action is authorized without being looked at.
    AuthorizesAnything,
    /// A task forgets what the credential rests on that it was opened with.
    ForgetsTheLine,
    /// Whoever signed out is signed in.
    NobodySignsOut,
    /// Break-glass is a task like any other.
    GlassAlone,
    /// Whoever acts in break-glass changes what lasts.
    GlassLasts,
    /// A review of break-glass says nothing.
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

    /// The record as a fold with this defect would see it.
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
                record.author = Some(Author { who: Some(Who::LocalUid(0)) });
            }
            (Broken::GlassUnreviewed, event @ Event::BreakGlass(_)) => {
                if matches!(event, Event::BreakGlass(e) if e.step == GlassStep::Reviewed as i32) {
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
                if matches!(event, Event::ApprovalAsked(e) if e.of() == ApprovalOf::Task) {
                    *event = nothing;
                }
            }
            (Broken::TakesNoForYes, Event::ApprovalDecided(e)) => e.given = true,
            (Broken::MoreTimeAgain, Event::TaskExtended(e)) => e.approval.clear(),
            (Broken::ForgetsRequests, _) => record.request = None,
            (Broken::AuthorizesAnything, event @ Event::Authorized(_)) => *event = nothing,
            (Broken::ForgetsTheLine, Event::TaskOpened(e)) => e.ancestors.clear(),
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
