//! Deciding whether a caller may have a credential or do an action, and for how long. Pure: texts and values come in, verdicts and grants
//! go out. Nothing here writes to the ledger.
//!
//! - [`set`]: a policy set, validated at construction, with its text form for records.
//! - [`request`]: the question that Cedar is asked. [`facts`]: the table of all attributes, used by the request, the cache key and the
//!   analysis.
//! - [`cedar`]: evaluation by Cedar. [`reads`]: which attributes a set reads. [`cache`]: the verdict cache.
//! - `stem` and `slice`: selecting the policies that can apply to a caller and a resource, so that Cedar evaluates only those.
//! - [`subject`]: the subject that a caller acts on behalf of. [`rights`]: break-glass rights. [`wanted`]: a caller's request, checked in
//!   form. [`plain`]: a fast decoder that reads the same request from its bytes.
//! - [`Governing`]: the part of a set that says who operates and approves. [`situation`]: a hypothetical request, as written in a test.
//!   [`audits`]: differences between the shadow policy and the policy in force. [`table`]: tests of a policy set.
//! - `two`: who could give an approval that a policy demands of an operator. [`person`]: the person behind a caller. [`grant`]: the result
//!   of a decision. [`sample`]: fifty policies for benchmarks.
//!
//! Cedar's verdict does not cover revocation rules, locks, environment walls, task state, bounds and approvals: these are evaluated on
//! every grant (design, section 6).
#![forbid(unsafe_code)]

pub mod action;
mod asked;
pub mod audits;
pub mod bound;
pub mod cache;
pub mod catalog;
pub mod cedar;
mod compile;
pub mod decide;
mod digest;
pub mod facts;
mod govern;
pub mod grant;
mod nesting;
pub mod person;
pub mod plain;
pub mod reads;
pub mod request;
pub mod rights;
mod roles;
pub mod sample;
pub mod set;
mod several;
pub mod situation;
mod slice;
mod stem;
pub mod subject;
pub mod table;
mod two;
pub mod unattended;
pub mod wanted;

pub use action::{Action, Admin, AdminAction, Work, admin};
pub use cache::Verdicts;
pub use cedar::Verdict;
pub use govern::Governing;
pub use request::{Act, Ask, Look, Question};
pub use set::PolicySet;
pub use two::Domains;

/// The schema that every policy set is validated against.
pub const SCHEMA: &str = include_str!("schema.cedarschema");
/// The schema's version number, stored in every recorded set.
pub const SCHEMA_VERSION: u8 = 1;
/// The id of the one resource of operators' actions: `Mayfly::"admin"`.
const ADMIN: &str = "admin";
