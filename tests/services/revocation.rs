//! RevocationService: revoking and locking by every target, and the feed as a follower sees it.

use std::time::Duration;

use mayfly::feed::Followers;
use mayfly::ledger::record::Author;
use mayfly::limits;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::revocation_service_server::RevocationService;
use mayfly::pb::mayfly::v1::server_service_server::ServerService;
use mayfly::pb::mayfly::v1::watch_revocations_response::Event as Told;
use mayfly::refusal::Reason;
use mayfly::revocation::Target;
use mayfly::seq::{CredentialId, Seq, TaskId};
use mayfly::serve::grpc::revocation::RevocationApi;
use mayfly::serve::peer::Peer;
use mayfly::serve::wire::target_to_pb;
use tokio_stream::StreamExt;
use tonic_types::StatusExt;

use super::{ROOT, World, ask, bad, ok, refusals, refused, world};

fn service(w: &World) -> RevocationApi {
    RevocationApi(w.authority().clone())
}

fn request(targets: &[Target]) -> pb::RevokeRequest {
    let confirmation = Some(pb::Confirmation { all: true, ..Default::default() });
    let targets = targets.iter().map(target_to_pb).collect();
    pb::RevokeRequest { targets, reason: "a test".into(), confirmation, force: true, ..Default::default() }
}

fn revoke(w: &World, targets: &[Target]) -> pb::RevokeResponse {
    ok(w.run(service(w).revoke(ask(&ROOT, request(targets)))))
}

/// Every target, and whether revoking it also blocks new grants.
fn every_target() -> [(Target, bool); 17] {
    let agent = || "spiffe://dev.mayfly.internal/agent/a".into();
    [
        (Target::Credential(CredentialId::from_bytes([1; 16])), false),
        (Target::Task(TaskId::from_bytes([2; 16])), false),
        (Target::Caller(agent()), true),
        (Target::Prefix("spiffe://dev.mayfly.internal/ci".into()), true),
        (Target::TrustDomain("other.example".into()), true),
        (Target::TrustAnchor([3; 32]), false),
        (Target::Subject("https://issuer.example".into(), "somebody".into()), true),
        (Target::Upstream("repos".into()), true),
        (Target::UpstreamScope("repos".into(), "repo:read".into()), true),
        (Target::Binding("b".into()), false),
        (Target::Tool("read".into()), true),
        (Target::Environment("dev".into()), true),
        (Target::PolicyBelow("dev".into(), 1), false),
        (Target::SigningKey("abcdefgh".into()), false),
        (Target::Svid("dev.mayfly.internal".into(), [4; 32], vec![5].into()), false),
        (Target::SubjectToken("https://issuer.example".into(), "t1".into()), false),
        (Target::Everything, true),
    ]
}

#[test]
fn every_target_revokes_and_locks_by_its_default() {
    for (target, locks) in every_target() {
        let w = world();
        let ahead = ok(
            w.run(service(&w).revoke(ask(&ROOT, pb::RevokeRequest { dry_run: true, ..request(std::slice::from_ref(&target)) })))
        );
        assert_eq!((ahead.seq, ahead.locks.len()), (0, usize::from(locks)), "{target}");
        let done = revoke(&w, std::slice::from_ref(&target));
        assert!(done.seq > 0);
        assert_eq!(done.locks.len(), usize::from(locks), "{target}");
        let add = pb::AddLockRequest {
            targets: vec![target_to_pb(&target)],
            reason: "a test".into(),
            force: true,
            ..Default::default()
        };
        let added = w.run(service(&w).add_lock(ask(&ROOT, add)));
        assert_eq!(added.is_ok(), locks, "{target}");
        let w = world();
        let issued_only = pb::RevokeRequest { issued_only: true, ..request(std::slice::from_ref(&target)) };
        assert_eq!(ok(w.run(service(&w).revoke(ask(&ROOT, issued_only)))).locks.len(), 0, "{target}");
        let rules = ok(w.run(service(&w).list_rules(ask(&ROOT, pb::ListRulesRequest::default())))).rules;
        assert_eq!((rules.len(), rules[0].reason.as_str(), rules[0].author.is_some()), (1, "a test", true), "{target}");
    }
}

fn way_out(no: &tonic::Status) -> String {
    no.get_details_error_info().unwrap().metadata["way_out"].clone()
}

#[test]
fn what_is_registered_here_by_name_and_is_not_there_is_refused_with_the_nearest_name() {
    let w = world();
    let svid = Target::Svid("dev.mayfly.internall".into(), [4; 32], vec![5].into());
    let unknown = [
        (Target::Upstream("reposs".into()), "did you mean repos?"),
        (Target::UpstreamScope("repo".into(), "repo:read".into()), "did you mean repos?"),
        (Target::UpstreamScope("repos".into(), "repo:reed".into()), "did you mean repo:read?"),
        (Target::Binding("b".into()), "there is no binding b"),
        (Target::Environment("devv".into()), "did you mean dev?"),
        (Target::TrustDomain("nosuch.example".into()), "there is no trust domain nosuch.example"),
        (Target::TrustAnchor([3; 32]), "no trust domain has"),
        (Target::PolicyBelow("dev".into(), 900), "no policy version 900"),
        (Target::SigningKey("abcdefgh".into()), "there is no key abcdefgh"),
        (svid, "there is no trust domain dev.mayfly.internall"),
    ];
    for (target, text) in unknown {
        let plain = pb::RevokeRequest { force: false, ..request(std::slice::from_ref(&target)) };
        let ahead = pb::RevokeRequest { dry_run: true, ..plain.clone() };
        for message in [plain, ahead] {
            let no = refused(w.run(service(&w).revoke(ask(&ROOT, message))), Reason::NotFound);
            assert!(no.message().contains(text), "{target}: {no:?}");
            assert!(way_out(&no).contains("--force revokes"), "{target}: {no:?}");
        }
        let radius = pb::BlastRadiusRequest { targets: vec![target_to_pb(&target)], most: 0 };
        let no = refused(w.run(service(&w).blast_radius(ask(&ROOT, radius))), Reason::NotFound);
        assert!(
            way_out(&no).contains("shows the known names") && !way_out(&no).contains("--force"),
            "it has no such flag: {no:?}"
        );
        if target.sort().locks() {
            let lock = pb::AddLockRequest { targets: vec![target_to_pb(&target)], reason: "a test".into(), ..Default::default() };
            refused(w.run(service(&w).add_lock(ask(&ROOT, lock))), Reason::NotFound);
        }
    }
    let rules = || ok(w.run(service(&w).list_rules(ask(&ROOT, pb::ListRulesRequest::default())))).rules.len();
    assert_eq!(rules(), 0, "nothing was revoked");
    // The objects that these targets name may appear later, or may have ended.
    let later = every_target().into_iter().map(|(target, _)| target).filter(|target| {
        use Target::{Caller, Credential, Everything, Prefix, Subject, SubjectToken, Task, Tool};
        matches!(target, Credential(_) | Task(_) | Caller(_) | Prefix(_) | Subject(..) | Tool(_) | SubjectToken(..) | Everything)
    });
    for target in later {
        let plain = pb::RevokeRequest { force: false, ..request(std::slice::from_ref(&target)) };
        ok(w.run(service(&w).revoke(ask(&ROOT, plain))));
    }
    let before = rules();
    revoke(&w, &[Target::Upstream("reposs".into())]);
    assert_eq!(rules(), before + 1, "forced, it is revoked");
}

#[test]
fn locks_are_lifted_one_by_one_and_revoking_is_for_operators_with_a_reason() {
    let w = world();
    let both = [Target::Upstream("repos".into()), Target::Tool("read".into())];
    let done = revoke(&w, &both);
    let first = done.locks[0].clone();
    let lift = |index| pb::LiftLockRequest { seq: done.seq, index, reason: "over".into(), ..Default::default() };
    let lifted = ok(w.run(service(&w).lift_lock(ask(&ROOT, lift(Some(first.index))))));
    assert_eq!((lifted.lifted.len(), lifted.remaining.len()), (1, 1));
    let locks = ok(w.run(service(&w).list_locks(ask(&ROOT, pb::ListLocksRequest::default())))).locks;
    assert_eq!(locks.len(), 1);
    assert_ne!(locks[0].index, first.index);
    let no = refused(w.run(service(&w).lift_lock(ask(&ROOT, lift(Some(first.index))))), Reason::NotFound);
    assert_eq!(way_out(&no), "mayfly lock list shows the existing locks");
    // A newer lock takes the place of an older one: whoever has the older number is told the newer one.
    let newer = revoke(&w, &both);
    for index in [None, Some(first.index)] {
        let no = refused(w.run(service(&w).lift_lock(ask(&ROOT, lift(index)))), Reason::NotFound);
        assert!(no.message().contains(&format!("by the newer lock {}", newer.seq)), "{no:?}");
        let names = newer.locks.iter().filter(|lock| index.is_none_or(|index| index == lock.index));
        let names: Vec<String> = names.map(|lock| format!("{}:{}", lock.seq, lock.index)).collect();
        let said = way_out(&no);
        assert!(said.starts_with("mayfly lock lift ") && said.ends_with(" --reason TEXT"), "{said}");
        assert!(names.iter().all(|name| said.contains(name)) && said.split_whitespace().count() == names.len() + 5, "{said}");
    }
    bad(w.run(service(&w).revoke(ask(&ROOT, pb::RevokeRequest { reason: " ".into(), ..request(&both) }))), "reason");
    bad(w.run(service(&w).revoke(ask(&ROOT, request(&[])))), "targets");
    let many = vec![Target::Everything; limits::TARGETS + 1];
    bad(w.run(service(&w).revoke(ask(&ROOT, request(&many)))), "targets");
    // A workload is told where operators call, not that its SVID is invalid.
    let status = refused(w.run(service(&w).revoke(ask(&w.workload("/agent/a"), request(&both)))), Reason::NotAuthenticated);
    assert!(status.get_details_error_info().unwrap().metadata["way_out"].contains("listen.admin"), "{status:?}");
    // An attempt without permission is recorded in the audit log.
    refused(w.run(service(&w).revoke(ask(&w.admin("/agent/a"), request(&both)))), Reason::DeniedByPolicy);
    w.pass(1);
    let tried = refusals(&w);
    let agent = "spiffe://dev.mayfly.internal/agent/a".to_owned();
    assert!(tried.contains(&(agent, "revoke".into(), "DENIED_BY_POLICY".into())), "{tried:?}");
}

#[test]
fn everything_is_revoked_only_when_all_was_confirmed_however_few_there_are() {
    let w = world();
    let everything =
        |confirmation| pb::RevokeRequest { confirmation, ..request(&[Target::Tool("t".into()), Target::Everything]) };
    for confirmation in [None, Some(pb::Confirmation { credentials: 1_000_000, all: false })] {
        for issued_only in [false, true] {
            let asked = pb::RevokeRequest { issued_only, ..everything(confirmation) };
            let status = refused(w.run(service(&w).revoke(ask(&ROOT, asked))), Reason::ConfirmNeeded);
            let info = status.get_details_error_info().unwrap();
            assert_eq!(
                (info.metadata["rule"].as_str(), &info.metadata["way_out"][..13]),
                ("everything", "--confirm all"),
                "{status}"
            );
        }
    }
    assert!(
        ok(w.run(service(&w).list_rules(ask(&ROOT, pb::ListRulesRequest::default())))).rules.is_empty(),
        "nothing was revoked"
    );
    // A dry run, and a lock alone, need no confirmation.
    ok(w.run(service(&w).revoke(ask(&ROOT, pb::RevokeRequest { dry_run: true, ..everything(None) }))));
    let add =
        pb::AddLockRequest { targets: vec![target_to_pb(&Target::Everything)], reason: "a test".into(), ..Default::default() };
    ok(w.run(service(&w).add_lock(ask(&ROOT, add))));
    let all = Some(pb::Confirmation { credentials: 0, all: true });
    assert!(ok(w.run(service(&w).revoke(ask(&ROOT, everything(all))))).seq > 0);
}

#[test]
fn a_revocation_says_what_it_hit_what_it_refuses_and_who_has_applied_it() {
    let w = world();
    let get = |seq| ok(w.run(service(&w).get_revocation(ask(&ROOT, pb::GetRevocationRequest { seq }))));
    let refuses = |refused| Some(pb::Reach { refused, ..Default::default() });
    let mut feed = follow(&w, &w.workload("/service/echo"), "one", None).unwrap();
    next(&w, &mut feed).unwrap();
    w.issue("/agent/demo");
    w.issue("/agent/demo");
    w.issue("/ci/demo");
    let caller = Target::Caller("spiffe://dev.mayfly.internal/agent/demo".into());
    let done = revoke(&w, std::slice::from_ref(&caller));
    assert_eq!((done.reach, done.hits.map(|h| h.credentials)), (refuses(2), Some(2)));
    let told = get(done.seq);
    assert_eq!((told.reach, told.followers_applied, told.followers_behind), (refuses(2), 0, 1));
    let hits = told.rule.unwrap().hits.unwrap();
    assert_eq!((hits.credentials, hits.tasks, hits.callers), (2, 2, 1));
    assert_eq!(next(&w, &mut feed).unwrap().seq, done.seq);
    let applied = pb::AcknowledgeRevocationsRequest { follower: "one".into(), applied_seq: done.seq };
    ok(w.run(service(&w).acknowledge_revocations(ask(&w.workload("/service/echo"), applied))));
    assert_eq!((get(done.seq).followers_applied, get(done.seq).followers_behind), (1, 0));
    // A later rule does not weaken an earlier one, and hits only what was left.
    let all = revoke(&w, &[Target::Everything]).seq;
    assert_eq!((get(done.seq).reach, get(all).reach), (refuses(2), refuses(1)));
    let rules = ok(w.run(service(&w).list_rules(ask(&ROOT, pb::ListRulesRequest::default())))).rules;
    assert_eq!(rules.iter().map(|r| (r.seq, r.hits.unwrap().credentials)).collect::<Vec<_>>(), [(all, 1), (done.seq, 2)]);
    // Expired credentials are refused by their expiry.
    w.pass(limits::CREDENTIAL_TTL_MS);
    assert_eq!((get(done.seq).reach, get(all).reach), (refuses(0), refuses(0)));
    refused(w.run(service(&w).get_revocation(ask(&ROOT, pb::GetRevocationRequest { seq: all + 1 }))), Reason::NotFound);
}

type Feed = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::WatchRevocationsResponse, tonic::Status>> + Send>>;

fn follow(w: &World, peer: &Peer, name: &str, resume_after: Option<u64>) -> Result<Feed, tonic::Status> {
    follow_having_seen(w, peer, name, resume_after, None)
}

fn follow_having_seen(
    w: &World,
    peer: &Peer,
    name: &str,
    resume_after: Option<u64>,
    seen: Option<pb::SeenHead>,
) -> Result<Feed, tonic::Status> {
    let request = pb::WatchRevocationsRequest { follower: name.into(), resume_after, upstreams: vec!["echo".into()], seen };
    w.run(service(w).watch_revocations(ask(peer, request))).map(tonic::Response::into_inner)
}

/// The head of the ledger in the next heartbeat.
fn next_seen(w: &World, feed: &mut Feed) -> pb::SeenHead {
    loop {
        let message = w.run(feed.next()).expect("the stream goes on").unwrap();
        if let Some(Told::Heartbeat(beat)) = message.event {
            return pb::SeenHead { seq: message.seq, heads: beat.heads };
        }
    }
}

/// The next message that is not a heartbeat.
fn next(w: &World, feed: &mut Feed) -> Result<pb::WatchRevocationsResponse, tonic::Status> {
    loop {
        let message = w.run(feed.next()).expect("the stream goes on")?;
        if !matches!(message.event, Some(Told::Heartbeat(_))) {
            return Ok(message);
        }
    }
}

#[test]
fn a_follower_gets_a_snapshot_then_each_event_names_the_one_before() {
    let w = world();
    let server = w.workload("/service/echo");
    let before = revoke(&w, &[Target::Tool("read".into())]).seq;
    let mut feed = follow(&w, &server, "one", None).unwrap();
    let snapshot = next(&w, &mut feed).unwrap();
    let Some(Told::Snapshot(part)) = snapshot.event else { panic!("{snapshot:?}") };
    assert!(part.last && part.rules.iter().any(|r| r.seq == before) && part.locks.len() == 1);
    let a = revoke(&w, &[Target::Tool("a".into())]).seq;
    let b = revoke(&w, &[Target::Tool("b".into())]).seq;
    let (first, second) = (next(&w, &mut feed).unwrap(), next(&w, &mut feed).unwrap());
    assert_eq!((first.seq, second.seq, second.previous_seq), (a, b, a));
    // Resuming after a sequence number sends the missed events, in order.
    let mut again = follow(&w, &server, "two", Some(a)).unwrap();
    assert_eq!(next(&w, &mut again).unwrap().seq, b);
    // A position that is no longer kept is OUT_OF_RANGE; a position beyond the head is LEDGER_ROLLED_BACK.
    let compacted = follow(&w, &server, "three", Some(1)).err().unwrap();
    assert_eq!(compacted.code(), tonic::Code::OutOfRange, "{compacted:?}");
    assert_eq!(compacted.get_details_error_info().unwrap().reason, "COMPACTED");
    let beyond = follow(&w, &server, "three", Some(b + 1000)).err().unwrap();
    assert_eq!(beyond.get_details_error_info().unwrap().reason, "LEDGER_ROLLED_BACK");
    // Only for upstreams that the caller serves.
    let other = follow(&w, &w.workload("/agent/a"), "x", None).err().unwrap();
    assert_eq!(other.get_details_error_info().unwrap().reason, "NOT_YOURS");
}

/// A server on an older copy of its ledger: followers have seen more than it has, or another history. The server refuses such followers and
/// reports them to its operator.
#[test]
fn a_follower_that_has_seen_more_or_another_history_is_refused_and_told_of() {
    let w = world();
    let server = w.workload("/service/echo");
    let mut feed = follow(&w, &server, "one", None).unwrap();
    next(&w, &mut feed).unwrap();
    let first = next_seen(&w, &mut feed);
    assert_eq!(first.heads.len(), 1);
    revoke(&w, &[Target::Tool("a".into())]);
    let mut again = follow_having_seen(&w, &server, "two", Some(first.seq), Some(first.clone())).unwrap();
    let seen = next_seen(&w, &mut again);
    assert!(seen.heads[0].commit > first.heads[0].commit);
    // All of these positions are in this ledger, with a snapshot too.
    for (resume_after, seen) in [(None, &first), (None, &seen), (Some(first.seq), &first), (Some(seen.seq), &seen)] {
        drop(follow_having_seen(&w, &server, "three", resume_after, Some(seen.clone())).unwrap());
    }
    assert!(w.authority().followers.beyond().is_empty());
    let other = |of: &pb::SeenHead, change: fn(&mut pb::SeenHead)| {
        let mut other = of.clone();
        change(&mut other);
        other
    };
    let lies = [
        other(&seen, |s| s.seq += 10),
        other(&seen, |s| s.heads[0].commit += 1),
        other(&seen, |s| s.heads[0].header_sha256 = vec![7; 32].into()),
        other(&first, |s| s.heads[0].header_sha256 = vec![7; 32].into()),
        other(&first, |s| s.heads[0].writer = "9".into()),
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        for resume_after in [None, Some(first.seq)] {
            let name = format!("lie {n}");
            let no = follow_having_seen(&w, &server, &name, resume_after, Some(lie.clone())).err().unwrap();
            let info = no.get_details_error_info().unwrap();
            assert_eq!(info.reason, "LEDGER_ROLLED_BACK", "{no:?}");
            assert!(info.metadata["way_out"].contains("mayfly server recover"), "{no:?}");
        }
        assert_eq!(w.authority().followers.beyond().len(), n + 1);
        // An older client sends only the position to resume after: such a follower was detected, and is not admitted when the head has
        // reached that position.
        let no = follow(&w, &server, &format!("lie {n}"), Some(first.seq)).err().unwrap();
        assert_eq!(no.get_details_error_info().unwrap().reason, "LEDGER_ROLLED_BACK");
        // A restarted follower has no position, and begins with a snapshot.
        drop(follow(&w, &server, &format!("lie {n}"), None).unwrap());
    }
    let many = other(&seen, |s| s.heads = vec![s.heads[0].clone(); limits::CHAIN_HEADS + 1]);
    bad(follow_having_seen(&w, &server, "four", None, Some(many)).map(|_| tonic::Response::new(())), "seen.heads");
    let status =
        ok(w.run(mayfly::serve::grpc::server::ServerApi(w.authority().clone()).get_status(ask(&ROOT, pb::GetStatusRequest {}))));
    assert_eq!(status.counts.unwrap().followers_beyond, 5);
    assert!(status.warnings.iter().any(|w| w.contains("mayfly server recover") && w.contains("lie 0")), "{:?}", status.warnings);
    assert!(w.authority().metrics().unwrap().contains("mayfly_followers_beyond 5"));
    // A head from before the present generation is compared with nothing.
    let earlier = pb::SeenHead { seq: 5, heads: seen.heads };
    drop(follow_having_seen(&w, &server, "five", None, Some(earlier)).unwrap());
}

/// A follower's claim of what it has applied counts only if this history contains it: it was sent by this process, or the seen head is in
/// the ledger.
#[test]
fn nobody_has_applied_what_was_not_sent_to_them() {
    let w = world();
    let server = w.workload("/service/echo");
    let seq = revoke(&w, &[Target::Tool("b".into())]).seq;
    let nobody = ok(w.run(service(&w).wait_for_revocation(ask(&ROOT, pb::WaitForRevocationRequest { seq, timeout: None }))));
    assert_eq!((nobody.applied, nobody.followers), (true, Some(0)), "that nobody follows is told apart");
    let mut feed = follow(&w, &server, "one", None).unwrap();
    next(&w, &mut feed).unwrap();
    let seq = revoke(&w, &[Target::Tool("a".into())]).seq;
    next(&w, &mut feed).unwrap();
    let seen = loop {
        let seen = next_seen(&w, &mut feed);
        if seen.seq >= seq {
            break seen;
        }
    };
    let wait = pb::WaitForRevocationRequest { seq, timeout: None };
    let applied = || ok(w.run(service(&w).wait_for_revocation(ask(&ROOT, wait)))).behind_count;
    let acknowledge = |follower: &str, applied_seq| {
        let applied = pb::AcknowledgeRevocationsRequest { follower: follower.into(), applied_seq };
        w.run(service(&w).acknowledge_revocations(ask(&server, applied)))
    };
    ok(acknowledge("one", seq));
    assert_eq!(applied(), 0);
    let mut claims = follow(&w, &server, "two", Some(seq)).unwrap();
    assert_eq!(applied(), 1, "it only says so");
    bad(acknowledge("two", seq + 1_000), "applied_seq");
    // The heartbeat tells that nothing came since.
    next_seen(&w, &mut claims);
    ok(acknowledge("two", seq));
    assert_eq!(applied(), 0);
    drop(follow_having_seen(&w, &server, "three", Some(seq), Some(seen)).unwrap());
    assert_eq!(applied(), 0, "it has seen this ledger at that seq");
    assert_eq!(w.authority().followers.beyond().len(), 1, "it acknowledged what this ledger does not have");
}

#[test]
fn a_follower_that_lags_gets_an_error_and_not_a_gap() {
    let w = world();
    let mut slow = follow(&w, &ROOT, "slow", None).unwrap();
    w.run(async {
        for n in 0..limits::FEED_LAG + 200 {
            let revoked = request(&[Target::Tool(format!("t{n}").into())]);
            service(&w).revoke(ask(&ROOT, revoked)).await.unwrap();
        }
    });
    let end = loop {
        match w.run(slow.next()).expect("an error, not an end") {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), tonic::Code::ResourceExhausted, "{end:?}");
    assert!(end.get_details_retry_info().is_some() && end.message().contains("snapshot"), "{end:?}");
}

#[test]
fn waiting_names_who_has_not_applied_it() {
    let w = world();
    let server = w.workload("/service/echo");
    let mut feed = follow(&w, &server, "one", None).unwrap();
    next(&w, &mut feed).unwrap();
    let seq = revoke(&w, &[Target::Tool("a".into())]).seq;
    assert_eq!(next(&w, &mut feed).unwrap().seq, seq);
    let wait = pb::WaitForRevocationRequest { seq, timeout: None };
    let behind = ok(w.run(service(&w).wait_for_revocation(ask(&ROOT, wait))));
    assert_eq!((behind.applied, behind.behind_count, behind.behind[0].follower.as_str()), (false, 1, "one"));
    assert_eq!(behind.followers, Some(1));
    let told = ok(w.run(service(&w).wait_for_revocation(ask(&w.workload("/agent/a"), wait))));
    assert_eq!((told.behind_count, told.behind.len()), (1, 0), "who follows is nothing that workloads know");
    let applied = |n| pb::AcknowledgeRevocationsRequest { follower: "one".into(), applied_seq: n };
    bad(w.run(service(&w).acknowledge_revocations(ask(&server, applied(seq + 1000)))), "applied_seq");
    refused(w.run(service(&w).acknowledge_revocations(ask(&w.workload("/mcp/echo"), applied(seq)))), Reason::NotFound);
    ok(w.run(service(&w).acknowledge_revocations(ask(&server, applied(seq)))));
    assert!(ok(w.run(service(&w).wait_for_revocation(ask(&ROOT, wait)))).applied);
    let beyond = pb::WaitForRevocationRequest { seq: seq + 1000, timeout: None };
    bad(w.run(service(&w).wait_for_revocation(ask(&ROOT, beyond))), "seq");
}

#[test]
fn after_a_start_nobody_is_said_to_have_applied_it_until_those_of_before_are_back_or_refuse() {
    let followers = Followers::new(30_000, (2, 2));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |now: u64| runtime.block_on(followers.wait(Seq::ZERO, Duration::from_millis(1), move || mayfly::seq::Millis(now)));
    let none = |(behind, known): (Vec<_>, bool)| behind.is_empty() && known;
    assert!(none(ask(1_000)), "a first start");
    followers.began_again(mayfly::seq::Millis(1_000));
    assert!(!none(ask(1_000)) && !none(ask(30_999)));
    assert!(none(ask(31_000)));
}

#[test]
fn followers_are_bounded_and_one_more_is_told_when_to_come_again() {
    let followers = Followers::new(30_000, (2, 2));
    let register =
        |name: &str, now| followers.register(&Author::LocalUid(1), name, Vec::new(), Seq::ZERO, mayfly::seq::Millis(now));
    let first = register("a", 0).unwrap();
    register("b", 0).unwrap();
    let Err(mayfly::refusal::Error::Refusal(no)) = register("c", 0) else { panic!("a third one") };
    assert_eq!((no.reason, no.retry_after), (Reason::LimitReached, Some(Duration::from_secs(30))));
    register("b", 0).unwrap();
    followers.ended(&first, mayfly::seq::Millis(1_000));
    assert!(register("c", 31_000).is_err(), "it stays on the list until it must refuse everything by itself");
    register("c", 31_001).unwrap();
}
