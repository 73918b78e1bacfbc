//! The life of a login to MariaDB: made, used by the client `mariadb`, revoked.

use std::process::Stdio;
use std::time::Duration;

use mayfly::pb::mayfly::v1 as pb;

use super::cluster::{ADMIN_PASSWORD, SUPER_PASSWORD};
use super::gate::{Gate, PATIENCE, Watch, mysql_statement};
use super::mariadb::{MariaDb, mariadb, registration};
use super::rig::{Rig, closed, login, wanted_of};

const KIND: pb::CredentialKind = pb::CredentialKind::Mysql;

fn plain(server: &MariaDb) -> String {
    format!("mysql://127.0.0.1:{}/orders", server.port)
}

fn rig(server: &MariaDb, name: &str, section: &str) -> Rig {
    let target = plain(server);
    Rig::registered(name, &target, registration(name, &target, &format!("plaintext = true\n{section}")))
}

/// The output of `mariadb` for statements with this login: the rows, or the error.
fn sql(server: &MariaDb, login: &pb::DatabaseLogin, statements: &str) -> Result<String, String> {
    let done = server.client(&login.user, &login.password, &login.database).args(["-e", statements]).output().unwrap();
    match done.status.success() {
        true => Ok(String::from_utf8(done.stdout).unwrap().trim_end().to_owned()),
        false => Err(String::from_utf8(done.stderr).unwrap()),
    }
}

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Watch::start();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn settled(rig: &Rig, server: &MariaDb, name: &str) -> usize {
    rig.settled_with(|| server.users_of(name), name, "settled").len()
}

#[test]
fn a_user_has_exactly_what_its_scope_grants_and_a_repeat_gets_the_same() {
    let Some(server) = mariadb() else { return };
    let rig = rig(server, "myexact", "connection_limit = 2");
    let task = rig.open("myexact");
    let issued = rig.exchange(wanted_of(KIND, "myexact", &task, "orders:read", "one")).unwrap();
    let read = login(&issued);
    assert!(read.user.starts_with("mayfly") && read.user.len() == 32 && read.plaintext, "{read:?}");
    assert_eq!((read.host.as_str(), read.port, read.database.as_str()), ("127.0.0.1", u32::from(server.port), "orders"));
    assert_eq!(sql(server, &read, "SELECT what FROM orders.orders WHERE id = 1").unwrap(), "a book");
    for refused in [
        "INSERT INTO orders.orders VALUES (2, 'x')",
        "SELECT * FROM orders.secrets",
        "CREATE TABLE orders.own (id int)",
        "CREATE TABLE team_a.own (id int)",
        "CREATE USER more",
        "SELECT * FROM mysql.user",
        "GRANT SELECT ON orders.orders TO root@localhost",
    ] {
        let no = sql(server, &read, refused).unwrap_err();
        assert!(no.contains("denied"), "{refused}: {no}");
    }
    let write = login(&rig.exchange(wanted_of(KIND, "myexact", &task, "orders:write", "two")).unwrap());
    assert_ne!(write.user, read.user);
    sql(server, &write, "INSERT INTO orders.orders VALUES (77, 'x'); CREATE TABLE team_a.exact (id int)").unwrap();
    // The underscore of `team_a` is no pattern.
    assert!(sql(server, &write, "SELECT * FROM teamxa.secrets").unwrap_err().contains("denied"));
    let made = server.sql(&format!("SHOW CREATE USER '{}'@'{}'", read.user, host(server, &read)));
    assert!(made[0].contains("MAX_USER_CONNECTIONS 2") && made[0].contains("PASSWORD EXPIRE INTERVAL 1 DAY"), "{made:?}");
    assert!(made[0].contains("IDENTIFIED BY PASSWORD '*") && !made[0].contains("ACCOUNT LOCK"), "{made:?}");
    let again = rig.exchange(wanted_of(KIND, "myexact", &task, "orders:read", "one")).unwrap();
    assert_eq!(again.novelty(), pb::Novelty::Same);
    assert_eq!((login(&again), again.credential_id), (read, issued.credential_id));
    rig.complete(&task);
    assert_eq!(settled(&rig, server, "myexact"), 0);
    // Nobody owns a table in MySQL: it stays.
    assert_eq!(server.sql("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME = 'exact'"), ["1"]);
}

fn host(server: &MariaDb, login: &pb::DatabaseLogin) -> String {
    server.sql(&format!("SELECT Host FROM mysql.user WHERE User = '{}'", login.user)).remove(0)
}

#[test]
fn revoking_ends_a_session_of_mysql_within_a_second_and_drops_what_acts_for_the_user() {
    let Some(server) = mariadb() else { return };
    let rig = rig(server, "myended", "");
    let task = rig.open("myended");
    let issued = rig.exchange(wanted_of(KIND, "myended", &task, "orders:write", "one")).unwrap();
    let write = login(&issued);
    let objects = "CREATE TABLE team_a.mine (id int); CREATE VIEW team_a.mine_view AS SELECT * FROM team_a.mine;
        CREATE VIEW team_a.`od``d; DROP TABLE x` AS SELECT 1 AS one;
        CREATE PROCEDURE team_a.mine_procedure() SELECT 1; CREATE FUNCTION team_a.mine_function() RETURNS INT NO SQL RETURN 1;
        CREATE TRIGGER team_a.mine_trigger BEFORE INSERT ON team_a.mine FOR EACH ROW SET NEW.id = 1;
        CREATE EVENT team_a.mine_event ON SCHEDULE EVERY 1 SECOND DO SELECT SLEEP(600)";
    sql(server, &write, objects).unwrap();
    let mut session = server.client(&write.user, &write.password, "orders");
    let mut session = session.args(["-e", "SELECT SLEEP(600)"]).stderr(Stdio::piped()).spawn().unwrap();
    let sessions = || {
        let found = server.sql(&format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = '{}'", write.user));
        found[0].parse::<u32>().unwrap()
    };
    until("the session and the one of the event are there", || sessions() >= 2);
    rig.operated(&["revoke", "--credential", &issued.credential_id, "--reason", "a test"]);
    let acknowledged = Watch::start();
    assert!(!session.wait().unwrap().success());
    let took = acknowledged.elapsed();
    println!("a mariadb session ended {} ms after the revocation was acknowledged", took.as_millis());
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(sql(server, &write, "SELECT 1").is_err(), "no new session");
    assert_eq!(settled(&rig, server, "myended"), 0);
    assert_eq!(sessions(), 0);
    for (table, schema) in
        [("VIEWS", "TABLE_SCHEMA"), ("ROUTINES", "ROUTINE_SCHEMA"), ("TRIGGERS", "TRIGGER_SCHEMA"), ("EVENTS", "EVENT_SCHEMA")]
    {
        let query = format!(
            "SELECT COUNT(*) FROM information_schema.{table} WHERE {schema} = 'team_a' AND DEFINER LIKE '{}@%'",
            write.user
        );
        assert_eq!(server.sql(&query), ["0"], "{table}");
    }
    // The table stays, and others can use it: no trigger of a user that does not exist is in their way.
    server.sql("INSERT INTO team_a.mine VALUES (5)");
}

/// A prepared transaction outlives session and user, and anybody may commit it.
#[test]
fn a_lease_of_mysql_stays_open_while_a_transaction_is_prepared() {
    if mariadb().is_none() {
        return;
    }
    // A server of its own: the transaction could be of any user of the server.
    let server = &MariaDb::start();
    let rig = rig(server, "myprepared", "");
    let task = rig.open("myprepared");
    let issued = rig.exchange(wanted_of(KIND, "myprepared", &task, "orders:write", "one")).unwrap();
    let prepare =
        "XA START 'left'; UPDATE orders.orders SET what = 'another book' WHERE id = 1; XA END 'left'; XA PREPARE 'left'";
    sql(server, &login(&issued), prepare).unwrap();
    rig.operated(&["revoke", "--credential", &issued.credential_id, "--reason", "a test"]);
    let pending = || rig.leases("myprepared", pb::UpstreamState::Pending).into_values().next();
    until("the transaction is told of", || {
        pending().is_some_and(|lease| lease.last_error.contains("XA ROLLBACK X'6C656674',X'',1"))
    });
    assert!(server.users_of("myprepared").is_empty(), "the user is gone all the same");
    server.sql("XA ROLLBACK X'6C656674',X'',1");
    if let Some(lease) = pending() {
        rig.operate(&["lease", "retry", &lease.lease_id]);
    }
    assert_eq!(settled(&rig, server, "myprepared"), 0);
    assert_eq!(server.sql("SELECT what FROM orders.orders WHERE id = 1"), ["a book"]);
}

#[test]
fn a_lease_of_mysql_is_undone_after_its_registration_was_retired() {
    let Some(server) = mariadb() else { return };
    let mut rig = rig(server, "myretired", "");
    let task = rig.open("myretired");
    rig.exchange(wanted_of(KIND, "myretired", &task, "orders:read", "one")).unwrap();
    assert_eq!(server.users_of("myretired").len(), 1);
    // Without mayfly's own password nothing can be undone yet.
    let secret = rig.world.dir().join("secrets/myretired.toml");
    let kept = std::fs::read_to_string(&secret).unwrap();
    std::fs::remove_file(&secret).unwrap();
    rig.operated(&["upstream", "retire", "myretired", "--reason", "a test", "--confirm", "all"]);
    let failing =
        || rig.leases("myretired", pb::UpstreamState::Pending).values().any(|l| l.last_error.contains("myretired.toml"));
    until("the missing file is told", failing);
    rig.kill();
    rig.start();
    // Somebody dropped the user meanwhile: that is success.
    let user = server.users_of("myretired").remove(0);
    let account =
        server.sql(&format!("SELECT CONCAT(QUOTE(User), '@', QUOTE(Host)) FROM mysql.user WHERE User = '{user}'")).remove(0);
    server.sql(&format!("DROP USER {account}"));
    std::fs::write(&secret, kept).unwrap();
    closed(&secret, 0o600);
    if let Some(lease) = rig.leases("myretired", pb::UpstreamState::Pending).into_values().next() {
        // The lease may have been tried by itself in the meantime.
        rig.operate(&["lease", "retry", &lease.lease_id]);
    }
    until("the lease is closed", || rig.leases("myretired", pb::UpstreamState::Pending).is_empty());
}

#[test]
fn a_mysql_server_that_hangs_delays_no_other() {
    let Some(server) = mariadb() else { return };
    let gate = Gate::reading(server.port, mysql_statement);
    let (stuck, healthy) = (format!("mysql://127.0.0.1:{}/orders", gate.port), plain(server));
    let mut rig = Rig::new(&[
        ("mystuck", registration("mystuck", &stuck, "plaintext = true")),
        ("myhealthy", registration("myhealthy", &healthy, "plaintext = true")),
    ]);
    rig.secret("mystuck", &stuck, ADMIN_PASSWORD);
    rig.secret("myhealthy", &healthy, ADMIN_PASSWORD);
    rig.start();
    let (task, other) = (rig.open("mystuck"), rig.open("myhealthy"));
    rig.exchange(wanted_of(KIND, "mystuck", &task, "orders:read", "before")).unwrap();
    gate.stick(true);
    rig.complete(&task);
    let third = rig.open("mystuck");
    let agent = rig.runtime.block_on(rig.agent());
    let hanging = rig.runtime.spawn(super::rig::exchange(agent, wanted_of(KIND, "mystuck", &third, "orders:read", "hangs")));
    let began = Watch::start();
    for n in 0..3 {
        let issued = rig.exchange(wanted_of(KIND, "myhealthy", &other, "orders:read", &format!("{n}"))).unwrap();
        rig.operated(&["revoke", "--credential", &issued.credential_id, "--reason", "a test"]);
    }
    until("the healthy one is clean", || server.users_of("myhealthy").is_empty());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(server.users_of("mystuck").len(), 1);
    let refused = rig.runtime.block_on(hanging).unwrap().unwrap_err();
    assert!(refused.message().contains("ms"), "{refused}");
    gate.stick(false);
    rig.complete(&third);
    assert_eq!(settled(&rig, server, "mystuck"), 0);
}

#[test]
fn tls_to_mysql_is_verified_by_the_roots_beside_the_secret() {
    let Some(server) = mariadb() else { return };
    let target = format!("mysql://localhost:{}/orders", server.port);
    let rig = Rig::registered("myverified", &target, registration("myverified", &target, ""));
    let task = rig.open("myverified");
    let no = rig.exchange(wanted_of(KIND, "myverified", &task, "orders:read", "one")).unwrap_err();
    assert!(
        no.message().contains("UnknownIssuer") && no.message().contains("myverified.pem"),
        "the system's roots did not sign it: {no}"
    );
    std::fs::write(rig.world.dir().join("secrets/myverified.pem"), &server.ca_pem).unwrap();
    let read = login(&rig.exchange(wanted_of(KIND, "myverified", &task, "orders:read", "two")).unwrap());
    assert!(!read.plaintext && read.server_ca_pem == server.ca_pem);
    assert!(server.sql(&format!("SHOW CREATE USER '{}'@'{}'", read.user, host(server, &read)))[0].contains("REQUIRE SSL"));
    let roots = rig.world.dir().join("roots.pem");
    std::fs::write(&roots, &read.server_ca_pem).unwrap();
    let query = "SELECT what FROM orders.orders WHERE id = 1";
    let unencrypted = server.client(&read.user, &read.password, "orders").args(["--skip-ssl", "-e", query]).output().unwrap();
    assert!(!unencrypted.status.success(), "not without TLS: {unencrypted:?}");
    let mut client = server.client(&read.user, &read.password, "orders");
    client.args(["-h", "localhost", "--protocol=tcp", "--ssl-verify-server-cert", "--ssl-ca"]).arg(&roots);
    let used = client.args(["-e", query]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&used.stdout), "a book\n", "{used:?}");
    rig.complete(&task);
    assert_eq!(settled(&rig, server, "myverified"), 0);
}

#[test]
fn each_missing_privilege_of_mayflys_own_account_is_named_before_anything_is_made() {
    let Some(server) = mariadb() else { return };
    let target = plain(server);
    let mut rig = Rig::new(&[]);
    rig.start();
    assert!(rig.operated(&["upstream", "template", "mysql"]).contains("[mysql]"));
    let file = rig.world.dir().join("mylacking.toml");
    let text = registration("mylacking", &target, "plaintext = true").replace("\"mayfly\"", "\"newcomer\"");
    // The test takes the first scope: it shall make stored objects as well.
    let text = text.replace("\"orders:read\", \"orders:write\"", "\"orders:write\", \"orders:read\"");
    std::fs::write(&file, text).unwrap();
    rig.operated(&["upstream", "add", file.to_str().unwrap()]);
    rig.secret("mylacking", &target, ADMIN_PASSWORD);
    let test = || {
        let done = rig.operate(&["-o", "json", "upstream", "test", "mylacking"]);
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let (code, told) = test();
    assert!(code == Some(6) && told.contains("Access denied") && told.contains("1045"), "there is no such account: {told}");
    server.sql(&format!("CREATE USER newcomer@'%' IDENTIFIED BY '{ADMIN_PASSWORD}'"));
    let own = "'newcomer'@'%'";
    let all = "SELECT, INSERT, CREATE, TRIGGER, CREATE VIEW, CREATE ROUTINE, EVENT";
    let mut given = Vec::new();
    for needed in [
        format!("GRANT CREATE USER ON *.* TO {own}"),
        format!("GRANT PROCESS ON *.* TO {own}"),
        format!("GRANT CONNECTION ADMIN ON *.* TO {own}"),
        format!("GRANT ALTER ROUTINE ON `team\\_a`.* TO {own} WITH GRANT OPTION"),
        format!("GRANT DROP ON `team\\_a`.* TO {own} WITH GRANT OPTION"),
        format!("GRANT EVENT ON `team\\_a`.* TO {own} WITH GRANT OPTION"),
        String::from("orders"),
        format!("GRANT SELECT (User, Host) ON mysql.user TO {own}"),
        format!("GRANT {all} ON `team\\_a`.* TO {own} WITH GRANT OPTION"),
    ] {
        // A database in which it has no privilege is one that it does not see.
        let needed = match needed.as_str() {
            "orders" => format!("GRANT SELECT, INSERT, UPDATE ON TABLE `orders`.`orders` TO {own} WITH GRANT OPTION"),
            _ => {
                let (code, told) = test();
                let escaped = needed.replace('\\', "\\\\");
                assert!(code == Some(6) && told.contains(&escaped), "after {given:?}, {needed} is not in: {told}");
                needed
            }
        };
        assert!(server.users_of("mylacking").is_empty());
        server.sql(&needed);
        given.push(needed);
    }
    let (code, told) = test();
    assert_eq!(code, Some(0), "{told}");
    for step in ["make a credential with scope orders:write", "SELECT 1", "revoke it", "verify that it is gone"] {
        assert!(told.contains(step), "{step} is not in {told}");
    }
    assert!(rig.leases("mylacking", pb::UpstreamState::Pending).is_empty() && server.users_of("mylacking").is_empty());
}

#[test]
fn the_command_line_hands_a_login_to_the_mariadb_client() {
    let Some(server) = mariadb() else { return };
    let rig = rig(server, "myorders", "");
    let script = "mariadb -N -B -e 'SELECT what FROM orders.orders WHERE id = 1' && mariadb -N -B \"$MYSQL_DATABASE\" -e 'SELECT DATABASE()' \
                  && echo \"$MYORDERS_URL\" | sed 's,.*@,,' && echo \"$MYSQL_USER\" | cut -c1-6";
    let mut exec = rig.demo();
    exec.env("MYSQL_UNIX_PORT", "/nowhere");
    exec.args(["exec", "--upstream", "myorders", "--purpose", "a test", "--", "sh", "-c", script]);
    let done = exec.output().unwrap();
    let expected = format!("a book\norders\n127.0.0.1:{}/orders?ssl-mode=DISABLED\nmayfly\n", server.port);
    assert_eq!(String::from_utf8_lossy(&done.stdout), expected, "{}", String::from_utf8_lossy(&done.stderr));
    let got = rig.demo().args(["-o", "json", "get", "myorders", "--purpose", "a test"]).output().unwrap();
    assert!(String::from_utf8_lossy(&got.stdout).contains("\"database_login\""), "{}", String::from_utf8_lossy(&got.stderr));
    rig.operated(&["upstream", "disable", "myorders", "--reason", "a test", "--confirm", "all"]);
    assert_eq!(settled(&rig, server, "myorders"), 0);
}

#[test]
fn no_password_of_mysql_is_anywhere() {
    let Some(server) = mariadb() else { return };
    let rig = rig(server, "mymarked", "");
    let task = rig.open("mymarked");
    let mut secrets = vec![ADMIN_PASSWORD.to_owned(), "wrong-marker-19be".to_owned()];
    let mut told = String::new();
    for n in 0..2 {
        let issued = rig.exchange(wanted_of(KIND, "mymarked", &task, "orders:write", &format!("{n}"))).unwrap();
        secrets.push(login(&issued).password);
        // The verifier of a login is in the server's own log, and nowhere at mayfly.
        told += &format!("{:?}", pb::Issued { answer: None, ..issued });
    }
    rig.secret("mymarked", &plain(server), &secrets[1]);
    let no = rig.exchange(wanted_of(KIND, "mymarked", &task, "orders:read", "wrong")).unwrap_err();
    assert!(no.message().contains("Access denied") && no.message().contains("1045"), "{no}");
    told += &format!("{no:?}");
    rig.secret("mymarked", &plain(server), ADMIN_PASSWORD);
    for args in [
        &["upstream", "test", "mymarked"][..],
        &["lease", "list", "-o", "json"],
        &["audit", "search", "-o", "json"],
        &["explain", &task],
    ] {
        let done = rig.operate(args);
        told += &String::from_utf8_lossy(&done.stdout);
        told += &String::from_utf8_lossy(&done.stderr);
    }
    rig.complete(&task);
    assert_eq!(settled(&rig, server, "mymarked"), 0);
    std::fs::remove_dir_all(rig.world.dir().join("secrets")).unwrap();
    let mut found = vec![("what was told".to_owned(), told.into_bytes())];
    super::secrets::files(rig.world.dir(), &mut found);
    let ours = found.len();
    super::secrets::files(server.log.parent().unwrap(), &mut found);
    let statements = found.iter().find(|(name, _)| name.ends_with("/statements")).expect("the log of statements");
    assert!(String::from_utf8_lossy(&statements.1).contains("IDENTIFIED WITH mysql_native_password AS '*"));
    for (place, (name, bytes)) in found.iter().enumerate() {
        for secret in &secrets {
            // The server's own administrator wrote this password into a statement; mayfly never does.
            if place >= ours && [ADMIN_PASSWORD, SUPER_PASSWORD].contains(&secret.as_str()) {
                continue;
            }
            let there = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!there, "{name} has a secret that begins with {}", &secret[..4]);
        }
    }
}
