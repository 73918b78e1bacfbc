//! Masking: the CI platform hides the secret values of a job in the job's log.

use std::io::Write as _;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use zeroize::Zeroizing;

use super::super::error::CliError;

/// The platform that keeps the job's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Masker {
    /// GitHub reads commands from a step's stdout and stderr.
    Github,
    /// Buildkite's agent accepts values to redact.
    Buildkite,
}

impl Masker {
    /// The masker of this job's platform. `variable` reads the environment.
    pub fn here(variable: impl Fn(&str) -> Option<String>) -> Result<Masker, CliError> {
        if variable("GITHUB_ACTIONS").is_some() {
            return Ok(Masker::Github);
        }
        if variable("BUILDKITE_JOB_ID").is_some() {
            return Ok(Masker::Buildkite);
        }
        let what = match variable("GITLAB_CI") {
            Some(_) => "GitLab masks nothing that a job makes: write it to a file, --to FILE, and leave --mask out",
            None => "--mask: this is no job of a platform that masks: GitHub Actions or Buildkite",
        };
        Err(CliError::Usage(what.to_owned()))
    }

    /// Masks each line of each text, before the texts are used.
    pub async fn hide(self, texts: &[&str]) -> Result<(), CliError> {
        match self {
            Masker::Github => github(lines(texts)),
            Masker::Buildkite => {
                for line in lines(texts) {
                    buildkite(line).await?;
                }
                Ok(())
            }
        }
    }
}

/// A log is masked line by line; masking an empty line would mask everything.
fn lines<'a>(texts: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    texts.iter().flat_map(|text| text.split(['\r', '\n'])).filter(|line| !line.trim().is_empty())
}

/// Written to stderr, which the runner reads as well; stdout carries the credential.
fn github<'a>(lines: impl Iterator<Item = &'a str>) -> Result<(), CliError> {
    let mut stderr = std::io::stderr().lock();
    let told = commands(lines);
    stderr.write_all(told.as_bytes()).and_then(|()| stderr.flush()).map_err(|e| CliError::Local(format!("masking: stderr: {e}")))
}

/// The commands in the runner's syntax, in which values have escapes; a line has no line feeds.
fn commands<'a>(lines: impl Iterator<Item = &'a str>) -> Zeroizing<String> {
    // The capacity covers the largest credential: a growing buffer would leave copies of the secret in memory.
    let mut told = Zeroizing::new(String::with_capacity(256 * 1024));
    for line in lines {
        told.push_str("::add-mask::");
        for (n, part) in line.split('%').enumerate() {
            told.push_str(if n > 0 { "%25" } else { "" });
            told.push_str(part);
        }
        told.push('\n');
    }
    told
}

async fn buildkite(line: &str) -> Result<(), CliError> {
    let failed = |what: String| CliError::Local(format!("masking: buildkite-agent redactor add: {what}"));
    let mut command = tokio::process::Command::new("buildkite-agent");
    command.args(["redactor", "add"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(line.as_bytes()).await.map_err(|e| failed(e.to_string()))?;
    }
    let status = child.wait().await.map_err(|e| failed(e.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(format!("it ended with {status}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_each_text_is_masked_and_escaped() {
        let told = commands(lines(&["-----BEGIN KEY-----\nab%0Ac\n\n-----END KEY-----\r\n", "pass"]));
        let want = "::add-mask::-----BEGIN KEY-----\n::add-mask::ab%250Ac\n::add-mask::-----END KEY-----\n::add-mask::pass\n";
        assert_eq!(*told, want);
    }

    #[test]
    fn whoever_keeps_the_log_masks_or_it_is_told_that_nobody_does() {
        let here = |name: &'static str| Masker::here(move |asked| (asked == name).then(|| "1".to_owned()));
        assert_eq!(here("GITHUB_ACTIONS").unwrap(), Masker::Github);
        assert_eq!(here("BUILDKITE_JOB_ID").unwrap(), Masker::Buildkite);
        for (name, word) in [("GITLAB_CI", "--to FILE"), ("HOME", "GitHub Actions or Buildkite")] {
            let Err(CliError::Usage(text)) = here(name) else { panic!("{name}") };
            assert!(text.contains(word), "{text}");
        }
    }
}
