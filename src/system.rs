//! The only place where time and randomness come from. Everything else gets them as values.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

pub use mayfly_verify::clock::Clock;
use mayfly_verify::clock::RealClock;

use crate::seq::Millis;

/// Time and randomness of one process.
#[derive(Clone)]
pub struct System {
    clock: Arc<dyn Clock>,
}

/// A clock that tests set.
#[derive(Default)]
pub struct SetClock {
    wall: AtomicU64,
    steady: AtomicU64,
    /// Of that, what the machine was suspended.
    suspended: AtomicU64,
}

impl SetClock {
    /// A clock that stands at `wall`.
    pub fn at(wall: Millis) -> Arc<SetClock> {
        Arc::new(SetClock { wall: AtomicU64::new(wall.0), ..SetClock::default() })
    }

    /// Both clocks go on by `ms`: time passes.
    pub fn advance(&self, ms: u64) {
        self.wall.fetch_add(ms, Ordering::SeqCst);
        self.steady.fetch_add(ms, Ordering::SeqCst);
    }

    /// The machine is suspended for `ms`: time passes, and only the clock of what is awake stands still.
    pub fn suspend(&self, ms: u64) {
        self.advance(ms);
        self.suspended.fetch_add(ms, Ordering::SeqCst);
    }

    /// Only the wall clock moves: somebody set it.
    pub fn step_to(&self, wall: Millis) {
        self.wall.store(wall.0, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
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
    /// The machine's own clocks.
    pub fn real() -> System {
        System { clock: Arc::new(RealClock::new()) }
    }

    /// A system whose time a test sets.
    pub fn with_clock(clock: Arc<dyn Clock>) -> System {
        System { clock }
    }

    /// Now, by the wall clock.
    pub fn wall(&self) -> Millis {
        self.clock.wall()
    }

    /// What the machine's clock shows, where the wall clock is one that does not follow every step of it: for telling, never for judging.
    pub fn shown(&self) -> Millis {
        self.clock.shown()
    }

    /// Milliseconds that have passed, by a clock that never steps and goes on while the machine is suspended.
    pub fn steady(&self) -> u64 {
        self.clock.steady()
    }

    /// The same without the time during which the machine was suspended.
    pub fn awake(&self) -> u64 {
        self.clock.awake()
    }

    /// 16 random bytes for an id, which is no secret: they are drawn many at a time, since a draw costs 0.3 µs whatever its size.
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

/// CPU that this thread has used, nanoseconds: what a neighbour takes is not in it. 0 where the kernel does not say.
pub fn thread_cpu_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Measures how long something takes, for deciding what there is time for. Nothing that is kept or told rests on it.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// From now on.
    #[allow(clippy::disallowed_methods, reason = "this is the one place where the steady clock is read")]
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Nanoseconds since.
    pub fn ns(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Microseconds since.
    pub fn us(self) -> u64 {
        self.ns() / 1_000
    }

    /// Sleeps so many times as long as it has taken, `most` at the longest: how work in the background leaves disk and cores to others.
    pub fn rest(self, times: u32, most: Duration) {
        std::thread::sleep(self.0.elapsed().saturating_mul(times).min(most));
    }
}

/// A moment by the machine's clock, and how long ago it was: for telling others when something was, never for judging.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    ns: u64,
    watch: Stopwatch,
}

impl Moment {
    /// Now.
    #[allow(clippy::disallowed_methods, reason = "this is the one place where the machine's clock is told")]
    pub fn now() -> Moment {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Moment { ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), watch: Stopwatch::start() }
    }

    /// The moment itself, nanoseconds since 1970.
    pub fn ns(self) -> u64 {
        self.ns
    }

    /// What it is now, nanoseconds since 1970: later by what has passed, whatever was done to the clock.
    pub fn now_ns(self) -> u64 {
        self.ns.saturating_add(self.watch.ns())
    }
}

thread_local! {
    /// Drawn and not given out yet.
    static IDS: RefCell<([[u8; 16]; 32], usize)> = const { RefCell::new(([[0; 16]; 32], 32)) };
}

/// 16 random bytes from aws-lc's generator, for what is below any system.
pub fn salt16() -> [u8; 16] {
    let mut out = [0u8; 16];
    fill(&mut out);
    out
}

/// aws-lc aborts the process rather than hand out bad randomness, so this does not fail.
fn fill(out: &mut [u8]) {
    if aws_lc_rs::rand::fill(out).is_err() {
        // Without randomness no id and no key is safe to make; there is nothing to answer.
        std::process::abort();
    }
}
