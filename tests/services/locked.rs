//! A locked or revoked caller is refused by every rpc of the workload listener, and its streams are ended.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use mayfly::identity::caller::Caller;
use mayfly::identity::svid;
use mayfly::limits;
use mayfly::pb::FILE_DESCRIPTOR_SET;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::revocation_service_server::RevocationService;
use mayfly::pb::mayfly::v1::watch_revocations_response::Event as Told;
use mayfly::refusal::Reason;
use mayfly::revocation::Target;
use mayfly::serve::connection_table::ConnectionActivity;
use mayfly::serve::grpc::revocation::RevocationApi;
use mayfly::serve::grpc::{ConnectionServices, Services, workload_routes};
use mayfly::serve::peer::Peer;
use mayfly::serve::shares::ShareLimits;
use mayfly::serve::wire::target_to_pb;
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio_stream::StreamExt;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::kit::house::DOMAIN;
use super::kit::pki;
use super::{ROOT, World, ask, ok, refused, world};

const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// The rpcs for operators only, which are refused for that reason first.
const OPERATORS: &[&str] =
    &["Revoke", "GetRevocation", "ListRules", "AddLock", "ListLocks", "LiftLock", "ListFollowers", "BlastRadius"];
/// The services that are not on the workload listener.
const ELSEWHERE: &[&str] = &["PolicyService", "ServerService"];

/// Every rpc: service and method.
fn rpcs() -> Vec<(String, String)> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let services = set.file.into_iter().filter(|f| f.package() == "mayfly.v1").flat_map(|f| f.service);
    services.flat_map(|s| s.method.clone().into_iter().map(move |m| (s.name().to_owned(), m.name().to_owned()))).collect()
}

/// The result of a call: the reason of a refusal, empty for an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Came {
    pub(super) reason: String,
    /// The fields that the refusal names.
    pub(super) fields: Vec<String>,
    pub(super) message: Bytes,
}

/// Makes one call on a connection of its own.
pub(super) async fn call(services: &Services, peer: &Peer, path: &str, message: &impl Message) -> Came {
    call_on(&services.clone().on_connection(peer.clone(), ConnectionActivity::alone(ShareLimits::AUTHENTICATED)), path, message)
        .await
}

/// Makes one call, as the listener does for a connection.
pub(super) async fn call_on(calls: &ConnectionServices, path: &str, message: &impl Message) -> Came {
    let (mut body, bytes) = (BytesMut::new(), message.encode_to_vec());
    body.put_u8(0);
    body.put_u32(u32::try_from(bytes.len()).unwrap());
    body.put_slice(&bytes);
    let request = http::Request::post(path).header("content-type", "application/grpc").body(Full::new(body.freeze())).unwrap();
    let arrived = calls.arrived(&request);
    let response = calls.answer(request, arrived, &Default::default()).await;
    let mut said = Status::from_header_map(response.headers());
    let (mut body, mut message) = (response.into_body(), Bytes::new());
    // A stream that stays open is no refusal.
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(Duration::from_secs(5), body.frame()).await {
        match frame.into_data() {
            Ok(data) => {
                message = data.slice(5..);
                break;
            }
            Err(frame) => said = frame.trailers_ref().and_then(Status::from_header_map),
        }
    }
    let refused = said.filter(|s| s.code() != Code::Ok);
    let violations = refused.as_ref().and_then(StatusExt::get_details_bad_request).map(|bad| bad.field_violations);
    let fields = violations.into_iter().flatten().map(|violation| violation.field).collect();
    let reason = refused.map(|s| match s.get_details_error_info() {
        Some(info) => info.reason,
        None => format!("{:?}", s.code()),
    });
    Came { reason: reason.unwrap_or_default(), fields, message }
}

pub(super) fn exchange(request_id: &str) -> pb::ExchangeRequest {
    let echo = pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] };
    let terms = pb::TaskTerms { purpose: "a test".into(), upstreams: vec![echo], any_tool: true, ..Default::default() };
    pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::OpenTask(terms)),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        purpose: "a test".into(),
        request_id: request_id.into(),
        ..Default::default()
    }
}

fn issued(message: &Bytes) -> Option<pb::Issued> {
    pb::ExchangeResponse::decode(message.clone()).unwrap().issued
}

/// The result of each rpc for a caller: the reason of its refusal, or of that of its single item.
fn everything(w: &World, peer: &Peer, credential: &str, when: &str) -> BTreeMap<String, String> {
    let health = tonic_health::server::HealthReporter::new();
    let services = workload_routes(w.authority(), &health);
    let mut all = BTreeMap::new();
    for (service, method) in rpcs() {
        if ELSEWHERE.contains(&service.as_str()) {
            continue;
        }
        let path = format!("/mayfly.v1.{service}/{method}");
        let reason = w.run(async {
            let problem = |p: pb::Problem| p.reason;
            match method.as_str() {
                "Exchange" => call(&services, peer, &path, &exchange("")).await.reason,
                "BatchExchange" => {
                    let ask = pb::BatchExchangeRequest { exchanges: vec![exchange("")], ..Default::default() };
                    let came = call(&services, peer, &path, &ask).await;
                    let results = pb::BatchExchangeResponse::decode(came.message).unwrap().results;
                    match results.into_iter().next().and_then(|r| r.result) {
                        Some(pb::exchange_result::Result::Problem(p)) => problem(p),
                        _ => came.reason,
                    }
                }
                "StreamExchange" => {
                    let one = pb::stream_exchange_request::Ask::Exchange(exchange(when));
                    let came = call(&services, peer, &path, &pb::StreamExchangeRequest { ask: Some(one) }).await;
                    match pb::StreamExchangeResponse::decode(came.message).unwrap().result {
                        Some(pb::stream_exchange_response::Result::Problem(p)) => problem(p),
                        _ => came.reason,
                    }
                }
                "Renew" => {
                    let ask = pb::RenewRequest { credential_id: credential.to_owned(), ..Default::default() };
                    call(&services, peer, &path, &ask).await.reason
                }
                // An empty request: an admitted caller is told which field is missing.
                _ => call(&services, peer, &path, &()).await.reason,
            }
        });
        all.insert(method, reason);
    }
    all
}

/// Issues a credential to this peer, with a request that can be repeated.
fn begin(w: &World, peer: &Peer) -> String {
    let services = workload_routes(w.authority(), &tonic_health::server::HealthReporter::new());
    let came = w.run(call(&services, peer, "/mayfly.v1.TokenService/Exchange", &exchange("again")));
    issued(&came.message).unwrap_or_else(|| panic!("{came:?}")).credential_id
}

fn revoke(w: &World, target: Target) {
    let service = RevocationApi(w.authority().clone());
    let confirmation = Some(pb::Confirmation { credentials: 0, all: true });
    let targets = vec![target_to_pb(&target)];
    let request = pb::RevokeRequest { targets, reason: "a test".into(), confirmation, force: true, ..Default::default() };
    ok(w.run(service.revoke(ask(&ROOT, request))));
}

fn lock(w: &World, target: Target) {
    let service = RevocationApi(w.authority().clone());
    let request =
        pb::AddLockRequest { targets: vec![target_to_pb(&target)], reason: "a test".into(), force: true, ..Default::default() };
    ok(w.run(service.add_lock(ask(&ROOT, request))));
}

/// A workload whose SVID has a serial number of its own, as with a real issuer.
fn workload(w: &World, path: &str, serial: u8) -> Peer {
    let spec = pki::Spec { serial: vec![0x41, serial], ..pki::Spec::leaf(&format!("spiffe://{DOMAIN}{path}")) };
    let chain = w.house.root.issue(&spec).chain;
    let svid = svid::verify(&chain, &w.authority().bundles.load(), w.house.now(), limits::SVID_MAX_TTL_MS).unwrap();
    Peer::Workload(Caller::from(&svid))
}

fn svid_of(peer: &Peer) -> Target {
    let Peer::Workload(svid) = peer else { panic!("no workload") };
    let e = svid.evidence();
    Target::Svid(DOMAIN.into(), e.issuing_key, e.serial.clone().into())
}

#[test]
fn every_rpc_refuses_a_caller_that_is_locked_or_whose_svid_was_revoked() {
    let id = || format!("spiffe://{DOMAIN}/agent/demo");
    type Hit = Box<dyn Fn(&World, &Peer)>;
    let cases: [(&str, Reason, Hit); 6] = [
        ("its lock", Reason::Locked, Box::new(move |w, _| lock(w, Target::Caller(id().into())))),
        ("its revocation", Reason::Locked, Box::new(move |w, _| revoke(w, Target::Caller(id().into())))),
        ("a prefix", Reason::Locked, Box::new(|w, _| lock(w, Target::Prefix(format!("spiffe://{DOMAIN}/agent").into())))),
        ("its trust domain", Reason::Locked, Box::new(|w, _| lock(w, Target::TrustDomain(DOMAIN.into())))),
        ("itself as a subject", Reason::Locked, Box::new(move |w, _| lock(w, Target::Subject(DOMAIN.into(), id().into())))),
        ("its SVID", Reason::EvidenceRevoked, Box::new(|w, peer| revoke(w, svid_of(peer)))),
    ];
    for (what, reason, hit) in cases {
        let w = world();
        let peer = workload(&w, "/agent/demo", 1);
        let credential = begin(&w, &peer);
        let before = everything(&w, &peer, &credential, "before");
        for (method, came) in &before {
            assert!(!["LOCKED", "REVOKED", "EVIDENCE_REVOKED"].contains(&came.as_str()), "{method}: {came} before {what}");
        }
        assert!(
            ["Exchange", "BatchExchange", "StreamExchange", "Renew", "Whoami", "ListTasks"].iter().all(|m| before[*m].is_empty())
        );
        hit(&w, &peer);
        for (method, came) in everything(&w, &peer, &credential, "after") {
            let expected = match method.as_str() {
                m if OPERATORS.contains(&m) => "NOT_AUTHENTICATED",
                // A locked caller is told the rule; a caller with a revoked SVID is told nothing.
                "Whoami" if reason == Reason::Locked => "",
                _ => reason.as_str(),
            };
            assert_eq!(came, expected, "{method}, after {what}");
        }
        // The caller's own earlier answer is not returned again, and the health service still answers.
        let services = workload_routes(w.authority(), &tonic_health::server::HealthReporter::new());
        let again = w.run(call(&services, &peer, "/mayfly.v1.TokenService/Exchange", &exchange("again")));
        assert!(!again.reason.is_empty() && issued_none(&again), "{what}: {again:?}");
        assert_eq!(w.run(call(&services, &peer, HEALTH, &())).reason, "", "{what}");
        // Other callers are not affected.
        let other = workload(&w, "/ci/demo", 2);
        if what != "its trust domain" {
            assert_eq!(w.run(call(&services, &other, "/mayfly.v1.TaskService/ListTasks", &())).reason, "", "{what}");
        }
    }
}

fn issued_none(came: &Came) -> bool {
    came.message.is_empty() || issued(&came.message).is_none()
}

/// A stolen SVID that was revoked gives no access to what a later SVID of the same workload received.
#[test]
fn a_repeat_with_another_svid_that_was_revoked_gets_nothing() {
    let w = world();
    let (stolen, good) = (workload(&w, "/agent/demo", 1), workload(&w, "/agent/demo", 2));
    begin(&w, &good);
    revoke(&w, svid_of(&stolen));
    let services = workload_routes(w.authority(), &tonic_health::server::HealthReporter::new());
    let path = "/mayfly.v1.TokenService/Exchange";
    let again = w.run(call(&services, &stolen, path, &exchange("again")));
    assert_eq!((again.reason.as_str(), issued_none(&again)), ("EVIDENCE_REVOKED", true));
    assert!(issued(&w.run(call(&services, &good, path, &exchange("again"))).message).is_some());
}

/// A rule over everything stops grants. Callers in the middle of their work can read, and end what they began.
#[test]
fn a_lock_over_everything_lets_callers_end_what_they_began() {
    let w = world();
    let peer = w.workload("/agent/demo");
    let credential = begin(&w, &peer);
    lock(&w, Target::Everything);
    let came = everything(&w, &peer, &credential, "after");
    for method in ["Exchange", "BatchExchange", "StreamExchange", "Renew"] {
        assert_eq!(came[method], "LOCKED", "{method}");
    }
    assert_eq!((came["ListTasks"].as_str(), came["CompleteTask"].as_str()), ("", "INVALID_FIELD"));
}

#[test]
fn a_follower_that_a_rule_hits_is_told_of_it_and_let_go() {
    let w = world();
    let service = || RevocationApi(w.authority().clone());
    let server = w.workload("/service/echo");
    let watch = |peer: &Peer| {
        let request =
            pb::WatchRevocationsRequest { follower: "one".into(), upstreams: vec!["echo".into()], ..Default::default() };
        w.run(service().watch_revocations(ask(peer, request)))
    };
    let mut feed = watch(&server).unwrap().into_inner();
    let mut bystander = {
        let request = pb::WatchRevocationsRequest { follower: "two".into(), ..Default::default() };
        ok(w.run(service().watch_revocations(ask(&ROOT, request))))
    };
    // The stream has begun, so that further changes arrive as events.
    assert!(matches!(w.run(feed.next()).unwrap().unwrap().event, Some(Told::Snapshot(_))));
    lock(&w, Target::Tool("unrelated".into()));
    lock(&w, Target::Caller(format!("spiffe://{DOMAIN}/service/echo").into()));
    let mut locks = 0;
    let end = loop {
        match w.run(async { tokio::time::timeout(Duration::from_secs(10), feed.next()).await }) {
            Ok(Some(Ok(message))) => locks += usize::from(matches!(message.event, Some(Told::Lock(_)))),
            Ok(Some(Err(status))) => break status,
            Ok(None) => panic!("it ended without a word"),
            Err(_) => panic!("it goes on"),
        }
    };
    assert_eq!(locks, 2, "the rule that hit it is told first, so that it refuses what that covers at once");
    assert_eq!((end.code(), end.get_details_error_info().unwrap().reason.as_str()), (Code::PermissionDenied, "LOCKED"), "{end}");
    assert!(end.message().contains("this follower"), "{end}");
    assert!(w.run(feed.next()).is_none());
    refused(watch(&server), Reason::Locked);
    let acknowledged = pb::AcknowledgeRevocationsRequest { follower: "one".into(), applied_seq: 1 };
    refused(w.run(service().acknowledge_revocations(ask(&server, acknowledged))), Reason::Locked);
    let listed = ok(w.run(service().list_followers(ask(&ROOT, pb::ListFollowersRequest::default())))).followers;
    assert_eq!(listed.iter().map(|f| (f.follower.as_str(), f.connected)).collect::<Vec<_>>(), [("one", false), ("two", true)]);
    let next = w.run(async { tokio::time::timeout(Duration::from_secs(10), bystander.next()).await }).unwrap().unwrap();
    assert!(next.is_ok(), "whom no rule hits goes on: {next:?}");
}
