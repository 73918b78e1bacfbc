//! What peers hold of a listener's memory: bytes of requests that are not whole, bytes of answers that are not read, calls under way. Each is
//! bounded for one holder (a SPIFFE ID, a source address, a local uid) and for all holders together.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::long_calls::LongCalls;
use crate::limits;
use crate::refusal::Refusal;

/// Whose share something counts for.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Holder {
    /// A workload, a person or an operator, by SPIFFE ID.
    Identity(Arc<str>),
    /// Somebody unknown, by source address.
    Address(Network),
    /// A user of this host, at the local socket.
    LocalUid(u32),
}

/// What counts as one source address: an IPv4 address, or the /64 of an IPv6 address, which is what one host is given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Network {
    /// An IPv4 address.
    V4(u32),
    /// The first 64 bits of an IPv6 address.
    V6(u64),
}

impl Network {
    /// Of a peer's address.
    pub fn of(address: SocketAddr) -> Network {
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => Network::V4(ip.to_bits()),
            IpAddr::V6(ip) => Network::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

/// One resource: its name in refusals, and its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// The name of the bound of one holder.
    pub own_name: &'static str,
    /// The most of one holder.
    pub own: usize,
    /// The name of the bound of all.
    pub all_name: &'static str,
    /// The most of all holders.
    pub all: usize,
}

impl Bound {
    /// What a holder gets while all places are taken by others: a sixty-fourth of its share.
    fn always(&self) -> usize {
        self.own / 64
    }

    fn allows(&self, own: usize, all: usize) -> Result<(), Refusal> {
        let over = |name, bound: usize| Err(Refusal::limit(name, bound as u64, Duration::from_secs(1)));
        if own > self.own {
            return over(self.own_name, self.own);
        }
        if all > self.all && own > self.always() {
            return over(self.all_name, self.all);
        }
        Ok(())
    }
}

/// The bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct ShareBounds {
    /// Bytes of requests that are not whole yet.
    pub unfinished: Bound,
    /// Bytes of answers that were not read yet.
    pub unread: Bound,
    /// Calls under way that are no single exchange, of one holder.
    pub calls: usize,
}

impl ShareBounds {
    /// Those of a listener whose peers show an X.509-SVID, and of the local socket.
    pub const AUTHENTICATED: ShareBounds = ShareBounds {
        unfinished: Bound {
            own_name: "unfinished_bytes_per_caller",
            own: limits::UNFINISHED_BYTES_PER_CALLER,
            all_name: "unfinished_bytes",
            all: limits::UNFINISHED_BYTES,
        },
        unread: Bound {
            own_name: "unread_bytes_per_caller",
            own: limits::UNREAD_BYTES_PER_CALLER,
            all_name: "unread_bytes",
            all: limits::UNREAD_BYTES,
        },
        calls: limits::CALLS_PER_CALLER,
    };

    /// Those of the public listener.
    pub const PUBLIC: ShareBounds = ShareBounds {
        unfinished: Bound {
            own_name: "public_unfinished_bytes_per_address",
            own: limits::PUBLIC_UNFINISHED_BYTES_PER_ADDRESS,
            all_name: "public_unfinished_bytes",
            all: limits::PUBLIC_UNFINISHED_BYTES,
        },
        unread: Bound {
            own_name: "public_unread_bytes_per_address",
            own: limits::PUBLIC_UNREAD_BYTES_PER_ADDRESS,
            all_name: "public_unread_bytes",
            all: limits::PUBLIC_UNREAD_BYTES,
        },
        calls: limits::CALLS_PER_CALLER,
    };
}

/// What all holders of one listener hold.
#[derive(Debug)]
pub struct Pool {
    bounds: ShareBounds,
    unfinished: AtomicUsize,
    unread: AtomicUsize,
    long: Option<Arc<LongCalls>>,
}

impl Pool {
    /// Nothing is held.
    pub fn new(bounds: ShareBounds) -> Pool {
        Pool { bounds, unfinished: AtomicUsize::new(0), unread: AtomicUsize::new(0), long: None }
    }

    /// With threads of their own for long calls.
    pub fn long_calls_on(self, long: Arc<LongCalls>) -> Pool {
        Pool { long: Some(long), ..self }
    }
}

/// What one holder holds, on all its connections to a listener.
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    unfinished: AtomicUsize,
    unread: AtomicUsize,
    calls: AtomicUsize,
    /// Places of the holder's long calls.
    long: Semaphore,
    /// Logins and attestations of the holder that are looked at.
    logins: AtomicUsize,
}

impl Share {
    /// Nothing is held.
    pub fn new(pool: Arc<Pool>) -> Share {
        let none = || AtomicUsize::new(0);
        let long = Semaphore::new(limits::LONG_CALLS_PER_CALLER);
        Share { pool, unfinished: none(), unread: none(), calls: none(), long, logins: none() }
    }

    /// Counts bytes of an unfinished request. What was taken is given back also where it is refused.
    pub fn take_unfinished(&self, bytes: usize) -> Result<(), Refusal> {
        let own = self.unfinished.fetch_add(bytes, Relaxed) + bytes;
        let all = self.pool.unfinished.fetch_add(bytes, Relaxed) + bytes;
        self.pool.bounds.unfinished.allows(own, all)
    }

    /// Gives bytes of an unfinished request back.
    pub fn give_unfinished(&self, bytes: usize) {
        self.unfinished.fetch_sub(bytes, Relaxed);
        self.pool.unfinished.fetch_sub(bytes, Relaxed);
    }

    /// Counts an answer that will be read or not.
    pub fn take_unread(&self, bytes: usize) {
        self.unread.fetch_add(bytes, Relaxed);
        self.pool.unread.fetch_add(bytes, Relaxed);
    }

    /// Gives an answer's bytes back: it was read, or its connection ended.
    pub fn give_unread(&self, bytes: usize) {
        self.unread.fetch_sub(bytes, Relaxed);
        self.pool.unread.fetch_sub(bytes, Relaxed);
    }

    /// Whether the holder may be given an answer of so many bytes more.
    pub fn may_answer(&self, bytes: usize) -> Result<(), Refusal> {
        let own = self.unread.load(Relaxed) + bytes;
        self.pool.bounds.unread.allows(own, self.pool.unread.load(Relaxed) + bytes)
    }

    /// Counts a call under way; false where the holder has as many as it may.
    pub fn take_call(&self) -> Result<(), Refusal> {
        if self.calls.fetch_add(1, Relaxed) < self.pool.bounds.calls {
            return Ok(());
        }
        self.give_call();
        Err(Refusal::limit("calls_per_caller", self.pool.bounds.calls as u64, Duration::from_secs(1)))
    }

    /// Runs a call that may look at much, when the holder and the listener have a place for it. `None`: its threads have ended.
    pub async fn long<T: Send + 'static>(&self, call: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let _place = self.long.acquire().await.ok()?;
        match &self.pool.long {
            Some(threads) => threads.run(call).await,
            None => Some(call.await),
        }
    }

    /// Counts a login that is looked at until what is returned is dropped. `None` where its source address has as many as it may.
    pub fn login(&self) -> Option<LoginUnderWay<'_>> {
        let under_way = LoginUnderWay(self);
        (self.logins.fetch_add(1, Relaxed) < limits::LOGINS_AT_ONCE_PER_ADDRESS).then_some(under_way)
    }

    /// A call ended.
    pub fn give_call(&self) {
        self.calls.fetch_sub(1, Relaxed);
    }
}

/// A login of a source address that is looked at.
#[derive(Debug)]
pub struct LoginUnderWay<'a>(&'a Share);

impl Drop for LoginUnderWay<'_> {
    fn drop(&mut self) {
        self.0.logins.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_ipv4_address_or_a_64_of_ipv6() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.1:1"), of("[::ffff:192.0.2.1]:9"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.2:1"));
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::2:3:4:5]:1"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
    }

    #[test]
    fn one_holder_has_its_share_and_others_have_theirs_when_all_is_taken() {
        let bound = |own_name, all_name| Bound { own_name, own: 640, all_name, all: 1000 };
        let bounds = ShareBounds { unfinished: bound("u", "all_u"), unread: bound("r", "all_r"), calls: 2 };
        let pool = Arc::new(Pool::new(bounds));
        let [a, b, c] = [0; 3].map(|_| Share::new(pool.clone()));
        a.take_unread(600);
        assert!(a.may_answer(40).is_ok());
        assert_eq!(a.may_answer(41).unwrap_err().rule.as_deref(), Some("r"));
        b.take_unread(400);
        assert_eq!(b.may_answer(1).unwrap_err().rule.as_deref(), Some("all_r"));
        assert!(c.may_answer(10).is_ok(), "whoever holds nothing is answered");
        assert_eq!(c.may_answer(11).unwrap_err().rule.as_deref(), Some("all_r"));
        a.give_unread(600);
        assert!(b.may_answer(240).is_ok());
        assert!(a.take_unfinished(640).is_ok());
        assert_eq!(a.take_unfinished(1).unwrap_err().rule.as_deref(), Some("u"));
        a.give_unfinished(641);
        assert!(a.take_unfinished(640).is_ok());
        assert!(a.take_call().is_ok() && a.take_call().is_ok() && a.take_call().is_err() && b.take_call().is_ok());
        a.give_call();
        assert!(a.take_call().is_ok());
        let logins: Vec<_> = (0..limits::LOGINS_AT_ONCE_PER_ADDRESS).map(|_| a.login().unwrap()).collect();
        assert!(a.login().is_none() && b.login().is_some());
        drop(logins);
        assert!(a.login().is_some());
    }
}
