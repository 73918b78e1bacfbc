//! Compiles `proto/` without a protoc binary: Rust code, the descriptor set for reflection, and `Debug` for messages that carry secrets.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use tonic_prost_build::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut files: Vec<PathBuf> =
        fs::read_dir("proto/mayfly/v1")?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    files.sort();
    let mut compiler = protox::Compiler::new([Path::new("proto")])?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    fs::write(out.join("mayfly.v1.bin"), compiler.encode_file_descriptor_set())?;

    let mut code = String::new();
    let mut redacted = Vec::new();
    for message in compiler.descriptor_pool().all_messages().filter(|m| m.package_name() == "mayfly.v1") {
        let secret: Vec<String> = message
            .fields()
            .filter(|f| f.options().get_field_by_name("debug_redact").is_some_and(|v| v.as_bool() == Some(true)))
            .map(|f| f.name().to_owned())
            .collect();
        if secret.is_empty() {
            continue;
        }
        // A path that skips Debug covers nested types too, and those would be left without one.
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
    fs::write(out.join("mayfly.v1.debug.rs"), code)?;

    let set: FileDescriptorSet = compiler.file_descriptor_set();
    tonic_prost_build::configure().bytes(".").skip_debug(&redacted).emit_rerun_if_changed(false).compile_fds(set)?;
    Ok(())
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

/// `base_url` to `BaseUrl`, as prost names variants.
fn camel(name: &str) -> String {
    let upper = |part: &str| part.chars().take(1).map(|c| c.to_ascii_uppercase()).chain(part.chars().skip(1)).collect::<String>();
    name.split('_').map(upper).collect()
}

/// `LookupTokenRequest` to `lookup_token_request`, as prost names the module of a message.
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
