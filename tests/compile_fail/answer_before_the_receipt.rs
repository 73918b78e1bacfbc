//! What was minted is no answer: only `reveal` with a receipt of the ledger makes one.
use mayfly::credential::{Answer, Issued, Minted};

fn hand_out(minted: Minted) -> Issued {
    minted
}

fn peek(minted: Minted) -> Answer {
    minted.answer
}

fn main() {}
