//! The command `mayfly whoami`.

use super::CommandContext;
use super::error::CliError;
use super::exit::Exit;
use super::show::{Shown, why};
use mayfly_proto::mayfly::v1::{self as pb, token_service_client::TokenServiceClient};

/// Runs the command.
pub async fn run(run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let answer = server.call(pb::WhoamiRequest {}, |c, q| async move { TokenServiceClient::new(c).whoami(q).await }).await?;
    let who = Shown(answer);
    run.out.one(&who)?;
    for lock in &who.0.locks {
        run.out.say(format_args!("a lock keeps us from new grants since {}: {}", lock.seq, why(lock)));
    }
    Ok(Exit::Ok)
}
