//! Reloading the configuration of a running server: what takes effect, what needs a restart, and that a defective configuration changes
//! nothing.

use std::fs;
use std::time::Duration;

use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld};
use mayfly::server::Reloaded;
use mayfly::sources::config::Config;
use rustix::process::{Pid, Signal, kill_process};

use crate::kit::{MAYFLY, Up, open_task, reason, until, world};
use crate::receiver::{Receiver, hook};
use crate::webhooks::{revoke, standing};

fn changed(world: &DevWorld, from: &str, to: &str) {
    let text = fs::read_to_string(world.config()).unwrap();
    assert!(text.contains(from), "{from} in\n{text}");
    fs::write(world.config(), text.replacen(from, to, 1)).unwrap();
}

fn add(world: &DevWorld, more: &str) {
    let text = fs::read_to_string(world.config()).unwrap();
    fs::write(world.config(), format!("{text}\n{more}\n")).unwrap();
}

fn reload(up: &Up) -> Result<Reloaded, Vec<String>> {
    let next = Config::load(&up.world.config(), []).map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    tokio::task::block_in_place(|| up.running().reload(&next))
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_issuers_rules_and_settings_of_calls_take_effect_and_the_rest_waits_for_a_restart() {
    let up = Up::new(DevSettings::default());
    let channel = up.channel("agent/demo").await;
    open_task(channel.clone(), None).await.unwrap();
    assert_eq!(reload(&up).unwrap(), Reloaded::default(), "nothing is different");

    add(&up.world, "[limits]\ntasks_per_caller = 1\ncredential_ttl = \"5m\"\nfollowers = 3\nconnections = 77\n");
    let took = reload(&up).unwrap();
    let mut taken = took.taken.clone();
    taken.sort();
    assert_eq!(taken, ["limits.credential_ttl", "limits.followers", "limits.tasks_per_caller"]);
    assert_eq!((took.restart, took.failed), (vec!["limits.connections".to_owned()], Vec::new()));
    assert_eq!(reason(&open_task(channel.clone(), None).await.unwrap_err()), "LIMIT_REACHED");
    assert_eq!(up.running().authority().bounds.load().followers, 3);
    // Changes that need a restart are reported at each reload; applied changes are not.
    assert_eq!(reload(&up).unwrap(), Reloaded { restart: vec!["limits.connections".into()], ..Reloaded::default() });
    changed(&up.world, "tasks_per_caller = 1", "tasks_per_caller = 50");
    reload(&up).unwrap();
    open_task(channel, None).await.unwrap();

    assert!(up.running().authority().oidc.all().is_empty());
    let jwks = up.world.dir().join("jwks.json");
    // The key of RFC 7517, appendix A.1.
    let key = serde_json::json!({
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "1",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    });
    fs::write(&jwks, serde_json::json!({ "keys": [key] }).to_string()).unwrap();
    let section = "[[oidc_issuers]]\nname = \"staff\"\nissuer = \"https://id.example\"\nenvironments = [\"dev\"]\nuses = [\"subject\"]\n\
                   scopes_claim = \"scope\"\njwks = \"jwks.json\"\n";
    add(&up.world, section);
    assert_eq!(reload(&up).unwrap().taken, ["oidc_issuers.staff"]);
    assert!(up.running().authority().oidc.find("https://id.example").is_some());
    changed(&up.world, "uses = [\"subject\"]", "uses = [\"login\"]\naudience = \"mayfly\"");
    assert_eq!(reload(&up).unwrap().taken, ["oidc_issuers.staff"]);
    assert_eq!(up.running().authority().oidc.named("staff").unwrap().issuer.audience.as_deref(), Some("mayfly"));
    changed(&up.world, &section.replace("uses = [\"subject\"]", "uses = [\"login\"]\naudience = \"mayfly\""), "");
    reload(&up).unwrap();
    assert!(up.running().authority().oidc.all().is_empty(), "whoever is taken out vouches for nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_wrong_changes_nothing() {
    let up = Up::new(DevSettings::default());
    let good = fs::read_to_string(up.world.config()).unwrap();
    let wrong = [
        ("[limits]\ntasks_per_caller = 1\nspeed = 11", "speed"),
        ("[limits]\ntasks_per_caller = 1\n[log]\nlevel = \"loud=very\"", "log.level"),
        (
            "[limits]\ntasks_per_caller = 1\n[[webhooks]]\nname = \"pager\"\nurl = \"http://127.0.0.1:1/\"\nsecret_file = \"nowhere\"",
            "nowhere",
        ),
        (
            "[limits]\ntasks_per_caller = 1\n[[oidc_issuers]]\nname = \"x\"\nissuer = \"https://id.example\"\nenvironments = [\"mars\"]\n\
             uses = [\"login\"]\naudience = \"m\"",
            "mars",
        ),
    ];
    for (more, named) in wrong {
        add(&up.world, more);
        let problems = reload(&up).unwrap_err().join("\n");
        assert!(problems.contains(named), "{named} in {problems}");
        assert_eq!(up.running().authority().ledger.ceilings().tasks_per_caller, mayfly::limits::TASKS_PER_CALLER, "{more}");
        assert!(up.running().authority().oidc.all().is_empty());
        fs::write(up.world.config(), &good).unwrap();
    }
    assert_eq!(reload(&up).unwrap(), Reloaded::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_and_exports_begin_move_and_end() {
    let up = Up::on(DevSettings::default());
    let admin = up.running().addresses().admin;
    let (one, two) = (Receiver::new(), Receiver::new());
    let before = fs::read_to_string(up.world.config()).unwrap();
    hook(up.world.dir(), "pager", one.address, "events = [\"revoked\"]");
    assert_eq!(reload(&up).unwrap().taken, ["webhooks.pager"]);
    let first = revoke(&up.world, admin, 1).await;
    until("the first comes", || one.got().len() == 1).await;
    changed(&up.world, &one.address.to_string(), &two.address.to_string());
    assert_eq!(reload(&up).unwrap().taken, ["webhooks.pager"]);
    let second = revoke(&up.world, admin, 2).await;
    until("the second comes elsewhere", || two.got().len() == 1).await;
    assert!(first < second && one.got().len() == 1, "none is told twice");
    assert_eq!(standing(&up.world, admin).await.name, "pager");
    fs::write(up.world.config(), &before).unwrap();
    assert_eq!(reload(&up).unwrap().taken, ["webhooks.pager"]);
    revoke(&up.world, admin, 3).await;

    let file = up.world.dir().join("audit.jsonl");
    add(&up.world, &format!("[audit]\nexport_file = {:?}", file.display().to_string()));
    assert_eq!(reload(&up).unwrap().taken, ["audit.export_file"]);
    let lines = |path: &std::path::Path| fs::read_to_string(path).unwrap_or_default().lines().count();
    until("it is exported", || lines(&file) > 5).await;
    let moved = up.world.dir().join("audit-2.jsonl");
    changed(&up.world, "audit.jsonl", "audit-2.jsonl");
    reload(&up).unwrap();
    let seq = revoke(&up.world, admin, 4).await;
    until("it goes on there", || fs::read_to_string(&moved).unwrap_or_default().contains(&format!("\"seq\":{seq}"))).await;
    assert!(!fs::read_to_string(&moved).unwrap().contains("generation begun"), "where it was, not from the beginning");
    fs::write(up.world.config(), &before).unwrap();
    reload(&up).unwrap();
    assert!(up.running().authority().exported.lock().is_none());
    assert_eq!(two.got().len(), 1, "whoever was taken out is told nothing more");
}

/// SIGHUP, as a service manager sends it.
#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_configuration_again_and_the_log_says_what_came_of_it() {
    let (dir, world) = world(DevSettings { engine: DevEngine::Memory, ..DevSettings::default() });
    let log = dir.path().join("log");
    let mut command = std::process::Command::new(MAYFLY);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
        command.env_remove(name);
    }
    command.args(["server", "run", "--config"]).arg(world.config()).arg("--ready-file").arg(DevWorld::ready_file(world.dir()));
    let mut child = command.stderr(fs::File::create(&log).unwrap()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    let said = |what: &str| fs::read_to_string(&log).unwrap().matches(what).count();
    until("it serves", || DevWorld::addresses(world.dir()).is_some()).await;
    kill_process(pid, Signal::HUP).unwrap();
    until("nothing changed", || said("the configuration was reloaded") == 1).await;
    let good = fs::read_to_string(world.config()).unwrap();
    add(&world, "[limits]\ntasks_per_caller = 1\n[log]\nlevel = \"debug\"\n[feed]\nmax_age = \"20s\"");
    kill_process(pid, Signal::HUP).unwrap();
    until("it was taken", || said("limits.tasks_per_caller") == 1).await;
    let text = fs::read_to_string(&log).unwrap();
    let line = text.lines().find(|line| line.contains("limits.tasks_per_caller")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((line["needs_restart"].as_str(), line["level"].as_str()), (Some("feed.max_age"), Some("WARN")), "{line}");
    assert!(line["changed"].as_str().unwrap().contains("log.level"), "{line}");
    let address = DevWorld::addresses(world.dir()).unwrap().workload;
    let channel = world.channel("agent/demo", address).await.unwrap();
    open_task(channel.clone(), None).await.unwrap();
    assert_eq!(reason(&open_task(channel.clone(), None).await.unwrap_err()), "LIMIT_REACHED");
    until("debug lines come", || said("\"DEBUG\"") > 0).await;
    fs::write(world.config(), good + "\n[limits]\ntasks_per_caller = \"many\"\n").unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    until("it was refused", || said("no part of the new configuration was applied") == 1).await;
    assert_eq!(reason(&open_task(channel, None).await.unwrap_err()), "LIMIT_REACHED", "what was in force is in force");
    kill_process(pid, Signal::TERM).unwrap();
    let ended = (0..1000).find_map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        child.try_wait().unwrap()
    });
    let _ = child.kill();
    assert!(ended.is_some_and(|status| status.success()));
}
