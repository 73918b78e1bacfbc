//! Nothing but `Minted::reveal` makes what an answer is made of, and it is made once.
use mayfly::credential::{Answer, Issued, Summary};
use mayfly::seq::Seq;

fn forge(summary: Summary, answer: Answer) -> Issued {
    Issued { seq: Seq::ZERO, summary, answer }
}

fn copy(issued: &Issued) -> Issued {
    issued.clone()
}

fn main() {}
