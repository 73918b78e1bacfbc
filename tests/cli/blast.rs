//! `mayfly blast-radius`: arguments, requests and output.

use mayfly::pb::mayfly::v1 as pb;

use crate::answers::{at, hits};
use crate::double::Stage;

#[test]
fn what_would_be_hit_is_shown_by_name() {
    let stage = Stage::new();
    stage.double.on(|q: pb::BlastRadiusRequest| {
        assert_eq!((q.targets.len(), q.most), (2, 1));
        let item = pb::BlastItem { name: "spiffe://a/\u{1b}[1mb".into(), credentials: 7 };
        let sort = pb::BlastSort { of: pb::BlastOf::Caller.into(), count: 3, items: vec![item] };
        Ok(pb::BlastRadiusResponse { hits: hits(9, 4, 3), made_elsewhere: 0, sorts: vec![sort], last_ends_at: at(0) })
    });
    let line = "blast-radius --upstream echo --caller spiffe://a/b --most 1";
    let ran = stage.run(line);
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.stderr.contains("would hit 9 credentials, 4 tasks, 3 callers; nothing was done"), "{}", ran.stderr);
    assert!(ran.stderr.contains("2 more of caller"), "{}", ran.stderr);
    assert!(ran.stdout.contains("CREDENTIALS") && ran.stdout.contains('7') && !ran.stdout.contains('\u{1b}'), "{}", ran.stdout);
    let json = stage.run(&format!("{line} -o json")).json();
    assert_eq!((&json["hits"]["credentials"], &json["sorts"][0]["of"]), (&9.into(), &"caller".into()));
    assert_eq!(stage.run("blast-radius").exit, 2);
    assert_eq!(stage.run("blast-radius --upstream echo --most 0").exit, 2);
}
