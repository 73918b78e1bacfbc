//! The proof that an operator was admitted to an action.

use std::marker::PhantomData;

use mayfly_ledger::record::Author;
use mayfly_policy::OperatorActionType;

/// The proof that an operator was admitted to the action `A`, made by [`crate::authority::Authority::admit`] only. A function takes the
/// proof of its own action, so that an operator who was admitted to list cannot be passed to a function that revokes.
#[derive(Debug, Clone)]
pub struct Admitted<A: OperatorActionType> {
    who: Author,
    action: PhantomData<A>,
}

impl<A: OperatorActionType> Admitted<A> {
    pub(super) fn new(who: Author) -> Admitted<A> {
        Admitted { who, action: PhantomData }
    }

    /// The operator, in the form that records use.
    pub fn who(&self) -> Author {
        self.who.clone()
    }
}
