//! Making a user with exactly what the scopes grant, in one command.
//!
//! Rules of an ACL are words of a command, which the driver sends with their lengths; within a word, names are of the closed alphabets of
//! [`super::settings`].

use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::problem::RedisProblem;
use super::session::RedisSession;
use super::settings::RedisSettings;
use crate::database::problem::NotMade;

/// A user to be made.
pub struct NewRedisUser<'a> {
    /// The user's name.
    pub name: &'a str,
    /// The user's password. Only its SHA-256 is sent: it is random with 256 bits, so that a fast hash gives nothing away.
    pub password: &'a str,
}

/// The largest number of a session, which none has.
const NO_SESSION: &str = "9223372036854775807";

/// Makes the user. Either it exists afterwards with all that the scopes grant, or there is none.
pub async fn make(
    session: &mut RedisSession,
    settings: &RedisSettings,
    scopes: &[String],
    user: &NewRedisUser<'_>,
) -> Result<(), NotMade<String>> {
    let grants = settings.granted(scopes).map_err(|no| RedisProblem::new("reading the registration", no))?;
    let admin = settings.admin.as_str();
    // Undoing finds the session by this name, and ends it: so no command of making comes later.
    let named = session.run("naming mayfly's session", &["CLIENT", "SETNAME", user.name]).await;
    named.map_err(|p| p.lacking(admin, "+client|setname"))?;
    can_undo(session, admin, user.name).await?;
    let hash = Zeroizing::new(data_encoding::HEXLOWER.encode(digest(&SHA256, user.password.as_bytes()).as_ref()));
    let password = Zeroizing::new(format!("#{}", *hash));
    let selectors: Vec<String> = grants.iter().map(|grant| grant.selector()).collect();
    let mut words = vec!["ACL", "SETUSER", user.name, "reset", "on", password.as_str(), "resetchannels", "-@all", "+ping"];
    words.extend(selectors.iter().map(String::as_str));
    session.run("creating a user", &words).await.map(|_| ()).map_err(|problem| {
        let unknown = !problem.is_answer();
        let problem = match () {
            // The server quotes the rule that it refuses. It quotes no other, and the password's hash it does not refuse.
            () if problem.says("Error in ACL SETUSER modifier") => {
                problem.mended_by("Redis 7.0 or later, which has selectors, and commands and categories that it knows".to_owned())
            }
            () => problem.lacking(admin, "+acl|setuser"),
        };
        NotMade { problem, unknown }
    })
}

/// A user is not made that mayfly could not undo: each command of undoing is run without an effect.
async fn can_undo(session: &mut RedisSession, admin: &str, name: &str) -> Result<(), RedisProblem> {
    let step = "looking at mayfly's own permissions";
    for (words, rule) in [
        (&["ACL", "GETUSER", name][..], "+acl|getuser"),
        (&["ACL", "DELUSER", name], "+acl|deluser"),
        (&["CLIENT", "KILL", "ID", NO_SESSION], "+client|kill"),
        (&["CLIENT", "LIST", "TYPE", "master"], "+client|list"),
    ] {
        session.run(step, words).await.map_err(|p| p.lacking(admin, rule))?;
    }
    Ok(())
}
