//! Kind `oauth` with a person's refresh token, against oidc-provider, which rotates refresh tokens and ends a grant whose used token comes back.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use mayfly::pb::mayfly::v1 as pb;

use super::authorization_server::AuthorizationServer;
use super::gate::{PATIENCE, Watch};
use super::oauth::{token, wanted, world};
use super::rig::{Rig, exchange};

/// Exchanges in a round: as many processes ask at once.
const AT_ONCE: usize = 50;

fn section(server: &AuthorizationServer, more: &str) -> String {
    let issuer = &server.issuer;
    format!(
        "issuer = \"{issuer}\"\ngrant = \"refresh_token\"\nclient_id = \"app\"\nclient_auth = \"client_secret_basic\"\nlifetime = \"10m\"\nirrevocable = true\n\
         resource = \"{issuer}/api\"\nsign_in_scopes = [\"offline_access\"]\nalso_granted = [\"offline_access\"]\n{more}"
    )
}

const SECRET: &str = "client_secret = 'app-marker-2b88'";

/// `mayfly upstream connect`, and somebody who signs in where it says.
fn connect(rig: &Rig, server: &AuthorizationServer, upstream: &str, how: &[&str]) {
    let mut command = rig.operator_command();
    command.args(["upstream", "connect", upstream, "--no-browser"]).args(how);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if line.starts_with(&server.issuer) {
            let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/node/provider.mjs");
            let mut browser = Command::new("node");
            browser.arg(node).args(["sign-in", &line, "ada"]).env("NODE_EXTRA_CA_CERTS", server.file("ca.pem"));
            let browsed = browser.stdin(Stdio::null()).output().unwrap();
            told += &String::from_utf8_lossy(&browsed.stderr);
        }
        told += &line;
        told.push('\n');
    }
    assert!(child.wait().unwrap().success(), "{told}");
}

fn state(rig: &Rig, upstream: &str) -> String {
    let told: serde_json::Value = serde_json::from_str(&rig.operated(&["-o", "json", "upstream", "show", upstream])).unwrap();
    told["connection"]["state"].as_str().unwrap_or_default().to_owned()
}

fn connected(name: &str, more: &str) -> Option<(AuthorizationServer, Rig, String)> {
    let server = AuthorizationServer::start(600)?;
    let (rig, task) = world(&server, name, &section(&server, more), SECRET);
    connect(&rig, &server, name, &[]);
    Some((server, rig, task))
}

#[test]
fn fifty_at_once_lose_no_grant_whatever_passes_goes_wrong() {
    let Some((server, rig, task)) = connected("crowd", "") else { return };
    let rounds = if std::env::var_os("MAYFLY_LONG").is_some() { 60 } else { 3 };
    let (mut given, mut refused) = (0, 0);
    for round in 0..rounds {
        server.trouble(["503", "reset", "garbage", "slow_down"][round % 4], 7);
        let asked: Vec<_> = (0..AT_ONCE)
            .map(|n| {
                let agent = rig.runtime.block_on(rig.agent());
                rig.runtime.spawn(exchange(agent, wanted("crowd", &task, "mail:read", &format!("{round}/{n}"))))
            })
            .collect();
        for one in asked {
            match rig.runtime.block_on(one).unwrap() {
                Ok(issued) => {
                    given += 1;
                    assert!(!token(&issued).is_empty());
                }
                Err(_) => refused += 1,
            }
        }
        server.trouble("", 0);
        assert_eq!(state(&rig, "crowd"), "connected", "round {round}");
        assert_eq!(server.refresh_tokens("app"), 1, "round {round}: one token, and it is the newest");
    }
    println!("{given} tokens by refreshes one after the other, {refused} refused while the server was in trouble");
    assert!(given >= rounds * AT_ONCE / 2, "{given} of {}", rounds * AT_ONCE);
    let log = server.ask("log");
    let refreshes: Vec<_> = log.as_array().unwrap().iter().filter(|one| one["grant_type"] == "refresh_token").collect();
    assert!(refreshes.len() >= given);
    for one in &refreshes {
        assert_eq!((&one["scope"], &one["resource"]), (&"api:read".into(), &format!("{}/api", server.issuer).into()), "{one}");
        assert_eq!(one["status"], 200, "no used token was sent: {one}");
    }
    // Revoking an access token would end the grant at this server. Each token is listed until it ends by itself.
    rig.complete(&task);
    let listed = rig.leases("crowd", pb::UpstreamState::Unspecified).len();
    assert!(listed >= given, "{listed} of {given}");
    assert_eq!(server.refresh_tokens("app"), 1);
    // And it is still the same grant.
    let task = rig.open_for("crowd", &["mail:read"]);
    rig.exchange(wanted("crowd", &task, "mail:read", "after all")).unwrap();
}

#[test]
fn only_the_servers_word_ends_a_grant_and_somebody_signs_in_again_by_a_device() {
    let Some((server, rig, task)) = connected("ended", "") else { return };
    for how in ["503", "reset", "garbage", "slow_down"] {
        server.trouble(how, 1);
        rig.exchange(wanted("ended", &task, "mail:read", how)).unwrap_err();
        assert_eq!(state(&rig, "ended"), "connected", "{how}");
    }
    rig.exchange(wanted("ended", &task, "mail:read", "well")).unwrap();
    server.ask("end");
    let no = rig.exchange(wanted("ended", &task, "mail:read", "over")).unwrap_err();
    assert!(no.message().contains("mayfly upstream connect ended"), "{no}");
    assert_eq!(state(&rig, "ended"), "sign_in_again");
    let status = rig.operated(&["-o", "json", "status"]);
    assert!(status.contains("mayfly upstream connect ended"), "{status}");
    connect(&rig, &server, "ended", &["--device"]);
    assert_eq!(state(&rig, "ended"), "connected");
    rig.exchange(wanted("ended", &task, "mail:read", "again")).unwrap();
}

#[test]
fn a_disconnect_wins_over_a_refresh_under_way() {
    let Some((server, rig, task)) = connected("left", "") else { return };
    server.ask("hold?path=/token&when=after");
    let agent = rig.runtime.block_on(rig.agent());
    let asked = rig.runtime.spawn(exchange(agent, wanted("left", &task, "mail:read", "late")));
    server.ask("held");
    // The server has issued the next refresh token, and nobody has it yet.
    let disconnecting = Mutex::new(None);
    std::thread::scope(|scope| {
        scope.spawn(|| *disconnecting.lock().unwrap() = Some(rig.operated(&["upstream", "disconnect", "left"])));
        let began = Watch::start();
        while state(&rig, "left") != "ending" {
            assert!(began.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(20));
        }
        server.ask("release");
    });
    assert!(rig.runtime.block_on(asked).unwrap().is_err(), "nothing is answered after a disconnect");
    assert_eq!(server.refresh_tokens("app"), 0, "the newest token is the one that is revoked");
    assert_eq!(state(&rig, "left"), "none");
    rig.complete(&task);
}

#[test]
fn killed_while_it_refreshes() {
    let Some((server, mut rig, task)) = connected("killed", "") else { return };
    let killed_at = |rig: &mut Rig, when: &str, how: &str| {
        server.ask(&format!("hold?path=/token&when={when}"));
        let agent = rig.runtime.block_on(rig.agent());
        let asked = rig.runtime.spawn(exchange(agent, wanted("killed", &task, "mail:read", &format!("{when} {how}"))));
        server.ask("held");
        rig.kill();
        server.ask(&format!("release?how={how}"));
        assert!(rig.runtime.block_on(asked).unwrap().is_err());
        rig.start();
    };
    // The request never arrived: the old token is tried again, once nobody can be refreshing any more.
    killed_at(&mut rig, "before", "drop");
    let began = Watch::start();
    let again = loop {
        match rig.exchange(wanted("killed", &task, "mail:read", "again")) {
            Ok(issued) => break issued,
            Err(no) => assert!(began.elapsed() < Duration::from_secs(90), "{no}"),
        }
    };
    println!("a grant whose refresher was killed works again after {} ms", began.elapsed().as_millis());
    assert_eq!(server.api(&token(&again)).0, 200);
    assert_eq!(state(&rig, "killed"), "connected");
    // The next token was issued, and its answer is lost: the server takes the old one for stolen, and says so.
    killed_at(&mut rig, "after", "");
    let began = Watch::start();
    while state(&rig, "killed") == "connected" {
        let _ = rig.exchange(wanted("killed", &task, "mail:read", "lost"));
        assert!(began.elapsed() < Duration::from_secs(90));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(state(&rig, "killed"), "sign_in_again");
    connect(&rig, &server, "killed", &[]);
    // A server that was just started may ask for another attempt.
    let began = Watch::start();
    while let Err(no) = rig.exchange(wanted("killed", &task, "mail:read", "after all")) {
        assert!(no.code() == tonic::Code::Unavailable && began.elapsed() < PATIENCE, "{no}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn an_idle_grant_is_refreshed_and_no_secret_is_anywhere() {
    let Some((server, rig, task)) = connected("idle", "idle_limit = \"60s\"") else { return };
    let refreshes = || server.ask("log").as_array().unwrap().iter().filter(|one| one["grant_type"] == "refresh_token").count();
    let began = Watch::start();
    while refreshes() == 0 {
        assert!(began.elapsed() < Duration::from_secs(80), "it was not refreshed");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(began.elapsed() > Duration::from_secs(25), "in half of the limit: {:?}", began.elapsed());
    let issued = rig.exchange(wanted("idle", &task, "mail:read", "one")).unwrap();
    let mut secrets: Vec<String> =
        server.ask("secrets").as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()).collect();
    secrets.extend([token(&issued), "app-marker-2b88".to_owned()]);
    assert!(secrets.len() > 3);
    let mut told = String::new();
    for args in [&["upstream", "show", "idle", "-o", "json"][..], &["status", "-o", "json"], &["audit", "search", "-o", "json"]] {
        let done = rig.operate(args);
        told += &String::from_utf8_lossy(&done.stdout);
        told += &String::from_utf8_lossy(&done.stderr);
    }
    std::fs::remove_dir_all(rig.world.dir().join("secrets")).unwrap();
    let mut found = vec![("what was told".to_owned(), told.into_bytes())];
    super::secrets::files(rig.world.dir(), &mut found);
    for (name, bytes) in &found {
        for secret in &secrets {
            let there = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!there, "{name} has a secret that begins with {}", &secret[..4]);
        }
    }
}
