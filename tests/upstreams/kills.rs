//! SIGKILL at each step of each kind of databases, one by one: the gate before the database holds the statement that marks the step until the
//! server is dead. Whenever that is, no account without an owner stays, and no account that a
//! caller has disappears.

use std::collections::BTreeSet;
use std::sync::Mutex;

use mayfly::pb::mayfly::v1 as pb;
use tonic::Status;

use super::cluster::{Cluster, cluster};
use super::gate::{Gate, When};
use super::mariadb::mariadb;
use super::redis::redis;
use super::rig::{Rig, exchange, login, wanted_of};

/// A database whose connector is killed.
pub trait Killed: Sync {
    const KIND: pb::CredentialKind;
    /// From the request to the answer, in this order.
    const MAKING: &'static [(&'static str, When)];
    /// From the end of a credential to the end of its lease.
    const UNDOING: &'static [(&'static str, When)];

    /// A gate before the server.
    fn gate(&self) -> Gate;
    /// A world with this upstream behind a port, and its server.
    fn rig(&self, name: &str, port: u16) -> Rig;
    /// The accounts that mayfly made for an upstream, in order.
    fn accounts(&self, name: &str) -> Vec<String>;
    /// Uses a login, and returns what it reads.
    fn used(&self, login: &pb::DatabaseLogin) -> String;
}

impl Killed for Cluster {
    const KIND: pb::CredentialKind = pb::CredentialKind::Postgres;
    const MAKING: &'static [(&'static str, When)] = &POSTGRES_MAKING;
    const UNDOING: &'static [(&'static str, When)] = &POSTGRES_UNDOING;

    fn gate(&self) -> Gate {
        Gate::before(self.port)
    }

    fn rig(&self, name: &str, port: u16) -> Rig {
        Rig::of(name, &format!("postgres://127.0.0.1:{port}/orders"), "plaintext = true")
    }

    fn accounts(&self, name: &str) -> Vec<String> {
        self.roles_of(name)
    }

    fn used(&self, login: &pb::DatabaseLogin) -> String {
        let mut psql = self.psql(&login.user, &login.password, &login.database);
        let used = psql.args(["-c", "SELECT what FROM public.orders WHERE id = 1"]).output();
        String::from_utf8(used.unwrap().stdout).unwrap()
    }
}

/// The steps of PostgreSQL.
const POSTGRES_MAKING: [(&str, When); 7] = [
    // The lease is durable, and nothing was asked of the database.
    ("BEGIN", When::Before),
    // Asked, but not carried out.
    ("CREATE ROLE", When::Before),
    // Carried out, but not committed.
    ("CREATE ROLE", When::After),
    ("GRANT SELECT", When::After),
    // On its way: it is committed when the server is dead.
    ("COMMIT", When::Before),
    // Committed, but not answered.
    ("COMMIT", When::After),
    // The limits of a session that was opened for nothing.
    ("SET statement_timeout", When::After),
];

/// As [`POSTGRES_MAKING`].
const POSTGRES_UNDOING: [(&str, When); 10] = [
    ("ALTER ROLE", When::Before),
    ("ALTER ROLE", When::After),
    ("SELECT pg_terminate_backend", When::After),
    ("GRANT mayfly_", When::After),
    ("DROP OWNED", When::Before),
    ("DROP OWNED", When::After),
    ("DROP ROLE", When::After),
    ("COMMIT", When::Before),
    ("COMMIT", When::After),
    ("SELECT EXISTS", When::After),
];

/// Runs several lives at once, because most of each is waiting.
fn in_turns<T: Sync>(all: &[T], life: impl Fn(usize, &T) + Sync) {
    let next = Mutex::new(all.iter().enumerate());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some((n, one)) = next.lock().unwrap().next() else { return };
                    life(n, one);
                }
            });
        }
    });
}

/// A rig with a task and one credential that was acknowledged.
struct Life<'d, D> {
    database: &'d D,
    gate: Gate,
    rig: Rig,
    name: String,
    task: String,
    first: pb::Issued,
}

type Asked = tokio::task::JoinHandle<Result<pb::Issued, Status>>;

impl<D: Killed> Life<'_, D> {
    fn new(database: &D, name: String) -> Life<'_, D> {
        let gate = database.gate();
        let rig = database.rig(&name, gate.port);
        let task = rig.open(&name);
        let first = rig.exchange(wanted_of(D::KIND, &name, &task, "orders:read", "first")).unwrap();
        assert_eq!(first.novelty(), pb::Novelty::New);
        Life { database, gate, rig, name, task, first }
    }

    fn wanted(&self, request_id: &str) -> pb::ExchangeRequest {
        wanted_of(D::KIND, &self.name, &self.task, "orders:write", request_id)
    }

    /// Sends the request without waiting for the answer.
    fn ask(&self, request_id: &str) -> Asked {
        let agent = self.rig.runtime.block_on(self.rig.agent());
        self.rig.runtime.spawn(exchange(agent, self.wanted(request_id)))
    }

    /// Waits for the step, and kills the server there.
    fn kill_at(&mut self, (word, when): (&str, When), act: impl FnOnce(&Self)) {
        self.gate.hold(word, when);
        act(self);
        self.gate.wait_held();
        self.rig.kill();
        self.gate.release();
    }

    fn settled(&self, what: &str) -> BTreeSet<String> {
        self.rig.settled_with(|| self.database.accounts(&self.name), &self.name, what)
    }

    /// Starts the server again. Afterwards every account has an owner, and everything acknowledged is still there.
    fn back(&mut self, what: &str) -> BTreeSet<String> {
        self.rig.start();
        let active = self.settled(what);
        assert!(active.contains(&self.first.credential_id), "{what}: what was acknowledged is gone");
        active
    }

    fn end(self, what: &str) {
        self.rig.complete(&self.task);
        assert_eq!(self.settled(what), BTreeSet::new(), "{what}: the task is over");
        assert_eq!(self.database.accounts(&self.name), Vec::<String>::new(), "{what}");
    }
}

fn killed_while_making<D: Killed>(database: &D, name: &str) {
    in_turns(D::MAKING, |n, step| {
        let what = format!("making, killed at {step:?}");
        let mut life = Life::new(database, format!("{name}making{n}"));
        let mut asked = None;
        life.kill_at(*step, |life| asked = Some(life.ask("second")));
        let told = life.rig.runtime.block_on(asked.unwrap()).unwrap();
        let active = life.back(&what);
        if let Ok(told) = told {
            assert!(active.contains(&told.credential_id), "{what}: what was acknowledged is gone");
        }
        // The same request again gets a login that works.
        let again = life.rig.exchange(life.wanted("second")).unwrap();
        assert_eq!(database.used(&login(&again)), "a book\n", "{what}");
        life.end(&what);
    });
}

fn killed_while_undoing<D: Killed>(database: &D, name: &str) {
    in_turns(D::UNDOING, |n, step| {
        let what = format!("undoing, killed at {step:?}");
        let mut life = Life::new(database, format!("{name}undoing{n}"));
        let second = life.rig.exchange(life.wanted("second")).unwrap();
        life.kill_at(*step, |life| {
            life.rig.operated(&["revoke", "--credential", &second.credential_id, "--reason", "a test"]);
        });
        let active = life.back(&what);
        assert!(!active.contains(&second.credential_id), "{what}: it was revoked");
        life.end(&what);
    });
}

#[test]
fn killed_at_each_step_of_making_nothing_without_an_owner_stays() {
    if let Some(cluster) = cluster() {
        killed_while_making(cluster, "");
    }
}

#[test]
fn killed_at_each_step_of_undoing_nothing_of_it_stays() {
    if let Some(cluster) = cluster() {
        killed_while_undoing(cluster, "");
    }
}

#[test]
fn killed_at_each_step_of_making_a_user_of_mysql_nothing_without_an_owner_stays() {
    if let Some(server) = mariadb() {
        killed_while_making(server, "my");
    }
}

#[test]
fn killed_at_each_step_of_undoing_a_user_of_mysql_nothing_of_it_stays() {
    if let Some(server) = mariadb() {
        killed_while_undoing(server, "my");
    }
}

#[test]
fn killed_at_each_step_of_making_a_user_of_redis_nothing_without_an_owner_stays() {
    if let Some(server) = redis() {
        killed_while_making(server, "rd");
    }
}

#[test]
fn killed_at_each_step_of_undoing_a_user_of_redis_nothing_of_it_stays() {
    if let Some(server) = redis() {
        killed_while_undoing(server, "rd");
    }
}
