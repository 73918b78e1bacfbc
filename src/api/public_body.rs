//! Requests and answers of the public listener, whose clients are unauthenticated. A body is read into one buffer, within a time limit and
//! within the byte limits of its source address and of all addresses; an answer counts until it has been read.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, RETRY_AFTER};
use http::{HeaderValue, Request, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::Body as HttpBody;
use tower::Service as _;
use zeroize::Zeroizing;

use super::connection_table::ConnectionActivity;
use mayfly_base::limits;
use mayfly_base::refusal::Refusal;

/// The connection of a request, stored in the request's extensions: its share is charged for the request's work.
#[derive(Clone)]
pub struct PublicClient(pub Arc<ConnectionActivity>);

/// Answers one request.
pub async fn answer<B>(call: Request<B>, router: Router, activity: Arc<ConnectionActivity>) -> Result<Response, Infallible>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    answer_within(Duration::from_millis(limits::PUBLIC_BODY_MS), call, router, activity).await
}

/// As [`answer`], with another time limit for the body.
async fn answer_within<B>(
    within: Duration,
    call: Request<B>,
    mut router: Router,
    activity: Arc<ConnectionActivity>,
) -> Result<Response, Infallible>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let share = activity.share();
    let under_way = match share.may_answer(0).and_then(|()| activity.call()) {
        Ok(under_way) => under_way,
        Err(no) => return Ok(full(&no)),
    };
    let (mut parts, body) = call.into_parts();
    let version = parts.version;
    let whole = tokio::time::timeout(within, read_whole_body(body, &activity)).await;
    let late = || plain(StatusCode::REQUEST_TIMEOUT, "the body was not whole in time\n");
    let refused = match whole {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(no)) => Err(no),
        Err(_) => Err(late()),
    };
    let body = match refused {
        Ok(body) => body,
        Err(mut no) => {
            if version < Version::HTTP_2 {
                // The rest of the body is not read.
                no.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return Ok(no);
        }
    };
    parts.extensions.insert(PublicClient(activity.clone()));
    let Ok(answer) = router.call(Request::from_parts(parts, Body::from(body))).await;
    let answered = counted(answer, &activity).await;
    drop(under_way);
    Ok(answered)
}

/// Reads a body into one buffer, which counts for its holder until the body has been processed.
async fn read_whole_body<B: HttpBody<Data = Bytes> + Unpin>(
    mut body: B,
    activity: &Arc<ConnectionActivity>,
) -> Result<Bytes, Response> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let too_large = || plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n");
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limits::LOGIN_BODY_BYTES {
        return Err(too_large());
    }
    let mut read = Unfinished::new(activity.clone());
    read.hold(limits::UNFINISHED_REQUEST_BYTES)?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| plain(StatusCode::BAD_REQUEST, "the body could not be read\n"))?;
        // Trailers are ignored.
        let Ok(data) = frame.into_data() else { continue };
        if read.bytes.len() + data.len() > limits::LOGIN_BODY_BYTES {
            return Err(too_large());
        }
        if read.bytes.len() + data.len() > read.bytes.capacity() {
            // Reserved in one step: a growing buffer would leave copies of its content behind.
            read.hold(limits::LOGIN_BODY_BYTES)?;
            read.bytes.reserve_exact(limits::LOGIN_BODY_BYTES);
        }
        read.bytes.extend_from_slice(&data);
    }
    Ok(Bytes::from_owner(read))
}

/// The bytes read of a body. They may contain a token, so they are wiped.
struct Unfinished {
    bytes: Zeroizing<Vec<u8>>,
    held: usize,
    activity: Arc<ConnectionActivity>,
}

impl Unfinished {
    fn new(activity: Arc<ConnectionActivity>) -> Unfinished {
        Unfinished { bytes: Zeroizing::default(), held: 0, activity }
    }

    #[allow(clippy::result_large_err, reason = "the error is what is answered")]
    fn hold(&mut self, bytes: usize) -> Result<(), Response> {
        self.held += bytes;
        self.activity.take_unfinished(bytes).map_err(|no| full(&no))
    }
}

impl AsRef<[u8]> for Unfinished {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.activity.give_unfinished(self.held);
    }
}

/// Counts an answer until it has been read. Answers of this listener are in memory as a whole.
async fn counted(answer: Response, activity: &Arc<ConnectionActivity>) -> Response {
    let (parts, body) = answer.into_parts();
    let Ok(body) = body.collect().await else { return plain(StatusCode::INTERNAL_SERVER_ERROR, "") };
    let bytes = body.to_bytes();
    if bytes.is_empty() {
        return Response::from_parts(parts, Body::empty());
    }
    if let Err(no) = activity.share().may_answer(bytes.len()) {
        return full(&no);
    }
    Response::from_parts(parts, Body::from(activity.unread(bytes)))
}

fn full(no: &Refusal) -> Response {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    *response.body_mut() = Body::from(format!("{no}\n"));
    response
}

fn plain(code: StatusCode, text: &'static str) -> Response {
    (code, [(CACHE_CONTROL, "no-store")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shares::ShareLimits;
    use axum::routing::post;
    use http_body_util::Full;
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// A body whose last piece never arrives.
    struct Drip(VecDeque<Bytes>);

    impl HttpBody for Drip {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
            self.0.pop_front().map_or(Poll::Pending, |piece| Poll::Ready(Some(Ok(hyper::body::Frame::data(piece)))))
        }
    }

    fn router() -> Router {
        Router::new().route("/", post(|body: Bytes| async move { body }))
    }

    fn post_of<B>(body: B) -> Request<B> {
        Request::builder().method("POST").uri("/").body(body).unwrap()
    }

    #[tokio::test]
    async fn a_body_comes_whole_or_is_refused_in_time() {
        let activity = ConnectionActivity::alone(ShareLimits::PUBLIC);
        let ask = |body: Vec<u8>| answer(post_of(Full::new(Bytes::from(body))), router(), activity.clone());
        let whole = ask(vec![7; limits::LOGIN_BODY_BYTES]).await.unwrap();
        assert_eq!(whole.status(), StatusCode::OK);
        assert_eq!(whole.into_body().collect().await.unwrap().to_bytes().len(), limits::LOGIN_BODY_BYTES);
        assert_eq!(ask(vec![7; limits::LOGIN_BODY_BYTES + 1]).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
        let drip = Drip((0..1000).map(|_| Bytes::from_static(b"x")).collect());
        let late = answer_within(Duration::from_millis(30), post_of(drip), router(), activity.clone()).await.unwrap();
        assert_eq!(late.status(), StatusCode::REQUEST_TIMEOUT);
        assert!(activity.take_unfinished(limits::PUBLIC_UNFINISHED_BYTES_PER_ADDRESS).is_ok(), "all was given back");
    }

    #[tokio::test]
    async fn bodies_of_one_address_that_never_end_are_bounded_together() {
        let activity = ConnectionActivity::alone(ShareLimits::PUBLIC);
        let mut waiting = Vec::new();
        loop {
            let mut one = Box::pin(answer(post_of(Drip([Bytes::from_static(b"x")].into())), router(), activity.clone()));
            match futures_poll(&mut one).await {
                None => waiting.push(one),
                Some(refused) => {
                    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
                    break;
                }
            }
        }
        let each = limits::LOGIN_BODY_BYTES + limits::UNFINISHED_REQUEST_BYTES;
        assert_eq!(waiting.len(), limits::PUBLIC_UNFINISHED_BYTES_PER_ADDRESS / each);
    }

    async fn futures_poll(one: &mut (impl Future<Output = Result<Response, Infallible>> + Unpin)) -> Option<Response> {
        tokio::time::timeout(Duration::from_millis(1), one).await.ok().map(|Ok(answer)| answer)
    }
}
