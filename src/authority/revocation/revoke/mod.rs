//! Revocation by operators and by holders of credentials: one record, whatever it covers.

mod blast_radius;
mod hits;
mod known_targets;

pub use blast_radius::{AffectedKind, RevocationRadius};
pub use hits::RevocationHits;

use crate::admission::Admitted;
use crate::authority::Authority;
use crate::tasks::IdempotencyKey;
use hits::HitCounter;
use mayfly_base::limits;
use mayfly_base::plural::counted;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::{Author, CredentialReleased, Event, LockLifted, Record, TargetsRevoked};
use mayfly_ledger::revocation::{Rules, SharedRules, Target};
use mayfly_policy::admin;
use mayfly_verify::seq::{CredentialId, Millis, Seq};

/// The rule that requires a revocation of everything to be confirmed with `all`.
pub const EVERYTHING: &str = "everything";

/// How many credentials the caller confirms to revoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationConfirmation {
    /// No confirmation: at most one credential.
    None,
    /// The given number plus a tenth, because the number changes under load.
    Count(u64),
    /// Any number.
    All,
}

impl RevocationConfirmation {
    pub(crate) fn allows(self, hits: u64) -> bool {
        match self {
            RevocationConfirmation::None => hits <= 1,
            RevocationConfirmation::Count(n) => hits <= n.saturating_add(n / 10).max(1),
            RevocationConfirmation::All => true,
        }
    }
}

/// A revocation request.
#[derive(Clone, Debug)]
pub struct RevocationRequest {
    /// 1 to 64 targets.
    pub targets: Vec<Target>,
    /// New grants are not blocked.
    pub issued_only: bool,
    /// Skips the check that targets are known.
    pub force: bool,
    /// The reason.
    pub reason: String,
    /// How many credentials may be revoked.
    pub confirm: RevocationConfirmation,
    /// The request, if it has an id.
    pub named: IdempotencyKey,
}

/// A lock request: new grants are blocked, and nothing that was issued is revoked.
#[derive(Clone, Debug)]
pub struct LockRequest {
    /// 1 to 64 targets.
    pub targets: Vec<Target>,
    /// Skips the check that targets are known.
    pub force: bool,
    /// The reason.
    pub reason: String,
    /// The request, if it has an id.
    pub named: IdempotencyKey,
}

/// The result of a revocation.
#[derive(Clone, Debug)]
pub struct RevocationResult {
    /// The rule's seq.
    pub seq: Seq,
    /// The hits in all.
    pub hits: RevocationHits,
    /// The hits of each target, in the order of the targets.
    pub each: Vec<RevocationHits>,
}

impl Authority {
    /// Revokes. Refused with CONFIRM_NEEDED if more would be covered than was confirmed, and with NOT_FOUND if a target has to be
    /// registered here and is not known; nothing is done then.
    ///
    /// `lock`: the proof that the operator may also lock, without which a revocation that leaves locks is refused.
    pub async fn revoke(
        &self,
        operator: &Admitted<admin::Revoke>,
        lock: Option<&Admitted<admin::Lock>>,
        ask: &RevocationRequest,
    ) -> Result<RevocationResult, Error> {
        if lock.is_none() && !ask.issued_only && ask.targets.iter().any(|t| t.sort().locks()) {
            let what = "a revocation of these targets also locks them, which takes the action Lock; nothing was revoked";
            return Err(Error::Refusal(
                Refusal::new(Reason::DeniedByPolicy, what).by("Lock").way_out("--issued-only locks nothing"),
            ));
        }
        if let Some(done) = self.done_before(&operator.who(), &ask.targets, &ask.named).await? {
            return Ok(done);
        }
        self.known_or_forced(&ask.targets, ask.force).await?;
        // A revocation of everything also locks everybody out, which no number of credentials expresses.
        if ask.targets.contains(&Target::Everything) && ask.confirm != RevocationConfirmation::All {
            let (hits, _) = self.hits(&ask.targets).await?;
            return Err(all_confirmed(&hits));
        }
        // With `all` confirmed nothing is counted first: an emergency must not wait for a number.
        let counted = match ask.confirm {
            RevocationConfirmation::All => None,
            confirm => {
                let (hits, each) = self.hits(&ask.targets).await?;
                if !confirm.allows(hits.credentials) {
                    return Err(confirm_needed(&hits, confirm));
                }
                Some((hits, each))
            }
        };
        let before = self.ledger.peek(|s| rules_of(&s.rules, &ask.targets));
        let revoked = TargetsRevoked { issued_only: ask.issued_only, ..self.revoked(&ask.targets, &ask.reason) };
        let seq = self.change(operator.who(), ProposalKind::Revoke, Event::Revoked(revoked), &ask.named).await?;
        let (hits, each) = match counted {
            Some(counted) => counted,
            None => self.counted(HitCounter::since(&ask.targets, seq, before)).await?,
        };
        self.feed.hit(seq, hits);
        Ok(RevocationResult { seq, hits, each })
    }

    /// Blocks new grants. Issued credentials stay valid; the result says how many they are.
    pub async fn lock(&self, operator: &Admitted<admin::Lock>, ask: &LockRequest) -> Result<RevocationResult, Error> {
        if let Some(done) = self.done_before(&operator.who(), &ask.targets, &ask.named).await? {
            return Ok(done);
        }
        self.known_or_forced(&ask.targets, ask.force).await?;
        let locked = TargetsRevoked { lock_only: true, ..self.revoked(&ask.targets, &ask.reason) };
        let seq = self.change(operator.who(), ProposalKind::Revoke, Event::Revoked(locked), &ask.named).await?;
        let (hits, each) = self.hits(&ask.targets).await?;
        self.feed.hit(seq, hits);
        Ok(RevocationResult { seq, hits, each })
    }

    /// The result of the same request if it was seen before. Refused if the number of targets does not fit one record.
    async fn done_before(
        &self,
        who: &Author,
        targets: &[Target],
        named: &IdempotencyKey,
    ) -> Result<Option<RevocationResult>, Error> {
        if targets.is_empty() || targets.len() > limits::TARGETS {
            let what = format!("1 to {} of them, not {}", limits::TARGETS, targets.len());
            return Err(Error::Refusal(Refusal::field("targets", what)));
        }
        let Some(before) = self.remembered(&who.name(), named).await? else { return Ok(None) };
        let (hits, each) = self.counted(HitCounter::since(targets, before.seq, Rules::default())).await?;
        Ok(Some(RevocationResult { seq: before.seq, hits, each }))
    }

    /// The record of a rule over these targets.
    fn revoked(&self, targets: &[Target], reason: &str) -> TargetsRevoked {
        TargetsRevoked {
            targets: targets.iter().map(Target::to_record).collect(),
            reason: reason.to_owned(),
            keep_until: Rules::keep_until(self.system.wall()).0,
            ..TargetsRevoked::default()
        }
    }

    /// The hits of a revocation that was recorded at `made`.
    pub(crate) async fn hit_since(&self, targets: &[Target], made: Seq) -> Result<RevocationHits, Error> {
        Ok(self.counted(HitCounter::since(targets, made, Rules::default())).await?.0)
    }

    /// Lifts locks. Revoked credentials stay revoked.
    pub async fn lift(
        &self,
        operator: &Admitted<admin::Lock>,
        targets: &[Target],
        reason: &str,
        named: &IdempotencyKey,
    ) -> Result<Seq, Error> {
        let lifted = LockLifted { targets: targets.iter().map(Target::to_record).collect(), reason: reason.to_owned() };
        self.change(operator.who(), ProposalKind::Change, Event::LockLifted(lifted), named).await
    }

    /// A holder gives its own credential back. A retry receives the first one's seq; for a credential that is revoked already, the result
    /// is the seq of the revocation.
    pub async fn release(&self, caller: &Caller, id: CredentialId) -> Result<Seq, Error> {
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
            None => Err(Error::Refusal(Refusal::new(Reason::NotFound, format!("you hold no credential {id}")))),
            // A further rule would have no effect.
            Some((Some(seq), _)) => Ok(seq),
            Some((None, expires_at)) => {
                let who = Author::of(caller);
                self.within_rule_budget(&who)?;
                let keep_until = Rules::outlasting(expires_at).0;
                let released = CredentialReleased { credential: id.as_bytes().to_vec(), keep_until };
                Ok(self.ledger.commit(ProposalKind::Change, vec![Record::new(who, Event::Released(released))]).await?.seq())
            }
        }
    }
}

pub(crate) fn confirm_needed(hits: &RevocationHits, confirm: RevocationConfirmation) -> Error {
    let asked = match confirm {
        RevocationConfirmation::Count(n) => format!("{n} were confirmed"),
        _ => "more than one needs a confirmation".to_owned(),
    };
    Error::Refusal(
        Refusal::new(Reason::ConfirmNeeded, format!("this would revoke {}; {asked}; nothing was revoked", counts_of(hits)))
            .way_out(format!("--confirm {}, or --confirm all", hits.credentials)),
    )
}

/// The numbers of what a revocation covers, in words.
fn counts_of(hits: &RevocationHits) -> String {
    let (callers, tasks) = (counted(hits.callers, "caller"), counted(hits.tasks, "task"));
    format!("{} of {callers} in {tasks}", counted(hits.credentials, "live credential"))
}

fn all_confirmed(hits: &RevocationHits) -> Error {
    let what = format!("this would revoke everything: {}; nothing was revoked", counts_of(hits));
    Error::Refusal(Refusal::new(Reason::ConfirmNeeded, what).by(EVERYTHING).way_out("--confirm all, whatever the number is"))
}

/// The rules in effect for these targets.
fn rules_of(rules: &SharedRules, targets: &[Target]) -> Rules {
    let mut before = Rules::default();
    for (target, entry) in targets.iter().filter_map(|t| Some((t, rules.get(t)?))).filter(|(_, e)| e.revoked > Seq::ZERO) {
        before.add(target, Some(entry.revoked), None, Millis(u64::MAX));
    }
    before
}
