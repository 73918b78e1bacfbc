//! Tests of the state machine of a grant: its steps, and random interleavings of three processes against a server that rotates tokens.

use super::*;
use proptest::prelude::*;

fn client() -> OauthClient {
    let text = r#"{"issuer":"https://as.example","client_id":"c","client_auth":"none","lifetime":"1h"}"#;
    serde_json::from_str(text).unwrap()
}

fn grant() -> StoredGrant {
    let new = NewGrant {
        upstream: "mail".into(),
        environment: "dev".into(),
        id: "g1".into(),
        client: client(),
        by: "spiffe://td/ada".into(),
        scopes: Vec::new(),
    };
    StoredGrant::connected(new, "r1".into(), Millis(1_000))
}

#[test]
fn one_process_refreshes_and_the_next_one_after_it() {
    let now = Millis(2_000);
    let held = grant().hold("a", now, GrantPhase::Connected).unwrap();
    let until = now.plus(limits::OAUTH_REFRESH_MS);
    assert_eq!(held.hold("b", now.plus(1), GrantPhase::Connected), Err(NoRefresh::Busy(until)));
    let (next, outcome) = held.refreshed("a", Some("r2".into()), now.plus(5)).unwrap();
    assert_eq!((next.generation, next.sealed.as_str(), outcome), (2, "r2", Refreshed::InEffect));
    assert_ne!(next.sealed_name(next.generation), held.sealed_name(held.generation));
    assert!(next.hold("b", now.plus(6), GrantPhase::Connected).is_ok());
    // A server that does not rotate.
    let (same, _) = held.refreshed("a", None, now.plus(5)).unwrap();
    assert_eq!((same.generation, same.sealed.as_str(), same.refreshed_at), (1, "r1", now.plus(5)));
}

#[test]
fn a_holder_that_was_killed_gives_way_after_its_time_and_changes_nothing_if_it_comes_back() {
    let now = Millis(2_000);
    let held = grant().hold("a", now, GrantPhase::Connected).unwrap();
    let later = now.plus(limits::OAUTH_REFRESH_MS);
    let taken = held.hold("b", later, GrantPhase::Connected).unwrap();
    assert_eq!(taken.sealed, "r1", "the old token is tried again");
    assert_eq!(taken.refreshed("a", Some("r2".into()), later), Err(LostPlace));
    assert_eq!(
        taken.failed("a", true, "invalid_grant", later),
        Err(LostPlace),
        "it was said of a token that is not ours any more"
    );
    // A clock that was set back by a year keeps nobody out.
    assert!(held.hold("b", Millis(1), GrantPhase::Connected).is_err());
    let ahead = StoredGrant { holder: Some(RefreshHolder { id: "a".into(), until: Millis(u64::MAX) }), ..grant() };
    assert!(ahead.hold("b", now, GrantPhase::Connected).is_ok());
}

#[test]
fn only_the_servers_own_word_ends_a_grant() {
    let now = Millis(2_000);
    let held = grant().hold("a", now, GrantPhase::Connected).unwrap();
    let hurt = held.failed("a", false, "it answered 503", now).unwrap();
    assert_eq!((hurt.phase, hurt.sealed.as_str(), hurt.trouble_since), (GrantPhase::Connected, "r1", now));
    let again =
        hurt.hold("b", now.plus(9), GrantPhase::Connected).unwrap().failed("b", false, "it answered 502", now.plus(9)).unwrap();
    assert_eq!((again.trouble.as_str(), again.trouble_since), ("it answered 502", now), "since the first failure");
    let over = held.failed("a", true, "invalid_grant", now.plus(1)).unwrap();
    assert_eq!((over.phase, over.sealed.as_str(), over.trouble_since), (GrantPhase::SignInAgain, "", now.plus(1)));
    assert_eq!(over.hold("b", now.plus(2), GrantPhase::Connected), Err(NoRefresh::SignInAgain));
}

#[test]
fn a_disconnect_wins_over_a_refresh_under_way_and_revokes_the_newest_token() {
    let now = Millis(2_000);
    let held = grant().hold("a", now, GrantPhase::Connected).unwrap();
    let ending = held.end();
    assert_eq!(ending.hold("b", now, GrantPhase::Ending), Err(NoRefresh::Busy(now.plus(limits::OAUTH_REFRESH_MS))));
    let (next, outcome) = ending.refreshed("a", Some("r2".into()), now).unwrap();
    assert_eq!((next.phase, next.sealed.as_str(), outcome), (GrantPhase::Ending, "r2", Refreshed::Ended));
    assert!(next.hold("b", now, GrantPhase::Ending).is_ok());
    assert_eq!(next.hold("b", now, GrantPhase::Connected), Err(NoRefresh::Ending));
    let failed = ending.failed("a", true, "invalid_grant", now).unwrap();
    assert_eq!((failed.phase, failed.sealed.as_str()), (GrantPhase::Ending, ""), "it stays disconnected");
}

#[test]
fn it_is_refreshed_in_half_of_the_idle_limit_and_belongs_to_its_client() {
    let grant = grant();
    assert!(!grant.is_idle(10_000, Millis(5_999)) && grant.is_idle(10_000, Millis(6_000)));
    assert!(!grant.end().is_idle(10_000, Millis(60_000)));
    assert!(grant.is_of(&OauthClient { lifetime: "2h".into(), ..client() }));
    assert!(!grant.is_of(&OauthClient { client_id: "d".into(), ..client() }));
    assert_eq!(StoredGrant::parse(&grant.to_bytes()).unwrap(), grant);
    let other = String::from_utf8(grant.to_bytes()).unwrap().replace("\"version\":1", "\"version\":2");
    assert!(StoredGrant::parse(other.as_bytes()).unwrap_err().contains("format 2"));
}

/// A server that rotates refresh tokens, and ends the grant when an old one is used again.
#[derive(Clone, Debug, Default)]
struct Server {
    current: u64,
    over: bool,
}

impl Server {
    fn refresh(&mut self, token: u64) -> Result<u64, ()> {
        if self.over || token != self.current {
            self.over = true;
            return Err(());
        }
        self.current += 1;
        Ok(self.current)
    }
}

/// A step of one of three processes.
#[derive(Clone, Debug)]
enum Step {
    Begin(usize),
    /// The server's answer arrives.
    Send(usize),
    /// The answer is lost on the way to the server: 503 before anything happened.
    Trouble(usize),
    Store(usize),
    Disconnect,
    /// Time passes.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let process = 0..3usize;
    prop_oneof![
        4 => process.clone().prop_map(Step::Begin),
        4 => process.clone().prop_map(Step::Send),
        1 => process.clone().prop_map(Step::Trouble),
        4 => process.prop_map(Step::Store),
        1 => Just(Step::Disconnect),
        2 => (1..3_000u64).prop_map(Step::Wait),
    ]
}

enum Doing {
    Nothing,
    Held(String, u64),
    Answered(String, Result<u64, ()>),
}

proptest! {
    /// However three processes interleave, and as long as none is slower than a refresh may be: no token is used twice, the newest token is
    /// the stored one or on its way to the store, and nobody is answered after a disconnect.
    #[test]
    fn no_interleaving_loses_a_grant(steps in prop::collection::vec(step(), 1..80)) {
        let mut stored = StoredGrant { sealed: "0".into(), ..grant() };
        let (mut server, mut now, mut disconnected) = (Server::default(), Millis(2_000), false);
        let mut all: Vec<Doing> = (0..3).map(|_| Doing::Nothing).collect();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Wait(ms) => {
                    // A process that holds is faster than the end of its time.
                    let busy = all.iter().any(|doing| !matches!(doing, Doing::Nothing));
                    let left = stored.holder.as_ref().map_or(u64::MAX, |holder| holder.until.since(now));
                    now = now.plus(if busy { ms.min(left.saturating_sub(1)) } else { ms });
                }
                Step::Begin(p) => if matches!(all[p], Doing::Nothing) {
                    let id = format!("{p}/{n}");
                    if let Ok(held) = stored.hold(&id, now, GrantPhase::Connected) {
                        let token = held.sealed.parse().unwrap();
                        (stored, all[p]) = (held, Doing::Held(id, token));
                    }
                },
                Step::Send(p) => if let Doing::Held(id, token) = &all[p] {
                    all[p] = Doing::Answered(id.clone(), server.refresh(*token));
                },
                Step::Trouble(p) => if let Doing::Held(id, _) = &all[p] {
                    stored = stored.failed(id, false, "503", now).unwrap();
                    all[p] = Doing::Nothing;
                },
                Step::Store(p) => if let Doing::Answered(id, answer) = &all[p] {
                    match answer {
                        Ok(token) => {
                            let (next, outcome) = stored.refreshed(id, Some(token.to_string()), now).unwrap();
                            prop_assert_eq!(outcome == Refreshed::Ended, disconnected);
                            stored = next;
                        }
                        Err(()) => stored = stored.failed(id, true, "invalid_grant", now).unwrap(),
                    }
                    all[p] = Doing::Nothing;
                },
                Step::Disconnect => (stored, disconnected) = (stored.end(), true),
            }
            prop_assert!(!server.over, "the grant is lost");
            let on_its_way = all.iter().any(|doing| matches!(doing, Doing::Answered(_, Ok(token)) if *token == server.current));
            prop_assert!(on_its_way || stored.sealed == server.current.to_string());
        }
    }
}
