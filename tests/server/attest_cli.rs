//! `mayfly ci login` in a job, with only what a runner provides.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::attest::Runs;
use crate::people_rig::{DOMAIN, Key};
use crate::provider::answer_json;

/// The command line in a job of the platform `hub`, with only what a runner provides.
fn in_a_run(jobs: &Runs, home: &std::path::Path, args: &[&str]) -> Output {
    let (addresses, world) = (jobs.rig.running().addresses(), jobs.rig.world.dir());
    let context = home.join("config.toml");
    let text = format!(
        "address = \"https://localhost:{}\"\npublic = \"https://localhost:{}\"\nbundle = {:?}\nserver_id = \"{}\"\n",
        addresses.workload.port(),
        addresses.public.port(),
        world.join("bundle.pem"),
        mayfly::cli::dev::DevWorld::id("mayfly"),
    );
    std::fs::write(&context, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command.env_clear().env("PATH", std::env::var("PATH").unwrap()).env("HOME", home).env("MAYFLY_CONFIG", &context);
    command.env("GITHUB_ACTIONS", "true").env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "secret-bearer");
    command.env("ACTIONS_ID_TOKEN_REQUEST_URL", format!("{}/ask?api=1", jobs.hub.issuer));
    command.args(args).output().unwrap()
}

#[test]
fn the_command_line_finds_the_token_of_its_platform_and_keeps_an_svid_for_what_follows() {
    let jobs = Runs::new();
    let ((kid, signer), claims) = (jobs.hub.signer(), jobs.deploy(&Key::new()));
    // The platform signs for any audience that its job asks for.
    jobs.hub.lay("/ask", move |asked| {
        let audience = asked.path.split("audience=").nth(1).unwrap_or_default();
        let audience = audience.replace("%3A", ":").replace("%2F", "/").replace("%23", "#");
        let mut claims = claims.clone();
        (claims["jti"], claims["aud"]) = (audience.clone().into(), audience.into());
        answer_json(&json!({"value": signer.token(&json!({"alg": signer.alg, "kid": kid, "typ": "JWT"}), &claims)}))
    });
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| in_a_run(&jobs, dir.path(), args);
    let mut output = run(&["ci", "login", "-o", "json"]);
    for _ in 0..50 {
        // The platform's keys are fetched in the background of the start.
        if output.status.code() != Some(8) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        output = run(&["ci", "login", "-o", "json"]);
    }
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["spiffe_id"], format!("spiffe://{DOMAIN}/ci/hub/1296269/deploy"));
    for secret in ["secret-bearer", "eyJ", "PRIVATE KEY"] {
        assert!(!words.contains(secret) && !told.to_string().contains(secret), "{secret}");
    }
    let headers = jobs.hub.asked("/ask").remove(0).headers.to_ascii_lowercase();
    assert!(headers.contains("authorization: bearer secret-bearer"), "{headers}");
    let who: Value = serde_json::from_slice(&run(&["whoami", "-o", "json"]).stdout).unwrap();
    assert!(who.to_string().contains("/ci/hub/1296269/deploy"), "{who}");
    let got = run(&["get", "echo", "--scope", "echo:read", "--purpose", "deploy"]);
    assert!(got.status.success() && got.stdout.starts_with(b"eyJ"), "{}", String::from_utf8_lossy(&got.stderr));
    assert!(run(&["logout"]).status.success());
    let after = run(&["get", "echo", "--scope", "echo:read", "--purpose", "deploy"]);
    assert!(!after.status.success() && after.stdout.is_empty());
    // Without the permission the platform gives no token, and the error names the remedy.
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command
        .env_clear()
        .env("HOME", dir.path())
        .env("GITHUB_ACTIONS", "true")
        .env("MAYFLY_CONFIG", dir.path().join("config.toml"));
    let without = command.args(["ci", "login"]).output().unwrap();
    assert_eq!(without.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&without.stderr).contains("id-token: write"));
}
