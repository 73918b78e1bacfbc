//! The result of a search for credentials that a change would refuse, and the smallest set of revocation targets that covers them.

use std::collections::BTreeMap;

use super::ExcessVerdict;
use mayfly_base::limits;
use mayfly_ledger::record::NarrowedKind;
use mayfly_ledger::revocation::Target;
use mayfly_policy::decide::CredentialSnapshot;
use mayfly_verify::seq::{CredentialId, Seq};

/// The attributes of a credential that a target can name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct CredentialAttributes {
    pub caller: Box<str>,
    pub upstream: Box<str>,
    pub scopes: Vec<Box<str>>,
    pub tool: Box<str>,
}

/// The verdicts on credentials with the same attributes.
#[derive(Clone, Default, Debug)]
struct Tally {
    stays: u64,
    goes: u64,
    /// The first credentials to be revoked: at most as many as a revocation has targets.
    ids: Vec<CredentialId>,
}

/// The result of a search.
#[derive(Clone, Debug)]
pub(crate) struct ExcessCredentials {
    /// Number of credentials that would be refused.
    pub count: u64,
    /// Number of credentials that would be refused and that no target of the change covers.
    pub uncovered: u64,
    alike: BTreeMap<CredentialAttributes, Tally>,
    /// All credentials were visited, and their attributes were kept.
    pub whole: bool,
    /// Every credential issued up to this seq was visited.
    pub looked: Seq,
}

impl CredentialAttributes {
    pub fn of(held: &CredentialSnapshot) -> CredentialAttributes {
        let CredentialSnapshot { caller, upstream, scopes, tool, .. } = held;
        CredentialAttributes { caller: caller.clone(), upstream: upstream.clone(), scopes: scopes.clone(), tool: tool.clone() }
    }

    /// Targets that reach all credentials with these attributes. The search must have visited everything that such a target reaches: a
    /// search of one upstream says nothing about a caller's credentials for another upstream.
    fn targets(&self, among: NarrowedKind) -> Vec<Target> {
        let upstream = &self.upstream;
        let scopes = self.scopes.iter().map(|scope| Target::UpstreamScope(upstream.clone(), scope.clone()));
        let mut targets: Vec<Target> = scopes.collect();
        if among == NarrowedKind::Policy {
            targets.push(Target::Caller(self.caller.clone()));
            targets.push(Target::Upstream(upstream.clone()));
            targets.extend((!self.tool.is_empty()).then(|| Target::Tool(self.tool.clone())));
        }
        targets
    }
}

impl ExcessCredentials {
    /// An empty result as of that place.
    pub fn nothing(looked: Seq) -> ExcessCredentials {
        ExcessCredentials { count: 0, uncovered: 0, alike: BTreeMap::new(), whole: true, looked }
    }

    /// Adds the verdict on one credential.
    pub(super) fn add(&mut self, id: CredentialId, alike: CredentialAttributes, fate: ExcessVerdict) {
        self.count += u64::from(fate != ExcessVerdict::Stays);
        self.uncovered += u64::from(fate == ExcessVerdict::Goes);
        if self.alike.len() >= limits::NARROWING_GROUPS && !self.alike.contains_key(&alike) {
            // There are too many different attributes to keep: only the coarse target covers them.
            self.whole = false;
            return;
        }
        let tally = self.alike.entry(alike).or_default();
        match fate {
            ExcessVerdict::Stays => tally.stays += 1,
            ExcessVerdict::Covered => {}
            ExcessVerdict::Goes => {
                tally.goes += 1;
                if tally.ids.len() < limits::TARGETS {
                    tally.ids.push(id);
                }
            }
        }
    }

    /// Targets that cover the found credentials which `others` do not cover: the credentials individually if they are few; else shared
    /// attributes that no credential which may stay has; else `coarse`, which covers the others, too.
    pub fn targets(&self, others: Vec<Target>, among: NarrowedKind, coarse: Target) -> Vec<Target> {
        let fine = if self.whole { self.fine(others, among) } else { None };
        fine.unwrap_or_else(|| vec![coarse])
    }

    /// Whether the credentials can be named individually.
    pub fn few(&self) -> bool {
        self.whole && self.uncovered <= limits::TARGETS as u64
    }

    fn fine(&self, mut chosen: Vec<Target>, among: NarrowedKind) -> Option<Vec<Target>> {
        let mut left: Vec<(&CredentialAttributes, &Tally)> = self.alike.iter().filter(|(_, t)| t.goes > 0).collect();
        if chosen.len() as u64 + self.uncovered > limits::TARGETS as u64 {
            let mut gains = self.gains(among);
            while chosen.len() < limits::TARGETS {
                let best = gains.iter().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0))).filter(|(_, gain)| **gain > 1);
                let Some(best) = best.map(|(target, _)| target.clone()) else { break };
                left.retain(|(alike, tally)| {
                    let targets = alike.targets(among);
                    let covered = targets.contains(&best);
                    if covered {
                        for target in &targets {
                            gains.entry(target.clone()).and_modify(|gain| *gain -= tally.goes);
                        }
                    }
                    !covered
                });
                gains.remove(&best);
                chosen.push(best);
            }
        }
        for (_, tally) in left {
            if tally.ids.len() as u64 != tally.goes || chosen.len() + tally.ids.len() > limits::TARGETS {
                return None;
            }
            chosen.extend(tally.ids.iter().map(|id| Target::Credential(*id)));
        }
        (chosen.len() <= limits::TARGETS).then_some(chosen)
    }

    /// For each target that covers no credential which may stay: how many of the credentials to revoke it covers.
    fn gains(&self, among: NarrowedKind) -> BTreeMap<Target, u64> {
        let mut gains: BTreeMap<Target, (u64, bool)> = BTreeMap::new();
        for (alike, tally) in &self.alike {
            for target in alike.targets(among) {
                let (gain, harms) = gains.entry(target).or_default();
                *gain += tally.goes;
                *harms |= tally.stays > 0;
            }
        }
        gains.into_iter().filter(|(_, (gain, harms))| *gain > 0 && !harms).map(|(target, (gain, _))| (target, gain)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Target = Target::Everything;

    type Sample = (CredentialId, CredentialAttributes);

    fn held(n: u64, caller: &str, upstream: &str, scope: &str, tool: &str) -> Sample {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let scopes = vec![scope.into()];
        (
            CredentialId::from_bytes(id),
            CredentialAttributes { caller: caller.into(), upstream: upstream.into(), scopes, tool: tool.into() },
        )
    }

    /// Credentials of five callers for two upstreams with two scopes each.
    fn all(each: u64) -> Vec<Sample> {
        let mut all = Vec::new();
        for caller in ["a", "b", "c", "d", "e"] {
            for (upstream, scope) in [("mail", "read"), ("mail", "send"), ("git", "pull"), ("git", "push")] {
                for i in 0..each {
                    all.push(held(all.len() as u64, caller, upstream, scope, if i % 2 == 0 { "x" } else { "y" }));
                }
            }
        }
        all
    }

    /// The result for `each` credentials of every sample, of which those that satisfy `goes` are to be revoked.
    fn found(each: u64, goes: impl Fn(&Sample) -> bool) -> ExcessCredentials {
        let mut found = ExcessCredentials::nothing(Seq::ZERO);
        for sample in all(each) {
            let fate = if goes(&sample) { ExcessVerdict::Goes } else { ExcessVerdict::Stays };
            found.add(sample.0, sample.1, fate);
        }
        found
    }

    fn number(sample: &Sample) -> u8 {
        sample.0.as_bytes()[7]
    }

    fn named(found: &ExcessCredentials) -> Vec<Target> {
        found.targets(Vec::new(), NarrowedKind::Policy, ALL)
    }

    #[test]
    fn few_are_named_one_by_one() {
        let found = found(10, |s| number(s).is_multiple_of(4));
        assert_eq!((found.count, found.few()), (50, true));
        let targets = named(&found);
        assert_eq!(targets.len(), 50);
        assert!(targets.iter().all(|t| matches!(t, Target::Credential(_))));
    }

    #[test]
    fn many_are_named_by_what_they_share() {
        let boxed = |text: &str| Box::<str>::from(text);
        assert_eq!(named(&found(100, |(_, s)| *s.caller == *"c")), [Target::Caller(boxed("c"))]);
        assert_eq!(named(&found(100, |(_, s)| *s.upstream == *"git")), [Target::Upstream(boxed("git"))]);
        let scope = Target::UpstreamScope(boxed("git"), boxed("push"));
        assert_eq!(named(&found(100, |(_, s)| *s.scopes[0] == *"push")), std::slice::from_ref(&scope));
        assert_eq!(named(&found(100, |(_, s)| *s.tool == *"y")), [Target::Tool(boxed("y"))]);
        let two = named(&found(100, |(_, s)| *s.scopes[0] == *"push" || *s.caller == *"a"));
        assert_eq!(two, [scope, Target::Caller(boxed("a"))]);
        assert_eq!(named(&found(100, |(_, s)| *s.caller == *"a" && *s.tool == *"x")), [ALL], "nothing covers just these");
    }

    #[test]
    fn what_may_stay_is_never_hit_by_anything_but_the_coarse_one() {
        let rules: [fn(&Sample) -> bool; 5] = [
            |s| *s.1.caller == *"c" || number(s) == 3,
            |s| *s.1.tool == *"x" && *s.1.upstream == *"mail",
            |s| *s.1.caller < *"c" || *s.1.scopes[0] == *"pull",
            |s| number(s).is_multiple_of(31),
            |_| true,
        ];
        for (n, goes) in rules.iter().enumerate() {
            let targets = named(&found(40, goes));
            assert!(targets.len() <= limits::TARGETS);
            for sample in all(40) {
                let covers = |t: &Target| match t {
                    Target::Credential(id) => *id == sample.0,
                    _ => *t == ALL || sample.1.targets(NarrowedKind::Policy).contains(t),
                };
                let hit = targets.iter().any(covers);
                assert!(hit || !goes(&sample), "rule {n}: {sample:?} is left");
                assert!(targets == [ALL] || hit == goes(&sample), "rule {n}: {sample:?} is hit and may stay");
            }
        }
    }

    #[test]
    fn a_look_at_one_upstream_names_none_of_its_callers() {
        let found = found(100, |(_, s)| *s.caller == *"c");
        assert_eq!(found.targets(Vec::new(), NarrowedKind::Upstream, ALL), [ALL]);
        assert_eq!(found.targets(Vec::new(), NarrowedKind::Binding, ALL), [ALL]);
    }

    #[test]
    fn what_cannot_be_told_apart_is_covered_by_the_coarse_one() {
        let mut found = ExcessCredentials::nothing(Seq::ZERO);
        for n in 0..=limits::NARROWING_GROUPS as u64 {
            let (id, alike) = held(n, &format!("caller{n}"), "mail", "read", "");
            found.add(id, alike, ExcessVerdict::Goes);
        }
        assert!(!found.few());
        assert_eq!(named(&found), [ALL]);
    }
}
