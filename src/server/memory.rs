//! Memory settings of the kernel.

use rustix::thread::disable_transparent_huge_pages;

/// Disables transparent huge pages, which some systems enable by default: the kernel would clear 2 MiB at a time for memory that is freed
/// and allocated again all the time, 3 % of an issuance, and the process would keep a third more memory. Child processes inherit the
/// setting, so only a server sets it.
pub fn disable_huge_pages() {
    if let Err(error) = disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "huge pages could not be turned off; more memory may be used");
    }
}
