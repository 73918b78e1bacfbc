//! A caller, as records write it and as rules ask for it.

use crate::identity::caller::Caller;
use crate::ledger::View;
use crate::ledger::record;
use crate::revocation::{Facts, SvidFacts};

/// A workload's SVID as records write it.
pub fn svid_of(caller: &Caller) -> record::SvidEvidence {
    let e = caller.evidence();
    record::SvidEvidence {
        anchor: e.trust_anchor.as_bytes().to_vec(),
        issuing_key: e.issuing_key.to_vec(),
        serial: e.serial.clone(),
        not_after: e.not_after.0,
    }
}

/// The facts of a caller alone: what every call is checked against.
pub fn caller_facts<'a>(caller: &'a Caller, view: &View) -> Facts<'a> {
    let e = caller.evidence();
    let svid = SvidFacts {
        trust_domain: caller.id().trust_domain(),
        anchor: e.trust_anchor.as_bytes(),
        issuing_key: &e.issuing_key,
        serial: &e.serial,
    };
    Facts {
        revision: view.revision(),
        identities: identities_of(caller),
        credentials: caller.ancestor().into_iter().collect(),
        svid: Some(svid),
        ..Facts::default()
    }
}

/// Whoever calls: by SPIFFE ID, and as the person who signed in.
fn identities_of(caller: &Caller) -> Vec<(&str, &str)> {
    let person = caller.person().map(|p| (&*p.issuer, &*p.subject));
    [(caller.id().trust_domain(), caller.id().as_str())].into_iter().chain(person).collect()
}
