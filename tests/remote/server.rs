//! The server process: this binary, started once more with a world and an upstream in its environment.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;

use mayfly::cli::dev::DevWorld;
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, Event, Record, TargetsRevoked, UpstreamUpdated};
use mayfly::seq::LeaseId;
use mayfly::server::{RunningServer, start_with};
use mayfly::sources::config::Config;
use mayfly::system::System;
use mayfly::upstream::registry::{Kind, Upstream};

use super::kind;
use super::upstream::say;

/// The world's place, the upstream's address, and whether the upstream is told of every step.
pub const ENVIRONMENT: [&str; 3] = ["REMOTE_TEST_WORLD", "REMOTE_TEST_UPSTREAM", "REMOTE_TEST_TELLS"];

/// Not a test of its own: started without a world, it says so and returns.
#[test]
fn serve() {
    let of = |name: &str| std::env::var(name).ok();
    let [Some(world), Some(upstream), Some(tells)] = ENVIRONMENT.map(of) else {
        println!("skipped: this is the server of the other tests, which start it as a process of its own");
        return;
    };
    // The server ends with its parent process, however the parent ends.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let (dir, address, tells) = (Path::new(&world), upstream.parse::<SocketAddr>().unwrap(), tells == "1");
    let config = Config::load(&dir.join("mayfly.toml"), []).unwrap();
    let running = start_with(&config, &System::real(), kind::connectors(address, tells)).unwrap_or_else(|no| panic!("{no}"));
    register(&running);
    if tells {
        tell(&running, address);
    }
    let ready = DevWorld::ready_file(dir);
    let aside = ready.with_extension("new");
    std::fs::write(&aside, serde_json::to_string(running.addresses()).unwrap()).unwrap();
    std::fs::rename(aside, ready).unwrap();
    loop {
        std::thread::park();
    }
}

/// Registers the echo upstream with both kinds. No file could do that, because the shipped program does not serve them.
fn register(running: &RunningServer) {
    let ledger = &running.authority().ledger;
    let text = ledger.peek(|s| s.upstreams.get("echo").filter(|v| v.version == 1).map(|v| v.text.to_string()));
    let Some(text) = text else { return };
    let record = with_both(&text);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(ledger.commit(ProposalKind::Change, vec![record])).unwrap();
}

/// The registration, with both kinds.
pub fn with_both(text: &str) -> Record {
    let mut upstream = Upstream::from_text(text).unwrap();
    upstream.kinds.extend([Kind::Postgres, Kind::Oauth]);
    let (digest, text) = (upstream.digest().to_vec(), upstream.to_text());
    let set = UpstreamUpdated { name: upstream.name, version: 2, digest, text, ..UpstreamUpdated::default() };
    Record::new(Author::Mayfly("test".into()), Event::UpstreamSet(set))
}

/// Reports what has become durable, before any waiting caller is answered.
fn tell(running: &RunningServer, address: SocketAddr) {
    running.authority().ledger.observe(move |batch| {
        for committed in &batch.records {
            let record = committed.whole().expect("what was written can be read");
            let by_itself = matches!(record.author.as_ref().and_then(|a| a.who.as_ref()), Some(Author::Mayfly(_)));
            let (word, id) = match &record.event {
                Some(Event::LeaseOpened(e)) => ("OPENED", &e.lease),
                Some(Event::Issued(e)) if !e.lease.is_empty() => ("ISSUED", &e.lease),
                Some(Event::LeaseClosed(e)) => ("CLOSED", &e.lease),
                Some(Event::Revoked(TargetsRevoked { issued_only: true, .. })) if by_itself => ("BARRED", &Vec::new()),
                _ => continue,
            };
            let name = LeaseId::from_slice(id).map_or_else(|| "-".to_owned(), |id| id.to_string());
            let _ = say(address, &format!("{word} {name}"));
        }
    });
}
