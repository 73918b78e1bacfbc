//! `mayfly revoke`: output, confirmation, and the reported progress of a revocation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use mayfly::pb::mayfly::v1 as pb;
use mayfly::refusal::Reason;

use crate::answers::{CREDENTIAL, TASK, caller, credential, follower, hits, target, uid};
use crate::double::Stage;
use crate::refusals::refusal;

const CALLER: &str = "spiffe://example.org/ci";

/// A server whose caller has 12 credentials and that requires a confirmation; as on the real server, up to a tenth more is accepted.
fn stage() -> Stage {
    let stage = Stage::new();
    stage.double.on(|q: pb::RevokeRequest| {
        let agreed = q.confirmation.unwrap_or_default();
        if !q.dry_run && !agreed.all && agreed.credentials * 11 / 10 < 12 {
            return Err(refusal(Reason::ConfirmNeeded, "12 credentials would be revoked", &[]));
        }
        let locks = (!q.issued_only).then(|| pb::Lock { seq: 77, target: caller(CALLER), author: uid(0), ..pb::Lock::default() });
        Ok(pb::RevokeResponse {
            seq: if q.dry_run { 0 } else { 77 },
            targets: q.targets.into_iter().map(|t| pb::TargetHits { target: Some(t), hits: hits(12, 3, 1) }).collect(),
            hits: hits(12, 3, 1),
            locks: locks.into_iter().collect(),
            reach: Some(pb::Reach { refused: 12, upstream_pending: 2, upstream_undone: 1, verified: 4 }),
        })
    });
    stage
}

#[test]
fn a_dry_run_shows_the_numbers_and_the_locks() {
    let ran = stage().run("revoke --caller spiffe://example.org/ci --dry-run");
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert_eq!(
        ran.stdout,
        "TARGET                          CREDENTIALS  TASKS  CALLERS\ncaller spiffe://example.org/ci  12           3      1\n"
    );
    assert!(ran.stderr.contains("dry run, nothing was done: it would hit 12 credentials, 3 tasks, 1 caller"), "{}", ran.stderr);
    assert!(ran.stderr.contains("new grants for --caller spiffe://example.org/ci would be blocked too"), "{}", ran.stderr);
}

#[test]
fn more_than_one_credential_is_confirmed_by_its_number() {
    let stage = stage();
    let ran = stage.run("revoke --caller spiffe://example.org/ci --reason gone");
    assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{ran:?}");
    assert!(ran.stderr.contains("this would hit 12 credentials, 3 tasks, 1 caller; nothing was done"), "{}", ran.stderr);
    assert!(ran.stderr.contains("`--confirm 12`"), "{}", ran.stderr);
    assert_eq!(stage.run("revoke --caller spiffe://example.org/ci --reason gone --confirm 9").exit, 2);
    for enough in ["11", "12", "all"] {
        let ran = stage.run(&format!("revoke --caller spiffe://example.org/ci --reason gone --confirm {enough}"));
        assert_eq!(ran.exit, 0, "{enough}: {ran:?}");
        assert!(
            ran.stderr.contains("revoked at 77: 12 credentials are refused from now on, of 1 caller; no task ends"),
            "{}",
            ran.stderr
        );
        assert!(
            ran.stderr.contains("new grants for --caller spiffe://example.org/ci are blocked too, until `mayfly lock lift 77"),
            "{}",
            ran.stderr
        );
        let states = "refused by mayfly: 12; at upstreams: 1 undone, 2 pending; verified there: 4";
        assert!(ran.stderr.contains(states), "{}", ran.stderr);
    }
}

#[test]
fn everything_is_confirmed_with_all_and_no_number_is_offered() {
    let stage = Stage::new();
    stage.double.on(|q: pb::RevokeRequest| {
        if !q.dry_run && !q.confirmation.unwrap_or_default().all {
            return Err(refusal(Reason::ConfirmNeeded, "this would revoke everything", &[("rule", "everything")]));
        }
        Ok(pb::RevokeResponse { hits: hits(1, 1, 1), ..Default::default() })
    });
    let ran = stage.run("revoke --everything --reason gone");
    assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{ran:?}");
    assert!(ran.stderr.contains("this would hit 1 credential, 1 task, 1 caller; nothing was done"), "{}", ran.stderr);
    assert!(ran.stderr.contains("run it again with `--confirm all`"), "{}", ran.stderr);
    assert_eq!(stage.run("revoke --everything --reason gone --confirm all").exit, 0);
}

#[test]
fn issued_only_says_that_nothing_is_blocked() {
    let ran = stage().run("revoke --caller spiffe://example.org/ci --reason gone --confirm all --issued-only -o json");
    assert!(ran.stderr.contains("new grants are not blocked: --issued-only"), "{}", ran.stderr);
    let json = ran.json();
    assert_eq!(json["seq"], 77);
    assert_eq!(json["locks"], serde_json::json!([]));
    assert_eq!(json["targets"][0]["target"]["flag"], "--caller spiffe://example.org/ci");
    assert_eq!(json["reach"], serde_json::json!({"refused": 12, "upstream_pending": 2, "upstream_undone": 1, "verified": 4}));
}

#[test]
fn without_a_target_or_a_reason_nothing_is_asked() {
    let stage = Stage::new();
    assert_eq!(stage.run("revoke --reason x").exit, 2);
    assert_eq!(stage.run("revoke --everything").exit, 2);
    assert_eq!(stage.run("revoke --everything --dry-run --confirm all").exit, 2);
}

#[test]
fn waiting_names_who_has_not_applied_it() {
    let stage = stage();
    stage.double.on(|q: pb::WaitForRevocationRequest| {
        assert_eq!(q.seq, 77);
        Ok(pb::WaitForRevocationResponse {
            applied: false,
            behind: vec![follower("gw-1", 70)],
            behind_count: 1,
            followers: Some(2),
        })
    });
    let reach = pb::Reach { refused: 12, upstream_undone: 3, ..pb::Reach::default() };
    stage
        .double
        .on(move |_: pb::GetRevocationRequest| Ok(pb::GetRevocationResponse { reach: Some(reach), ..Default::default() }));
    let line = "revoke --caller spiffe://example.org/ci --reason gone --confirm all --wait --timeout 10ms -o json";
    let ran = stage.run(line);
    assert_eq!(ran.exit, 7, "{ran:?}");
    assert!(ran.stderr.contains("not applied yet: gw-1 (spiffe://example.org/gateway), at 70, connected"), "{}", ran.stderr);
    assert!(ran.stderr.contains(r#""kind":"partly","exit_code":7"#), "{}", ran.stderr);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["followers"]["behind"][0]["follower"], "gw-1");
    assert_eq!(json["reach"]["upstream_undone"], 3);

    stage.double.on(|_: pb::WaitForRevocationRequest| Ok(pb::WaitForRevocationResponse { applied: true, ..Default::default() }));
    let ran = stage.run(line);
    assert!(ran.stderr.contains("every follower has applied 77"), "{}", ran.stderr);
    assert_eq!(ran.json()["followers"]["applied"], true);
    // A server of an earlier version does not say how many there are.
    assert_eq!(ran.json()["followers"]["registered"], serde_json::Value::Null);

    let answer = |followers| pb::WaitForRevocationResponse { applied: true, followers: Some(followers), ..Default::default() };
    stage.double.on(move |_: pb::WaitForRevocationRequest| Ok(answer(3)));
    let ran = stage.run(line);
    assert!(ran.stderr.contains("every follower has applied 77"), "{}", ran.stderr);
    assert_eq!(ran.json()["followers"]["registered"], 3);
    stage.double.on(move |_: pb::WaitForRevocationRequest| Ok(answer(0)));
    let ran = stage.run(line);
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.stderr.contains("no follower is registered") && !ran.stderr.contains("every follower"), "{}", ran.stderr);
    assert_eq!((&ran.json()["followers"]["registered"], &ran.json()["followers"]["applied"]), (&0.into(), &true.into()));
}

#[test]
fn a_found_token_comes_from_stdin_and_is_never_repeated() {
    let stage = Stage::new();
    stage.double.on(|q: pb::LookupTokenRequest| {
        assert_eq!(q.by, Some(pb::lookup_token_request::By::Token("s3cr3t".to_owned())));
        let standing = pb::TokenStanding::Issued.into();
        Ok(pb::LookupTokenResponse { standing, credential: Some(credential()), ..Default::default() })
    });
    stage.double.on(|q: pb::RevokeRequest| {
        assert_eq!(q.targets, [target(pb::target::Target::CredentialId(CREDENTIAL.to_owned())).unwrap()]);
        Ok(pb::RevokeResponse { seq: 5, hits: hits(1, 0, 1), ..Default::default() })
    });
    let ran = stage.run_with("revoke --token - --reason found", "s3cr3t\n");
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.stdout.starts_with("seq               5\n"), "without rows the whole is shown: {}", ran.stdout);
    assert!(!format!("{ran:?}").contains("s3cr3t"));
    let ran = stage.run("revoke --token s3cr3t --reason found");
    assert_eq!(ran.exit, 2, "{ran:?}");
    assert!(!format!("{ran:?}").contains("s3cr3t"), "{ran:?}");
    assert_eq!(stage.run("revoke --token - --reason found").exit, 2, "an empty stdin is no token");
}

#[test]
fn a_token_that_nobody_issued_means_a_key_in_other_hands() {
    let stage = Stage::new();
    stage.double.on(|_: pb::LookupTokenRequest| {
        let standing = pb::TokenStanding::Forged.into();
        Ok(pb::LookupTokenResponse { standing, signing_key: "k1".to_owned(), ..Default::default() })
    });
    let ran = stage.run_with("revoke --token - --reason found", "x");
    assert_eq!(ran.exit, 2, "{ran:?}");
    assert!(ran.stderr.contains("mayfly key compromise k1"), "{}", ran.stderr);
}

#[test]
fn a_repeat_by_the_program_itself_keeps_the_request_id() {
    let stage = Stage::new();
    let (calls, ids) = (Arc::new(AtomicU32::new(0)), Arc::new(std::sync::Mutex::new(Vec::new())));
    let (counted, seen) = (calls.clone(), ids.clone());
    stage.double.on(move |q: pb::RevokeRequest| {
        seen.lock().unwrap().push(q.request_id);
        match counted.fetch_add(1, SeqCst) {
            0 => Err(tonic::Status::unavailable("gone for a moment")),
            1 => Err(refusal(Reason::DecidedOnOldState, "the state moved", &[])),
            _ => Ok(pb::RevokeResponse { seq: 5, hits: hits(1, 1, 1), ..Default::default() }),
        }
    });
    assert_eq!(stage.run(&format!("revoke --task {TASK} --reason x")).exit, 0);
    let ids = ids.lock().unwrap();
    assert_eq!(ids.len(), 3);
    assert!(!ids[0].is_empty() && ids.iter().all(|id| *id == ids[0]));
}

#[test]
fn a_lock_never_asks_and_a_lift_says_what_stays() {
    let stage = Stage::new();
    let lock = |seq| pb::Lock { seq, target: caller(CALLER), author: uid(0), reason: "theft".to_owned(), ..pb::Lock::default() };
    stage.double.on(move |q: pb::AddLockRequest| {
        assert_eq!(q.targets, [caller(CALLER).unwrap()]);
        Ok(pb::AddLockResponse { seq: 80, locks: vec![lock(80)], hits: hits(500, 20, 1) })
    });
    let ran = stage.run("lock add --caller spiffe://example.org/ci --reason theft");
    assert!(ran.stderr.contains("locked at 80"), "{}", ran.stderr);
    assert_eq!(
        ran.ok(),
        "SEQ  INDEX  TARGET                          SINCE  AUTHOR  REASON\n80   0      caller spiffe://example.org/ci  -      uid 0   theft\n"
    );
    assert_eq!(stage.run(&format!("lock add --task {TASK} --reason x")).exit, 2, "a task cannot be locked");
    stage.double.on(move |q: pb::LiftLockRequest| {
        assert_eq!((q.seq, q.index), (80, Some(0)));
        Ok(pb::LiftLockResponse { seq: 81, lifted: vec![lock(80)], remaining: vec![lock(77)] })
    });
    let ran = stage.run("lock lift 80 --index 0 --reason back -o name");
    assert!(ran.stderr.contains("still locked: caller spiffe://example.org/ci, by 77: theft"), "{}", ran.stderr);
    assert_eq!(ran.ok(), "81\n");
}
