//! Log lines of a whole server, as a log collector reads them.

use std::process::{Command, Stdio};

use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld};
use mayfly::pb::mayfly::v1 as pb;

use crate::kit::{MAYFLY, open_task, reason, until, world};
use crate::traces_of_calls::*;

/// A server process that writes its log lines as JSON to a file.
struct Logged {
    child: std::process::Child,
    world: DevWorld,
    dir: tempfile::TempDir,
}

impl Logged {
    async fn new(section: &str) -> Logged {
        let (dir, world) = world(DevSettings { engine: DevEngine::Memory, ..DevSettings::default() });
        let text = std::fs::read_to_string(world.config()).unwrap();
        std::fs::write(world.config(), text + section).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(MAYFLY);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
            command.env_remove(name);
        }
        command.args(["server", "run", "--config"]).arg(world.config());
        command.arg("--ready-file").arg(DevWorld::ready_file(world.dir()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        until("it serves", || DevWorld::addresses(world.dir()).is_some()).await;
        Logged { child, world, dir }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_are_json_with_fields_and_those_of_calls_have_the_ids_of_the_audit() {
    let logged = Logged::new("\n[log]\nformat = \"json\"\ncalls = true\n").await;
    let address = DevWorld::addresses(logged.world.dir()).unwrap().workload;
    let channel = logged.world.channel("agent/demo", address).await.unwrap();
    let task = open_task(channel.clone(), None).await.unwrap();
    let id = "r-1 \"quoted\" \u{202e}";
    let issued = exchange(&channel, ask(&task, id), &[&sampled()]).await.unwrap();
    let beyond = pb::ExchangeRequest { scopes: vec!["echo:write".into()], ..ask(&task, "r-2") };
    let no = exchange(&channel, beyond, &[]).await.unwrap_err();
    assert_eq!(stream(channel, vec![ask(&task, "s-1")], &[]).await, 1);
    let calls = || {
        let all = logged.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>();
        all.into_iter().filter(|line| line["target"] == "mayfly::call").collect::<Vec<_>>()
    };
    until("all are logged", || calls().len() == 4).await;
    let calls = calls();
    let of = |rpc: &str, n: usize| calls.iter().filter(|c| c["rpc"] == format!("/mayfly.v1.{rpc}")).nth(n).unwrap().clone();
    let one = of("TokenService/Exchange", 0);
    assert_eq!((&one["code"], &one["seq"], &one["trace_id"]), (&0.into(), &issued.seq.into(), &TRACE.into()));
    assert_eq!((&one["credential_id"], &one["task_id"]), (&issued.credential_id.as_str().into(), &task.as_str().into()));
    assert_eq!(one["request_id"], id.escape_default().to_string(), "what a caller wrote acts on no terminal");
    assert_eq!((&one["caller"], one["took_us"].is_u64()), (&DevWorld::id("agent/demo").into(), true));
    assert!(one.get("span_id").is_none(), "nothing is told to a collector");
    let two = of("TokenService/Exchange", 1);
    assert_eq!((&two["code"], &two["reason"], two.get("seq")), (&7.into(), &reason(&no).into(), None));
    assert_eq!(of("TaskService/OpenTask", 0)["code"], 0);
    assert_eq!(of("TokenService/StreamExchange", 0)["request_id"], "s-1");
    let Some(pb::issued::Answer::BearerToken(bearer)) = issued.answer else { panic!("no token") };
    let text = logged.text();
    assert!(!text.contains(&bearer.token) && !text.contains("only the audit holds") && !text.contains('\u{202e}'));
    let told: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(told["timestamp"].is_string() && told["level"].is_string() && told["message"].is_string(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_are_text_where_that_is_configured_and_calls_have_none_unless_it_is() {
    let logged = Logged::new("\n[log]\nformat = \"text\"\n").await;
    let address = DevWorld::addresses(logged.world.dir()).unwrap().workload;
    open_task(logged.world.channel("agent/demo", address).await.unwrap(), None).await.unwrap();
    let text = logged.text();
    assert!(text.contains("serving") && !text.starts_with('{') && !text.contains("mayfly::call"), "{text}");
}
