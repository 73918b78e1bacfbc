//! Deciding whether a caller may have a credential or do an action, and for how long. Pure: texts and values come in, verdicts and grants
//! go out. Nothing here writes to the ledger.
//!
//! - [`set`]: a policy set, validated at construction, with its text form for records.
//! - [`question`]: the question that Cedar is asked. [`attributes`]: the table of all attributes, used by the request, the cache key and
//!   the analysis.
//! - [`cedar`]: evaluation by Cedar. [`attribute_reads`]: which attributes a set reads. [`verdict_cache`]: the verdict cache.
//! - `scope_conditions` and `applicable_policies`: selecting the policies that can apply to a caller and a resource, so that Cedar
//!   evaluates only those.
//! - [`subject`]: the subject that a caller acts on behalf of. [`break_glass_rights`]: break-glass rights. [`exchange_request`]: a caller's
//!   request, checked in form. [`fast_decode`]: a fast decoder that reads the same request from its bytes.
//! - [`GovernanceRules`]: the part of a set that says who operates and approves. [`simulation`]: a hypothetical request, as written in a
//!   test. [`shadow`]: differences between the shadow policy and the policy in force. [`policy_tests`]: tests of a policy set.
//! - `dual_control`: who could give an approval that a policy demands of an operator. [`person`]: the person behind a caller. [`grant`]:
//!   the result of a decision. [`sample`]: fifty policies for benchmarks.
//!
//! Cedar's verdict does not cover revocation rules, locks, environment walls, task state, bounds and approvals: these are evaluated on
//! every grant ([`decide`]), also where the verdict is remembered.
#![forbid(unsafe_code)]

pub mod action;
mod applicable_policies;
pub mod attribute_reads;
pub mod attributes;
pub mod break_glass_rights;
pub mod catalog;
pub mod cedar;
mod compile;
pub mod decide;
mod digest;
mod dual_control;
pub mod exchange_request;
#[cfg(feature = "fast")]
pub mod fast_decode;
mod field_checks;
mod governance;
pub mod grant;
pub mod lifetime;
mod nesting;
pub mod person;
pub mod policy_tests;
pub mod question;
mod roles;
#[cfg(test)]
#[allow(dead_code, reason = "this crate's tests use a part")]
#[path = "../bench/sample.rs"]
mod sample;
mod scope_conditions;
pub mod set;
pub mod shadow;
pub mod simulation;
pub mod subject;
mod unmeetable_approvals;
pub mod unpermitted_actions;
pub mod verdict_cache;

pub use action::{Action, OperatorAction, OperatorActionType, WorkloadAction, admin};
pub use cedar::PolicyVerdict;
pub use dual_control::OperatorDomains;
pub use governance::GovernanceRules;
pub use question::{IntrospectionContext, OperatorContext, Question, WorkloadContext};
pub use set::PolicySet;
pub use verdict_cache::VerdictCache;

/// The schema that every policy set is validated against.
pub const SCHEMA: &str = include_str!("schema.cedarschema");
/// The schema's version number, stored in every recorded set.
pub const SCHEMA_VERSION: u8 = 1;
/// The id of the one resource of operators' actions: `Mayfly::"admin"`.
const ADMIN: &str = "admin";
