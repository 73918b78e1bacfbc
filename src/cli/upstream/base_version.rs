//! The version that a change of a registration is based on: the first line of the file that `upstream show --file` prints.
//!
//! The version that is in effect when the change is sent would not do: a colleague's change between the two commands would be undone
//! without a word.

use crate::error::CliError;
use mayfly_base::refusal::Reason;

/// Begins the comment with the version. The rest of the line is the number.
const COMMENT: &str = "# version ";

/// A registration's file with its version.
pub fn with_version(document: &str, version: u64) -> String {
    format!("{COMMENT}{version}\n{document}")
}

/// The version that the file names and the one of `--version`. `None`: neither names one. The two must not differ.
pub fn version(file: &str, text: &str, option: Option<u64>) -> Result<Option<u64>, CliError> {
    let first = text.lines().next().unwrap_or_default();
    let named = match first.strip_prefix(COMMENT).map(str::trim) {
        None => None,
        Some(number) => Some(number.parse::<u64>().ok().filter(|version| *version > 0).ok_or_else(|| {
            let what = format!("{file}:1: {number:?} is no version: expected a number from 1, as in \"{COMMENT}3\"");
            CliError::Usage(format!("{what}; `mayfly upstream show NAME --file` writes that line"))
        })?),
    };
    match (named, option) {
        (Some(named), Some(option)) if named != option => Err(CliError::Usage(format!(
            "{file}:1 says that the file is based on version {named}, and --version says {option}: leave out --version, or correct the line"
        ))),
        (named, option) => Ok(option.or(named)),
    }
}

/// The server's refusal of a change with a version that is no longer in effect: running the command again would be refused again.
pub fn stale(error: CliError, upstream: &str) -> CliError {
    match error {
        CliError::Server(mut said) if said.reason == Some(Reason::DecidedOnOldState) => {
            said.way_out = Some(format!(
                "somebody changed {upstream} since the file was written: get the present file with \
                 `mayfly upstream show {upstream} --file`, make your change in it, and run it again"
            ));
            CliError::Server(said)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_version_and_an_option_must_not_contradict_it() {
        let file = with_version("name = \"echo\"\n", 3);
        assert_eq!(file, "# version 3\nname = \"echo\"\n");
        let of = |text: &str, option| {
            version("echo.toml", text, option).map_err(|error| match error {
                CliError::Usage(said) => said,
                _ => panic!("a fault of the file is one of usage"),
            })
        };
        assert_eq!(of(&file, None), Ok(Some(3)));
        assert_eq!(of(&file, Some(3)), Ok(Some(3)));
        let differ = of(&file, Some(4)).unwrap_err();
        assert!(differ.contains("version 3") && differ.contains("--version says 4"), "{differ}");
        assert_eq!(of("name = \"echo\"\n", None), Ok(None));
        assert_eq!(of("name = \"echo\"\n", Some(4)), Ok(Some(4)));
        assert_eq!(of("# our gateway\n# version 9\n", None), Ok(None), "only the first line counts");
        assert_eq!(of("# version 7\r\nname = \"echo\"\r\n", None), Ok(Some(7)));
        for wrong in ["# version x", "# version 0", "# version -1", "# version 18446744073709551616"] {
            assert!(of(wrong, None).unwrap_err().contains("is no version"), "{wrong}");
        }
    }
}
