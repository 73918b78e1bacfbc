//! Tests that the quick check and the full check agree, whatever happens.

use proptest::prelude::*;

use super::*;
use crate::revocation::follower::{Follower, FollowerRefusal, Heartbeat, Lifetime, Moment};
use crate::revocation::target::one_of_each;
use crate::revocation::{FeedEvent, FeedSnapshot, SvidFacts};
use crate::seq::{CredentialId, Millis, TaskId};

const NOW: Moment = Moment { wall: Millis(1_000_000), steady: 1_000 };
const LIFE: Lifetime = Lifetime { issued_at: Millis(1_000_000), expires_at: Millis(1_300_000) };

fn seq(n: u64) -> Seq {
    Seq::from_u64(n).unwrap()
}

/// A small number of names, so that rules and tokens meet.
fn name(n: u8) -> String {
    ["a", "b", "c", "spiffe://a", "spiffe://a/b", "spiffe://a/b/c", "spiffe://a/bc"][usize::from(n % 7)].to_owned()
}

fn target() -> impl Strategy<Value = Target> {
    (0..17usize, 0u8..7, 0u8..7).prop_map(|(sort, a, b)| {
        let (x, y): (Box<str>, Box<str>) = (name(a).into(), name(b).into());
        match sort {
            0 => Target::Credential(CredentialId::from_bytes([a; 16])),
            1 => Target::Task(TaskId::from_bytes([a; 16])),
            2 => Target::Caller(x),
            3 => Target::Prefix(x),
            4 => Target::TrustDomain(x),
            5 => Target::TrustAnchor([a; 32]),
            6 => Target::Subject(x, y),
            7 => Target::Upstream(x),
            8 => Target::UpstreamScope(x, y),
            9 => Target::Binding(x),
            10 => Target::Tool(x),
            11 => Target::Environment(x),
            12 => Target::PolicyBelow(x, u64::from(b)),
            13 => Target::SigningKey(x),
            14 => Target::Svid(x, [a; 32], vec![b].into()),
            15 => Target::SubjectToken(x, y),
            _ => Target::Everything,
        }
    })
}

/// The claims of a token, as numbers.
type Says = (u64, Vec<u8>, Vec<u8>, Vec<(u8, u8)>, [u8; 6], Option<(u8, u8)>, Option<(u8, u8)>);

fn says() -> impl Strategy<Value = Says> {
    let few = || prop::collection::vec(0u8..7, 0..3);
    let pair = || (0u8..7, 0u8..7);
    let revision = prop_oneof![9 => 0u64..60, 1 => Just(Seq::LAST.as_u64())];
    let some = || prop::option::of((0u8..7, 0u8..7));
    (revision, few(), few(), prop::collection::vec(pair(), 0..4), any::<[u8; 6]>(), some(), some())
}

fn with<T>((revision, credentials, tasks, who, names, svid, token): &Says, ask: impl FnOnce(&Facts<'_>) -> T) -> T {
    let text: Vec<String> = (0..7).map(name).collect();
    let of = |n: u8| text[usize::from(n % 7)].as_str();
    let or_none = |n: u8| if n % 9 > 6 { "" } else { of(n) };
    let (digest, serial) = svid.map_or(([0; 32], [0]), |(a, b)| ([a; 32], [b]));
    let facts = Facts {
        revision: seq(*revision),
        credentials: credentials.iter().map(|n| CredentialId::from_bytes([*n; 16])).collect(),
        tasks: tasks.iter().map(|n| TaskId::from_bytes([*n; 16])).collect(),
        identities: who.iter().map(|(a, b)| (or_none(*a), of(*b))).collect(),
        upstream: or_none(names[0]),
        scopes: who.iter().map(|(a, _)| of(*a)).collect(),
        binding: or_none(names[1]),
        tool: or_none(names[2]),
        environment: or_none(names[3]),
        policy: u64::from(names[4] % 8),
        key: or_none(names[5]),
        svid: svid.map(|(a, _)| SvidFacts { trust_domain: of(a), anchor: &digest, issuing_key: &digest, serial: &serial }),
        subject_token: token.map(|(a, b)| (of(a), of(b))),
        rests_on: Vec::new(),
    };
    // A third of the tokens depend on one other grant only.
    ask(&if names[5] % 3 == 0 { Facts { revision: seq(*revision), rests_on: vec![facts], ..Facts::default() } } else { facts })
}

/// What happens to a follower.
#[derive(Clone, Debug)]
enum Step {
    Rule(Vec<Target>, Option<u64>),
    Hold(u8),
    Resume(u8),
    /// Time passes and rules expire.
    Beat(u64),
    /// The follower begins anew with a snapshot of these rules and holds.
    Snapshot(Vec<(Target, u64)>, Vec<u8>),
    Check(Says),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (prop::collection::vec(target(), 1..4), prop::option::of(0u64..100_000)).prop_map(|(t, until)| Step::Rule(t, until)),
        1 => (0u8..7).prop_map(Step::Hold),
        1 => (0u8..7).prop_map(Step::Resume),
        1 => (0u64..30_000).prop_map(Step::Beat),
        1 => (prop::collection::vec((target(), 0u64..60), 0..6), prop::collection::vec(0u8..7, 0..2))
            .prop_map(|(rules, holds)| Step::Snapshot(rules, holds)),
        8 => says().prop_map(Step::Check),
    ];
    prop::collection::vec(step, 1..60)
}

/// A follower, its position and its time.
struct World {
    follower: Follower,
    at: u64,
    now: Moment,
}

impl World {
    fn new() -> World {
        let mut world = World { follower: Follower::new(), at: 0, now: NOW };
        world.take(&Step::Snapshot(Vec::new(), Vec::new()));
        world
    }

    fn beat(&mut self, ms: u64) {
        self.now = Moment { wall: self.now.wall.plus(ms), steady: self.now.steady + ms };
        let (head, fresh_at) = (seq(self.at), self.now.wall);
        let beat = Heartbeat { head, previous: head, fresh_at, max_age: 30_000, time_generation: 1 };
        self.follower.heartbeat(beat, self.now).unwrap();
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Beat(ms) => return self.beat(*ms),
            Step::Check(_) => return,
            _ => {}
        }
        let previous = seq(self.at);
        self.at += 1;
        let seq = seq(self.at);
        let task = |n: &u8| TaskId::from_bytes([*n; 16]);
        let event = match step {
            Step::Rule(targets, until) => {
                let drop_after = until.map(|ms| NOW.wall.plus(ms));
                FeedEvent::Rule { seq, targets: targets.clone(), drop_after, locks: false }
            }
            Step::Hold(n) => FeedEvent::Hold { seq, task: task(n) },
            Step::Resume(n) => FeedEvent::Resume { seq, task: task(n) },
            Step::Snapshot(rules, holds) => {
                let rules = rules.iter().map(|(t, n)| (t.clone(), self::seq(*n), None)).collect();
                self.follower.begin(&FeedSnapshot { seq, rules, holds: holds.iter().map(task).collect() }).unwrap();
                return self.beat(1);
            }
            Step::Beat(_) | Step::Check(_) => return,
        };
        self.follower.apply(previous, &event).unwrap();
    }

    /// The quick check as [`Checker`](crate::check::Checker) does it.
    fn quick(&self, asked: &ProbeHashes, facts: &Facts<'_>, life: Lifetime) -> Result<(), FollowerRefusal> {
        if self.follower.touches(asked) {
            self.follower.check(facts, life, self.now)
        } else {
            self.follower.lives(life, self.now)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn the_quick_way_and_the_plain_way_agree(steps in steps()) {
        let mut world = World::new();
        // Computed when a token is first seen and then reused.
        let mut known: Vec<(Says, ProbeHashes)> = Vec::new();
        for step in steps {
            world.take(&step);
            if let Step::Check(says) = step {
                let asked = with(&says, |facts| facts.asked());
                known.push((says, asked));
            }
            let life = Lifetime { expires_at: world.now.wall.plus(1_000), ..LIFE };
            for (says, asked) in &known {
                with(says, |facts| {
                    prop_assert_eq!(world.quick(asked, facts, life), world.follower.check(facts, life, world.now));
                    Ok(())
                })?;
            }
        }
    }

    #[test]
    fn marks_are_made_anew_when_many_have_ended_and_grow_with_what_is_in_force(rules in 1u32..900) {
        let mut world = World::new();
        let tool = |n: u32| Target::Tool(format!("tool-{n}").into());
        world.take(&Step::Rule((0..rules).map(tool).collect(), Some(100)));
        let facts = Facts { tool: "tool-0", ..Facts::default() };
        prop_assert!(world.follower.touches(&facts.asked()));
        world.beat(5_000);
        prop_assert_eq!(world.follower.rules(), 0);
        // A few ended rules stay marked and are checked by name.
        prop_assert_eq!(world.follower.touches(&facts.asked()), rules <= 64 + rules / 4);
        prop_assert_eq!(world.quick(&facts.asked(), &facts, Lifetime { expires_at: world.now.wall.plus(1), ..LIFE }), Ok(()));
    }
}

#[test]
fn every_target_marks_what_answers_it_and_nothing_else() {
    let facts = Facts {
        revision: seq(1),
        credentials: vec![CredentialId::from_bytes([1; 16])],
        tasks: vec![TaskId::from_bytes([2; 16])],
        identities: vec![("a.example", "spiffe://a.example/ci/x"), ("https://idp.example", "ada")],
        upstream: "github",
        scopes: vec!["repo:write"],
        binding: "b",
        tool: "create_issue",
        environment: "prod",
        policy: 6,
        key: "k1",
        svid: Some(SvidFacts { trust_domain: "a.example", anchor: &[3; 32], issuing_key: &[4; 32], serial: &[5, 6] }),
        subject_token: Some(("https://idp.example", "t-1")),
        rests_on: Vec::new(),
    };
    let resting = Facts { revision: seq(1), rests_on: vec![facts.clone()], ..Facts::default() };
    for facts in [facts, resting] {
        every_target_marks(&facts);
    }
}

fn every_target_marks(facts: &Facts<'_>) {
    let everything = one_of_each().into_iter().find(|t| *t == Target::Everything).unwrap();
    for target in one_of_each() {
        let mut marks = RevocationFilter::default();
        marks.revoked(&target, seq(9));
        assert!(marks.touch(&facts.asked()), "{target}");
        assert_eq!(marks.touch(&Facts::default().asked()), target == everything, "{target}");
        let seen = Facts { revision: seq(9), ..facts.clone() };
        assert_eq!(marks.touch(&seen.asked()), matches!(target, Target::SigningKey(_)), "{target}: the decision saw it");
    }
}

#[test]
fn no_revision_is_above_a_revoked_key_or_a_hold() {
    let facts = Facts { revision: Seq::LAST, key: "k1", tasks: vec![TaskId::from_bytes([2; 16])], ..Facts::default() };
    let mut marks = RevocationFilter::default();
    marks.revoked(&Target::SigningKey("k1".into()), seq(1));
    assert!(marks.touch(&facts.asked()));
    let mut marks = RevocationFilter::default();
    marks.held(TaskId::from_bytes([2; 16]));
    assert!(marks.touch(&facts.asked()));
}
