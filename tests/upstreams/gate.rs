//! A gate before a database: it passes on what comes, and can hold one statement, before it arrives or before its answer does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use mayfly::system::System;
use parking_lot::{Condvar, Mutex};

/// How much later a statement arrives whose sender was killed.
const LATE: Duration = Duration::from_millis(40);
/// The limit for any wait.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The time since a moment.
pub struct Watch(System);

impl Watch {
    pub fn start() -> Watch {
        Watch(System::real())
    }

    pub fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.steady())
    }
}

/// The moment at which a statement is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    Before,
    After,
}

#[derive(Default)]
struct Inside {
    /// The next statement that begins with this is held.
    hold: Option<(String, When)>,
    held: bool,
    /// Nothing passes.
    stuck: bool,
}

/// Reads the text of a statement that the bytes from a client begin with.
pub type StatementReader = fn(&[u8]) -> Option<String>;

#[derive(Clone)]
pub struct Gate {
    pub port: u16,
    statement: StatementReader,
    inside: Arc<(Mutex<Inside>, Condvar)>,
}

impl Gate {
    pub fn before(server: u16) -> Gate {
        Gate::reading(server, statement)
    }

    /// A gate before a server of another protocol.
    pub fn reading(server: u16, statement: StatementReader) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Gate { port: listener.local_addr().unwrap().port(), statement, inside: Arc::default() };
        let this = gate.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let this = this.clone();
                std::thread::spawn(move || this.pass(client, server));
            }
        });
        gate
    }

    /// Holds the next statement that begins with `word`.
    pub fn hold(&self, word: &str, when: When) {
        let mut inside = self.inside.0.lock();
        (inside.hold, inside.held) = (Some((word.to_owned(), when)), false);
    }

    /// Waits until that statement is held.
    pub fn wait_held(&self) {
        let mut inside = self.inside.0.lock();
        let began = Watch::start();
        while !inside.held {
            assert!(began.elapsed() < PATIENCE, "nothing came to be held: {:?}", inside.hold);
            self.inside.1.wait_for(&mut inside, Duration::from_millis(200));
        }
    }

    /// Lets the held statement, or its answer, go on.
    pub fn release(&self) {
        let mut inside = self.inside.0.lock();
        (inside.hold, inside.held) = (None, false);
        self.inside.1.notify_all();
    }

    /// From now on, connections are taken and nothing is answered; or as before again.
    pub fn stick(&self, stuck: bool) {
        self.inside.0.lock().stuck = stuck;
        self.inside.1.notify_all();
    }

    fn waits(&self) {
        let mut inside = self.inside.0.lock();
        while inside.stuck {
            self.inside.1.wait(&mut inside);
        }
    }

    /// Whether this statement was held here.
    fn stops(&self, statement: Option<&str>, when: When) -> bool {
        let mut inside = self.inside.0.lock();
        let named = |word: &str| statement.is_some_and(|s| s.starts_with(word));
        if inside.held || inside.hold.as_ref().is_none_or(|(word, at)| *at != when || !named(word)) {
            return false;
        }
        inside.held = true;
        self.inside.1.notify_all();
        while inside.held {
            self.inside.1.wait(&mut inside);
        }
        true
    }

    fn pass(&self, mut client: TcpStream, mut server: TcpStream) {
        let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let (this, last) = (self.clone(), Arc::new(Mutex::new(None::<String>)));
        let asked = last.clone();
        let answering = std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(n @ 1..) = answers.read(&mut buffer) {
                this.waits();
                let statement = asked.lock().clone();
                this.stops(statement.as_deref(), When::After);
                if back.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            let _ = back.shutdown(Shutdown::Both);
        });
        let mut buffer = [0; 16 * 1024];
        while let Ok(n @ 1..) = client.read(&mut buffer) {
            self.waits();
            let statement = (self.statement)(&buffer[..n]);
            last.lock().clone_from(&statement);
            if self.stops(statement.as_deref(), When::Before) {
                std::thread::sleep(LATE);
            }
            if server.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Write);
        let _ = answering.join();
    }
}

/// The text of the first message, if it is a Query or a Parse. Each arrives in one piece: they are small, and sent one by one.
fn statement(bytes: &[u8]) -> Option<String> {
    let text = match bytes.first()? {
        b'Q' => bytes.get(5..)?,
        b'P' => bytes.get(5..)?.split_once_nul()?,
        _ => return None,
    };
    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
    Some(String::from_utf8_lossy(&text[..end]).into_owned())
}

/// The statement of MySQL that a packet has, as text or to be prepared.
pub fn mysql_statement(bytes: &[u8]) -> Option<String> {
    // Three bytes of length, the number of the packet, the command.
    match bytes.get(3..5)? {
        [0, 0x03 | 0x16] => Some(String::from_utf8_lossy(bytes.get(5..)?).into_owned()),
        _ => None,
    }
}

/// The words of a command of Redis, an array of strings in its protocol.
pub fn redis_command(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes.strip_prefix(b"*")?).into_owned();
    let words: Vec<&str> = text.split("\r\n").skip(1).filter(|part| !part.starts_with('$')).collect();
    Some(words.join(" "))
}

trait AfterNul {
    fn split_once_nul(&self) -> Option<&[u8]>;
}

impl AfterNul for [u8] {
    fn split_once_nul(&self) -> Option<&[u8]> {
        let at = self.iter().position(|b| *b == 0)?;
        self.get(at + 1..)
    }
}
