//! Checks files that are needed only when an event occurs, so that an unreadable secret is reported now, and not when the first event of an
//! incident cannot be delivered.

use mayfly_authority::authority::Authority;
use mayfly_authority::source_health::SourceKind;
use mayfly_base::document::terminal_text::one_line;
use mayfly_config::config::Config;
use mayfly_config::https::HttpsClient;
use mayfly_config::webhook_files::secrets;

/// Checks all of these files once. Blocks while files are read.
pub(super) fn check(authority: &Authority, config: &Config) {
    let told = |kind, name: &str, place, read| report_source(authority, (kind, name), place, read);
    let roots =
        |ca: Option<&std::path::Path>| HttpsClient::new(ca, &authority.system).map(drop).map_err(|problem| problem.to_string());
    authority.source_health.retain(SourceKind::Webhook, |name| config.webhooks.iter().any(|hook| hook.name == name));
    for hook in &config.webhooks {
        let secret = secrets(&hook.secret_file).map(drop).map_err(|problem| problem.to_string());
        let place = match (&secret, &hook.ca) {
            (Ok(()), Some(ca)) => ca,
            _ => &hook.secret_file,
        };
        told(SourceKind::Webhook, &hook.name, place.display().to_string(), secret.and_then(|()| roots(hook.ca.as_deref())));
    }
    authority.source_health.retain(SourceKind::Traces, |_| config.traces.is_some());
    if let Some(traces) = &config.traces {
        let place = traces.to.ca.as_ref().map_or_else(|| "the roots of the system".to_owned(), |ca| ca.display().to_string());
        told(SourceKind::Traces, "", place, roots(traces.to.ca.as_deref()));
    }
}

/// Notes whether a source could be read, and logs a problem that is new.
pub(super) fn report_source(authority: &Authority, (kind, name): (SourceKind, &str), place: String, read: Result<(), String>) {
    match read {
        Ok(()) => drop(authority.source_health.readable(kind, name, &place)),
        Err(problem) => {
            if authority.source_health.unreadable(kind, name, &place, &problem, authority.system.shown()) {
                tracing::error!(
                    source = kind.as_str(),
                    name,
                    place,
                    problem = one_line(&problem),
                    meanwhile = kind.meanwhile(),
                    "a source cannot be read"
                );
            }
        }
    }
}
