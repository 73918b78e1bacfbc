//! SIGINT and SIGTERM: a bench that is told to end takes its server with it, and what it made for it. A soak's are gigabytes.

use std::sync::LazyLock;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

static TOLD: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// Hears them from now on.
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
                // Who says it twice does not want to wait.
                if TOLD.send_replace(true) {
                    std::process::exit(1);
                }
            }
        });
    };
    std::thread::Builder::new().name("bench-signals".into()).spawn(listening).map(drop)
}

/// Until it is told to end. At once where it was.
pub async fn told() {
    let _ = TOLD.subscribe().wait_for(|told| *told).await;
}
