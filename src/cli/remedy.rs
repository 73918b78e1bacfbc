//! The explanation of a refusal for which the server sent none: the rule, and who can lift the refusal with which command.

use mayfly_base::refusal::Reason;

/// The rule behind a reason, and how to get past it.
pub struct RefusalRemedy {
    /// The rule, in words.
    pub rule: &'static str,
    /// The person or role that can lift the refusal, and the command to ask for.
    pub way_out: &'static str,
}

/// The remedy for a reason of the closed list.
pub fn remedy_for(reason: Reason) -> RefusalRemedy {
    RefusalRemedy { rule: rule(reason), way_out: way_out(reason) }
}

fn rule(reason: Reason) -> &'static str {
    match reason {
        Reason::InvalidField => "the request's form",
        Reason::RequestIdReused => "one request id, one request",
        Reason::NotAuthenticated => "every caller shows an X.509-SVID",
        Reason::SvidNoLongerValid => "an SVID ends, and a root can be removed",
        Reason::DeniedByPolicy => "the environment's policy",
        Reason::Locked => "a lock",
        Reason::Revoked => "a revocation",
        Reason::EvidenceRevoked => "a revoked SVID, token or credential is evidence for nothing",
        Reason::NotYours => "only those whom a task names act in it",
        Reason::EnvironmentWall => "an environment is a wall",
        Reason::OutsideTask => "the task's terms",
        Reason::OutsideUpstream => "the upstream's registration",
        Reason::WiderThanParent => "nothing is wider than what it rests on",
        Reason::NotFound => "what does not exist and what you may not see look the same",
        Reason::AlreadyExists => "names are unique",
        Reason::TaskNotActive => "the task's state",
        Reason::CredentialNotActive => "the credential's state",
        Reason::UpstreamNotActive => "the upstream's state",
        Reason::NoLifeLeft => "the least of all bounds ends it",
        Reason::ApprovalNeeded => "an approval",
        Reason::ConfirmNeeded => "more than one credential is confirmed by number",
        Reason::KeyState => "a key's state",
        Reason::FollowersBehind => "every follower applies it",
        Reason::DecidedOnOldState => "a decision holds for the state that it was made from",
        Reason::Compacted => "history is kept for a time",
        Reason::LedgerRolledBack => "a ledger that goes back forgets revocations",
        Reason::LimitReached => "a bound",
        Reason::DiskReserve => "the last of the disk is kept for revocations",
        Reason::NotReady => "the server takes no calls",
        Reason::ClockSkew => "the server's clock departs from the ledger's time",
        Reason::DeadlineExceeded => "the time that the call was given",
        Reason::UpstreamFailed => "the upstream's answer",
        Reason::NotServed => "this version has no implementation for it",
    }
}

fn way_out(reason: Reason) -> &'static str {
    match reason {
        Reason::InvalidField => "you can: change the field and run it again",
        Reason::RequestIdReused => "you can: leave out --request-id for a new request, or repeat the first one exactly",
        Reason::NotAuthenticated => {
            "a person can: sign in with `mayfly login`; a workload sees which clause refuses its SVID with `mayfly svid check --bundle FILE \
             --trust-domain NAME CHAIN.pem`"
        }
        Reason::SvidNoLongerValid => {
            "you can: fetch a new SVID, or sign in again with `mayfly login`; an operator sees removed roots with `mayfly bundle show \
             TRUST-DOMAIN`"
        }
        Reason::DeniedByPolicy => "whoever keeps the policy can; see what decided with `mayfly explain --request-id ID`",
        Reason::Locked => "an operator can: `mayfly lock list`, then `mayfly lock lift SEQ --reason TEXT`",
        Reason::Revoked => "nobody can take it back; see it with `mayfly rules list`, and ask anew in a new task",
        Reason::EvidenceRevoked => "you can: fetch a new SVID or token; see the rule with `mayfly rules list`",
        Reason::NotYours => {
            "its owner can: `mayfly task delegate TASK --to YOUR-SPIFFE-ID`, or open one that names you with --caller"
        }
        Reason::EnvironmentWall => {
            "nobody can cross it; register the upstream or the workload in the other environment, see `mayfly whoami`"
        }
        Reason::OutsideTask => "you can open another: `mayfly task open --upstream NAME=SCOPE --purpose TEXT`",
        Reason::OutsideUpstream => "its owner can; see both with `mayfly upstream show NAME`",
        Reason::WiderThanParent => {
            "the parent's owner can open a wider task: `mayfly task open`; see the parent with `mayfly task show TASK`"
        }
        Reason::NotFound => {
            "check the spelling; list the objects that you may see with the command of their kind, such as `mayfly task list`; `mayfly whoami` \
             shows the environments that you operate"
        }
        Reason::AlreadyExists => "you can: choose another name",
        Reason::TaskNotActive => "see it with `mayfly task show TASK`; open another with `mayfly task open`",
        Reason::CredentialNotActive => "see it with `mayfly credential show CREDENTIAL`; get another with `mayfly get UPSTREAM`",
        Reason::UpstreamNotActive => "its owner can; see it with `mayfly upstream show NAME`",
        Reason::NoLifeLeft => {
            "see the bounds with `mayfly task show TASK` and `mayfly whoami`; extend with `mayfly task extend TASK --by 30m`"
        }
        Reason::ApprovalNeeded => "an approver of the upstream can; see them with `mayfly upstream show NAME`",
        Reason::ConfirmNeeded => "you can: run it again with `--confirm N`",
        Reason::KeyState => "see it with `mayfly key list`; make another with `mayfly key rotate --issuer URL`",
        Reason::FollowersBehind => "see them with `mayfly follower list`",
        Reason::DecidedOnOldState => "you can: run it again",
        Reason::Compacted => "you can: run it again without the seq to go on from",
        Reason::LedgerRolledBack => {
            "an operator stops the server and puts the newest data directory back, or runs `mayfly server recover`"
        }
        Reason::LimitReached => {
            "you can: try again later; an operator can raise a bound that has a key in the server's configuration, see `mayfly status`"
        }
        Reason::DiskReserve => "an operator can free disk; see `mayfly status`",
        Reason::NotReady => "an operator sees why with `mayfly status`",
        Reason::ClockSkew => "an operator can mend the clock; see `mayfly status`",
        Reason::DeadlineExceeded => {
            "look before you repeat it, with `mayfly explain --request-id ID`; give it more with `--deadline`"
        }
        Reason::UpstreamFailed => "its owner can; see it with `mayfly upstream show NAME`",
        Reason::NotServed => "whoever runs the server can update it; see `mayfly status`",
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_that_a_way_out_names_exists() {
        let cli = crate::Cli::<crate::NoBench>::command();
        let mut named = 0;
        for &reason in Reason::ALL {
            let text = remedy_for(reason).way_out;
            assert!(!text.is_empty() && !remedy_for(reason).rule.is_empty());
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
