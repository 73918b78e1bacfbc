//! Undoing a user: the session that makes it is ended, no login any more, its sessions ended, the user deleted, and the absence of both looked
//! up.
//!
//! Each step can be repeated, and each attempt begins with the first: an attempt that was interrupted, or that runs beside another replica's,
//! does no harm. A user that does not exist is undone.

use std::time::Duration;

use redis::Value;

use super::problem::RedisProblem;
use super::session::RedisSession;
use mayfly_base::limits;

/// A user to be undone.
pub struct OldRedisUser<'a> {
    /// The user's name.
    pub name: &'a str,
    /// The ACL user that mayfly logs in as.
    pub admin: &'a str,
}

/// Undoes a user.
pub async fn undo(session: &mut RedisSession, user: &OldRedisUser<'_>) -> Result<(), RedisProblem> {
    // A session of anybody else makes no user, whatever name it takes.
    let makes = |line: &str| has(line, "name", user.name) && has(line, "user", user.admin);
    end(session, user, "ending the session that makes the user", makes, kill_by_id).await?;
    if exists(session, user).await? {
        let step = "ending the logins of the user";
        // No login, password, command or selector, in case that deleting fails, and for the sessions that are open: those of a user that has
        // no rights can do nothing.
        let off = session.run(step, &["ACL", "SETUSER", user.name, "reset", "resetchannels"]).await;
        off.map_err(|p| p.lacking(user.admin, "+acl|setuser"))?;
    }
    let of_user = |line: &str| has(line, "user", user.name);
    // One command ends all sessions: a user may have as many as the server takes.
    let kill_all = |_: &[&str]| vec![vec!["CLIENT".to_owned(), "KILL".to_owned(), "USER".to_owned(), user.name.to_owned()]];
    end(session, user, "ending the sessions of the user", of_user, kill_all).await?;
    let deleted = session.run("deleting the user", &["ACL", "DELUSER", user.name]).await;
    deleted.map_err(|p| p.lacking(user.admin, "+acl|deluser"))?;
    save(session, user).await?;
    end(session, user, "ending the sessions of the user", of_user, kill_all).await
}

/// Whether neither the user nor a session of it exists.
pub async fn is_gone(session: &mut RedisSession, user: &OldRedisUser<'_>) -> Result<bool, RedisProblem> {
    if exists(session, user).await? {
        return Ok(false);
    }
    let all = sessions(session, user, "looking for the sessions of the user").await?;
    Ok(!all.lines().any(|line| has(line, "user", user.name)))
}

async fn exists(session: &mut RedisSession, user: &OldRedisUser<'_>) -> Result<bool, RedisProblem> {
    let found = session.run("looking for the user", &["ACL", "GETUSER", user.name]).await;
    Ok(!matches!(found.map_err(|p| p.lacking(user.admin, "+acl|getuser"))?, Value::Nil))
}

/// Where the server keeps its users in a file, the file loses the user as well: otherwise, somebody else's `ACL SAVE` would have kept it, and a
/// restart would bring it back.
async fn save(session: &mut RedisSession, user: &OldRedisUser<'_>) -> Result<(), RedisProblem> {
    match session.run("saving the users", &["ACL", "SAVE"]).await {
        Err(problem) if problem.says("not configured to use an ACL file") => Ok(()),
        done => done.map(|_| ()).map_err(|p| p.lacking(user.admin, "+acl|save")),
    }
}

async fn sessions(session: &mut RedisSession, user: &OldRedisUser<'_>, step: &'static str) -> Result<String, RedisProblem> {
    let listed = session.run(step, &["CLIENT", "LIST"]).await.map_err(|p| p.lacking(user.admin, "+client|list"))?;
    match listed {
        Value::BulkString(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Value::VerbatimString { text, .. } => Ok(text),
        _ => Err(RedisProblem::new(step, "the server's list of sessions is no text")),
    }
}

/// Whether a line of the list of sessions has this value of a field. Values have no spaces.
fn has(line: &str, field: &str, value: &str) -> bool {
    line.split(' ').any(|part| part.split_once('=') == Some((field, value)))
}

/// The commands that end sessions one by one, by their lines in the list.
fn kill_by_id(lines: &[&str]) -> Vec<Vec<String>> {
    let ids = lines.iter().filter_map(|line| line.split(' ').find_map(|part| part.strip_prefix("id=")));
    ids.map(|id| ["CLIENT", "KILL", "ID", id].map(str::to_owned).to_vec()).collect()
}

/// Ends sessions, and looks until there are none. `kill`: the commands for some lines of the list.
async fn end(
    session: &mut RedisSession,
    user: &OldRedisUser<'_>,
    step: &'static str,
    of: impl Fn(&str) -> bool,
    kill: impl Fn(&[&str]) -> Vec<Vec<String>>,
) -> Result<(), RedisProblem> {
    for _ in 0..limits::REDIS_SESSIONS_LOOKS {
        let all = sessions(session, user, step).await?;
        let found: Vec<&str> = all.lines().filter(|line| of(line)).collect();
        if found.is_empty() {
            return Ok(());
        }
        for command in kill(&found) {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let killed = session.run(step, &words).await;
            killed.map_err(|p| p.lacking(user.admin, "+client|kill"))?;
        }
        tokio::time::sleep(Duration::from_millis(limits::REDIS_SESSIONS_LOOK_MS)).await;
    }
    let ms = limits::REDIS_SESSIONS_LOOK_MS * u64::from(limits::REDIS_SESSIONS_LOOKS);
    Err(RedisProblem::new(step, format!("a session of {} has not ended after {ms} ms", user.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_of_the_user_that_its_line_names() {
        let line = "id=7 addr=127.0.0.1:50 laddr=127.0.0.1:6379 fd=9 name=mayfly_b age=0 user=mayfly_a lib-name= resp=2";
        assert!(has(line, "user", "mayfly_a") && has(line, "name", "mayfly_b"));
        assert!(!has(line, "user", "mayfly_b") && !has(line, "user", "mayfly") && !has(line, "name", "mayfly_a"));
    }
}
