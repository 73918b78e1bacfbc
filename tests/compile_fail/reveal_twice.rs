//! What was handed out is handed out once, and a receipt serves once.
use mayfly::credential::Minted;
use mayfly::ledger::Receipt;

fn twice(minted: Minted, first: Receipt, second: Receipt) {
    minted.reveal(first);
    minted.reveal(second);
}

fn again(one: Minted, other: Minted, receipt: Receipt) {
    one.reveal(receipt);
    other.reveal(receipt);
}

fn main() {}
