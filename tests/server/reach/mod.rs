//! A revocation reaches exactly the credentials that rest on its target. Every kind of target is revoked for every way in which a
//! credential can rest on another grant (`table.rs`), on a whole server. The dry run, `blast-radius`, the list, the revocation's own
//! answer, the fold before and after a restart, introspection, the shown state and the verifiers of all languages have to agree with the
//! table.
//!
//! The tokens and targets are written to `tests/vectors/verify/reach.json`, with which the verifiers of all languages are tested, and the
//! table to `docs/invariants.md`. `MAYFLY_WRITE_SAMPLES=1 cargo test --test server reach` writes both anew.

mod asked;
mod ground;
mod page;
mod table;
mod vectors;
mod ways;

use std::collections::BTreeSet;

use mayfly::revocation::TargetKind;

use asked::ask;
use ground::target;
use table::{Expected, Way};
use vectors::Vectors;
use ways::World;

#[tokio::test(flavor = "multi_thread")]
async fn every_target_reaches_whatever_rests_on_it_in_every_way() {
    let mut world = World::new().await;
    let (mut vectors, mut wrong, mut targets) = (Vectors::default(), Vec::new(), BTreeSet::new());
    for way in Way::ALL {
        for sort in TargetKind::ALL {
            let expected = way.expected(sort);
            if expected == Expected::NotAsked {
                continue;
            }
            let name = format!("{way:?}: {}", sort.word());
            let case = world.make(way, sort).await;
            let target =
                target(sort, &case.ground).unwrap_or_else(|| panic!("{name}: the test names nothing: {:?}", case.ground));
            targets.extend(target.as_object().unwrap().keys().cloned());
            let answers = ask(&mut world, &name, &case, &target, &mut vectors, way.is_beside(sort)).await;
            wrong.extend(answers.differences(expected).into_iter().map(|what| format!("{name}: {what}; target {target}")));
            world.close(way).await;
        }
    }
    wrong.extend(world.differences_after_a_restart().await);
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
    assert_eq!(targets, vectors::targets_of_the_contract(), "each target of the contract is revoked somewhere in the table");
    vectors.compare();
}
