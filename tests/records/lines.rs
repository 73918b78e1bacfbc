//! A task that was opened on a credential of ours says all that this rests on.

use mayfly::ledger::record::*;

use super::samples::{agent, id, person, text};

/// By the folder and name of the sample.
pub fn all() -> Vec<(String, Record)> {
    let ancestor = |n: u8| Ancestor { credential: id(n), caller: agent() };
    let opened = TaskOpened {
        owner: Some(person("ada")),
        ancestor: id(0xc2),
        ancestors: vec![ancestor(0xc1), ancestor(0xc2)],
        ..TaskOpened::default()
    };
    vec![(text("v8/11-task-opened-ancestors"), Record::new(Who::SpiffeId(agent()), Event::TaskOpened(opened.into())))]
}
