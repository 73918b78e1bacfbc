//! The variables of an AWS session: those that the SDKs and the command line of AWS read, and the JSON of a `credential_process`.

use zeroize::Zeroizing;

use super::super::show::issued::IssuedAnswerView;

/// Variables that would give the program another identity, or send it elsewhere for one. The program does not inherit them.
pub(super) const NOT_INHERITED: &[&str] = &[
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_SECURITY_TOKEN",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CREDENTIAL_EXPIRATION",
];

/// A session of a role, as variables.
pub(super) struct SessionVariables {
    /// The JSON that a `credential_process` prints.
    pub json: Zeroizing<String>,
    /// The variables of the SDKs.
    pub sdk: Vec<(&'static str, Zeroizing<String>)>,
}

/// The variables of an AWS session. `None` for other credentials. `ends_at`: when the credential ends, RFC 3339.
pub(super) fn variables(answer: &IssuedAnswerView, ends_at: &str) -> Option<SessionVariables> {
    let IssuedAnswerView::AwsKeys { access_key_id, secret_access_key, session_token, region } = answer else { return None };
    // The parts are ASCII without quotes, as AWS makes them; serde_json is for what a server could send instead.
    let text = |value: &str| Zeroizing::new(serde_json::Value::from(value).to_string());
    let json = Zeroizing::new(format!(
        "{{\"Version\":1,\"AccessKeyId\":{},\"SecretAccessKey\":{},\"SessionToken\":{},\"Expiration\":{}}}",
        *text(access_key_id),
        *text(secret_access_key.expose()),
        *text(session_token.expose()),
        *text(ends_at)
    ));
    let mut sdk: Vec<(&'static str, &str)> = vec![
        ("AWS_ACCESS_KEY_ID", access_key_id),
        ("AWS_SECRET_ACCESS_KEY", secret_access_key.expose()),
        ("AWS_SESSION_TOKEN", session_token.expose()),
    ];
    if !region.is_empty() {
        sdk.extend([("AWS_REGION", region.as_str()), ("AWS_DEFAULT_REGION", region.as_str())]);
    }
    Some(SessionVariables { json, sdk: sdk.into_iter().map(|(name, value)| (name, Zeroizing::new(value.to_owned()))).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::issued::SecretText;

    #[test]
    fn a_session_is_told_to_sdks_and_as_json() {
        let answer = IssuedAnswerView::AwsKeys {
            access_key_id: "ASIA1".into(),
            secret_access_key: SecretText::new("se\"cret".to_owned()),
            session_token: SecretText::new("token".to_owned()),
            region: "eu-central-1".into(),
        };
        let all = variables(&answer, "2026-11-27T01:00:00Z").unwrap();
        let json: serde_json::Value = serde_json::from_str(&all.json).unwrap();
        assert_eq!((&json["SecretAccessKey"], &json["Expiration"]), (&"se\"cret".into(), &"2026-11-27T01:00:00Z".into()));
        let names: Vec<&str> = all.sdk.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"]
        );
        assert!(names.iter().all(|name| !NOT_INHERITED.contains(name)));
    }
}
