//! `mayfly blast-radius`: shows which credentials and callers a revocation would hit, before it is made.

use clap::Args;

use super::error::CliError;
use super::exit::Exit;
use super::show::blast_radius::BlastHit;
use super::show::{Shown, hits};
use super::targets::TargetArgs;
use super::{CommandContext, revoke};
use mayfly_proto::mayfly::v1::{self as pb, revocation_service_client::RevocationServiceClient};

/// Arguments of `mayfly blast-radius`.
#[derive(Args)]
pub struct BlastRadiusArgs {
    /// Target the credential of a token that is read from stdin; the value must be `-`
    #[arg(long, value_name = "-")]
    token: Option<String>,
    /// Maximum number of names to print of each kind
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(i32).range(1..=1000))]
    most: i32,
    #[command(flatten)]
    targets: TargetArgs,
}

/// Prints the blast radius.
pub async fn run(args: BlastRadiusArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let mut targets = args.targets.targets()?;
    let found = args.token.as_deref().map(revoke::from_stdin).transpose()?;
    if targets.is_empty() && found.is_none() {
        let what = "of what? name a target, like --caller ID; `mayfly blast-radius --help` lists them";
        return Err(CliError::Usage(what.to_owned()));
    }
    let server = run.server().await?;
    if let Some(by) = found {
        targets.push(revoke::of_token(run, &server, by).await?);
    }
    let request = pb::BlastRadiusRequest { targets, most: args.most };
    let answer = server.call(request, |c, q| async move { RevocationServiceClient::new(c).blast_radius(q).await }).await?;
    run.out.say(format_args!("a revocation would hit {}; nothing was done", hits::text(answer.hits.unwrap_or_default())));
    let radius = Shown(answer);
    let json = radius.json();
    for (sort, shown) in radius.0.sorts.iter().zip(json.at("sorts").into_iter().flat_map(|sorts| sorts.elements())) {
        let more = sort.count.saturating_sub(sort.items.len() as u64);
        if more > 0 {
            run.out.say(format_args!("{more} more of {}", shown.text_at("of")));
        }
    }
    run.out.one_with_rows(&radius, &BlastHit::all(&json))?;
    Ok(Exit::Ok)
}
