//! What was handed out is handed out once, and a receipt serves once.
use mayfly::credential::MintedCredential;
use mayfly::ledger::Receipt;

fn twice(minted: MintedCredential, first: Receipt, second: Receipt) {
    minted.reveal(first);
    minted.reveal(second);
}

fn again(one: MintedCredential, other: MintedCredential, receipt: Receipt) {
    one.reveal(receipt);
    other.reveal(receipt);
}

fn main() {}
