//! The profile of a loaded server, and the table of stages that it is for.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::none;
use super::source::files;

/// What `perf script -F comm,ip,sym --no-inline` writes: innermost frames first.
const SAMPLES: &str = "\
mayfly-workload 
\t    aaaaaaaaaaaa __memmove_avx
\t    aaaaaaaaaaaa ecp_nistz256_ord_sqr_montx
\t    aaaaaaaaaaaa aws_lc_rs::ec::key_pair::EcdsaKeyPair::sign_digest
\t    aaaaaaaaaaaa mayfly_credential::batch::UnsignedCredential::finish

mayfly-workload 
\t    aaaaaaaaaaaa mayfly_policy::fast_decode::own
\t    aaaaaaaaaaaa mayfly_api::grpc::exchange::batch::begin

ledger-writer 
\t    aaaaaaaaaaaa mayfly_ledger::writer::commit_loop::serve

ledger-writer 
\t    aaaaaaaaaaaa iomap_dio_rw
\t    aaaaaaaaaaaa <mayfly_store::wal::WalStore<S> as mayfly_store::Store>::append
\t    aaaaaaaaaaaa mayfly_ledger::writer::commit_loop::serve
";

/// The rows of what the profile says of these samples: a stage, and what it took.
fn rows(samples: &str) -> Vec<(String, f64)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/profile/stages.py");
    let mut child = Command::new("python3")
        .args([script.as_os_str(), "--cpu-us".as_ref(), "20".as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(samples.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    let cells = |line: &str| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        Some((cells.next()?.to_owned(), cells.next()?.parse().ok()?))
    };
    String::from_utf8(out.stdout).unwrap().lines().filter_map(cells).collect()
}

#[test]
fn a_sample_is_of_the_innermost_stage_that_it_has() {
    let rows = rows(SAMPLES);
    for begins in ["signature", "admission", "writer: queue", "writer: the log"] {
        let (_, took) = rows.iter().find(|(stage, _)| stage.starts_with(begins)).unwrap();
        assert!((took - 5.0).abs() < f64::EPSILON, "{begins}: {took} µs, where a fourth of 20 is right");
    }
    assert!((rows.iter().map(|(_, took)| took).sum::<f64>() - 20.0).abs() < 1e-9, "{rows:?}");
}

#[test]
fn the_page_has_each_stage_of_the_profile() {
    let files = files();
    let page = &files.iter().find(|f| f.path == "docs/performance.md").unwrap().text;
    let missing = rows(SAMPLES).into_iter().map(|(stage, _)| stage).filter(|stage| !page.contains(&format!("\n| {stage}")));
    none(missing.collect(), "name the stage as benches/profile/stages.py does, in the table of docs/performance.md");
}
