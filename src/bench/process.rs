//! The kernel's counters of a process (proc(5)).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::BenchError;

/// The resources of a process.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// CPU time, user and system, seconds.
    pub cpu_s: f64,
    /// Resident memory, bytes.
    pub rss: u64,
    /// Open files. `None` if the kernel does not permit reading them.
    pub fds: Option<u64>,
    /// Context switches of all threads that are still running.
    pub switches: u64,
}

/// Reads the resources of a process.
pub fn usage(pid: u32) -> Result<Usage, BenchError> {
    Ok(Usage { cpu_s: cpu_seconds(pid)?, rss: rss(pid)?, fds: fds(pid), switches: switches(pid) })
}

/// CPU time, user and system, seconds, from the kernel's counters.
pub fn cpu_seconds(pid: u32) -> Result<f64, BenchError> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields are counted after the command in parentheses; utime and stime are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|t| t.parse::<f64>().ok()).ok_or("/proc/PID/stat is not as proc(5) says");
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Ok((ticks(11)? + ticks(12)?) / per_second)
}

/// Seconds, summed over all cores, that the hypervisor gave to others while something here was ready to run (steal time). Zero on physical
/// machines, and where the hypervisor does not report it.
pub fn stolen_s() -> f64 {
    let ticks = std::fs::read_to_string("/proc/stat").ok().and_then(|stat| stolen_ticks(&stat)).unwrap_or_default();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// The first line is the sum of all cores: "cpu user nice system idle iowait irq softirq steal …".
fn stolen_ticks(stat: &str) -> Option<u64> {
    stat.lines().next()?.split_whitespace().nth(8)?.parse().ok()
}

/// Resident memory, bytes.
pub fn rss(pid: u32) -> Result<u64, BenchError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(field(&status, "VmRSS:").ok_or("/proc/PID/status has no VmRSS")? * 1024)
}

/// Open files.
pub fn fds(pid: u32) -> Option<u64> {
    std::fs::read_dir(format!("/proc/{pid}/fd")).ok().map(|entries| entries.count() as u64)
}

fn switches(pid: u32) -> u64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let each = threads.flatten().filter_map(|t| std::fs::read_to_string(t.path().join("status")).ok());
    each.map(|s| field(&s, "voluntary_ctxt_switches:").unwrap_or(0) + field(&s, "nonvoluntary_ctxt_switches:").unwrap_or(0)).sum()
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Raises the limit of open files to its maximum.
pub fn more_files() -> Result<(), BenchError> {
    let most = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: most.maximum, ..most }).map_err(|e| format!("open files: {e}").into())
}

/// The bytes on disk of all files below a directory.
pub fn disk(dir: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => disk(&entry.path()),
        // Allocated blocks rather than the file size: a store may reserve space that it did not write yet.
        Ok(found) => std::os::unix::fs::MetadataExt::blocks(&found) * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stolen_is_the_eighth_figure_of_all_cores() {
        let stat = "cpu  4404 0 1532 307054 284 0 43 11 7 0\ncpu0 1831 0 498 154293 19 0 11 1 0 0\n";
        assert_eq!(stolen_ticks(stat), Some(11));
        assert_eq!(stolen_ticks("cpu 1 2 3 4"), None, "an old kernel does not tell");
        assert_eq!(stolen_ticks(""), None);
    }
}
