//! Compiles `proto/` without a protoc binary: Rust code, the descriptor set for reflection, and `Debug` for messages that carry secrets.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use protox::prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use tonic_prost_build::FileDescriptorSet;

/// The rpcs that the Rust client calls: its generated code contains these and the messages they need (`clients/rust/src/pb`).
const CLIENT_CALLS: &[&str] = &[
    "TokenService.Exchange",
    "TokenService.BatchExchange",
    "TokenService.StreamExchange",
    "TokenService.Release",
    "TaskService.CompleteTask",
    "RevocationService.WatchRevocations",
    "RevocationService.AcknowledgeRevocations",
    "KeyService.GetJwks",
    "AuditService.ReportUse",
];

fn main() -> Result<(), Box<dyn Error>> {
    let top = top()?;
    println!("cargo:rerun-if-changed={}", top.join("proto").display());
    println!("cargo:rerun-if-changed={}", top.join("clients/rust/proto").display());
    env::set_current_dir(top)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut files: Vec<PathBuf> =
        fs::read_dir("proto/mayfly/v1")?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    files.sort();
    let mut compiler = protox::Compiler::new([Path::new("proto")])?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    let pool = compiler.descriptor_pool();
    // The root package generates what its tests use; `mayfly-proto` generates the messages and services.
    if env::var("CARGO_PKG_NAME")? == "mayfly" {
        client(&pool, compiler.file_descriptor_set(), &out.join("client"))?;
        return workload(&out.join("workload"));
    }
    fs::write(out.join("mayfly.v1.bin"), compiler.encode_file_descriptor_set())?;
    let redacted = debug_of(&pool, |_| true, &out.join("mayfly.v1.debug.rs"))?;
    fs::write(out.join("mayfly.v1.redacted.rs"), redacted_fields(&pool))?;
    let set: FileDescriptorSet = compiler.file_descriptor_set();
    // The command line finds the descriptor of a message by its name.
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    let build = tonic_prost_build::configure().bytes(".").skip_debug(&redacted).emit_rerun_if_changed(false);
    build.compile_fds_with_config(set, config)?;
    Ok(())
}

/// The root of the repository. This script makes the code of `src/proto`; and, until the doubles of the tests are a crate of their own,
/// what tests of the root package include.
fn top() -> Result<PathBuf, Box<dyn Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let top = here.ancestors().find(|folder| folder.join("proto/mayfly/v1").is_dir());
    Ok(top.ok_or("no folder above has proto/mayfly/v1")?.to_owned())
}

/// Generates the Rust client's code. It is kept in the repository, so that building the client needs no proto compiler; a test compares the
/// two.
fn client(pool: &DescriptorPool, mut set: FileDescriptorSet, out: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(out)?;
    let mut needed = BTreeSet::new();
    for service in pool.services() {
        for method in service.methods().filter(|m| CLIENT_CALLS.contains(&&*format!("{}.{}", service.name(), m.name()))) {
            need(&method.input(), &mut needed);
            need(&method.output(), &mut needed);
        }
    }
    for file in set.file.iter_mut().filter(|f| f.package() == "mayfly.v1") {
        file.message_type.retain(|m| needed.contains(m.name()));
        file.enum_type.retain(|e| needed.contains(e.name()));
        for service in &mut file.service {
            let name = service.name().to_owned();
            service.method.retain(|m| CLIENT_CALLS.contains(&&*format!("{name}.{}", m.name())));
        }
        file.service.retain(|s| !s.method.is_empty());
        // Comments are located by their position in the file, and positions have changed.
        file.source_code_info = None;
    }
    let redacted = debug_of(pool, |m| needed.contains(m.name()), &out.join("mayfly.v1.debug.rs"))?;
    let build = tonic_prost_build::configure().bytes(".").skip_debug(&redacted).build_server(false).build_transport(false);
    build.emit_rerun_if_changed(false).out_dir(out).compile_fds(set)?;
    Ok(())
}

/// Collects the names of a message and of all messages it contains.
fn need(message: &MessageDescriptor, needed: &mut BTreeSet<String>) {
    if message.package_name() != "mayfly.v1" || !needed.insert(message.name().to_owned()) {
        return;
    }
    for field in message.fields() {
        match field.kind() {
            Kind::Message(inner) => need(&inner, needed),
            Kind::Enum(inner) => drop(needed.insert(inner.name().to_owned())),
            _ => {}
        }
    }
}

/// The SPIFFE Workload API: a client for mayfly, and a server for the test double.
fn workload(out: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(out)?;
    fs::create_dir_all(out.join("server"))?;
    let mut compiler = protox::Compiler::new([Path::new("clients/rust/proto")])?;
    compiler.include_source_info(true).open_file("workload.proto")?;
    let pool = compiler.descriptor_pool();
    let redacted = debug_of(&pool, |_| true, &out.join("workload.debug.rs"))?;
    for (server, out) in [(false, out.to_owned()), (true, out.join("server"))] {
        let build = tonic_prost_build::configure().bytes(".").skip_debug(&redacted).build_server(server).build_client(!server);
        build.build_transport(false).emit_rerun_if_changed(false).out_dir(out).compile_fds(compiler.file_descriptor_set())?;
    }
    Ok(())
}

/// A table of the fields that are marked `debug_redact`: the message's full name with a leading dot, and the field's name.
fn redacted_fields(pool: &DescriptorPool) -> String {
    let mut code = "&[\n".to_owned();
    for message in pool.all_messages() {
        let marked =
            |f: &FieldDescriptor| f.options().get_field_by_name("debug_redact").is_some_and(|v| v.as_bool() == Some(true));
        for field in message.fields().filter(marked) {
            code.push_str(&format!("    ({:?}, {:?}),\n", format!(".{}", message.full_name()), field.name()));
        }
    }
    code.push(']');
    code
}

/// Writes `Debug` for the messages of a set that carry secrets, and returns their names.
fn debug_of(pool: &DescriptorPool, of: impl Fn(&MessageDescriptor) -> bool, to: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut code = String::new();
    let mut redacted = Vec::new();
    for message in pool.all_messages().filter(|m| !m.package_name().starts_with("google.")).filter(of) {
        let secret: Vec<String> = message
            .fields()
            .filter(|f| f.options().get_field_by_name("debug_redact").is_some_and(|v| v.as_bool() == Some(true)))
            .map(|f| f.name().to_owned())
            .collect();
        if secret.is_empty() {
            continue;
        }
        // Skipping Debug for a path also covers nested types, which would then have no `Debug` at all.
        if message.child_messages().len() + message.child_enums().len() > 0 {
            return Err(format!("{} has debug_redact fields, so it can have no nested types", message.full_name()).into());
        }
        redacted.push(format!(".{}", message.full_name()));
        let oneofs: Vec<(String, Vec<String>)> = message
            .oneofs()
            .filter(|o| !o.is_synthetic())
            .map(|o| (o.name().to_owned(), o.fields().map(|f| f.name().to_owned()).collect()))
            .collect();
        let fields = message.fields().filter(|f| f.containing_oneof().is_none_or(|o| o.is_synthetic()));
        let plain: Vec<String> = fields.map(|f| f.name().to_owned()).collect();
        debug_impl(&mut code, message.name(), &plain, &oneofs, &secret)?;
    }
    fs::write(to, code)?;
    Ok(redacted)
}

/// Writes `Debug` for a message with secret fields and for its oneofs. A secret shows as `<redacted>`, whether it is empty or not.
fn debug_impl(
    code: &mut String,
    message: &str,
    plain: &[String],
    oneofs: &[(String, Vec<String>)],
    secret: &[String],
) -> std::fmt::Result {
    const REDACTED: &str = r#"&::core::format_args!("<redacted>")"#;
    writeln!(code, "impl ::core::fmt::Debug for {message} {{")?;
    writeln!(code, "    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{")?;
    write!(code, "        f.debug_struct({message:?})")?;
    for name in plain {
        match secret.contains(name) {
            true => write!(code, ".field({name:?}, {REDACTED})")?,
            false => write!(code, ".field({name:?}, &self.r#{name})")?,
        }
    }
    for (name, _) in oneofs {
        write!(code, ".field({name:?}, &self.r#{name})")?;
    }
    writeln!(code, ".finish()\n    }}\n}}")?;
    for (oneof, variants) in oneofs {
        writeln!(code, "impl ::core::fmt::Debug for {}::{} {{", snake(message), camel(oneof))?;
        writeln!(code, "    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{\n        match self {{")?;
        for name in variants {
            let variant = camel(name);
            match secret.contains(name) {
                true => {
                    writeln!(code, "            Self::{variant}(_) => f.debug_tuple({variant:?}).field({REDACTED}).finish(),")?
                }
                false => {
                    writeln!(code, "            Self::{variant}(value) => f.debug_tuple({variant:?}).field(value).finish(),")?
                }
            }
        }
        writeln!(code, "        }}\n    }}\n}}")?;
    }
    Ok(())
}

/// Converts `base_url` to `BaseUrl`, as prost names variants.
fn camel(name: &str) -> String {
    let upper = |part: &str| part.chars().take(1).map(|c| c.to_ascii_uppercase()).chain(part.chars().skip(1)).collect::<String>();
    name.split('_').map(upper).collect()
}

/// Converts `LookupTokenRequest` to `lookup_token_request`, as prost names the module of a message.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
