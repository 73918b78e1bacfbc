//! Connecting to a server: the first of several addresses that answers, and errors that say which side does not accept the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mayfly_client::dial::first_of;
use mayfly_client::svid::SvidSource;
use mayfly_client::{
    Error, Identity, Mayfly, RealClock, SpiffeId, arguments_sha256, arguments_sha256_of_json, task_of_meta, tls,
};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::kit::Up;

/// Far less than the limit of a call.
const SOON: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_silent_or_away_is_left_for_the_next_one() {
    let up = Up::new();
    let (svid, _changes) = SvidSource::begin(&up.files("agent/demo"), Up::server_id().trust_domain_owned()).await.unwrap();
    let config = tls::client_config(Some(svid.own.clone()), svid.bundles.clone(), Up::server_id(), Arc::new(RealClock::new()));
    let connector = TlsConnector::from(Arc::new(config.unwrap()));
    let name = ServerName::try_from("localhost").unwrap();
    // The first address accepts and sends nothing; nobody listens at the second.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let addresses: [SocketAddr; 3] = [mute.local_addr().unwrap(), away, up.running.addresses().workload];
    tokio::time::timeout(SOON, first_of(&connector, &name, &addresses)).await.expect("within a bounded time").unwrap();
    let none = tokio::time::timeout(SOON, first_of(&connector, &name, &addresses[..2])).await.expect("within a bounded time");
    let said = none.unwrap_err().to_string();
    assert!(said.contains(&format!("{}: no answer within 2 s", addresses[0])) && said.contains(&away.to_string()), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_accept_whom_is_said_at_once() {
    let (up, other) = (Up::new(), Up::new());
    let mut settings = up.settings("agent/demo");
    settings.server_id = SpiffeId::parse("spiffe://dev.mayfly.internal/another").unwrap();
    let no = tokio::time::timeout(SOON, Mayfly::connect(settings)).await.unwrap().err().unwrap();
    assert!(matches!(&no, Error::Handshake(what) if what.contains("expected spiffe://dev.mayfly.internal/another")), "{no}");

    let mut settings = up.settings("agent/demo");
    let Identity::Files { svid, key, .. } = other.files("agent/demo") else { unreachable!() };
    settings.identity = Identity::Files { svid, key, bundle: up.world.bundle() };
    let no = tokio::time::timeout(SOON, Mayfly::connect(settings)).await.unwrap().err().unwrap();
    assert!(matches!(&no, Error::Handshake(what) if what.contains("does not accept our SVID")), "{no}");
}

#[test]
fn what_names_no_task_is_refused_and_never_taken_for_none() {
    let task = format!("task_{}", "a".repeat(26));
    assert_eq!(task_of_meta(&json!({"mayfly/task": task})).unwrap(), Some(task.clone()));
    for none in [json!({}), json!(null), json!({"other": 1})] {
        assert_eq!(task_of_meta(&none).unwrap(), None);
    }
    for bad in
        [json!(""), json!("task_x"), json!(null), json!(7), json!([task]), json!(format!("{task}\n")), json!(task.to_uppercase())]
    {
        assert!(task_of_meta(&json!({"mayfly/task": bad})).is_err(), "{bad}");
    }
}

#[test]
fn arguments_that_others_would_read_as_other_ones_have_no_digest() {
    #[derive(serde::Serialize)]
    struct Call<T> {
        id: T,
    }
    let of = arguments_sha256(&Call { id: 9_007_199_254_740_991_u64 }).unwrap();
    assert_eq!(of, arguments_sha256_of_json("{ \"id\": 9007199254740991.0 }").unwrap());
    assert_eq!(arguments_sha256(&Call { id: 0.1_f32 }).unwrap(), arguments_sha256(&Call { id: 0.1_f64 }).unwrap());
    for large in [9_007_199_254_740_992_u64, 1_234_567_890_123_456_789, u64::MAX] {
        assert!(arguments_sha256(&Call { id: large }).is_err(), "{large}");
    }
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e20, 9_007_199_254_740_992.0] {
        assert!(arguments_sha256(&Call { id: [bad] }).is_err(), "{bad}");
    }
    assert!(arguments_sha256(&Call { id: u128::MAX }).is_err());
    assert!(arguments_sha256_of_json("{\"id\":1,\"id\":1}").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_task_is_refused_where_one_is_required() {
    let up = Up::new();
    let mayfly = up.client("agent/demo").await;
    let asked = mayfly.credential("echo").scope("echo:read").purpose("p").require_task();
    let no = asked.clone().get().await.err().unwrap();
    assert!(matches!(&no, Error::Settings(what) if what.contains("belongs to no task")), "{no}");
    drop(asked.task(up.task().await).get().await.unwrap());
    // Arguments without a digest are refused before any request is sent.
    let bad = mayfly.credential("echo").scope("echo:read").purpose("p").arguments(&json!({"id": 1_234_567_890_123_456_789_u64}));
    assert!(matches!(bad.get().await, Err(Error::Settings(what)) if what.contains("a double does not hold")));
}
