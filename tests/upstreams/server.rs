//! The server process: this binary, started once more with a world in its environment. It is the shipped server with shorter times.

use std::io::Read;
use std::path::Path;

use mayfly::cli::dev::DevWorld;
use mayfly::credential::connectors;
use mayfly::server::{connector_settings, start_with};
use mayfly::sources::config::Config;
use mayfly::system::System;
use mayfly::upstream::lease::LeaseTiming;

pub const ENVIRONMENT: &str = "UPSTREAMS_TEST_WORLD";

/// Short times, in the same proportions as the defaults.
const TIMING: LeaseTiming =
    LeaseTiming { make_ms: 5_000, call_ms: 8_000, left_ms: 6_000, retry_min_ms: 50, retry_max_ms: 500, look_ms: 50 };

/// Not a test of its own: started without a world, it says so and returns.
#[test]
fn serve() {
    let Some(world) = std::env::var_os(ENVIRONMENT) else {
        println!("skipped: this is the server of the other tests, which start it as a process of its own");
        return;
    };
    // The server ends with its parent process, however the parent ends.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let (dir, system) = (Path::new(&world), System::real());
    let config = Config::load(&dir.join("mayfly.toml"), []).unwrap();
    let mut settings = connector_settings(&config, connectors::built_in(config.upstream_secrets_dir.clone(), &system));
    settings.timing = TIMING;
    let running = start_with(&config, &system, settings).unwrap_or_else(|no| panic!("{no}"));
    let ready = DevWorld::ready_file(dir);
    let aside = ready.with_extension("new");
    std::fs::write(&aside, serde_json::to_string(running.addresses()).unwrap()).unwrap();
    std::fs::rename(aside, ready).unwrap();
    loop {
        std::thread::park();
    }
}
