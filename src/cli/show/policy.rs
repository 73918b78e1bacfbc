//! The results of tests of a policy set.

use serde::Serialize;

use crate::out::{Printable, Row};
use mayfly_policy::policy_tests::PolicyTest;
use mayfly_policy::simulation::SimulationOutcome;

/// The result of a test.
#[derive(Serialize, Debug)]
#[allow(missing_docs, reason = "they are named for what they are")]
pub struct PolicyTestView {
    pub test: String,
    pub line: usize,
    pub passed: bool,
    pub expected: String,
    pub outcome: String,
    pub policies: Vec<String>,
    pub problem: Option<String>,
}

impl PolicyTestView {
    /// Converts a test and its outcome.
    pub fn of(test: &PolicyTest, outcome: &SimulationOutcome) -> PolicyTestView {
        let problem = test.fails(outcome);
        PolicyTestView {
            test: test.name.clone(),
            line: test.line,
            passed: problem.is_none(),
            expected: test.expect.word().to_owned(),
            outcome: outcome.to_string(),
            policies: outcome.by().to_vec(),
            problem,
        }
    }
}

impl Printable for PolicyTestView {
    fn name(&self) -> String {
        self.test.clone()
    }
}

impl Row for PolicyTestView {
    const COLUMNS: &'static [&'static str] = &["TEST", "PASSED", "EXPECTED", "OUTCOME"];
    const WIDE: &'static [&'static str] = &["LINE", "PROBLEM"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.test.clone(),
            if self.passed { "yes" } else { "NO" }.to_owned(),
            self.expected.clone(),
            self.outcome.clone(),
            self.line.to_string(),
            self.problem.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}
