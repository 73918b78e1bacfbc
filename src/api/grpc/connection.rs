//! UpstreamService: upstreams that people connect by signing in at their authorization server.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::super::wire;
use super::request_checks;
use mayfly_authority::authority::Authority;
use mayfly_authority::tasks::Actor;
use mayfly_base::document::url::WebUrl;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_credential::sign_in::{ConnectionState, Disconnected, SignInProgress, SignInWay, UpstreamConnection};
use mayfly_policy::exchange_request;
use mayfly_proto::mayfly::v1 as pb;

/// A redirect to the operator's own machine (RFC 8252, section 7.3): an address, so that no name resolution can lead elsewhere.
fn redirect(text: &str) -> Result<SignInWay, Error> {
    if text.is_empty() {
        return Ok(SignInWay::Device);
    }
    let own = WebUrl::parse(text).filter(|url| !url.https && url.host != "localhost" && text.len() <= limits::NAME_BYTES);
    match own {
        Some(_) => Ok(SignInWay::Browser { redirect_uri: text.to_owned() }),
        None => Err(Refusal::field("redirect_uri", "is http on a loopback address: http://127.0.0.1:PORT/callback").into()),
    }
}

pub(super) async fn connect(
    authority: &Arc<Authority>,
    actor: &Actor,
    ask: &pb::ConnectUpstreamRequest,
) -> Result<pb::ConnectUpstreamResponse, Error> {
    let operator = request_checks::operator(actor)?;
    let name = exchange_request::name("upstream", &ask.upstream)?;
    let prompt = authority.connect_upstream(operator, &name, redirect(&ask.redirect_uri)?).await?;
    Ok(pb::ConnectUpstreamResponse {
        connection_id: prompt.id,
        url: prompt.url,
        user_code: prompt.user_code,
        interval: (prompt.interval > 0).then(|| wire::duration(prompt.interval.saturating_mul(1000))),
        issuer: prompt.issuer,
        state: prompt.state,
    })
}

pub(super) async fn complete(
    authority: &Arc<Authority>,
    actor: &Actor,
    ask: pb::CompleteConnectionRequest,
) -> Result<pb::CompleteConnectionResponse, Error> {
    let operator = request_checks::operator(actor)?;
    let code = Zeroizing::new(ask.code);
    if ask.connection_id.len() > limits::NAME_BYTES || code.len() > limits::OAUTH_TOKEN_BYTES {
        return Err(Refusal::field("connection_id", "or code is longer than any of this server").into());
    }
    let code = Some(code).filter(|code| !code.is_empty());
    Ok(match authority.complete_connection(operator, &ask.connection_id, code).await? {
        SignInProgress::Connected => pb::CompleteConnectionResponse { connected: true, retry_after: None },
        SignInProgress::Pending(seconds) => {
            pb::CompleteConnectionResponse { connected: false, retry_after: Some(wire::duration(seconds.saturating_mul(1000))) }
        }
    })
}

pub(super) async fn disconnect(
    authority: &Arc<Authority>,
    actor: &Actor,
    ask: &pb::DisconnectUpstreamRequest,
) -> Result<pb::DisconnectUpstreamResponse, Error> {
    let operator = request_checks::operator(actor)?;
    let name = exchange_request::name("upstream", &ask.upstream)?;
    Ok(match authority.disconnect_upstream(operator, &name).await? {
        Disconnected::Revoked => pb::DisconnectUpstreamResponse { revoked: true, detail: String::new() },
        Disconnected::Forgotten(detail) => pb::DisconnectUpstreamResponse { revoked: true, detail },
        Disconnected::Later(detail) => pb::DisconnectUpstreamResponse { revoked: false, detail },
    })
}

pub(super) fn to_pb(connection: UpstreamConnection) -> pb::UpstreamConnection {
    let state = match connection.state {
        ConnectionState::None => pb::ConnectionState::None,
        ConnectionState::Connected => pb::ConnectionState::Connected,
        ConnectionState::SignInAgain => pb::ConnectionState::SignInAgain,
        ConnectionState::Ending => pb::ConnectionState::Ending,
    };
    let time = |at: mayfly_verify::seq::Millis| (at.0 > 0).then(|| wire::timestamp(at));
    pb::UpstreamConnection {
        state: state.into(),
        connected_at: time(connection.connected_at),
        connected_by: connection.connected_by,
        refreshed_at: time(connection.refreshed_at),
        last_error: connection.trouble,
        failing_since: time(connection.trouble_since),
    }
}
