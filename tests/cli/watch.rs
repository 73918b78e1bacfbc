//! Commands that watch: one JSON line per event.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use mayfly::pb::mayfly::v1 as pb;
use mayfly::refusal::Reason;

use crate::answers::{CREDENTIAL, TASK, at, credential, follower};
use crate::double::Stage;
use crate::refusals::refusal;

#[test]
fn credentials_come_as_lines_and_the_end_says_where_to_go_on() {
    let stage = Stage::new();
    stage.double.on(|q: pb::WatchCredentialsRequest| {
        assert_eq!(q.resume_after, Some(40));
        let event = |seq, change: pb::CredentialChange, credential| pb::WatchCredentialsResponse {
            seq,
            at: at(0),
            change: change.into(),
            credential,
        };
        Ok(vec![
            Ok(event(42, pb::CredentialChange::Issued, Some(credential()))),
            Ok(event(43, pb::CredentialChange::None, None)),
            Err(refusal(Reason::LimitReached, "this one can't keep up", &[])),
        ])
    });
    let ran = stage.run("credential watch --resume-after 40");
    assert_eq!(ran.exit, 8, "{ran:?}");
    assert!(ran.stderr.contains("--resume-after 43"), "{}", ran.stderr);
    let lines: Vec<serde_json::Value> = ran.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 1, "a sign of life is not told: {}", ran.stdout);
    assert_eq!((&lines[0]["change"], &lines[0]["credential"]["credential_id"]), (&"issued".into(), &CREDENTIAL.into()));
}

#[test]
fn a_list_that_is_watched_tells_what_changed_and_what_is_gone() {
    let stage = Stage::new();
    let looks = AtomicU64::new(0);
    stage.double.on(move |_: pb::ListFollowersRequest| {
        let followers = match looks.fetch_add(1, SeqCst) {
            0 => vec![follower("gw-1", 10), follower("gw-2", 10)],
            1 => vec![follower("gw-1", 10), follower("gw-2", 11)],
            _ => vec![follower("gw-2", 11)],
        };
        Ok(pb::ListFollowersResponse { followers, next_page_token: String::new() })
    });
    let mut command = stage.command(&["follower", "list", "--watch", "--every", "10ms"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines: Vec<String> = BufReader::new(child.stdout.take().unwrap()).lines().take(4).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let told: Vec<serde_json::Value> = lines.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    let seen = |at: usize| (told[at]["follower"].as_str().unwrap(), told[at]["applied_seq"].as_u64().unwrap());
    assert_eq!([seen(0), seen(1), seen(2)], [("gw-1", 10), ("gw-2", 10), ("gw-2", 11)]);
    assert_eq!(told[3], serde_json::json!({"gone": "gw-1"}));
}

#[test]
fn heartbeats_go_on_until_the_task_is_over() {
    let stage = Stage::new();
    let beats = AtomicU64::new(0);
    stage.double.on(move |_: pb::HeartbeatTaskRequest| match beats.fetch_add(1, SeqCst) {
        0 => Ok(pb::HeartbeatTaskResponse { heartbeat_due: at(30), state: pb::TaskState::Active.into() }),
        _ => Err(refusal(Reason::TaskNotActive, "the task was completed", &[])),
    });
    let ran = stage.run(&format!("task heartbeat {TASK} --every 1s"));
    assert_eq!(ran.exit, 5, "{ran:?}");
    assert_eq!(ran.stdout.lines().count(), 1);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let stage = Stage::new();
    stage.double.on(|_: pb::ListFollowersRequest| {
        let followers = (0..1000).map(|n| follower(&format!("gw-{n:0>200}"), 1)).collect();
        Ok(pb::ListFollowersResponse { followers, next_page_token: String::new() })
    });
    let mut child = stage.command(&["follower", "list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
