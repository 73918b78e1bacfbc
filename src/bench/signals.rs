//! SIGINT and SIGTERM: an interrupted bench stops its server and removes the server's files, which are gigabytes after a soak.

use std::sync::LazyLock;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

static TOLD: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// Listens for the signals from now on.
pub fn listen() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let of = |kind| {
        let _within = runtime.enter();
        signal(kind)
    };
    let (mut interrupt, mut terminate) = (of(SignalKind::interrupt())?, of(SignalKind::terminate())?);
    let listening = move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                // A second signal ends the process without waiting.
                if TOLD.send_replace(true) {
                    std::process::exit(1);
                }
            }
        });
    };
    std::thread::Builder::new().name("bench-signals".into()).spawn(listening).map(drop)
}

/// Waits for the first signal; returns at once if it was already received.
pub async fn wait_for_signal() {
    let _ = TOLD.subscribe().wait_for(|told| *told).await;
}
