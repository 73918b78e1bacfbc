//! How the kernel gives memory.

use rustix::thread::disable_transparent_huge_pages;

/// No huge pages, which some systems give unasked: 2 MiB at a time are wiped for what is returned and taken again all day, 3 % of an issuance, and
/// a third more memory stays with the process. Whatever this process starts has none either, so no command does it but a server.
pub fn take_it_in_small_pages() {
    if let Err(error) = disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "huge pages could not be turned off; more memory may be used");
    }
}
