//! The section `[redis]` of a registration.
//!
//! The section is kept in the ledger as JSON of the same shape. What undoing needs of it is written into the terms of each lease.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::address::UpstreamAddress;
use crate::database::access::granted;
use crate::database::settings::{fits, grants, is_false};
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;
use mayfly_ledger::upstream::file::each;
use mayfly_ledger::upstream::settings::SettingsContext;

/// The port of Redis.
pub const PORT: u16 = 6379;

/// The section, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    /// The ACL user that mayfly logs in as.
    pub admin: String,
    /// The server takes no TLS: on loopback only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub plaintext: bool,
    /// The grants of the scopes.
    pub grants: Vec<CommandGrant>,
}

/// An entry of `grants`: these commands, on these keys and channels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandGrant {
    /// The scope that grants the commands.
    pub scope: String,
    /// Commands, commands with a subcommand (`xinfo|stream`), and categories (`@read`).
    pub commands: Vec<String>,
    /// Patterns of keys for reading and writing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Patterns of keys for reading.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_keys: Vec<String>,
    /// Patterns of keys for writing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub write_keys: Vec<String>,
    /// Patterns of channels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
}

impl RedisSettings {
    /// The grants of some scopes: what a user gets, and what policy sees.
    pub fn granted(&self, scopes: &[String]) -> Result<Vec<&CommandGrant>, String> {
        granted(&self.grants, scopes, |grant| &grant.scope)
    }
}

/// Commands that no credential gets, whatever a category has: they make logins or code that outlive the credential, change the server, or hand
/// out its data as a whole. All of them exist since Redis 7.0.
pub const NEVER: &[&str] = &[
    "acl",
    "bgrewriteaof",
    "bgsave",
    "client|kill",
    "client|list",
    "client|no-evict",
    "client|pause",
    "client|unpause",
    "cluster",
    "config",
    "debug",
    "failover",
    "function|delete",
    "function|flush",
    "function|load",
    "function|restore",
    "latency",
    "migrate",
    "module",
    "monitor",
    "psync",
    "replconf",
    "replicaof",
    "save",
    "script|flush",
    "script|kill",
    "shutdown",
    "slaveof",
    "slowlog",
    "sync",
];

/// Categories that no credential gets.
const NEVER_CATEGORIES: [&str; 3] = ["@admin", "@all", "@dangerous"];

impl CommandGrant {
    /// The grant as a selector of an ACL: it applies as a whole, so that the commands of one grant do not reach the keys of another.
    pub fn selector(&self) -> String {
        let (categories, commands): (Vec<&String>, Vec<&String>) = self.commands.iter().partition(|c| c.starts_with('@'));
        let mut rules: Vec<String> = Vec::new();
        let sorts = [("~", &self.keys), ("%R~", &self.read_keys), ("%W~", &self.write_keys), ("&", &self.channels)];
        rules.extend(
            sorts.into_iter().flat_map(|(sign, patterns)| patterns.iter().map(move |pattern| format!("{sign}{pattern}"))),
        );
        rules.extend(categories.iter().map(|category| format!("+{category}")));
        // A category has commands that no pattern of keys restricts, like FLUSHALL in @write.
        rules.extend(["-@dangerous", "-@admin"].map(str::to_owned));
        rules.extend(commands.iter().map(|command| format!("+{command}")));
        rules.extend(NEVER.iter().map(|command| format!("-{command}")));
        format!("({})", rules.join(" "))
    }
}

/// The terms of a lease: the settings that undoing a user needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisTerms {
    /// The target of the registration.
    pub target: String,
    /// As [`RedisSettings::admin`].
    pub admin: String,
    /// As [`RedisSettings::plaintext`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub plaintext: bool,
}

/// Address of a target, and the number of its database, which the login names: `redis://HOST:PORT` or `redis://HOST:PORT/NUMBER`.
pub fn place(target: &str) -> Option<(UpstreamAddress, &str)> {
    let rest = target.strip_prefix("redis://")?;
    let number = rest.split_once('/').map_or("0", |(_, number)| number);
    let whole = (1..=5).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    Some((UpstreamAddress::of(target, PORT)?, number)).filter(|_| whole)
}

/// Reads the section.
pub fn read(section: &Section<'_>, around: &SettingsContext<'_>) -> Option<Value> {
    let admin = section.required("admin").and_then(|f| admin(&f));
    let plaintext_field = section.optional("plaintext");
    let plaintext = plaintext_field.as_ref().map_or(Some(false), Field::boolean);
    let field = section.required("grants");
    let grants = field.as_ref().and_then(|field| grants(field, grant));
    let granted: Option<Vec<&str>> = grants.as_ref().map(|all| all.iter().map(|g| g.scope.as_str()).collect());
    let place = |target: &str| place(target).map(|(address, _)| address);
    let tls = (plaintext_field.as_ref(), plaintext);
    fits(around, field.as_ref(), granted.as_deref(), place, "redis://HOST:PORT", tls)?;
    let settings = RedisSettings { admin: admin?, plaintext: plaintext?, grants: grants? };
    serde_json::to_value(settings).ok()
}

/// A name of a user, as ACL files can have it.
fn admin(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::REDIS_USER_BYTES)?;
    match !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) {
        true => Some(text),
        false => field.wrong("is no name of an ACL user", "a name without spaces"),
    }
}

fn grant(section: &Section<'_>) -> Option<CommandGrant> {
    let scope = section.required("scope").and_then(|f| f.text(limits::NAME_BYTES));
    let commands = section.required("commands").and_then(|field| each(&field, 1, command));
    let patterns = |key: &str| section.optional(key).map_or_else(|| Some(Vec::new()), |field| each(&field, 1, pattern));
    let [keys, read_keys, write_keys, channels] = ["keys", "read_keys", "write_keys", "channels"].map(patterns);
    Some(CommandGrant {
        scope: scope?,
        commands: commands?,
        keys: keys?,
        read_keys: read_keys?,
        write_keys: write_keys?,
        channels: channels?,
    })
}

/// A command, a command with a subcommand, or a category.
fn command(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::REDIS_RULE_BYTES)?;
    let word = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
    };
    let (name, whole) = match text.split_once('|') {
        Some((name, sub)) => (name, word(name) && word(sub)),
        None => (text.as_str(), word(text.strip_prefix('@').unwrap_or(&text))),
    };
    // `client` and `function` as a whole have subcommands that nobody gets; naming the others one by one is clearer than a silent gap.
    let parts = |never: &&str| *never == text || *never == name || never.split_once('|').is_some_and(|(all, _)| all == text);
    let never = NEVER.iter().any(parts) || NEVER_CATEGORIES.contains(&text.as_str());
    match (whole, never) {
        (false, _) => field
            .wrong("is no command", "a command (get), one with a subcommand (xinfo|stream) or a category (@read), in lower case"),
        (true, true) => field.wrong(
            format!("grants {text}, by which a credential could outlive its end or change the server"),
            "name the commands that are needed",
        ),
        (true, false) => Some(text),
    }
}

/// A pattern of keys or channels. The alphabet is closed, because patterns stand in rules of an ACL, which spaces and parentheses separate.
fn pattern(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::REDIS_RULE_BYTES)?;
    match !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"()\"'\\".contains(&b)) {
        true => Some(text),
        false => {
            field.wrong("is no pattern", "printable ASCII without spaces, parentheses, quotes and backslashes, like orders:*")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::registration::{comes_back, each_is_told, parse};

    const WHOLE: &str = include_str!("template.toml");

    #[test]
    fn the_section_comes_back_from_the_ledger_and_from_its_own_json() {
        let upstream = parse(WHOLE).unwrap();
        let section = upstream.settings.of("redis").unwrap();
        let settings: RedisSettings = serde_json::from_value(section.clone()).unwrap();
        assert_eq!((settings.admin.as_str(), settings.plaintext), ("mayfly", false));
        comes_back(&upstream, WHOLE, "redis");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        each_is_told(
            WHOLE,
            &[
                ("admin = \"mayfly\"", "", "lacks redis.admin"),
                ("admin = \"mayfly\"", "admin = \"may fly\"", "redis.admin is no name"),
                (
                    "admin = \"mayfly\"",
                    "admin = \"mayfly\"\nplaintext = true",
                    "redis.plaintext is for a database on this host only",
                ),
                ("\"@read\"", "\"@all\"", "commands[0] grants @all"),
                ("\"@read\"", "\"acl\"", "commands[0] grants acl"),
                ("\"@read\"", "\"acl|setuser\"", "commands[0] grants acl|setuser"),
                ("\"@read\"", "\"client\"", "commands[0] grants client"),
                ("\"@read\"", "\"function|load\"", "commands[0] grants function|load"),
                ("\"@read\"", "\"GET\"", "commands[0] is no command"),
                ("\"@read\"", "\"get) ~*\"", "commands[0] is no command"),
                ("read_keys = [\"cart:*\"]", "read_keys = [\"cart:* ~*\"]", "read_keys[0] is no pattern"),
                ("read_keys = [\"cart:*\"]", "read_keys = [\"cart:*)\"]", "read_keys[0] is no pattern"),
                ("scope = \"cart:write\"", "scope = \"cart:erase\"", "which is not in scopes"),
                ("target = \"redis://cache.example.org\"", "target = \"redis://cache.example.org/x\"", "redis://HOST:PORT"),
                ("target = \"redis://cache.example.org\"", "target = \"rediss://cache.example.org\"", "redis://HOST:PORT"),
            ],
        );
    }

    #[test]
    fn a_selector_has_what_is_granted_and_then_what_nobody_gets() {
        let grant = CommandGrant {
            scope: "s".to_owned(),
            commands: vec!["flushdb".to_owned(), "@write".to_owned()],
            keys: vec!["a:*".to_owned()],
            read_keys: vec!["b".to_owned()],
            write_keys: vec!["c".to_owned()],
            channels: vec!["d".to_owned()],
        };
        let selector = grant.selector();
        assert!(selector.starts_with("(~a:* %R~b %W~c &d +@write -@dangerous -@admin +flushdb -acl "), "{selector}");
        assert!(selector.ends_with(" -sync)"), "{selector}");
    }

    #[test]
    fn address_and_number_are_those_of_the_target() {
        let of = |target| place(target).map(|(at, number)| (at.host, at.port, number.to_owned()));
        assert_eq!(of("redis://cache.example"), Some(("cache.example".into(), 6379, "0".into())));
        assert_eq!(of("redis://[::1]:6380/3"), Some(("::1".into(), 6380, "3".into())));
        for wrong in ["redis://cache.example/", "redis://cache.example/a", "redis://cache.example/1/2", "mysql://cache.example/1"]
        {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
