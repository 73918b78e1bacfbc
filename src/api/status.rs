//! The single mapping of refusals and faults to the wire: google.rpc.Status with ErrorInfo, BadRequest and RetryInfo.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use mayfly_base::document::terminal_text;
use mayfly_base::limits;
use mayfly_base::refusal::{Code, Error, Fault, Refusal};
use mayfly_base::trace;
use mayfly_proto::mayfly::v1 as pb;

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "mayfly.dev";

/// Prefix of the message of every fault. An INTERNAL status without this prefix comes from the codec, not from mayfly.
pub const FAULT: &str = "something of mayfly's failed";

static FAULTS: AtomicU64 = AtomicU64::new(1);

/// Logs a fault and returns its number for the caller: the text of a fault is for the log only.
fn note(fault: &Fault) -> String {
    let number = FAULTS.fetch_add(1, Ordering::Relaxed);
    let trace_id = trace::current().text();
    tracing::error!(number, %fault, trace_id, "an internal error of mayfly");
    format!("{FAULT}; its log says more under fault {number}")
}

fn code_of(code: Code) -> tonic::Code {
    tonic::Code::from_i32(code as i32)
}

fn details(no: &Refusal) -> ErrorDetails {
    let mut metadata = HashMap::new();
    if let Some(rule) = &no.rule {
        metadata.insert("rule".to_owned(), rule.clone());
    }
    if let Some(way_out) = &no.way_out {
        metadata.insert("way_out".to_owned(), way_out.clone());
    }
    if let Some(id) = no.details.as_ref().and_then(|d| d.approval.as_ref()) {
        metadata.insert("approval_id".to_owned(), id.clone());
    }
    let mut details = ErrorDetails::new();
    details.set_error_info(no.reason.as_str(), DOMAIN, metadata);
    for (field, what) in no.wrong() {
        details.add_bad_request_violation(field, what);
    }
    if let Some(after) = retry_after(no) {
        details.set_retry_info(Some(after));
    }
    details
}

/// The delay after which a repeat may succeed; RESOURCE_EXHAUSTED has one by default. A limit of size has a delay of zero, and none is
/// sent: the same request can never succeed, and a client that follows RetryInfo would repeat it at once.
fn retry_after(no: &Refusal) -> Option<Duration> {
    match no.retry_after {
        Some(after) => Some(after).filter(|after| !after.is_zero()),
        None => (no.reason.code() == Code::ResourceExhausted).then_some(Duration::from_secs(1)),
    }
}

/// The refusal with texts that fit into the headers that carry them. A message may repeat what the caller sent. The same bounds hold for
/// the problems of single items: the answer to a batch has up to `BATCH` of them, and clients read messages of 4 MiB.
fn bounded(mut no: Refusal) -> Refusal {
    let short = |text: &mut String, most| {
        if text.len() > most {
            *text = format!("{}…", terminal_text::cut(text, most));
        }
    };
    short(&mut no.message, limits::STATUS_MESSAGE_BYTES);
    no.rule.iter_mut().for_each(|rule| short(rule, limits::STATUS_PART_BYTES));
    no.way_out.iter_mut().for_each(|way_out| short(way_out, limits::STATUS_PART_BYTES));
    if let Some(details) = &mut no.details {
        let (mut left, all) = (limits::STATUS_FIELDS_BYTES, details.fields.len());
        details.fields.retain_mut(|(field, what)| {
            short(field, limits::STATUS_PART_BYTES);
            short(what, left);
            let size = field.len() + what.len();
            let fits = left >= size;
            left = left.saturating_sub(size);
            fits
        });
        let more = all - details.fields.len();
        if more > 0 {
            details.fields.push(("…".to_owned(), format!("{more} more are wrong; correct these first")));
        }
    }
    no
}

/// The status of a refused or failed call.
pub fn status(no: Error) -> Status {
    match no {
        Error::Refusal(no) => {
            let no = bounded(no);
            Status::with_error_details(code_of(no.reason.code()), no.message.clone(), details(&no))
        }
        Error::Fault(fault) => Status::internal(note(&fault)),
    }
}

/// As [`status`], as a message for one item of a batch or stream.
pub fn problem(no: Error) -> pb::Problem {
    match no {
        Error::Refusal(no) => {
            let no = bounded(no);
            let after = retry_after(&no).and_then(|d| prost_types::Duration::try_from(d).ok());
            let violation = |(field, what): (&str, &str)| pb::FieldViolation { field: field.into(), description: what.into() };
            pb::Problem {
                code: no.reason.code() as i32,
                reason: no.reason.as_str().to_owned(),
                field_violations: no.wrong().map(violation).collect(),
                retry_after: after,
                rule: no.rule.unwrap_or_default(),
                way_out: no.way_out.unwrap_or_default(),
                approval_id: no.details.and_then(|d| d.approval).unwrap_or_default(),
                message: no.message,
            }
        }
        Error::Fault(fault) => pb::Problem { code: Code::Internal as i32, message: note(&fault), ..pb::Problem::default() },
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use mayfly_base::refusal::Reason;

    /// Refusals that repeat what a caller sent.
    fn echoes() -> Vec<Refusal> {
        let of = |text: String| {
            let one = Refusal::field("caller", &text).by(text.clone()).way_out(text.clone());
            [one, Refusal::fields((0..200).map(|n| (format!("fields[{n}]"), text.clone())).collect())]
        };
        ["x".repeat(60_000), "é\n".repeat(20_000)].into_iter().flat_map(of).collect()
    }

    #[test]
    fn a_problem_is_bounded_as_a_status_is_so_that_a_whole_batch_of_them_can_be_read() {
        // The largest message that gRPC clients read by default.
        const READ_BY_CLIENTS: usize = 4 * 1024 * 1024;
        for no in echoes() {
            let told = problem(Error::Refusal(no));
            assert!(told.message.ends_with('…') && told.message.len() <= limits::STATUS_MESSAGE_BYTES + '…'.len_utf8());
            assert!(told.encoded_len() < 8 * 1024, "{}", told.encoded_len());
            assert!(told.encoded_len() * limits::BATCH < READ_BY_CLIENTS, "{}", told.encoded_len());
            // A use is refused for one field at a time.
            let of_a_use = told.field_violations.len() == 1;
            assert!(!of_a_use || told.encoded_len() * limits::USES_PER_REPORT < READ_BY_CLIENTS, "{}", told.encoded_len());
        }
        let short = problem(Error::Refusal(Refusal::field("caller", "is not known").by("7")));
        assert_eq!((short.message.as_str(), short.rule.as_str()), ("caller: is not known", "7"));
    }

    #[test]
    fn a_status_fits_into_headers_whatever_the_caller_sent() {
        for no in echoes() {
            let mut headers = http::HeaderMap::new();
            status(Error::Refusal(no)).add_header(&mut headers).unwrap();
            let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
            assert!(size < 16 * 1024, "{size}");
        }
    }

    #[test]
    fn a_limit_of_size_has_no_delay_after_which_a_repeat_could_succeed() {
        let no = |after| Error::Refusal(Refusal::limit("request_bytes", 1, after));
        assert!(status(no(Duration::ZERO)).get_details_retry_info().is_none());
        assert!(problem(no(Duration::ZERO)).retry_after.is_none());
        assert!(status(no(Duration::from_secs(2))).get_details_retry_info().is_some());
    }

    #[test]
    fn resource_exhausted_says_when_to_come_back_also_for_one_item() {
        let exhausted = Reason::ALL.iter().filter(|r| r.code() == Code::ResourceExhausted);
        let mut seen = 0;
        for &reason in exhausted {
            let no = || Error::Refusal(Refusal::new(reason, "no more"));
            assert!(status(no()).get_details_retry_info().is_some(), "{reason:?}");
            assert!(problem(no()).retry_after.is_some(), "{reason:?}");
            seen += 1;
        }
        assert!(seen > 0);
    }
}
