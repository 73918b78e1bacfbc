//! Only the ledger gives a receipt.
use mayfly::ledger::Receipt;
use mayfly::seq::{Millis, Seq};

fn forge() -> Receipt {
    Receipt::new(Seq::ZERO, None, 1, Millis(0))
}

fn twice(receipt: &Receipt) -> Receipt {
    receipt.clone()
}

fn main() {}
