//! Ceilings, counts, credentials given back, and all-or-nothing batches.

use super::*;

#[test]
fn more_than_one_needs_a_confirmation_that_may_be_a_tenth_off() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        for _ in 0..21 {
            house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await.unwrap();
        }
        let ask = |confirm| RevocationRequest {
            targets: vec![Target::Task(task)],
            issued_only: false,
            force: true,
            reason: "a test".into(),
            confirm,
            named: None,
        };
        let admitted = operator(&house);
        for too_little in [RevocationConfirmation::None, RevocationConfirmation::Count(19)] {
            assert_eq!(
                reason(house.authority.revoke(&admitted, Some(&locks(&house)), &ask(too_little)).await),
                Reason::ConfirmNeeded
            );
        }
        assert_eq!(house.authority.hits(&[Target::Task(task)]).await.unwrap().0.credentials, 21, "nothing was revoked");
        let done =
            house.authority.revoke(&admitted, Some(&locks(&house)), &ask(RevocationConfirmation::Count(20))).await.unwrap();
        assert_eq!(done.hits.credentials, 21);
        assert_eq!(house.authority.hits(&[Target::Task(task)]).await.unwrap().0.credentials, 0);
    });
}

#[test]
fn what_was_hit_is_told_also_where_nothing_was_counted_first() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let other = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        for n in 0..5 {
            let at = TaskChoice::Named(if n < 3 { task } else { other });
            house.authority.exchange(&agent, &wanted(at)).await.unwrap();
        }
        let all = |targets: Vec<Target>, name: &str| RevocationRequest {
            targets,
            issued_only: true,
            force: true,
            reason: "a test".into(),
            confirm: RevocationConfirmation::All,
            named: Some((name.into(), [1; 32])),
        };
        // The target task closes the task; credentials in it must still be counted as live before that.
        let caller = || Target::Caller("spiffe://dev.mayfly.internal/agent/demo".into());
        let ask = all(vec![Target::Task(task), caller()], "first");
        let done = house.authority.revoke(&operator(&house), Some(&locks(&house)), &ask).await.unwrap();
        assert_eq!((done.hits.credentials, done.hits.tasks, done.hits.callers), (5, 2, 1));
        assert_eq!(done.each.iter().map(|h| (h.credentials, h.tasks)).collect::<Vec<_>>(), [(3, 1), (5, 2)]);
        let repeat = house.authority.revoke(&operator(&house), Some(&locks(&house)), &ask).await.unwrap();
        assert_eq!((repeat.seq, repeat.hits), (done.seq, done.hits), "a repeat tells the same");
        let again =
            house.authority.revoke(&operator(&house), Some(&locks(&house)), &all(vec![caller()], "second")).await.unwrap();
        assert_eq!(again.hits.credentials, 0, "they were dead before");
    });
}

#[test]
fn a_reference_is_found_by_introspection_and_a_forged_one_is_not() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let mut want = wanted(TaskChoice::Named(task));
        want.kind = Some(mayfly::upstream::registry::Kind::Reference);
        let good = token(house.authority.exchange(&agent, &want).await.unwrap());
        assert!(good.starts_with("mfr_") && active(&house, &good).await);
        let mut forged = good.clone().into_bytes();
        let last = forged.len() - 3;
        forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
        assert!(!active(&house, &String::from_utf8(forged).unwrap()).await);
        // A server of the credential's upstream may introspect it; another workload gets the answer for an unknown token.
        let server = IntrospectionCaller::Workload(house.caller("/service/echo"));
        assert!(house.authority.introspect(&server, &good, |_, _| ()).await.unwrap().is_some());
        let stranger = IntrospectionCaller::Workload(house.caller("/ci/demo"));
        assert!(house.authority.introspect(&stranger, &good, |_, _| ()).await.unwrap().is_none());
    });
}

#[test]
fn walls_and_bounds_hold() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let refused = |change: &dyn Fn(&mut mayfly::policy::exchange_request::ExchangeRequest)| {
            let mut want = wanted(TaskChoice::Named(task));
            change(&mut want);
            want
        };
        let cases: Vec<(Reason, mayfly::policy::exchange_request::ExchangeRequest)> = vec![
            (Reason::NotFound, refused(&|w| w.upstream = "nothing".into())),
            (Reason::OutsideTask, refused(&|w| (w.upstream, w.scopes) = ("tickets".into(), ["tickets:read".into()].into()))),
            (Reason::OutsideTask, refused(&|w| w.scopes = ["echo:write".into()].into())),
            (Reason::OutsideUpstream, refused(&|w| w.scopes = ["echo:fly".into()].into())),
            (Reason::OutsideUpstream, refused(&|w| w.kind = Some(mayfly::upstream::registry::Kind::Ssh))),
            (Reason::InvalidField, refused(&|w| w.ttl_ms = Some(10))),
        ];
        for (expected, want) in cases {
            assert_eq!(reason(house.authority.exchange(&agent, &want).await), expected, "{want:?}");
        }
        // Another caller's task does not exist for the caller.
        let ci = house.caller("/ci/demo");
        assert_eq!(reason(house.authority.exchange(&ci, &wanted(TaskChoice::Named(task))).await), Reason::NotFound);
        let nobody = house.caller("/unknown/x");
        assert_eq!(reason(house.authority.open_task(&nobody, &terms(), &None, false).await), Reason::DeniedByPolicy);
    });
}

#[test]
fn giving_back_ends_a_credential_and_is_safe_to_repeat() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let issued = house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await.unwrap();
        let (own, token) = (id(&issued), token(issued));
        assert_eq!(reason(house.authority.release(&house.caller("/ci/demo"), own).await), Reason::NotFound);
        let seq = house.authority.release(&agent, own).await.unwrap();
        assert_eq!(house.authority.release(&agent, own).await.unwrap(), seq);
        assert!(!active(&house, &token).await);
    });
}

#[test]
fn all_or_nothing_is_one_group() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let good = || wanted(TaskChoice::Named(task));
        let mut bad = good();
        bad.scopes = ["echo:write".into()].into();
        let (n, no) = house.authority.exchange_all(&agent, &[good(), bad, good()]).await.err().unwrap();
        assert_eq!((n, reason::<()>(Err(no))), (1, Reason::OutsideTask));
        assert_eq!(house.authority.ledger.peek(|s| s.issued), 0);
        let all = house.authority.exchange_all(&agent, &[good(), good(), good()]).await.map_err(|e| e.0).unwrap();
        let seqs: std::collections::BTreeSet<_> = all.iter().map(IssuedCredential::seq).collect();
        assert_eq!(seqs.len(), 3, "each has a seq of its own");
    });
}

/// Invariant 4: the arguments count, not the way in which their JSON is written.
#[test]
fn arguments_written_otherwise_or_sent_as_their_digest_are_the_same_request() {
    use mayfly::pb::mayfly::v1 as pb;
    use pb::arguments::Arguments;
    let ask = |arguments| pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(mayfly::seq::TaskId::from_bytes([1; 16]).to_string())),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        tool: "read".into(),
        arguments: Some(pb::Arguments { arguments: Some(arguments) }),
        request_id: "r".into(),
        ..Default::default()
    };
    let wanted = |arguments| mayfly::policy::exchange_request::ExchangeRequest::from_pb(ask(arguments)).unwrap();
    let one = wanted(Arguments::Json("{\"b\":1,\"a\":[2]}".into()));
    let digest = mayfly::ledger::commit::sha256(b"{\"a\":[2],\"b\":1}");
    assert_eq!(one.arguments, Some(digest), "RFC 8785");
    for same in [Arguments::Json("{ \"a\": [2.0], \"b\": 1 }".into()), Arguments::Sha256(digest.to_vec().into())] {
        assert_eq!(wanted(same).digest, one.digest);
    }
    assert_ne!(wanted(Arguments::Json("{\"b\":1,\"a\":[3]}".into())).digest, one.digest);
    let largest = format!("\"{}\"", "x".repeat(mayfly::limits::ARGUMENTS_BYTES - 2));
    assert!(
        mayfly::policy::exchange_request::ExchangeRequest::from_pb(ask(Arguments::Json(largest.clone() + " "))).is_err(),
        "16 KiB and one"
    );
    wanted(Arguments::Json(largest));
    // Arguments that round to the same number are different: an approval for one must not serve for the other.
    for other in [
        "{\"id\":1234567890123456789}",
        "{\"id\":1234567890123456700}",
        "{\"id\":9007199254740993}",
        "{\"n\":1.0000000000000001}",
    ] {
        let no = mayfly::policy::exchange_request::ExchangeRequest::from_pb(ask(Arguments::Json(other.into()))).err().unwrap();
        assert!(no.to_string().contains("a double does not hold"), "{no}");
    }
}

/// The cases that the tests of every language read, so that all clients refuse or equate the same arguments.
#[test]
fn no_two_sets_of_arguments_have_one_digest() {
    let text = include_str!("../vectors/arguments/cases.json");
    let cases: serde_json::Value = serde_json::from_str(text).unwrap();
    let digest = mayfly::policy::exchange_request::digest_of_json;
    let texts = |of: &serde_json::Value| -> Vec<String> {
        of.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut seen = std::collections::BTreeSet::new();
    for case in cases["accepted"].as_array().unwrap() {
        let expected = mayfly::ledger::commit::sha256(case["canonical"].as_str().unwrap().as_bytes());
        for written in texts(&case["json"]) {
            assert_eq!(digest(&written).unwrap_or_else(|no| panic!("{written}: {no}")), expected, "{written}");
        }
        assert!(seen.insert(expected), "{case}");
    }
    for wrong in texts(&cases["refused"]) {
        assert!(digest(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_renewal_lives_as_long_as_was_asked_for() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        // In seconds, since a signed credential expires at a whole second.
        let life =
            |issued: &IssuedCredential| issued.summary().about.expires_at.since(issued.summary().about.issued_at).div_ceil(1_000);
        let mut ask = wanted(TaskChoice::Named(task));
        ask.ttl_ms = Some(10_000);
        let short = house.authority.exchange(&agent, &ask).await.unwrap();
        let again = house.authority.renew(&agent, id(&short), None, None, None).await.unwrap();
        assert_eq!((life(&short), life(&again)), (10, 10));
        let longer = house.authority.renew(&agent, id(&again), Some(20_000), None, None).await.unwrap();
        let again = house.authority.renew(&agent, id(&longer), None, None, None).await.unwrap();
        assert_eq!(life(&again), 20, "as the one that is renewed was asked for");
        // No lifetime is requested, so the registration's default applies each time.
        ask.ttl_ms = None;
        let first = house.authority.exchange(&agent, &ask).await.unwrap();
        let again = house.authority.renew(&agent, id(&first), None, None, None).await.unwrap();
        assert_eq!(life(&again), life(&first));
    });
}

#[test]
fn the_shortest_ttl_that_may_be_asked_for_is_issued_at_whatever_part_of_a_second() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        for ms in [0, 1, 498, 500, 999] {
            house.clock.advance(ms);
            let ask = |ttl_ms| ExchangeRequest { ttl_ms: Some(ttl_ms), ..wanted(TaskChoice::Inline(terms().into())) };
            let least = mayfly::limits::CREDENTIAL_TTL_MIN_MS;
            house.authority.exchange(&agent, &ask(least)).await.unwrap();
            let Err(Error::Refusal(no)) = house.authority.exchange(&agent, &ask(least - 1)).await else { panic!("{ms}") };
            assert_eq!((no.reason, no.field), (Reason::InvalidField, Some("ttl")), "{no}");
            assert!(no.message.contains("at least 2 s"), "{no}");
        }
    });
}
