//! What a refusal means to a person where the server did not say: the rule, and who can change it by which command.

use crate::refusal::Reason;

/// The rule behind a reason, and the way out of it.
pub struct Remedy {
    /// What refused, in words.
    pub rule: &'static str,
    /// Who can change that, and the command to ask for it.
    pub way_out: &'static str,
}

/// For every reason of the closed list.
pub fn of(reason: Reason) -> Remedy {
    let (rule, way_out) = match reason {
        Reason::InvalidField => ("the request's form", "you can: change the field and run it again"),
        Reason::RequestIdReused => {
            ("one request id, one request", "you can: leave out --request-id for a new request, or repeat the first one exactly")
        }
        Reason::NotAuthenticated => (
            "every caller shows an X.509-SVID",
            "you can: see which clause refuses yours with `mayfly svid check --bundle FILE --trust-domain NAME CHAIN.pem`",
        ),
        Reason::SvidNoLongerValid => (
            "an SVID ends, and a root can be removed",
            "you can: fetch a new SVID; an operator sees removed roots with `mayfly bundle show TRUST-DOMAIN`",
        ),
        Reason::DeniedByPolicy => {
            ("the environment's policy", "whoever keeps the policy can; see what decided with `mayfly explain --request-id ID`")
        }
        Reason::Locked => ("a lock", "an operator can: `mayfly lock list`, then `mayfly lock lift SEQ --reason TEXT`"),
        Reason::Revoked => {
            ("a revocation", "nobody can take it back; see it with `mayfly rules list`, and ask anew in a new task")
        }
        Reason::EvidenceRevoked => (
            "a revoked SVID, token or credential is evidence for nothing",
            "you can: fetch a new SVID or token; see the rule with `mayfly rules list`",
        ),
        Reason::NotYours => (
            "only those whom a task names act in it",
            "its owner can: `mayfly task delegate TASK --to YOUR-SPIFFE-ID`, or open one that names you with --caller",
        ),
        Reason::EnvironmentWall => (
            "an environment is a wall",
            "nobody can cross it; register the upstream or the workload in the other environment, see `mayfly whoami`",
        ),
        Reason::OutsideTask => {
            ("the task's terms", "you can open another: `mayfly task open --upstream NAME=SCOPE --purpose TEXT`")
        }
        Reason::OutsideUpstream => ("the upstream's registration", "its owner can; see both with `mayfly upstream show NAME`"),
        Reason::WiderThanParent => (
            "nothing is wider than what it rests on",
            "the parent's owner can open a wider task: `mayfly task open`; see the parent with `mayfly task show TASK`",
        ),
        Reason::NotFound => {
            ("what does not exist and what you may not see look the same", "see who you are with `mayfly whoami`")
        }
        Reason::AlreadyExists => ("names are unique", "you can: choose another name"),
        Reason::TaskNotActive => {
            ("the task's state", "see it with `mayfly task show TASK`; open another with `mayfly task open`")
        }
        Reason::CredentialNotActive => {
            ("the credential's state", "see it with `mayfly credential show CREDENTIAL`; get another with `mayfly get UPSTREAM`")
        }
        Reason::UpstreamNotActive => ("the upstream's state", "its owner can; see it with `mayfly upstream show NAME`"),
        Reason::NoLifeLeft => (
            "the least of all bounds ends it",
            "see the bounds with `mayfly task show TASK` and `mayfly whoami`; extend with `mayfly task extend TASK --by 30m`",
        ),
        Reason::ApprovalNeeded => ("an approval", "an approver of the upstream can; see them with `mayfly upstream show NAME`"),
        Reason::ConfirmNeeded => ("more than one credential is confirmed by number", "you can: run it again with `--confirm N`"),
        Reason::KeyState => ("a key's state", "see it with `mayfly key list`; make another with `mayfly key rotate`"),
        Reason::FollowersBehind => ("every follower applies it", "see them with `mayfly follower list`"),
        Reason::DecidedOnOldState => ("a decision holds for the state that it was made from", "you can: run it again"),
        Reason::Compacted => ("history is kept for a time", "you can: run it again without the seq to go on from"),
        Reason::LimitReached => ("a bound", "an operator can raise it in the server's configuration; see `mayfly status`"),
        Reason::DiskReserve => ("the last of the disk is kept for revocations", "an operator can free disk; see `mayfly status`"),
        Reason::NotReady => ("the server takes no calls", "an operator sees why with `mayfly status`"),
        Reason::ClockSkew => {
            ("the server's clock departs from the ledger's time", "an operator can mend the clock; see `mayfly status`")
        }
        Reason::UpstreamFailed => ("the upstream's answer", "its owner can; see it with `mayfly upstream show NAME`"),
        Reason::NotServed => {
            ("this version has no implementation for it", "whoever runs the server can update it; see `mayfly status`")
        }
    };
    Remedy { rule, way_out }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_that_a_way_out_names_exists() {
        let cli = crate::cli::Cli::command();
        let mut named = 0;
        for &reason in Reason::ALL {
            let text = of(reason).way_out;
            assert!(!text.is_empty() && !of(reason).rule.is_empty());
            for line in text.split('`').skip(1).step_by(2).filter(|c| c.starts_with("mayfly ")) {
                let mut at = &cli;
                for word in line.split(' ').skip(1) {
                    if !at.has_subcommands() {
                        break;
                    }
                    at = at.find_subcommand(word).unwrap_or_else(|| panic!("{reason:?} names {line}"));
                }
                for flag in line.split(' ').filter_map(|w| w.strip_prefix("--")) {
                    assert!(at.get_arguments().any(|a| a.get_long() == Some(flag)), "{reason:?} names --{flag} in {line}");
                }
                named += 1;
            }
        }
        assert!(named > 20);
    }
}
