//! Changes that need two operators: roots of the operators' trust domain, registrations that give more, and everything for which policy
//! requires an approval. Actions needed in an incident wait for no approval.

use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::audit_service_client::AuditServiceClient;
use mayfly::pb::mayfly::v1::key_service_client::KeyServiceClient;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::pb::mayfly::v1::trust_domain_service_client::TrustDomainServiceClient;
use mayfly::pb::mayfly::v1::upstream_service_client::UpstreamServiceClient;
use mayfly::serve::client;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tonic::Status;
use tonic::transport::Channel;

use crate::kit::reason;
use crate::policy_rig::{Rig, approval_of};

const DOMAIN: &str = "dev.mayfly.internal";
const YOU: &str = "operator/you";
const COLLEAGUE: &str = "operator/colleague";

async fn admin(rig: &Rig, who: &str) -> Channel {
    rig.up.world.channel(who, rig.up.admin()).await.unwrap()
}

async fn domains(rig: &Rig) -> TrustDomainServiceClient<Channel> {
    TrustDomainServiceClient::new(admin(rig, YOU).await)
}

/// A self-made root for a trust domain, PEM.
fn root(domain: &str) -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![rcgen::SanType::URI(format!("spiffe://{domain}").try_into().unwrap())];
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

fn added(domain: &str) -> pb::AddBundleRequest {
    let bundle = Some(pb::Bundle { bundle: Some(pb::bundle::Bundle::Pem(root(domain))) });
    pb::AddBundleRequest { trust_domain: domain.into(), bundle, reason: "a partner".into(), ..Default::default() }
}

async fn roots(rig: &Rig, domain: &str) -> Vec<Vec<u8>> {
    let request = pb::GetBundleRequest { trust_domain: domain.into() };
    let shown = domains(rig).await.get_bundle(request).await.unwrap().into_inner().trust_domain.unwrap();
    shown.trust_anchors.into_iter().map(|a| a.sha256.to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_of_the_operators_domain_takes_two_and_going_takes_one() {
    let rig = Rig::new();
    let before = roots(&rig, DOMAIN).await;
    let add = added(DOMAIN);
    let no = domains(&rig).await.add_bundle(add.clone()).await.unwrap_err();
    let id = approval_of(&no);
    let mut socket = TrustDomainServiceClient::new(client::unix(&rig.up.socket()).await.unwrap());
    assert_eq!(reason(&socket.add_bundle(add.clone()).await.unwrap_err()), "NOT_YOURS");
    assert_eq!(roots(&rig, DOMAIN).await, before, "it waits");
    let again = domains(&rig).await.add_bundle(add.clone()).await.unwrap_err();
    assert_eq!(approval_of(&again), id, "asked for once");
    let set = pb::SetBundleRequest {
        trust_domain: DOMAIN.into(),
        bundle: Some(pb::Bundle {
            bundle: Some(pb::bundle::Bundle::Pem(format!(
                "{}{}",
                std::fs::read_to_string(rig.up.world.dir().join("bundle.pem")).unwrap(),
                root(DOMAIN)
            ))),
        }),
        ..Default::default()
    };
    approval_of(&domains(&rig).await.set_bundle(set).await.unwrap_err());

    // The approver is shown the root, and must be a different person.
    let shown = rig.show(COLLEAGUE, &id).await;
    let Some(pb::approval_change::To::Bundle(change)) = shown.change.unwrap().to else { panic!("no bundle") };
    assert_eq!((change.trust_domain.as_str(), change.added.len(), change.removed.len()), (DOMAIN, 1, 0));
    assert!(!change.added[0].certificate.is_empty() && shown.asked_because == "a partner");
    assert!(shown.governs[0].contains("adds root"), "{:?}", shown.governs);
    assert_eq!(reason(&rig.give(YOU, &id, true).await.unwrap_err()), "NOT_YOURS", "whoever asked");
    rig.give(COLLEAGUE, &id, true).await.unwrap();
    let after = roots(&rig, DOMAIN).await;
    assert_eq!(after.len(), before.len() + 1);

    // A single operator can remove the root.
    let sha256 = change.added[0].sha256.clone();
    let gone =
        pb::RemoveTrustAnchorRequest { trust_domain: DOMAIN.into(), sha256, reason: "leaked".into(), ..Default::default() };
    domains(&rig).await.remove_trust_anchor(gone).await.unwrap();
    assert_eq!(roots(&rig, DOMAIN).await, before);
    // The approval was for another state of the bundle: adding the root again needs two operators once more.
    approval_of(&domains(&rig).await.add_bundle(add).await.unwrap_err());

    // A trust domain whose ids hold no rights needs one operator only, until one of its members may approve.
    domains(&rig).await.add_bundle(added("partner.example")).await.unwrap();
    assert_eq!(roots(&rig, "partner.example").await.len(), 1);
}

async fn registration(rig: &Rig, name: &str) -> pb::Upstream {
    let request = pb::GetUpstreamRequest { upstream: name.into() };
    upstreams(rig).await.get_upstream(request).await.unwrap().into_inner().upstream.unwrap()
}

async fn upstreams(rig: &Rig) -> UpstreamServiceClient<Channel> {
    UpstreamServiceClient::new(admin(rig, YOU).await)
}

async fn set(rig: &Rig, upstream: pb::Upstream) -> Result<pb::Upstream, Status> {
    let confirmation = Some(pb::Confirmation { credentials: 0, all: true });
    let request = pb::SetUpstreamRequest { upstream: Some(upstream), confirmation, ..Default::default() };
    upstreams(rig).await.set_upstream(request).await.map(|r| r.into_inner().upstream.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_gives_more_takes_two_and_one_that_gives_less_takes_one() {
    type Change = fn(&mut pb::Upstream);
    let rig = Rig::new();
    let was = registration(&rig, "echo").await;
    let wider: &[(&str, Change)] = &[
        ("no longer sensitive", |u| u.scopes.iter_mut().for_each(|s| s.sensitive = false)),
        ("scope", |u| u.scopes.push(pb::UpstreamScope { scope: "echo:all".into(), sensitive: true })),
        ("approver", |u| {
            let who = pb::approver::Who::SpiffeId(format!("spiffe://{DOMAIN}/agent/demo"));
            u.approvers.push(pb::Approver { who: Some(who) });
        }),
        ("server", |u| u.servers.push(format!("spiffe://{DOMAIN}/agent/demo"))),
        ("kind", |u| u.kinds = vec![pb::CredentialKind::Jwt.into(), pb::CredentialKind::Reference.into()]),
        ("ttl.default", |u| u.default_ttl.as_mut().unwrap().seconds += 60),
        ("expires", |u| u.expires_at.as_mut().unwrap().seconds += 60),
        ("audience", |u| u.audience = "https://another.example".into()),
        ("target", |u| u.base_url = "https://another.example".into()),
    ];
    let mut last = String::new();
    for (what, change) in wider {
        let mut new = was.clone();
        change(&mut new);
        if new == was {
            continue;
        }
        let dry = pb::SetUpstreamRequest { upstream: Some(new.clone()), dry_run: true, ..Default::default() };
        let governs = upstreams(&rig).await.set_upstream(dry).await.unwrap().into_inner().governs;
        assert!(governs.iter().any(|why| why.contains(what)), "{what}: {governs:?}");
        let no = set(&rig, new).await.err().unwrap_or_else(|| panic!("{what} was let through"));
        assert!(no.message().contains(what), "{what}: {}", no.message());
        last = approval_of(&no);
        assert_eq!(registration(&rig, "echo").await.version, was.version, "{what} waits");
    }
    assert!(!last.is_empty());
    let mut open = was.clone();
    open.scopes.iter_mut().for_each(|s| s.sensitive = false);
    let id = approval_of(&set(&rig, open.clone()).await.unwrap_err());
    let shown = rig.show(COLLEAGUE, &id).await;
    let Some(pb::approval_change::To::Upstream(asked)) = shown.change.unwrap().to else { panic!("no registration") };
    assert!(asked.scopes.iter().all(|s| !s.sensitive));
    rig.give(COLLEAGUE, &id, true).await.unwrap();
    let now = registration(&rig, "echo").await;
    assert!(now.version == was.version + 1 && now.scopes.iter().all(|s| !s.sensitive));
    // The change that was requested before is based on an older version.
    assert_eq!(reason(&rig.give(COLLEAGUE, &last, true).await.unwrap_err()), "DECIDED_ON_OLD_STATE");
    // A change that gives less needs one operator: without the sensitive scope, and with a shorter TTL.
    let less = pb::Upstream { scopes: was.scopes.clone(), version: now.version, ..now };
    let dry = pb::SetUpstreamRequest { upstream: Some(less.clone()), dry_run: true, ..Default::default() };
    assert!(upstreams(&rig).await.set_upstream(dry).await.unwrap().into_inner().governs.is_empty());
    let less = set(&rig, less).await.unwrap();
    // A new name with the same target: retiring the old registration does not avoid the second operator.
    let retire = pb::SetUpstreamStateRequest {
        upstream: "echo".into(),
        state: pb::RegistrationState::Retired.into(),
        reason: "test".into(),
        confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
        ..Default::default()
    };
    // A state that is based on another version than the one in force is refused, also in a dry run.
    for dry_run in [true, false] {
        let stale = pb::SetUpstreamStateRequest { read_version: less.version - 1, dry_run, ..retire.clone() };
        assert_eq!(reason(&upstreams(&rig).await.set_upstream_state(stale).await.unwrap_err()), "DECIDED_ON_OLD_STATE");
    }
    let retire = pb::SetUpstreamStateRequest { read_version: less.version, ..retire };
    upstreams(&rig).await.set_upstream_state(retire).await.unwrap();
    approval_of(&set(&rig, pb::Upstream { upstream: "echo-2".into(), version: 0, ..less }).await.unwrap_err());
}

/// Admin actions on keys, upstreams and the audit need two operators.
const TWO: &str = "\n@id(\"two\")\nforbid (principal, action in [Action::\"ManageTrust\", Action::\"ManageUpstreams\", \
    Action::\"ManageKeys\", Action::\"ReadAudit\", Action::\"ManageTasks\"], resource)\nunless { context.approvals.count >= 1 };\n";

async fn keys(rig: &Rig) -> KeyServiceClient<Channel> {
    KeyServiceClient::new(admin(rig, YOU).await)
}

fn rotation() -> pb::RotateKeyRequest {
    let (purpose, environment) = (pb::KeyPurpose::AccessToken.into(), "dev".into());
    pb::RotateKeyRequest { purpose, environment, publish_ahead: Some(prost_types::Duration::default()), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policy_wants_approved_is_asked_for_and_an_incident_waits_for_nobody() {
    let rig = Rig::new();
    let id = approval_of(&rig.put(&|text| text + TWO).await.unwrap_err());
    rig.give(COLLEAGUE, &id, true).await.unwrap();

    let id = approval_of(&keys(&rig).await.rotate_key(rotation()).await.unwrap_err());
    let named = pb::RotateKeyRequest { request_id: "another".into(), ..rotation() };
    assert_eq!(approval_of(&keys(&rig).await.rotate_key(named.clone()).await.unwrap_err()), id, "however it is sent");
    let shown = rig.show(COLLEAGUE, &id).await;
    assert_eq!(
        (shown.of(), shown.tool.as_str(), shown.governs),
        (pb::ApprovalOf::Call, "KeyService.RotateKey", vec!["ManageKeys".into()])
    );
    assert!(shown.purpose.contains("environment: \"dev\""), "{}", shown.purpose);
    assert_eq!(reason(&rig.give(YOU, &id, false).await.unwrap_err()), "NOT_YOURS", "whoever asked");
    rig.give(COLLEAGUE, &id, false).await.unwrap();
    // The approval is not valid for another request; for the same request it is valid once.
    let other = pb::RotateKeyRequest { purpose: pb::KeyPurpose::Reference.into(), ..rotation() };
    assert_ne!(approval_of(&keys(&rig).await.rotate_key(other).await.unwrap_err()), id);
    let made = keys(&rig).await.rotate_key(named).await.unwrap().into_inner();
    assert!(made.key.is_some());
    assert_eq!(rig.show(COLLEAGUE, &id).await.state(), pb::ApprovalState::Used);
    assert_ne!(approval_of(&keys(&rig).await.rotate_key(rotation()).await.unwrap_err()), id, "once");

    // Reading also needs an approval if policy says so; a dry run changes nothing, so it waits for none.
    let mut audit = AuditServiceClient::new(admin(&rig, YOU).await);
    let id = approval_of(&audit.search_records(pb::SearchRecordsRequest::default()).await.unwrap_err());
    rig.give(COLLEAGUE, &id, false).await.unwrap();
    audit.search_records(pb::SearchRecordsRequest::default()).await.unwrap();
    let disable = |dry_run| pb::SetUpstreamStateRequest {
        upstream: "echo".into(),
        state: pb::RegistrationState::Disabled.into(),
        reason: "test".into(),
        dry_run,
        ..Default::default()
    };
    upstreams(&rig).await.set_upstream_state(disable(true)).await.unwrap();
    let id = approval_of(&upstreams(&rig).await.set_upstream_state(disable(false)).await.unwrap_err());
    // An approver refuses: the call stays refused.
    let refuse = pb::DecideApprovalRequest {
        approval_id: id.clone(),
        request_sha256: rig.show(COLLEAGUE, &id).await.request_sha256,
        decision: pb::ApprovalDecision::Refuse.into(),
        reason: "not today".into(),
        ..Default::default()
    };
    rig.approvals(COLLEAGUE).await.decide_approval(refuse).await.unwrap();
    assert_eq!(reason(&upstreams(&rig).await.set_upstream_state(disable(false)).await.unwrap_err()), "DENIED_BY_POLICY");
    // An operator on the local socket cannot be a second person.
    let mut socket = UpstreamServiceClient::new(client::unix(&rig.up.socket()).await.unwrap());
    assert_eq!(reason(&socket.set_upstream_state(disable(false)).await.unwrap_err()), "NOT_YOURS");

    // If the trust policy requires it, adding a root of any domain needs an approval; removing a root waits for none.
    approval_of(&domains(&rig).await.add_bundle(added("partner.example")).await.unwrap_err());
    let key = made.key.unwrap().key_id;
    let stolen = pb::CompromiseKeyRequest {
        key_id: key,
        reason: "stolen".into(),
        confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
        ..Default::default()
    };
    keys(&rig).await.compromise_key(stolen).await.unwrap();
    let mut revocations = RevocationServiceClient::new(admin(&rig, YOU).await);
    let targets = vec![pb::Target { target: Some(pb::target::Target::Caller(format!("spiffe://{DOMAIN}/agent/demo"))) }];
    let lock = pb::AddLockRequest { targets, reason: "test".into(), ..Default::default() };
    revocations.add_lock(lock).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_under_which_nobody_could_be_asked_or_an_incident_waits_is_refused() {
    let rig = Rig::new();
    let wants = |actions: &str| {
        format!(
            "\n@id(\"two\")\nforbid (principal, action in [{actions}], resource)\nunless {{ context.approvals.count >= 1 }};\n"
        )
    };
    let nobody =
        wants("Action::\"ManageKeys\"") + "@id(\"none\")\nforbid (principal, action == Action::\"ApproveChange\", resource);\n";
    for (policy, said) in [
        (wants("Action::\"Revoke\""), "Revoke"),
        (wants("Action::\"Lock\", Action::\"ManageKeys\""), "Lock"),
        (wants("Action::\"Admin\""), "Revoke and Lock"),
        (wants("Action::\"ApproveChange\""), "ApproveChange"),
        (nobody, "forbids ApproveChange to everybody"),
    ] {
        let no = rig.put(&|text| text + &policy).await.unwrap_err();
        assert_eq!(reason(&no), "INVALID_FIELD", "{policy}");
        let told = format!("{no:?}");
        assert!(told.contains(said) && told.contains("two"), "{policy}: {told}");
    }
}
