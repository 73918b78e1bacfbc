//! Converts the configuration into the settings of other modules.

use std::time::Duration;

use super::{engine, webhook};
use mayfly_authority::admission::rate_limits::CallerRates;
use mayfly_authority::authority::AuthorityLimits;
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_base::trace;
use mayfly_config::config::Config;
use mayfly_credential::connector::UpstreamConnectors;
use mayfly_credential::connectors;
use mayfly_credential::lease::{ConnectorSettings, LeaseConcurrency, LeaseTiming};
use mayfly_ledger::{LedgerSettings, Quotas};

/// The settings of the ledger.
pub(super) fn settings(config: &Config) -> LedgerSettings {
    LedgerSettings {
        snapshots: engine::snapshots(config),
        history: engine::history(config),
        index_block: limits::INDEX_BLOCK_BYTES,
        export: config.audit_export.is_some(),
        followed: config.webhooks.iter().map(|w| webhook::value_name(&w.name)).collect(),
        gather_records: config.ledger.gather_records,
        gather_wait: Duration::from_millis(config.ledger.gather_wait_ms),
        skew_ms: config.ledger.skew_ms,
        snapshot_every: config.ledger.snapshot_every,
        keep: Some(config.audit_keep),
        ceilings: Quotas {
            tasks: config.limits.tasks,
            tasks_per_caller: config.limits.tasks_per_caller,
            credentials: config.limits.credentials,
            credentials_per_caller: config.limits.credentials_per_caller,
            task_bytes: config.limits.task_bytes,
            task_bytes_per_caller: config.limits.task_bytes_per_caller,
            request_ids: config.limits.request_ids,
            request_ids_per_caller: config.limits.request_ids_per_caller,
        },
    }
}

/// The limits of the authority.
pub(super) fn bounds(config: &Config) -> AuthorityLimits {
    AuthorityLimits {
        rules: config.limits.rules,
        rules_per_caller: config.limits.rules_per_caller,
        rates: CallerRates {
            changes: config.limits.changes_per_second,
            holds: config.limits.holds_per_second,
            heartbeats: config.limits.heartbeats_per_second,
        },
        followers: config.limits.followers,
        followers_per_caller: config.limits.followers_per_caller,
        deciding: config.server.workers.unwrap_or(AuthorityLimits::default().deciding),
        stream_in_flight: config.limits.stream_in_flight,
        view_max_age_ms: config.ledger.view_max_age_ms,
        svid_max_ttl_ms: config.svid_max_ttl_ms,
    }
}

/// The settings of traces and of logged calls.
pub(super) fn trace_settings(config: &Config) -> trace::TracerSettings {
    let to = config.traces.as_ref();
    trace::TracerSettings {
        traces: to.is_some(),
        per_million: to.map_or(0, |traces| traces.per_million),
        per_second: to.map_or(0, |traces| traces.per_second),
        log_calls: config.log.calls,
    }
}

/// The connectors of this build, as configured.
pub(super) fn built_in_connectors(config: &Config, system: &System) -> ConnectorSettings {
    connector_settings(config, connectors::built_in(config.upstream_secrets_dir.clone(), system))
}

/// The configured timing and limits of upstream leases, for these connectors.
pub fn connector_settings(config: &Config, remotes: UpstreamConnectors) -> ConnectorSettings {
    let timing = LeaseTiming {
        make_ms: config.leases.make_timeout_ms,
        call_ms: config.leases.undo_timeout_ms,
        left_ms: config.leases.left_behind_ms,
        retry_min_ms: config.leases.retry_min_ms,
        retry_max_ms: config.leases.retry_max_ms,
        ..LeaseTiming::default()
    };
    let places = LeaseConcurrency {
        making: config.limits.leases_making,
        making_per_upstream: config.limits.leases_making_per_upstream,
        making_per_batch: config.limits.leases_making_per_batch,
        undoing: config.limits.leases_undoing,
        undoing_per_upstream: config.limits.leases_undoing_per_upstream,
    };
    ConnectorSettings { remotes, timing, places, issuer: config.server.issuer.clone() }
}
