//! The files of registrations and bindings, as `mayfly export` writes them and as differences show them.

use toml::{Table, Value};

use mayfly_api::wire::upstream_document;
use mayfly_ledger::upstream::binding::Binding;
use mayfly_proto::mayfly::v1 as pb;

/// A registration's file. A registration that was read by the rules of files can be written as one.
pub fn upstream_text(upstream: &pb::Upstream) -> String {
    upstream_document(upstream).unwrap_or_default()
}

/// A binding's file.
pub fn binding_text(binding: &Binding) -> String {
    let Binding { name, upstream, ids, under, tools, any_tool, scopes } = binding;
    let list = |texts: Vec<String>| Value::from(texts);
    let mut root = Table::new();
    let mut put = |key: &str, value: Value| drop(root.insert(key.to_owned(), value));
    put("name", Value::from(name.clone()));
    put("upstream", Value::from(upstream.clone()));
    if !ids.is_empty() {
        put("ids", list(ids.iter().map(|id| id.as_str().to_owned()).collect()));
    }
    if !under.is_empty() {
        put("under", list(under.iter().map(|prefix| prefix.as_str().to_owned()).collect()));
    }
    match any_tool {
        true => put("any_tool", Value::from(true)),
        false => put("tools", list(tools.clone())),
    }
    put("scopes", list(scopes.clone()));
    // Tables of texts always serialize.
    toml::to_string(&root).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_base::document::SourceFile;
    use mayfly_ledger::upstream::binding::parse;

    #[test]
    fn a_binding_comes_back_from_its_file() {
        for text in [
            "name = 'b'\nupstream = 'u'\nids = ['spiffe://td/b', 'spiffe://td/a']\ntools = ['t', 's']\nscopes = ['r', 'w:x']\n",
            "name = 'b'\nupstream = 'u'\nunder = ['spiffe://td/mcp']\nany_tool = true\nscopes = ['r']\n",
            "name = 'b'\nupstream = 'u'\nids = ['spiffe://td/b']\nscopes = ['r']\n",
        ] {
            let read = parse(&SourceFile::new("b.toml", text)).unwrap();
            let written = binding_text(&read);
            assert_eq!(parse(&SourceFile::new("b.toml", written.as_str())).unwrap(), read, "{written}");
        }
    }
}
