//! Exit codes: the closed list, and the mapping from the server's answers to it.

use tonic::Code;

use mayfly_base::refusal::Reason;

/// How a command ended. Scripts rely on the numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// The command succeeded.
    Ok,
    /// A fault of this program, this machine or the server.
    Error,
    /// The command line or a file that it names is wrong; nothing was done.
    Usage,
    /// The named object does not exist, or the caller may not see it.
    NotFound,
    /// The server does not know the caller, or is not the expected server.
    NotAuthenticated,
    /// The server refused the request.
    Denied,
    /// The upstream did not do what was asked.
    UpstreamFailed,
    /// The command did part of the work; the rest is listed.
    Partly,
    /// The request is valid and may succeed later.
    TryAgain,
    /// The request needs an approval.
    ApprovalNeeded,
    /// The check or search has findings.
    Findings,
    /// The exit code of a program that this command ran.
    Other(u8),
}

impl Exit {
    /// The exit code of a refusal from the closed list.
    pub fn of_reason(reason: Reason) -> Exit {
        match reason {
            Reason::InvalidField | Reason::RequestIdReused | Reason::ConfirmNeeded => Exit::Usage,
            Reason::NotFound => Exit::NotFound,
            Reason::NotAuthenticated | Reason::SvidNoLongerValid => Exit::NotAuthenticated,
            Reason::DeniedByPolicy
            | Reason::Locked
            | Reason::Revoked
            | Reason::EvidenceRevoked
            | Reason::NotYours
            | Reason::EnvironmentWall
            | Reason::OutsideTask
            | Reason::OutsideUpstream
            | Reason::WiderThanParent
            | Reason::AlreadyExists
            | Reason::TaskNotActive
            | Reason::CredentialNotActive
            | Reason::UpstreamNotActive
            | Reason::NoLifeLeft
            | Reason::KeyState => Exit::Denied,
            // An operator has to repair the server; a retry does not help.
            Reason::LedgerRolledBack => Exit::Error,
            Reason::UpstreamFailed => Exit::UpstreamFailed,
            Reason::FollowersBehind => Exit::Partly,
            Reason::DeadlineExceeded
            | Reason::DecidedOnOldState
            | Reason::Compacted
            | Reason::LimitReached
            | Reason::DiskReserve
            | Reason::NotReady
            | Reason::ClockSkew => Exit::TryAgain,
            Reason::ApprovalNeeded => Exit::ApprovalNeeded,
            Reason::NotServed => Exit::Error,
        }
    }

    /// The exit code of a status without a reason of the closed list: a fault, the answer of a proxy, or of a newer server.
    pub fn of_code(code: Code) -> Exit {
        match code {
            Code::Ok => Exit::Ok,
            Code::InvalidArgument => Exit::Usage,
            Code::NotFound => Exit::NotFound,
            Code::Unauthenticated => Exit::NotAuthenticated,
            Code::PermissionDenied | Code::FailedPrecondition | Code::AlreadyExists => Exit::Denied,
            Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::ResourceExhausted | Code::OutOfRange => {
                Exit::TryAgain
            }
            Code::Cancelled | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => Exit::Error,
        }
    }
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Error => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::NotAuthenticated => 4,
            Exit::Denied => 5,
            Exit::UpstreamFailed => 6,
            Exit::Partly => 7,
            Exit::TryAgain => 8,
            Exit::ApprovalNeeded => 9,
            Exit::Findings => 10,
            Exit::Other(code) => code,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> std::process::ExitCode {
        std::process::ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_that_scripts_know() {
        use Exit::*;
        let all =
            [Ok, Error, Usage, NotFound, NotAuthenticated, Denied, UpstreamFailed, Partly, TryAgain, ApprovalNeeded, Findings];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn a_refusal_never_looks_like_success_and_agrees_with_its_status_code_on_who_is_to_act() {
        for &reason in Reason::ALL {
            let exit = Exit::of_reason(reason);
            assert_ne!(exit, Exit::Ok, "{reason:?}");
            let by_code = Exit::of_code(Code::from(reason.code() as i32));
            // A proxy that strips the details may make the exit code less specific, but must never turn a refusal into "try again".
            assert_eq!(
                exit == Exit::TryAgain || exit == Exit::UpstreamFailed,
                by_code == Exit::TryAgain,
                "{reason:?}: {exit:?}, without details {by_code:?}"
            );
        }
    }
}
