//! Several credentials in one call: all or none, shared like those of single requests.

use std::time::Duration;

use mayfly_client::{Credential, Error, Mayfly, Settings};
use serde_json::json;

use crate::kit::{Up, until};

/// A request that is shared with equal ones where it names a task.
fn read(mayfly: &Mayfly, purpose: &str) -> mayfly_client::CredentialRequest {
    mayfly.credential("echo").scope("echo:read").purpose(purpose)
}

fn ids(held: &[Credential]) -> Vec<&str> {
    held.iter().map(Credential::credential_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn they_come_in_the_order_asked_and_each_ends_with_its_task() {
    let up = Up::new();
    let mayfly = up.client("agent/demo").await;
    let write = mayfly.credential("echo").scope("echo:write").purpose("a test");
    let held = mayfly.credentials([write, read(&mayfly, "a test"), read(&mayfly, "a test")]).await.unwrap();
    let issued = up.audit("credential issued");
    let scope_of = |id: &str| issued.iter().find(|r| r["body"]["credential"] == id).unwrap().to_string().contains("echo:write");
    assert_eq!(ids(&held).into_iter().map(scope_of).collect::<Vec<_>>(), [true, false, false]);
    assert!(held[1].credential_id() != held[2].credential_id() && held[1].task_id() != held[2].task_id());
    assert!(held.iter().all(|one| one.headers().contains_key("authorization")));
    drop(held);
    until("all three tasks are closed", || async { up.audit("task closed").len() == 3 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_upstream_refuses_there_is_none_and_nothing_stays() {
    let up = Up::new();
    let task = up.task().await;
    let mayfly = up.client("agent/demo").await;
    let opened = up.audit("task opened").len();
    let refused = || mayfly.credential("nowhere").scope("x").purpose("a test");
    let no = mayfly.credentials([read(&mayfly, "a test"), refused()]).await.unwrap_err();
    let Error::Denied(refusal) = &no else { panic!("{no:?}") };
    assert_eq!((&*refusal.reason, &*refusal.upstream), ("NOT_FOUND", "nowhere"));
    assert!(no.to_string().contains("nowhere: ") && !format!("{no} {no:?}").contains("exchanges["), "{no:?}");
    assert!(up.audit("credential issued").is_empty() && up.audit("task opened").len() == opened, "no credential, no task");

    // What was shared before stays, and is left by the batch that was refused.
    let shared = || read(&mayfly, "shared").task(task.clone());
    let before = shared().get().await.unwrap();
    let outside = mayfly.credential("echo").scope("echo:admin").task(task.clone());
    let no = mayfly.credentials([shared(), outside.clone(), read(&mayfly, "new").task(task.clone())]).await.unwrap_err();
    assert!(matches!(&no, Error::Denied(r) if r.reason == "OUTSIDE_TASK" && r.upstream == "echo"), "{no:?}");
    assert_eq!(shared().get().await.unwrap().credential_id(), before.credential_id());
    assert_eq!(up.audit("credential issued").len(), 1);

    // A single request that is equal to one of a batch does not get the refusal of another request of the batch.
    let asking = mayfly.credentials([read(&mayfly, "both").task(task.clone()), outside]);
    let (batch, single) = tokio::join!(asking, read(&mayfly, "both").task(task.clone()).get());
    assert!(batch.is_err() && single.is_ok(), "{batch:?} {single:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_shared_with_single_requests_and_given_back_when_nobody_holds_them() {
    let up = Up::new();
    let task = up.task().await;
    let settings = Settings { idle: Duration::from_millis(300), task: Some(task), ..up.settings("agent/demo") };
    let mayfly = Mayfly::connect(settings).await.unwrap();
    let single = read(&mayfly, "a").get().await.unwrap();
    let held =
        mayfly.credentials([read(&mayfly, "a"), read(&mayfly, "b"), read(&mayfly, "a"), read(&mayfly, "b")]).await.unwrap();
    assert_eq!([held[0].credential_id(), held[2].credential_id()], [single.credential_id(); 2]);
    assert_eq!(held[1].credential_id(), held[3].credential_id());
    assert_eq!(read(&mayfly, "b").get().await.unwrap().credential_id(), held[1].credential_id());
    let call = || read(&mayfly, "a").tool("read").arguments(&json!({"n": 1}));
    let calls = mayfly.credentials([call(), call()]).await.unwrap();
    assert_ne!(calls[0].credential_id(), calls[1].credential_id(), "those for arguments share nothing");
    assert_eq!(up.audit("credential issued").len(), 4);
    drop((single, held, calls));
    until("all are given back", || async { up.audit("credential given back").len() == 4 }).await;

    let asking = (0..16).map(|_| {
        let mayfly = mayfly.clone();
        tokio::spawn(async move { mayfly.credentials([read(&mayfly, "c"), read(&mayfly, "d")]).await.unwrap() })
    });
    let mut all = Vec::new();
    for one in asking.collect::<Vec<_>>() {
        all.push(one.await.unwrap());
    }
    assert!(all.iter().all(|held| ids(held) == ids(&all[0])));
    assert_eq!(up.audit("credential issued").len(), 6, "16 equal calls are one exchange of two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_is_dropped_and_a_client_that_is_closed_leave_none_behind() {
    let up = Up::new();
    let task = up.task().await;
    for wait in 0..8 {
        let mayfly = up.client("agent/demo").await;
        let asks = [read(&mayfly, "a").task(task.clone()), read(&mayfly, "b").task(task.clone())];
        let asking = tokio::spawn({
            let mayfly = mayfly.clone();
            async move { mayfly.credentials(asks).await.map(drop) }
        });
        tokio::time::sleep(Duration::from_millis(wait)).await;
        asking.abort();
        drop(asking.await);
        mayfly.close().await;
        let late = mayfly.credentials([read(&mayfly, "a"), read(&mayfly, "b")]).await;
        assert!(matches!(late, Err(Error::Closed)), "{late:?}");
    }
    let ended = || async {
        let (issued, back) = (up.audit("credential issued").len(), up.audit("credential given back").len());
        issued > 0 && issued == back
    };
    until("all are given back", ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_many_there_may_be_is_checked_before_anything_is_sent() {
    let up = Up::new();
    let mayfly = up.client("agent/demo").await;
    let of = |many: usize| (0..many).map(|_| read(&mayfly, "a test")).collect::<Vec<_>>();
    for many in [0, 9, 100] {
        let no = mayfly.credentials(of(many)).await.unwrap_err();
        assert!(matches!(&no, Error::Settings(what) if what.contains("right would be 1 to 8")), "{no:?}");
    }
    let other = up.client("agent/demo").await;
    let no = mayfly.credentials([read(&mayfly, "a test"), read(&other, "a test")]).await.unwrap_err();
    assert!(no.to_string().contains("another client"), "{no}");
    let waits = read(&mayfly, "a test").wait_for_approval(Duration::from_secs(1));
    let no = mayfly.credentials([read(&mayfly, "a test"), waits]).await.unwrap_err();
    assert!(no.to_string().contains("echo: wait_for_approval is for a single credential"), "{no}");
    let no = mayfly.credentials([read(&mayfly, "a test"), read(&mayfly, "a test").require_task()]).await.unwrap_err();
    assert!(no.to_string().contains("echo: this call belongs to no task"), "{no}");
    assert!(up.audit("credential issued").is_empty());
    assert_eq!(mayfly.credentials(of(1)).await.unwrap().len(), 1);
    assert_eq!(mayfly.credentials(of(8)).await.unwrap().len(), 8);
}
