//! The only source of time and randomness. All other code gets them from here as values.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

pub use mayfly_verify::clock::Clock;
use mayfly_verify::clock::RealClock;

use mayfly_verify::seq::Millis;

/// Time and randomness of one process.
#[derive(Clone)]
pub struct System {
    clock: Arc<dyn Clock>,
}

/// A clock that tests set.
#[derive(Default)]
pub struct ManualClock {
    wall: AtomicU64,
    steady: AtomicU64,
    /// The part of the time for which the machine was suspended.
    suspended: AtomicU64,
}

impl ManualClock {
    /// A clock whose wall time is `wall`.
    pub fn at(wall: Millis) -> Arc<ManualClock> {
        Arc::new(ManualClock { wall: AtomicU64::new(wall.0), ..ManualClock::default() })
    }

    /// Advances both clocks by `ms`.
    pub fn advance(&self, ms: u64) {
        self.wall.fetch_add(ms, Ordering::SeqCst);
        self.steady.fetch_add(ms, Ordering::SeqCst);
    }

    /// Suspends the machine for `ms`: time passes, but not on the clock that stops during suspension.
    pub fn suspend(&self, ms: u64) {
        self.advance(ms);
        self.suspended.fetch_add(ms, Ordering::SeqCst);
    }

    /// Steps the wall clock only.
    pub fn step_to(&self, wall: Millis) {
        self.wall.store(wall.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Millis {
        Millis(self.wall.load(Ordering::SeqCst))
    }

    fn steady(&self) -> u64 {
        self.steady.load(Ordering::SeqCst)
    }

    fn awake(&self) -> u64 {
        self.steady().saturating_sub(self.suspended.load(Ordering::SeqCst))
    }
}

impl System {
    /// The clocks of the machine.
    pub fn real() -> System {
        System { clock: Arc::new(RealClock::new()) }
    }

    /// A system with a clock that a test sets.
    pub fn with_clock(clock: Arc<dyn Clock>) -> System {
        System { clock }
    }

    /// The wall clock time.
    pub fn wall(&self) -> Millis {
        self.clock.wall()
    }

    /// The time of the machine's clock, if the wall clock does not follow all of its steps. For display only, never for decisions.
    pub fn shown(&self) -> Millis {
        self.clock.shown()
    }

    /// Milliseconds of the monotonic clock, which never steps and runs while the machine is suspended.
    pub fn steady(&self) -> u64 {
        self.clock.steady()
    }

    /// Milliseconds of the monotonic clock without the time of suspension.
    pub fn awake(&self) -> u64 {
        self.clock.awake()
    }

    /// 16 random bytes for an id, which is not secret. Many ids are drawn at a time, since a draw costs 0.3 µs whatever its size.
    pub fn id16(&self) -> [u8; 16] {
        IDS.with_borrow_mut(|(pool, next)| {
            if *next >= pool.len() {
                fill(pool.as_flattened_mut());
                *next = 0;
            }
            *next += 1;
            pool[*next - 1]
        })
    }

    /// 16 random bytes from aws-lc's generator.
    pub fn random16(&self) -> [u8; 16] {
        salt16()
    }

    /// 32 random bytes from aws-lc's generator.
    pub fn random32(&self) -> [u8; 32] {
        let mut out = [0u8; 32];
        fill(&mut out);
        out
    }
}

impl Clock for System {
    fn wall(&self) -> Millis {
        self.clock.wall()
    }

    fn steady(&self) -> u64 {
        self.clock.steady()
    }

    fn awake(&self) -> u64 {
        self.clock.awake()
    }

    fn shown(&self) -> Millis {
        self.clock.shown()
    }
}

/// The CPU time of this thread, nanoseconds, which leaves out time taken by other processes. 0 if the kernel does not report it.
pub fn thread_cpu_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Measures a duration, for deciding what there is time for. The result is never stored or reported.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts a measurement.
    #[allow(clippy::disallowed_methods, reason = "this is the one place where the steady clock is read")]
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Nanoseconds since the start.
    pub fn ns(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Microseconds since the start.
    pub fn us(self) -> u64 {
        self.ns() / 1_000
    }

    /// Sleeps `times` as long as the measured duration, at most `most`, so that background work leaves disk and cores to other work.
    pub fn rest(self, times: u32, most: Duration) {
        std::thread::sleep(self.0.elapsed().saturating_mul(times).min(most));
    }
}

/// A point in time by the machine's clock, and how long ago it was. For reporting only, never for decisions.
#[derive(Clone, Copy, Debug)]
pub struct SpanTime {
    ns: u64,
    watch: Stopwatch,
}

impl SpanTime {
    /// The present.
    #[allow(clippy::disallowed_methods, reason = "this is the one place where the machine's clock is told")]
    pub fn now() -> SpanTime {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        SpanTime { ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), watch: Stopwatch::start() }
    }

    /// The point in time, nanoseconds since 1970.
    pub fn ns(self) -> u64 {
        self.ns
    }

    /// The present time, nanoseconds since 1970: the point in time plus the elapsed monotonic time, whatever steps the clock took.
    pub fn now_ns(self) -> u64 {
        self.ns.saturating_add(self.watch.ns())
    }
}

thread_local! {
    /// Random ids that are drawn and not used yet.
    static IDS: RefCell<([[u8; 16]; 32], usize)> = const { RefCell::new(([[0; 16]; 32], 32)) };
}

/// 16 random bytes from aws-lc's generator, for code that has no `System`.
pub fn salt16() -> [u8; 16] {
    let mut out = [0u8; 16];
    fill(&mut out);
    out
}

/// aws-lc's generator, for its functions that sign.
pub fn signing_random() -> aws_lc_rs::rand::SystemRandom {
    aws_lc_rs::rand::SystemRandom::new()
}

/// Fills a buffer with random bytes. aws-lc aborts the process rather than return bad randomness, so this does not fail.
fn fill(out: &mut [u8]) {
    if aws_lc_rs::rand::fill(out).is_err() {
        // Without randomness no id and no key is safe, so the process must not go on.
        std::process::abort();
    }
}
