//! An agent that is unreachable, does not know the process, or gives unusable data: at the start, and while a server runs.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use mayfly::cli::dev::DevWorld;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use crate::agent::{Agent, X509Svid, X509SvidResponse, only, svid};
use crate::from_agent::{HOUR, Two, by_agent, servers};
use crate::kit::{Callers, MAYFLY, PATIENCE, as_operator, mayfly, until};

/// A refused start: the exit code and the error text.
fn refused(world: &DevWorld) -> (i32, String) {
    let out = mayfly(&["server", "run"], &world.config());
    (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
}

#[test]
fn a_start_waits_as_long_as_it_was_told_and_then_says_what_mends_it() {
    let two = Two::new();
    let socket = two.dir.path().join("agent.sock");
    by_agent(&two.world, &format!("unix:{}", socket.display()), "start_timeout = \"1s\"\n");
    let (code, said) = refused(&two.world);
    assert_eq!(code, 8, "{said}");
    for part in ["no connection", "waiting for the SPIFFE agent", "ls -l", "mayfly server validate"] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    let agent = Agent::begin(two.dir.path());
    let (code, said) = refused(&two.world);
    assert!(
        code == 4 && said.contains("no identity for this process") && said.contains("spire-server entry create"),
        "{code} {said}"
    );
    // The agent's SVID is of another trust domain, which waiting does not change.
    agent.say(servers(&two.world, HOUR, &[&two.world]));
    let config = fs::read_to_string(two.world.config()).unwrap();
    let elsewhere =
        config.replace("trust_domain = \"dev.mayfly.internal\"", "trust_domain = \"other.example\"").replace("1s", "1m");
    fs::write(two.world.config(), &elsewhere).unwrap();
    let (code, said) = refused(&two.world);
    assert!(code == 1 && said.contains("is not of other.example"), "{code} {said}");
    fs::write(two.world.config(), &config).unwrap();
    // A start accepts none of these SVIDs.
    let other = PrivateKeyDer::from_pem_file(two.world.svid("agent/demo").key).unwrap().secret_der().to_vec();
    type Defect<'a> = &'a dyn Fn(&mut X509Svid);
    let defects: [(&str, Defect<'_>); 4] = [
        ("does not belong", &|svid| svid.x509_svid_key = other.clone().into()),
        ("by its certificate", &|svid| svid.spiffe_id = DevWorld::id("somebody")),
        ("is empty", &|svid| svid.bundle = Default::default()),
        ("cannot be read", &|svid| svid.x509_svid = svid.x509_svid.slice(..40)),
    ];
    for (word, defect) in defects {
        let mut wrong = svid(&two.world, "mayfly", HOUR, &[&two.world]);
        defect(&mut wrong);
        agent.say(only(wrong));
        let (code, said) = refused(&two.world);
        assert!(code == 8 && said.contains(word), "{word}: {code} {said}");
    }
    agent.say(servers(&two.other, HOUR, &[&two.world]));
    let (code, said) = refused(&two.world);
    assert!(code == 8 && said.contains("would be refused by every caller"), "{code} {said}");
    agent.say(X509SvidResponse::default());
    let (code, said) = refused(&two.world);
    assert!(code == 8 && said.contains("it gives no SVID"), "{code} {said}");
}

#[test]
fn a_start_that_waits_goes_on_when_the_agent_comes_and_ends_with_a_signal() {
    let two = Two::new();
    let socket = two.dir.path().join("agent.sock");
    let endpoint = format!("unix:{}", socket.display());
    by_agent(&two.world, "unix:/nowhere", "start_timeout = \"10m\"\n");
    // The agent is named by SPIFFE's standard variable.
    let text = fs::read_to_string(two.world.config()).unwrap().replace("socket = \"unix:/nowhere\"\n", "");
    fs::write(two.world.config(), text).unwrap();
    let ready = two.dir.path().join("ready.json");
    let spawn = || {
        let mut command = Command::new(MAYFLY);
        command.args(["server", "run", "--config"]).arg(two.world.config()).arg("--ready-file").arg(&ready);
        command.env("SPIFFE_ENDPOINT_SOCKET", &endpoint).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut waiting = spawn();
    std::thread::sleep(Duration::from_millis(700));
    assert!(waiting.try_wait().unwrap().is_none());
    let pid = rustix::process::Pid::from_child(&waiting);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(waiting.wait().unwrap().success(), "told to end, it ends in good order");

    let mut waiting = spawn();
    std::thread::sleep(Duration::from_millis(500));
    assert!(!ready.exists());
    let _agent = Agent::giving(two.dir.path(), servers(&two.world, HOUR, &[&two.world]));
    for _ in 0..PATIENCE.as_millis() / 50 {
        if ready.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(ready.exists(), "it serves when the agent is there");
    let pid = rustix::process::Pid::from_child(&waiting);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(waiting.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_later_leaves_what_was_had_and_is_told_by_status_doctor_metric_and_validate() {
    let two = Two::new();
    let mut agent = Agent::giving(two.dir.path(), servers(&two.world, HOUR, &[&two.world]));
    by_agent(&two.world, &agent.endpoint(), "");
    let running = two.start();
    let (workload, admin) = (running.addresses().workload, running.addresses().admin);
    let callers = Callers::new(&two.world, workload).await;
    let failing = || {
        let text = running.authority().metrics().unwrap();
        text.lines().find_map(|l| l.strip_prefix("mayfly_certificate_source_failing ").map(|n| n.starts_with('1'))).unwrap()
    };
    let validate = || {
        let out = mayfly(&["server", "validate"], &two.world.config());
        (out.status.success(), String::from_utf8(out.stdout).unwrap())
    };
    assert!(!failing());
    assert_eq!(validate(), (true, String::new()));

    let other = PrivateKeyDer::from_pem_file(two.world.svid("agent/demo").key).unwrap().secret_der().to_vec();
    let with = |change: &dyn Fn(&mut X509Svid)| {
        let mut svid = svid(&two.world, "mayfly", HOUR, &[&two.world]);
        change(&mut svid);
        only(svid)
    };
    let wrong = [
        ("does not belong", with(&|svid| svid.x509_svid_key = other.clone().into())),
        ("this server is", only(svid(&two.world, "agent/demo", HOUR, &[&two.world]))),
        ("refused by every caller", servers(&two.other, HOUR, &[&two.world])),
        ("gives no SVID", X509SvidResponse::default()),
    ];
    for (word, said) in wrong {
        agent.say(said);
        until(word, || async { callers.status().await.identity.unwrap().problem.contains(word) }).await;
        assert!(failing());
        assert_eq!(callers.status().await.identity.unwrap().renewals, 0);
        callers.exchange("").await.unwrap();
        Callers::new(&two.world, workload).await.exchange("").await.unwrap();
    }
    agent.deny();
    until("denied", || async { callers.status().await.identity.unwrap().problem.contains("no identity for this process") }).await;
    let (good, said) = validate();
    assert!(good && said.contains("warning") && said.contains("a start waits for that"), "{said}");
    agent.die();
    until("away", || async { callers.status().await.identity.unwrap().problem.contains("no connection") }).await;
    let status = callers.status().await;
    assert!(status.identity.unwrap().problem_since.is_some());
    assert!(status.warnings.iter().any(|w| w.contains("is not renewed since") && w.contains("ends at")), "{:?}", status.warnings);
    let out = tokio::task::block_in_place(|| as_operator(&two.world, admin, &["doctor"]));
    assert_eq!(out.status.code(), Some(10), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stdout).contains("is not renewed since"), "{out:?}");
    let (good, said) = validate();
    assert!(good && said.contains("warning") && said.contains("a start waits for it"), "{said}");
    callers.exchange("").await.unwrap();
    // The agent is back with a short-lived SVID: when the SVID expires, every caller refuses it, and the status reports that.
    agent.back();
    agent.say(servers(&two.world, 3_000, &[&two.world]));
    until("it is taken", || async { callers.status().await.identity.unwrap().renewals == 1 }).await;
    assert!(!failing());
    until("it has ended", || async { callers.status().await.warnings.iter().any(|w| w.contains("ended at")) }).await;
    // Within the second: certificates expire at whole seconds.
    until("callers refuse it", || async { two.world.channel("agent/demo", workload).await.is_err() }).await;
    let (good, said) = validate();
    assert!(!good && said.contains("refused by every caller"), "{said}");
    agent.say(servers(&two.world, HOUR, &[&two.world]));
    until("it is well again", || async { two.world.channel("agent/demo", workload).await.is_ok() }).await;
    assert!(callers.status().await.warnings.is_empty(), "{:?}", callers.status().await.warnings);
    tokio::task::block_in_place(|| running.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_dns_name_it_is_warned_of_wherever_somebody_looks() {
    let two = Two::new();
    let agent = Agent::giving(two.dir.path(), only(svid(&two.world, "sts", HOUR, &[&two.world])));
    by_agent(&two.world, &agent.endpoint(), "");
    let out = mayfly(&["server", "validate"], &two.world.config());
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && said.contains("has no DNS name") && said.contains("-dns"), "{said}");
    let running = two.start();
    let operator = mayfly::serve::client::unix(&two.world.dir().join("run/admin.sock")).await.unwrap();
    let callers = Callers { agent: operator.clone(), operator };
    let status = callers.status().await;
    assert!(status.warnings.iter().any(|w| w.contains("no DNS name")), "{:?}", status.warnings);
    assert!(status.identity.unwrap().dns_names.is_empty());
    let healthy = mayfly(&["server", "healthcheck"], &two.world.config());
    assert!(!healthy.status.success(), "port 0 is not to be asked: {healthy:?}");
    tokio::task::block_in_place(|| running.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_away_and_back_are_told_of_in_the_same_way() {
    let two = Two::new();
    let running = two.start();
    let callers = Callers::new(&two.world, running.addresses().workload).await;
    let identity = || async { callers.status().await.identity.unwrap() };
    assert_eq!((identity().await.source.as_str(), identity().await.problem.as_str()), ("file", ""));
    let (path, aside) = (two.world.svid("mayfly").certificate, two.dir.path().join("aside"));
    fs::rename(&path, &aside).unwrap();
    until("it is told", || async { identity().await.problem.contains("cannot be read") }).await;
    callers.exchange("").await.unwrap();
    // The same SVID as before: nothing is renewed, and there is no problem.
    fs::rename(&aside, &path).unwrap();
    until("it is over", || async { identity().await.problem.is_empty() }).await;
    assert_eq!(identity().await.renewals, 0);
    two.world.issue("mayfly", 2 * HOUR).unwrap();
    until("another one is shown", || async { identity().await.renewals == 1 }).await;
    tokio::task::block_in_place(|| running.stop());
}
