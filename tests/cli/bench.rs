//! `mayfly bench`: each scenario runs briefly and prints its report. The figures are not checked.

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command.arg("bench").args(args);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
        command.env_remove(name);
    }
    command
}

fn mayfly(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// The JSON objects that a run printed, one per line.
#[track_caller]
fn bench(args: &[&str]) -> Vec<Value> {
    let out = mayfly(&[args, &["--json"]].concat());
    let (told, words) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8_lossy(&out.stderr).into_owned());
    assert!(out.status.success(), "{args:?}: {words}");
    told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn above_zero(told: &Value, fields: &[&str]) {
    for field in fields {
        assert!(told[*field].as_f64().is_some_and(|n| n > 0.0), "{field} in {told}");
    }
}

/// A small world, so that its start takes less time than the measurement.
const FEW: [&str; 4] = ["--policies", "8", "--engine", "memory"];

#[test]
fn issuing_tells_what_it_cost_in_every_mode() {
    for mode in ["stream", "unary", "batch"] {
        let all =
            bench(&[&["--mode", mode, "--concurrency", "8", "--connections", "2"][..], &FEW, &["--seconds", "300ms"]].concat());
        let [told] = &all[..] else { panic!("{all:?}") };
        above_zero(told, &["issued", "issued_per_s", "p50_ms", "raw_sign_us", "flush_p50_ms", "rss_before_mb", "fds"]);
        assert_eq!((told["mode"].as_str(), told["errors"].as_u64()), (Some(mode), Some(0)), "{told}");
        // A batch call has a hundred exchanges.
        assert_eq!(told["concurrency"], if mode == "batch" { 200 } else { 8 }, "{told}");
    }
}

#[test]
fn endings_revoke_and_complete() {
    let few =
        ["--concurrency", "8", "--connections", "1", "--per-task", "10", "--seconds", "1s", "--workers", "1", "--policies", "8"];
    let told = bench(&[&few[..], &["--endings", "20"]].concat());
    above_zero(&told[0], &["revoked", "completed", "revoke_p99_ms"]);
    assert_eq!((told[0]["errors"].as_u64(), told[0]["workers"].as_u64()), (Some(0), Some(1)), "{}", told[0]);
}

#[test]
fn uncached_asks_cedar_for_each_and_tells_what_that_costs() {
    let few = ["--concurrency", "2", "--connections", "1", "--policies", "20", "--seconds", "500ms", "--engine", "memory"];
    let told = bench(&[&few[..], &["--uncached"]].concat());
    above_zero(&told[0], &["cedar_us", "issued"]);
    assert_eq!((told[0]["cache_hit_rate"].as_f64(), told[0]["policies"].as_u64()), (Some(0.0), Some(20)));
}

#[test]
fn the_table_has_every_row_with_its_target() {
    let rows = bench(&["--table", "--seconds", "100ms", "--engine", "memory"]);
    let names: Vec<&str> = rows.iter().filter_map(|r| r["row"].as_str()).collect();
    assert_eq!(names.len(), 9, "{names:?}");
    assert!(rows.iter().all(|r| r["value"].is_number() && r["of"].is_string()));
    let in_flight: Vec<u64> = rows.iter().filter_map(|r| r["concurrency"].as_u64()).collect();
    assert_eq!(in_flight, [512, 800, 256, 1, 512, 512, 512, 512, 512]);
    assert_eq!(rows.iter().filter(|r| r["target"].is_number() && r["met"].is_boolean()).count(), 8);
}

#[test]
fn overload_tells_goodput_refusals_revocations_and_health() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        crate::kit::skipped::skipped("the server and the generator of a benchmark need a core each");
        return;
    }
    let all = bench(&["overload", "--seconds", "1s", "--policies", "8", "--mode", "stream"]);
    above_zero(&all[0], &["peak_per_s", "goodput", "health_asked", "revoke_p99_ms", "flush_p99_ms"]);
}

#[test]
fn idle_connections_are_held_and_weighed() {
    let all = bench(&["idle", "--connections", "40", "--seconds", "200ms", "--engine", "memory"]);
    above_zero(&all[0], &["connections", "rss_after_mb"]);
    assert_eq!(all[0]["connections"].as_u64(), Some(40));
}

#[test]
fn a_storm_shakes_hands_while_others_issue() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        crate::kit::skipped::skipped("the server and the generator of a benchmark need a core each");
        return;
    }
    let all = bench(&["storm", "--rate", "20", "--issuing", "50", "--seconds", "2s", "--engine", "memory"]);
    above_zero(&all[0], &["handshakes", "issuing_per_s_without", "issuing_per_s_with"]);
}

#[test]
fn a_soak_draws_a_line_through_each_thing() {
    let all = bench(&["soak", "--minutes", "0.05", "--every", "300ms", "--ttl", "2s", "--keep", "1GiB"]);
    let slopes = all[0]["slopes"].as_array().unwrap();
    assert_eq!((slopes.len(), all[0]["keep"].as_str()), (5, Some("1GiB")));
    assert!(slopes.iter().all(|s| s["mean"].is_number() && s["per_hour"].is_number() && s["flat"].is_boolean()));
    let samples = all[0]["samples"].as_array().unwrap();
    assert!(
        samples.iter().all(|s| s["stood_still"].is_object() == all[0]["beneath"].is_object()),
        "looked at all along, or not at all"
    );
    let longest = &all[0]["longest"];
    assert!(longest["folded_at_ms"].as_f64().unwrap() > 1.7e12, "{longest}");
}

#[test]
fn live_credentials_are_there_after_a_kill() {
    let all = bench(&["live", "--credentials", "3000"]);
    // So few credentials may all be issued during the warm-up, and there are no stalls to report then.
    above_zero(&all[0], &["bytes_per_credential_above_idle", "start_after_kill_s"]);
    let count = |field: &str| all[0][field].as_u64().unwrap();
    assert!(count("credentials") >= 3000 && count("live_after_start") >= count("credentials"), "{}", all[0]);
}

#[test]
fn one_that_is_told_to_end_leaves_neither_server_nor_files() {
    for signal in [Signal::TERM, Signal::INT] {
        let top = tempfile::tempdir().unwrap();
        let mut bench = command(&["--seconds", "10m", "--connections", "1", "--concurrency", "4", "--policies", "8"]);
        let mut bench = bench.env("TMPDIR", top.path()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let server = (0..2400).find_map(|_| {
            std::thread::sleep(Duration::from_millis(50));
            let world = std::fs::read_dir(top.path()).unwrap().next()?.unwrap().path();
            let ready: Value = serde_json::from_slice(&std::fs::read(world.join("ready.json")).ok()?).ok()?;
            Some(ready["pid"].as_u64().unwrap())
        });
        let server = server.expect("its server started");
        kill_process(Pid::from_child(&bench), signal).unwrap();
        let status = bench.wait().unwrap();
        let mut words = String::new();
        bench.stderr.take().unwrap().read_to_string(&mut words).unwrap();
        assert_eq!(status.code(), Some(1), "{words}");
        assert!(words.contains("it was told to end"), "{words}");
        assert!(!std::path::Path::new(&format!("/proc/{server}")).exists(), "its server is still there");
        assert_eq!(std::fs::read_dir(top.path()).unwrap().count(), 0, "its files are still there");
    }
}

#[test]
fn what_makes_no_sense_is_a_mistake_in_usage() {
    for args in [
        &["--endings", "101"][..],
        &["--table", "--mode", "unary"],
        &["--mode", "unary", "overload"],
        &["overload", "--times", "0"],
        &["soak", "--ttl", "soon"],
        &["idle", "--connections", "0"],
        &["--policies", "1"],
    ] {
        assert_eq!(mayfly(args).status.code(), Some(2), "{args:?}");
    }
}
