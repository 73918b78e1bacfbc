//! Credentials for several upstreams in one command: all are issued, or none.

use serde_json::Value;

use super::cluster::{ADMIN_PASSWORD, Cluster, cluster};
use super::rig::{Rig, registration};

fn target(cluster: &Cluster, host: &str) -> String {
    format!("postgres://{host}:{}/orders", cluster.port)
}

/// A server with the upstream `works`, and `lacks`, where mayfly's own role may not hand out what a scope grants.
fn rig(cluster: &Cluster) -> Rig {
    let (works, lacks) = (target(cluster, "127.0.0.1"), target(cluster, "localhost"));
    let lacking = registration("lacks", &lacks, "plaintext = true").replace("\"public.orders\", ", "\"public.secrets\", ");
    let mut rig = Rig::new(&[("works", registration("works", &works, "plaintext = true")), ("lacks", lacking)]);
    rig.secret("works", &works, ADMIN_PASSWORD);
    rig.secret("lacks", &lacks, ADMIN_PASSWORD);
    rig.start();
    rig
}

#[test]
fn credentials_for_several_upstreams_share_a_task_and_come_as_one_array() {
    let Some(cluster) = cluster() else { return };
    let rig = rig(cluster);
    let got =
        rig.demo().args(["get", "works=orders:read", "echo", "lacks=orders:write", "--purpose", "a test"]).output().unwrap();
    let words = String::from_utf8(got.stderr).unwrap();
    let all: Vec<Value> = serde_json::from_slice(&got.stdout).unwrap_or_else(|_| panic!("{words}"));
    let field = |name: &str| all.iter().map(|one| one[name].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(field("upstream"), ["works", "echo", "lacks"]);
    let tasks = field("task_id");
    assert!(
        tasks.iter().all(|task| *task == tasks[0]) && words.contains(&format!("mayfly task complete {}", tasks[0])),
        "{words}"
    );
    assert!(all[0]["database_login"]["password"].is_string() && all[1]["bearer_token"]["token"].is_string());
    rig.complete(tasks[0]);
    assert!(rig.settled(cluster, "works", "completed").is_empty() && rig.settled(cluster, "lacks", "completed").is_empty());
}

#[test]
fn where_one_upstream_refuses_nothing_is_issued_and_nothing_stays() {
    let Some(cluster) = cluster() else { return };
    let rig = rig(cluster);
    let refused = |command: &[&str]| {
        let got = rig.demo().args(command).output().unwrap();
        let words = String::from_utf8(got.stderr).unwrap();
        assert!(got.stdout.is_empty(), "{words}");
        assert_eq!(got.status.code(), Some(6), "{words}");
        assert!(words.contains("lacks") && words.contains("GRANT SELECT ON TABLE public.secrets"), "{words}");
        assert!(!words.contains("exchanges["), "the upstream is named, not its place in the batch: {words}");
        for upstream in ["works", "lacks", "echo"] {
            assert!(rig.settled(cluster, upstream, "refused").is_empty(), "{upstream}");
        }
        let tasks: Vec<Value> =
            serde_json::from_str(&rig.operated(&["-o", "json", "task", "list", "--state", "active"])).unwrap();
        assert!(tasks.is_empty(), "the task was completed: {tasks:?}");
    };
    refused(&["get", "works", "echo", "lacks=orders:read", "--purpose", "a test"]);
    let program = ["exec", "--upstream", "works", "--upstream", "lacks=orders:read", "--upstream", "echo", "--purpose", "a test"];
    refused(&[&program[..], &["--", "true"]].concat());
}

#[test]
fn options_of_a_single_upstream_are_refused_for_several() {
    let Some(cluster) = cluster() else { return };
    let rig = rig(cluster);
    for option in [&["--scope", "orders:read"][..], &["--kind", "postgres"], &["--wait-for-approval", "1s"], &["--header"]] {
        let got = rig.demo().args([&["get", "works", "echo", "--purpose", "a test"], option].concat()).output().unwrap();
        let words = String::from_utf8(got.stderr).unwrap();
        assert!(got.status.code() == Some(2) && words.contains("is for a single upstream"), "{option:?}: {words}");
    }
    let twice = ["get", "works=orders:read", "--scope", "orders:write", "--purpose", "a test"];
    let got = rig.demo().args(twice).output().unwrap();
    assert!(got.status.code() == Some(2) && String::from_utf8_lossy(&got.stderr).contains("named twice"), "{got:?}");
    let many: Vec<String> = (0..9).map(|n| format!("u{n}")).collect();
    let got = rig.demo().arg("get").args(&many).args(["--purpose", "a test"]).output().unwrap();
    assert_eq!(got.status.code(), Some(2), "nine are too many: {got:?}");
}
