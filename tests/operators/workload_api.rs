//! `mayfly svid fetch` with a test double of SPIRE's agent: a server uses the fetched files, and no call fails during a rotation.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use mayfly::cli::dev::{DevSettings, DevWorld};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use crate::agent::{Agent, X509Svid, only, svid};
use crate::kit::{Callers, MAYFLY, until, world};

async fn fetch(socket: &Path, to: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(MAYFLY);
    command.args(["svid", "fetch", "--socket", &format!("unix://{}", socket.display()), "--to"]).arg(to).args(more);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_agent_gives_is_written_whole_and_private_and_what_is_no_svid_is_not() {
    let (dir, world) = world(DevSettings::default());
    let (socket, to) = (dir.path().join("agent.sock"), dir.path().join("svid"));
    let none = fetch(&socket, &to, &[]).await;
    assert_eq!(none.status.code(), Some(8), "nobody there: {none:?}");
    let agent = Agent::begin(dir.path());
    let none = fetch(&socket, &to, &[]).await;
    assert!(!none.status.success() && String::from_utf8_lossy(&none.stderr).contains("no identity issued"), "{none:?}");
    let good = only(svid(&world, "mayfly", 3_600_000, &[&world]));
    agent.say(good.clone());
    let out = fetch(&socket, &to, &["-o", "name"]).await;
    assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).trim() == DevWorld::id("mayfly"), "{out:?}");
    for name in ["svid.pem", "key.pem", "bundle.pem"] {
        assert_eq!(fs::metadata(to.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let domain = ["--trust-domain", "dev.mayfly.internal"];
    let mut check = Command::new(MAYFLY);
    check.args(["svid", "check", "--bundle"]).arg(to.join("bundle.pem")).args(domain).arg(to.join("svid.pem"));
    let checked = check.output().unwrap();
    assert!(checked.status.success(), "{checked:?}");

    // An SVID with another key, another name or no bundle: the existing files stay.
    let before = fs::read(to.join("svid.pem")).unwrap();
    let other = PrivateKeyDer::from_pem_file(world.svid("agent/demo").key).unwrap();
    type Defect<'a> = &'a dyn Fn(&mut X509Svid);
    let defects: [Defect<'_>; 4] = [
        &|svid| svid.x509_svid_key = other.secret_der().to_vec().into(),
        &|svid| svid.spiffe_id = DevWorld::id("somebody"),
        &|svid| svid.bundle = Default::default(),
        &|svid| svid.x509_svid = svid.x509_svid.slice(..40),
    ];
    for defect in defects {
        let mut wrong = good.clone();
        defect(&mut wrong.svids[0]);
        agent.say(wrong);
        let out = fetch(&socket, &to, &[]).await;
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        assert_eq!(fs::read(to.join("svid.pem")).unwrap(), before);
    }
    let out = fetch(&socket, &to, &["--id", &DevWorld::id("nobody")]).await;
    assert!(String::from_utf8_lossy(&out.stderr).contains("no such SVID"), "{out:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_takes_what_the_agent_rotates_to_and_no_call_fails_meanwhile() {
    let (dir, world) = world(DevSettings::default());
    let to = world.dir().join("agent");
    let agent = Agent::giving(dir.path(), only(svid(&world, "mayfly", 1_800_000, &[&world])));
    let mut command = Command::new(MAYFLY);
    command.args(["svid", "fetch", "--watch", "--to"]).arg(&to).env("SPIFFE_ENDPOINT_SOCKET", agent.endpoint());
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    until("it is written", || async { to.join("svid.pem").exists() }).await;
    let config = fs::read_to_string(world.config()).unwrap();
    let config = config.replace("svid/mayfly/svid.pem", "agent/svid.pem").replace("svid/mayfly/key.pem", "agent/key.pem");
    let config = config.replace("\"bundle.pem\"", "\"agent/bundle.pem\"");
    assert_eq!(config.matches("agent/").count(), 3, "{config}");
    fs::write(world.config(), config).unwrap();
    let running = tokio::task::block_in_place(|| world.start()).unwrap_or_else(|no| panic!("{no}"));
    let workload = running.addresses().workload;
    let callers = Arc::new(Callers::new(&world, workload).await);
    let ends = callers.status().await.certificate_not_after.unwrap().seconds;
    let calls = tokio::spawn({
        let callers = callers.clone();
        async move {
            for n in 0.. {
                callers.exchange("").await.unwrap_or_else(|no| panic!("call {n}: {no}"));
                if callers.status().await.certificate_not_after.unwrap().seconds > ends + 600 {
                    return n;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            0
        }
    });
    agent.say(only(svid(&world, "mayfly", 3_600_000, &[&world])));
    let calls = tokio::time::timeout(crate::kit::PATIENCE, calls).await.expect("it takes the new one").unwrap();
    assert!(calls > 0);
    // New connections are shown the new certificate.
    Callers::new(&world, workload).await.exchange("").await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    tokio::task::block_in_place(|| running.stop());
}
