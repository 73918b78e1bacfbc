//! JSON and table forms of bindings.

use serde::Serialize;

use super::{AuthorView, HitsView, or_dash, time};
use crate::error::CliError;
use crate::out::{Printable, Row};
use mayfly_proto::mayfly::v1 as pb;

/// A binding, as `binding show` and `binding list` print it.
#[derive(Serialize, Debug)]
pub struct BindingView {
    pub binding: String,
    pub version: u64,
    pub environment: String,
    pub upstream: String,
    pub callers: Vec<String>,
    pub callers_under: Vec<String>,
    pub tools: Vec<String>,
    pub any_tool: bool,
    pub scopes: Vec<String>,
    pub author: Option<AuthorView>,
    pub at: Option<String>,
    pub seq: u64,
    pub narrowing: bool,
}

impl From<pb::Binding> for BindingView {
    fn from(b: pb::Binding) -> BindingView {
        BindingView {
            binding: b.binding,
            version: b.version,
            environment: b.environment,
            upstream: b.upstream,
            callers: b.callers,
            callers_under: b.callers_under,
            tools: b.tools,
            any_tool: b.any_tool,
            scopes: b.scopes,
            author: AuthorView::of(b.author),
            at: time(b.at),
            seq: b.seq,
            narrowing: b.narrowing,
        }
    }
}

/// The differences between two versions, line by line.
pub fn differences(old: Option<pb::Binding>, new: pb::Binding) -> Result<String, CliError> {
    let text = |b: pb::Binding| serde_json::to_string_pretty(&BindingView::from(b)).map_err(CliError::ours);
    // Time and author are not part of what is compared.
    let bare = |b: pb::Binding| pb::Binding { at: None, author: None, seq: 0, narrowing: false, version: 0, ..b };
    let (old, new) = (old.map(|b| text(bare(b))).transpose()?.unwrap_or_default(), text(bare(new))?);
    Ok(similar::TextDiff::from_lines(&old, &new).unified_diff().context_radius(2).header("in force", "asked for").to_string())
}

impl Printable for BindingView {
    fn name(&self) -> String {
        self.binding.clone()
    }
}

impl Row for BindingView {
    const COLUMNS: &'static [&'static str] = &["BINDING", "UPSTREAM", "CALLERS", "TOOLS", "SCOPES"];
    const WIDE: &'static [&'static str] = &["ENVIRONMENT", "VERSION", "AUTHOR", "AT"];

    fn cells(&self) -> Vec<String> {
        let callers = self.callers.iter().cloned().chain(self.callers_under.iter().map(|prefix| format!("{prefix}/*")));
        let tools = if self.any_tool { "any".to_owned() } else { self.tools.join(",") };
        vec![
            self.binding.clone(),
            self.upstream.clone(),
            or_dash(Some(&callers.collect::<Vec<_>>().join(","))),
            or_dash(Some(&tools)),
            or_dash(Some(&self.scopes.join(","))),
            self.environment.clone(),
            self.version.to_string(),
            AuthorView::text(self.author.as_ref()),
            or_dash(self.at.as_deref()),
        ]
    }
}

/// The result of changing a binding.
#[derive(Serialize, Debug)]
pub struct BindingChange {
    pub binding: String,
    pub version: u64,
    pub environment: String,
    pub upstream: String,
    pub dry_run: bool,
    pub seq: u64,
    pub hits: HitsView,
    pub beyond: u64,
    pub takes_another: bool,
    pub not_read: bool,
}

impl BindingChange {
    /// Converts the server's answer.
    pub fn of(dry_run: bool, answer: pb::SetBindingResponse) -> Result<BindingChange, CliError> {
        let binding = answer.binding.ok_or_else(|| CliError::ours("the server answered without the binding"))?;
        Ok(BindingChange {
            binding: binding.binding,
            version: binding.version,
            environment: binding.environment,
            upstream: binding.upstream,
            dry_run,
            seq: binding.seq,
            hits: answer.hits.into(),
            beyond: answer.beyond,
            takes_another: answer.takes_another,
            not_read: answer.not_read,
        })
    }
}

impl Printable for BindingChange {
    fn name(&self) -> String {
        self.binding.clone()
    }
}
