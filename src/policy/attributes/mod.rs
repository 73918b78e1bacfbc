//! The table of all attributes that a policy may read: the place of each in the schema, and the function that reads its value.
//!
//! The Cedar request, the cache key and the analysis of what a set reads are all derived from this table, so an attribute cannot be present
//! in one of them and missing in another. To add an attribute: add a file here, its line in [`all`], and its line in the schema.

mod access;
mod caller;
mod intent;
mod people;
mod task;
mod transient;
mod upstream;

use super::question::Question;
use super::roles::Membership;
use mayfly_verify::seq::Millis;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue<'a> {
    /// `Bool`.
    Bool(bool),
    /// `Long`.
    Long(i64),
    /// `String`.
    Text(&'a str),
    /// `Set<String>`, in any order; duplicates are allowed.
    Texts(Vec<&'a str>),
    /// `datetime`.
    Moment(Millis),
}

/// A question, with what the policy set knows about its caller.
pub struct ResolvedQuestion<'a> {
    pub(super) question: Question<'a>,
    pub(super) member: Membership<'a>,
}

/// Reads one attribute of a case. `None` where the attribute is absent.
type Get = for<'a> fn(&ResolvedQuestion<'a>) -> Option<AttributeValue<'a>>;

/// One attribute.
pub struct PolicyAttribute {
    /// Path of the attribute, such as `context.task.purpose`. `principal` and `resource` alone are the entity's name; `principal.in` and
    /// `resource.in` are the entity's parents.
    pub path: &'static str,
    /// The value changes between otherwise equal requests: time, counts, approvals. Verdicts of a set that reads such an attribute are not
    /// cached.
    pub volatile: bool,
    /// The value may differ between the exchanges of one batch that are otherwise equal: purpose, tool, arguments, binding, groups.
    pub(super) own: bool,
    pub(super) get: Get,
}

impl PolicyAttribute {
    const fn new(path: &'static str, get: Get) -> PolicyAttribute {
        PolicyAttribute { path, volatile: false, own: false, get }
    }

    const fn own(path: &'static str, get: Get) -> PolicyAttribute {
        PolicyAttribute { path, volatile: false, own: true, get }
    }

    const fn volatile(path: &'static str, get: Get) -> PolicyAttribute {
        PolicyAttribute { path, volatile: true, own: false, get }
    }
}

/// All attributes.
pub fn all() -> impl Iterator<Item = &'static PolicyAttribute> {
    [caller::FACTS, upstream::FACTS, intent::FACTS, access::FACTS, task::FACTS, people::FACTS, transient::FACTS]
        .into_iter()
        .flatten()
}
