//! `mayfly lock lift` of several locks.

use std::sync::{Arc, Mutex};

use mayfly::pb::mayfly::v1 as pb;
use mayfly::refusal::Reason;

use crate::answers::{caller, uid};
use crate::double::Stage;
use crate::refusals::refusal;

/// A server that lifts all locks but two, and keeps the requests.
fn stage() -> (Stage, Arc<Mutex<Vec<pb::LiftLockRequest>>>) {
    let (stage, asked) = (Stage::new(), Arc::new(Mutex::new(Vec::new())));
    let keeps = asked.clone();
    stage.double.on(move |q: pb::LiftLockRequest| {
        let lock = pb::Lock { seq: q.seq, target: caller("spiffe://example.org/ci"), author: uid(0), ..pb::Lock::default() };
        let answer = match q.seq {
            81 => Err(refusal(Reason::NotFound, "there is no lock 81", &[])),
            82 => Err(refusal(Reason::DeniedByPolicy, "you may not lift 82", &[])),
            seq => Ok(pb::LiftLockResponse { seq: seq + 100, lifted: vec![lock], remaining: Vec::new() }),
        };
        keeps.lock().unwrap().push(q);
        answer
    });
    (stage, asked)
}

#[test]
fn each_is_lifted_and_reported_and_the_first_failure_is_the_exit_code() {
    let (stage, asked) = stage();
    let ran = stage.run("lock lift 80 81 82 83:2 80 --reason back -o json");
    assert_eq!(ran.exit, 3, "{ran:?}");
    for said in ["lifted at 180", "lifted at 183", "81 was not lifted", "no lock 81", "82 was not lifted", "may not lift 82"] {
        assert!(ran.stderr.contains(said), "{said}: {}", ran.stderr);
    }
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let lifted: Vec<_> =
        json.as_array().unwrap().iter().map(|one| (one["seq"].as_u64(), one["lifted"][0]["seq"].as_u64())).collect();
    assert_eq!(lifted, [(Some(180), Some(80)), (Some(183), Some(83))]);
    let requests = std::mem::take(&mut *asked.lock().unwrap());
    let locks: Vec<_> = requests.iter().map(|q| (q.seq, q.index, q.reason.as_str())).collect();
    assert_eq!(locks, [(80, None, "back"), (81, None, "back"), (82, None, "back"), (83, Some(2), "back")]);
    let mut ids: Vec<_> = requests.iter().map(|q| q.request_id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "a request id belongs to one request");

    let ran = stage.run("lock lift 82 80 81 --reason back -o name");
    assert_eq!((ran.exit, ran.stdout.as_str()), (5, "180\n"), "{ran:?}");
    let table = stage.run("lock lift 80 83 --reason back").ok();
    assert_eq!(table.lines().count(), 3, "{table}");
}

#[test]
fn one_lock_is_answered_as_before_and_a_given_request_id_serves_for_several() {
    let (stage, asked) = stage();
    assert_eq!(stage.run("lock lift 80 --reason back --request-id mine -o json").json()["seq"], 180);
    assert_eq!(stage.run("lock lift 81 --reason back").exit, 3);
    stage.run("lock lift 80 83:2 --reason back --request-id mine").ok();
    let ids: Vec<String> = asked.lock().unwrap().iter().map(|q| q.request_id.clone()).collect();
    assert_eq!((ids[0].as_str(), &ids[2..]), ("mine", &["mine-80".to_owned(), "mine-83:2".to_owned()][..]));
    // A list of `-o name` in quotes, as a shell gives it.
    asked.lock().unwrap().clear();
    assert!(stage.command(&["lock", "lift", "80\n 83:2\n", "--reason", "back"]).status().unwrap().success());
    assert_eq!(asked.lock().unwrap().iter().map(|q| (q.seq, q.index)).collect::<Vec<_>>(), [(80, None), (83, Some(2))]);
    // Lifting no lock succeeds.
    asked.lock().unwrap().clear();
    for none in
        [&["lock", "lift", "--reason", "back", "-o", "json"][..], &["lock", "lift", "", "\n", "--reason", "back", "-o", "json"]]
    {
        let ran = stage.command(none).output().unwrap();
        assert!(ran.status.success() && ran.stdout == b"[]\n", "{ran:?}");
        assert!(String::from_utf8_lossy(&ran.stderr).contains("nothing to lift"), "{ran:?}");
    }
    assert!(asked.lock().unwrap().is_empty());
    for wrong in ["lock lift --index 0 --reason x", "lock lift 80 x --reason x", "lock lift 80 83 --index 0 --reason x"] {
        assert_eq!(stage.run(wrong).exit, 2, "{wrong}");
    }
}
