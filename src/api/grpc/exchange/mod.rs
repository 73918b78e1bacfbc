//! The exchange over gRPC: `Exchange`, `BatchExchange` and `StreamExchange`.
//!
//! A message of the proto comes in, is checked ([`ReceivedRequest`]), decided by [`mayfly_authority::exchange`], and answered with a
//! message of the proto. [`batch`] has the steps that the exchanges of a batch share with a single one, [`stream`] the stream, and
//! [`answer`] the answer, which is made of an [`IssuedCredential`] only. The service itself is `token.rs` beside this folder.
//!
//! `fast/` answers the same calls with less CPU time: it reads requests without prost, decides requests that arrive at the same time as one
//! batch, and encodes what answers have in common once. It must change no answer and no record, which `tests/services/both_paths.rs`
//! checks. A listener uses it wherever it is built (`routes.rs`); a build without the feature `fast` does not have it.

pub(super) mod answer;
pub(super) mod batch;
#[cfg(feature = "fast")]
pub mod fast;
pub(super) mod stream;

use super::note;
use super::token::task_of;
use mayfly_authority::authority::Authority;
use mayfly_authority::exchange::trace_attributes;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_base::trace::CallTrace;
use mayfly_credential::IssuedCredential;
use mayfly_identity::caller::Caller;
use mayfly_policy::exchange_request::ExchangeRequest;
use mayfly_proto::mayfly::v1 as pb;

/// The path of the method for one exchange.
pub const EXCHANGE: &str = "/mayfly.v1.TokenService/Exchange";
/// The path of the method for a batch.
pub const BATCH_EXCHANGE: &str = "/mayfly.v1.TokenService/BatchExchange";
/// The path of the method for a stream.
pub const STREAM_EXCHANGE: &str = "/mayfly.v1.TokenService/StreamExchange";

/// A request that was checked; of a malformed one, its request id and the refusal.
pub(super) type CheckedRequest = Result<Box<ExchangeRequest>, Box<(String, Refusal)>>;

/// A request of a caller, before it is checked.
pub(super) trait ReceivedRequest {
    /// The upstream's name.
    fn upstream(&self) -> &str;
    /// The request id; empty if there is none.
    fn request_id(&self) -> &str;
    /// Checks the request.
    fn check(self) -> CheckedRequest;
}

impl ReceivedRequest for pb::ExchangeRequest {
    fn upstream(&self) -> &str {
        &self.upstream
    }

    fn request_id(&self) -> &str {
        &self.request_id
    }

    fn check(mut self) -> CheckedRequest {
        ExchangeRequest::take(&mut self).map(Box::new).map_err(|no| Box::new((self.request_id, no)))
    }
}

/// Answers one exchange by itself. When `gone` completes, a credential being made at an upstream is removed there.
pub(super) async fn exchange_one<F: Future<Output = ()> + Send>(
    authority: &Authority,
    caller: &Caller,
    (ask, traced): (impl ReceivedRequest, CallTrace),
    gone: impl Fn() -> F,
) -> Result<IssuedCredential, Error> {
    match ask.check() {
        Ok(mut want) => {
            traced.since_its_begin("turn");
            want.traced = traced.clone();
            let end = traced.scope(authority.exchange_unless(caller, &want, gone)).await;
            batch::record_outcome(authority, caller, Some(&want), end)
        }
        Err(malformed) => {
            let no = Error::Refusal(malformed.1);
            trace_attributes::malformed(&traced, &no);
            batch::record_outcome(authority, caller, None, Err(no))
        }
    }
}
