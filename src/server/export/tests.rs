//! Tests of each destination's output, and that a batch is handed over again after an error.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use prost::Message as _;
use rustls::pki_types::PrivateKeyDer;

use super::file::FileSink;
use super::otlp::{CollectorSink, ExportLogsRequest};
use super::syslog::SyslogSink;
use super::{ExportRecord, ExportSink as _};
use crate::otlp::{attribute, text};
use mayfly_base::document::url::WebUrl;
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_config::config::{Collector, Syslog};
use mayfly_verify::seq::Millis;

fn batch(of: std::ops::Range<u64>) -> Vec<ExportRecord> {
    let one =
        |n| ExportRecord { at: Millis(1_795_161_600_000 + n), event: "task opened".into(), json: format!("{{\"seq\":{n}}}") };
    of.map(one).collect()
}

#[test]
fn a_file_gets_a_line_each_also_after_it_was_renamed_and_after_a_line_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    std::fs::write(&path, "{\"seq\":1}\n{\"se").unwrap();
    let mut file = FileSink::new(path.clone());
    file.hand_over(&batch(2..4)).unwrap();
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(&path), "{\"seq\":1}\n{\"se\n{\"seq\":2}\n{\"seq\":3}\n");
    std::fs::rename(&path, dir.path().join("old")).unwrap();
    file.hand_over(&batch(4..5)).unwrap();
    file.hand_over(&batch(5..6)).unwrap();
    assert_eq!(read(&path), "{\"seq\":4}\n{\"seq\":5}\n");
    let mut nowhere = FileSink::new(dir.path().join("none/audit.jsonl"));
    assert!(nowhere.hand_over(&batch(1..2)).unwrap_err().to_string().contains("none/audit.jsonl"));
}

#[test]
fn syslog_gets_messages_of_rfc_5424() {
    let is_one = |message: &str, n: u64| {
        let parts: Vec<&str> = message.splitn(8, ' ').collect();
        assert_eq!(
            (parts[0], parts[1], parts[3], parts[5], parts[6]),
            ("<110>1", "2026-11-20T08:00:00Z", "mayfly", "task-opened", "-")
        );
        assert_eq!(parts[7], format!("{{\"seq\":{n}}}"));
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut to = SyslogSink::new(Syslog::Tcp(listener.local_addr().unwrap().to_string()));
    to.hand_over(&batch(1..3)).unwrap();
    let mut stream = BufReader::new(listener.accept().unwrap().0);
    for n in 1..3 {
        let mut count = Vec::new();
        stream.read_until(b' ', &mut count).unwrap();
        let count: usize = std::str::from_utf8(&count).unwrap().trim().parse().unwrap();
        let mut message = vec![0; count];
        stream.read_exact(&mut message).unwrap();
        is_one(std::str::from_utf8(&message).unwrap(), n);
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut to = SyslogSink::new(Syslog::Udp(socket.local_addr().unwrap().to_string()));
    to.hand_over(&batch(3..4)).unwrap();
    let mut bytes = [0; 2048];
    let length = socket.recv(&mut bytes).unwrap();
    is_one(std::str::from_utf8(&bytes[..length]).unwrap(), 3);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut to = SyslogSink::new(Syslog::Unix(path.clone()));
    assert!(to.hand_over(&batch(4..5)).unwrap_err().to_string().contains("unix:"), "nobody is there yet");
    let socket = UnixDatagram::bind(&path).unwrap();
    to.hand_over(&batch(4..5)).unwrap();
    let length = socket.recv(&mut bytes).unwrap();
    is_one(std::str::from_utf8(&bytes[..length]).unwrap(), 4);
}

/// Head and body of each request.
type Sent = Vec<(String, Vec<u8>)>;

/// Reads one request and sends an answer.
fn serve(stream: impl std::io::Read + std::io::Write, answer: &str) -> (String, Vec<u8>) {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    stream.get_mut().write_all(answer.as_bytes()).unwrap();
    stream.get_mut().flush().unwrap();
    (head, body)
}

/// A collector that sends these answers, one per connection; the thread returns the received requests.
fn collector(answers: Vec<String>) -> (Collector, std::thread::JoinHandle<Sent>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/logs", listener.local_addr().unwrap());
    let served =
        std::thread::spawn(move || answers.into_iter().map(|answer| serve(listener.accept().unwrap().0, &answer)).collect());
    (Collector { url: WebUrl::parse(&url).unwrap(), ca: None }, served)
}

fn exporter(to: Collector) -> CollectorSink {
    CollectorSink::new(to, System::real())
}

const TAKEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_collector_gets_log_records_and_an_answer_other_than_200_is_an_error() {
    let (to, served) = collector(vec!["HTTP/1.1 503 Busy\r\n\r\n".into(), String::new(), TAKEN.into()]);
    let mut to = exporter(to);
    assert!(to.hand_over(&batch(1..3)).unwrap_err().to_string().contains("503"));
    assert!(to.hand_over(&batch(1..3)).is_err(), "it said nothing");
    to.hand_over(&batch(1..3)).unwrap();
    let told = served.join().unwrap();
    assert!(told[2].0.starts_with("POST /v1/logs HTTP/1.1\r\n") && told[2].0.contains("content-type: application/x-protobuf"));
    assert!(told.iter().all(|(_, body)| *body == told[0].1), "the same again");
    let request = ExportLogsRequest::decode(&told[2].1[..]).unwrap();
    let of = &request.resource_logs[0];
    assert_eq!(of.resource.as_ref().unwrap().attributes, [attribute("service.name", text("mayfly"))]);
    let logs = &of.scope_logs[0].log_records;
    assert_eq!((logs.len(), logs[1].time_unix_nano, logs[1].severity_number), (2, 1_795_161_600_002_000_000, 9));
    assert_eq!((logs[1].body.clone(), logs[1].event_name.as_str()), (Some(text("{\"seq\":2}")), "mayfly.task_opened"));
    // Checks the wire format itself: field 12 of a record in field 2 of a scope in field 2 of a resource in field 1.
    assert!(told[2].1.windows(20).any(|w| w == b"b\x12mayfly.task_opened"));
}

#[test]
fn what_a_collector_answers_is_read_within_reason() {
    for bad in
        ["HTTP/1.1 2000\r\n\r\n", "HTTP/1.1 404 Not Found\r\n\r\n", "200", "SSH-2.0", "HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"]
    {
        let (to, served) = collector(vec![bad.into()]);
        assert!(exporter(to).hand_over(&batch(1..2)).is_err(), "{bad:?}");
        served.join().unwrap();
    }
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(limits::EXPORT_ANSWER_BYTES + 1));
    let (to, served) = collector(vec![endless]);
    assert!(exporter(to).hand_over(&batch(1..2)).unwrap_err().to_string().contains("more than 65536 bytes"));
    served.join().unwrap();
}

/// A remote collector gets records only if its certificate is vouched for by the configured roots.
#[test]
fn a_collector_over_tls_is_told_under_the_roots_that_were_given() {
    let dir = tempfile::tempdir().unwrap();
    let named = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, other.cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::Pkcs8(named.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![named.cert.der().clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}/v1/logs", listener.local_addr().unwrap().port());
    let served = std::thread::spawn(move || {
        let session = || rustls::ServerConnection::new(config.clone()).unwrap();
        let (mut refused, mut tcp) = (session(), listener.accept().unwrap().0);
        let no = refused.complete_io(&mut tcp).is_err();
        (no, serve(rustls::StreamOwned::new(session(), listener.accept().unwrap().0), TAKEN).1)
    });
    let mut to = exporter(Collector { url: WebUrl::parse(&url).unwrap(), ca: Some(ca.clone()) });
    let no = to.hand_over(&batch(1..3)).unwrap_err().to_string();
    assert!(no.contains(&url) && no.contains("certificate"), "{no}");
    std::fs::write(&ca, named.cert.pem()).unwrap();
    to.hand_over(&batch(1..3)).unwrap();
    let (no, body) = served.join().unwrap();
    assert!(no, "nothing was said under other roots");
    assert_eq!(ExportLogsRequest::decode(&body[..]).unwrap().resource_logs[0].scope_logs[0].log_records.len(), 2);
}

#[test]
fn a_record_that_no_datagram_holds_is_cut_and_counted_and_those_behind_it_go_on() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    let mut to = SyslogSink::new(Syslog::Udp(socket.local_addr().unwrap().to_string()));
    let mut records = batch(1..4);
    records[1].json = format!("{{\"seq\":2,\"reason\":\"{}\"}}", "x".repeat(70_000));
    to.hand_over(&records).unwrap();
    let mut told = Vec::new();
    for _ in 0..3 {
        let mut bytes = vec![0; 1 << 16];
        let n = socket.recv(&mut bytes).unwrap();
        let text = String::from_utf8(bytes[..n].to_vec()).unwrap();
        told.push(text.split_once(" - {").map(|(_, json)| format!("{{{json}")).unwrap());
    }
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!((read(&told[0])["seq"].as_u64(), read(&told[2])["seq"].as_u64()), (Some(1), Some(3)));
    let cut = read(&told[1]);
    assert_eq!((cut["seq"].as_u64(), cut["truncated"].as_bool()), (Some(2), Some(true)));
    assert_eq!(to.cut(), 1);
}
