//! `mayfly upstream template` and `mayfly upstream test`.

use clap::Args;

use crate::CommandContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::server::ApiClient;
use crate::show::Shown;
use mayfly_credential::connectors;
use mayfly_proto::mayfly::v1::{self as pb, upstream_service_client::UpstreamServiceClient};

/// Arguments of `mayfly upstream template`.
#[derive(Args)]
pub struct TemplateArgs {
    #[arg(value_name = "KIND", value_parser = template_of, help = format!("Kind of the credentials: {}", known_kinds()))]
    template: &'static str,
}

/// Arguments of `mayfly upstream test`.
#[derive(Args)]
pub struct TestArgs {
    /// Name of the upstream
    #[arg(value_name = "NAME")]
    upstream: String,
}

fn template_of(kind: &str) -> Result<&'static str, String> {
    connectors::templates()
        .find(|(name, _)| *name == kind)
        .map(|(_, template)| template)
        .ok_or_else(|| format!("there is a template for: {}", known_kinds()))
}

fn known_kinds() -> String {
    connectors::templates().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

/// Prints a registration to start from.
pub fn template(args: &TemplateArgs, run: &CommandContext) -> Result<Exit, CliError> {
    run.out.document(args.template)?;
    Ok(Exit::Ok)
}

/// Makes a credential at the upstream, uses it, revokes it and looks that it is gone.
pub async fn test(args: TestArgs, run: &CommandContext, server: &ApiClient) -> Result<Exit, CliError> {
    let request = pb::TestUpstreamRequest { upstream: args.upstream.clone() };
    let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).test_upstream(q).await }).await?;
    let failed = answer.steps.iter().filter(|step| step.problem.is_some()).count();
    let steps: Vec<Shown<pb::TestStep>> = answer.steps.into_iter().map(Shown).collect();
    run.out.list(&steps)?;
    match failed {
        0 => {
            run.out.say(format_args!("{} works: what was made for the test is gone", args.upstream));
            Ok(Exit::Ok)
        }
        _ => {
            run.out.say(format_args!("{} does not work yet; mayfly lease list shows what is still to be undone", args.upstream));
            Ok(Exit::UpstreamFailed)
        }
    }
}
