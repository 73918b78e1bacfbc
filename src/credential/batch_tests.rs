//! Tests that minting in a batch gives the same results as minting one by one.
#![cfg(feature = "fast")]

use std::sync::Arc;

use super::batch::{BatchSigner, SigningSession};
use super::kind::{CredentialKind, mint_local};
use super::status_list::StatusListAllocator;
use super::testing::{AGENT, TestLog, full, grant, keyring, plain};
use super::{CredentialMaterial, IssuedCredential};
use mayfly_ledger::Receipt;
use mayfly_ledger::record::{Event, RequestRecord};
use mayfly_ledger::state::FoldInput;
use mayfly_ledger::writer::template::IssuanceRequest;
use mayfly_policy::grant::{GrantParts, IndividualGrant, IndividualTerms, SharedGrant};
use mayfly_verify::seq::{CredentialId, Millis, Seq};

const T0: Millis = Millis(1_700_000_000_000);

fn status() -> StatusListAllocator {
    StatusListAllocator::new(Seq::from_u64(5).unwrap(), &[9; 32])
}

/// The common part of a grant.
fn shared(parts: &GrantParts) -> Arc<SharedGrant> {
    let mut parts = GrantParts { request: None, ..parts.clone() };
    (parts.draft.tool, parts.draft.purpose, parts.draft.arguments) = (String::new(), String::new(), Vec::new());
    Arc::new(SharedGrant::for_test(parts))
}

fn token(issued: IssuedCredential) -> String {
    match issued.into_parts().2 {
        CredentialMaterial::Bearer { token, .. } => token.into_text(),
        _ => panic!("no token"),
    }
}

#[test]
fn a_series_makes_the_records_and_claims_that_making_one_by_one_does() {
    let mut log = TestLog::new(T0);
    let (ring, _store) = keyring(&mut log);
    let own =
        [("", "", None), ("tool", "why \u{e9}", Some([0xab; 32])), ("a \"tool\"", "for it", None), ("t", "p", Some([1; 32]))];
    for kind in [CredentialKind::Jwt, CredentialKind::Reference] {
        for parts in [plain(kind.number(), T0, log.state.head), full(T0, log.state.head)] {
            let mut parts = GrantParts { author: mayfly_ledger::record::Author::SpiffeId(AGENT.into()), ..parts };
            parts.draft.kind = kind.number();
            let (one_by_one, in_series) = (status(), status());
            let series = SigningSession::of(BatchSigner::new(shared(&parts), &ring).ok().unwrap().into()).unwrap();
            for (n, (tool, purpose, arguments)) in own.iter().enumerate() {
                let id = CredentialId::from_bytes([n as u8; 16]);
                let name = (n % 2 == 0).then(|| format!("request-{n}"));
                let request =
                    name.as_ref().map(|id| RequestRecord { caller: String::new(), id: id.clone(), digest: vec![7; 32] });
                let mut whole = GrantParts { request, ..parts.clone() };
                whole.draft.tool = (*tool).to_owned();
                whole.draft.purpose = (*purpose).to_owned();
                whole.draft.arguments = arguments.map_or_else(Vec::new, |a| a.to_vec());
                let mut minted = mint_local(grant(whole), id, 1, &ring, &one_by_one, Vec::new(), T0).ok().unwrap();
                let record = minted.records().remove(0);

                let request = name.as_deref().map(|id| IssuanceRequest::new(AGENT, id, &[7; 32]));
                let key = request.as_ref().map(IssuanceRequest::key);
                let of_it = IndividualGrant::for_test(IndividualTerms {
                    tool,
                    purpose,
                    arguments: arguments.as_ref(),
                    request,
                    trace: &[],
                });
                let (encoded, unfinished) = series.next(of_it, id, &in_series, T0).ok().unwrap();
                let made = unfinished.finish().ok().unwrap();
                assert_eq!(*encoded.whole().unwrap(), record);
                assert_eq!((encoded.request(), record.request()), (key, key));
                assert_eq!(encoded.request_id(), record.request_id());

                let (one, other) = (Receipt::of_test(id), Receipt::of_test(id));
                let (one, other) = (token(minted.reveal(one).unwrap()), token(made.reveal(other).unwrap()));
                match kind {
                    // Two ES256 signatures over the same input differ.
                    CredentialKind::Jwt => assert_eq!(one.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().0),
                    _ => assert_eq!(one, other),
                }
                let Some(Event::Issued(e)) = &record.event else { panic!() };
                let signed = other.rsplit_once('.').map_or(&*other, |(signed, _)| signed);
                assert_eq!(e.token_digest, mayfly_ledger::commit::sha256(signed.as_bytes()));
            }
        }
    }
}
