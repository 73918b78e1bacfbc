//! The person behind a caller, as policies read it.

use super::request::PersonFacts;
use crate::identity::caller::{Caller, Person};
use crate::seq::Millis;

/// Whoever signed in for a caller, if anybody did.
pub struct Behind<'a> {
    issuer: &'a str,
    id: &'a str,
    amr: Vec<&'a str>,
    acr: Option<&'a str>,
    auth_time: Millis,
    there: bool,
}

impl<'a> Behind<'a> {
    /// Whoever is behind this caller.
    pub fn of(caller: &'a Caller) -> Behind<'a> {
        Behind::person(caller.person())
    }

    /// This person.
    pub fn person(person: Option<&'a Person>) -> Behind<'a> {
        match person {
            None => Behind { issuer: "", id: "", amr: Vec::new(), acr: None, auth_time: Millis(0), there: false },
            Some(p) => Behind {
                issuer: &p.issuer,
                id: &p.subject,
                amr: p.amr.iter().map(|m| &**m).collect(),
                acr: p.acr.as_deref(),
                auth_time: p.auth_time,
                there: true,
            },
        }
    }

    /// As a question has it.
    pub fn facts(&self) -> Option<PersonFacts<'_>> {
        let Behind { issuer, id, acr, auth_time, .. } = *self;
        self.there.then_some(PersonFacts { issuer, id, amr: &self.amr, acr, auth_time })
    }
}
