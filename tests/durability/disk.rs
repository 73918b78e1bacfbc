//! The disk of a running server is filled by another process: nothing is issued, and revoking goes on.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld};

use crate::kit::{Callers, MAYFLY, TOKENS, as_operator, mayfly, reason, retry_after, until, way_out, world};
use crate::small_disk::{Filler, on_a_small_disk};

/// More than twice the free space that grants need, so that there is something to fill.
const DISK_MIB: u64 = 192;

#[test]
fn a_server_on_a_full_ext4_issues_nothing_and_revokes_durably() {
    on_a_small_disk("disk::a_server_on_a_full_ext4_issues_nothing_and_revokes_durably", "ext4", DISK_MIB, |disk| {
        story(disk, DevEngine::Redb)
    });
}

#[test]
fn a_server_on_a_full_tmpfs_issues_nothing_and_revokes_durably() {
    on_a_small_disk("disk::a_server_on_a_full_tmpfs_issues_nothing_and_revokes_durably", "tmpfs", DISK_MIB, |disk| {
        story(disk, DevEngine::Redb)
    });
}

#[test]
fn a_server_on_sled_and_a_full_ext4_issues_nothing_and_revokes_durably() {
    let test = "disk::a_server_on_sled_and_a_full_ext4_issues_nothing_and_revokes_durably";
    on_a_small_disk(test, "ext4", DISK_MIB, |disk| story(disk, DevEngine::Sled));
}

#[test]
fn a_log_and_an_export_on_the_disk_of_the_ledger_that_fills_keep_nobody_from_revoking() {
    let test = "disk::a_log_and_an_export_on_the_disk_of_the_ledger_that_fills_keep_nobody_from_revoking";
    on_a_small_disk(test, "ext4", DISK_MIB, log_and_export_beside_the_ledger);
}

/// A server whose log (one line per call) and export are on the same disk as its data.
fn log_and_export_beside_the_ledger(disk: &Path) {
    let quoted = |name: &str| format!("{:?}", disk.join(name).display().to_string());
    let settings = DevSettings::default()
        .with("store.path", &quoted("data"))
        .with("audit.export_file", &quoted("audit.jsonl"))
        .with("log.calls", "true");
    let (_dir, world) = world(settings);
    let ready = DevWorld::ready_file(world.dir());
    let mut child = std::process::Command::new(MAYFLY)
        .args(["server", "run", "--config"])
        .arg(world.config())
        .arg("--ready-file")
        .arg(&ready)
        .stdout(std::process::Stdio::null())
        .stderr(File::create(disk.join("log")).unwrap())
        .spawn()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let filler = &mut Filler(File::create(disk.join("somebody-else")).unwrap());
    let bytes = |name: &str| std::fs::metadata(disk.join(name)).unwrap().len();
    runtime.block_on(async {
        until("it serves", || async { DevWorld::addresses(world.dir()).is_some() }).await;
        let addresses = DevWorld::addresses(world.dir()).unwrap();
        let callers = Callers::new(&world, addresses.workload).await;
        let mut issued = Vec::new();
        for _ in 0..40 {
            issued.push(callers.exchange("").await.unwrap());
        }
        filler.fill();
        callers.until_exchange("the full disk is noticed", Result::is_err).await.unwrap_err();
        for one in &issued[..30] {
            callers.revoke(&one.id).await.unwrap();
            // More lines than fit on a full disk.
            for _ in 0..20 {
                let _ = callers.exchange("").await;
            }
            filler.fill();
        }
        for one in &issued[..30] {
            assert!(!callers.active(&one.token).await);
        }
        let (log, export) = (bytes("log"), bytes("audit.jsonl"));
        std::fs::remove_file(disk.join("somebody-else")).unwrap();
        filler.0.set_len(0).unwrap();
        callers.until_exchange("it issues again by itself", Result::is_ok).await.unwrap();
        callers.revoke(&issued[30].id).await.unwrap();
        until("the log goes on", || async { bytes("log") > log }).await;
        until("the export goes on", || async { bytes("audit.jsonl") > export }).await;
        until("nothing of it is missing", || async {
            let text = std::fs::read_to_string(disk.join("audit.jsonl")).unwrap();
            issued.iter().take(31).all(|one| text.contains(&one.id)) && text.ends_with('\n')
        })
        .await;
        let text = std::fs::read_to_string(disk.join("audit.jsonl")).unwrap();
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "no line is cut");
    });
    let _ = child.kill();
    let _ = child.wait();
}

fn story(disk: &Path, engine: DevEngine) {
    let data = disk.join("data");
    let settings = DevSettings { engine, ..DevSettings::default() }
        .with("store.path", &format!("{:?}", data.display().to_string()))
        .with("ledger.snapshot_every", "16");
    let (_dir, world) = world(settings);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let child = world.spawn(Path::new(MAYFLY)).unwrap_or_else(|no| panic!("{no}"));
    let filler = &mut Filler(File::create(disk.join("somebody-else")).unwrap());
    let (revoked, alive) = runtime.block_on(async {
        let callers = Callers::new(&world, child.addresses().workload).await;
        let mut issued = Vec::new();
        for _ in 0..24 {
            issued.push(callers.exchange("").await.unwrap());
        }
        until("it issues", || callers.serving(TOKENS)).await;

        filler.fill();
        let refused = callers.until_exchange("the full disk is noticed", Result::is_err).await.unwrap_err();
        assert_eq!((refused.code(), &*reason(&refused)), (tonic::Code::ResourceExhausted, "DISK_RESERVE"), "{refused:?}");
        assert_eq!(retry_after(&refused), Some(Duration::from_secs(10)));
        assert!(way_out(&refused).contains("free") && way_out(&refused).contains("revoking still works"), "{refused:?}");
        until("health says that nothing is issued", || async { !callers.serving(TOKENS).await }).await;
        assert!(callers.serving("").await, "the server as a whole takes calls: revoking is one");
        let issuing = callers.status().await.issuing.unwrap();
        assert_eq!((issuing.issuing, &*issuing.reason), (false, "DISK_RESERVE"), "{issuing:?}");

        // By the command line and by calls, while another process takes all space that becomes free; more commits than the snapshot
        // interval.
        let alive = issued.split_off(20);
        let told = as_operator(&world, child.addresses().admin, &["revoke", "--credential", &issued[0].id, "--reason", "test"]);
        assert!(told.status.success(), "{told:?}");
        for one in &issued[1..] {
            callers.revoke(&one.id).await.unwrap();
            filler.fill();
        }
        callers.complete(&alive[0].task).await.unwrap();
        issued.push(alive[0].clone());
        let half = half_written(&data);
        assert!(half.is_empty(), "what is half written takes the room that revocations need: {half:?}");
        (issued, alive[1..].to_vec())
    });
    child.kill();
    filler.fill();

    let child = world.spawn(Path::new(MAYFLY)).unwrap_or_else(|no| panic!("it starts on a full disk: {no}"));
    runtime.block_on(async {
        let callers = Callers::new(&world, child.addresses().workload).await;
        for one in &revoked {
            assert!(!callers.active(&one.token).await, "what was revoked on the full disk is revoked after SIGKILL");
        }
        for one in &alive {
            assert!(callers.active(&one.token).await, "{} was acknowledged", one.id);
        }
        let refused = callers.until_exchange("the disk is still full", Result::is_err).await.unwrap_err();
        assert_eq!(reason(&refused), "DISK_RESERVE");
        callers.revoke(&alive[0].id).await.unwrap();
        assert!(!callers.active(&alive[0].token).await);

        // There is space again: no restart is needed.
        std::fs::remove_file(disk.join("somebody-else")).unwrap();
        filler.0.set_len(0).unwrap();
        let new = callers.until_exchange("it issues again by itself", Result::is_ok).await.unwrap();
        assert!(callers.active(&new.token).await);
        until("health says so", || callers.serving(TOKENS)).await;
        until("the reserve is whole", || async { callers.status().await.disk.unwrap().reserve_bytes >= 8 << 20 }).await;
        // The data derived from the history continues from where the disk was full: the index finds everything, and the tree is complete.
        let admin = child.addresses().admin;
        for one in &revoked {
            let found = as_operator(&world, admin, &["audit", "search", &one.id, "-o", "json"]);
            assert!(found.status.success() && String::from_utf8_lossy(&found.stdout).contains("credential issued"), "{found:?}");
        }
        let verified = as_operator(&world, admin, &["audit", "verify"]);
        assert!(verified.status.success(), "{verified:?}");
        let signed = as_operator(&world, admin, &["audit", "checkpoint"]);
        assert!(signed.status.success(), "{signed:?}");
    });
    child.kill();
    no_first_start(disk, engine, filler);
}

/// Unfinished files of snapshots and of data derived from the history.
fn half_written(data: &Path) -> Vec<std::path::PathBuf> {
    let dirs = ["snapshots", "history", "history/tree", "history/index"];
    let all = dirs.iter().flat_map(|dir| std::fs::read_dir(data.join(dir)).into_iter().flatten()).filter_map(Result::ok);
    all.map(|e| e.path()).filter(|path| path.extension().is_some_and(|e| e == "writing")).collect()
}

/// A new store does not fit: the start says so, and what to check.
fn no_first_start(disk: &Path, engine: DevEngine, filler: &mut Filler) {
    *filler = Filler(File::create(disk.join("somebody-else")).unwrap());
    filler.fill();
    let fresh = disk.join("fresh");
    let (_dir, world) =
        world(DevSettings { engine, ..DevSettings::default() }.with("store.path", &format!("{:?}", fresh.display().to_string())));
    let out = mayfly(&["server", "run"], &world.config());
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left") && said.contains(&format!("df -h {}", fresh.display())), "{said}");
}
