//! `BatchExchange`: served as tonic's generated code does, except that the request is decoded and its results are encoded by mayfly's own
//! codec.

use std::pin::Pin;

use hyper::body::Body as HttpBody;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};

use super::super::super::super::peer;
use super::super::super::token::TokenApi;
use super::decode::RawBatch;
use super::encode::{AnswerEncoder, BatchCodec, EncodedResult};
use mayfly_base::limits;

struct Method(TokenApi);

impl UnaryService<RawBatch> for Method {
    type Response = Vec<EncodedResult>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Vec<EncodedResult>>, Status>> + Send>>;

    fn call(&mut self, request: Request<RawBatch>) -> Self::Future {
        let own = self.0.clone();
        Box::pin(async move {
            let caller = peer::caller(&request)?;
            let RawBatch { exchanges, all_or_nothing } = request.into_inner();
            let ends = own.answer_batch(&caller, exchanges, all_or_nothing).await?;
            let mut patterns = AnswerEncoder::default();
            Ok(Response::new(ends.into_iter().map(|end| patterns.result(end)).collect()))
        })
    }
}

/// Answers one call.
pub async fn exchange<B>(own: &TokenApi, call: http::Request<B>) -> http::Response<Body>
where
    B: HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let limits = (Some(limits::REQUEST_BYTES), None);
    let mut grpc = Grpc::new(BatchCodec).apply_max_message_size_config(limits.0, limits.1);
    grpc.unary(Method(own.clone()), call).await
}
