//! Generator and checker of the power-failure test for a restore (tests/power/README.md).
//!
//!   restore_power make WORLD DATA BACKUP      creates a dev world with its store in DATA, fills it, takes a backup, and loses the store
//!   restore_power check WORLD DATA EXPECT     checks what a power failure during `mayfly server restore` left in DATA

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use mayfly::cli::dev::{DevSettings, DevWorld};
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, Event, Maintained, Record};
use mayfly::sources::config::Config;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Number of records in the store, in addition to those of a start.
const NOTES: usize = 200;

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["make", world, data, backup] => make(Path::new(world), data, Path::new(backup)),
        ["check", world, data, expect] => check(Path::new(world), data, Path::new(expect)).inspect_err(|e| println!("ERROR {e}")),
        _ => Err("restore_power make WORLD DATA BACKUP, or check WORLD DATA EXPECT".into()),
    }
}

fn note(n: usize) -> Record {
    // Of many sizes, so that pages and files are filled in many ways.
    Record::new(Author::LocalUid(0), Event::Maintained(Maintained { what: format!("{n} {}", "x".repeat(n * 97 % 9_000)) }))
}

fn make(world: &Path, data: &str, backup: &Path) -> Result<(), Error> {
    let world = DevWorld::create(world, &DevSettings::default().with("store.path", &format!("{data:?}")))?;
    let running = world.start().map_err(|no| no.to_string())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let authority = Arc::clone(running.authority());
    runtime.block_on(async {
        for n in 0..NOTES {
            authority.ledger.commit(ProposalKind::Change, vec![note(n)]).await.map_err(|no| no.to_string())?;
        }
        let mut pieces = authority.backup().await.map_err(|no| no.to_string())?;
        let mut file = fs::File::create(backup)?;
        while let Some(piece) = pieces.piece().map_err(|no| no.to_string())? {
            file.write_all(&piece)?;
        }
        Ok::<_, Error>(())
    })?;
    drop(authority);
    running.stop();
    Ok(fs::remove_dir_all(data)?)
}

/// Either nothing is there, or the complete store: never an incomplete store on which a server would start, and never nothing after the
/// restore reported success.
fn check(world: &Path, data: &str, expect: &Path) -> Result<(), Error> {
    println!("STAGE open");
    let expected = fs::read_to_string(expect)?;
    let done = expected.lines().next().is_some_and(|must| must.contains('1'));
    if !Path::new(data).exists() {
        println!("OPEN ms=0\nREAD lost=[{}] wrong=[] back=[]\nSTAGE done", if done { "1" } else { "" });
        return Ok(());
    }
    // Images are checked concurrently.
    let run = tempfile::tempdir()?;
    let socket = run.path().join("admin.sock").display().to_string();
    let variables = [("MAYFLY_STORE_PATH".to_owned(), data.to_owned()), ("MAYFLY_LISTEN_ADMIN_SOCKET".to_owned(), socket)];
    let config = Config::load(&world.join("mayfly.toml"), variables).map_err(|wrong| format!("{wrong:?}"))?;
    let began = mayfly::system::Stopwatch::start();
    let running = mayfly::server::start(&config, &mayfly::system::System::real()).map_err(|no| no.to_string())?;
    println!("OPEN ms={}", began.us() / 1_000);
    println!("STAGE read");
    let ledger = &running.authority().ledger;
    let mut found = 0;
    let (mut place, end) = ledger.ends();
    while place.position < end.position {
        let steps = ledger.steps(place, 1 << 20).map_err(|no| no.to_string())?.ok_or("the beginning is missing")?;
        for step in steps {
            for at in 0..step.commit.records.len() {
                let record = step.commit.record(at)?;
                found += usize::from(
                    matches!(record.event, Some(Event::Maintained(ref m)) if m.what.contains(" x") || m.what.ends_with(' ')),
                );
            }
            place = mayfly::ledger::reader::log_reader::LogCursor { position: step.position + 1, seq: step.last };
        }
    }
    let whole = found == NOTES && ledger.durable().generation() == 2;
    println!("READ lost=[{}] wrong=[] back=[]", if whole { "" } else { "1" });
    running.stop();
    println!("STAGE done");
    Ok(())
}
