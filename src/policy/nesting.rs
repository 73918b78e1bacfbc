//! Bounds the depth of the expressions in a policy's text, before the text is parsed.
//!
//! Cedar's parser, validator and evaluator call themselves for each level of an expression. A text of some hundred bytes could therefore
//! use up a thread's stack, which ends the process.

use mayfly_base::document::{Diagnostic, SourceFile};
use mayfly_base::limits;

/// The expression within one pair of brackets, up to the present place.
#[derive(Default)]
struct Group {
    /// Levels by `if`: each encloses all that follows.
    ifs: usize,
    /// Levels by `||`, and by `&&` in the present operand of `||`.
    ors: usize,
    ands: usize,
    /// Levels by other operators in the present operand of `&&`, and the deepest brackets in it.
    others: usize,
    brackets: usize,
    /// The deepest finished operand of `&&`, operand of `||`, and element between commas.
    operand: usize,
    term: usize,
    element: usize,
}

impl Group {
    fn and(&mut self) {
        self.operand = self.operand.max(self.others + self.brackets);
        (self.others, self.brackets) = (0, 0);
        self.ands += 1;
    }

    fn or(&mut self) {
        self.and();
        self.term = self.term.max(self.ands + self.operand);
        (self.ands, self.operand) = (0, 0);
        self.ors += 1;
    }

    fn comma(&mut self) {
        self.element = self.depth();
        *self = Group { element: self.element, ..Group::default() };
    }

    /// The levels of the deepest expression so far.
    fn depth(&self) -> usize {
        let operand = self.operand.max(self.others + self.brackets);
        self.element.max(self.ifs + self.ors + self.term.max(self.ands + operand))
    }
}

/// The complaint about a text whose expressions are too deep; `None` if there is none. A text that is no Cedar gets no complaint here.
pub(super) fn complaint(source: &SourceFile) -> Option<Diagnostic> {
    let too_deep = |at: usize, what: String| {
        let remedy = "compare with a set, like [\"a\", \"b\"].contains(context.tool), or write several policies";
        Some(Diagnostic::at(source, at, what, remedy))
    };
    let mut groups = vec![Group::default()];
    let (bytes, mut at, mut before) = (source.text.as_bytes(), 0, &b""[..]);
    while let Some(byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        let length = token(rest);
        let word = rest.get(..length).unwrap_or_default();
        let open = groups.len();
        let group = groups.last_mut()?;
        let keyword = !is_name(before, rest.get(length..).unwrap_or_default());
        match (byte, word) {
            (b'(' | b'[' | b'{', _) if open > limits::POLICY_BRACKETS => {
                return too_deep(at, format!("more than {} brackets within each other", limits::POLICY_BRACKETS));
            }
            (b'(' | b'[' | b'{', _) => {
                // `a["b"]["c"]` is a chain, like `a.b.c`: the brackets of each index close again, and the levels stay.
                group.others += usize::from(*byte == b'[');
                groups.push(Group::default());
            }
            (b')' | b']' | b'}', _) if open > 1 => {
                let depth = groups.pop().map_or(0, |group| group.depth());
                if let Some(outer) = groups.last_mut() {
                    outer.brackets = outer.brackets.max(depth + 1);
                }
            }
            (b',', _) => group.comma(),
            // The next policy begins.
            (b';', _) => *group = Group::default(),
            (_, b"||") => group.or(),
            (_, b"&&") => group.and(),
            (_, b"when" | b"unless") if keyword => group.and(),
            (_, b"if") if keyword => group.ifs += 1,
            (b'.' | b'!' | b'+' | b'-' | b'*', _) => group.others += 1,
            _ => {}
        }
        if groups.iter().map(|group| group.ifs).sum::<usize>() > limits::POLICY_IFS {
            let what = format!(
                "more than {} times `if` within each other, where an `else if` is within the `if` before it",
                limits::POLICY_IFS
            );
            let remedy = "write each step as a policy of its own, with the step's condition in `when` and the conditions of the steps \
                          before it in `unless`: if a then b else if c then d is one policy when { a && b } and one when { c && d } unless { a }";
            return Some(Diagnostic::at(source, at, what, remedy));
        }
        let deepest = groups.iter().map(Group::depth).sum::<usize>();
        if deepest > limits::POLICY_DEPTH {
            return too_deep(
                at,
                format!("an expression with more than {} levels of operators and brackets", limits::POLICY_DEPTH),
            );
        }
        if !byte.is_ascii_whitespace() && !word.starts_with(b"//") {
            before = word;
        }
        at += length;
    }
    None
}

/// Whether a word between these texts is the name of an attribute, of a record's member or of an annotation, even if it is a keyword
/// elsewhere: `context.if`, `context has if`, `{if: 1}`, `@if("…")`.
fn is_name(before: &[u8], after: &[u8]) -> bool {
    matches!(before, b"." | b"has" | b"@") || after.trim_ascii_start().starts_with(b":")
}

/// The length of the token, comment or other byte at the beginning of a text that is not empty.
fn token(text: &[u8]) -> usize {
    let while_ = |is: fn(&u8) -> bool| text.iter().take_while(|byte| is(byte)).count();
    match text {
        // Cedar ends a comment at a carriage return as well.
        [b'/', b'/', ..] => while_(|byte| !matches!(byte, b'\n' | b'\r')),
        [b'"', rest @ ..] => {
            let mut escaped = false;
            let end = rest.iter().position(|byte| {
                let ends = *byte == b'"' && !escaped;
                escaped = *byte == b'\\' && !escaped;
                ends
            });
            end.map_or(text.len(), |end| end + 2)
        }
        [b'|', b'|', ..] | [b'&', b'&', ..] => 2,
        [b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'0'..=b'9', ..] => while_(|byte| byte.is_ascii_alphanumeric() || *byte == b'_'),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(condition: &str) -> bool {
        let text = format!("@id(\"a\") permit (principal, action, resource) when {{ {condition} }};\n");
        complaint(&SourceFile::new("policy.cedar", text.repeat(2))).is_some()
    }

    #[test]
    fn deep_expressions_are_found_and_wide_ones_are_not() {
        let nested = |open: &str, n: usize, close: &str| format!("{}true{}", open.repeat(n), close.repeat(n));
        for deep in [
            nested("(", 60, ")"),
            nested("!(", 30, ")"),
            nested("[", 60, "]"),
            nested("{a: ", 60, "}"),
            "context.tool == \"a\" || ".repeat(300) + "true",
            "true && ".repeat(20_000) + "true",
            "1 + ".repeat(300) + "1 == 1",
            format!("context{} == 1", ".a".repeat(20_000)),
            format!("context{} == 1", "[\"a\"]".repeat(20_000)),
            format!("context{} == 1", "[\"a\"].b".repeat(70)),
            "if true then ".repeat(9) + "true" + &" else true".repeat(9),
            "if (".repeat(9) + "true" + &") then true else true".repeat(9),
            "(if true then ".repeat(9) + "true" + &" else true)".repeat(9),
            "if true then ".repeat(200) + "true" + &" else true".repeat(200),
            "!".repeat(200) + "true",
            // Within a string that ends, and after a comment.
            format!("\"\\\"\" == \"\" || // \" (\n {}true", "true || ".repeat(300)),
            format!("true // a\r{}true", "|| true ".repeat(300)),
            "true } when { ".repeat(300) + "true",
        ] {
            assert!(refused(&deep), "{}", deep.get(..60).unwrap_or(&deep));
        }
        for wide in [
            format!("[{}].contains(context.tool)", vec!["\"a\""; 5_000].join(", ")),
            format!("[{}].contains(context.tool)", vec!["context.a.b.c"; 500].join(", ")),
            vec!["context.tool == \"a\" && context.environment.name == \"b\""; 100].join(" || "),
            format!("\"{}\" == context.tool // {}", "(".repeat(500), "((".repeat(500)),
            nested("(", 14, ")"),
            vec!["(if true then context.tool == \"a\" else false)"; 50].join(" && "),
            "if true then ".repeat(8) + "true" + &" else true".repeat(8),
            // Names of attributes that are keywords elsewhere.
            vec!["context.if"; 50].join(" && "),
            vec!["context has if && context . // if\n if == {if: 1, \"if\": 2, when : 3}"; 30].join(" && "),
        ] {
            assert!(!refused(&wide), "{}", wide.get(..60).unwrap_or(&wide));
        }
    }

    #[test]
    fn a_chain_of_else_if_is_told_how_to_be_written() {
        let chain = "if context.tool == \"a\" then true else ".repeat(9) + "false";
        let text = format!("permit (principal, action, resource) when {{ {chain} }};");
        let told = complaint(&SourceFile::new("policy.cedar", text)).unwrap().to_string();
        assert!(told.contains("an `else if` is within the `if` before it") && told.contains("a policy of its own"), "{told}");
    }

    #[test]
    fn what_is_no_cedar_is_left_to_the_parser() {
        for text in ["", ")))", "]; }", "\"", "\"\\", "//", "é(ü", "permit"] {
            assert!(complaint(&SourceFile::new("policy.cedar", text)).is_none(), "{text}");
        }
    }
}
