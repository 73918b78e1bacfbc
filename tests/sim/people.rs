//! People: signing in with a single-use token, signing out, and tasks on somebody's behalf.

use mayfly::ledger::record::*;
use mayfly::ledger::state::{Login, State, id_token_used, policy_in_force};
use mayfly::limits::{CLOCK_SKEW_MS, LOGIN_TTL_MS};
use mayfly::seq::CredentialId;

use crate::judge::{both, yes};
use crate::make::{ENVIRONMENTS, PEOPLE, live, person, svid, workload};
use crate::model::{DAY, Grant, Line, MINUTE, Model, Says, domain};
use crate::op::Op;
use crate::world::{Found, World, Writer};

/// The key that signs certificates of people.
pub const CA: &str = "ca";

pub fn ca() -> KeyAdded {
    let (purpose, state) = (KeyPurpose::X509Ca as i32, KeyState::Active as i32);
    KeyAdded { key: CA.into(), purpose, state, ..Default::default() }
}

pub fn caller(name: &str) -> String {
    format!("spiffe://people.example/people/{name}")
}

/// An existing or ended login.
pub fn login<'a>(writer: &'a Writer, op: &Op, i: usize) -> Option<&'a Login> {
    let all: Vec<_> = writer.state.logins.values().collect();
    op.pick(i, &all).map(|login| &***login)
}

/// A person signs in: the token is used up by the login, in one group.
pub fn sign_in(writer: &Writer, op: &Op, id: &[u8]) -> Vec<Record> {
    let (now, name) = (writer.now(), PEOPLE[op.n[0] as usize % 2]);
    // A token out of a few, so that tokens repeat.
    let token = TokenEvidence {
        issuer: "https://idp.example".into(),
        id: format!("id{}", op.n[1] % 4),
        expires_at: now + [9_000, 10 * MINUTE][(op.n[2] >> 3) as usize % 2],
    };
    // Sometimes for longer than a login may last.
    let end = now + [30_000, 10 * MINUTE, LOGIN_TTL_MS, LOGIN_TTL_MS + 1][op.n[2] as usize % 4];
    let environment = ENVIRONMENTS[(op.n[2] >> 5) as usize % 2];
    let login = LoggedIn {
        credential: id.to_vec(),
        person: Some(person(name)),
        caller: caller(name),
        issued_at: now,
        expires_at: end,
        key: CA.into(),
        svid: Some(SvidEvidence { serial: id.to_vec(), not_after: end, ..svid(&caller(name), 0) }),
        certificate: [id, id].concat(),
        token: Some(token.clone()),
        environment: environment.into(),
        policy_version: policy_in_force(&writer.state, environment),
        ..Default::default()
    };
    let used = UsedOnce {
        digest: id_token_used(&token.issuer, &token.id).to_vec(),
        until: token.expires_at + 2 * CLOCK_SKEW_MS,
        ..UsedOnce::default()
    };
    let record = |event| Record::new(Author::Person(person(name)), event);
    let mut group = vec![record(Event::UsedOnce(used)), record(Event::LoggedIn(login.into()))];
    // Sometimes without using up the token.
    if op.once_in(3, 0, 9) {
        group.remove(0);
    }
    group
}

pub fn sign_out(writer: &Writer, op: &Op) -> Option<Record> {
    let login = login(writer, op, 1)?;
    let out = LoggedOut { credential: login.id.as_bytes().to_vec() };
    Some(Record::new(Author::Person(login.person.clone()), Event::LoggedOut(out)))
}

/// Sets on whose behalf a task is opened, or by whose login.
pub fn behind(writer: &Writer, op: &Op, opened: &mut TaskOpened) {
    if op.once_in(2, 17, 4) {
        let life = [30_000, 10 * MINUTE, DAY][(op.n[2] >> 19) as usize % 3];
        let token = TokenEvidence {
            issuer: "https://idp.example".into(),
            id: format!("t{}", op.n[3] % 3),
            expires_at: writer.now() + life,
        };
        // Sometimes the task would outlive the token: the fold has to refuse it.
        if !op.once_in(2, 21, 6) {
            opened.max_deadline = opened.max_deadline.min(token.expires_at);
            opened.deadline = opened.deadline.min(opened.max_deadline);
        }
        (opened.owner, opened.subject_token) = (Some(person("ada")), Some(token));
        opened.actors = vec![workload(&opened.opener)];
    }
    if !op.once_in(2, 15, 6) {
        return;
    }
    if let Some(login) = login(writer, op, 3).filter(|_| op.once_in(3, 18, 2)) {
        opened.ancestor = login.id.as_bytes().to_vec();
    } else if let Some(shown) = live(writer, op, 3) {
        opened.ancestor = shown.id().as_bytes().to_vec();
        opened.ancestors = shown.ancestors().to_vec();
        opened.ancestors.push(Ancestor { credential: opened.ancestor.clone(), caller: shown.caller().into() });
    }
}

impl Model {
    pub fn login(&self, id: &[u8]) -> Option<(&Line, &LoggedIn)> {
        self.now_valid().find_map(|(l, e)| match e {
            Event::LoggedIn(login) if login.credential == id => Some((l, &**login)),
            _ => None,
        })
    }

    fn given_back(&self, id: &[u8]) -> bool {
        self.now_valid().any(|(_, e)| matches!(e, Event::LoggedOut(out) if out.credential == id))
    }

    pub fn of_login(&self, e: &LoggedIn) -> Grant {
        let who = e.person.clone().unwrap_or_default();
        Grant {
            credentials: vec![e.credential.clone()],
            identities: vec![(domain(&e.caller), e.caller.clone()), (who.issuer, who.sub)],
            environment: e.environment.clone(),
            policy: e.policy_version,
            key: e.key.clone(),
            svid: e.svid.clone().map(|s| (domain(&e.caller), s)),
            token: e.token.as_ref().map(|t| (t.issuer.clone(), t.id.clone())),
            ..Grant::default()
        }
    }

    pub fn logs_in(&self, e: &LoggedIn, r: u64, time: u64) -> Says {
        let token = e.token.clone().unwrap_or_default();
        let digest = id_token_used(&token.issuer, &token.id);
        let used = self.in_group().any(|event| matches!(event, Event::UsedOnce(u) if u.digest == digest));
        let bounds = used
            && self.login(&e.credential).is_none()
            && self.timely(e.issued_at, r, time)
            && e.policy_version > 0
            && e.policy_version == self.policy(&e.environment)
            && self.key(&e.key) == Some(KeyState::Active as i32)
            && e.expires_at > time
            && e.expires_at <= e.issued_at + LOGIN_TTL_MS;
        both(yes(bounds), self.blocked(&self.of_login(e), r, time))
    }

    pub fn logs_out(&self, e: &LoggedOut, time: u64) -> Says {
        match self.login(&e.credential) {
            Some((_, login)) if !self.given_back(&e.credential) => match login.expires_at < time {
                true => Says::Either,
                false => Says::Valid,
            },
            _ => Says::Void,
        }
    }

    pub fn signed_in(&self, id: &[u8], now: u64) -> bool {
        self.login(id).is_some_and(|(line, e)| {
            !self.given_back(id)
                && e.expires_at > now
                && self.covered(&self.of_login(e), line.record.revision, self.head).is_none()
        })
    }
}

/// For every login ever made: it is valid in the state exactly if it is in the model, and a token made only one login while it was valid.
pub fn check(world: &World) -> Result<(), Found> {
    let (state, model): (&State, _) = (&world.observer, &world.model);
    for (_, event) in model.now_valid() {
        let Event::LoggedIn(login) = event else { continue };
        let Some(id) = CredentialId::from_slice(&login.credential) else { return Err("a login without an id".into()) };
        let (stands, naive) = (state.login_alive(&id, state.time), model.signed_in(&login.credential, state.time.0));
        if stands.is_ok() != naive {
            return Err(format!("the state says {:?} of {login:?}, the model {naive}", stands.map(|_| ())));
        }
    }
    Ok(())
}
