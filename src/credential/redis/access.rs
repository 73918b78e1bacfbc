//! The access that a user of a credential has.

use super::settings::{RedisSettings, place};
use crate::database::access::at;
use mayfly_ledger::upstream::access::{AccessError, AccessLevel, AccessQuery, GrantedAccess};

/// Commands that read, or that are for the session itself. Any other command by its name is unknown, since modules add commands.
const READING: &[&str] = &[
    "bitcount",
    "bitpos",
    "dbsize",
    "echo",
    "exists",
    "expiretime",
    "get",
    "getbit",
    "getrange",
    "hello",
    "hexists",
    "hget",
    "hgetall",
    "hkeys",
    "hlen",
    "hmget",
    "hscan",
    "hstrlen",
    "hvals",
    "keys",
    "lindex",
    "llen",
    "lpos",
    "lrange",
    "mget",
    "pexpiretime",
    "ping",
    "psubscribe",
    "pttl",
    "punsubscribe",
    "quit",
    "scan",
    "scard",
    "sdiff",
    "select",
    "sinter",
    "sismember",
    "smembers",
    "smismember",
    "srandmember",
    "sscan",
    "ssubscribe",
    "strlen",
    "subscribe",
    "sunion",
    "sunsubscribe",
    "ttl",
    "type",
    "unsubscribe",
    "xlen",
    "xrange",
    "xread",
    "xrevrange",
    "zcard",
    "zcount",
    "zmscore",
    "zrange",
    "zrank",
    "zrevrank",
    "zscan",
    "zscore",
];

/// Commands that write.
const WRITING: &[&str] = &[
    "append", "copy", "decr", "decrby", "del", "expire", "expireat", "getdel", "getex", "getset", "hdel", "hincrby", "hset",
    "hsetnx", "incr", "incrby", "linsert", "lmove", "lpop", "lpush", "lrem", "lset", "ltrim", "mset", "msetnx", "persist",
    "pexpire", "psetex", "publish", "rename", "renamenx", "rpop", "rpush", "sadd", "set", "setex", "setnx", "setrange", "smove",
    "spop", "spublish", "srem", "unlink", "xack", "xadd", "xdel", "xtrim", "zadd", "zincrby", "zrem",
];

/// The access that the grants of the scopes give.
pub fn describe(query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
    let settings: RedisSettings = query.settings()?;
    let mut access = at(query, place)?;
    for grant in settings.granted(query.scopes)? {
        let sorts = [
            ("keys", &grant.keys),
            ("read_keys", &grant.read_keys),
            ("write_keys", &grant.write_keys),
            ("channels", &grant.channels),
        ];
        let objects: Vec<String> = sorts
            .into_iter()
            .flat_map(|(sort, patterns)| patterns.iter().map(move |pattern| format!("{sort} {pattern}")))
            .collect();
        for command in &grant.commands {
            access.levels.insert(level(command));
            // A command of a category may need neither key nor channel.
            access.grants.extend(objects.iter().map(|object| format!("{command} on {object}")));
            if objects.is_empty() {
                access.grants.insert(command.clone());
            }
        }
        access.privileges.extend(grant.commands.iter().cloned());
        access.objects.extend(objects);
    }
    Ok(access)
}

/// The level of access that a command or a category gives.
fn level(command: &str) -> AccessLevel {
    match command {
        "@read" => AccessLevel::Read,
        "@write" => AccessLevel::Write,
        "@scripting" | "eval" | "evalsha" | "eval_ro" | "evalsha_ro" | "fcall" | "fcall_ro" => AccessLevel::Execute,
        command if READING.contains(&command) => AccessLevel::Read,
        command if WRITING.contains(&command) => AccessLevel::Write,
        _ => AccessLevel::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_read_is_not_taken_for_reading() {
        for command in ["@read", "get", "hgetall"] {
            assert_eq!(level(command), AccessLevel::Read, "{command}");
        }
        for command in ["@write", "set", "publish", "getdel", "getex"] {
            assert_eq!(level(command), AccessLevel::Write, "{command}");
        }
        // `sort` and `georadius` have STORE; a category like @keyspace has both sorts of commands.
        for command in ["@fast", "@keyspace", "@pubsub", "sort", "georadius", "client|setname", "ft.search"] {
            assert_eq!(level(command), AccessLevel::Unknown, "{command}");
        }
        assert_eq!(level("eval_ro"), AccessLevel::Execute);
        assert!(READING.iter().all(|command| !WRITING.contains(command)));
    }
}
