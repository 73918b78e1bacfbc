//! TLS over loopback, with two real ends. standards.md, "Traps seen elsewhere": pooled trust domains, and resumption that skips
//! verification.

use crate::kit::pki::{Authority, Defect, HOUR, NOW, Spec, Svid, bundles};
use arc_swap::ArcSwap;
use mayfly::identity::path::PathDefect;
use mayfly::identity::spiffe_id::SpiffeId;
use mayfly::identity::svid::{SvidDefect, VerifiedSvid};
use mayfly::limits::SVID_MAX_TTL_MS;
use mayfly::metrics::handshakes::TlsDefect;
use mayfly::refusal::Reason;
use mayfly::serve::tls::{
    CurrentBundles, CurrentCertificate, MtlsAcceptor, PeerError, ServerIdentityError, client_config, public_config,
    server_identity_error,
};
use mayfly::sources::svid_files::TlsIdentity;
use mayfly::system::{ManualClock, System};
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, NamedGroup};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

const SERVER: &str = "spiffe://example.org/mayfly";
const CALLER: &str = "spiffe://example.org/a";

fn system() -> System {
    System::with_clock(ManualClock::at(NOW))
}

fn own(svid: &Svid) -> CurrentCertificate {
    let pair = TlsIdentity::from_pem(svid.chain_pem().as_bytes(), svid.key_pem().as_bytes()).unwrap();
    Arc::new(ArcSwap::new(pair.certified_key().clone()))
}

fn in_force(domains: &[(&str, &Authority)]) -> CurrentBundles {
    Arc::new(ArcSwap::from_pointee(bundles(domains)))
}

/// A trust domain with a server in it, and a partner whose bundle the server has too.
struct World {
    ours: Authority,
    partner: Authority,
    bundles: CurrentBundles,
    server: CurrentCertificate,
}

impl World {
    fn new() -> World {
        let (ours, partner) = (Authority::root("example.org"), Authority::root("partner.test"));
        let bundles = in_force(&[("example.org", &ours), ("partner.test", &partner)]);
        let server = own(&ours.issue(&Spec::leaf(SERVER).and_dns("localhost")));
        World { ours, partner, bundles, server }
    }

    fn acceptor(&self) -> MtlsAcceptor {
        MtlsAcceptor::new(self.server.clone(), self.bundles.clone(), system(), SVID_MAX_TTL_MS)
    }

    fn client(&self, shows: Option<&Svid>) -> ClientConfig {
        let expected = SpiffeId::parse(SERVER).unwrap();
        client_config(shows.map(own), self.bundles.clone(), expected, &system()).unwrap()
    }

    /// One connection of a client with this SVID, and the server's verdict on it.
    async fn call(&self, shows: Option<&Svid>) -> Result<VerifiedSvid, PeerError> {
        connect(&self.acceptor(), self.client(shows)).await.0
    }
}

struct Client {
    kind: Option<HandshakeKind>,
    group: Option<NamedGroup>,
    tickets: u32,
    alpn: Option<Vec<u8>>,
}

/// A handshake and one byte from the server: only then does a TLS 1.3 client know whether it was accepted.
async fn connect(acceptor: &MtlsAcceptor, client: ClientConfig) -> (Result<VerifiedSvid, PeerError>, std::io::Result<Client>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let (mut stream, svid) = acceptor.accept(tcp).await?;
        stream.write_all(b"!").await.unwrap();
        stream.shutdown().await.unwrap();
        Ok(svid)
    };
    let client = async {
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, tcp).await?;
        stream.read_exact(&mut [0]).await?;
        let session = stream.get_ref().1;
        Ok(Client {
            kind: session.handshake_kind(),
            group: session.negotiated_key_exchange_group().map(|g| g.name()),
            tickets: session.tls13_tickets_received(),
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        })
    };
    tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(server, client) }).await.unwrap()
}

fn refused(outcome: Result<VerifiedSvid, PeerError>) -> SvidDefect {
    match outcome {
        Err(no @ PeerError::Svid(defect, _)) => {
            assert_eq!((no.refusal().reason, no.refusal().rule.as_deref()), (Reason::NotAuthenticated, Some(defect.code())));
            defect
        }
        other => panic!("expected a refused SVID, got {other:?}"),
    }
}

#[tokio::test]
async fn a_good_svid_is_the_identity_of_the_connection() {
    let world = World::new();
    let svid = world.ours.svid(CALLER);
    let (accepted, client) = connect(&world.acceptor(), world.client(Some(&svid))).await;
    let accepted = accepted.unwrap();
    assert_eq!(accepted.id().as_str(), CALLER);
    let leaf = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &svid.chain.certificates()[0]);
    assert_eq!(accepted.evidence().leaf_sha256, leaf.as_ref());
    let client = client.unwrap();
    assert_eq!(client.group, Some(NamedGroup::X25519MLKEM768), "the hybrid key exchange is preferred");
    assert_eq!(client.alpn.as_deref(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn a_partners_svid_is_accepted_for_the_partners_domain() {
    let world = World::new();
    let theirs = world.partner.intermediate(&Spec::ca("partner.test", "middle")).svid("spiffe://partner.test/a");
    assert_eq!(world.call(Some(&theirs)).await.unwrap().evidence().trust_domain.as_str(), "partner.test");
}

#[tokio::test]
async fn no_certificate_is_refused() {
    let world = World::new();
    let (refused, client) = connect(&world.acceptor(), world.client(None)).await;
    assert!(matches!(&refused, Err(PeerError::Tls(TlsDefect::NoCertificate, _))), "{refused:?}");
    assert!(client.is_err());
}

#[tokio::test]
async fn a_root_of_another_domain_vouches_for_nobody_in_ours() {
    let world = World::new();
    let forged = world.partner.svid(CALLER);
    assert_eq!(refused(world.call(Some(&forged)).await), SvidDefect::Path(PathDefect::UnknownAuthority));
    let stranger = Authority::root("stranger.test").svid("spiffe://stranger.test/a");
    assert_eq!(refused(world.call(Some(&stranger)).await), SvidDefect::NoBundle);
}

#[tokio::test]
async fn expired_future_and_too_long_lived_svids_are_refused() {
    let world = World::new();
    let with = |from, to| world.ours.issue(&Spec::leaf(CALLER).valid(from, to));
    assert_eq!(refused(world.call(Some(&with(NOW.minus(HOUR), NOW.minus(1000)))).await), SvidDefect::Expired);
    assert_eq!(refused(world.call(Some(&with(NOW.plus(1000), NOW.plus(HOUR)))).await), SvidDefect::NotYetValid);
    assert_eq!(refused(world.call(Some(&with(NOW, NOW.plus(25 * HOUR)))).await), SvidDefect::LivesTooLong);
}

#[tokio::test]
async fn two_uri_sans_are_refused() {
    let world = World::new();
    let two = world.ours.issue(&Spec::leaf(CALLER).with(Defect::TwoUris));
    assert_eq!(refused(world.call(Some(&two)).await), SvidDefect::MoreThanOneUriSan);
}

#[tokio::test]
async fn a_ca_as_caller_is_refused() {
    let world = World::new();
    let ca = world.ours.issue(&Spec::leaf(CALLER).with(Defect::Ca));
    assert_eq!(refused(world.call(Some(&ca)).await), SvidDefect::LeafIsCa);
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let world = World::new();
    let (victim, thief) = (world.ours.svid(CALLER), world.ours.svid("spiffe://example.org/thief"));
    // The thief presents the victim's chain, and signs with its own key.
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&thief.key.serialize_der().try_into().unwrap()).unwrap();
    let stolen = rustls::sign::CertifiedKey::new(victim.chain.certificates().to_vec(), key);
    let expected = SpiffeId::parse(SERVER).unwrap();
    let config =
        client_config(Some(Arc::new(ArcSwap::from_pointee(stolen))), world.bundles.clone(), expected, &system()).unwrap();
    let (refused, _) = connect(&world.acceptor(), config).await;
    assert!(matches!(refused, Err(PeerError::Tls(TlsDefect::Signature, _))), "{refused:?}");
}

#[tokio::test]
async fn resumption_is_not_offered() {
    let world = World::new();
    let svid = world.ours.svid(CALLER);
    let mut client = world.client(Some(&svid));
    client.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(16)));
    for _ in 0..2 {
        let (_, session) = connect(&world.acceptor(), client.clone()).await;
        let session = session.unwrap();
        assert_eq!(session.tickets, 0);
        assert!(
            matches!(session.kind, Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)),
            "{:?}",
            session.kind
        );
    }
}

#[tokio::test]
async fn a_tls_1_2_client_is_refused() {
    let world = World::new();
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let hello = client_hello_of_tls_1_2();
    let acceptor = world.acceptor();
    let (refused, alert) = tokio::join!(acceptor.accept(server), async {
        client.write_all(&hello).await.unwrap();
        let mut alert = [0; 7];
        client.read_exact(&mut alert).await.unwrap();
        alert
    });
    assert!(matches!(refused, Err(PeerError::Tls(TlsDefect::Version, _))), "{refused:?}");
    // Record type alert, two bytes of version, length 2, fatal, protocol_version (RFC 8446, section 6).
    assert_eq!((alert[0], &alert[3..]), (21, &[0, 2, 2, 70][..]));
}

/// RFC 5246, section 7.4.1.2, written by hand, because no library here supports it any more.
fn client_hello_of_tls_1_2() -> Vec<u8> {
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &(body.len() as u16).to_be_bytes(), body].concat();
    let extensions = [
        extension(10, &[0, 4, 0, 23, 0, 29]),     // supported_groups: secp256r1, x25519
        extension(11, &[1, 0]),                   // ec_point_formats: uncompressed
        extension(13, &[0, 6, 4, 3, 8, 4, 4, 1]), // signature_algorithms
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]); // random
    body.push(0); // no session id
    body.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x2f]); // ECDHE-ECDSA and ECDHE-RSA with AES-128-GCM
    body.extend([1, 0]); // no compression
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend((body.len() as u16).to_be_bytes());
    handshake.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend((handshake.len() as u16).to_be_bytes());
    record.extend(handshake);
    record
}

#[tokio::test]
async fn plain_text_on_the_tls_port_is_refused() {
    let world = World::new();
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let acceptor = world.acceptor();
    let (refused, _) = tokio::join!(acceptor.accept(server), client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(matches!(refused, Err(PeerError::Tls(TlsDefect::NotTls, _))), "{refused:?}");
}

#[tokio::test]
async fn a_client_without_h2_is_refused() {
    let world = World::new();
    let svid = world.ours.svid(CALLER);
    let mut client = world.client(Some(&svid));
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (refused, _) = connect(&world.acceptor(), client).await;
    assert!(matches!(refused, Err(PeerError::Tls(TlsDefect::Alpn, _))), "{refused:?}");
}

#[tokio::test]
async fn a_bundle_that_changes_counts_from_the_next_handshake() {
    let world = World::new();
    let (acceptor, svid) = (world.acceptor(), world.ours.svid(CALLER));
    let client =
        client_config(Some(own(&svid)), world.bundles_for_clients(), SpiffeId::parse(SERVER).unwrap(), &system()).unwrap();
    assert!(connect(&acceptor, client.clone()).await.0.is_ok());
    world.bundles.store(Arc::new(world.bundles.load().without("example.org")));
    assert_eq!(refused(connect(&acceptor, client).await.0), SvidDefect::NoBundle);
}

impl World {
    /// A copy that does not change with the server's bundles.
    fn bundles_for_clients(&self) -> CurrentBundles {
        Arc::new(ArcSwap::new(self.bundles.load_full()))
    }
}

#[tokio::test]
async fn a_server_certificate_that_changes_counts_from_the_next_handshake() {
    let world = World::new();
    let svid = world.ours.svid(CALLER);
    let (acceptor, client) = (world.acceptor(), world.client(Some(&svid)));
    assert!(connect(&acceptor, client.clone()).await.1.is_ok());
    let other = own(&world.ours.svid("spiffe://example.org/other"));
    world.server.store(other.load_full());
    let error = connect(&acceptor, client).await.1.err().unwrap();
    let reason = server_identity_error(&error).unwrap().to_string();
    assert_eq!(reason, "the server is spiffe://example.org/other, expected spiffe://example.org/mayfly");
}

#[tokio::test]
async fn a_client_refuses_a_server_that_its_bundle_does_not_vouch_for() {
    let world = World::new();
    let svid = world.ours.svid(CALLER);
    let forged = world.partner.issue(&Spec::leaf(SERVER).and_dns("localhost"));
    world.server.store(own(&forged).load_full());
    let error = connect(&world.acceptor(), world.client(Some(&svid))).await.1.err().unwrap();
    assert_eq!(server_identity_error(&error), Some(&ServerIdentityError::Svid(SvidDefect::Path(PathDefect::UnknownAuthority))));
}

#[tokio::test]
async fn the_public_listener_asks_for_no_certificate() {
    let world = World::new();
    let config = public_config(&world.server, &system()).unwrap();
    let mut client = world.client(None);
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (a, b) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("localhost").unwrap();
    let server = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(b);
    let (server, client) = tokio::join!(server, TlsConnector::from(Arc::new(client)).connect(name, a));
    assert_eq!(server.unwrap().get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(client.is_ok());
}
