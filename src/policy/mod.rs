//! Deciding: who may have what, for how long. Pure: texts and values in, verdicts out.
//!
//! - [`set`]: a policy set, validated when it is made, with the text form in which a record keeps it.
//! - [`request`]: what is asked. [`facts`]: every attribute of it, one table for the request, the cache's key and the analysis.
//! - [`cedar`]: Cedar's answer. [`reads`]: what a set reads. [`cache`]: answers remembered under exactly that.
//! - `stem` and `slice`: the policies that can say something about a caller and a resource; Cedar looks at no others.
//! - [`subject`]: on whose behalf. [`rights`]: what break-glass gives. [`wanted`]: what a caller asks for, well formed. [`plain`]: the same
//!   read from its bytes.
//! - [`Governing`]: what of a set says who operates and approves. [`situation`]: a question that somebody writes down. [`audits`]: what a set beside the one in
//!   force would have said. [`table`]: tests of a set.
//! - `two`: who could give the approval that a policy wants of an operator. [`person`]: who is behind a caller. [`grant`]: what a decision settles. [`sample`]: fifty policies, for measuring.
//!
//! Cedar's verdict does not cover rules, locks, walls, task state, bounds and approvals: they are evaluated on every grant (design,
//! section 6).

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
/// The schema's number, in every recorded set.
pub const SCHEMA_VERSION: u8 = 1;
/// The id of the one resource that operators act on: `Mayfly::"admin"`.
const ADMIN: &str = "admin";
