//! `--subject-token`: the subject on whose behalf a request is made.

use std::path::PathBuf;

use clap::Args;

use super::args::wire_word;
use super::error::CliError;
use super::token;
use mayfly_proto::mayfly::v1 as pb;

/// The subject of a request.
#[derive(Args)]
pub struct SubjectArgs {
    /// File with a token of the subject on whose behalf this caller asks; `-` is stdin
    #[arg(long, value_name = "FILE", requires = "subject_token_type")]
    subject_token: Option<PathBuf>,
    /// Type of the subject token
    #[arg(long, value_name = "TYPE", requires = "subject_token", value_parser = wire_word!(pb::SubjectTokenType, "SUBJECT_TOKEN_TYPE_"))]
    subject_token_type: Option<pb::SubjectTokenType>,
}

impl SubjectArgs {
    /// Reads the subject token.
    pub fn token(&self) -> Result<Option<pb::SubjectToken>, CliError> {
        let (Some(path), Some(kind)) = (&self.subject_token, self.subject_token_type) else { return Ok(None) };
        Ok(Some(pb::SubjectToken { token: token::from_file(path)?.to_string(), r#type: kind.into() }))
    }
}
