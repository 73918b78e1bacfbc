//! SIGKILL at each step of kind `postgres`, one by one: the gate before the database holds the statement that marks the step until the
//! server is dead. Whenever that is, no role without an owner stays, and no role that a caller has disappears.

use std::collections::BTreeSet;
use std::sync::Mutex;

use mayfly::pb::mayfly::v1 as pb;
use tonic::Status;

use super::cluster::{Cluster, cluster};
use super::gate::{Gate, When};
use super::rig::{Rig, exchange, login, wanted};

/// From the request to the answer, in this order.
const MAKING: [(&str, When); 7] = [
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

/// From the end of a credential to the end of its lease.
const UNDOING: [(&str, When); 10] = [
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
struct Life {
    cluster: &'static Cluster,
    gate: Gate,
    rig: Rig,
    name: String,
    task: String,
    first: pb::Issued,
}

type Asked = tokio::task::JoinHandle<Result<pb::Issued, Status>>;

impl Life {
    fn new(cluster: &'static Cluster, name: String) -> Life {
        let gate = Gate::before(cluster.port);
        let rig = Rig::of(&name, &format!("postgres://127.0.0.1:{}/orders", gate.port), "plaintext = true");
        let task = rig.open(&name);
        let first = rig.exchange(wanted(&name, &task, "orders:read", "first")).unwrap();
        assert_eq!(first.novelty(), pb::Novelty::New);
        Life { cluster, gate, rig, name, task, first }
    }

    /// Sends the request without waiting for the answer.
    fn ask(&self, request_id: &str) -> Asked {
        let agent = self.rig.runtime.block_on(self.rig.agent());
        self.rig.runtime.spawn(exchange(agent, wanted(&self.name, &self.task, "orders:write", request_id)))
    }

    /// Waits for the step, and kills the server there.
    fn kill_at(&mut self, (word, when): (&str, When), act: impl FnOnce(&Life)) {
        self.gate.hold(word, when);
        act(self);
        self.gate.wait_held();
        self.rig.kill();
        self.gate.release();
    }

    /// Starts the server again. Afterwards every role has an owner, and everything acknowledged is still there.
    fn back(&mut self, what: &str) -> BTreeSet<String> {
        self.rig.start();
        let active = self.rig.settled(self.cluster, &self.name, what);
        assert!(active.contains(&self.first.credential_id), "{what}: what was acknowledged is gone");
        active
    }

    fn end(self, what: &str) {
        self.rig.complete(&self.task);
        assert_eq!(self.rig.settled(self.cluster, &self.name, what), BTreeSet::new(), "{what}: the task is over");
        assert_eq!(self.cluster.roles_of(&self.name), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn killed_at_each_step_of_making_nothing_without_an_owner_stays() {
    let Some(cluster) = cluster() else { return };
    in_turns(&MAKING, |n, step| {
        let what = format!("making, killed at {step:?}");
        let mut life = Life::new(cluster, format!("making{n}"));
        let mut asked = None;
        life.kill_at(*step, |life| asked = Some(life.ask("second")));
        let told = life.rig.runtime.block_on(asked.unwrap()).unwrap();
        let active = life.back(&what);
        if let Ok(told) = told {
            assert!(active.contains(&told.credential_id), "{what}: what was acknowledged is gone");
        }
        // The same request again gets a login that works.
        let again = life.rig.exchange(wanted(&life.name, &life.task, "orders:write", "second")).unwrap();
        let login = login(&again);
        let used = cluster
            .psql(&login.user, &login.password, &login.database)
            .args(["-c", "SELECT what FROM public.orders WHERE id = 1"])
            .output();
        assert_eq!(String::from_utf8(used.unwrap().stdout).unwrap(), "a book\n", "{what}");
        life.end(&what);
    });
}

#[test]
fn killed_at_each_step_of_undoing_nothing_of_it_stays() {
    let Some(cluster) = cluster() else { return };
    in_turns(&UNDOING, |n, step| {
        let what = format!("undoing, killed at {step:?}");
        let mut life = Life::new(cluster, format!("undoing{n}"));
        let second = life.rig.exchange(wanted(&life.name, &life.task, "orders:write", "second")).unwrap();
        life.kill_at(*step, |life| {
            life.rig.operated(&["revoke", "--credential", &second.credential_id, "--reason", "a test"]);
        });
        let active = life.back(&what);
        assert!(!active.contains(&second.credential_id), "{what}: it was revoked");
        life.end(&what);
    });
}
