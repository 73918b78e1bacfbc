//! Load and checker of the power-failure test for the store alone (tests/power/README.md).
//!
//!   store_power ENGINE write DIR ACKS [COMMITS] [SEED]    appends, puts, removes; acknowledges each operation as it returns
//!   store_power ENGINE check DIR EXPECT                   opens what a power failure left, compares, writes on, opens again
//!
//! ENGINE is redb, redb-files (the same engine with many small files and a small write-ahead log), sled, or sled-bare, which is plain sled
//! and has to fail.

mod bare;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use mayfly::store::options::StoreOptions;
use mayfly::store::redb;
use mayfly::store::sled::SledStore;
use mayfly::store::{Precondition, Store};

type Error = Box<dyn std::error::Error>;

/// In the acknowledgements, numbers from here on are named values, and smaller numbers are commits.
const NAMED: u64 = 1_000_000_000;

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [engine, "write", dir, acks] => write(engine, dir, acks, 600, 1),
        [engine, "write", dir, acks, commits, seed] => write(engine, dir, acks, commits.parse()?, seed.parse()?),
        [engine, "check", dir, expect] => check(engine, Path::new(dir), &std::fs::read_to_string(expect)?),
        _ => Err("store_power ENGINE write DIR ACKS [COMMITS SEED], or ENGINE check DIR EXPECT".into()),
    }
}

fn open(engine: &str, dir: &Path) -> Result<Box<dyn Store>, Error> {
    let options = StoreOptions { reserve_bytes: 1 << 20, low_bytes: 0, ..StoreOptions::new([7; 16]) };
    Ok(match engine {
        "redb-files" => {
            Box::new(redb::open(dir, &StoreOptions { segment_bytes: 400_000, log_file_bytes: 96 * 1024, ..options })?)
        }
        // Each image contains the log's files; small ones also rotate more often.
        "redb" => Box::new(redb::open(dir, &StoreOptions { log_file_bytes: 512 * 1024, ..options })?),
        "sled" => Box::new(SledStore::open(dir, &options)?),
        "sled-bare" => Box::new(bare::Bare::open(dir)?),
        other => return Err(format!("{other} is no engine").into()),
    })
}

/// SplitMix64: derives the bytes of a number.
fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The content under a number: mostly some kilobytes, at times a few hundred.
fn content(n: u64) -> Vec<u8> {
    let most = match mix(n) % 16 {
        _ if n >= NAMED => 4_000,
        0 => 300_000,
        1..4 => 60_000,
        _ => 6_000,
    };
    let len = usize::try_from(mix(n ^ 1) % most).unwrap_or_default();
    let pattern: Vec<u8> = (0..127).flat_map(|i| mix(n.wrapping_mul(127).wrapping_add(i)).to_be_bytes()).collect();
    // The pattern's length is no divisor of a page, so that each page of one value has different bytes.
    let mut bytes = pattern[..1009].repeat(len / 1009 + 1);
    bytes.truncate(len);
    bytes
}

fn name_of(n: u64) -> String {
    format!("value/{}", n - NAMED)
}

fn write(engine: &str, dir: &str, acks: &str, commits: u64, seed: u64) -> Result<(), Error> {
    let mut acks = File::options().create(true).append(true).open(acks)?;
    // One write per line, so that the recorder sees each line as a whole.
    let mut say = |line: String| acks.write_all(line.as_bytes());
    let store = open(engine, Path::new(dir))?;
    let (mut named, mut gone) = (NAMED, NAMED);
    for at in store.head()? + 1..=commits {
        say(format!("w {at}\n"))?;
        store.append(at, &content(at))?;
        say(format!("W {at}\n"))?;
        match mix(seed ^ (at << 20)) % 12 {
            0 | 1 => {
                named += 1;
                say(format!("w {named}\n"))?;
                store.put(&name_of(named), &content(named), Precondition::Absent)?;
                say(format!("W {named}\n"))?;
            }
            2 if gone < named => {
                gone += 1;
                say(format!("d {gone} {gone}\n"))?;
                store.delete(&name_of(gone), Precondition::Value(&content(gone)))?;
                say(format!("D {gone} {gone}\n"))?;
            }
            3 if at > 60 => {
                let (first, last) = (store.oldest()?, at - 50);
                if first <= last {
                    say(format!("d {first} {last}\n"))?;
                    store.remove_before(last + 1)?;
                    say(format!("D {first} {last}\n"))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Items that must be present, must be gone, or may be either.
struct Expected {
    there: BTreeSet<u64>,
    gone: BTreeSet<u64>,
    either: BTreeSet<u64>,
}

impl Expected {
    fn parse(text: &str) -> Result<Expected, Error> {
        let mut lines = text.split('\n');
        let mut next = || -> Result<BTreeSet<u64>, Error> {
            let numbers = lines.next().unwrap_or_default().split(',').filter(|n| !n.is_empty());
            Ok(numbers.map(str::parse).collect::<Result<_, _>>()?)
        };
        Ok(Expected { there: next()?, gone: next()?, either: next()? })
    }

    /// Compares everything in the store, and prints the line that the runner reads.
    fn compare(&self, tag: &str, store: &dyn Store) -> Result<(), Error> {
        let (mut found, mut wrong, mut back) = (BTreeSet::new(), vec![], vec![]);
        let commits = store.read(0, usize::MAX)?.into_iter().map(|e| (e.at, e.bytes.to_vec()));
        let mut all: Vec<(u64, Vec<u8>)> = commits.collect();
        for name in store.list("")? {
            let number = name.strip_prefix("value/").ok_or("a name that nobody gave")?.parse::<u64>()?;
            all.push((NAMED + number, store.named(&name)?.ok_or("listed, but not there")?));
        }
        for (n, bytes) in all {
            found.insert(n);
            let known = self.there.contains(&n) || self.either.contains(&n);
            if self.gone.contains(&n) {
                back.push(n);
            } else if !known || bytes != content(n) {
                wrong.push(n);
            }
        }
        let lost: Vec<_> = self.there.difference(&found).collect();
        println!("{tag} lost={lost:?} wrong={wrong:?} back={back:?}");
        Ok(())
    }
}

fn check(engine: &str, dir: &Path, expect: &str) -> Result<(), Error> {
    let mut expected = Expected::parse(expect)?;
    println!("STAGE open");
    let system = mayfly::system::System::real();
    let store = open(engine, dir).inspect_err(|e| println!("ERROR {e}"))?;
    println!("OPEN ms={}", system.steady());
    println!("STAGE read");
    expected.compare("READ", &*store)?;
    println!("STAGE write");
    for at in store.head()? + 1..store.head()? + 4 {
        store.append(at, &content(at)).inspect_err(|e| println!("ERROR {e}"))?;
        expected.either.remove(&at);
        expected.there.insert(at);
    }
    drop(store);
    println!("STAGE again");
    let store = open(engine, dir).inspect_err(|e| println!("ERROR {e}"))?;
    expected.compare("REREAD", &*store)?;
    println!("STAGE done");
    Ok(())
}
