//! The program. All code is in the library.

use std::process::ExitCode;

/// jemalloc, for builds with that feature. Records are allocated on one thread and freed on another, which is slow with the C library's
/// allocator: a tenth of the CPU of an issuance. Other allocators return memory to the kernel on whichever thread frees next, which may be
/// the writer.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Core dumps are disabled, so that secrets in memory are not written to disk (invariant 7). If that fails, the command runs
    // nevertheless.
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: rustix::process::getrlimit(rustix::process::Resource::Core).maximum,
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    mayfly::cli::main(std::env::args_os())
}
