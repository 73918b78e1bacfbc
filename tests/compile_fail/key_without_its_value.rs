//! A key's record is not to be had before its sealed private part was written.
use mayfly::credential::keyring::NewKey;
use mayfly::ledger::record::KeyAdded;

fn record(new: NewKey) -> KeyAdded {
    new.record
}

fn main() {}
