//! Revoking, as operators and holders do it: one record, whatever it hits.

mod hits;
mod known;
mod radius;

pub use hits::Hits;
pub use radius::{BlastOf, Radius};

use crate::admission::Admitted;
use crate::authority::Authority;
use crate::identity::caller::Caller;
use crate::ledger::Lane;
use crate::ledger::record::{Event, LockLifted, Record, Released, Revoked, Who};
use crate::limits;
use crate::refusal::{No, Reason, Refusal};
use crate::revocation::{Rules, Target};
use crate::seq::{CredentialId, Millis, Seq};
use crate::tasks::Named;
use hits::Count;

/// The rule that wants a revocation of everything confirmed with `all`.
pub const EVERYTHING: &str = "everything";

/// How much may be hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// Nothing was confirmed: one credential at most.
    None,
    /// So many, and a tenth more: the number moves under load.
    Count(u64),
    /// Whatever it is.
    All,
}

impl Confirm {
    pub(crate) fn allows(self, hits: u64) -> bool {
        match self {
            Confirm::None => hits <= 1,
            Confirm::Count(n) => hits <= n.saturating_add(n / 10).max(1),
            Confirm::All => true,
        }
    }
}

/// What is to be revoked.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// 1 to 64 targets.
    pub targets: Vec<Target>,
    /// New grants are not blocked.
    pub issued_only: bool,
    /// Only new grants are blocked.
    pub lock_only: bool,
    /// Targets are not looked for among what is known by name.
    pub force: bool,
    /// Why.
    pub reason: String,
    /// How much may be hit.
    pub confirm: Confirm,
    /// The request, where it named itself.
    pub named: Named,
}

/// What was revoked.
#[derive(Clone, Debug)]
pub struct Done {
    /// The rule's seq.
    pub seq: Seq,
    /// What was hit in all.
    pub hits: Hits,
    /// What each target hit, in their order.
    pub each: Vec<Hits>,
}

impl Authority {
    /// Revokes. Refused with CONFIRM_NEEDED where more would be hit than was confirmed, with NOT_FOUND where a target has to be registered
    /// here and is not known; nothing is done then.
    pub async fn revoke(&self, operator: &Admitted, ask: &Revocation) -> Result<Done, No> {
        if ask.targets.is_empty() || ask.targets.len() > limits::TARGETS {
            return Err(No::Refusal(Refusal::field(
                "targets",
                format!("1 to {} of them, not {}", limits::TARGETS, ask.targets.len()),
            )));
        }
        let name = operator.who().name();
        if let Some(before) = self.remembered(&name, &ask.named).await? {
            let (hits, each) = self.counted(Count::since(&ask.targets, before.seq, Rules::default())).await?;
            return Ok(Done { seq: before.seq, hits, each });
        }
        self.known(&ask.targets, ask.force).await?;
        // It also shuts out everybody, which no number of credentials says.
        if ask.targets.contains(&Target::Everything) && !ask.lock_only && ask.confirm != Confirm::All {
            let (hits, _) = self.hits(&ask.targets).await?;
            return Err(all_confirmed(&hits));
        }
        // With everything confirmed nothing is counted first: an emergency does not wait for a number.
        let counted = match ask.confirm {
            Confirm::All => None,
            _ if ask.lock_only => None,
            confirm => {
                let (hits, each) = self.hits(&ask.targets).await?;
                if !confirm.allows(hits.credentials) {
                    return Err(confirm_needed(&hits, confirm));
                }
                Some((hits, each))
            }
        };
        let before = self.ledger.peek(|s| rules_of(&s.rules, &ask.targets));
        let revoked = Revoked {
            targets: ask.targets.iter().map(Target::to_record).collect(),
            issued_only: ask.issued_only,
            lock_only: ask.lock_only,
            reason: ask.reason.clone(),
            keep_until: Rules::keep_until(self.system.wall()).0,
        };
        let seq = self.change(operator.who(), Lane::Revoke, Event::Revoked(revoked), &ask.named).await?;
        let (hits, each) = match counted {
            Some(counted) => counted,
            None if ask.lock_only => self.hits(&ask.targets).await?,
            None => self.counted(Count::since(&ask.targets, seq, before)).await?,
        };
        self.feed.hit(seq, hits);
        Ok(Done { seq, hits, each })
    }

    /// What a revocation at `made` hit.
    pub(crate) async fn hit_since(&self, targets: &[Target], made: Seq) -> Result<Hits, No> {
        Ok(self.counted(Count::since(targets, made, Rules::default())).await?.0)
    }

    /// Lifts locks. What was revoked stays revoked.
    pub async fn lift(&self, operator: &Admitted, targets: &[Target], reason: &str, named: &Named) -> Result<Seq, No> {
        let lifted = LockLifted { targets: targets.iter().map(Target::to_record).collect(), reason: reason.to_owned() };
        self.change(operator.who(), Lane::Change, Event::LockLifted(lifted), named).await
    }

    /// A holder gives its own credential back. A repeat gets the first one's seq, and one that is revoked already that of the revocation.
    pub async fn release(&self, caller: &Caller, id: CredentialId) -> Result<Seq, No> {
        self.still_stands(caller)?;
        if let Some(seq) = self.sign_out(caller, id).await? {
            return Ok(seq);
        }
        let found = self
            .ledger
            .settled(|s| {
                let live = s.credentials.get(&id).filter(|l| l.caller() == caller.id().as_str())?;
                let own = live.released().then(|| s.rules.get(&Target::Credential(id)).map(|e| e.revoked)).flatten();
                let covered = || Some(s.rules.covers(&s.facts(&live, s.tasks.at(live.task())?))?.seq);
                Some((own.or_else(covered), live.expires_at()))
            })
            .await?;
        match found {
            None => Err(No::Refusal(Refusal::new(Reason::NotFound, format!("you hold no credential {id}")))),
            // A rule more would end nothing more.
            Some((Some(seq), _)) => Ok(seq),
            Some((None, expires_at)) => {
                let who = Who::of(caller);
                self.within_rule_budget(&who)?;
                let keep_until = Rules::outlasting(expires_at).0;
                let released = Released { credential: id.as_bytes().to_vec(), keep_until };
                Ok(self.ledger.commit(Lane::Change, vec![Record::new(who, Event::Released(released))]).await?.seq())
            }
        }
    }
}

pub(crate) fn confirm_needed(hits: &Hits, confirm: Confirm) -> No {
    let asked = match confirm {
        Confirm::Count(n) => format!("{n} were confirmed"),
        _ => "more than one needs a confirmation".to_owned(),
    };
    No::Refusal(
        Refusal::new(
            Reason::ConfirmNeeded,
            format!(
                "this would revoke {} live credentials of {} callers in {} tasks; {asked}; nothing was revoked",
                hits.credentials, hits.callers, hits.tasks
            ),
        )
        .way_out(format!("--confirm {}, or --confirm all", hits.credentials)),
    )
}

fn all_confirmed(hits: &Hits) -> No {
    let what = format!(
        "this would revoke everything: {} live credentials of {} callers in {} tasks; nothing was revoked",
        hits.credentials, hits.callers, hits.tasks
    );
    No::Refusal(Refusal::new(Reason::ConfirmNeeded, what).by(EVERYTHING).way_out("--confirm all, whatever the number is"))
}

/// What was in force for these targets.
fn rules_of(rules: &Rules, targets: &[Target]) -> Rules {
    let mut before = Rules::default();
    for (target, entry) in targets.iter().filter_map(|t| Some((t, rules.get(t)?))).filter(|(_, e)| e.revoked > Seq::ZERO) {
        before.add(target, Some(entry.revoked), None, Millis(u64::MAX));
    }
    before
}
