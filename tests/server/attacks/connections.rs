//! Connections that send nothing, before their handshake and after it.

use std::net::SocketAddr;
use std::time::Duration;

use mayfly::limits;
use tokio::net::TcpStream;

use super::Rig;
use mayfly::cli::dev::DevSettings;

async fn silent(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        // The backlog may be full for a moment.
        if let Ok(Ok(tcp)) = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(address)).await {
            all.push(tcp);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_silent_sockets_at_every_listener_keep_nobody_out() {
    let rig = Rig::new(DevSettings::default());
    let addresses = rig.child.addresses().clone();
    let before = rig.memory();
    let others = rig.others();
    let mut held = Vec::new();
    for address in [addresses.admin, addresses.workload, addresses.public] {
        held.extend(silent(address, 1_000).await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Further silent sockets keep arriving.
    for _ in 0..5 {
        held.extend(silent(addresses.admin, 100).await);
        // A workload that connects now is admitted as well.
        let new = rig.world.channel("agent/demo", addresses.workload).await.expect("a workload gets in");
        assert!(crate::kit::healthy(new).await);
    }
    others.saw("silent sockets").await;
    let grown = rig.peak().saturating_sub(before);
    assert!(grown < 100, "{grown} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_workload_that_holds_every_place_loses_them_to_others() {
    let settings = DevSettings::default().with("limits.connections", "200").with("limits.admin_connections", "50");
    let rig = Rig::new(settings);
    let addresses = rig.child.addresses().clone();
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(rig.shut("agent/demo", 65_535).await);
    }
    let others = rig.others();
    // A workload's SVID may also connect to the admin listener, though no call is permitted there.
    let mut admin = Vec::new();
    for _ in 0..60 {
        admin.push(rig.world.channel("agent/demo", addresses.admin).await);
    }
    for name in ["mcp/repos", "mcp/echo", "operator/colleague"] {
        let new = rig.world.channel(name, addresses.workload).await.expect("a place");
        assert!(crate::kit::healthy(new).await, "{name}");
    }
    // The attacker reconnects again and again, and takes no place from holders with fewer connections.
    for _ in 0..100 {
        held.push(rig.shut("agent/demo", 65_535).await);
    }
    tokio::time::sleep(Duration::from_millis(limits::CLOSE_MS)).await;
    others.saw("all places held").await;
}
