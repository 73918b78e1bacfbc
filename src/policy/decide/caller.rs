//! A caller in the form of records and of revocation rules.

use mayfly_identity::caller::Caller;
use mayfly_ledger::View;
use mayfly_ledger::record;
use mayfly_ledger::revocation::{Facts, SvidFacts};

/// The evidence of a workload's SVID, as records keep it.
pub fn svid_of(caller: &Caller) -> record::SvidEvidence {
    let e = caller.evidence();
    record::SvidEvidence {
        anchor: e.trust_anchor.as_bytes().to_vec(),
        issuing_key: e.issuing_key.to_vec(),
        serial: e.serial.clone(),
        not_after: e.not_after.0,
    }
}

/// The facts about the caller alone, against which every call is matched with the rules.
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

/// The caller's identities: its SPIFFE ID and, where a person signed in, the person.
fn identities_of(caller: &Caller) -> Vec<(&str, &str)> {
    let person = caller.person().map(|p| (&*p.issuer, &*p.subject));
    [(caller.id().trust_domain(), caller.id().as_str())].into_iter().chain(person).collect()
}
