//! Shares of a listener's memory: bytes of incomplete requests, bytes of unread answers, and calls in progress. Each is limited per holder
//! (a SPIFFE ID, a source address, a local uid) and over all holders.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::long_calls::LongCalls;
use mayfly_base::limits;
use mayfly_base::refusal::Refusal;

/// The holder to which a resource is charged.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Holder {
    /// A workload, a person or an operator, by SPIFFE ID.
    Identity(Arc<str>),
    /// An unauthenticated client, by source address.
    Address(Network),
    /// A user of this host, on the local socket.
    LocalUid(u32),
}

/// A source address: an IPv4 address, or the /64 of an IPv6 address, which is the range that one host gets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Network {
    /// An IPv4 address.
    V4(u32),
    /// The first 64 bits of an IPv6 address.
    V6(u64),
}

impl Network {
    /// The network of a peer's address.
    pub fn of(address: SocketAddr) -> Network {
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => Network::V4(ip.to_bits()),
            IpAddr::V6(ip) => Network::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

/// One resource: the names of its limits in refusals, and the limits.
#[derive(Clone, Copy, Debug)]
pub struct ShareLimit {
    /// The name of the limit of one holder.
    pub own_name: &'static str,
    /// The limit of one holder.
    pub own: usize,
    /// The name of the limit of all holders.
    pub all_name: &'static str,
    /// The limit of all holders.
    pub all: usize,
}

impl ShareLimit {
    /// The amount that a holder gets even when all capacity is taken by others: a sixty-fourth of its share.
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

/// The limits of a listener.
#[derive(Clone, Copy, Debug)]
pub struct ShareLimits {
    /// Bytes of incomplete requests.
    pub unfinished: ShareLimit,
    /// Bytes of unread answers.
    pub unread: ShareLimit,
    /// Calls in progress of one holder, single exchanges not counted.
    pub calls: usize,
}

impl ShareLimits {
    /// The limits of a listener whose peers present an X.509-SVID, and of the local socket.
    pub const AUTHENTICATED: ShareLimits = ShareLimits {
        unfinished: ShareLimit {
            own_name: "unfinished_bytes_per_caller",
            own: limits::UNFINISHED_BYTES_PER_CALLER,
            all_name: "unfinished_bytes",
            all: limits::UNFINISHED_BYTES,
        },
        unread: ShareLimit {
            own_name: "unread_bytes_per_caller",
            own: limits::UNREAD_BYTES_PER_CALLER,
            all_name: "unread_bytes",
            all: limits::UNREAD_BYTES,
        },
        calls: limits::CALLS_PER_CALLER,
    };

    /// The limits of the public listener.
    pub const PUBLIC: ShareLimits = ShareLimits {
        unfinished: ShareLimit {
            own_name: "public_unfinished_bytes_per_address",
            own: limits::PUBLIC_UNFINISHED_BYTES_PER_ADDRESS,
            all_name: "public_unfinished_bytes",
            all: limits::PUBLIC_UNFINISHED_BYTES,
        },
        unread: ShareLimit {
            own_name: "public_unread_bytes_per_address",
            own: limits::PUBLIC_UNREAD_BYTES_PER_ADDRESS,
            all_name: "public_unread_bytes",
            all: limits::PUBLIC_UNREAD_BYTES,
        },
        calls: limits::CALLS_PER_CALLER,
    };
}

/// The amounts that all holders of one listener hold.
#[derive(Debug)]
pub struct Pool {
    bounds: ShareLimits,
    unfinished: AtomicUsize,
    unread: AtomicUsize,
    long: Option<Arc<LongCalls>>,
}

impl Pool {
    /// A pool with nothing held.
    pub fn new(bounds: ShareLimits) -> Pool {
        Pool { bounds, unfinished: AtomicUsize::new(0), unread: AtomicUsize::new(0), long: None }
    }

    /// Adds threads for long calls.
    pub fn long_calls_on(self, long: Arc<LongCalls>) -> Pool {
        Pool { long: Some(long), ..self }
    }
}

/// The amounts that one holder holds on all its connections to a listener.
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    unfinished: AtomicUsize,
    unread: AtomicUsize,
    calls: AtomicUsize,
    /// Places for the holder's long calls.
    long: Semaphore,
    /// Number of the holder's logins and attestations in progress.
    logins: AtomicUsize,
}

impl Share {
    /// A share with nothing held.
    pub fn new(pool: Arc<Pool>) -> Share {
        let none = || AtomicUsize::new(0);
        let long = Semaphore::new(limits::LONG_CALLS_PER_CALLER);
        Share { pool, unfinished: none(), unread: none(), calls: none(), long, logins: none() }
    }

    /// Counts bytes of an incomplete request. The caller gives the bytes back even if they were refused.
    pub fn take_unfinished(&self, bytes: usize) -> Result<(), Refusal> {
        let own = self.unfinished.fetch_add(bytes, Relaxed) + bytes;
        let all = self.pool.unfinished.fetch_add(bytes, Relaxed) + bytes;
        self.pool.bounds.unfinished.allows(own, all)
    }

    /// Gives back bytes of an incomplete request.
    pub fn give_unfinished(&self, bytes: usize) {
        self.unfinished.fetch_sub(bytes, Relaxed);
        self.pool.unfinished.fetch_sub(bytes, Relaxed);
    }

    /// Counts an answer until it has been read or its connection ends.
    pub fn take_unread(&self, bytes: usize) {
        self.unread.fetch_add(bytes, Relaxed);
        self.pool.unread.fetch_add(bytes, Relaxed);
    }

    /// Gives back an answer's bytes: it was read, or its connection ended.
    pub fn give_unread(&self, bytes: usize) {
        self.unread.fetch_sub(bytes, Relaxed);
        self.pool.unread.fetch_sub(bytes, Relaxed);
    }

    /// Whether the holder may be sent an answer of this many further bytes.
    pub fn may_answer(&self, bytes: usize) -> Result<(), Refusal> {
        let own = self.unread.load(Relaxed) + bytes;
        self.pool.bounds.unread.allows(own, self.pool.unread.load(Relaxed) + bytes)
    }

    /// Counts a call in progress; refused if the holder has as many as it may.
    pub fn take_call(&self) -> Result<(), Refusal> {
        if self.calls.fetch_add(1, Relaxed) < self.pool.bounds.calls {
            return Ok(());
        }
        self.give_call();
        Err(Refusal::limit("calls_per_caller", self.pool.bounds.calls as u64, Duration::from_secs(1)))
    }

    /// Runs a call that may examine much data, once the holder and the listener have a place for it. `None`: the threads have ended.
    pub async fn long<T: Send + 'static>(&self, call: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let _place = self.long.acquire().await.ok()?;
        match &self.pool.long {
            Some(threads) => threads.run(call).await,
            None => Some(call.await),
        }
    }

    /// Counts a login in progress until the returned value is dropped. `None` if the source address has as many as it may.
    pub fn login(&self) -> Option<LoginUnderWay<'_>> {
        let under_way = LoginUnderWay(self);
        (self.logins.fetch_add(1, Relaxed) < limits::LOGINS_AT_ONCE_PER_ADDRESS).then_some(under_way)
    }

    /// Counts the end of a call.
    pub fn give_call(&self) {
        self.calls.fetch_sub(1, Relaxed);
    }
}

/// A login in progress of a source address.
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
        let bound = |own_name, all_name| ShareLimit { own_name, own: 640, all_name, all: 1000 };
        let bounds = ShareLimits { unfinished: bound("u", "all_u"), unread: bound("r", "all_r"), calls: 2 };
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
