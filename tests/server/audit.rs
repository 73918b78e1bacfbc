//! The audit of a real server, over mTLS and by the real program: searched, exported, checked with the server gone, and the same after a
//! restart.

use std::path::Path;
use std::process::{Command, Output};

use mayfly::cli::dev::DevSettings;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::audit_service_client::AuditServiceClient;
use mayfly::pb::mayfly::v1::server_service_client::ServerServiceClient;
use mayfly::proof::note::{Checkpoint, SignedNote};
use tonic_types::StatusExt as _;

use crate::kit::{MAYFLY, Up, open_task, until};

fn mayfly(context: Option<&Path>, args: &[&str]) -> Output {
    let mut command = Command::new(MAYFLY);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
        command.env_remove(name);
    }
    command.args(args);
    if let Some(context) = context {
        command.args(["--config"]).arg(context);
    }
    command.output().unwrap()
}

#[track_caller]
fn ran(context: Option<&Path>, args: &[&str], code: i32) -> String {
    let out = mayfly(context, args);
    let (said, told) = (String::from_utf8_lossy(&out.stdout).into_owned(), String::from_utf8_lossy(&out.stderr).into_owned());
    assert_eq!(out.status.code(), Some(code), "{args:?}\n{said}\n{told}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_wrote_down_is_found_proven_and_checked_with_the_server_gone() {
    let mut up = Up::on(DevSettings::default());
    for _ in 0..3 {
        open_task(up.channel("agent/demo").await, None).await.unwrap();
    }
    let task = open_task(up.channel("agent/demo").await, None).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let context = up.world.write_context("operator/you", up.admin()).unwrap();
    let context = Some(context.as_path());

    let found = ran(context, &["audit", "search", &task, "-o", "json"], 0);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let seq = found[0]["seq"].as_u64().unwrap().to_string();
    assert_eq!((found.as_array().unwrap().len(), found[0]["event"].as_str()), (1, Some("task opened")));
    assert!(ran(context, &["audit", "show", &seq], 0).contains(&task));
    // Who may not, may not.
    let agent = up.world.write_context("agent/demo", up.admin()).unwrap();
    ran(Some(&agent), &["audit", "search", &task], 5);
    let context = up.world.write_context("operator/you", up.admin()).unwrap();
    let context = Some(context.as_path());

    ran(context, &["audit", "checkpoint", "--out", &at("old"), "--keys-out", &at("keys")], 0);
    open_task(up.channel("agent/demo").await, None).await.unwrap();
    ran(context, &["audit", "checkpoint", "--since", &at("old"), "--key", &at("keys")], 0);
    ran(context, &["audit", "verify"], 0);
    ran(context, &["audit", "export", "--event", "task opened", "--out", &at("tasks"), "--checkpoint", &at("old")], 0);
    ran(context, &["audit", "prove", &seq, "--out", &at("proof")], 0);
    ran(context, &["audit", "prove", "7"], 3);
    let seen = SignedNote::parse(&ran(context, &["audit", "checkpoint"], 0)).unwrap();
    let seen = Checkpoint::parse(&seen.text).unwrap();

    // With the server gone.
    up.running.take().unwrap().stop();
    let whole = ran(None, &["audit", "verify", &at("tasks"), "--key", &at("keys"), "--checkpoint", &at("old"), "-o", "json"], 0);
    let whole: serde_json::Value = serde_json::from_str(&whole).unwrap();
    assert_eq!((whole["verified"].as_bool(), whole["records"].as_u64()), (Some(true), Some(5)));
    ran(None, &["audit", "verify", &at("proof"), "--key", &at("keys")], 0);
    ran(None, &["audit", "verify", &at("proof")], 7);
    let text = std::fs::read_to_string(at("tasks")).unwrap();
    let line = text.lines().position(|l| l.contains("\"record\"") && l.contains(&task)).unwrap();
    let less: String = text.split_inclusive('\n').enumerate().filter(|(n, _)| *n != line).map(|(_, l)| l).collect();
    std::fs::write(at("less"), less).unwrap();
    let broken = ran(None, &["audit", "verify", &at("less"), "--key", &at("keys"), "-o", "json"], 10);
    let broken: serde_json::Value = serde_json::from_str(&broken).unwrap();
    assert_eq!((broken["verified"].as_bool(), broken["seq"].to_string()), (Some(false), seq));
    std::fs::write(at("other"), text.replace(&task, &task.replace("task_", "task-"))).unwrap();
    ran(None, &["audit", "verify", &at("other"), "--key", &at("keys")], 10);

    // After a restart, also without what is derived, it says what it said.
    let data = up.world.dir().join("data");
    for lost in [false, true] {
        if lost {
            std::fs::remove_dir_all(data.join("history")).unwrap();
        }
        let running = up.world.start().unwrap();
        let channel = up.world.channel("operator/you", running.addresses().admin).await.unwrap();
        let request = pb::GetCheckpointRequest { since_size: seen.size };
        let answer = AuditServiceClient::new(channel).get_checkpoint(request).await.unwrap().into_inner();
        let now = Checkpoint::parse(&SignedNote::parse(&answer.checkpoint).unwrap().text).unwrap();
        let proof: Vec<[u8; 32]> = answer.consistency.iter().map(|h| h[..].try_into().unwrap()).collect();
        assert!(now.size > seen.size && now.origin == seen.origin);
        assert!(mayfly::ledger::tree::proof::consistent(seen.size, now.size, &seen.root, &now.root, &proof));
        assert!(data.join("history/tree").is_dir());
        running.stop();
    }
}

/// The seqs of a file's lines, and the file's text.
fn seqs(path: &Path) -> (Vec<u64>, String) {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let seq = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["seq"].as_u64();
    (text.lines().filter_map(seq).collect(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_exported_in_order_and_nothing_is_lost_over_restarts_and_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let mut up = Up::on(DevSettings::default().with("audit.export_file", &format!("\"{}\"", path.display())));
    let first = (1u64 << 45) + 1;
    let mut kept: Vec<u64> = Vec::new();
    for round in 0..3 {
        let task = open_task(up.channel("agent/demo").await, None).await.unwrap();
        let head = up.running().authority().ledger.durable().as_u64();
        until("the newest record is in the file", || seqs(&path).0.last().is_some_and(|seq| *seq >= head)).await;
        assert!(seqs(&path).1.contains(&task) && seqs(&path).1.is_ascii());
        let told = up.running().authority().exported.lock().clone().unwrap();
        assert!(told.problem.is_empty(), "{told:?}");
        if round == 1 {
            // Rotated while it runs: what comes later is in a new file.
            kept.extend(seqs(&path).0);
            std::fs::rename(&path, folder.path().join("old")).unwrap();
        }
        up.running.take().unwrap().stop();
        up.running = Some(up.world.start().unwrap());
    }
    let head = up.running().authority().ledger.durable().as_u64();
    until("all of it is there", || seqs(&path).0.last().is_some_and(|seq| *seq >= head)).await;
    kept.extend(seqs(&path).0);
    assert!(kept.windows(2).all(|w| w[1] <= w[0] + 1), "a hole: {kept:?}");
    // A clean stop notes how far it came.
    assert_eq!((kept[0], kept.len() as u64), (first, head - first + 1), "each once");
    let channel = up.world.channel("operator/you", up.admin()).await.unwrap();
    let status = mayfly::pb::mayfly::v1::server_service_client::ServerServiceClient::new(channel);
    let ledger = status.clone().get_status(pb::GetStatusRequest {}).await.unwrap().into_inner().ledger.unwrap();
    assert!(ledger.exported_seq >= head && ledger.export_problem.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_does_not_go_on_holds_nobody_up_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("not/there/audit.jsonl");
    let up = Up::new(DevSettings::default().with("audit.export_file", &format!("\"{}\"", path.display())));
    let problem = || up.running().authority().exported.lock().clone().unwrap().problem;
    until("it is told", || problem().contains("not/there")).await;
    open_task(up.channel("agent/demo").await, None).await.unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let head = up.running().authority().ledger.durable().as_u64();
    until("it goes on by itself", || seqs(&path).0.last().is_some_and(|seq| *seq >= head)).await;
    until("that is told, too", || problem().is_empty()).await;
    assert_eq!(seqs(&path).0[0], (1 << 45) + 1, "from the beginning");
}

/// The records of an event, oldest first, as (author, body).
async fn records(up: &Up, event: &str) -> Vec<(String, serde_json::Value)> {
    let client = &mut AuditServiceClient::new(up.world.channel("operator/auditor", up.admin()).await.unwrap());
    let filter = Some(pb::RecordFilter { event: event.to_owned(), ..Default::default() });
    let found = client.search_records(pb::SearchRecordsRequest { filter, ..Default::default() }).await.unwrap().into_inner();
    let told = |r: &pb::Record| {
        let author = r.author.as_ref().map(|a| format!("{a:?}")).unwrap_or_default();
        (author, serde_json::from_str(&r.body).unwrap())
    };
    found.records.iter().rev().map(told).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_read_the_audit_and_who_took_a_backup_is_in_the_audit() {
    let up = Up::on(DevSettings::default());
    let task = open_task(up.channel("agent/demo").await, None).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let context = up.world.write_context("operator/you", up.admin()).unwrap();
    let context = Some(context.as_path());

    let found = ran(context, &["audit", "search", &task, "-o", "json"], 0);
    assert!(!found.contains("audit read"), "a question about a task finds what is of the task");
    ran(context, &["explain", &task], 0);
    ran(context, &["audit", "export", "--out", &at("export")], 0);
    let backup = at("backup \u{202e}");
    ran(context, &["server", "backup", "--to", &backup], 0);

    // A name that the command line refuses by itself is refused by the server, too.
    let admin = up.world.channel("operator/you", up.admin()).await.unwrap();
    let refused = ServerServiceClient::new(admin).backup(pb::BackupRequest { to: "new\nline".to_owned() }).await.unwrap_err();
    let wrong = refused.get_error_details().bad_request().unwrap().field_violations[0].clone();
    assert_eq!((refused.code(), wrong.field.as_str()), (tonic::Code::InvalidArgument, "to"), "{refused:?}");
    assert!(wrong.description.contains("control characters"), "{refused:?}");

    // Each read was durable before its answer was sent; the record of an export's end is written a moment after the export.
    let reads = records(&up, "audit read").await;
    let of = |of: &str| {
        let found = reads.iter().filter(|(author, body)| body["of"] == of && author.contains("operator/you"));
        found.map(|(_, body)| body.clone()).collect::<Vec<_>>()
    };
    let search = of("search");
    assert!(search.len() == 1 && search[0]["asked"][0].as_str().unwrap().contains(&task), "{reads:?}");
    assert_eq!((&search[0]["reads"], &search[0]["returned"]), (&1.into(), &1.into()));
    let explain = of("explain");
    assert!(explain.len() == 1 && explain[0]["asked"][0] == format!("task {task}"), "{reads:?}");
    assert!(explain[0]["returned"].as_u64().unwrap() >= 1);
    assert!(of("export").iter().any(|body| body["reads"] == 1), "{reads:?}");
    let over = || async {
        let all = records(&up, "audit read").await;
        all.iter().any(|(_, body)| body["of"] == "export" && body["reads"] == 0 && body["returned"].as_u64().unwrap() > 3)
    };
    for n in 0.. {
        if over().await {
            break;
        }
        assert!(n < 200, "the end of the export is never noted");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (begun, taken) = (records(&up, "backup begun").await, records(&up, "backup taken").await);
    assert_eq!((begun.len(), taken.len()), (1, 1), "{begun:?} {taken:?}");
    for (author, body) in begun.iter().chain(&taken) {
        let to = body["to"].as_str().unwrap();
        assert!(
            author.contains("operator/you") && to.ends_with("backup ") && body["head"].as_u64().unwrap() > 0,
            "{author} {body}"
        );
    }
    // A body omits fields that are false.
    assert!(begun[0].1["whole"] != true && taken[0].1["whole"] == true, "{begun:?} {taken:?}");

    // A repeated question is only counted until its minute is over.
    let before = records(&up, "audit read").await.len();
    for _ in 0..30 {
        records(&up, "audit read").await;
    }
    let after = records(&up, "audit read").await;
    // A new minute may have begun meanwhile, which adds the record of its first question and the record of the counted reads of the minute
    // before.
    assert!(after.len() <= before + 4, "{} of {before}: {after:?}", after.len());
}
