//! Texts for the numbers of objects that a revocation covers.

use mayfly_base::plural::{counted, one_or};
use mayfly_proto::mayfly::v1 as pb;

/// The text for people.
pub fn text(hits: pb::Hits) -> String {
    let counts = [(hits.credentials, "credential"), (hits.tasks, "task"), (hits.callers, "caller")];
    // "At most 0" says no more than 0.
    let first = counts.iter().position(|(n, _)| *n > 0).filter(|_| hits.overlapping);
    let text = |(at, (n, noun)): (usize, (u64, &str))| {
        format!("{}{}", if first == Some(at) { "at most " } else { "" }, counted(n, noun))
    };
    super::joined(counts.into_iter().enumerate().map(text), ", ")
}

/// The text of the credentials that are revoked. Their tasks and callers are named as theirs: they are not revoked themselves.
pub fn revoked(hits: pb::Hits) -> String {
    let most = if hits.overlapping && hits.credentials > 0 { "at most " } else { "" };
    let credentials = counted(hits.credentials, "credential");
    if hits.credentials == 0 {
        return credentials;
    }
    format!("{most}{credentials}, in {} of {}", counted(hits.tasks, "task"), counted(hits.callers, "caller"))
}

/// The text of what is refused from now on, and which tasks end. The callers are named as holders of the credentials; they are not
/// refused themselves.
pub fn refused(hits: pb::Hits) -> String {
    let most = if hits.overlapping && hits.credentials > 0 { "at most " } else { "" };
    let verb = one_or(hits.credentials, "is", "are");
    let whose = match hits.credentials {
        0 => String::new(),
        _ => format!(", of {}", counted(hits.callers, "caller")),
    };
    format!("{most}{} {verb} refused from now on{whose}; {}", counted(hits.credentials, "credential"), ends(hits, false))
}

/// The text of how many tasks end or would end.
pub fn ends(hits: pb::Hits, would: bool) -> String {
    let (ended, left) = (hits.tasks_ended, hits.tasks.saturating_sub(hits.tasks_ended));
    let verb = match (would, ended) {
        (true, _) => "would end",
        (false, 1) => "ends",
        (false, _) => "end",
    };
    match (ended, left) {
        (0, _) => format!("no task {}", if would { "would end" } else { "ends" }),
        (_, 0) => {
            format!("{} {verb}: nothing is granted in {} any more", counted(ended, "task"), one_or(ended, "it", "them"))
        }
        _ => format!("{} {verb}, {} {}", counted(ended, "task"), counted(left, "other"), one_or(left, "goes on", "go on")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_credentials_are_told_as_revoked() {
        let hits = |credentials, overlapping| pb::Hits { credentials, tasks: 4, callers: 1, overlapping, tasks_ended: 0 };
        assert_eq!(revoked(hits(4, false)), "4 credentials, in 4 tasks of 1 caller");
        assert_eq!(revoked(hits(1, true)), "at most 1 credential, in 4 tasks of 1 caller");
        assert_eq!(revoked(hits(0, true)), "0 credentials");
    }

    #[test]
    fn an_upper_bound_of_nothing_is_nothing() {
        let hits = |credentials, tasks, callers| pb::Hits { credentials, tasks, callers, overlapping: true, tasks_ended: 0 };
        assert_eq!(text(hits(3, 1, 2)), "at most 3 credentials, 1 task, 2 callers");
        assert_eq!(text(hits(0, 2, 0)), "0 credentials, at most 2 tasks, 0 callers");
        assert_eq!(text(hits(0, 0, 0)), "0 credentials, 0 tasks, 0 callers");
        assert!(refused(hits(0, 0, 0)).starts_with("0 credentials are refused from now on"), "{}", refused(hits(0, 0, 0)));
        assert!(refused(hits(1, 1, 1)).starts_with("at most 1 credential is refused"), "{}", refused(hits(1, 1, 1)));
    }
}
