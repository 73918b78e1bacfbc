//! The life of a login to PostgreSQL: made, used by `psql`, revoked.

use std::process::Stdio;
use std::time::Duration;

use mayfly::pb::mayfly::v1 as pb;

use super::cluster::{ADMIN_PASSWORD, Cluster, cluster};
use super::gate::{Gate, PATIENCE, Watch};
use super::rig::{Rig, closed, login, registration, wanted};

fn plain(cluster: &Cluster) -> String {
    format!("postgres://127.0.0.1:{}/orders", cluster.port)
}

/// The output of `psql` for statements with this login: the rows, or the error.
fn psql(cluster: &Cluster, login: &pb::DatabaseLogin, database: &str, statements: &str) -> Result<String, String> {
    let done = cluster.psql(&login.user, &login.password, database).arg("-c").arg(statements).output().unwrap();
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

#[test]
fn a_login_has_exactly_what_its_scope_grants_and_a_repeat_gets_the_same() {
    let Some(cluster) = cluster() else { return };
    let rig = Rig::of("exact", &plain(cluster), "plaintext = true\nconnection_limit = 2");
    let task = rig.open("exact");
    let issued = rig.exchange(wanted("exact", &task, "orders:read", "one")).unwrap();
    let read = login(&issued);
    assert!(read.user.starts_with("mayfly_") && read.user.len() == 33 && read.plaintext, "{read:?}");
    assert_eq!((read.host.as_str(), read.port, read.database.as_str()), ("127.0.0.1", u32::from(cluster.port), "orders"));
    assert_eq!(psql(cluster, &read, "orders", "SELECT what FROM public.orders WHERE id = 1").unwrap(), "a book");
    assert_eq!(psql(cluster, &read, "orders", r#"SELECT count(*) FROM public."Odd ""Name""""#).unwrap(), "0");
    for refused in [
        "INSERT INTO public.orders VALUES (2, 'x')",
        "SELECT * FROM public.secrets",
        "CREATE TABLE public.own ()",
        "CREATE ROLE more",
    ] {
        let no = psql(cluster, &read, "orders", refused).unwrap_err();
        assert!(no.contains("permission denied"), "{refused}: {no}");
    }
    let write = login(&rig.exchange(wanted("exact", &task, "orders:write", "two")).unwrap());
    assert_ne!(write.user, read.user);
    assert_eq!(psql(cluster, &write, "orders", "INSERT INTO public.orders VALUES (77, 'x') RETURNING id").unwrap(), "77");
    let attributes = cluster.sql(
        "postgres",
        &format!(
            "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls OR rolinherit, rolconnlimit, \
             rolvaliduntil BETWEEN now() + interval '14 min' AND now() + interval '16 min', rolpassword LIKE 'SCRAM-SHA-256$%' \
             FROM pg_authid WHERE rolname = '{}'",
            read.user
        ),
    );
    assert_eq!(attributes, ["f|2|t|t"]);
    let again = rig.exchange(wanted("exact", &task, "orders:read", "one")).unwrap();
    assert_eq!(again.novelty(), pb::Novelty::Same);
    assert_eq!((login(&again), again.credential_id), (read, issued.credential_id));
    rig.complete(&task);
    assert!(rig.settled(cluster, "exact", "completed").is_empty());
    assert!(cluster.roles_of("exact").is_empty());
}

#[test]
fn revoking_ends_a_session_within_a_second_and_what_it_made_goes_in_every_database() {
    let Some(cluster) = cluster() else { return };
    let rig = Rig::of("ended", &plain(cluster), "plaintext = true");
    let task = rig.open("ended");
    let issued = rig.exchange(wanted("ended", &task, "orders:write", "one")).unwrap();
    let write = login(&issued);
    psql(cluster, &write, "orders", "CREATE TABLE public.mine (id int)").unwrap();
    psql(cluster, &write, "archive", "CREATE TABLE public.mine_too (id int)").unwrap();
    let mut session = cluster.psql(&write.user, &write.password, "orders");
    let mut session = session.args(["-c", "SELECT pg_sleep(600)"]).stderr(Stdio::piped()).spawn().unwrap();
    let sessions = || cluster.sql("postgres", &format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", write.user));
    until("the session is there", || sessions() == ["1"]);
    rig.operated(&["revoke", "--credential", &issued.credential_id, "--reason", "a test"]);
    let acknowledged = Watch::start();
    assert!(!session.wait().unwrap().success());
    let took = acknowledged.elapsed();
    println!("a psql session ended {} ms after the revocation was acknowledged", took.as_millis());
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(psql(cluster, &write, "orders", "SELECT 1").is_err(), "no new session");
    assert!(rig.settled(cluster, "ended", "revoked").is_empty());
    for database in ["orders", "archive"] {
        assert_eq!(cluster.sql(database, "SELECT count(*) FROM pg_class WHERE relname LIKE 'mine%'"), ["0"], "{database}");
    }
    let told = rig.operated(&["explain", &issued.credential_id]);
    assert!(told.contains("lease"), "{told}");
}

#[test]
fn what_a_login_made_can_be_given_to_another_role() {
    let Some(cluster) = cluster() else { return };
    let rig = Rig::of("heir", &plain(cluster), "plaintext = true\nreassign_to = \"orders_owner\"");
    let task = rig.open("heir");
    let write = login(&rig.exchange(wanted("heir", &task, "orders:write", "one")).unwrap());
    psql(cluster, &write, "orders", "CREATE TABLE public.inherited (id int)").unwrap();
    rig.complete(&task);
    assert!(rig.settled(cluster, "heir", "completed").is_empty());
    let owner = cluster.sql("orders", "SELECT tableowner FROM pg_tables WHERE tablename = 'inherited'");
    assert_eq!(owner, ["orders_owner"]);
}

/// A function may have the rights of its owner, and a view reads with them: an heir of both would give a later credential its rights.
#[test]
fn an_heir_gets_tables_and_nothing_that_runs_with_its_rights() {
    let Some(cluster) = cluster() else { return };
    cluster.sql(
        "orders",
        "CREATE TABLE public.salaries (n int); INSERT INTO public.salaries VALUES (1000000); \
         ALTER TABLE public.salaries OWNER TO orders_owner",
    );
    let rig = Rig::of("trap", &plain(cluster), "plaintext = true\nreassign_to = \"orders_owner\"");
    let task = rig.open("trap");
    let write = login(&rig.exchange(wanted("trap", &task, "orders:write", "one")).unwrap());
    let trap = "CREATE FUNCTION public.trap(q text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS \
         'DECLARE r text; BEGIN EXECUTE q INTO r; RETURN r; END'; \
         CREATE FUNCTION public.trap_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
         CREATE TABLE public.trap_kept (id int); INSERT INTO public.trap_kept VALUES (7); \
         CREATE TRIGGER trap_trigger BEFORE INSERT ON public.trap_kept FOR EACH ROW EXECUTE FUNCTION public.trap_row(); \
         CREATE VIEW public.trap_view AS SELECT public.trap(''SELECT 1''::text) AS one; \
         CREATE MATERIALIZED VIEW public.trap_stored AS SELECT * FROM public.trap_view; \
         CREATE VIEW public.\"od\"\"d; trap\" AS SELECT * FROM public.trap_stored; \
         CREATE RULE trap_rule AS ON DELETE TO public.trap_kept DO INSTEAD NOTHING; SELECT lo_create(0)";
    psql(cluster, &write, "orders", &trap.replace("''SELECT 1''", "'SELECT 1'")).unwrap();
    assert!(psql(cluster, &write, "orders", "SELECT public.trap('SELECT n FROM public.salaries')").is_err());
    rig.complete(&task);
    assert!(rig.settled(cluster, "trap", "completed").is_empty());
    let left = "SELECT (SELECT count(*) FROM pg_proc WHERE proname LIKE '%trap%') \
         + (SELECT count(*) FROM pg_class WHERE relname LIKE '%trap%' AND relkind IN ('v', 'm')) \
         + (SELECT count(*) FROM pg_trigger WHERE tgname = 'trap_trigger') + (SELECT count(*) FROM pg_rewrite WHERE rulename = 'trap_rule')";
    assert_eq!(cluster.sql("orders", left), ["0"]);
    assert_eq!(cluster.sql("orders", "SELECT tableowner FROM pg_tables WHERE tablename = 'trap_kept'"), ["orders_owner"]);
    assert_eq!(cluster.sql("orders", "SELECT id FROM public.trap_kept"), ["7"]);
    let owned = "SELECT count(*) > 0 FROM pg_largeobject_metadata WHERE lomowner = 'orders_owner'::regrole";
    assert_eq!(cluster.sql("orders", owned), ["t"], "a large object is data, and is kept");
}

/// More objects than PostgreSQL can lock at once.
#[test]
fn a_role_with_very_many_objects_goes_away() {
    let Some(cluster) = cluster() else { return };
    let rig = Rig::of("many", &plain(cluster), "plaintext = true");
    let task = rig.open("many");
    let write = login(&rig.exchange(wanted("many", &task, "orders:write", "one")).unwrap());
    for part in 0..4 {
        psql(cluster, &write, "orders", "SELECT count(lo_create(0)) FROM generate_series(1, 5000)").unwrap();
        let tables = "DO 'BEGIN FOR n IN 1..300 LOOP EXECUTE format(''CREATE TABLE public.many_PART_%s (id serial PRIMARY KEY, t text)'', n); \
             END LOOP; END'";
        psql(cluster, &write, "orders", &tables.replace("PART", &part.to_string())).unwrap();
    }
    rig.complete(&task);
    assert!(rig.settled(cluster, "many", "completed").is_empty());
    assert_eq!(cluster.sql("orders", "SELECT count(*) FROM pg_class WHERE relname LIKE 'many%'"), ["0"]);
}

/// A member of a role may set its password: a login that nobody would take back.
#[test]
fn no_login_is_a_member_of_a_role_that_may_log_in() {
    let Some(cluster) = cluster() else { return };
    cluster.sql(
        "postgres",
        "CREATE ROLE app LOGIN; CREATE ROLE app_group; GRANT app TO app_group; \
         GRANT app, app_group TO mayfly WITH ADMIN OPTION; CREATE ROLE readers; GRANT readers TO mayfly WITH ADMIN OPTION",
    );
    let target = plain(cluster);
    let head = registration("members", &target, "plaintext = true").split("[[postgres.grants]]").next().unwrap().to_owned();
    let grant =
        |scope: &str, role: &str| format!("[[postgres.grants]]\nscope = \"{scope}\"\non = \"roles\"\nnames = [\"{role}\"]\n");
    let mut rig = Rig::new(&[("members", head + &grant("orders:read", "readers") + &grant("orders:write", "app_group"))]);
    rig.secret("members", &target, ADMIN_PASSWORD);
    rig.start();
    let task = rig.open("members");
    let no = rig.exchange(wanted("members", &task, "orders:write", "one")).unwrap_err();
    assert!(no.message().contains("may log in") && no.message().contains("NOLOGIN"), "{no:?}");
    let read = login(&rig.exchange(wanted("members", &task, "orders:read", "two")).unwrap());
    assert_eq!(psql(cluster, &read, "orders", "SELECT pg_has_role('readers', 'MEMBER')").unwrap(), "t");
    rig.complete(&task);
    assert!(rig.settled(cluster, "members", "completed").is_empty());
}

/// Anybody who is connected may take any advisory lock.
#[test]
fn no_lock_that_a_login_may_take_holds_up_the_others() {
    let Some(cluster) = cluster() else { return };
    let rig = Rig::of("locker", &plain(cluster), "plaintext = true");
    let task = rig.open("locker");
    let read = login(&rig.exchange(wanted("locker", &task, "orders:read", "one")).unwrap());
    let mut session = cluster.psql(&read.user, &read.password, "orders");
    let locks = [
        "SELECT pg_advisory_lock(hashtext('mayfly'), 0)",
        "LOCK TABLE public.orders IN ACCESS SHARE MODE",
        "SELECT pg_sleep(600)",
    ];
    let mut session = session.args(["-c", &locks.join("; ")]).stderr(Stdio::null()).spawn().unwrap();
    let sleeps = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND wait_event = 'PgSleep'", read.user);
    until("the session holds its locks", || cluster.sql("postgres", &sleeps) == ["1"]);
    let other = rig.exchange(wanted("locker", &task, "orders:write", "two")).unwrap();
    rig.operated(&[
        "revoke",
        "--credential",
        &other.credential_id,
        "--reason",
        "a test",
        "--wait",
        "--at-upstreams",
        "--timeout",
        "30s",
    ]);
    assert_eq!(cluster.roles_of("locker").len(), 1);
    rig.complete(&task);
    assert!(!session.wait().unwrap().success());
    assert!(rig.settled(cluster, "locker", "completed").is_empty());
}

/// Privileges that come without one on columns: `DROP OWNED` alone cannot take them back.
#[test]
fn a_login_with_a_sequence_or_with_delete_only_goes_away() {
    let Some(cluster) = cluster() else { return };
    let target = plain(cluster);
    let file = registration("narrow", &target, "plaintext = true").split("[[postgres.grants]]").next().unwrap().to_owned();
    let grant = |scope: &str, on: &str, name: &str, privileges: &str| {
        format!("[[postgres.grants]]\nscope = \"{scope}\"\non = \"{on}\"\nnames = [\"{name}\"]\nprivileges = [{privileges}]\n")
    };
    let file = file
        + &grant("orders:read", "sequences", "public.numbers", "\"USAGE\"")
        + &grant("orders:write", "tables", "public.bin", "\"DELETE\", \"TRUNCATE\"");
    let mut rig = Rig::new(&[("narrow", file)]);
    rig.secret("narrow", &target, ADMIN_PASSWORD);
    rig.start();
    let task = rig.open("narrow");
    let read = login(&rig.exchange(wanted("narrow", &task, "orders:read", "one")).unwrap());
    assert_eq!(psql(cluster, &read, "orders", "SELECT nextval('public.numbers') > 0").unwrap(), "t");
    let write = login(&rig.exchange(wanted("narrow", &task, "orders:write", "two")).unwrap());
    psql(cluster, &write, "orders", "DELETE FROM public.bin").unwrap();
    rig.complete(&task);
    assert!(rig.settled(cluster, "narrow", "completed").is_empty());
    assert!(cluster.roles_of("narrow").is_empty());
}

/// A database that not everybody may connect to, and an upstream that refused: no lease stays.
#[test]
fn a_login_that_could_not_connect_is_not_made_and_leaves_no_lease() {
    let Some(cluster) = cluster() else { return };
    let target = plain(cluster).replace("/orders", "/walled");
    let file = registration("walled", &target, "plaintext = true").split("[[postgres.grants]]").next().unwrap().to_owned();
    let all = "on = \"schemas\"\nnames = [\"pg_catalog\"]\nprivileges = [\"USAGE\"]\n";
    let grants = ["orders:read", "orders:write"].map(|scope| format!("[[postgres.grants]]\nscope = \"{scope}\"\n{all}"));
    let mut rig = Rig::new(&[("walled", file + &grants.concat())]);
    rig.secret("walled", &target, ADMIN_PASSWORD);
    rig.start();
    let task = rig.open("walled");
    let no = rig.exchange(wanted("walled", &task, "orders:read", "one")).unwrap_err();
    assert!(no.message().contains("may not connect to database") && no.message().contains("GRANT CONNECT"), "{no:?}");
    // Nothing was made, so the lease closes although the upstream cannot be asked any more.
    std::fs::remove_file(rig.world.dir().join("secrets/walled.toml")).unwrap();
    rig.exchange(wanted("walled", &task, "orders:read", "two")).unwrap_err();
    until("no lease is open", || {
        [pb::UpstreamState::Live, pb::UpstreamState::Pending].into_iter().all(|state| rig.leases("walled", state).is_empty())
    });
    assert!(cluster.roles_of("walled").is_empty());
}

#[test]
fn a_lease_is_undone_after_its_registration_was_changed_and_retired() {
    let Some(cluster) = cluster() else { return };
    let mut rig = Rig::of("retired", &plain(cluster), "plaintext = true");
    let task = rig.open("retired");
    rig.exchange(wanted("retired", &task, "orders:read", "one")).unwrap();
    assert_eq!(cluster.roles_of("retired").len(), 1);
    // Without mayfly's own password nothing can be undone yet.
    let secret = rig.world.dir().join("secrets/retired.toml");
    let kept = std::fs::read_to_string(&secret).unwrap();
    std::fs::remove_file(&secret).unwrap();
    rig.operated(&["upstream", "retire", "retired", "--reason", "a test", "--confirm", "all"]);
    let failing = || rig.leases("retired", pb::UpstreamState::Pending).values().any(|l| l.last_error.contains("retired.toml"));
    until("the missing file is told", failing);
    assert!(rig.operated(&["-o", "json", "lease", "list"]).contains("retired.toml"));
    rig.kill();
    rig.start();
    std::fs::write(&secret, kept).unwrap();
    closed(&secret, 0o600);
    let lease = rig.leases("retired", pb::UpstreamState::Pending).into_values().next();
    if let Some(lease) = lease {
        rig.operated(&["lease", "retry", &lease.lease_id]);
    }
    until("it is undone", || cluster.roles_of("retired").is_empty());
}

#[test]
fn a_database_that_hangs_delays_no_other() {
    let Some(cluster) = cluster() else { return };
    let gate = Gate::before(cluster.port);
    let (stuck, healthy) = (format!("postgres://127.0.0.1:{}/orders", gate.port), plain(cluster));
    let mut rig = Rig::new(&[
        ("stuck", registration("stuck", &stuck, "plaintext = true")),
        ("healthy", registration("healthy", &healthy, "plaintext = true")),
    ]);
    rig.secret("stuck", &stuck, ADMIN_PASSWORD);
    rig.secret("healthy", &healthy, ADMIN_PASSWORD);
    rig.start();
    let (task, other) = (rig.open("stuck"), rig.open("healthy"));
    for n in 0..3 {
        rig.exchange(wanted("stuck", &task, "orders:read", &format!("before {n}"))).unwrap();
    }
    gate.stick(true);
    rig.complete(&task);
    // Undoing at the first hangs by now; so does making.
    let third = rig.open("stuck");
    let agent = rig.runtime.block_on(rig.agent());
    let hanging = rig.runtime.spawn(super::rig::exchange(agent, wanted("stuck", &third, "orders:read", "hangs")));
    let began = Watch::start();
    for n in 0..5 {
        let issued = rig.exchange(wanted("healthy", &other, "orders:read", &format!("{n}"))).unwrap();
        rig.operated(&["revoke", "--credential", &issued.credential_id, "--reason", "a test"]);
    }
    until("the healthy one is clean", || cluster.roles_of("healthy").is_empty());
    println!("five logins were made and undone in {:?} beside a database that hangs", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(cluster.roles_of("stuck").len(), 3);
    let refused = rig.runtime.block_on(hanging).unwrap().unwrap_err();
    assert!(refused.message().contains("ms") && refused.message().contains("postgres"), "{refused}");
    gate.stick(false);
    rig.complete(&third);
    assert!(rig.settled(cluster, "stuck", "it answers again").is_empty());
}

#[test]
fn tls_is_verified_by_the_roots_beside_the_secret() {
    let Some(cluster) = cluster() else { return };
    let target = format!("postgres://localhost:{}/orders", cluster.port);
    let rig = Rig::of("verified", &target, "");
    let task = rig.open("verified");
    let no = rig.exchange(wanted("verified", &task, "orders:read", "one")).unwrap_err();
    assert!(
        no.message().contains("UnknownIssuer") || no.message().contains("trusted roots"),
        "the system's roots did not sign it: {no}"
    );
    std::fs::write(rig.world.dir().join("secrets/verified.pem"), &cluster.ca_pem).unwrap();
    let issued = rig.exchange(wanted("verified", &task, "orders:read", "two")).unwrap();
    let read = login(&issued);
    assert!(!read.plaintext && read.server_ca_pem == cluster.ca_pem);
    let roots = rig.world.dir().join("roots.pem");
    std::fs::write(&roots, &read.server_ca_pem).unwrap();
    let mut psql = cluster.psql(&read.user, &read.password, "orders");
    psql.env("PGHOST", "localhost").env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", &roots);
    let used = psql.args(["-c", "SELECT what FROM public.orders WHERE id = 1"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&used.stdout), "a book\n", "{used:?}");
    rig.complete(&task);
    assert!(rig.settled(cluster, "verified", "completed").is_empty());
}

#[test]
fn an_operator_adds_tests_and_uses_a_database_by_the_command_line() {
    let Some(cluster) = cluster() else { return };
    let mut rig = Rig::new(&[]);
    rig.start();
    let template = rig.operated(&["upstream", "template", "postgres"]);
    assert!(template.contains("[postgres]"));
    let file = rig.world.dir().join("orders.toml");
    std::fs::write(&file, registration("orders", &plain(cluster), "plaintext = true")).unwrap();
    let file = file.to_str().unwrap();
    rig.operated(&["upstream", "add", file]);
    let test = |name: &str| {
        let done = rig.operate(&["-o", "json", "upstream", "test", name]);
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let (code, told) = test("orders");
    assert!(code == Some(6) && told.contains("orders.toml"), "there is no secret yet: {told}");
    rig.secret("orders", &plain(cluster), ADMIN_PASSWORD);
    let (code, told) = test("orders");
    assert_eq!(code, Some(0), "{told}");
    for step in ["make a credential with scope orders:read", "SELECT 1", "revoke it", "verify that it is gone"] {
        assert!(told.contains(step), "{step} is not in {told}");
    }
    // A missing permission is named with the statement that grants it. Another name of the host is another target.
    let other = plain(cluster).replace("127.0.0.1", "localhost");
    let lacking = registration("lacking", &other, "plaintext = true").replace("\"public.orders\", ", "\"public.secrets\", ");
    std::fs::write(file, lacking).unwrap();
    rig.operated(&["upstream", "add", file]);
    rig.secret("lacking", &other, ADMIN_PASSWORD);
    let (code, told) = test("lacking");
    assert!(
        code == Some(6) && told.contains("GRANT SELECT ON TABLE public.secrets TO \\\"mayfly\\\" WITH GRANT OPTION"),
        "{told}"
    );
    assert!(rig.settled(cluster, "lacking", "tested").is_empty());
    let script = "psql -X -A -t -c 'SELECT what FROM public.orders WHERE id = 1' && psql -X -A -t -c 'SELECT 2' \"$ORDERS_URL\"";
    let mut exec = rig.demo();
    exec.args(["exec", "--upstream", "orders", "--purpose", "a test", "--", "sh", "-c", script]);
    let done = exec.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "a book\n2\n", "{}", String::from_utf8_lossy(&done.stderr));
    let got = rig.demo().args(["-o", "json", "get", "orders", "--purpose", "a test"]).output().unwrap();
    assert!(String::from_utf8_lossy(&got.stdout).contains("\"database_login\""), "{}", String::from_utf8_lossy(&got.stderr));
    rig.operated(&["upstream", "disable", "orders", "--reason", "a test", "--confirm", "all"]);
    assert!(rig.settled(cluster, "orders", "disabled").is_empty());
}
