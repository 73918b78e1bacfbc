//! An upstream that is a small real server: it makes and deletes accounts by name and knows which exist. It can be told to fail.
//!
//! One line per connection: `MAKE name`, `DROP name`, `HAS name`; the answer is one line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A failure of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// Refused without doing anything.
    Refuses,
    /// Done, but the connection closes without an answer.
    LosesAnswer,
    /// The connection closes, and the call is carried out a little later.
    IsLate,
    /// Done, but answered only after the caller's timeout.
    IsSlow,
    /// Nothing is done and no answer is sent.
    HangsUp,
    /// Answered as done although nothing was done.
    Lies,
}

/// The delay of `IsLate`.
pub const LATE: Duration = Duration::from_millis(25);

#[derive(Default)]
pub struct Shared {
    pub alive: BTreeSet<String>,
    pub made: u32,
    /// Failures of the next calls per word, in order; later calls succeed.
    pub wrong: BTreeMap<&'static str, Vec<Wrong>>,
}

#[derive(Clone)]
pub struct Server {
    pub address: std::net::SocketAddr,
    pub shared: Arc<Mutex<Shared>>,
}

impl Server {
    pub async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server { address: listener.local_addr().unwrap(), shared: Arc::default() };
        let shared = server.shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        server
    }

    pub fn alive(&self) -> BTreeSet<String> {
        self.shared.lock().alive.clone()
    }
}

async fn serve(stream: TcpStream, shared: Arc<Mutex<Shared>>) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    // A call is carried out even if its caller was killed after sending it.
    if BufReader::new(read).read_line(&mut line).await.is_err() || !line.ends_with('\n') {
        return;
    }
    let (word, name) = line.trim_end().split_once(' ').unwrap();
    let word = ["MAKE", "DROP", "HAS"].into_iter().find(|w| *w == word).unwrap();
    let wrong = shared.lock().wrong.get_mut(word).filter(|w| !w.is_empty()).map(|w| w.remove(0));
    let carry_out = || {
        let mut shared = shared.lock();
        match word {
            "MAKE" => {
                shared.made += 1;
                shared.alive.insert(name.to_owned());
                "OK"
            }
            "DROP" => {
                shared.alive.remove(name);
                "OK"
            }
            _ if shared.alive.contains(name) => "YES",
            _ => "NO",
        }
    };
    match wrong {
        None => {
            let answer = carry_out();
            let _ = write.write_all(format!("{answer}\n").as_bytes()).await;
        }
        Some(Wrong::Refuses) => {
            let _ = write.write_all(b"REFUSED\n").await;
        }
        Some(Wrong::LosesAnswer) => {
            carry_out();
        }
        Some(Wrong::IsLate) => {
            drop(write);
            tokio::time::sleep(LATE).await;
            carry_out();
        }
        Some(Wrong::IsSlow) => {
            let answer = carry_out();
            tokio::time::sleep(Duration::from_secs(2)).await;
            let _ = write.write_all(format!("{answer}\n").as_bytes()).await;
        }
        Some(Wrong::HangsUp) => {}
        Some(Wrong::Lies) => {
            let _ = write.write_all(b"OK\n").await;
        }
    }
}

/// Sends a line. `between` is a point where the caller can be killed.
pub async fn call(address: std::net::SocketAddr, line: &str, between: impl AsyncFnOnce()) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    between().await;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).await?;
    match answer.trim_end() {
        "" => Err(std::io::ErrorKind::UnexpectedEof.into()),
        text => Ok(text.to_owned()),
    }
}
