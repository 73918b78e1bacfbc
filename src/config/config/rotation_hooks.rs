//! `[[rotation_hooks]]`: the programs that rotate static secrets at vendors.

use std::path::Path;
use std::time::Duration;

use super::values::{TEXT, once};
use mayfly_authority::secrets::hook::RotationHook;
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;

pub(super) fn rotation_hooks(field: &Field<'_>) -> Option<Vec<RotationHook>> {
    let entries: Vec<RotationHook> = field.list(limits::ROTATION_HOOKS)?.iter().filter_map(|item| entry(item)).collect();
    once(field, entries, |a, b| a.upstream == b.upstream, |entry| entry.upstream.clone(), "name each upstream once")
}

fn entry(item: &Field<'_>) -> Option<RotationHook> {
    let section: Section<'_> = item.section()?;
    let upstream = section.required("upstream").and_then(|f| f.name());
    let command = section.required("command").and_then(|f| command(&f));
    let timeout = match section.optional("timeout") {
        Some(field) => field.duration(1000, limits::HOOK_TIMEOUT_MOST_MS),
        None => Some(limits::HOOK_TIMEOUT_MS),
    };
    section.finish();
    Some(RotationHook { upstream: upstream?, command: command?, timeout: Duration::from_millis(timeout?) })
}

/// The program and its arguments. The program is an absolute path: the server's PATH must not decide what runs.
fn command(field: &Field<'_>) -> Option<Vec<String>> {
    let words: Vec<Option<String>> = field.list(limits::HOOK_ARGUMENTS)?.iter().map(|word| word.text(TEXT)).collect();
    let words: Vec<String> = words.into_iter().collect::<Option<_>>()?;
    match words.first() {
        Some(program) if Path::new(program).is_absolute() => Some(words),
        _ => {
            field.wrong("names no program by its absolute path", "[\"/usr/local/libexec/rotate-sentry\"], and arguments after it")
        }
    }
}
