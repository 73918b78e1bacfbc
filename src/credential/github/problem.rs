//! Errors of GitHub, for operators: the failed step, GitHub's message, and what would mend the cause. Requests are never part of an error,
//! and GitHub's texts lose the secrets of the request ([`UpstreamResponse::told`]).

use http::{HeaderName, StatusCode};
use serde::Deserialize;

use crate::access::https::{CallOutcome, UpstreamCallError, UpstreamResponse};

const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// A failed step.
#[derive(Debug)]
pub struct GithubProblem {
    step: &'static str,
    said: String,
    remedy: Option<String>,
    /// What is known about the request, if GitHub did not answer it.
    outcome: Option<CallOutcome>,
}

impl std::fmt::Display for GithubProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step, self.said)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; to mend it: {remedy}"),
            None => Ok(()),
        }
    }
}

/// The body of an error. GitHub's field `errors` repeats what `message` says.
#[derive(Deserialize)]
struct ErrorAnswer {
    message: String,
}

impl GithubProblem {
    /// A problem that mayfly found itself.
    pub fn new(step: &'static str, said: impl Into<String>) -> GithubProblem {
        GithubProblem { step, said: said.into(), remedy: None, outcome: None }
    }

    /// There was no answer.
    pub fn unanswered(step: &'static str, error: &UpstreamCallError) -> GithubProblem {
        GithubProblem { outcome: Some(error.outcome), ..GithubProblem::new(step, error.to_string()) }
    }

    /// GitHub refused.
    pub fn answered(step: &'static str, answer: &UpstreamResponse) -> GithubProblem {
        let status = answer.status.as_u16();
        let message = answer.json::<ErrorAnswer>().map(|body| without_tokens(&answer.told(&body.message)));
        let message = message.unwrap_or_else(|_| "without a message".to_owned());
        let problem = GithubProblem::new(step, format!("GitHub answered {status}: {message}"));
        match limited(answer) {
            Some(until) => problem.mended_by(format!("GitHub limits the rate of the app's requests: try again {until}")),
            None if answer.status.is_redirection() => {
                problem.mended_by("target must be the address of the API itself: redirects are not followed".to_owned())
            }
            None => problem,
        }
    }

    /// With what mends it, unless that is known already.
    pub fn mended_by(self, remedy: String) -> GithubProblem {
        GithubProblem { remedy: self.remedy.or(Some(remedy)), ..self }
    }

    /// What is known about the request, if GitHub did not answer it.
    pub fn outcome(&self) -> Option<CallOutcome> {
        self.outcome
    }
}

/// A text without tokens of GitHub, whoever they are of.
fn without_tokens(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("ghs_") {
        let (before, token) = rest.split_at(at);
        out.push_str(before);
        out.push_str("[secret]");
        let end = token.find(|c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c)));
        rest = end.and_then(|end| token.get(end..)).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// When to try again, if the answer says that a rate limit was exceeded: the primary one (`x-ratelimit-remaining: 0`), or a secondary one
/// (`retry-after`).
fn limited(answer: &UpstreamResponse) -> Option<String> {
    if !matches!(answer.status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
        return None;
    }
    if let Some(seconds) = answer.retry_after() {
        return Some(format!("in {seconds} s"));
    }
    let spent = answer.header(&REMAINING) == Some("0");
    let reset = answer.header(&RESET).and_then(|at| at.parse::<u64>().ok());
    match reset.filter(|_| spent) {
        Some(at) => Some(format!("after {}", mayfly_verify::seq::Millis(at.saturating_mul(1000)))),
        None => (spent || answer.status == StatusCode::TOO_MANY_REQUESTS).then(|| "in a minute".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::without_tokens;

    #[test]
    fn no_token_is_told() {
        assert_eq!(without_tokens("token ghs_aB1_x-y.z is bad, ghs_"), "token [secret] is bad, [secret]");
        assert_eq!(without_tokens("Bad credentials"), "Bad credentials");
    }
}
