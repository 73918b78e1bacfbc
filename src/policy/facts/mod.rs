//! Every attribute that a policy may read: where it stands in the schema, and where its value comes from.
//!
//! The request to Cedar, the key of the cache and the analysis of what a set reads are all made from this one table, so an attribute
//! cannot be in one of them and be missed by another. To add a policy input: one file here, its line in [`all`], its line in the schema.

mod caller;
mod intent;
mod moment;
mod people;
mod task;
mod upstream;

use super::request::Question;
use super::roles::Membership;
use crate::seq::Millis;

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `Bool`.
    Bool(bool),
    /// `Long`.
    Long(i64),
    /// `String`.
    Text(&'a str),
    /// `Set<String>`, in any order, perhaps with repeats.
    Texts(Vec<&'a str>),
    /// `datetime`.
    Moment(Millis),
}

/// A question with what the policy set knows about its caller.
pub struct Case<'a> {
    pub(super) question: Question<'a>,
    pub(super) member: Membership<'a>,
}

/// Reads one attribute of a case; `None` where it is absent.
type Get = for<'a> fn(&Case<'a>) -> Option<Value<'a>>;

/// One attribute.
pub struct Fact {
    /// Its place: `context.task.purpose`. `principal` and `resource` alone are the entity's own name, `principal.in` and `resource.in`
    /// what it belongs to.
    pub path: &'static str,
    /// Whether it changes from one request to the next by itself: time, counts, approvals. A set that reads one is not cached.
    pub volatile: bool,
    /// Whether it may differ between exchanges that otherwise ask for the same.
    pub(super) own: bool,
    pub(super) get: Get,
}

impl Fact {
    const fn new(path: &'static str, get: Get) -> Fact {
        Fact { path, volatile: false, own: false, get }
    }

    const fn own(path: &'static str, get: Get) -> Fact {
        Fact { path, volatile: false, own: true, get }
    }

    const fn volatile(path: &'static str, get: Get) -> Fact {
        Fact { path, volatile: true, own: false, get }
    }
}

/// All attributes.
pub fn all() -> impl Iterator<Item = &'static Fact> {
    [caller::FACTS, upstream::FACTS, intent::FACTS, task::FACTS, people::FACTS, moment::FACTS].into_iter().flatten()
}
