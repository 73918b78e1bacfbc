//! An unlimited number of follower names.

use mayfly::limits;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;

use super::Rig;
use crate::kit::reason;
use mayfly::cli::dev::DevSettings;

#[tokio::test(flavor = "multi_thread")]
async fn one_service_that_opens_names_without_end_keeps_nobody_from_following() {
    let few = limits::FOLLOWERS_PER_CALLER.min(50);
    let rig =
        Rig::new(DevSettings::default().with("limits.followers_per_caller", &few.to_string()).with("limits.followers", "100"));
    let address = rig.child.addresses().workload;
    let others = rig.others();
    let follow =
        |name: String| pb::WatchRevocationsRequest { follower: name, upstreams: vec!["echo".into()], ..Default::default() };
    let mut greedy = RevocationServiceClient::new(rig.world.channel("mcp/echo", address).await.unwrap());
    let mut streams = Vec::new();
    let refused = loop {
        match greedy.watch_revocations(follow(format!("name-{}", streams.len()))).await {
            Ok(stream) => streams.push(stream.into_inner()),
            Err(no) => break no,
        }
    };
    assert_eq!((streams.len(), reason(&refused).as_str()), (few, "LIMIT_REACHED"));
    assert!(refused.message().contains("followers_per_caller"), "{refused:?}");
    // A follower that is already known reconnects.
    drop(streams.pop());
    greedy.watch_revocations(follow(format!("name-{}", few - 1))).await.unwrap();
    let mut other = RevocationServiceClient::new(rig.world.channel("service/echo", address).await.unwrap());
    other.watch_revocations(follow("first".into())).await.expect("another service follows");
    let mut operator =
        RevocationServiceClient::new(rig.world.channel("operator/you", rig.child.addresses().admin).await.unwrap());
    operator.watch_revocations(follow("console".into())).await.expect("somebody else follows");
    others.saw("names of followers").await;
}
