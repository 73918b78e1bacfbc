//! The program: everything is in the library.

use std::process::ExitCode;

/// Records are made on one thread and freed on another, which the C library's allocator is slow at: a tenth of the CPU of an issuance. Others
/// give memory back to the kernel on whichever thread frees some next, the writer among them.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // What is held in memory is not left on a disk (invariant 7). Where that cannot be set, a command is still better than none.
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: rustix::process::getrlimit(rustix::process::Resource::Core).maximum,
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    mayfly::cli::main(std::env::args_os())
}
