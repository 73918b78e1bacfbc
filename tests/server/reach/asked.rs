//! Asks the server and the verifier about one case, before and after its target is revoked.

use mayfly::credential::keyring;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::credential_service_client::CredentialServiceClient;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::seq::CredentialId;
use serde_json::Value;

use super::table::Expected;
use super::vectors::{Vectors, message};
use super::ways::{Case, World};

/// The answers of the server and the verifier about one case.
pub struct Answers {
    /// Whether the credential is good before the revocation: by the fold, introspection and the verifier.
    before: [bool; 3],
    /// Whether the credential is good after the revocation, by the same three.
    after: [bool; 3],
    /// Whether the credential is in the list of credentials that a revocation of the target would hit.
    listed: bool,
    /// Whether the credential is shown as revoked afterwards.
    shown_revoked: bool,
    /// The number of hit credentials: by the dry run, the dry run that locks as well, `blast-radius`, the list, and the revocation.
    hits: [u64; 5],
    /// Whether a credential that has nothing to do with the target is good afterwards. `None`: the target reaches that credential, too.
    beside: Option<bool>,
}

impl Answers {
    /// The differences from the table, in words.
    pub fn differences(&self, expected: Expected) -> Vec<String> {
        let reached = expected == Expected::Reached;
        let Answers { before, after, listed, shown_revoked, hits, beside } = self;
        let mut out = Vec::new();
        let mut look = |good: bool, what: String| out.extend((!good).then_some(what));
        look(before.iter().all(|good| *good), format!("good before, by [fold, introspection, verifier]: {before:?}"));
        look(after.iter().all(|good| *good != reached), format!("good after, by [fold, introspection, verifier]: {after:?}"));
        look(*listed == reached, format!("listed as what would be hit: {listed}"));
        look(*shown_revoked == reached, format!("shown as revoked: {shown_revoked}"));
        let one_number = hits.iter().all(|n| *n == hits[0]) && (hits[0] > 0 || !reached);
        look(one_number, format!("hits, by [dry run, dry run with locks, blast-radius, list, revocation]: {hits:?}"));
        look(*beside != Some(false), "a credential that has nothing to do with it is not good any more".into());
        out
    }
}

fn credentials(hits: Option<pb::Hits>) -> u64 {
    hits.unwrap().credentials
}

impl World {
    /// Whether the fold accepts the credential as evidence.
    pub fn is_good_in_the_fold(&self, id: &str) -> bool {
        let authority = self.rig.running().authority();
        let (id, now): (CredentialId, _) = (id.parse().unwrap(), authority.system.wall());
        authority.ledger.peek(|s| s.evidence_alive(&id, now).is_ok())
    }

    pub async fn introspects_as_active(&self, token: &str) -> bool {
        let request = pb::IntrospectRequest { token: token.to_owned() };
        TokenServiceClient::new(self.admin().await).introspect(request).await.unwrap().into_inner().active
    }

    fn jwks(&self) -> Value {
        let keys = self.rig.running().authority().ledger.peek(|s| s.keys.clone());
        serde_json::from_str(&keyring::jwks(&keys, "dev")).unwrap()
    }

    async fn listed(&self, target: &pb::Target) -> Vec<String> {
        let filter = pb::CredentialFilter { covered_by: Some(target.clone()), ..Default::default() };
        let mut list = pb::ListCredentialsRequest { filter: Some(filter), page_size: 1000, ..Default::default() };
        let mut credentials = CredentialServiceClient::new(self.admin().await);
        let mut all = Vec::new();
        loop {
            let page = credentials.list_credentials(list.clone()).await.unwrap().into_inner();
            all.extend(page.credentials.into_iter().map(|c| c.credential_id));
            if page.next_page_token.is_empty() {
                return all;
            }
            list.page_token = page.next_page_token;
        }
    }
}

/// Asks the server and the verifier before and after the revocation, and adds the case to the vectors.
pub async fn ask(world: &mut World, name: &str, case: &Case, target: &Value, vectors: &mut Vectors, beside: bool) -> Answers {
    let bystander = world.bystander().await;
    let targets = vec![message::<pb::Target>("Target", target)];
    vectors.keys(&world.jwks());
    let (fold, active) = (world.is_good_in_the_fold(&case.credential), world.introspects_as_active(&case.token).await);
    let mut revocations = RevocationServiceClient::new(world.admin().await);
    let revoke = pb::RevokeRequest {
        targets: targets.clone(),
        reason: "reach".into(),
        issued_only: true,
        dry_run: true,
        confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
        ..Default::default()
    };
    let dry = revocations.revoke(revoke.clone()).await.unwrap_or_else(|no| panic!("{name}: {no:?}")).into_inner();
    let locking = revocations.revoke(pb::RevokeRequest { issued_only: false, ..revoke.clone() }).await.unwrap().into_inner();
    let radius = pb::BlastRadiusRequest { targets: targets.clone(), most: 0 };
    let radius = revocations.blast_radius(radius).await.unwrap().into_inner();
    let listed = world.listed(&targets[0]).await;
    let done = revocations.revoke(pb::RevokeRequest { dry_run: false, ..revoke }).await.unwrap().into_inner();
    let get = pb::GetCredentialRequest { credential_id: case.credential.clone() };
    let shown = CredentialServiceClient::new(world.admin().await).get_credential(get).await.unwrap().into_inner();
    let verified = vectors.add(name, &case.token, target, done.seq);
    world.remember(case);
    Answers {
        before: [fold, active, verified[0]],
        after: [world.is_good_in_the_fold(&case.credential), world.introspects_as_active(&case.token).await, verified[1]],
        listed: listed.contains(&case.credential),
        shown_revoked: shown.credential.unwrap().state() == pb::CredentialState::Revoked,
        hits: [
            credentials(dry.hits),
            credentials(locking.hits),
            credentials(radius.hits),
            listed.len() as u64,
            credentials(done.hits),
        ],
        beside: beside.then(|| world.is_good_in_the_fold(&bystander)),
    }
}
