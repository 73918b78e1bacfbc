//! Limits of connectors: how mayfly reaches the upstreams whose credentials they make.

/// Longest time to resolve an upstream's name, connect to it, and finish TLS and login, milliseconds. A quarter of `LEASE_MAKE_MS`: what
/// remains is for making the credential.
pub const UPSTREAM_CONNECT_MS: u64 = 5_000;
/// Addresses of one upstream's name that are tried, in the order in which the resolver returns them. A name with more has a fault, or is of
/// somebody who wants many connections.
pub const UPSTREAM_ADDRESSES: usize = 8;
/// Largest file with an upstream's secret, bytes. A PEM private key of RSA-8192 has 6.4 KB.
pub const UPSTREAM_SECRET_FILE_BYTES: usize = 16 * 1024;
/// Largest file with the roots of one upstream, bytes: some hundred certificates. The system's own roots are `CA_FILE_BYTES` at most.
pub const UPSTREAM_ROOTS_FILE_BYTES: usize = 256 * 1024;
/// Longest secret of an upstream, bytes. A PEM private key of RSA-4096 has 3.3 KB.
pub const UPSTREAM_SECRET_BYTES: usize = 8 * 1024;
/// Longest text with the terms of a lease, bytes: an address and a few names.
pub const LEASE_TERMS_BYTES: usize = 2 * 1024;
/// Longest time of one HTTPS request to an upstream after connecting, until its answer is complete, milliseconds. Together with
/// `UPSTREAM_CONNECT_MS` twice, for connecting and for TLS, below `LEASE_MAKE_MS`: a call ends by itself before the lease gives up on it.
pub const UPSTREAM_CALL_MS: u64 = 9_000;
/// Largest body of an upstream's answer to an HTTPS request, bytes. A token has some KB; a list of 100 repositories at GitHub has 700 KB, and
/// connectors that read lists ask for fewer entries.
pub const UPSTREAM_ANSWER_BYTES: usize = 256 * 1024;
/// Largest body of an HTTPS request to an upstream, bytes: an assertion with its certificates, or 500 repositories.
pub const UPSTREAM_REQUEST_BYTES: usize = 32 * 1024;
/// Longest text of an upstream in an error, characters. Two fit into `LEASE_DETAIL_BYTES`.
pub const UPSTREAM_TOLD_CHARACTERS: usize = 240;

/// Calls in a row without an answer after which exchanges for an upstream are refused at once. One that is restarted leaves fewer.
pub const UPSTREAM_FAILURES: u32 = 5;
/// First pause after that until one exchange is let through, milliseconds. Pauses double, with jitter.
pub const UPSTREAM_PAUSE_MIN_MS: u64 = 1_000;
/// Longest such pause before jitter, which at most doubles it, milliseconds: an upstream that answers again is used again within a minute.
pub const UPSTREAM_PAUSE_MAX_MS: u64 = 30_000;

/// Entries of `grants` in the registration of a database.
pub const DATABASE_GRANTS: usize = 64;
/// Sessions of one credential, where the registration of a database names no number: one for the program, and some for a pool.
pub const DATABASE_CONNECTIONS: u64 = 4;
/// Most sessions of one credential. As `max_connections` of PostgreSQL by default, 100; MySQL allows 151.
pub const DATABASE_CONNECTIONS_MOST: u64 = 100;

/// Longest time of one statement at PostgreSQL, milliseconds. Four fit into `LEASE_MAKE_MS`.
pub const POSTGRES_STATEMENT_MS: u64 = 5_000;
/// Longest wait for a lock at PostgreSQL, milliseconds. Below `POSTGRES_STATEMENT_MS`, so that the error names the lock.
pub const POSTGRES_LOCK_MS: u64 = 3_000;
/// Longest pause between two statements of a transaction at PostgreSQL, milliseconds. PostgreSQL ends a session that pauses for longer: a
/// COMMIT that arrives later than that has no effect.
pub const POSTGRES_IDLE_MS: u64 = 3_000;
/// Pause between two looks at the sessions of a role that is being dropped, milliseconds. PostgreSQL ends a session within a few.
pub const POSTGRES_SESSIONS_LOOK_MS: u64 = 50;
/// Looks at the sessions of a role that is being dropped, in one attempt: 5 s. The lease is tried again after that.
pub const POSTGRES_SESSIONS_LOOKS: u32 = 100;
/// Longest identifier of PostgreSQL, bytes: `NAMEDATALEN` - 1.
pub const POSTGRES_NAME_BYTES: usize = 63;
/// Longest name of a table or signature of a function in a registration, bytes: a schema, a name, quotes, and some argument types.
pub const POSTGRES_OBJECT_BYTES: usize = 512;
/// Databases whose turns are remembered, as long as nobody waits for them. More databases than one server of mayfly has.
pub const POSTGRES_TURNS: usize = 1_024;
/// Large objects of a role that one statement drops. Each takes a place in PostgreSQL's table of locks, which has 6,400 places by default.
pub const POSTGRES_LARGE_OBJECTS: i64 = 500;
/// Tables, views and routines of a role that one transaction drops. Each takes some places in the table of locks: a table has indexes, and a
/// table for long values with an index of its own.
pub const POSTGRES_OBJECTS: i64 = 200;
/// Steps of that kind in one attempt to drop a role. The lease is tried again for the rest.
pub const POSTGRES_STEPS: usize = 1_000;
/// Databases of one server in which an attempt to drop a role clears what the role owns. The lease is tried again for the rest.
pub const POSTGRES_DATABASES: usize = 16;
/// Attempts to create a role whose transaction somebody else's change of the same privileges ended. mayfly's own wait for each other; an
/// administrator is faster than three of them in a row only by chance.
pub const POSTGRES_TRIES: u32 = 3;

/// Lines by which the access of a credential is described to approvers and in records: as many as a person reads, and a record of a few KB at
/// the most.
pub const ACCESS_LINES: usize = 64;
/// Lines by which the access of all credentials of a task is described to its approvers: four upstreams with as many as one credential may
/// have.
pub const APPROVAL_ACCESS_LINES: usize = 4 * ACCESS_LINES;

/// Rights that an error names where authorization details ask for another one: as many as fit into an error that is read.
pub const DETAILS_NAMED: usize = 16;

/// Entries of `grants` in a registration of GitHub.
pub const GITHUB_GRANTS: usize = 64;
/// Repositories of one token. GitHub takes 500, and describes each in its answer with some 7 KB (`GITHUB_MINT_ANSWER_BYTES`).
pub const GITHUB_REPOSITORIES: usize = 100;
/// Largest answer of GitHub with a token, bytes: twice what it writes about `GITHUB_REPOSITORIES`.
pub const GITHUB_MINT_ANSWER_BYTES: usize = 1536 * 1024;
/// How long a token of GitHub lives, milliseconds. GitHub knows no other time.
pub const GITHUB_TOKEN_MS: u64 = 3600 * 1000;
/// How much later than `GITHUB_TOKEN_MS` after the decision a token may end, milliseconds: the time to make it, and clocks that differ.
pub const GITHUB_TOKEN_SLACK_MS: u64 = 120 * 1000;
/// Longest time for finding out which permission or repository an installation lacks, milliseconds. What remains of `LEASE_MAKE_MS` after a
/// call that was refused as slowly as GitHub usually answers.
pub const GITHUB_DIAGNOSIS_MS: u64 = 5_000;
/// Repositories that are looked for when GitHub refuses a token because of one of them: as many calls as fit into `GITHUB_DIAGNOSIS_MS`.
pub const GITHUB_DIAGNOSED: usize = 16;

/// Time for which the key of an issuer of assertions is published before it signs, milliseconds. Clouds do not say for how long they keep a
/// JWK set; a day is longer than the `max-age` of any large issuer.
pub const FEDERATION_KEY_PUBLISHED_AHEAD_MS: u64 = 24 * 3600 * 1000;
/// Longest life of an assertion, milliseconds, where the registration names none. Nobody can take an assertion back, and an exchange takes
/// seconds.
pub const ASSERTION_LIFE_MS: u64 = 10 * 60 * 1000;
/// Longest life of an assertion that a registration may name, milliseconds. An hour, as the tokens of most clouds live.
pub const ASSERTION_LIFE_MAX_MS: u64 = 60 * 60 * 1000;
/// Longest life of a vendor's token that a registration may name, milliseconds: a day.
pub const FEDERATION_TOKEN_LIFE_MAX_MS: u64 = 24 * 3600 * 1000;
/// Longest subject and audience of an assertion in a registration, bytes. Entra has the highest limit of the vendors, 600.
pub const ASSERTION_NAME_BYTES: usize = 600;
/// Longest answer of a vendor's token endpoint, bytes. Tokens have up to some kilobytes.
pub const FEDERATION_ANSWER_BYTES: usize = 64 * 1024;

/// Longest session policy of AWS, characters (AssumeRoleWithWebIdentity, `Policy`).
pub const AWS_SESSION_POLICY_CHARACTERS: usize = 2_048;
/// Shortest session of AWS, seconds (AssumeRoleWithWebIdentity, `DurationSeconds`).
pub const AWS_SESSION_LEAST_S: u64 = 15 * 60;
/// Shortest rest of a session that is handed out, seconds. AWS's SDKs renew sessions that have less left.
pub const AWS_LEAST_REST_S: u64 = 5 * 60;
/// Life of an assertion for AWS, milliseconds: one call, and the clocks of both sides.
pub const AWS_ASSERTION_LIFE_MS: u64 = 2 * 60 * 1000;
/// For how long a session stays denied after its end, seconds: AWS's clock, and a session that was made by a late request.
pub const AWS_DENY_MARGIN_S: u64 = 5 * 60;
/// Room for mayfly's list of denied sessions in a role's inline policies, characters. IAM has 10,240 for all of them; the rest is for the
/// role's own, and for lists of processes that have ended.
pub const AWS_ROLE_POLICIES_CHARACTERS: usize = 8_000;
/// Policies of ended processes that are looked at in one call that denies sessions. A server that restarts every minute leaves as many in
/// eight minutes, and each look is a call of half a second.
pub const AWS_POLICIES_CLEARED: usize = 8;
/// Longest ARN of a role in a registration, bytes. Terms of leases have two of them.
pub const AWS_ARN_BYTES: usize = 256;

/// Longest URL, identifier or audience in the section of an OAuth server, bytes. As `SPIFFE_ID_BYTES`, the longest URL that is connected to.
pub const OAUTH_URL_BYTES: usize = 512;
/// Parameters of an authorization request that a registration may add. Google wants two, `access_type` and `prompt`; others fewer.
pub const OAUTH_PARAMETERS: usize = 8;
/// Longest access or refresh token of another server, bytes. Entra's tokens with many groups have 6 KB; one in a header may have 8 KB at most
/// servers.
pub const OAUTH_TOKEN_BYTES: usize = 16 * 1024;
/// Life of an assertion that mayfly signs, seconds. It is sent at once; RFC 7523 servers refuse those of more than 5 to 10 minutes.
pub const OAUTH_ASSERTION_SECONDS: u64 = 60;
/// Longest life of another server's access tokens, milliseconds: a day, as the longest of the large vendors.
pub const OAUTH_LIFETIME_MOST_MS: u64 = 24 * 3_600 * 1_000;
/// Shortest idle limit of another server's refresh tokens, milliseconds. mayfly refreshes in half of it, and looks every `OAUTH_TEND_MS`.
pub const OAUTH_IDLE_LIMIT_LEAST_MS: u64 = 60 * 1_000;
/// Longest idle limit of another server's refresh tokens, milliseconds: half a year, as Google's.
pub const OAUTH_IDLE_LIMIT_MOST_MS: u64 = 180 * 24 * 3_600 * 1_000;
/// Time for which an authorization server's metadata are used again, milliseconds: they change when a server moves, which is announced.
pub const OAUTH_METADATA_MS: u64 = 600 * 1_000;
/// Metadata that are kept, one for each upstream and version of its section: 1 KB each, so 1 MB in all.
pub const OAUTH_METADATA_KEPT: usize = 1_024;
/// How long a refresh may take, milliseconds: after that, another process may take over. Two connects and one call take at most
/// `2 * UPSTREAM_CONNECT_MS + UPSTREAM_CALL_MS` for metadata and again for the token, and the clocks of two replicas differ.
pub const OAUTH_REFRESH_MS: u64 = 2 * (2 * UPSTREAM_CONNECT_MS + UPSTREAM_CALL_MS) + 12_000;
/// Pause between two looks at a grant that another process refreshes, milliseconds. As long as a refresh usually takes.
pub const OAUTH_BUSY_LOOK_MS: u64 = 100;
/// Longest time that an exchange waits for its turn at a grant that other exchanges of this process refresh, milliseconds: half of
/// `LEASE_MAKE_MS`, for fifty refreshes of 200 ms.
pub const OAUTH_TURN_MS: u64 = 10_000;
/// Longest time that an exchange waits for another process that holds the grant, milliseconds. That process may have been killed, and holds the
/// grant for `OAUTH_REFRESH_MS` then. The rest of `LEASE_MAKE_MS` is for the refresh.
pub const OAUTH_WAIT_MS: u64 = 2_000;
/// Pause between two looks for grants that must be refreshed before their idle limit, or revoked, milliseconds. A third of the shortest time to a
/// refresh, which is half of `OAUTH_IDLE_LIMIT_LEAST_MS`.
pub const OAUTH_TEND_MS: u64 = 10_000;
/// Shortest pause after a refresh that failed for a reason that passes, milliseconds, where nobody waits for it. Below `OAUTH_TEND_MS`: the next
/// look tries again.
pub const OAUTH_TEND_RETRY_MIN_MS: u64 = 5_000;
/// Longest such pause, milliseconds. As `LEASE_RETRY_MAX_MS`.
pub const OAUTH_TEND_RETRY_MAX_MS: u64 = 300_000;
/// Sign-ins that have begun and not ended, in one process: each is an operator at a browser.
pub const OAUTH_SIGN_INS: usize = 64;
/// How long a sign-in may take, milliseconds. As the codes of RFC 8628 usually live.
pub const OAUTH_SIGN_IN_MS: u64 = 900 * 1_000;
/// Attempts to store the answer of a refresh: the store may be opened again meanwhile, and nobody else has the new token.
pub const OAUTH_STORE_TRIES: u32 = 8;
/// Pause between two of them, milliseconds. All fit into the rest of `OAUTH_REFRESH_MS`.
pub const OAUTH_STORE_PAUSE_MS: u64 = 1_000;
/// Grants that are refreshed or revoked at once without being asked: a server that hangs keeps one place of these for `OAUTH_REFRESH_MS`.
pub const OAUTH_TENDED_AT_ONCE: usize = 8;

/// Longest time of one statement at MySQL, milliseconds. As `POSTGRES_STATEMENT_MS`.
pub const MYSQL_STATEMENT_MS: u64 = 5_000;
/// Longest wait for a lock at MySQL, seconds: MySQL counts in seconds. Below `MYSQL_STATEMENT_MS`, so that the error names the lock.
pub const MYSQL_LOCK_S: u64 = 3;
/// Longest pause between two statements of mayfly's own session at MySQL, seconds. The server ends a session that pauses for longer.
pub const MYSQL_IDLE_S: u64 = 10;
/// Largest packet that is taken from a MySQL server, bytes. The largest answers are lists of sessions and of stored objects.
pub const MYSQL_PACKET_BYTES: usize = 4 * 1024 * 1024;
/// Pause between two looks at the sessions of a user that is being dropped, milliseconds. MySQL ends a session within a few.
pub const MYSQL_SESSIONS_LOOK_MS: u64 = 50;
/// Looks at the sessions of a user that is being dropped, in one attempt: 5 s. The lease is tried again after that.
pub const MYSQL_SESSIONS_LOOKS: u32 = 100;
/// Looks for transactions that stay prepared, a second: a program that coordinates transactions commits within less.
pub const MYSQL_PREPARED_LOOKS: u32 = 20;
/// Looks at the sessions of a user before it is dropped, half a second: most sessions have ended by then.
pub const MYSQL_SESSIONS_FIRST_LOOKS: u32 = 10;
/// Longest name of a database, a table or a routine, characters: the limit of MySQL and MariaDB.
pub const MYSQL_NAME_BYTES: usize = 64;
/// Longest name of a user, characters: the limit of MySQL. MariaDB allows more.
pub const MYSQL_USER_BYTES: usize = 32;
/// Longest host of an account, characters: the limit of MySQL.
pub const MYSQL_HOST_BYTES: usize = 255;
/// Databases of one registration in which scopes grant privileges to make stored objects. They are a part of the terms of each lease.
pub const MYSQL_OBJECT_DATABASES: usize = 16;
/// Stored objects of one user that one attempt to undo drops. The lease is tried again for the rest.
pub const MYSQL_OBJECTS: usize = 500;

/// Longest time of one command at Redis, milliseconds. As `POSTGRES_STATEMENT_MS`: a server that is busy with a script answers nobody.
pub const REDIS_COMMAND_MS: u64 = 5_000;
/// Most bytes of one command's answer from a Redis server: the list of the sessions of 60,000 clients.
pub const REDIS_ANSWER_BYTES: u64 = 32 * 1024 * 1024;
/// Sessions that are kept open for undoing, one for each Redis server: more servers than one server of mayfly has.
pub const REDIS_RESERVES: usize = 256;
/// Pause between two looks at the sessions of a user that is being deleted, milliseconds. Redis ends a session at once.
pub const REDIS_SESSIONS_LOOK_MS: u64 = 50;
/// Looks at the sessions of a user that is being deleted, in one attempt: 2 s. The lease is tried again after that.
pub const REDIS_SESSIONS_LOOKS: u32 = 40;
/// Longest name of mayfly's own user at Redis, bytes. Redis has no limit; nobody types more.
pub const REDIS_USER_BYTES: usize = 128;
/// Longest name of a command, or pattern of keys or channels, in a registration, bytes. As long as names are elsewhere (`NAME_BYTES`).
pub const REDIS_RULE_BYTES: usize = 256;

/// Longest life of a certificate without revocation information, seconds. standards.md, "X.509 out": RFC 9608 for 10 minutes at most.
pub const NO_REV_AVAIL_TTL_S: u64 = 600;
/// Time for which the CA of an upstream signs, milliseconds. NIST SP 800-57 part 1, table 1: a year is the shortest cryptoperiod of such keys.
pub const UPSTREAM_CA_SIGNS_MS: u64 = 365 * 24 * 3600 * 1000;
/// Time for which the CA of an upstream is published before it signs, milliseconds. Trust stores of servers are files that configuration
/// management copies: a month is longer than a change freeze.
pub const UPSTREAM_CA_PUBLISHED_AHEAD_MS: u64 = 30 * 24 * 3600 * 1000;
/// Life of the certificate of an upstream's CA, milliseconds: three years, the longest cryptoperiod of NIST SP 800-57 part 1, table 1. A CA that
/// rotates by itself is gone long before; one that operators rotate issues nothing that would outlive it.
pub const UPSTREAM_CA_LIFE_MS: u64 = 3 * 365 * 24 * 3600 * 1000;
/// Time before the end of an upstream's CA from which the log warns, milliseconds. As `UPSTREAM_CA_PUBLISHED_AHEAD_MS`, so that there is time to
/// publish another.
pub const UPSTREAM_CA_WARNED_MS: u64 = UPSTREAM_CA_PUBLISHED_AHEAD_MS;
/// Age at which a KRL is signed again even if nothing was revoked, milliseconds. As `CRL_RENEWED_MS`.
pub const KRL_RENEWED_MS: u64 = super::CRL_RENEWED_MS;
/// Least time between two looks for ended certificates, milliseconds: the issue asks for one signature a second at most.
pub const CERTIFICATE_LISTS_MS: u64 = 1000;
/// Largest SSH public key in OpenSSH's form, bytes: one of an RSA-16384 key, the largest of OpenSSH, is 2.8 KiB, and a comment.
pub const SSH_KEY_BYTES: usize = 4 * 1024;
/// Shortest RSA key that is certified, bits. NIST SP 800-57 part 1, table 2: 128 bits of security.
pub const RSA_KEY_BITS: usize = 3072;
/// Most names (organizations, DNS names, principals, extensions) that one scope gives in a certificate. sshd compares principals one by one.
pub const CERTIFICATE_NAMES: usize = 16;
/// Longest common name or organization, characters. RFC 5280, appendix A.1: `ub-common-name`, `ub-organization-name`.
pub const CERTIFICATE_NAME_BYTES: usize = 64;
/// Longest principal of an SSH certificate, bytes: OpenSSH has no limit, and Linux has 32 for the name of a user; other systems have more.
pub const SSH_PRINCIPAL_BYTES: usize = 64;
/// Longest forced command of an SSH certificate, bytes. It is a part of the certificate; nobody types more.
pub const SSH_COMMAND_BYTES: usize = 1024;
/// Most test certificates of one server that are listed as revoked until they end. Each is one `mayfly upstream test`, and lives a minute.
pub const CERTIFICATE_TRIALS: usize = 256;
