//! Changes that revoke: shown first, and confirmed by their number when they hit more than one credential, with `all` when they hit
//! everything.

use std::future::Future;
use std::str::FromStr;

use clap::Args;

use super::error::CliError;
use super::out::Out;
use super::show::Hits;
use crate::pb::mayfly::v1 as pb;
use crate::refusal::Reason;
use crate::revoke::EVERYTHING;

/// How a change that revokes is asked for.
#[derive(Args, Clone)]
pub struct ConfirmArgs {
    /// Only show what would be hit
    #[arg(long)]
    pub dry_run: bool,
    /// Agree to this many credentials, as the dry run showed them (a tenth more is accepted), or to `all`
    #[arg(long, value_name = "N|all", conflicts_with = "dry_run")]
    pub confirm: Option<Agreed>,
    /// Makes a repeat by hand safe: the same id is answered like the first time
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

/// What was agreed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Agreed {
    /// So many credentials.
    Credentials(u64),
    /// However many there are.
    All,
}

impl FromStr for Agreed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Agreed, Self::Err> {
        match text {
            "all" => Ok(Agreed::All),
            number => number.parse().map(Agreed::Credentials).map_err(|_| "expected a number of credentials, or all"),
        }
    }
}

impl Agreed {
    fn on_the_wire(self) -> pb::Confirmation {
        match self {
            Agreed::Credentials(credentials) => pb::Confirmation { credentials, all: false },
            Agreed::All => pb::Confirmation { credentials: 0, all: true },
        }
    }
}

/// Asks, and where the server wants a confirmation shows the numbers of a dry run and what to type.
///
/// `ask` is called with `dry_run` and the confirmation. The server compares the numbers: they move under load, and what counts is what is
/// hit when it is done.
pub async fn ask<R, F, W>(out: &Out, args: &ConfirmArgs, hits: fn(&R) -> Option<pb::Hits>, ask: F) -> Result<R, CliError>
where
    F: Fn(bool, Option<pb::Confirmation>) -> W,
    W: Future<Output = Result<R, CliError>>,
{
    let error = match ask(args.dry_run, args.confirm.map(Agreed::on_the_wire)).await {
        Err(error) if error.reason() == Some(Reason::ConfirmNeeded) => error,
        other => return other,
    };
    let CliError::Server(mut said) = error else { return Err(error) };
    let would = Hits::from(hits(&ask(true, None).await?));
    out.say(format_args!("this would hit {}; nothing was done", would.text()));
    let number = match said.rule.as_deref() {
        Some(EVERYTHING) => String::new(),
        _ => format!("`--confirm {}`, or with ", would.credentials),
    };
    said.way_out = Some(format!("you can: run it again with {number}`--confirm all`"));
    Err(CliError::Server(said))
}

/// Tells what a change revoked, or would: also what of it was hit only because nothing finer covers the rest.
pub fn told(out: &Out, dry_run: bool, hits: &Hits, beyond: u64) {
    let text = hits.text();
    match (dry_run, hits.credentials) {
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
        assert_eq!("12".parse(), Ok(Agreed::Credentials(12)));
        assert_eq!("all".parse(), Ok(Agreed::All));
        for wrong in ["", "-1", "ALL", "yes", "1.5"] {
            assert!(wrong.parse::<Agreed>().is_err(), "{wrong:?}");
        }
        assert_eq!(Agreed::Credentials(12).on_the_wire(), pb::Confirmation { credentials: 12, all: false });
        assert_eq!(Agreed::All.on_the_wire(), pb::Confirmation { credentials: 0, all: true });
    }
}
