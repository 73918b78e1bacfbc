//! Cases about following the feed: snapshots, gaps, holds, freshness, clocks that are set, new generations.

use mayfly::seq::Seq;
use serde_json::{Value, json};

use super::kit::*;

pub fn cases() -> Vec<Value> {
    [following(), holds(), freshness(), clocks(), generations()].concat()
}

fn everything() -> Value {
    json!([{"everything": {}}])
}

fn part(at: u64, rules: Value, last: bool) -> Value {
    json!({"seq": at.to_string(), "snapshot": {"rules": rules, "last": last}})
}

fn following() -> Vec<Value> {
    let good = decided_at(seq(R));
    let unknown = "whatever is not known may be revoked";
    let gap = "what names an event before it that was not applied shows a gap: everything is refused until a snapshot came";
    let old = "what was applied already changes nothing";
    let back = "a head below one that was seen in the same generation ends the trust until a new generation: the server runs on an older copy";
    let in_two = Seq::start_of(2).as_u64() + 5;
    vec![
        Case::bare("nothing_is_known", unknown)
            .check(&good, "not_whole")
            .feed(heartbeat(seq(HEAD), seq(HEAD), T0), "no_snapshot")
            .feed(rule(seq(HEAD + 1), seq(HEAD), everything()), "no_snapshot")
            .feed(hold("hold", seq(HEAD + 1), seq(HEAD), &task(1)), "no_snapshot")
            .check(&good, "not_whole")
            .done(),
        Case::bare("a_snapshot_without_a_heartbeat", "nothing says yet how fresh it is")
            .feed(snapshot(seq(HEAD), json!([]), json!([])), "taken")
            .check(&good, "stale")
            .done(),
        Case::bare("a_snapshot_in_parts", "until the last part came, everything is refused; then all parts count")
            .feed(
                part(seq(HEAD + 50), json!([{"seq": seq(R + 1).to_string(), "targets": [{"tool": "create_issue"}]}]), false),
                "taken",
            )
            .check(&good, "not_whole")
            .feed(heartbeat(seq(HEAD + 50), seq(HEAD + 50), T0), "no_snapshot")
            .feed(part(seq(HEAD + 50), json!([{"seq": seq(R + 2).to_string(), "targets": [{"tool": "other"}]}]), true), "taken")
            .feed(heartbeat(seq(HEAD + 50), seq(HEAD + 50), T0), "taken")
            .check(&good, "revoked")
            .check(&decided_at(seq(R + 1)), "accepted")
            .done(),
        Case::new("a_token_before_its_feed", "a bad token is refused for what it is, whole feed or not")
            .feed(rule(seq(HEAD + 5), seq(HEAD + 4), everything()), "gap")
            .check(&with_header(|h| h["alg"] = json!("none")), "algorithm")
            .check(&with(|c| c["aud"] = json!("x")), "audience")
            .check(&good, "not_whole")
            .done(),
        Case::new("a_gap_before_a_rule", gap)
            .check(&good, "accepted")
            .feed(rule(seq(R + 2), seq(R + 1), json!([{"tool": "other"}])), "gap")
            .check(&good, "not_whole")
            .feed(rule(seq(R + 3), seq(HEAD), json!([{"tool": "other"}])), "no_snapshot")
            .feed(heartbeat(seq(R + 3), seq(HEAD), T0), "no_snapshot")
            .check(&good, "not_whole")
            .feed(snapshot(seq(R + 3), json!([]), json!([])), "taken")
            .feed(heartbeat(seq(R + 3), seq(R + 3), T0), "taken")
            .check(&good, "accepted")
            .done(),
        Case::new("a_gap_before_a_heartbeat", gap)
            .feed(heartbeat(seq(R + 2), seq(R + 1), T0), "gap")
            .check(&good, "not_whole")
            .feed(snapshot(seq(R + 2), json!([{"seq": seq(R + 1).to_string(), "targets": everything()}]), json!([])), "taken")
            .feed(heartbeat(seq(R + 2), seq(R + 2), T0), "taken")
            .check(&good, "revoked")
            .done(),
        Case::new("a_gap_before_a_hold", gap)
            .feed(hold("hold", seq(R + 2), seq(R + 1), &task(9)), "gap")
            .check(&good, "not_whole")
            .done(),
        Case::new("a_heartbeat_moves_the_head", "what a heartbeat covers was applied: what comes after it may name it")
            .feed(heartbeat(seq(R + 5), seq(HEAD), T0), "taken")
            .feed(rule(seq(R + 7), seq(R + 5), json!([{"tool": "other"}])), "taken")
            .feed(rule(seq(R + 8), seq(R + 6), json!([{"tool": "other"}])), "taken")
            .check(&good, "accepted")
            .done(),
        Case::new("an_old_event", old)
            .feed(rule(seq(R + 1), seq(HEAD), json!([{"tool": "other"}])), "taken")
            .feed(rule(seq(R + 1), seq(HEAD), everything()), "old")
            .feed(rule(seq(R), seq(HEAD), everything()), "old")
            .check(&decided_at(seq(R - 1)), "accepted")
            .done(),
        Case::new("an_old_heartbeat", back)
            .feed(rule(seq(R + 1), seq(HEAD), json!([{"tool": "other"}])), "taken")
            .check(&good, "accepted")
            .feed(heartbeat(seq(R), seq(HEAD), T0), "old")
            .check(&good, "rolled_back")
            .feed(heartbeat(seq(R + 9), seq(HEAD), T0), "old")
            .feed(rule(seq(R + 9), seq(R + 1), json!([{"tool": "other"}])), "old")
            .feed(snapshot(seq(R + 50), json!([]), json!([])), "old")
            .check(&good, "rolled_back")
            .feed(snapshot(in_two, json!([]), json!([])), "taken")
            .feed(heartbeat(in_two, in_two, T0), "taken")
            .check(&decided_at(in_two), "accepted")
            .done(),
        Case::new("an_old_snapshot", back)
            .feed(rule(seq(R + 1), seq(HEAD), everything()), "taken")
            .feed(snapshot(seq(R), json!([]), json!([])), "old")
            .check(&good, "rolled_back")
            .feed(rule(seq(R + 2), seq(R + 1), json!([{"signingKey": "k1"}])), "old")
            .check(&good, "rolled_back")
            .done(),
        Case::new(
            "another_history",
            "the chain of commits ends otherwise at a commit that was seen: whatever the seq, it is another history",
        )
        .feed(with_heads(seq(R + 1), &[(7, 1)]), "taken")
        .feed(with_heads(seq(R + 1), &[(7, 1)]), "taken")
        .feed(with_heads(seq(R + 3), &[(8, 2)]), "taken")
        .check(&good, "accepted")
        .feed(with_heads(seq(R + 4), &[(8, 3)]), "old")
        .check(&good, "rolled_back")
        .done(),
        Case::new("a_chain_that_ends_before", back)
            .feed(with_heads(seq(R + 1), &[(7, 1)]), "taken")
            .feed(with_heads(seq(R + 2), &[(6, 1)]), "old")
            .check(&good, "rolled_back")
            .done(),
        Case::new("a_head_that_is_none", "what cannot be compared is not taken")
            .feed(with_heads(seq(R + 1), &[(7, 1); 65]), "malformed")
            .check(&good, "accepted")
            .done(),
        Case::new(
            "an_old_snapshot_after_a_gap",
            "what was seen once is not unseen: a snapshot from before it does not make the follower whole",
        )
        .feed(rule(seq(R + 1), seq(HEAD), everything()), "taken")
        .feed(rule(seq(R + 9), seq(R + 8), json!([{"tool": "other"}])), "gap")
        .check(&good, "not_whole")
        .feed(snapshot(seq(R), json!([]), json!([])), "old")
        .feed(heartbeat(seq(R), seq(R), T0), "no_snapshot")
        .check(&good, "rolled_back")
        .done(),
        Case::new(
            "a_newer_snapshot_takes_the_place_of_everything",
            "rules and holds are those of the newest snapshot and what came after it",
        )
        .feed(rule(seq(R + 1), seq(HEAD), everything()), "taken")
        .feed(hold("hold", seq(R + 2), seq(R + 1), &task(1)), "taken")
        .feed(snapshot(seq(R + 3), json!([]), json!([])), "taken")
        .check(&good, "accepted")
        .done(),
    ]
}

/// A heartbeat with the chain end of each writer: the commit, and the input of its hash.
fn with_heads(at: u64, ends: &[(u64, u8)]) -> Value {
    let mut beat = heartbeat(at, seq(HEAD), T0);
    let hash = |byte: u8| data_encoding::BASE64.encode(&[byte; 32]);
    let heads: Vec<Value> = ends
        .iter()
        .map(|(commit, byte)| json!({"writer": "1", "commit": commit.to_string(), "headerSha256": hash(*byte)}))
        .collect();
    beat["heartbeat"]["heads"] = heads.into();
    beat
}

fn holds() -> Vec<Value> {
    let why = "a hold refuses the task and all under it, whatever the revision, until it is resumed";
    let good = decided_at(seq(R));
    let first = json!([{"seq": seq(5).to_string(), "taskId": task(1)}]);
    vec![
        Case::new("a_task_that_is_held", why)
            .feed(hold("hold", seq(R + 1), seq(HEAD), &task(2)), "taken")
            .check(&good, "held")
            .check(&decided_at(seq(R + 5)), "held")
            .feed(hold("resume", seq(R + 2), seq(R + 1), &task(2)), "taken")
            .check(&good, "accepted")
            .done(),
        Case::new("a_task_above_that_is_held", why)
            .feed(hold("hold", seq(R + 1), seq(HEAD), &task(1)), "taken")
            .check(&good, "held")
            .feed(hold("resume", seq(R + 2), seq(R + 1), &task(2)), "taken")
            .check(&good, "held")
            .feed(hold("resume", seq(R + 3), seq(R + 2), &task(1)), "taken")
            .check(&good, "accepted")
            .done(),
        Case::new("another_task_that_is_held", why)
            .feed(hold("hold", seq(R + 1), seq(HEAD), &task(3)), "taken")
            .check(&good, "accepted")
            .done(),
        Case::bare("a_hold_of_the_snapshot", why)
            .feed(snapshot(seq(HEAD), json!([]), first), "taken")
            .feed(heartbeat(seq(HEAD), seq(HEAD), T0), "taken")
            .check(&good, "held")
            .feed(hold("resume", seq(R + 1), seq(HEAD), &task(1)), "taken")
            .check(&good, "accepted")
            .done(),
        Case::new("a_task_that_is_revoked_while_held", "a revocation is asked before holds, and resuming brings nothing back")
            .feed(hold("hold", seq(R + 1), seq(HEAD), &task(2)), "taken")
            .feed(rule(seq(R + 2), seq(R + 1), json!([{"taskId": task(2)}])), "taken")
            .check(&good, "revoked")
            .feed(hold("resume", seq(R + 3), seq(R + 2), &task(2)), "taken")
            .check(&good, "revoked")
            .done(),
    ]
}

fn freshness() -> Vec<Value> {
    let good = decided_at(seq(R));
    let age = "a heartbeat is good for its max_age, and never longer than feed_max_age_ms; at that very age it still is";
    let beat = |max_age: &str, fresh_at: u64| {
        json!({"seq": seq(HEAD).to_string(), "previousSeq": seq(HEAD).to_string(),
            "heartbeat": {"freshAt": timestamp(fresh_at), "maxAge": max_age, "timeGeneration": 1}})
    };
    let with_age = |name: &str, max_age: &str, good_for: u64| {
        Case::bare(name, age)
            .feed(snapshot(seq(HEAD), json!([]), json!([])), "taken")
            .feed(beat(max_age, T0), "taken")
            .after(good_for)
            .check(&good, "accepted")
            .after(1)
            .check(&good, "stale")
            .feed(beat(max_age, T0 + good_for + 1), "taken")
            .check(&good, "accepted")
            .done()
    };
    let unsaid = json!({"seq": seq(HEAD).to_string(), "previousSeq": seq(HEAD).to_string(),
        "heartbeat": {"freshAt": timestamp(T0), "timeGeneration": 1}});
    vec![
        with_age("as_long_as_the_feed_says", "10s", 10_000),
        with_age("with_a_fraction_of_a_second", "1.500s", 1_500),
        with_age("never_longer_than_the_maximum", "3600s", 30_000),
        Case::bare("a_heartbeat_that_does_not_say_how_long", "it is good for that very moment")
            .feed(snapshot(seq(HEAD), json!([]), json!([])), "taken")
            .feed(unsaid, "taken")
            .check(&good, "accepted")
            .after(1)
            .check(&good, "stale")
            .done(),
        Case::new(
            "a_heartbeat_that_was_made_before",
            "age counts from the time at which the view was proven fresh, not from when it came",
        )
        .after(31_000)
        .check(&good, "stale")
        .feed(heartbeat(seq(HEAD), seq(HEAD), T0 + 10_000), "taken")
        .check(&good, "accepted")
        .after(9_001)
        .check(&good, "stale")
        .done(),
        Case::new("a_heartbeat_that_is_older_than_the_newest", "the newest proof counts")
            .after(10_000)
            .feed(heartbeat(seq(HEAD), seq(HEAD), T0 + 10_000), "taken")
            .feed(heartbeat(seq(HEAD), seq(HEAD), T0 + 5_000), "taken")
            .after(30_000)
            .check(&good, "accepted")
            .after(1)
            .check(&good, "stale")
            .done(),
        Case::new("events_are_no_proof", "a rule that comes says nothing of how fresh the view is")
            .after(30_001)
            .feed(rule(seq(R + 1), seq(HEAD), json!([{"tool": "other"}])), "taken")
            .check(&good, "stale")
            .done(),
    ]
}

fn clocks() -> Vec<Value> {
    let good = decided_at(seq(R));
    let back = "a wall clock that is set back neither keeps a feed fresh nor revives what has ended: time is never earlier than the feed proves";
    let forward = "a wall clock that is set forward refuses more, and drops no rule";
    vec![
        Case::new("a_wall_clock_that_is_set_back_keeps_nothing_fresh", back)
            .clocks(T0 - 3_600_000, S0 + 30_000)
            .check(&good, "accepted")
            .clocks(T0 - 3_600_000, S0 + 30_001)
            .check(&good, "stale")
            .done(),
        Case::new("a_wall_clock_that_is_set_back_revives_nothing", back)
            .after(300_000)
            .feed(heartbeat(seq(HEAD), seq(HEAD), T0 + 300_000), "taken")
            .check(&good, "expired")
            .clocks(T0, S0 + 300_000)
            .check(&good, "expired")
            .clocks(T0 + 10, S0 + 300_010)
            .check(&good, "expired")
            .done(),
        Case::new("the_feed_is_ahead_of_the_wall_clock", "the feed's proof and the steady clock since then are the time")
            .clocks(T0 - 1_000_000, S0 + 10)
            .feed(heartbeat(seq(HEAD), seq(HEAD), T0 + 299_000), "taken")
            .check(&good, "accepted")
            .clocks(T0 - 1_000_000, S0 + 509)
            .check(&good, "accepted")
            .clocks(T0 - 1_000_000, S0 + 510)
            .check(&good, "expired")
            .done(),
        Case::new("a_wall_clock_that_is_set_forward_is_stale", forward)
            .clocks(T0 + 30_000, S0)
            .check(&good, "accepted")
            .clocks(T0 + 30_001, S0)
            .check(&good, "stale")
            .clocks(T0 + 400_000, S0)
            .check(&good, "expired")
            .clocks(T0, S0)
            .check(&good, "accepted")
            .done(),
        Case::new(
            "a_proof_that_came_late_to_a_clock_that_is_behind",
            "earlier proofs tell how late it is, up to the skew of who made them",
        )
        .clocks(T0 - 86_400_000, S0 + 100_000)
        .feed(heartbeat(seq(HEAD), seq(HEAD), T0 + 40_000), "taken")
        .check(&good, "accepted")
        .clocks(T0 - 86_400_000, S0 + 100_001)
        .check(&good, "stale")
        .done(),
    ]
}

fn generations() -> Vec<Value> {
    let why = "a new generation begins by revoking everything; only its own proof makes the follower fresh";
    let in_two = |n: u64| Seq::start_of(2).as_u64() + n;
    let turn = |at: u64, previous: u64| rule(at, previous, everything());
    let beat = |head: u64, fresh_at: u64, time_generation: u64| {
        json!({"seq": head.to_string(), "previousSeq": head.to_string(),
            "heartbeat": {"freshAt": timestamp(fresh_at), "maxAge": "30s", "timeGeneration": time_generation}})
    };
    let earlier = T0 - 3_600_000;
    let of_earlier = with(|c| {
        let iat = earlier / 1000;
        (c["iat"], c["nbf"], c["exp"]) = (json!(iat), json!(iat), json!(iat + 300));
        c[OWN]["r"] = json!(in_two(1));
    });
    vec![
        Case::new("a_generation_turns", why)
            .feed(turn(in_two(1), seq(HEAD)), "taken")
            .check(&decided_at(in_two(1)), "stale")
            .feed(beat(in_two(1), T0, 1), "taken")
            .check(&decided_at(in_two(1)), "accepted")
            .check(&decided_at(seq(R)), "revoked")
            .check(&decided_at((2u64 << 45) - 1), "revoked")
            .done(),
        Case::new(
            "a_generation_that_began_at_an_earlier_time",
            "what the one before proved of time is void: time_generation says so",
        )
        .clocks(earlier, S0 + 10)
        .feed(turn(in_two(1), seq(HEAD)), "taken")
        .feed(beat(in_two(1), earlier, 2), "taken")
        .check(&of_earlier, "accepted")
        .done(),
        Case::new(
            "a_generation_that_goes_on_in_time",
            "what the one before proved of time still holds, and so a late proof is late",
        )
        .clocks(earlier, S0 + 3_600_000)
        .feed(turn(in_two(1), seq(HEAD)), "taken")
        .feed(beat(in_two(1), earlier, 1), "taken")
        .check(&of_earlier, "expired")
        .done(),
        Case::new("a_heartbeat_of_the_generation_before", "it comes from a replica that has not seen the turn")
            .feed(turn(in_two(1), seq(HEAD)), "taken")
            .feed(beat(seq(HEAD), T0, 1), "old")
            .check(&decided_at(in_two(1)), "stale")
            .done(),
        Case::new("a_snapshot_of_a_new_generation", why)
            .feed(snapshot(in_two(5), json!([{"seq": in_two(1).to_string(), "targets": everything()}]), json!([])), "taken")
            .check(&decided_at(in_two(2)), "stale")
            .feed(beat(in_two(5), T0, 1), "taken")
            .check(&decided_at(in_two(2)), "accepted")
            .check(&decided_at(seq(R)), "revoked")
            .done(),
    ]
}
