//! Two kinds over the test upstream: one that derives the same login again, and one whose token can be issued only once.

use std::net::SocketAddr;
use std::sync::Arc;

use mayfly::credential::remote::{Again, Boxed, Made, MakeError, Named, Order, Remote, Remotes, UndoError};
use mayfly::credential::{Answer, Kind, Token};
use mayfly::ledger::state::Lease;
use mayfly::seq::{LeaseId, Millis};
use mayfly::upstream::lease::{Elsewhere, Places, Timing};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::account::{dropped, gone, login, made};
use super::upstream::say;

/// Short times, in the same proportions as the defaults.
pub const TIMING: Timing =
    Timing { make_ms: 2_000, call_ms: 2_000, left_ms: 4_500, retry_min_ms: 20, retry_max_ms: 200, look_ms: 50 };
/// Far above `upstream::LATE`, even on a busy machine.
pub const SETTLES_MS: u64 = 600;

pub struct Accounts {
    pub address: SocketAddr,
    pub kind: Kind,
    /// Reports each step and waits for the answer.
    pub tells: bool,
}

/// Both kinds.
pub fn elsewhere(address: SocketAddr, tells: bool) -> Elsewhere {
    let of = |kind| Arc::new(Accounts { address, kind, tells });
    let remotes = Remotes::default().with(of(Kind::Postgres)).with(of(Kind::Oauth));
    Elsewhere { remotes, timing: TIMING, places: Places::default() }
}

impl Accounts {
    async fn call(&self, word: &str, name: &str) -> Result<String, String> {
        let call = async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.write_all(format!("{word} {name}\n").as_bytes()).await?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer).await?;
            Ok::<_, std::io::Error>(answer.trim_end().to_owned())
        };
        match call.await {
            Ok(answer) if !answer.is_empty() => Ok(answer),
            Ok(_) => Err(format!("{word}: no answer")),
            Err(e) => Err(format!("{word}: {e}")),
        }
    }

    async fn tell(&self, word: &str, name: &str) {
        if self.tells {
            let _ = self.call(word, name).await;
        }
    }

    fn answer(&self, name: &str) -> Answer {
        match self.kind {
            Kind::Postgres => login(name),
            _ => Answer::Bearer {
                token: Token::secret(Zeroizing::new(name.to_owned())),
                header: "authorization".into(),
                scheme: "Bearer".into(),
                base_url: "".into(),
            },
        }
    }
}

impl Remote for Accounts {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn name(&self, order: &Order<'_>) -> Result<Named, MakeError> {
        let handle = format!("mayfly_{}", order.lease);
        if self.tells {
            let _ = say(self.address, &format!("NAME {handle}"));
        }
        Ok(Named { handle, ends_at: Millis(0) })
    }

    fn make<'a>(&'a self, order: &'a Order<'a>) -> Boxed<'a, Result<Made, MakeError>> {
        Box::pin(async move {
            self.tell("ABOUT", order.handle).await;
            let made = made(self.call("MAKE", order.handle).await, self.answer(order.handle));
            self.tell("MADE", order.handle).await;
            made
        })
    }

    fn undo<'a>(&'a self, _: LeaseId, lease: &'a Lease) -> Boxed<'a, Result<(), UndoError>> {
        Box::pin(async move { dropped(self.call("DROP", &lease.handle).await) })
    }

    fn is_gone<'a>(&'a self, _: LeaseId, lease: &'a Lease) -> Boxed<'a, Result<bool, UndoError>> {
        Box::pin(async move { gone(self.call("HAS", &lease.handle).await) })
    }

    fn settles_ms(&self) -> u64 {
        SETTLES_MS
    }

    fn again<'a>(&'a self, order: &'a Order<'a>) -> Boxed<'a, Result<Again, MakeError>> {
        Box::pin(async move {
            self.tell("AGAIN", order.handle).await;
            match self.kind {
                Kind::Postgres => Ok(Again::Same(Made { answer: self.answer(order.handle), irrevocable: false })),
                _ => Ok(Again::Replace),
            }
        })
    }
}
