//! The person behind a caller, as policies read it.

use super::action::Action;
use super::question::PersonFacts;
use super::set::PolicySet;
use mayfly_identity::caller::{Caller, Person};
use mayfly_verify::seq::Millis;

/// The person who signed in for a caller, or nobody.
pub struct CallerPerson<'a> {
    issuer: &'a str,
    id: &'a str,
    amr: Vec<&'a str>,
    acr: Option<&'a str>,
    auth_time: Millis,
    there: bool,
}

/// A hint for a caller refused by policy, if signing in would help; else `None`. `forbid`: the policies that forbade the action. `permits`:
/// the policies that would permit the action to a given person, if any would.
pub fn sign_in_hint(
    (set, action): (&PolicySet, Action),
    behind: &CallerPerson<'_>,
    now: Millis,
    forbid: &[String],
    permits: impl Fn(&CallerPerson<'_>) -> Option<Vec<String>>,
) -> Option<String> {
    if !set.reads(action).paths().any(|(path, _)| path.starts_with("context.person")) {
        return None;
    }
    if behind.nobody() {
        let what = "policy reads who signed in, and nobody signed in for this SVID: mayfly login";
        return Some(format!("{what}; or the owner of the policy set can change it"));
    }
    let permitted = permits(&behind.signed_in_again(now))?;
    let named = if forbid.is_empty() { permitted.join(", ") } else { forbid.join(", ") };
    Some(format!("policy {named} wants a second factor, or a sign-in of late: sign in again with mayfly login"))
}

impl<'a> CallerPerson<'a> {
    /// The person behind this caller.
    pub fn of(caller: &'a Caller) -> CallerPerson<'a> {
        CallerPerson::person(caller.person())
    }

    /// The given person.
    pub fn person(person: Option<&'a Person>) -> CallerPerson<'a> {
        match person {
            None => CallerPerson { issuer: "", id: "", amr: Vec::new(), acr: None, auth_time: Millis(0), there: false },
            Some(p) => CallerPerson {
                issuer: &p.issuer,
                id: &p.subject,
                amr: p.amr.iter().map(|m| &**m).collect(),
                acr: p.acr.as_deref(),
                auth_time: p.auth_time,
                there: true,
            },
        }
    }

    /// Whether no person signed in for the caller.
    pub fn nobody(&self) -> bool {
        !self.there
    }

    /// The same person as if just signed in with every method of RFC 8176. Shows whether the policy demands a different sign-in.
    pub fn signed_in_again(&self, now: Millis) -> CallerPerson<'a> {
        const METHODS: [&str; 19] = [
            "face", "fpt", "geo", "hwk", "iris", "kba", "mca", "mfa", "otp", "pin", "pop", "pwd", "rba", "retina", "sc", "sms",
            "swk", "tel", "user",
        ];
        let methods = METHODS.iter().filter(|method| !self.amr.contains(method)).chain(&self.amr);
        let CallerPerson { issuer, id, acr, there, .. } = *self;
        CallerPerson { issuer, id, amr: methods.copied().collect(), acr, auth_time: now, there }
    }

    /// The person's attributes for a question; `None` without a person.
    pub fn facts(&self) -> Option<PersonFacts<'_>> {
        let CallerPerson { issuer, id, acr, auth_time, .. } = *self;
        self.there.then_some(PersonFacts { issuer, id, amr: &self.amr, acr, auth_time })
    }
}
