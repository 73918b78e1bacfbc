//! Runs a table of tests for a policy set, from a file that CI can use.

use std::path::PathBuf;

use clap::Args;

use super::files::{PolicyFileArgs, complaints, fetch_set, sources};
use crate::error::CliError;
use crate::exit::Exit;
use crate::server::ApiClient;
use crate::show::policy::PolicyTestView;
use crate::{CommandContext, args};
use mayfly_api::wire::upstream_from_pb;
use mayfly_base::document::SourceFile;
use mayfly_base::limits;
use mayfly_config::policy_files;
use mayfly_credential::connector::UpstreamConnectors;
use mayfly_credential::connectors::built_in;
use mayfly_ledger::upstream::registry::{Registry, Upstream};
use mayfly_policy::PolicySet;
use mayfly_policy::policy_tests::{self, PolicyTest};
use mayfly_policy::simulation::SimulationOutcome;
use mayfly_proto::mayfly::v1::{self as pb, upstream_service_client::UpstreamServiceClient};

/// Arguments of `mayfly policy test`.
#[derive(Args)]
pub struct TestPolicyArgs {
    /// File with the tests, TOML, in the format of docs/policy.md
    #[arg(value_name = "TESTS")]
    tests: PathBuf,
    #[command(flatten)]
    files: PolicyFileArgs,
    /// Directory of `*.toml` registrations [default: those of the server]
    #[arg(long, value_name = "DIR")]
    upstreams: Option<PathBuf>,
    /// Environment whose set is tested if no files are given, and of tests that name no environment
    #[arg(long, value_name = "NAME", required_unless_present = "roles")]
    environment: Option<String>,
}

/// Runs the tests.
pub async fn run(args: TestPolicyArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let text = args::read_text(&args.tests, limits::POLICY_TESTS_BYTES)?;
    let source = SourceFile::new(args.tests.display().to_string(), text.as_str());
    let tests = policy_tests::parse(&source, run.system.wall()).map_err(|wrong| complaints(&wrong))?;
    let here = !args.files.files.is_empty() && args.files.roles.is_some();
    let server = if here && args.upstreams.is_some() { None } else { Some(run.server().await?) };
    let set = match &server {
        Some(server) if !here => fetched(server, &args).await?,
        _ => args.files.compiled()?,
    };
    let upstreams = match (&args.upstreams, &server) {
        (Some(directory), _) => policy_files::upstreams(directory).map_err(|wrong| complaints(&wrong))?,
        (None, Some(server)) => registered(server).await?,
        (None, None) => Registry::default(),
    };
    // The connectors describe what a registration grants; nothing is connected to.
    let connectors = built_in(None, &run.system);
    let mut rows = Vec::with_capacity(tests.len());
    for test in &tests {
        let outcome = outcome(test, &set, (&upstreams, &connectors), args.environment.as_deref())
            .map_err(|what| CliError::Usage(format!("{}:{}: test {:?}: {what}", source.file, test.line, test.name)))?;
        rows.push(PolicyTestView::of(test, &outcome));
    }
    let failed = rows.iter().filter(|row| !row.passed).count();
    run.out.list(&rows)?;
    run.out.say(format_args!("{} passed, {failed} failed", rows.len() - failed));
    Ok(if failed == 0 { Exit::Ok } else { Exit::Findings })
}

fn outcome(
    test: &PolicyTest,
    set: &PolicySet,
    (upstreams, connectors): (&Registry, &UpstreamConnectors),
    environment: Option<&str>,
) -> Result<SimulationOutcome, String> {
    let upstream = match &test.upstream {
        None => None,
        Some(name) => Some(upstreams.get(name).ok_or_else(|| format!("there is no upstream {name}"))?),
    };
    let of_upstream = upstream.map(|u| u.environment.as_str());
    let environment = test.environment.as_deref().or(of_upstream).or(environment);
    let environment = environment.ok_or("name its environment: environment = \"...\"")?;
    Ok(test.situation.outcome(set, environment, upstream.map(|u| &**u), connectors))
}

/// Fetches the set in effect. Local files, if any are given, replace its policies, and its roles if they hold any.
async fn fetched(server: &ApiClient, args: &TestPolicyArgs) -> Result<PolicySet, CliError> {
    let Some(environment) = &args.environment else {
        return Err(CliError::Usage("give --environment NAME: the environment whose roles or policies are tested".to_owned()));
    };
    let set = fetch_set(server, environment, pb::PolicyMode::Enforce).await?;
    let set = set.ok_or_else(|| {
        CliError::Usage(format!("environment {environment} has no policy set; `mayfly status` shows the environments"))
    })?;
    let (own, in_effect) = sources(set.files.as_ref());
    let (policies, roles) = if args.files.files.is_empty() { (own, None) } else { args.files.read()? };
    let roles = roles.unwrap_or(in_effect);
    PolicySet::compile(policies, roles).map_err(|wrong| complaints(&wrong))
}

async fn registered(server: &ApiClient) -> Result<Registry, CliError> {
    let (mut all, mut page_token): (Vec<Upstream>, String) = (Vec::new(), String::new());
    loop {
        let request = pb::ListUpstreamsRequest { page_size: 1_000, page_token, ..Default::default() };
        let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).list_upstreams(q).await }).await?;
        let of_server = |no| CliError::ours(format!("a registration of the server: {no}"));
        for upstream in &answer.upstreams {
            all.push(upstream_from_pb(upstream).map_err(of_server)?);
        }
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Registry::new(all).map_err(|_| CliError::ours("the server returned registrations that contradict each other"))
}
