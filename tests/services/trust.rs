//! TrustDomainService, and the single code path by which bundles change.

use mayfly::identity::bundle::Bundle;
use mayfly::identity::caller::{Caller, Operator};
use mayfly::identity::svid;
use mayfly::introspect::IntrospectionCaller;
use mayfly::limits;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::trust_domain_service_server::TrustDomainService;
use mayfly::policy::exchange_request::TaskChoice;
use mayfly::refusal::Reason;
use mayfly::revocation::Target;
use mayfly::serve::grpc::trust_domain::TrustDomainApi;
use mayfly::serve::peer::Peer;
use mayfly::trust::TrustBundleSource;

use super::kit::house::{DOMAIN, terms, wanted};
use super::kit::pki;
use super::{ROOT, World, ask, bad, ok, refused, token, world_of_one as world};

fn domains(w: &World) -> TrustDomainApi {
    TrustDomainApi(w.authority().clone())
}

/// Loads the bundle of the test's own domain from a file, as at a start.
fn from_file(w: &World, roots: &[&pki::Authority]) -> Option<mayfly::seq::Seq> {
    w.run(w.authority().found_bundle(&pki::bundle(DOMAIN, roots), TrustBundleSource::File, "dev.pem")).unwrap()
}

fn started() -> (World, pki::Authority) {
    let w = world();
    let second = pki::Authority::root_from(&pki::Spec::ca(DOMAIN, "the second root"));
    from_file(&w, &[&w.house.root, &second]).unwrap();
    (w, second)
}

fn pem(roots: &[&pki::Authority]) -> Option<pb::Bundle> {
    let text = roots.iter().map(|r| r.pem()).collect();
    Some(pb::Bundle { bundle: Some(pb::bundle::Bundle::Pem(text)) })
}

fn get(w: &World, name: &str) -> pb::GetBundleResponse {
    ok(w.run(domains(w).get_bundle(ask(&ROOT, pb::GetBundleRequest { trust_domain: name.into() }))))
}

fn id_of(root: &pki::Authority) -> Vec<u8> {
    let anchor = mayfly::identity::anchor::TrustAnchor::from_der(&root.certificate).unwrap();
    anchor.id().as_bytes().to_vec()
}

fn removal(root: &pki::Authority) -> pb::RemoveTrustAnchorRequest {
    pb::RemoveTrustAnchorRequest {
        trust_domain: DOMAIN.into(),
        sha256: id_of(root).into(),
        reason: "its key leaked".into(),
        ..Default::default()
    }
}

fn anchors(w: &World) -> Vec<Vec<u8>> {
    get(w, DOMAIN).trust_domain.unwrap().trust_anchors.into_iter().map(|a| a.sha256.to_vec()).collect()
}

fn caller_under(w: &World, root: &pki::Authority) -> Result<Caller, svid::SvidDefect> {
    let chain = root.svid(&format!("spiffe://{DOMAIN}/agent/a")).chain;
    svid::verify(&chain, &w.authority().bundles.load(), w.house.now(), limits::SVID_MAX_TTL_MS).map(|s| Caller::from(&s))
}

fn issue(w: &World, caller: &Caller) -> Result<mayfly::credential::IssuedCredential, mayfly::refusal::Error> {
    w.run(w.authority().exchange(caller, &wanted(TaskChoice::Inline(terms().into()))))
}

#[test]
fn operators_see_the_domains_and_workloads_their_own() {
    let (w, second) = started();
    w.issue("/agent/a");
    let list = ok(w.run(domains(&w).list_trust_domains(ask(&ROOT, pb::ListTrustDomainsRequest::default()))));
    assert_eq!(list.trust_domains.len(), 1);
    let shown = get(&w, DOMAIN);
    let domain = shown.trust_domain.unwrap();
    assert_eq!((domain.source, domain.trust_anchors.len()), (pb::BundleSource::File as i32, 2));
    let mine = domain.trust_anchors.iter().find(|a| a.sha256 == id_of(&w.house.root)).unwrap();
    assert_eq!(mine.vouches_for.unwrap().credentials, 1);
    assert!(mine.subject.contains("root of") && mine.not_after.is_some());
    let other = domain.trust_anchors.iter().find(|a| a.sha256 == id_of(&second)).unwrap();
    assert_eq!(other.vouches_for.unwrap().credentials, 0);
    let bundle = Bundle::from_jwks(pki::trust_domain(DOMAIN), shown.spiffe_jwks.as_bytes()).unwrap();
    assert_eq!(bundle.x509_authorities().len(), 2);

    let own = pb::GetBundleRequest { trust_domain: DOMAIN.into() };
    let seen = ok(w.run(domains(&w).get_bundle(ask(&w.workload("/agent/a"), own.clone()))));
    assert_eq!(seen.spiffe_jwks, shown.spiffe_jwks);
    assert!(seen.trust_domain.unwrap().trust_anchors.iter().all(|a| a.vouches_for.is_none()));
    let other = pb::GetBundleRequest { trust_domain: "other.example".into() };
    refused(w.run(domains(&w).get_bundle(ask(&w.workload("/agent/a"), other.clone()))), Reason::NotFound);
    refused(w.run(domains(&w).get_bundle(ask(&ROOT, other))), Reason::NotFound);
    bad(w.run(domains(&w).get_bundle(ask(&ROOT, pb::GetBundleRequest { trust_domain: "A".into() }))), "trust_domain");
    refused(w.run(domains(&w).get_bundle(ask(&w.admin("/agent/a"), own))), Reason::DeniedByPolicy);
    let list = pb::ListTrustDomainsRequest::default();
    refused(w.run(domains(&w).list_trust_domains(ask(&w.workload("/agent/a"), list))), Reason::NotAuthenticated);
}

#[test]
fn adding_roots_makes_a_domain_known_and_removes_nothing() {
    let (w, _) = started();
    let other = pki::Authority::root("other.example");
    let add = pb::AddBundleRequest {
        trust_domain: "other.example".into(),
        bundle: pem(&[&other]),
        request_id: "r".into(),
        ..Default::default()
    };
    let added = ok(w.run(domains(&w).add_bundle(ask(&ROOT, add.clone()))));
    let domain = added.trust_domain.unwrap();
    assert_eq!((domain.source, domain.trust_anchors.len()), (pb::BundleSource::Api as i32, 1));
    let chain = other.svid("spiffe://other.example/x").chain;
    assert!(svid::verify(&chain, &w.authority().bundles.load(), w.house.now(), u64::MAX).is_ok(), "it vouches at once");
    let seq = domain.seq;
    let again = ok(w.run(domains(&w).add_bundle(ask(&ROOT, add.clone()))));
    assert_eq!(again.trust_domain.unwrap().seq, seq, "a repeat changes nothing");
    let unchanged = pb::AddBundleRequest { request_id: String::new(), ..add.clone() };
    assert_eq!(ok(w.run(domains(&w).add_bundle(ask(&ROOT, unchanged)))).trust_domain.unwrap().seq, seq);

    let with = |f: fn(&mut pb::AddBundleRequest)| {
        let mut request = pb::AddBundleRequest { request_id: String::new(), ..add.clone() };
        f(&mut request);
        w.run(domains(&w).add_bundle(ask(&ROOT, request)))
    };
    bad(with(|r| r.trust_domain = String::new()), "trust_domain");
    bad(with(|r| r.bundle = None), "bundle");
    bad(with(|r| r.bundle = Some(pb::Bundle { bundle: Some(pb::bundle::Bundle::Pem("x".into())) })), "bundle");
    bad(with(|r| r.bundle = Some(pb::Bundle { bundle: Some(pb::bundle::Bundle::Pem(String::new())) })), "bundle");
    bad(with(|r| r.bundle = Some(pb::Bundle { bundle: Some(pb::bundle::Bundle::SpiffeJwks("{}".into())) })), "bundle");
    refused(w.run(domains(&w).add_bundle(ask(&w.admin("/agent/a"), add.clone()))), Reason::DeniedByPolicy);
    refused(w.run(domains(&w).add_bundle(ask(&w.workload("/operator/you"), add))), Reason::NotAuthenticated);
}

#[test]
fn removing_a_root_ends_what_it_vouched_for() {
    let (w, second) = started();
    let (a, b) = (caller_under(&w, &w.house.root).unwrap(), caller_under(&w, &second).unwrap());
    let (under_a, under_b) = (token(issue(&w, &a).unwrap()), token(issue(&w, &b).unwrap()));
    let _more = issue(&w, &b).unwrap();
    let _open = w.authority().peers.enter(b.evidence().trust_anchor);
    let dry = pb::RemoveTrustAnchorRequest { dry_run: true, ..removal(&second) };
    let dry = ok(w.run(domains(&w).remove_trust_anchor(ask(&ROOT, dry))));
    assert_eq!((dry.seq, dry.hits.unwrap().credentials, dry.connections), (0, 2, 1));
    assert_eq!(dry.trust_domain.unwrap().trust_anchors.len(), 1, "as it would be");
    assert_eq!(anchors(&w).len(), 2);
    refused(w.run(domains(&w).remove_trust_anchor(ask(&ROOT, removal(&second)))), Reason::ConfirmNeeded);
    let confirmed = Some(pb::Confirmation { credentials: 2, all: false });
    let request = pb::RemoveTrustAnchorRequest { confirmation: confirmed, request_id: "r".into(), ..removal(&second) };
    let done = ok(w.run(domains(&w).remove_trust_anchor(ask(&ROOT, request.clone()))));
    assert_eq!((done.hits.unwrap().credentials, done.connections), (2, 1));
    let hit = w.authority().ledger.peek(|s| s.rules.get(&Target::TrustAnchor(id_of(&second).try_into().unwrap())));
    assert_eq!(hit.unwrap().revoked.as_u64(), done.seq);

    assert!(w.authority().still_stands(&b).is_err(), "its connections end");
    assert!(issue(&w, &b).is_err());
    assert!(caller_under(&w, &second).is_err());
    let asker = IntrospectionCaller::Operator(Operator::LocalUid(1000));
    let active = |token: &str| w.run(w.authority().introspect(&asker, token, |_, _| ())).unwrap().is_some();
    assert!(active(&under_a) && !active(&under_b));
    assert!(issue(&w, &a).is_ok());
    let again = ok(w.run(domains(&w).remove_trust_anchor(ask(&ROOT, request))));
    assert_eq!(again.seq, done.seq, "a repeat is answered like the first");
}

#[test]
fn a_removed_root_stays_out_until_an_operator_adds_it() {
    let (w, second) = started();
    ok(w.run(domains(&w).remove_trust_anchor(ask(&ROOT, removal(&second)))));
    assert_eq!(from_file(&w, &[&w.house.root, &second]), None, "the file still has it");
    assert_eq!(anchors(&w), [id_of(&w.house.root)]);
    let kept_out = get(&w, DOMAIN).trust_domain.unwrap().removed_trust_anchors;
    assert_eq!(kept_out[0].sha256, id_of(&second));
    let set = pb::SetBundleRequest { trust_domain: DOMAIN.into(), bundle: pem(&[&w.house.root, &second]), ..Default::default() };
    ok(w.run(domains(&w).set_bundle(ask(&ROOT, set))));
    assert_eq!(anchors(&w), [id_of(&w.house.root)], "nor does setting a bundle bring it back");
    let add = pb::AddBundleRequest { trust_domain: DOMAIN.into(), bundle: pem(&[&second]), ..Default::default() };
    ok(w.run(domains(&w).add_bundle(ask(&ROOT, add))));
    assert_eq!(anchors(&w).len(), 2);
    let fresh = caller_under(&w, &second).unwrap();
    assert!(issue(&w, &fresh).is_ok(), "removing locked nothing");
    assert_eq!(from_file(&w, &[&w.house.root]), None, "what an operator added no file takes out");
    assert_eq!(anchors(&w).len(), 2);
}

#[test]
fn what_a_removal_names_has_to_be_there() {
    let (w, second) = started();
    let with = |f: fn(&mut pb::RemoveTrustAnchorRequest)| {
        let mut request = removal(&second);
        f(&mut request);
        w.run(domains(&w).remove_trust_anchor(ask(&ROOT, request)))
    };
    bad(with(|r| r.sha256 = vec![1; 31].into()), "sha256");
    bad(with(|r| r.reason = String::new()), "reason");
    bad(with(|r| r.reason = "x".repeat(600)), "reason");
    bad(with(|r| r.trust_domain = "x y".into()), "trust_domain");
    refused(with(|r| r.sha256 = vec![1; 32].into()), Reason::NotFound);
    refused(with(|r| r.trust_domain = "other.example".into()), Reason::NotFound);
    refused(w.run(domains(&w).remove_trust_anchor(ask(&w.admin("/agent/a"), removal(&second)))), Reason::DeniedByPolicy);
    assert_eq!(anchors(&w).len(), 2);
}

#[test]
fn a_file_that_loses_a_root_revokes_what_it_vouched_for() {
    let (w, second) = started();
    let b = caller_under(&w, &second).unwrap();
    issue(&w, &b).unwrap();
    issue(&w, &b).unwrap();
    let seq = from_file(&w, &[&w.house.root]).unwrap();
    assert!(w.authority().still_stands(&b).is_err());
    let hit = w.authority().ledger.peek(|s| s.rules.get(&Target::TrustAnchor(id_of(&second).try_into().unwrap())));
    assert_eq!(hit.unwrap().revoked, seq, "in the same group as the bundle");
    // The domain was not removed for good, so the file may add it again.
    assert!(from_file(&w, &[&w.house.root, &second]).is_some());
    assert!(issue(&w, &caller_under(&w, &second).unwrap()).is_ok());
}

#[test]
fn a_set_bundle_shows_first_what_it_removes() {
    let (w, second) = started();
    let b = caller_under(&w, &second).unwrap();
    issue(&w, &b).unwrap();
    issue(&w, &b).unwrap();
    let third = pki::Authority::root_from(&pki::Spec::ca(DOMAIN, "the third root"));
    let set = pb::SetBundleRequest { trust_domain: DOMAIN.into(), bundle: pem(&[&w.house.root, &third]), ..Default::default() };
    let dry = ok(w.run(domains(&w).set_bundle(ask(&ROOT, pb::SetBundleRequest { dry_run: true, ..set.clone() }))));
    assert_eq!((dry.added.len(), dry.removed.len(), dry.hits.unwrap().credentials, dry.seq), (1, 1, 2, 0));
    assert_eq!(dry.added[0].sha256, id_of(&third));
    refused(w.run(domains(&w).set_bundle(ask(&ROOT, set.clone()))), Reason::ConfirmNeeded);
    let all = Some(pb::Confirmation { credentials: 0, all: true });
    let done = ok(w.run(domains(&w).set_bundle(ask(&ROOT, pb::SetBundleRequest { confirmation: all, ..set.clone() }))));
    assert!(done.seq > 0);
    assert!(anchors(&w).contains(&id_of(&third)) && !anchors(&w).contains(&id_of(&second)));

    let unknown = pb::SetBundleRequest { trust_domain: "other.example".into(), ..set.clone() };
    refused(w.run(domains(&w).set_bundle(ask(&ROOT, unknown))), Reason::NotFound);
    bad(w.run(domains(&w).set_bundle(ask(&ROOT, pb::SetBundleRequest { bundle: None, ..set.clone() }))), "bundle");
    refused(w.run(domains(&w).set_bundle(ask(&w.admin("/agent/a"), set))), Reason::DeniedByPolicy);
}

#[test]
fn a_sequence_never_goes_down_nor_missing() {
    let (w, _) = started();
    let document = |sequence: Option<u64>| {
        let bundle = pki::bundle("s.example", &[&pki::Authority::root("s.example")]);
        let document = mayfly::identity::bundle_document::BundleDocument { sequence, ..(&*bundle).into() };
        document.to_text()
    };
    let given = |sequence| Some(pb::Bundle { bundle: Some(pb::bundle::Bundle::SpiffeJwks(document(sequence))) });
    let add = |sequence| pb::AddBundleRequest { trust_domain: "s.example".into(), bundle: given(sequence), ..Default::default() };
    let set = |sequence| pb::SetBundleRequest { trust_domain: "s.example".into(), bundle: given(sequence), ..Default::default() };
    ok(w.run(domains(&w).add_bundle(ask(&ROOT, add(Some(7))))));
    bad(w.run(domains(&w).set_bundle(ask(&ROOT, set(Some(6))))), "bundle");
    bad(w.run(domains(&w).set_bundle(ask(&ROOT, set(None)))), "bundle");
    ok(w.run(domains(&w).set_bundle(ask(&ROOT, set(Some(8))))));
    // A domain that was removed and added again continues above the seen sequence.
    let remove =
        pb::RemoveTrustDomainRequest { trust_domain: "s.example".into(), reason: "no longer".into(), ..Default::default() };
    ok(w.run(domains(&w).remove_trust_domain(ask(&ROOT, remove))));
    let back = ok(w.run(domains(&w).add_bundle(ask(&ROOT, add(Some(1))))));
    assert_eq!(back.trust_domain.unwrap().sequence, Some(8));
}

#[test]
fn removing_a_domain_takes_all_of_it_out() {
    let (w, second) = started();
    let b = caller_under(&w, &second).unwrap();
    issue(&w, &b).unwrap();
    let (_open, workload) = (w.authority().peers.enter(b.evidence().trust_anchor), w.workload("/agent/a"));
    let remove = pb::RemoveTrustDomainRequest { trust_domain: DOMAIN.into(), reason: "sold".into(), ..Default::default() };
    let dry = pb::RemoveTrustDomainRequest { dry_run: true, ..remove.clone() };
    let dry = ok(w.run(domains(&w).remove_trust_domain(ask(&ROOT, dry))));
    assert_eq!((dry.hits.unwrap().credentials, dry.connections, dry.seq), (1, 1, 0));
    let done = ok(w.run(domains(&w).remove_trust_domain(ask(&ROOT, remove.clone()))));
    assert!(done.seq > 0);
    assert!(caller_under(&w, &w.house.root).is_err() && w.authority().still_stands(&b).is_err());
    assert_eq!(from_file(&w, &[&w.house.root, &second]), None, "its file does not bring it back");
    refused(w.run(domains(&w).remove_trust_domain(ask(&ROOT, remove.clone()))), Reason::NotFound);
    assert_eq!(get(&w, DOMAIN).spiffe_jwks, "{\"keys\":[]}");
    let add = pb::AddBundleRequest { trust_domain: DOMAIN.into(), bundle: pem(&[&second]), ..Default::default() };
    ok(w.run(domains(&w).add_bundle(ask(&ROOT, add))));
    assert!(issue(&w, &caller_under(&w, &second).unwrap()).is_ok());
    assert!(caller_under(&w, &w.house.root).is_err(), "only what was named is back");

    bad(
        w.run(
            domains(&w).remove_trust_domain(ask(&ROOT, pb::RemoveTrustDomainRequest { reason: String::new(), ..remove.clone() })),
        ),
        "reason",
    );
    // A peer that no root vouches for is told that first; a peer with a valid SVID is told where operators call.
    refused(w.run(domains(&w).remove_trust_domain(ask(&workload, remove.clone()))), Reason::SvidNoLongerValid);
    let chain = second.svid(&format!("spiffe://{DOMAIN}/agent/a")).chain;
    let svid = svid::verify(&chain, &w.authority().bundles.load(), w.house.now(), limits::SVID_MAX_TTL_MS).unwrap();
    refused(w.run(domains(&w).remove_trust_domain(ask(&Peer::Workload(Caller::from(&svid)), remove))), Reason::NotAuthenticated);
}

#[test]
fn a_root_of_two_domains_goes_on_vouching_in_the_other() {
    let (w, _) = started();
    let shared = pki::Authority::root_from(&pki::Spec { names: Vec::new(), ..pki::Spec::ca("x", "a shared root") });
    let add = |domain: &str| pb::AddBundleRequest { trust_domain: domain.into(), bundle: pem(&[&shared]), ..Default::default() };
    ok(w.run(domains(&w).add_bundle(ask(&ROOT, add(DOMAIN)))));
    ok(w.run(domains(&w).add_bundle(ask(&ROOT, add("other.example")))));
    let mine = caller_under(&w, &shared).unwrap();
    issue(&w, &mine).unwrap();
    let other = pb::RemoveTrustAnchorRequest { trust_domain: "other.example".into(), ..removal(&shared) };
    let done = ok(w.run(domains(&w).remove_trust_anchor(ask(&ROOT, other))));
    assert_eq!(done.hits.unwrap().credentials, 0, "what it vouches for elsewhere is not hit");
    assert!(w.authority().still_stands(&mine).is_ok() && issue(&w, &mine).is_ok());
    let hit = w.authority().ledger.peek(|s| s.rules.get(&Target::TrustDomain("other.example".into())));
    assert_eq!(hit.map(|e| (e.revoked.as_u64(), e.lock)), Some((done.seq, None)));
}
