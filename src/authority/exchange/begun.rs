//! Exchanges of one caller that are begun at once: each is decided and proposed before the first of them waits for the ledger.

#[cfg(feature = "fast")]
use std::sync::Arc;

use super::Granted;
#[cfg(feature = "fast")]
use super::fast::CachedDecisions;
use crate::authority::Authority;
use crate::people::approvals::needs_approval;
use crate::redecide::is_void;
use mayfly_base::refusal::{Error, Fault};
use mayfly_credential::{IssuedCredential, MintedCredential};
use mayfly_identity::caller::Caller;
#[cfg(feature = "fast")]
use mayfly_ledger::writer::template::RecordTemplate;
use mayfly_ledger::{InFlightGuard, PendingReceipt, PendingReceipts, Receipt, stopping};
use mayfly_policy::exchange_request::ExchangeRequest;

/// The code path that answers exchanges. The answers and the records are the same on both paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExchangePath {
    /// The code that shares work among the exchanges of a batch, where this build has it. A server always uses it.
    #[default]
    Fast,
    /// The code that answers each exchange by itself. Only tests choose it, to compare the two paths.
    Plain,
}

impl ExchangePath {
    /// Whether this build has the fast path and uses it.
    pub fn is_fast(self) -> bool {
        cfg!(feature = "fast") && self == ExchangePath::Fast
    }
}

/// The decision cache of one connection. It can be dropped at any time without losing more than time.
#[derive(Default)]
pub struct DecisionCache {
    #[cfg(feature = "fast")]
    pub(super) kept: CachedDecisions,
}

impl DecisionCache {
    /// Takes note of a refusal that the fold made.
    pub fn refused(&self, no: &Error) {
        #[cfg(feature = "fast")]
        self.kept.refused(no);
        let _ = no;
    }
}

/// A credential made by mayfly whose records are proposed to the ledger. It must not be revealed before the ledger's answer.
pub struct PendingExchange {
    /// The credential; `None` until it is signed.
    pub(super) minted: Option<Result<MintedCredential, Error>>,
    /// The ledger's pending answer; `None` if it comes with those of the batch.
    pub(super) proposed: Option<PendingReceipt>,
}

/// The result of the part of an exchange that does not wait.
#[allow(clippy::large_enum_variant, reason = "nearly all are under way; a box would cost each an allocation")]
pub enum BegunExchange {
    /// Only the ledger's answer is missing.
    UnderWay(PendingExchange),
    /// [`Authority::exchange_unless`] has to complete the exchange: a repeat, a kind that its upstream makes, or a decision that took too
    /// long.
    Waits,
}

/// A batch: several exchanges of one caller that were begun at once and are independent of each other.
pub struct ExchangeBatch {
    /// The exchanges, in the order of the requests.
    pub begun: Vec<Result<BegunExchange, Error>>,
    proposed: PendingReceipts,
    /// Counts the exchanges as in progress until all are answered.
    _minting: InFlightGuard,
    /// Kept so that this thread frees them: freeing memory is cheap on the thread that allocated it, and the writer is spared the work.
    #[cfg(feature = "fast")]
    pub(super) _templates: Vec<Arc<RecordTemplate>>,
}

impl ExchangeBatch {
    pub(super) fn new(
        begun: Vec<Result<BegunExchange, Error>>,
        proposed: PendingReceipts,
        minting: InFlightGuard,
    ) -> ExchangeBatch {
        ExchangeBatch {
            begun,
            proposed,
            _minting: minting,
            #[cfg(feature = "fast")]
            _templates: Vec::new(),
        }
    }
}

/// The ledger's answers to the proposals of a batch.
#[derive(Default)]
pub struct BatchReceipts(std::vec::IntoIter<Result<Receipt, Error>>);

impl PendingExchange {
    /// Whether the ledger's answer is among those of the batch.
    pub fn in_batch(&self) -> bool {
        self.proposed.is_none()
    }

    /// The result of the exchange, given the ledger's answer.
    pub fn reveal(self, receipt: Result<Receipt, Error>) -> Result<IssuedCredential, Error> {
        let receipt = receipt?;
        let minted = self.minted.unwrap_or_else(|| Err(Fault::new("a credential that was never signed").into()))?;
        Ok(minted.reveal(receipt)?)
    }
}

impl BatchReceipts {
    /// The next answer, in the order of the batch.
    pub fn take_next(&mut self) -> Result<Receipt, Error> {
        self.0.next().unwrap_or_else(|| Err(Error::Refusal(stopping())))
    }
}

impl Authority {
    /// Begins a batch of one caller, whose exchanges are independent of each other. `cache`: the decision cache of the connection.
    pub fn begin_all<'a>(
        &self,
        caller: &Caller,
        wants: impl Iterator<Item = &'a ExchangeRequest> + Clone,
        cache: &DecisionCache,
    ) -> ExchangeBatch {
        #[cfg(feature = "fast")]
        if self.exchange_path.is_fast() {
            return self.begin_batch(caller, wants, &cache.kept);
        }
        let _ = cache;
        let minting = self.ledger.minting(wants.clone().count());
        let begun = wants.map(|want| self.begin(caller, want)).collect();
        ExchangeBatch::new(begun, PendingReceipts::default(), minting)
    }

    /// The part of an exchange that does not wait: decides, makes and proposes. Its temporary state is dropped at the end.
    fn begin(&self, caller: &Caller, want: &ExchangeRequest) -> Result<BegunExchange, Error> {
        self.still_stands(caller)?;
        if want.sent_token().is_some() {
            return Ok(BegunExchange::Waits); // the keys of its issuer may have to be fetched
        }
        let view = self.ledger.view(); // everything up to sequence number r
        if self.seen(&view, caller, want)?.is_some() {
            return Ok(BegunExchange::Waits);
        }
        match self.grant(&view, &self.catalog.now(), caller, want) {
            Ok(Granted::Local(ready, one)) if !self.too_old(&view) => {
                self.ledger.propose_ready(vec![ready])?;
                Ok(BegunExchange::UnderWay(one))
            }
            Err(no) if !needs_approval(&no) => Err(no),
            _ => Ok(BegunExchange::Waits),
        }
    }

    /// The answer of an exchange, once its records are in order, durable, and found valid by the fold.
    pub(super) async fn finish(&self, one: PendingExchange) -> Result<IssuedCredential, Error> {
        self.finish_of(one, &mut BatchReceipts::default()).await
    }

    /// The answer of one exchange of a batch, given the batch's answers. Must be called in the order of the batch.
    pub async fn finish_of(&self, mut one: PendingExchange, answers: &mut BatchReceipts) -> Result<IssuedCredential, Error> {
        let receipt = match one.proposed.take() {
            Some(own) => self.ledger.receipt(own).await,
            None => answers.take_next(),
        };
        one.reveal(receipt)
    }

    /// Waits for the ledger's answers to a batch.
    pub async fn answers(&self, batch: &mut ExchangeBatch) -> BatchReceipts {
        BatchReceipts(self.ledger.receipts(std::mem::take(&mut batch.proposed)).await.into_iter())
    }

    /// Whether a refusal is not final, so that [`Authority::exchange_unless`] decides again.
    pub fn takes_another_look(no: &Error) -> bool {
        is_void(no)
    }
}
