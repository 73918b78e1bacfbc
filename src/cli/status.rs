//! The command `mayfly status`.

use clap::Args;

use super::CommandContext;
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, WatchArgs};
use super::show::Shown;
use mayfly_base::plural::counted;
use mayfly_proto::mayfly::v1::{self as pb, server_service_client::ServerServiceClient};

/// Arguments of `mayfly status`.
#[derive(Args)]
pub struct StatusArgs {
    #[command(flatten)]
    watch: WatchArgs,
}

/// Prints the state of the server. A server that does not issue is reported in words; the exit code is 0 all the same.
pub async fn run(args: StatusArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    let look = || async {
        let answer = server.call(pb::GetStatusRequest {}, |c, q| async move { ServerServiceClient::new(c).get_status(q).await });
        Ok::<_, CliError>(Shown(answer.await?))
    };
    if args.watch.watch {
        return list::watch(&run.out, args.watch.every, || async { Ok(vec![look().await?]) }).await;
    }
    let status = look().await?;
    run.out.one(&status)?;
    let (issuing, counts) = (status.0.issuing.unwrap_or_default(), status.0.counts.unwrap_or_default());
    if !issuing.issuing {
        run.out.say(format_args!("it does not issue: {} [{}]", issuing.message, issuing.reason));
    }
    if counts.secrets_to_rotate > 0 {
        let n = counts.secrets_to_rotate;
        run.out.say(format_args!("{} to be rotated: mayfly secret list", counted(n, "static secret")));
    }
    if counts.secret_rotations_failing > 0 {
        let n = counts.secret_rotations_failing;
        run.out.say(format_args!("the rotation of {} fails: mayfly secret list -o wide", counted(n, "static secret")));
    }
    if counts.leases_failing > 0 {
        let n = counts.leases_failing;
        run.out.say(format_args!("{} could not be undone yet: mayfly lease list --state pending", counted(n, "lease")));
    }
    if counts.rules > 0 && counts.credentials > 0 {
        run.out.say(
            "counts: credentials and callers include what was revoked and has not expired; mayfly credential list leaves it out",
        );
    }
    Ok(Exit::Ok)
}
