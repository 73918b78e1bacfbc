//! What a relying service knows, and its answer to a credential. No IO and no clock: messages of the feed and moments come in as values.
//!
//! Signing-key rules are asked first, then signature, issuer, audience, life and possession, then the rules against the token's decision
//! revision, then what the use needs. Without a whole and fresh feed everything is refused. The same answers in every language:
//! `tests/vectors/verify/cases.json`.
//!
//! A token whose signature was found good is remembered by its digest: shown again it costs neither its signature nor its claims, and is asked
//! about by numbers that are made then. Whatever may have changed since is looked at each time.

use std::sync::Arc;

use crate::limits;
use crate::revocation::Asked;
use crate::revocation::event::{FeedEvent, FeedSnapshot};
use crate::revocation::follower::{Building, ChainHead, Follower, FollowerRefusal, Heartbeat, Life, Missed, Moment, RolledBack};
use crate::seen::Seen;
use crate::seq::{Millis, Seq};
use crate::token::{self, Claims, Expect, Jwks, Possession, TokenDefect};

/// Why a credential is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The token itself.
    #[error("{0}")]
    Token(#[from] TokenDefect),
    /// What the feed says, or that it cannot be known.
    #[error("{0}")]
    Rule(#[from] FollowerRefusal),
    /// It lacks the scope.
    #[error("it lacks the scope {0}")]
    Scope(String),
    /// It was issued for another tool.
    #[error("it was issued for the tool {0:?}")]
    Tool(String),
    /// It was issued for other arguments.
    #[error("it was issued for other arguments")]
    Arguments,
}

impl Refused {
    /// Its word in the closed list that all languages share.
    pub fn reason(&self) -> &'static str {
        match self {
            Refused::Token(defect) => match defect {
                TokenDefect::TooLong => "too_long",
                TokenDefect::Malformed(_) => "malformed",
                TokenDefect::Algorithm(_) => "algorithm",
                TokenDefect::Typ(_) => "typ",
                TokenDefect::HeaderParameter(_) => "header_parameter",
                TokenDefect::KeyRevoked(_) => "key_revoked",
                TokenDefect::UnknownKey(_) => "unknown_key",
                TokenDefect::Signature => "signature",
                TokenDefect::Claims(_) => "claims",
                TokenDefect::Newer(_) => "newer_version",
                TokenDefect::Issuer(_) => "issuer",
                TokenDefect::Audience(_) => "audience",
                TokenDefect::Expired => "expired",
                TokenDefect::NotYet => "not_yet",
                TokenDefect::Life(_) => "life",
                TokenDefect::Possession => "possession",
            },
            Refused::Rule(rule) => match rule {
                FollowerRefusal::Key(_) => "key_revoked",
                FollowerRefusal::NotWhole => "not_whole",
                FollowerRefusal::RolledBack(_) => "rolled_back",
                FollowerRefusal::Stale(_) => "stale",
                FollowerRefusal::LifeTooLong(_) => "life",
                FollowerRefusal::NotYet(_) => "not_yet",
                FollowerRefusal::Expired(_) => "expired",
                FollowerRefusal::Revoked(_) => "revoked",
                FollowerRefusal::Held(_) => "held",
            },
            Refused::Scope(_) => "scope",
            Refused::Tool(_) => "tool",
            Refused::Arguments => "arguments",
        }
    }
}

/// What a use needs besides a good credential.
#[derive(Clone, Copy, Debug, Default)]
pub struct Need<'a> {
    /// The scope; empty for none.
    pub scope: &'a str,
    /// The tool that calls, where the credential names one; empty where the upstream does not know it.
    pub tool: &'a str,
    /// SHA-256 of the arguments of this very call (RFC 8785), where the credential names some. `None` where they are not known here: then
    /// they are not compared, as the tool is not. Who acts on arguments gives them, or what was approved for one call serves for any.
    pub arguments: Option<&'a [u8; 32]>,
    /// SHA-256 of the client certificate of the TLS session, where there is one.
    pub certificate: Option<&'a [u8; 32]>,
}

/// A message of the feed, as it is read from the wire.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    /// A part of a snapshot.
    Part {
        /// What is in it.
        part: FeedSnapshot,
        /// No part comes after it.
        last: bool,
    },
    /// A sign that the feed is whole and fresh.
    Heartbeat(Heartbeat),
    /// The same with the ends of the chains of commits.
    HeartbeatWithHeads(Heartbeat, Vec<ChainHead>),
    /// Something happened.
    Event {
        /// The seq of the event before it.
        previous: Seq,
        /// What happened.
        event: FeedEvent,
    },
}

/// A credential that was found good: its claims, and by which key.
#[derive(Debug)]
pub struct Checked {
    claims: Claims,
    kid: String,
    /// Made with its claims, so that each check is a look at what may have changed.
    asked: Asked,
}

impl Checked {
    /// Its signature was found good. Nothing else is looked at here.
    pub fn of(claims: Claims, kid: String) -> Checked {
        let asked = claims.facts(&kid).asked();
        Checked { claims, kid, asked }
    }

    /// The key that signed it.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// What it says.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }
}

impl std::ops::Deref for Checked {
    type Target = Claims;

    fn deref(&self) -> &Claims {
        &self.claims
    }
}

/// What one relying service knows: the keys, the revocations, and how fresh they are.
#[derive(Clone, Default)]
pub struct Checker {
    issuer: String,
    audience: String,
    follower: Follower,
    keys: Jwks,
    /// The parts that came of a snapshot that is not whole yet.
    parts: Building,
    /// What these keys were found to have signed.
    seen: Seen<Checked>,
}

impl Checker {
    /// Knows nothing yet, and refuses everything. `issuer` and `audience` are `iss` and `aud` that it accepts.
    pub fn new(issuer: &str, audience: &str) -> Checker {
        Checker { issuer: issuer.to_owned(), audience: audience.to_owned(), ..Checker::default() }
    }

    /// Everything up to here was applied.
    pub fn applied(&self) -> Seq {
        self.follower.applied()
    }

    /// A stream of the feed begins. Where it may go on; `None`: with a snapshot.
    pub fn begin_stream(&mut self) -> Option<Seq> {
        self.parts = Building::default();
        self.follower.resumes_after()
    }

    /// The newest head that was seen, and the ends of the chains of commits that came with it: what a stream's beginning tells the server.
    pub fn seen(&self) -> Option<(Seq, &[ChainHead])> {
        self.follower.seen()
    }

    /// The feed goes on with a snapshot. Until that is whole, what is known decides, as long as it is fresh enough.
    pub fn resync(&mut self) {
        self.follower.resync();
    }

    /// Everything is refused until a snapshot came. One that knows less than was applied is refused: what was seen once is not unseen.
    pub fn needs_snapshot(&mut self) {
        self.follower.needs_snapshot();
    }

    /// Why the server is not believed any more, where it went back behind what was seen.
    pub fn rolled_back(&self) -> Option<&RolledBack> {
        self.follower.rolled_back()
    }

    /// The server said itself that it went back behind what was seen.
    pub fn told_rolled_back(&mut self, what: &str) {
        self.follower.told_rolled_back(what);
    }

    /// It knows the revocations and the keys, and accepts what is good.
    pub fn is_ready(&self, now: Moment) -> bool {
        self.follower.is_fresh(now) && self.keys.kids().next().is_some()
    }

    /// The issuer's keys from now on.
    pub fn set_keys(&mut self, keys: Jwks) {
        if keys != self.keys {
            self.keys = keys;
            self.seen.clear();
        }
    }

    /// Takes a message of the feed.
    pub fn take(&mut self, message: Message, now: Moment) -> Result<(), Missed> {
        match message {
            Message::Part { part, last } => {
                // Each part as it comes: who checks meanwhile waits for one of them at most.
                self.parts.add(&part);
                if last {
                    self.follower.begin_with(std::mem::take(&mut self.parts))?;
                }
            }
            Message::Heartbeat(beat) => self.follower.heartbeat(beat, now)?,
            Message::HeartbeatWithHeads(beat, heads) => self.follower.heartbeat_with_heads(beat, heads, now)?,
            Message::Event { previous, event } => self.follower.apply(previous, &event)?,
        }
        Ok(())
    }

    /// Checks a credential for one use.
    pub fn check(&self, token: &str, need: &Need<'_>, now: Moment) -> Result<Arc<Checked>, Refused> {
        if token.len() > limits::TOKEN_BYTES {
            return Err(TokenDefect::TooLong.into());
        }
        let known = self.seen.known_or(token, || {
            let (claims, kid) = token::signed(token, &self.keys, |kid| self.follower.revokes_key(kid))?;
            Ok::<_, TokenDefect>(Checked::of(claims, kid))
        })?;
        self.stands(&known, need, now)?;
        Ok(known)
    }

    /// The same for one whose signature was found good: all that may have changed since.
    pub fn stands(&self, known: &Checked, need: &Need<'_>, now: Moment) -> Result<(), Refused> {
        let claims = &known.claims;
        let touched = self.follower.touches(&known.asked);
        if touched && self.follower.revokes_key(&known.kid) {
            return Err(TokenDefect::KeyRevoked(known.kid.clone()).into());
        }
        let expect = Expect {
            issuer: &self.issuer,
            audience: &self.audience,
            now: self.follower.time(now),
            max_ttl_ms: limits::CREDENTIAL_TTL_MS,
            skew_ms: limits::CLOCK_SKEW_MS,
            possession: need.certificate.map_or(Possession::None, Possession::Certificate),
        };
        token::fits(claims, &expect)?;
        let life = Life { issued_at: Millis::from_seconds(claims.iat), expires_at: Millis::from_seconds(claims.exp) };
        match touched {
            true => self.follower.check(&claims.facts(&known.kid), life, now)?,
            false => self.follower.lives(life, now)?,
        }
        serves(claims, need)
    }
}

/// Whether a good credential is good for this use.
pub fn serves(claims: &Claims, need: &Need<'_>) -> Result<(), Refused> {
    if !need.scope.is_empty() && !claims.scopes().any(|s| s == need.scope) {
        return Err(Refused::Scope(need.scope.to_owned()));
    }
    let tool = &*claims.own.tool;
    if !need.tool.is_empty() && !tool.is_empty() && tool != need.tool {
        return Err(Refused::Tool(tool.to_owned()));
    }
    let named = &claims.own.arguments;
    // In constant time: whoever sends calls must not learn the digest of the ones that were approved byte by byte.
    let differ = |digest: &[u8; 32]| aws_lc_rs::constant_time::verify_slices_are_equal(named, digest).is_err();
    if !named.is_empty() && need.arguments.is_some_and(differ) {
        return Err(Refused::Arguments);
    }
    Ok(())
}
