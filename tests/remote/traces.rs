//! Calls to an upstream are part of the trace of the call that needed them.

use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use tonic::Request;

use super::collector::Collector;
use super::rig::{REPLACE, Rig, wanted};

#[tokio::test(flavor = "multi_thread")]
async fn asking_an_upstream_is_a_part_of_the_call_also_where_it_is_done_once_more() {
    let collector = Collector::new();
    let rig = Rig::with(true, &collector.section("ratio = 0"));
    let task = rig.open().await;
    let ask = || {
        let mut request = Request::new(wanted(&task, REPLACE, "r-1"));
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
        request.metadata_mut().insert("traceparent", parent);
        request
    };
    let mut tokens = TokenServiceClient::new(rig.agent().await);
    let first = tokens.exchange(ask()).await.unwrap().into_inner().issued.unwrap();
    let again = tokens.exchange(ask()).await.unwrap().into_inner().issued.unwrap();
    for _ in 0..500 {
        if collector.named("mayfly.v1.TokenService/Exchange").len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut roots = collector.named("mayfly.v1.TokenService/Exchange");
    roots.sort_by_key(|span| span.start);
    let told: Vec<_> = roots.iter().map(|r| (r.of("mayfly.novelty"), r.of("mayfly.seq").to_owned())).collect();
    assert_eq!(told, [("new", first.seq.to_string()), ("replaced", again.seq.to_string())]);
    for root in &roots {
        let spans = collector.spans();
        let parts: Vec<_> = spans.iter().filter(|span| span.parent == root.id).collect();
        let upstream = parts.iter().find(|span| span.name == "upstream").unwrap_or_else(|| panic!("{parts:?}"));
        assert_eq!((upstream.kind, upstream.of("mayfly.kind")), (3, "oauth"));
        assert!(!upstream.of("mayfly.upstream").is_empty());
        assert!(parts.iter().filter(|span| span.name == "durable").count() >= 2, "the lease, and the issuance: {parts:?}");
    }
}
