//! Confirmation of changes that revoke. The numbers are shown first; a change that hits more than one credential is confirmed by that
//! number, a change that hits everything by `all`.

use std::future::Future;
use std::str::FromStr;

use clap::Args;

use super::error::CliError;
use super::out::Out;
use super::show::hits;
use mayfly_authority::revocation::revoke::EVERYTHING;
use mayfly_base::refusal::Reason;
use mayfly_proto::mayfly::v1 as pb;

/// The confirmation options of a change that revokes.
#[derive(Args, Clone)]
pub struct ConfirmArgs {
    /// Show what would be revoked and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Confirm that this many credentials are revoked, as printed by --dry-run (up to 10 % more are accepted), or `all`
    #[arg(long, value_name = "N|all", conflicts_with = "dry_run")]
    pub confirm: Option<ConfirmedHits>,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

/// The number of credentials that the operator confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfirmedHits {
    /// The given number of credentials.
    Credentials(u64),
    /// Any number of credentials.
    All,
}

impl FromStr for ConfirmedHits {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ConfirmedHits, Self::Err> {
        match text {
            "all" => Ok(ConfirmedHits::All),
            number => number.parse().map(ConfirmedHits::Credentials).map_err(|_| "expected a number of credentials, or all"),
        }
    }
}

impl ConfirmedHits {
    fn on_the_wire(self) -> pb::Confirmation {
        match self {
            ConfirmedHits::Credentials(credentials) => pb::Confirmation { credentials, all: false },
            ConfirmedHits::All => pb::Confirmation { credentials: 0, all: true },
        }
    }
}

/// Sends a change. If the server requires a confirmation, prints the numbers of a dry run and the flag to add.
///
/// `ask` is called with `dry_run` and the confirmation. The server compares the confirmed number with the number at the time of the change,
/// since the number of live credentials moves under load.
pub async fn ask<R, F, W>(out: &Out, args: &ConfirmArgs, of: fn(&R) -> Option<pb::Hits>, ask: F) -> Result<R, CliError>
where
    F: Fn(bool, Option<pb::Confirmation>) -> W,
    W: Future<Output = Result<R, CliError>>,
{
    let error = match ask(args.dry_run, args.confirm.map(ConfirmedHits::on_the_wire)).await {
        Err(error) if error.reason() == Some(Reason::ConfirmNeeded) => error,
        other => return other,
    };
    let CliError::Server(mut said) = error else { return Err(error) };
    let would = of(&ask(true, None).await?).unwrap_or_default();
    out.say(format_args!("this would hit {}; nothing was done", hits::text(would)));
    let number = match said.rule.as_deref() {
        Some(EVERYTHING) => String::new(),
        _ => format!("`--confirm {}`, or with ", would.credentials),
    };
    said.way_out = Some(format!("you can: run it again with {number}`--confirm all`"));
    Err(CliError::Server(said))
}

/// Prints how many credentials a change revoked or would revoke, and how many of them are hit only because no narrower target covers the
/// rest.
pub fn print_hits(out: &Out, dry_run: bool, of: Option<pb::Hits>, beyond: u64) {
    let of = of.unwrap_or_default();
    let text = hits::revoked(of);
    match (dry_run, of.credentials) {
        (true, 0) => out.say("dry run, nothing was done: it would revoke nothing"),
        (true, _) => out.say(format_args!("dry run, nothing was done: it would revoke {text}")),
        (false, 0) => out.say("nothing was revoked"),
        (false, _) => out.say(format_args!("revoked {text}")),
    }
    if beyond > 0 {
        out.say(format_args!("{beyond} of them would still be permitted: nothing finer covers the rest"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_is_a_number_or_all() {
        assert_eq!("12".parse(), Ok(ConfirmedHits::Credentials(12)));
        assert_eq!("all".parse(), Ok(ConfirmedHits::All));
        for wrong in ["", "-1", "ALL", "yes", "1.5"] {
            assert!(wrong.parse::<ConfirmedHits>().is_err(), "{wrong:?}");
        }
        assert_eq!(ConfirmedHits::Credentials(12).on_the_wire(), pb::Confirmation { credentials: 12, all: false });
        assert_eq!(ConfirmedHits::All.on_the_wire(), pb::Confirmation { credentials: 0, all: true });
    }
}
