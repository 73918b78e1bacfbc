//! The test upstream: it makes and deletes accounts by name and knows which are alive. It can be told to hold a call, before or after it
//! was carried out, or to fail.
//!
//! Each connection carries one line, `WORD name`; the answer is one line. `MAKE`, `DROP` and `HAS` are the upstream's own commands. Every
//! other word reports a step of the server, which waits for the answer before it continues.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use mayfly::system::System;
use parking_lot::{Condvar, Mutex};

use super::dice::Dice;

/// How much later a call is carried out whose caller was killed.
pub const LATE: Duration = Duration::from_millis(40);
/// The limit for any wait. Nothing takes that long; a test that reaches it has failed.
pub const PATIENCE_MS: u64 = 60_000;

/// Where a call is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    Before,
    After,
}

#[derive(Default)]
struct Inside {
    alive: BTreeSet<String>,
    made: u64,
    deleted: u64,
    refuses: bool,
    /// The next call of this word is held.
    hold: Option<(String, When)>,
    /// The call has arrived.
    held: bool,
    /// One call in this many goes wrong; 0 for never.
    wrong: u64,
    dice: Dice,
}

#[derive(Clone, Default)]
pub struct Upstream {
    inside: Arc<(Mutex<Inside>, Condvar)>,
}

impl Upstream {
    pub fn start() -> (Upstream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Upstream::default();
        let this = upstream.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let this = this.clone();
                std::thread::spawn(move || this.serve(stream));
            }
        });
        (upstream, address)
    }

    pub fn alive(&self) -> BTreeSet<String> {
        self.inside.0.lock().alive.clone()
    }

    /// How many were ever made, and how many deleted.
    pub fn counts(&self) -> (u64, u64) {
        let inside = self.inside.0.lock();
        (inside.made, inside.deleted)
    }

    pub fn refuse(&self, refuses: bool) {
        self.inside.0.lock().refuses = refuses;
    }

    pub fn go_wrong(&self, once_in: u64, seed: u64) {
        let mut inside = self.inside.0.lock();
        (inside.wrong, inside.dice) = (once_in, Dice::new(seed));
    }

    /// Holds the next call of this word.
    pub fn hold(&self, word: &str, when: When) {
        let mut inside = self.inside.0.lock();
        (inside.hold, inside.held) = (Some((word.to_owned(), when)), false);
    }

    /// Waits until the call to be held has arrived.
    pub fn wait_held(&self) {
        let mut inside = self.inside.0.lock();
        let waiting = System::real();
        while !inside.held {
            assert!(waiting.steady() < PATIENCE_MS, "nothing came to be held: {:?}", inside.hold);
            self.inside.1.wait_for(&mut inside, Duration::from_millis(200));
        }
    }

    /// Waits until this many are alive.
    pub fn wait_until_alive(&self, count: usize) {
        let waiting = System::real();
        while self.alive().len() != count {
            assert!(waiting.steady() < PATIENCE_MS, "{:?} are alive, not {count}", self.alive());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Lets the held call continue.
    pub fn release(&self) {
        let mut inside = self.inside.0.lock();
        (inside.hold, inside.held) = (None, false);
        self.inside.1.notify_all();
    }

    /// Whether this call was held.
    fn pass(&self, word: &str, when: When) -> bool {
        let mut inside = self.inside.0.lock();
        if inside.held || inside.hold.as_ref().is_none_or(|(w, at)| w != word || *at != when) {
            return false;
        }
        inside.held = true;
        self.inside.1.notify_all();
        while inside.held {
            self.inside.1.wait(&mut inside);
        }
        true
    }

    fn carry_out(&self, word: &str, name: &str) -> &'static str {
        let mut inside = self.inside.0.lock();
        match word {
            "MAKE" if inside.refuses => "REFUSED",
            "MAKE" => {
                inside.made += u64::from(inside.alive.insert(name.to_owned()));
                "OK"
            }
            "DROP" => {
                inside.deleted += u64::from(inside.alive.remove(name));
                "OK"
            }
            "HAS" if inside.alive.contains(name) => "YES",
            "HAS" => "NO",
            _ => "OK",
        }
    }

    /// 1: refused; 2: done and not answered; 3: done later and not answered. Only for its own commands.
    fn goes_wrong(&self, word: &str) -> u64 {
        let mut inside = self.inside.0.lock();
        if inside.wrong == 0 || !["MAKE", "DROP", "HAS"].contains(&word) {
            return 0;
        }
        let wrong = inside.wrong;
        if inside.dice.below(wrong) == 0 { 1 + inside.dice.below(3) } else { 0 }
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut line = String::new();
        // A caller that died after sending is served nevertheless.
        let read = BufReader::new(stream.try_clone().unwrap()).read_line(&mut line);
        let Some((word, name)) = line.trim_end().split_once(' ').filter(|_| read.is_ok() && line.ends_with('\n')) else { return };
        if self.pass(word, When::Before) {
            // The call was on its way while its caller was killed.
            std::thread::sleep(LATE);
        }
        let wrong = self.goes_wrong(word);
        match wrong {
            1 => drop(stream.write_all(b"REFUSED\n")),
            2 => drop(self.carry_out(word, name)),
            3 => {
                drop(stream);
                std::thread::sleep(LATE);
                self.carry_out(word, name);
            }
            _ => {
                let answer = self.carry_out(word, name);
                self.pass(word, When::After);
                let _ = stream.write_all(format!("{answer}\n").as_bytes());
            }
        }
    }
}

/// Sends a line and waits for the answer. Blocking, for callers that cannot wait in another way.
pub fn say(address: SocketAddr, line: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}
