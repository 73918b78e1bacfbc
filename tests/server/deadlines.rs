//! The server observes a caller's deadline; a proposal that the ledger had accepted by then stays in effect.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mayfly::cli::dev::DevSettings;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::system::System;
use parking_lot::{Condvar, Mutex};
use prost::Message;
use tonic::{Code, Status};

use crate::kit::{HEALTH, PATIENCE, Up, echo_task, reason};

const EXCHANGE: &str = "/mayfly.v1.TokenService/Exchange";
const OPEN: &str = "/mayfly.v1.TaskService/OpenTask";

/// A connection of a client without deadline handling of its own: tonic's client would end the call by itself.
async fn connect(up: &Up) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(up.tls("agent/demo").await)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// One call with these timeouts in its headers.
async fn call(to: &SendRequest<Full<Bytes>>, path: &str, timeouts: &[&str], message: &impl Message) -> Result<Bytes, Status> {
    let (mut body, bytes) = (BytesMut::new(), message.encode_to_vec());
    body.put_u8(0);
    body.put_u32(u32::try_from(bytes.len()).unwrap());
    body.put_slice(&bytes);
    let mut request = http::Request::post(format!("https://localhost{path}")).header("content-type", "application/grpc");
    for timeout in timeouts {
        request = request.header("grpc-timeout", *timeout);
    }
    let request = request.header("te", "trailers").body(Full::new(body.freeze())).unwrap();
    let answer = tokio::time::timeout(PATIENCE, to.clone().send_request(request)).await.unwrap().unwrap();
    let in_headers = Status::from_header_map(answer.headers());
    let body = tokio::time::timeout(PATIENCE, answer.into_body().collect()).await.unwrap().unwrap();
    let status = in_headers.or_else(|| body.trailers().and_then(Status::from_header_map)).unwrap();
    if status.code() == Code::Ok { Ok(body.to_bytes().slice(5..)) } else { Err(status) }
}

fn exchange(request_id: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::OpenTask(echo_task(None).terms.unwrap())),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        purpose: "test".into(),
        request_id: request_id.into(),
        ..Default::default()
    }
}

/// Holds the writer after each commit while told to, and at most until this value is dropped, since a server waits for its writer when it
/// stops.
#[derive(Default)]
struct Hold(Arc<(Mutex<bool>, Condvar)>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.set(false);
    }
}

impl Hold {
    fn on(up: &Up) -> Hold {
        let hold = Hold::default();
        let held = hold.0.clone();
        up.running().authority().ledger.observe(move |_| {
            let mut closed = held.0.lock();
            while *closed {
                held.1.wait(&mut closed);
            }
        });
        hold
    }

    fn set(&self, closed: bool) {
        *self.0.0.lock() = closed;
        self.0.1.notify_all();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_that_is_none_is_the_callers_mistake_and_nothing_is_done() {
    let up = Up::new(DevSettings::default());
    let to = connect(&up).await;
    for wrong in [&["5"][..], &["S"], &["5s"], &["123456789S"], &["-1S"], &["1.5S"], &["+1S"], &["1S", "2S"]] {
        for path in [OPEN, EXCHANGE, HEALTH] {
            let no = call(&to, path, wrong, &exchange("")).await.unwrap_err();
            assert_eq!((no.code(), reason(&no).as_str()), (Code::InvalidArgument, "INVALID_FIELD"), "{path} {wrong:?}: {no:?}");
            assert!(no.message().contains("grpc-timeout"), "{no:?}");
        }
    }
    assert_eq!(up.running().authority().ledger.peek(|s| s.tasks.len()), 0);
    for good in ["99999999H", "60S", "60000m", "5M", "60000000u"] {
        call(&to, OPEN, &[good], &echo_task(None)).await.unwrap_or_else(|no| panic!("{good}: {no:?}"));
    }
    // A call without remaining time is not begun.
    let no = call(&to, OPEN, &["0n"], &echo_task(None)).await.unwrap_err();
    assert_eq!((no.code(), reason(&no).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    assert_eq!(up.running().authority().ledger.peek(|s| s.tasks.len()), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_at_its_deadline_and_a_repeat_gets_what_the_ledger_had_taken() {
    let up = Up::new(DevSettings::default());
    let to = connect(&up).await;
    let hold = Hold::on(&up);
    hold.set(true);
    let clock = System::real();
    let began = clock.steady();
    let no = call(&to, EXCHANGE, &["300m"], &exchange("once")).await.unwrap_err();
    let took = clock.steady() - began;
    assert_eq!((no.code(), reason(&no).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"), "{no:?}");
    assert!(no.message().contains("may have been carried out") && took >= 300, "{took} ms {no:?}");
    hold.set(false);
    // On the same connection, which continues to serve.
    let answer = call(&to, EXCHANGE, &["60S"], &exchange("once")).await.unwrap();
    let issued = pb::ExchangeResponse::decode(answer).unwrap().issued.unwrap();
    let ledger = &up.running().authority().ledger;
    assert_eq!(ledger.peek(|s| (s.credentials.len(), s.tasks.len())), (1, 1), "what was proposed was done, and done once");
    let known = ledger.peek(|s| s.credentials.get(&issued.credential_id.parse().unwrap()).is_some());
    assert!(known, "the repeat got it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_does_not_end_has_its_deadline_too() {
    let up = Up::new(DevSettings::default());
    let tls = TokioIo::new(up.tls("agent/demo").await);
    let (mut sender, connection) = handshake(TokioExecutor::new(), tls).await.unwrap();
    tokio::spawn(connection);
    // A prefix that announces a message, and then nothing.
    let (more, rest) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(rest));
    more.send(Ok(Frame::data(Bytes::from_static(&[0, 0, 0, 0, 9])))).await.unwrap();
    let request = http::Request::post(format!("https://localhost{OPEN}"))
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "200m")
        .body(body)
        .unwrap();
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
    let no = Status::from_header_map(answer.headers()).unwrap();
    assert_eq!(no.code(), Code::DeadlineExceeded, "{no:?}");
}
