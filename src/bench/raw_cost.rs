//! The machine's lower bounds, measured beside the load: one ES256 signature, and one durable flush.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use super::BenchError;

/// Signatures between two readings of the thread's clock.
const ROUND: u32 = 50;
/// The pause after each block of signatures, so that the measurement takes a fiftieth of a core.
const PAUSE: Duration = Duration::from_millis(40);
/// The size of a typical commit of 128 records.
const FLUSH_BYTES: usize = 64 * 1024;

/// Raw measurements that run until they are stopped.
pub struct RawMeasurement {
    /// Set to stop the measurements.
    pub stop: Arc<AtomicBool>,
    sign: JoinHandle<f64>,
    flush: JoinHandle<std::io::Result<Histogram<u64>>>,
}

/// The measured lower bounds.
pub struct LowerBounds {
    /// CPU time of one signature, µs.
    pub sign_us: f64,
    /// Durations of one write and fdatasync, µs.
    pub flush: Histogram<u64>,
}

fn cpu_us() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
}

impl RawMeasurement {
    /// Starts both measurements; the flush uses a file in `dir`.
    pub fn start(dir: &Path) -> Result<RawMeasurement, BenchError> {
        let stop = Arc::new(AtomicBool::new(false));
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| "no key")?;
        let ended = stop.clone();
        let sign = std::thread::spawn(move || sign(&pair, &ended));
        let path = dir.join("raw-flush");
        let file = File::create(&path)?;
        let ended = stop.clone();
        let flush = std::thread::spawn(move || {
            let measured = flush(file, &ended);
            let _ = std::fs::remove_file(path);
            measured
        });
        Ok(RawMeasurement { stop, sign, flush })
    }

    /// Stops both measurements.
    pub fn end(self) -> Result<LowerBounds, BenchError> {
        self.stop.store(true, Ordering::Relaxed);
        let sign_us = self.sign.join().map_err(|_| "signing ended by a panic")?;
        let flush = self.flush.join().map_err(|_| "flushing ended by a panic")??;
        Ok(LowerBounds { sign_us, flush })
    }
}

/// CPU time of one signature over 900 bytes.
fn sign(pair: &EcdsaKeyPair, stop: &AtomicBool) -> f64 {
    let (random, message) = (SystemRandom::new(), [7u8; 900]);
    let one = || {
        let _ = std::hint::black_box(pair.sign(&random, &message));
    };
    median_of_rounds(one, ROUND, || stop.load(Ordering::Relaxed))
}

/// CPU time of one call of `one`, µs: the median of blocks of `many` calls, until `stop`. The median leaves out the effect of other
/// processes on the caches.
pub fn median_of_rounds(mut one: impl FnMut(), many: u32, stop: impl Fn() -> bool) -> f64 {
    let mut rounds = Vec::new();
    while !stop() || rounds.is_empty() {
        let from = cpu_us();
        (0..many).for_each(|_| one());
        rounds.push((cpu_us() - from) / f64::from(many));
        std::thread::sleep(PAUSE);
    }
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

fn flush(mut file: File, stop: &AtomicBool) -> std::io::Result<Histogram<u64>> {
    let mut all = Histogram::new_with_bounds(1, 60_000_000, 3).map_err(std::io::Error::other)?;
    let bytes = vec![7u8; FLUSH_BYTES];
    while !stop.load(Ordering::Relaxed) || all.is_empty() {
        let from = std::time::Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        all.saturating_record(u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX));
        std::thread::sleep(PAUSE);
    }
    Ok(all)
}

/// A flag that stops a measurement.
pub fn stopper() -> Arc<AtomicBool> {
    Arc::default()
}
