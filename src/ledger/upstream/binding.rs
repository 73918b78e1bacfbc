//! Bindings: which workload's tool may use which upstream with which scopes.
//!
//! A binding grants nothing by itself. Where a binding in force covers an exchange, policy sees the binding's name (`context.binding`) and
//! may require one. The issued credential names the binding, so that narrowing the binding revokes credentials that it no longer covers.

use serde::{Deserialize, Serialize};

use super::file::{each, spiffe_id};
use mayfly_base::document::{Diagnostic, Document, Section, SourceFile};
use mayfly_base::limits;
use mayfly_identity::spiffe_id::{SpiffeId, SpiffePrefix};

/// A binding. Lists are sorted and free of duplicates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The binding's name.
    pub name: String,
    /// The upstream. It never changes.
    pub upstream: String,
    /// Workloads by SPIFFE ID.
    pub ids: Vec<SpiffeId>,
    /// All workloads under these prefixes of whole segments.
    pub under: Vec<SpiffePrefix>,
    /// Tools. Empty, with `any_tool` unset: only exchanges that name no tool.
    pub tools: Vec<String>,
    /// Any tool, and exchanges that name none.
    pub any_tool: bool,
    /// Scopes. Empty: the binding covers nothing, which is how a binding is removed.
    pub scopes: Vec<String>,
}

/// Version number of the text form.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded<B> {
    version: u8,
    binding: B,
}

impl Binding {
    /// Sorts the lists and removes duplicates.
    pub fn sorted(mut self) -> Binding {
        fn sort<T: Ord>(list: &mut Vec<T>) {
            list.sort_unstable();
            list.dedup();
        }
        self.ids.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        self.ids.dedup();
        self.under.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        self.under.dedup();
        sort(&mut self.tools);
        sort(&mut self.scopes);
        self
    }

    /// The canonical text for a record: JSON, with fields in the order of the struct.
    pub fn to_text(&self) -> String {
        // The struct has strings and lists only, so serializing cannot fail.
        serde_json::to_string(&Recorded { version: VERSION, binding: self }).unwrap_or_default()
    }

    /// Parses the canonical text. The error says what is wrong.
    pub fn from_text(text: &str) -> Result<Binding, String> {
        let recorded: Recorded<Binding> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match recorded.version {
            VERSION => Ok(recorded.binding),
            other => Err(format!("binding format {other}, this version reads {VERSION}")),
        }
    }

    /// SHA-256 of the canonical text.
    pub fn digest(&self) -> [u8; 32] {
        mayfly_base::document::sha256(self.to_text().as_bytes())
    }

    /// The same binding with all lists empty.
    pub fn empty(&self) -> Binding {
        let (name, upstream) = (self.name.clone(), self.upstream.clone());
        let (ids, under, tools, scopes) = Default::default();
        Binding { name, upstream, ids, under, tools, any_tool: false, scopes }
    }

    /// Whether the binding covers a request. `tool` is empty where the request names none.
    pub fn covers<'s>(&self, caller: &SpiffeId, tool: &str, mut scopes: impl Iterator<Item = &'s str>) -> bool {
        !self.scopes.is_empty()
            && self.gives_tool(tool)
            && self.admits(caller)
            && scopes.all(|scope| self.scopes.iter().any(|own| own == scope))
    }

    fn gives_tool(&self, tool: &str) -> bool {
        self.any_tool || if tool.is_empty() { self.tools.is_empty() } else { self.tools.iter().any(|own| own == tool) }
    }

    fn admits(&self, caller: &SpiffeId) -> bool {
        self.ids.contains(caller) || caller.prefixes().any(|prefix| self.under.iter().any(|own| own.as_str() == prefix))
    }

    /// Whether this binding covers nothing that `other` does not cover.
    pub fn within(&self, other: &Binding) -> bool {
        let callers = self.ids.iter().all(|id| other.admits(id)) && self.under.iter().all(|prefix| other.admits_all(prefix));
        let no_tool = self.any_tool || self.tools.is_empty();
        let tools = self.tools.iter().all(|tool| other.gives_tool(tool))
            && (!self.any_tool || other.any_tool)
            && (!no_tool || other.gives_tool(""));
        let nothing = self.scopes.is_empty() || (self.ids.is_empty() && self.under.is_empty());
        self.upstream == other.upstream && (nothing || (callers && tools && self.scopes.iter().all(|s| other.scopes.contains(s))))
    }

    fn admits_all(&self, prefix: &SpiffePrefix) -> bool {
        self.under.iter().any(|own| own == prefix || prefix.as_str().starts_with(&format!("{}/", own.as_str())))
    }
}

/// Parses the binding in a file. The error lists everything that is wrong with the file.
pub fn parse(source: &SourceFile) -> Result<Binding, Vec<Diagnostic>> {
    let document = Document::parse(source)?;
    let root = document.root();
    let binding = read(&root);
    root.finish();
    document.finish(binding)
}

fn read(root: &Section<'_>) -> Option<Binding> {
    let name = root.required("name").and_then(|f| f.name());
    let upstream = root.required("upstream").and_then(|f| f.name());
    let ids = root.optional("ids").map_or(Some(Vec::new()), |f| each(&f, 0, spiffe_id));
    let under = root
        .optional("under")
        .map_or(Some(Vec::new()), |f| each(&f, 0, |f| f.parsed(limits::SPIFFE_ID_BYTES, SpiffePrefix::parse)));
    let tools = root.optional("tools").map_or(Some(Vec::new()), |f| each(&f, 0, |f| f.name()));
    let any_tool = root.optional("any_tool").map_or(Some(false), |f| f.boolean());
    let scopes_field = root.required("scopes");
    let scopes = scopes_field.as_ref().and_then(|f| each(f, 0, |f| f.name()));
    let binding = Binding {
        name: name?,
        upstream: upstream?,
        ids: ids?,
        under: under?,
        tools: tools?,
        any_tool: any_tool?,
        scopes: scopes?,
    };
    let field = scopes_field?;
    if binding.ids.is_empty() && binding.under.is_empty() {
        return field.wrong("is for nobody", "name workloads: ids = [\"spiffe://…\"], under = [\"spiffe://…\"], or both");
    }
    if binding.scopes.is_empty() {
        return field.wrong("is empty", "name at least one; mayfly binding remove NAME --reason TEXT takes one away");
    }
    if binding.any_tool && !binding.tools.is_empty() {
        return field.wrong("has tools, and any_tool", "leave one of them out");
    }
    Some(binding.sorted())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(ids: &[&str], under: &[&str], tools: &[&str], scopes: &[&str]) -> Binding {
        let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect();
        Binding {
            name: "b".into(),
            upstream: "u".into(),
            ids: ids.iter().map(|id| SpiffeId::parse(id).unwrap()).collect(),
            under: under.iter().map(|prefix| SpiffePrefix::parse(prefix).unwrap()).collect(),
            tools: texts(tools),
            any_tool: false,
            scopes: texts(scopes),
        }
        .sorted()
    }

    fn covers(binding: &Binding, caller: &str, tool: &str, scopes: &[&str]) -> bool {
        binding.covers(&SpiffeId::parse(caller).unwrap(), tool, scopes.iter().copied())
    }

    #[test]
    fn it_covers_its_workloads_tools_and_scopes_and_no_others() {
        let some = binding(&["spiffe://td/a"], &["spiffe://td/mcp"], &["search", "read"], &["r", "s"]);
        assert!(covers(&some, "spiffe://td/a", "search", &["r"]) && covers(&some, "spiffe://td/mcp/x", "read", &["r", "s"]));
        for (caller, tool, scope) in [
            ("spiffe://td/b", "search", "r"),
            ("spiffe://td/mcpx", "search", "r"),
            ("spiffe://td/a", "write", "r"),
            ("spiffe://td/a", "", "r"),
            ("spiffe://td/a", "search", "w"),
        ] {
            assert!(!covers(&some, caller, tool, &[scope]), "{caller} {tool} {scope}");
        }
        let none = binding(&["spiffe://td/a"], &[], &[], &["r"]);
        assert!(covers(&none, "spiffe://td/a", "", &["r"]) && !covers(&none, "spiffe://td/a", "search", &["r"]));
        let any = Binding { any_tool: true, ..none.clone() };
        assert!(covers(&any, "spiffe://td/a", "", &["r"]) && covers(&any, "spiffe://td/a", "search", &["r"]));
        assert!(!covers(&some.empty(), "spiffe://td/a", "search", &[]), "one that was taken away covers nothing at all");
    }

    /// Checks `within` exhaustively over a small set of bindings: it must imply that nothing more is covered.
    #[test]
    fn within_means_that_nothing_more_is_covered() {
        let ids = ["spiffe://td/a", "spiffe://td/mcp", "spiffe://td/mcp/x", "spiffe://td/mcp/x/y"];
        let mut all = Vec::new();
        for callers in 0..16_u32 {
            for (tools, any) in [(&[][..], false), (&["s"][..], false), (&["s", "t"][..], false), (&[][..], true)] {
                for scopes in [&[][..], &["r"][..], &["r", "w"][..]] {
                    let has = |n: u32| callers & (1 << n) != 0;
                    let mut own: Vec<&str> = Vec::new();
                    if has(0) {
                        own.push(ids[0]);
                    }
                    if has(1) {
                        own.push(ids[2]);
                    }
                    let mut under: Vec<&str> = Vec::new();
                    if has(2) {
                        under.push(ids[1]);
                    }
                    if has(3) {
                        under.push(ids[2]);
                    }
                    all.push(Binding { any_tool: any, ..binding(&own, &under, tools, scopes) });
                }
            }
        }
        let asked = |b: &Binding| {
            let mut covered = Vec::new();
            for id in ids.iter().chain(&["spiffe://td/mcp/z", "spiffe://td/mcp/x/z"]) {
                for tool in ["", "s", "t", "other"] {
                    for scopes in [&["r"][..], &["w"], &["r", "w"]] {
                        covered.push(covers(b, id, tool, scopes));
                    }
                }
            }
            covered
        };
        let covered: Vec<Vec<bool>> = all.iter().map(asked).collect();
        let (mut narrower, mut wider) = (0, 0);
        for (a, covered_a) in all.iter().zip(&covered) {
            for (b, covered_b) in all.iter().zip(&covered) {
                let nothing_more = covered_a.iter().zip(covered_b).all(|(a, b)| !a || *b);
                assert!(!a.within(b) || nothing_more, "{a:?} is not within {b:?}");
                narrower += u32::from(a.within(b));
                wider += u32::from(!a.within(b));
            }
        }
        assert!(narrower > 5_000 && wider > 5_000, "{narrower} {wider}");
    }

    #[test]
    fn its_text_is_read_back_and_mistakes_are_named_with_their_lines() {
        let text = "name = 'b'\nupstream = 'u'\nids = ['spiffe://td/b', 'spiffe://td/a']\ntools = ['t']\nscopes = ['r']\n";
        let read = parse(&SourceFile::new("b.toml", text)).unwrap();
        assert_eq!(read, binding(&["spiffe://td/a", "spiffe://td/b"], &[], &["t"], &["r"]));
        assert_eq!(Binding::from_text(&read.to_text()).unwrap(), read);
        for (right, wrong, said) in [
            ("upstream = 'u'\n", "", "lacks upstream"),
            ("scopes = ['r']", "scopes = []", "name at least one"),
            ("ids = ['spiffe://td/b', 'spiffe://td/a']", "", "is for nobody"),
            ("'spiffe://td/a'", "'spiffe://td/b'", "is there twice"),
            ("'spiffe://td/b'", "'td/b'", "b.toml:3:"),
            ("tools = ['t']", "tools = ['t']\nany_tool = true", "leave one of them out"),
            ("tools", "tool", "did you mean tools?"),
        ] {
            let complaints = parse(&SourceFile::new("b.toml", text.replace(right, wrong))).unwrap_err();
            let all = complaints.iter().map(ToString::to_string).collect::<String>();
            assert!(all.contains(said), "{wrong}: {all}");
        }
    }
}
