//! The state of a relying service and its check of credentials. No IO and no clock: messages of the feed and times come in as values.
//!
//! The order of checks: the rule of the signing key; signature, issuer, audience, lifetime and possession; the revocation rules against the
//! token's decision revision; the requirements of the use. Without a complete and fresh feed everything is refused. All languages give the
//! same answers: `tests/vectors/verify/cases.json`.
//!
//! A token with a valid signature is remembered by its digest. When it is presented again, its signature and claims are not verified again,
//! and rules are checked by hashes computed the first time. Everything that may have changed since is checked each time.

use std::sync::Arc;

use crate::limits;
use crate::revocation::ProbeHashes;
use crate::revocation::event::{FeedEvent, FeedSnapshot};
use crate::revocation::follower::{
    ChainHead, Follower, FollowerRefusal, Heartbeat, Lifetime, Missed, Moment, PartialSnapshot, RolledBack,
};
use crate::seq::{Millis, Seq};
use crate::token::{self, Claims, Jwks, Possession, TokenDefect, TokenRequirements};
use crate::token_cache::TokenCache;

/// Why a credential is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The token itself is invalid.
    #[error("{0}")]
    Token(#[from] TokenDefect),
    /// A revocation rule applies, or the feed is not complete and fresh.
    #[error("{0}")]
    Rule(#[from] FollowerRefusal),
    /// The credential lacks the scope.
    #[error("it lacks the scope {0}")]
    Scope(String),
    /// The credential was issued for another tool.
    #[error("it was issued for the tool {0:?}")]
    Tool(String),
    /// The credential was issued for other arguments.
    #[error("it was issued for other arguments")]
    Arguments,
}

impl Refused {
    /// The reason from the closed list that all languages share.
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

/// The requirements of a use, besides a valid credential.
#[derive(Clone, Copy, Debug, Default)]
pub struct Need<'a> {
    /// The required scope; empty for none.
    pub scope: &'a str,
    /// The calling tool, compared where the credential names one; empty where the service does not know it.
    pub tool: &'a str,
    /// SHA-256 of the call's arguments (RFC 8785), compared where the credential names a digest. `None` where the service does not know the
    /// arguments; they are not compared then. A service that acts on arguments must set it, or an approval for one call would be valid for
    /// any call.
    pub arguments: Option<&'a [u8; 32]>,
    /// SHA-256 of the client certificate of the TLS session, where there is one.
    pub certificate: Option<&'a [u8; 32]>,
}

/// A parsed message of the feed.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    /// A part of a snapshot.
    Part {
        /// The content of the part.
        part: FeedSnapshot,
        /// Whether it is the last part.
        last: bool,
    },
    /// A proof that the feed is complete and fresh.
    Heartbeat(Heartbeat),
    /// The same with the ends of the commit chains.
    HeartbeatWithHeads(Heartbeat, Vec<ChainHead>),
    /// An event.
    Event {
        /// The sequence number of the previous event.
        previous: Seq,
        /// The event.
        event: FeedEvent,
    },
}

/// A verified credential: its claims and its signing key.
#[derive(Debug)]
pub struct Checked {
    claims: Claims,
    kid: String,
    /// The hashes of the facts, computed together with the claims.
    asked: ProbeHashes,
}

impl Checked {
    /// For a token whose signature was verified. Nothing else is checked here.
    pub fn of(claims: Claims, kid: String) -> Checked {
        let asked = claims.facts(&kid).asked();
        Checked { claims, kid, asked }
    }

    /// The `kid` of the signing key.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The claims.
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

/// The state of one relying service: the keys, the revocations and their freshness.
#[derive(Clone, Default)]
pub struct Checker {
    issuer: String,
    audience: String,
    follower: Follower,
    keys: Jwks,
    /// The received parts of a snapshot that is not whole yet.
    parts: PartialSnapshot,
    /// The tokens that were verified with the present keys.
    seen: TokenCache<Checked>,
}

impl Checker {
    /// A checker without knowledge, which refuses everything. `issuer` and `audience` are the accepted `iss` and `aud`.
    pub fn new(issuer: &str, audience: &str) -> Checker {
        Checker { issuer: issuer.to_owned(), audience: audience.to_owned(), ..Checker::default() }
    }

    /// The sequence number up to which the feed was applied.
    pub fn applied(&self) -> Seq {
        self.follower.applied()
    }

    /// Begins a stream of the feed. Returns the sequence number after which it may resume; `None`: it must begin with a snapshot.
    pub fn begin_stream(&mut self) -> Option<Seq> {
        self.parts = PartialSnapshot::default();
        self.follower.resumes_after()
    }

    /// The newest head seen, and the ends of the commit chains that came with it, for opening a stream.
    pub fn seen(&self) -> Option<(Seq, &[ChainHead])> {
        self.follower.seen()
    }

    /// The feed continues with a snapshot. Until that is whole, the present state decides as long as it is fresh.
    pub fn resync(&mut self) {
        self.follower.resync();
    }

    /// Refuses everything until a snapshot arrives. A snapshot older than the applied state is refused.
    pub fn needs_snapshot(&mut self) {
        self.follower.needs_snapshot();
    }

    /// Why the server is no longer trusted, if its ledger is behind what was seen.
    pub fn rolled_back(&self) -> Option<&RolledBack> {
        self.follower.rolled_back()
    }

    /// Records that the server itself reported its ledger to be behind what was seen.
    pub fn told_rolled_back(&mut self, what: &str) {
        self.follower.told_rolled_back(what);
    }

    /// Whether the checker has the revocations and the keys and can accept credentials.
    pub fn is_ready(&self, now: Moment) -> bool {
        self.follower.is_fresh(now) && self.keys.kids().next().is_some()
    }

    /// Sets the issuer's keys.
    pub fn set_keys(&mut self, keys: Jwks) {
        if keys != self.keys {
            self.keys = keys;
            self.seen.clear();
        }
    }

    /// Applies a message of the feed.
    pub fn take(&mut self, message: Message, now: Moment) -> Result<(), Missed> {
        match message {
            Message::Part { part, last } => {
                // Each part is added as it arrives, so that concurrent checks wait for at most one part.
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
            let (claims, kid) = token::verify_signature(token, &self.keys, |kid| self.follower.revokes_key(kid))?;
            Ok::<_, TokenDefect>(Checked::of(claims, kid))
        })?;
        self.stands(&known, need, now)?;
        Ok(known)
    }

    /// The same for a token whose signature was verified: checks everything that may have changed since.
    pub fn stands(&self, known: &Checked, need: &Need<'_>, now: Moment) -> Result<(), Refused> {
        let claims = &known.claims;
        let touched = self.follower.touches(&known.asked);
        if touched && self.follower.revokes_key(&known.kid) {
            return Err(TokenDefect::KeyRevoked(known.kid.clone()).into());
        }
        let expect = TokenRequirements {
            issuer: &self.issuer,
            audience: &self.audience,
            now: self.follower.time(now),
            max_ttl_ms: limits::CREDENTIAL_TTL_MS,
            skew_ms: limits::CLOCK_SKEW_MS,
            possession: need.certificate.map_or(Possession::None, Possession::Certificate),
        };
        token::check_claims(claims, &expect)?;
        let life = Lifetime { issued_at: Millis::from_seconds(claims.iat), expires_at: Millis::from_seconds(claims.exp) };
        match touched {
            true => self.follower.check(&claims.facts(&known.kid), life, now)?,
            false => self.follower.lives(life, now)?,
        }
        serves(claims, need)
    }
}

/// Whether a valid credential satisfies the requirements of a use.
pub fn serves(claims: &Claims, need: &Need<'_>) -> Result<(), Refused> {
    if !need.scope.is_empty() && !claims.scopes().any(|s| s == need.scope) {
        return Err(Refused::Scope(need.scope.to_owned()));
    }
    let tool = &*claims.own.tool;
    if !need.tool.is_empty() && !tool.is_empty() && tool != need.tool {
        return Err(Refused::Tool(tool.to_owned()));
    }
    let named = &claims.own.arguments;
    // Compared in constant time, so that a caller cannot learn the digest of approved arguments byte by byte.
    let differ = |digest: &[u8; 32]| aws_lc_rs::constant_time::verify_slices_are_equal(named, digest).is_err();
    if !named.is_empty() && need.arguments.is_some_and(differ) {
        return Err(Refused::Arguments);
    }
    Ok(())
}
