//! Traces of a whole server, as a collector receives them.

use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::system::Stopwatch;

use crate::collector::{Collector, Span};
use crate::kit::{Up, echo_task, open_task, reason, self_signed, until, world};
use crate::metrics::scraped;
use crate::ports::Ports;
use crate::receiver::{Receiver, hook};
use crate::traces_of_calls::*;

fn up(collector: &Collector, more: &str) -> Up {
    Up::with_config(DevSettings::default(), &collector.section(more))
}

fn below<'a>(all: &'a [Span], parent: &Span) -> Vec<&'a Span> {
    all.iter().filter(|span| span.parent == parent.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_told_under_its_callers_span_with_the_ids_that_the_audit_finds() {
    let collector = Collector::new();
    let up = up(&collector, "ratio = 0");
    let channel = up.channel("agent/demo").await;
    let task = open_task(channel.clone(), None).await.unwrap();
    let issued = exchange(&channel, ask(&task, "r-1"), &[&sampled()]).await.unwrap();
    until("it is told", || collector.spans().len() == 5).await;
    let spans = collector.spans();
    let root = &collector.named("mayfly.v1.TokenService/Exchange")[0];
    assert_eq!((root.trace.as_str(), root.parent.as_str(), root.kind), (TRACE, PARENT, 2));
    for (key, value) in [
        ("rpc.system", "grpc"),
        ("rpc.service", "mayfly.v1.TokenService"),
        ("rpc.method", "Exchange"),
        ("rpc.grpc.status_code", "0"),
        ("mayfly.caller", DevWorld::id("agent/demo").as_str()),
        ("mayfly.request.id", "r-1"),
        ("mayfly.task.id", &task),
        ("mayfly.upstream", "echo"),
        ("mayfly.credential.id", &issued.credential_id),
        ("mayfly.seq", &issued.seq.to_string()),
        ("mayfly.novelty", "new"),
    ] {
        assert_eq!(root.of(key), value, "{key}");
    }
    assert_eq!(root.error, None);
    let mut parts: Vec<&str> = below(&spans, root).iter().map(|span| span.name.as_str()).collect();
    parts.sort_unstable();
    assert_eq!(parts, ["decide", "durable", "mint", "turn"]);
    for part in below(&spans, root) {
        assert!(part.trace == TRACE && part.start >= root.start && part.end <= root.end && part.end >= part.start, "{part:?}");
    }
    let decide = &collector.named("decide")[0];
    assert_eq!((decide.of("mayfly.policy.version"), decide.of("mayfly.environment")), ("1", "dev"));
    assert_eq!(collector.named("durable")[0].of("mayfly.seq"), issued.seq.to_string());
    assert_eq!(collector.service()["service.name"], "mayfly");
    let Some(pb::issued::Answer::BearerToken(bearer)) = issued.answer else { panic!("no token") };
    assert!(!collector.holds(&bearer.token) && !collector.holds("only the audit holds"), "neither a secret nor free text");
    // The reverse lookup: the trace id finds the record that the span names.
    let found = recorded(&up, TRACE).await;
    assert_eq!(
        found.iter().map(|(seq, event, _)| (*seq, event.as_str())).collect::<Vec<_>>(),
        [(issued.seq, "credential issued")]
    );
    assert_eq!(found[0].2["trace"], TRACE);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_no_trace_gets_none_and_what_is_malformed_is_nobodys() {
    let collector = Collector::new();
    let up = up(&collector, "ratio = 0");
    let channel = up.channel("agent/demo").await;
    let task = open_task(channel.clone(), None).await.unwrap();
    let not = format!("00-{TRACE}-{PARENT}-00");
    let quiet = exchange(&channel, ask(&task, "r-1"), &[&not]).await.unwrap();
    for (n, bad) in
        [&[][..], &["00-nonsense"], &[&sampled(), &sampled()], &[&sampled().to_ascii_uppercase()]].into_iter().enumerate()
    {
        exchange(&channel, ask(&task, &format!("bad-{n}")), bad).await.unwrap();
    }
    exchange(&channel, ask(&task, "r-2"), &[&sampled()]).await.unwrap();
    until("the last is told", || !collector.named("mayfly.v1.TokenService/Exchange").is_empty()).await;
    let told = collector.named("mayfly.v1.TokenService/Exchange");
    assert_eq!(told.iter().map(|span| span.of("mayfly.request.id")).collect::<Vec<_>>(), ["r-2"]);
    let found = recorded(&up, TRACE).await;
    assert_eq!(found.len(), 2, "its id is in the record also where it is not traced: {found:?}");
    assert!(found.iter().any(|(seq, ..)| *seq == quiet.seq));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_why_is_no_error_and_its_record_has_the_trace() {
    let collector = Collector::new();
    let up = up(&collector, "ratio = 0");
    let channel = up.channel("agent/demo").await;
    let task = open_task(channel.clone(), None).await.unwrap();
    let beyond = pb::ExchangeRequest { scopes: vec!["echo:write".into()], ..ask(&task, "r-1") };
    let no = exchange(&channel, beyond, &[&sampled()]).await.unwrap_err();
    let denied = open_task(up.channel("service/echo").await, None).await.unwrap_err();
    assert_eq!(reason(&denied), "DENIED_BY_POLICY", "not traced");
    let service = up.channel("service/echo").await;
    let no_task = TaskServiceClient::new(service).open_task(traced(echo_task(None), &[&sampled()])).await.unwrap_err();
    until("both are told", || collector.spans().iter().filter(|span| span.kind == 2).count() == 2).await;
    let root = &collector.named("mayfly.v1.TokenService/Exchange")[0];
    assert_eq!((root.of("mayfly.reason"), root.of("rpc.grpc.status_code")), (reason(&no).as_str(), "7"));
    assert_eq!(root.error, None, "a refusal is the caller's");
    let root = &collector.named("mayfly.v1.TaskService/OpenTask")[0];
    assert_eq!(
        (root.of("mayfly.reason"), root.of("mayfly.caller")),
        (reason(&no_task).as_str(), DevWorld::id("service/echo").as_str())
    );
    let mut found = recorded(&up, TRACE).await;
    for _ in 0..100 {
        if found.len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        found = recorded(&up, TRACE).await;
    }
    assert_eq!(found.iter().filter(|(_, event, _)| event == "refused").count(), 2, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_calls_are_told_with_the_record_that_they_made() {
    let collector = Collector::new();
    let up = up(&collector, "ratio = 1");
    let opened = TaskServiceClient::new(up.channel("agent/demo").await).open_task(traced(echo_task(None), &[&sampled()])).await;
    let task = opened.unwrap().into_inner().task.unwrap().task_id;
    // A call without a trace of its caller is sampled by ratio and gets a trace of its own.
    let end = pb::CompleteTaskRequest { task_id: task, ..Default::default() };
    let ended = TaskServiceClient::new(up.channel("agent/demo").await).complete_task(end).await.unwrap().into_inner();
    until("both are told", || collector.spans().iter().filter(|span| span.kind == 2).count() == 2).await;
    let (open, end) = (
        collector.named("mayfly.v1.TaskService/OpenTask").remove(0),
        collector.named("mayfly.v1.TaskService/CompleteTask").remove(0),
    );
    assert_eq!((open.trace.as_str(), end.parent.as_str()), (TRACE, ""));
    assert!(end.trace != TRACE && end.trace.len() == 32);
    assert_eq!(end.of("mayfly.seq"), ended.seq.to_string());
    let spans = collector.spans();
    assert!(below(&spans, &end).iter().any(|span| span.name == "durable"), "{spans:?}");
    let found = recorded(&up, &end.trace).await;
    assert_eq!(
        found.iter().map(|(seq, ..)| *seq).collect::<Vec<_>>(),
        [ended.seq],
        "also a trace of our own leads to its record"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_of_a_stream_and_of_a_batch_are_told_each_below_their_call() {
    let collector = Collector::new();
    let up = up(&collector, "ratio = 0");
    let channel = up.channel("agent/demo").await;
    let task = open_task(channel.clone(), None).await.unwrap();
    let asks: Vec<_> = (0..4).map(|n| ask(&task, &format!("s-{n}"))).collect();
    assert_eq!(stream(channel.clone(), asks, &[&sampled()]).await, 4);
    until("the stream is told", || collector.named("mayfly.v1.TokenService/StreamExchange").len() == 1).await;
    let (root, spans) = (collector.named("mayfly.v1.TokenService/StreamExchange").remove(0), collector.spans());
    assert_eq!((root.parent.as_str(), root.of("rpc.grpc.status_code")), (PARENT, "0"));
    let each = below(&spans, &root);
    let mut ids: Vec<&str> = each.iter().map(|span| span.of("mayfly.request.id")).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["s-0", "s-1", "s-2", "s-3"]);
    for one in &each {
        let mut parts: Vec<&str> = below(&spans, one).iter().map(|span| span.name.as_str()).collect();
        parts.sort_unstable();
        assert_eq!((one.name.as_str(), parts), ("exchange", vec!["decide", "durable", "mint", "turn"]));
        assert!(!one.of("mayfly.seq").is_empty() && one.of("mayfly.task.id") == task);
    }
    let exchanges = (0..3).map(|n| ask(&task, &format!("b-{n}"))).collect();
    let batch = pb::BatchExchangeRequest { exchanges, all_or_nothing: false };
    TokenServiceClient::new(channel.clone()).batch_exchange(traced(batch, &[&sampled()])).await.unwrap();
    let exchanges = (0..2).map(|n| ask(&task, &format!("a-{n}"))).collect();
    let batch = pb::BatchExchangeRequest { exchanges, all_or_nothing: true };
    TokenServiceClient::new(channel).batch_exchange(traced(batch, &[&sampled()])).await.unwrap();
    until("both batches are told", || collector.named("mayfly.v1.TokenService/BatchExchange").len() == 2).await;
    let spans = collector.spans();
    let counted = |root: &Span, name: &str| below(&spans, root).iter().filter(|span| span.name == name).count();
    let counts: Vec<_> = collector
        .named("mayfly.v1.TokenService/BatchExchange")
        .iter()
        .map(|b| (counted(b, "exchange"), counted(b, "decide")))
        .collect();
    assert_eq!(counts, [(3, 0), (0, 2)]);
    assert_eq!(recorded(&up, TRACE).await.len(), 4 + 3 + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_on_a_stream_without_a_trace_are_drawn_each_by_itself() {
    let collector = Collector::new();
    let up = up(&collector, "ratio = 1.0");
    let channel = up.channel("agent/demo").await;
    let task = open_task(channel.clone(), None).await.unwrap();
    let asks = (0..3).map(|n| ask(&task, &format!("s-{n}"))).collect();
    assert_eq!(stream(channel, asks, &[]).await, 3);
    until("they are told", || collector.named("exchange").len() == 3).await;
    let traces: std::collections::BTreeSet<_> = collector.named("exchange").into_iter().map(|span| span.trace).collect();
    assert_eq!(traces.len(), 3);
    assert!(
        collector
            .named("exchange")
            .iter()
            .all(|span| span.kind == 2 && span.parent.is_empty() && span.of("rpc.method") == "StreamExchange")
    );
    assert!(collector.named("mayfly.v1.TokenService/StreamExchange").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_collector_is_known_by_its_roots_and_a_stop_hands_over_what_waits() {
    let (config, own) = self_signed("localhost");
    let collector = Collector::answering("200 OK", Some(config));
    let (_dir, world) = world(DevSettings { engine: DevEngine::Memory, ..DevSettings::default() });
    std::fs::write(world.dir().join("traces-ca.pem"), own).unwrap();
    let text = std::fs::read_to_string(world.config()).unwrap();
    let port = collector.address.port();
    let section = format!("{text}\n[traces]\notlp = \"https://localhost:{port}/v1/traces\"\nca = \"traces-ca.pem\"\nratio = 0\n");
    std::fs::write(world.config(), section).unwrap();
    let running = world.start().unwrap();
    let channel = world.channel("agent/demo", running.addresses().workload).await.unwrap();
    let task = open_task(channel.clone(), None).await.unwrap();
    let issued = exchange(&channel, ask(&task, "r-1"), &[&sampled()]).await.unwrap();
    drop(channel);
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
    assert_eq!(collector.named("mayfly.v1.TokenService/Exchange")[0].of("mayfly.seq"), issued.seq.to_string());
}

/// A server with metrics, and with traces as `section` configures them.
fn metered(section: &str) -> (tempfile::TempDir, DevWorld, mayfly::server::RunningServer) {
    let (dir, world) = world(DevSettings { engine: DevEngine::Memory, ..DevSettings::default() });
    let text = std::fs::read_to_string(world.config()).unwrap().replace("[listen]\n", "[listen]\nmetrics = \"127.0.0.1:0\"\n");
    std::fs::write(world.config(), text + section).unwrap();
    let running = world.start().unwrap();
    (dir, world, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_it_issues_as_ever_and_says_so() {
    let nobody = Ports::hold(1);
    let (_dir, world, running) =
        metered(&format!("\n[traces]\notlp = \"http://{}/v1/traces\"\nratio = 1\nper_second = 20\n", nobody.at(0)));
    let metrics = running.addresses().metrics.unwrap();
    let channel = world.channel("agent/demo", running.addresses().workload).await.unwrap();
    let task = open_task(channel.clone(), None).await.unwrap();
    for n in 0..60 {
        exchange(&channel, ask(&task, &format!("r-{n}")), &[]).await.unwrap();
    }
    until("it is seen", || scraped(metrics).contains("mayfly_trace_failing 1")).await;
    assert!(!scraped(metrics).contains("mayfly_trace_spans_sent_total 1"), "nothing was taken");
    assert!(scraped(metrics).contains("mayfly_credentials_issued_total 60"));
    let watch = Stopwatch::start();
    drop(channel);
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
    assert!(watch.us() < 20_000_000, "stopping waits for nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_rejects_and_what_is_beyond_the_rate_is_counted() {
    let collector = Collector::answering("400 Bad Request", None);
    let (_dir, world, running) = metered(&collector.section("ratio = 0\nper_second = 1"));
    let metrics = running.addresses().metrics.unwrap();
    let channel = world.channel("agent/demo", running.addresses().workload).await.unwrap();
    let task = open_task(channel.clone(), None).await.unwrap();
    for n in 0..30 {
        exchange(&channel, ask(&task, &format!("r-{n}")), &[&sampled()]).await.unwrap();
    }
    let number = |name: &str| {
        let told = scraped(metrics);
        told.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    until("they are counted", || number("mayfly_trace_spans_dropped_total{why=\"rejected\"}") >= 5).await;
    assert!(number("mayfly_trace_calls_over_rate_total") >= 10, "{}", scraped(metrics));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_a_webhook_is_told_is_traced_and_its_receiver_is_told_of_the_trace() {
    let (collector, receiver) = (Collector::new(), Receiver::new());
    let (_dir, world) = world(DevSettings { engine: DevEngine::Memory, ..DevSettings::default() });
    hook(world.dir(), "pager", receiver.address, "events = [\"revoked\"]");
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text + &collector.section("ratio = 1")).unwrap();
    let running = world.start().unwrap();
    let seq = crate::webhooks::revoke(&world, running.addresses().admin, 0).await;
    until("it is told", || collector.named("webhook").len() == 1).await;
    let (told, got) = (collector.named("webhook").remove(0), receiver.got().remove(0));
    assert_eq!((told.of("mayfly.seq"), told.of("mayfly.webhook"), told.kind), (seq.to_string().as_str(), "pager", 3));
    assert_eq!(got.traceparent, format!("00-{}-{}-01", told.trace, told.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_somebody_is_a_part_of_the_call_that_names_the_approval() {
    let collector = Collector::new();
    let rig = crate::approvals::Rig::with(&collector.section("ratio = 1"));
    let waits = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let asked = async { rig.export(|ask| ask.wait_for_approval = waits).await.unwrap() };
    let given = async {
        let id = loop {
            let open = rig.approvals("operator/you").await.list_approvals(pb::ListApprovalsRequest::default()).await;
            match open.unwrap().into_inner().approvals.first() {
                Some(approval) => break approval.approval_id.clone(),
                None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        };
        rig.give(&id).await.unwrap();
        id
    };
    let (issued, id) = tokio::join!(asked, given);
    until("it is told", || !collector.named("mayfly.v1.TokenService/Exchange").is_empty()).await;
    let (root, spans) = (collector.named("mayfly.v1.TokenService/Exchange").remove(0), collector.spans());
    assert_eq!((root.of("mayfly.approval.id"), root.of("mayfly.seq")), (id.as_str(), issued.seq.to_string().as_str()));
    let parts = below(&spans, &root);
    let approval = parts.iter().find(|span| span.name == "approval").unwrap();
    assert_eq!(approval.of("mayfly.approval.id"), id);
    let decided: Vec<&str> = parts.iter().filter(|s| s.name == "decide").map(|s| s.of("mayfly.reason")).collect();
    assert!(decided.contains(&"APPROVAL_NEEDED") && decided.contains(&""), "{decided:?}");
    assert!(!collector.holds("250000") && !collector.holds("nightly"), "neither arguments nor a purpose");
}
