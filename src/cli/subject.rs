//! `--subject-token`: on whose behalf something is asked for.

use std::path::PathBuf;

use clap::Args;

use super::args::wire_word;
use super::error::CliError;
use super::token;
use crate::pb::mayfly::v1 as pb;

/// On whose behalf.
#[derive(Args)]
pub struct SubjectArgs {
    /// A file with a token of somebody on whose behalf we ask, `-` being stdin
    #[arg(long, value_name = "FILE", requires = "subject_token_type")]
    subject_token: Option<PathBuf>,
    /// What that token is
    #[arg(long, value_name = "TYPE", requires = "subject_token", value_parser = wire_word!(pb::SubjectTokenType, "SUBJECT_TOKEN_TYPE_"))]
    subject_token_type: Option<pb::SubjectTokenType>,
}

impl SubjectArgs {
    /// Reads the token.
    pub fn token(&self) -> Result<Option<pb::SubjectToken>, CliError> {
        let (Some(path), Some(kind)) = (&self.subject_token, self.subject_token_type) else { return Ok(None) };
        Ok(Some(pb::SubjectToken { token: token::from_file(path)?.to_string(), r#type: kind.into() }))
    }
}
