//! Detects whether the cores themselves stood still during a load.
//!
//! If a hypervisor takes a core away without reporting it, a thread seems to run all the while, and the time is counted as its own. A
//! thread that sleeps there with the highest real-time priority wakes late. It also wakes late if the kernel does not release a core, but
//! that affects one core at a time; a stall of all cores at once is rather caused by the machine.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::thread::gettid;
use serde::Serialize;

use super::BenchError;
use super::run::LongestPhases;
use super::world::{cores, pin};

/// How long each thread sleeps at a time.
const NAP: Duration = Duration::from_millis(1);
/// A wake-up later than this is attributed to the core.
const LATE: Duration = Duration::from_millis(4);
/// The highest priority that chrt(1) gives.
const PRIORITY: &str = "99";

/// A stall of a core, ms since 1970 by the machine's clock.
#[derive(Clone, Copy)]
struct CoreStall {
    /// The index of the core among the cores of this process.
    core: usize,
    from: f64,
    until: f64,
}

/// How long the cores stood still during some time.
#[derive(Serialize, Clone, Default, Debug, PartialEq)]
pub struct StallSummary {
    pub times: usize,
    pub longest_ms: f64,
    /// The stall of each core.
    pub cores_ms: Vec<f64>,
    /// The stall of all cores at once.
    pub together_ms: f64,
}

/// The watching threads, one on each core, until dropped.
pub struct StallMonitor {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<CoreStall>>>,
    threads: Vec<JoinHandle<()>>,
}

impl StallMonitor {
    /// Starts the threads. `None` if there is no chrt(1), or if the priority is not permitted.
    pub fn start() -> Result<Option<StallMonitor>, BenchError> {
        let mut witness = StallMonitor { stop: Arc::default(), seen: Arc::default(), threads: Vec::new() };
        let (tell, told) = channel();
        for (place, core) in cores()?.into_iter().enumerate() {
            let (stop, seen, tell) = (witness.stop.clone(), witness.seen.clone(), tell.clone());
            let watch = move || watch(place, core, tell, &stop, &seen);
            witness.threads.push(std::thread::Builder::new().name("bench-witness".into()).spawn(watch)?);
        }
        drop(tell);
        let permitted = told.iter().all(|permitted| permitted);
        Ok(permitted.then_some(witness))
    }

    /// The stalls between two moments, ms since 1970.
    pub fn between(&self, from: f64, until: f64) -> StallSummary {
        within(&self.seen.lock(), self.threads.len(), from, until)
    }
}

impl Drop for StallMonitor {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// The current time, ms since 1970.
pub fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0
}

fn watch(place: usize, core: usize, tell: Sender<bool>, stop: &AtomicBool, seen: &Mutex<Vec<CoreStall>>) {
    let permitted = pin(&[core]).is_ok() && raise();
    let _ = tell.send(permitted);
    drop(tell);
    while permitted && !stop.load(Relaxed) {
        let asleep = Instant::now();
        std::thread::sleep(NAP);
        let late = asleep.elapsed().saturating_sub(NAP);
        if late > LATE {
            let until = now_ms();
            seen.lock().push(CoreStall { core: place, from: until - late.as_secs_f64() * 1000.0, until });
        }
    }
}

/// Gives this thread the highest real-time priority.
fn raise() -> bool {
    let thread = gettid().as_raw_nonzero().to_string();
    let mut chrt = Command::new("chrt");
    chrt.args(["--fifo", "--pid", PRIORITY, &thread]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    chrt.status().is_ok_and(|status| status.success())
}

fn within(seen: &[CoreStall], cores: usize, from: f64, until: f64) -> StallSummary {
    let mut all = StallSummary { cores_ms: vec![0.0; cores], ..StallSummary::default() };
    // The moments at which a core begins or ends to stand still, and the change in the number of stalled cores there.
    let mut edges = Vec::new();
    for one in seen {
        let (from, until) = (one.from.max(from), one.until.min(until));
        let ms = until - from;
        if ms > 0.0 {
            all.times += 1;
            all.longest_ms = all.longest_ms.max(ms);
            all.cores_ms.iter_mut().skip(one.core).take(1).for_each(|core| *core += ms);
            edges.extend([(from, 1), (until, -1)]);
        }
    }
    edges.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut still, mut since) = (0, 0.0);
    for (at, more) in edges {
        if usize::try_from(still) == Ok(cores) {
            all.together_ms += at - since;
        }
        (still, since) = (still + more, at);
    }
    all
}

/// The stalls during a run.
#[derive(Serialize)]
pub struct RunStalls {
    pub stood_still: StallSummary,
    /// The stalls during the longest fold of a commit.
    pub in_longest_fold: StallSummary,
}

impl RunStalls {
    /// The stalls since the witness was started.
    pub fn of(witness: &StallMonitor, longest: &LongestPhases) -> RunStalls {
        // The server reports whole milliseconds.
        let folding = longest.folded_at_ms.map(|at| witness.between(at - longest.fold_ms, at + 1.0));
        RunStalls { stood_still: witness.between(0.0, f64::INFINITY), in_longest_fold: folding.unwrap_or_default() }
    }

    /// The line printed for people.
    pub fn line(beneath: Option<&RunStalls>) -> String {
        let Some(RunStalls { stood_still, in_longest_fold }) = beneath else {
            return "whether cores stood still beneath it was not looked at: that needs chrt(1) and a right to real-time priority".to_owned();
        };
        let all = |still: &StallSummary| {
            let each: Vec<String> = still.cores_ms.iter().map(|ms| format!("{ms:.0}")).collect();
            format!("each for {} ms, at once for {:.0}", each.join(" and "), still.together_ms)
        };
        let folding = if in_longest_fold.times == 0 { "none did".to_owned() } else { all(in_longest_fold) };
        let StallSummary { times, longest_ms, .. } = stood_still;
        format!(
            "cores stood still {times} times, {longest_ms:.1} ms at the longest, {}; while that commit was folded: {folding}",
            all(stood_still)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_core_stood_still_counts_as_far_as_it_lies_within() {
        let still = |core, from, until| CoreStall { core, from, until };
        let seen = [still(0, 100.0, 120.0), still(1, 110.0, 115.0), still(0, 500.0, 530.0)];
        let some = StallSummary { times: 2, longest_ms: 7.0, cores_ms: vec![7.0, 2.0], together_ms: 2.0 };
        assert_eq!(within(&seen, 2, 105.0, 112.0), some);
        let all = StallSummary { times: 3, longest_ms: 30.0, cores_ms: vec![50.0, 5.0], together_ms: 5.0 };
        assert_eq!(within(&seen, 2, 0.0, f64::INFINITY), all);
        assert_eq!(within(&seen, 2, 120.0, 500.0), StallSummary { cores_ms: vec![0.0, 0.0], ..StallSummary::default() });
        assert_eq!(within(&seen[..1], 1, 0.0, 110.0).together_ms, 10.0, "the only one is all");
    }

    #[test]
    fn who_may_have_no_such_priority_has_no_witness_and_says_so() {
        match StallMonitor::start().unwrap() {
            Some(witness) => assert_eq!(witness.between(0.0, f64::INFINITY).cores_ms.len(), cores().unwrap().len()),
            None => assert!(RunStalls::line(None).contains("chrt")),
        }
    }
}
