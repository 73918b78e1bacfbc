//! Two kinds over the test upstream: one that derives the same login again, and one whose token can be issued only once.

use std::net::SocketAddr;
use std::sync::Arc;

use mayfly::credential::connector::{
    ConnectorFuture, MakeError, MintOrder, RepeatResponse, UndoError, UndoOrder, UpstreamConnector, UpstreamConnectors,
    UpstreamCredential, UpstreamHandle,
};
use mayfly::credential::{CredentialKind, CredentialMaterial, IssuedToken};
use mayfly::seq::Millis;
use mayfly::upstream::access::{AccessError, AccessLevel, AccessQuery, GrantedAccess};
use mayfly::upstream::lease::{ConnectorSettings, LeaseConcurrency, LeaseTiming};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::account::{dropped, gone, login, made};
use super::upstream::say;

/// Short times, in the same proportions as the defaults.
pub const TIMING: LeaseTiming =
    LeaseTiming { make_ms: 2_000, call_ms: 2_000, left_ms: 4_500, retry_min_ms: 20, retry_max_ms: 200, look_ms: 50 };
/// Far above `upstream::LATE`, even on a busy machine.
pub const SETTLES_MS: u64 = 600;

pub struct Accounts {
    pub address: SocketAddr,
    pub kind: CredentialKind,
    /// Reports each step and waits for the answer.
    pub tells: bool,
}

/// Both kinds.
pub fn connectors(address: SocketAddr, tells: bool) -> ConnectorSettings {
    let of = |kind| Arc::new(Accounts { address, kind, tells });
    let remotes = UpstreamConnectors::default().with(of(CredentialKind::Postgres)).with(of(CredentialKind::Oauth));
    ConnectorSettings { remotes, timing: TIMING, places: LeaseConcurrency::default(), issuer: String::new() }
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

    fn answer(&self, name: &str) -> CredentialMaterial {
        match self.kind {
            CredentialKind::Postgres => login(name),
            _ => CredentialMaterial::Bearer {
                token: IssuedToken::secret(Zeroizing::new(name.to_owned())),
                header: "authorization".into(),
                scheme: "Bearer".into(),
                base_url: "".into(),
            },
        }
    }
}

impl UpstreamConnector for Accounts {
    fn kind(&self) -> CredentialKind {
        self.kind
    }

    fn describe(&self, _: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
        Ok(GrantedAccess { levels: [AccessLevel::Unknown].into(), ..GrantedAccess::default() })
    }

    fn name(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, MakeError> {
        let handle = format!("mayfly_{}", order.lease);
        if self.tells {
            let _ = say(self.address, &format!("NAME {handle}"));
        }
        Ok(UpstreamHandle { handle, ends_at: Millis(0), terms: String::new() })
    }

    fn make<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<UpstreamCredential, MakeError>> {
        Box::pin(async move {
            self.tell("ABOUT", order.handle).await;
            let made = made(self.call("MAKE", order.handle).await, self.answer(order.handle));
            self.tell("MADE", order.handle).await;
            made
        })
    }

    fn undo<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<(), UndoError>> {
        Box::pin(async move { dropped(self.call("DROP", &order.lease.handle).await) })
    }

    fn is_gone<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<bool, UndoError>> {
        Box::pin(async move { gone(self.call("HAS", &order.lease.handle).await) })
    }

    fn settles_ms(&self) -> u64 {
        SETTLES_MS
    }

    fn again<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<RepeatResponse, MakeError>> {
        Box::pin(async move {
            self.tell("AGAIN", order.handle).await;
            match self.kind {
                CredentialKind::Postgres => Ok(RepeatResponse::Same(UpstreamCredential {
                    answer: self.answer(order.handle),
                    irrevocable: false,
                    ends_at: None,
                })),
                _ => Ok(RepeatResponse::Replace),
            }
        })
    }
}
