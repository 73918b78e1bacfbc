//! Input that is no message, no method, or no gRPC, and the answer to each.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use mayfly::cli::dev::DevSettings;
use mayfly::limits;
use tonic::Code;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use crate::kit::{HEALTH, Up, call, reason};

const OPEN: &str = "/mayfly.v1.TaskService/OpenTask";
/// Served by the fast decoder, as long as the message has the usual form.
const EXCHANGE: &str = "/mayfly.v1.TokenService/Exchange";

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_are_the_callers_mistake_and_each_is_told_apart_from_ours() {
    let up = Up::new(DevSettings::default());
    let channel = up.channel("agent/demo").await;
    // A length beyond the message's end; a field of an unknown wire type; text that is not UTF-8; a group without an end.
    for message in [&b"\x0a\x7f"[..], b"\x0f", b"\x0a\x02\xff\xfe", b"\x0b"] {
        for path in [HEALTH, OPEN, EXCHANGE] {
            let refused = call(channel.clone(), path, message).await.unwrap_err();
            assert_eq!(
                (refused.code(), reason(&refused).as_str()),
                (Code::InvalidArgument, "INVALID_FIELD"),
                "{path} {message:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_above_the_limit_is_refused_by_its_limit() {
    let up = Up::new(DevSettings::default());
    for path in [OPEN, EXCHANGE] {
        for (size, code) in [(limits::REQUEST_BYTES, Code::InvalidArgument), (limits::REQUEST_BYTES + 1, Code::ResourceExhausted)]
        {
            let refused = call(up.channel("agent/demo").await, path, vec![0xff; size]).await.unwrap_err();
            assert_eq!(refused.code(), code, "{size}: {refused:?}");
        }
        let refused = call(up.channel("agent/demo").await, path, vec![0; limits::REQUEST_BYTES + 1]).await.unwrap_err();
        assert_eq!(reason(&refused), "LIMIT_REACHED");
        assert!(refused.message().contains("request_bytes"), "{refused:?}");
    }
}

/// The answer to a call whose body consists of these frames.
async fn framed(up: &Up, path: &str, encoding: Option<&str>, frames: Vec<Frame<Bytes>>) -> (Code, String) {
    let mut channel = up.channel("agent/demo").await;
    let mut request = Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let frames = tokio_stream::iter(frames.into_iter().map(Ok::<_, tonic::Status>));
    let request = request.body(Body::new(StreamBody::new(frames))).unwrap();
    let response = channel.ready().await.unwrap().call(request).await.unwrap();
    let in_headers = tonic::Status::from_header_map(response.headers());
    let collected = response.into_body().collect().await.unwrap();
    let status = in_headers.or_else(|| tonic::Status::from_header_map(collected.trailers()?)).unwrap();
    (status.code(), reason(&status))
}

/// However a message is cut into frames, `Exchange` answers as every other method does.
#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_is_answered_however_its_message_comes() {
    let up = Up::new(DevSettings::default());
    let message =
        |flag: u8, length: u32, content: &[u8]| -> Bytes { [&[flag][..], &length.to_be_bytes(), content].concat().into() };
    // Field 1 with an empty text: well formed, and asks for nothing.
    let whole = message(0, 2, b"\x0a\x00");
    let data = |bytes: &Bytes| Frame::data(bytes.clone());
    let (refused, mistake) = ((Code::InvalidArgument, "INVALID_FIELD"), (Code::InvalidArgument, "INVALID_FIELD"));
    let not_served = (Code::Unimplemented, "NOT_SERVED");
    type Case<'a> = (&'a str, Option<&'a str>, Vec<Frame<Bytes>>, (Code, &'a str));
    let cases: Vec<Case<'_>> = vec![
        ("in one piece", None, vec![data(&whole)], refused),
        ("with an empty frame after it", None, vec![data(&whole), data(&Bytes::new())], refused),
        ("with an empty frame before it", None, vec![data(&Bytes::new()), data(&whole)], refused),
        ("its length apart", None, vec![data(&whole.slice(..5)), data(&whole.slice(5..))], refused),
        ("byte by byte", None, (0..whole.len()).map(|n| data(&whole.slice(n..=n))).collect(), refused),
        ("not compressed, as it says", Some("identity"), vec![data(&whole)], refused),
        ("compressed in a way that nobody knows", Some("x-strange"), vec![data(&whole)], not_served),
        ("said to be compressed, without saying how", None, vec![data(&message(1, 2, b"\x0a\x00"))], mistake),
        ("with a flag that there is not", None, vec![data(&message(7, 2, b"\x0a\x00"))], mistake),
        ("shorter than it says", None, vec![data(&message(0, 9, b"\x0a\x00"))], mistake),
        ("nothing at all", None, vec![], mistake),
    ];
    for (what, encoding, frames, expected) in cases {
        let copy = |f: &Frame<Bytes>| Frame::data(f.data_ref().unwrap().clone());
        let other = framed(&up, OPEN, encoding, frames.iter().map(copy).collect()).await;
        let (code, reason) = framed(&up, EXCHANGE, encoding, frames).await;
        assert_eq!((code, reason.as_str()), expected, "{what}");
        assert_eq!((code, reason), other, "{what}: not as another method has it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_services_that_are_not_there_are_named() {
    let up = Up::new(DevSettings::default());
    for path in ["/mayfly.v1.TaskService/Steal", "/nobody.v1.Service/Call", "/x"] {
        let refused = call(up.channel("agent/demo").await, path, Bytes::new()).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unimplemented, "NOT_SERVED"), "{path}");
        assert!(refused.message().contains(path), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_is_for_operators() {
    let up = Up::new(DevSettings::default());
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    // list_services: ""
    let list = Bytes::from_static(b"\x3a\x00");
    let refused = call(up.channel("agent/demo").await, path, list.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let answer = call(up.world.channel("operator/you", up.admin()).await.unwrap(), path, list).await.unwrap();
    assert!(String::from_utf8_lossy(answer.get_ref()).contains("mayfly.v1.TokenService"));
}

/// A request that a gRPC client would not send.
async fn raw(up: &Up, method: Method, media: &str, body: &'static [u8]) -> http::Response<Body> {
    let mut channel = up.channel("agent/demo").await;
    let request = Request::builder().method(method).uri(HEALTH).header("content-type", media).header("te", "trailers");
    let body = Body::new(http_body_util::Full::new(Bytes::from_static(body)));
    channel.ready().await.unwrap().call(request.body(body).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_grpc_gets_an_http_answer() {
    let up = Up::new(DevSettings::default());
    let get = raw(&up, Method::GET, "application/grpc", b"").await;
    assert_eq!((get.status(), get.headers()["allow"].to_str().unwrap()), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
    assert_eq!(raw(&up, Method::POST, "text/plain", b"hello").await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_are_refused() {
    let up = Up::new(DevSettings::default());
    // No message at all; truncated; an unknown compression flag; compressed without a named encoding.
    for body in [&b""[..], b"\0\0\0\0\x05ab", b"\x07\0\0\0\0", b"\x01\0\0\0\0"] {
        let answer = raw(&up, Method::POST, "application/grpc", body).await;
        let status = tonic::Status::from_header_map(answer.headers()).unwrap();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_FIELD"), "{body:?} {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_on_a_stream_ends_it_with_the_reason() {
    let up = Up::new(DevSettings::default());
    // Not protobuf; no ask; an exchange without a request id for its answer.
    for message in [&b"\x0f"[..], b"", b"\x0a\x00"] {
        let body: Vec<u8> = [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat();
        let mut channel = up.channel("agent/demo").await;
        let request = Request::builder().method(Method::POST).uri("/mayfly.v1.TokenService/StreamExchange");
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let body = Body::new(http_body_util::Full::new(Bytes::from(body)));
        let answer = channel.ready().await.unwrap().call(request.body(body).unwrap()).await.unwrap();
        let trailers = answer.into_body().collect().await.unwrap().trailers().cloned().unwrap_or_default();
        let status = tonic::Status::from_header_map(&trailers).unwrap();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_FIELD"), "{message:?} {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_never_end_are_held_up_to_a_bound() {
    let up = Up::new(DevSettings::default());
    // As many calls as it takes, each with a message of the largest size that lacks its last byte.
    let almost = [&[0][..], &(limits::REQUEST_BYTES as u32).to_be_bytes(), &vec![0; limits::REQUEST_BYTES - 1]].concat();
    let almost = Bytes::from(almost);
    let channel = up.channel("agent/demo").await;
    let mut calls = tokio::task::JoinSet::new();
    let fits = limits::CONNECTION_UNFINISHED_BYTES / limits::REQUEST_BYTES;
    let mut unfinished = Vec::new();
    for _ in 0..fits + 4 {
        let (more, body) = tokio::sync::mpsc::channel::<Result<hyper::body::Frame<Bytes>, std::convert::Infallible>>(1);
        more.send(Ok(hyper::body::Frame::data(almost.clone()))).await.unwrap();
        unfinished.push(more);
        let body = Body::new(http_body_util::StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(body)));
        let request = Request::builder().method(Method::POST).uri(OPEN).header("content-type", "application/grpc");
        let (mut channel, request) = (channel.clone(), request.header("te", "trailers").body(body).unwrap());
        calls.spawn(async move { channel.ready().await.unwrap().call(request).await.unwrap() });
    }
    let refused = calls.join_next().await.unwrap().unwrap();
    let status = tonic::Status::from_header_map(refused.headers()).unwrap();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "LIMIT_REACHED"), "{status:?}");
    assert!(status.message().contains("connection_unfinished_bytes"), "{status:?}");
    drop((unfinished, calls));
    assert!(crate::kit::healthy(up.channel("agent/demo").await).await);
}
