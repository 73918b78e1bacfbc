//! Periodic work of a running server, and the import at a start.

use std::fs;
use std::time::Duration;

use mayfly::cli::dev::{DevEngine, DevSettings};
use mayfly::ledger::record::TaskOutcome;
use mayfly::seq::TaskId;
use mayfly::server::import;
use mayfly::sources::config::Config;
use mayfly::sources::policy_files;

use crate::kit::{Up, open_task, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_misses_its_heartbeat_is_closed_and_one_without_is_not() {
    let up = Up::new(DevSettings::default());
    let channel = up.channel("agent/demo").await;
    let watched: TaskId = open_task(channel.clone(), Some(5)).await.unwrap().parse().unwrap();
    let free: TaskId = open_task(channel, None).await.unwrap().parse().unwrap();
    let ledger = &up.running().authority().ledger;
    let how = |id: &TaskId| ledger.peek(|s| s.tasks.get(id).and_then(|t| t.closed.clone()));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(how(&watched).is_none());
    until("it is closed", || how(&watched).is_some()).await;
    let closed = how(&watched).unwrap();
    assert_eq!((closed.outcome, &*closed.reason), (TaskOutcome::Expired, "missed its heartbeat"));
    assert!(how(&free).is_none());
}

#[test]
fn the_first_start_takes_in_the_files_and_later_ones_only_compare() {
    let mut up = Up::on(DevSettings::default());
    let versions = |up: &Up| {
        up.running().authority().ledger.peek(|s| {
            let upstreams: Vec<_> = s.upstreams.iter().map(|(name, v)| (name.to_string(), v.version)).collect();
            (s.policies["dev"].version, s.policies["dev"].digest, upstreams, s.keys.len(), s.bundles.len())
        })
    };
    let first = versions(&up);
    // Keys: two of the environment, and the checkpoint key.
    assert_eq!((first.0, first.2.len(), first.3, first.4), (1, 3, 3, 1));
    drop(up.running.take());
    let policy = up.world.dir().join("policy");
    let changed =
        fs::read_to_string(policy.join("policy.cedar")).unwrap() + "\n@id(\"more\")\nforbid (principal, action, resource);\n";
    fs::write(policy.join("policy.cedar"), changed).unwrap();
    fs::remove_file(policy.join("upstreams/repos.toml")).unwrap();
    let tickets = fs::read_to_string(policy.join("upstreams/tickets.toml")).unwrap();
    fs::write(policy.join("upstreams/tickets.toml"), tickets.replace("max = \"1h\"", "max = \"30m\"")).unwrap();
    up.running = Some(up.world.start().unwrap_or_else(|no| panic!("{no}")));
    assert_eq!(versions(&up), first, "the ledger counts");
    let loaded = policy_files::load(&Config::load(&up.world.config(), []).unwrap().policy).unwrap();
    let found = up.running().authority().ledger.peek(|s| import::differences(s, &loaded, &["dev".to_owned()]));
    assert_eq!(found.len(), 3, "{found:?}");
    // Unreadable files do not prevent the start of a server that has already imported them.
    drop(up.running.take());
    fs::write(policy.join("policy.cedar"), "permit (").unwrap();
    fs::remove_file(up.world.bundle()).unwrap();
    up.running = Some(up.world.start().unwrap_or_else(|no| panic!("{no}")));
    assert_eq!(versions(&up), first);
}

#[test]
fn a_root_that_was_removed_stays_out_after_a_restart_whatever_the_file_says() {
    let mut up = Up::on(DevSettings { engine: DevEngine::Redb, ..DevSettings::default() });
    let in_force =
        |up: &Up| up.running().authority().bundles.load().get("dev.mayfly.internal").map_or(0, |b| b.x509_authorities().len());
    assert_eq!(in_force(&up), 1);
    let authority = up.running().authority().clone();
    let root = authority.ledger.peek(|s| s.bundles["dev.mayfly.internal"].anchors[0]);
    let change = mayfly::trust::BundleChangeRequest {
        operator: None,
        domain: mayfly::identity::spiffe_id::TrustDomain::parse("dev.mayfly.internal").unwrap(),
        proposal: mayfly::trust::BundleProposal::RemoveRoot(root),
        author: mayfly::ledger::record::Author::LocalUid(0),
        reason: "test".into(),
        confirm: mayfly::revoke::RevocationConfirmation::All,
        dry_run: false,
        named: None,
    };
    tokio::runtime::Runtime::new().unwrap().block_on(authority.change_bundle(&change)).unwrap();
    drop(authority);
    assert_eq!(in_force(&up), 0);
    drop(up.running.take());
    up.running = Some(up.world.start().unwrap_or_else(|no| panic!("{no}")));
    assert_eq!(in_force(&up), 0);
    std::thread::sleep(Duration::from_millis(2 * mayfly::limits::FILE_POLL_MS));
    assert_eq!(in_force(&up), 0, "nor when the file is looked at again");
}
