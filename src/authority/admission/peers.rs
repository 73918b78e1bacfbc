//! Connections that are open, by the root that vouched for their peer: what removing a root would end.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use mayfly_identity::anchor::AnchorId;

/// Counts open connections. Listeners [`enter`](ConnectionCounter::enter) each.
#[derive(Clone, Default)]
pub struct ConnectionCounter(Arc<Mutex<HashMap<AnchorId, u64>>>);

/// One open connection. It ends with this.
pub struct CountedConnection {
    peers: ConnectionCounter,
    anchor: AnchorId,
}

impl ConnectionCounter {
    /// A connection begins whose peer this root vouched for.
    pub fn enter(&self, anchor: AnchorId) -> CountedConnection {
        *self.0.lock().entry(anchor).or_default() += 1;
        CountedConnection { peers: self.clone(), anchor }
    }

    /// How many are open.
    pub fn len(&self) -> u64 {
        self.0.lock().values().sum()
    }

    /// None is open.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// How many of them rest on these roots.
    pub fn resting_on(&self, anchors: &[[u8; 32]]) -> u64 {
        let open = self.0.lock();
        anchors.iter().filter_map(|a| open.get(&AnchorId::from_bytes(*a))).sum()
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let mut open = self.peers.0.lock();
        if let Some(n) = open.get_mut(&self.anchor) {
            *n -= 1;
            if *n == 0 {
                open.remove(&self.anchor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_while_it_is_open() {
        let (peers, a, b) = (ConnectionCounter::default(), AnchorId::from_bytes([1; 32]), AnchorId::from_bytes([2; 32]));
        let (first, second, third) = (peers.enter(a), peers.enter(a), peers.enter(b));
        assert_eq!((peers.len(), peers.resting_on(&[[1; 32]]), peers.resting_on(&[[1; 32], [2; 32]])), (3, 2, 3));
        drop((first, third));
        assert_eq!((peers.len(), peers.resting_on(&[[2; 32], [3; 32]])), (1, 0));
        drop(second);
        assert!(peers.is_empty());
    }
}
