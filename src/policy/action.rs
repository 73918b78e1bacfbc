//! The actions of the Cedar schema: everything a policy can be asked about.

/// An action of a workload on one upstream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WorkloadAction {
    /// Issuing a credential: exchange, renewal, and `Authorize`.
    Exchange,
    /// Opening a task that includes this upstream. Policy is asked once per upstream that the task names.
    OpenTask,
    /// Extending a task's deadline.
    ExtendTask,
    /// Opening a child task for another caller.
    DelegateTask,
}

/// An action of an operator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OperatorAction {
    /// Revoke credentials, tasks, callers and every other target.
    Revoke,
    /// Add and lift locks.
    Lock,
    /// Rotate, retire and mark as compromised signing keys.
    ManageKeys,
    /// Add and remove trust domains.
    ManageTrust,
    /// Set policy sets and modes.
    ManagePolicy,
    /// Register, change and disable upstreams.
    ManageUpstreams,
    /// Hold, resume and close tasks of other callers.
    ManageTasks,
    /// Read the audit records.
    ReadAudit,
    /// See status, lists and metrics.
    Observe,
    /// Approve a change that another operator asked for.
    ApproveChange,
}

impl OperatorAction {
    /// The actions of operators.
    pub fn all() -> impl Iterator<Item = OperatorAction> {
        Action::ALL.into_iter().filter_map(|action| if let Action::Admin(admin) = action { Some(admin) } else { None })
    }
}

/// An operator's action as a type, so that the compiler distinguishes an operator admitted to read from one admitted to revoke.
pub trait OperatorActionType: Copy + std::fmt::Debug + Send + Sync + 'static {
    /// The action that policy is asked about.
    const ACTION: OperatorAction;
}

/// One type for each action of [`OperatorAction`]. An `Admitted` proves admission for one of these types.
pub mod admin {
    macro_rules! actions {
        ($($name:ident: $what:literal),+ $(,)?) => {$(
            #[doc = $what]
            #[derive(Clone, Copy, Debug)]
            pub struct $name;

            impl super::OperatorActionType for $name {
                const ACTION: super::OperatorAction = super::OperatorAction::$name;
            }
        )+};
    }

    actions! {
        Revoke: "Revoke anything.",
        Lock: "Add and lift locks.",
        ManageKeys: "Rotate, retire, compromise signing keys.",
        ManageTrust: "Add and remove trust domains.",
        ManagePolicy: "Set policy and modes.",
        ManageUpstreams: "Register, change, disable upstreams.",
        ManageTasks: "Hold, resume, close tasks of others.",
        ReadAudit: "Read the audit.",
        Observe: "See status, lists and metrics.",
        ApproveChange: "Let through what another operator changes.",
    }
}

/// An action of the schema.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// An action of a workload.
    Work(WorkloadAction),
    /// Introspect a credential.
    Introspect,
    /// An action of an operator.
    Admin(OperatorAction),
    /// Approve an exchange that somebody else asked for.
    Approve,
    /// Use a credential in the way that a server of its upstream reported.
    Use,
    /// Sign in, as a person or as an attested job.
    SignIn,
}

impl Action {
    /// All actions, ordered by [`Action::number`].
    pub const ALL: [Action; 18] = [
        Action::Work(WorkloadAction::Exchange),
        Action::Work(WorkloadAction::OpenTask),
        Action::Work(WorkloadAction::ExtendTask),
        Action::Work(WorkloadAction::DelegateTask),
        Action::Introspect,
        Action::Admin(OperatorAction::Revoke),
        Action::Admin(OperatorAction::Lock),
        Action::Admin(OperatorAction::ManageKeys),
        Action::Admin(OperatorAction::ManageTrust),
        Action::Admin(OperatorAction::ManagePolicy),
        Action::Admin(OperatorAction::ManageUpstreams),
        Action::Admin(OperatorAction::ManageTasks),
        Action::Admin(OperatorAction::ReadAudit),
        Action::Admin(OperatorAction::Observe),
        Action::Admin(OperatorAction::ApproveChange),
        Action::Approve,
        Action::Use,
        Action::SignIn,
    ];

    /// Index of the action in [`Action::ALL`].
    pub const fn number(self) -> u8 {
        match self {
            Action::Work(work) => work as u8,
            Action::Introspect => 4,
            Action::Admin(admin) => 5 + admin as u8,
            Action::Approve => 15,
            Action::Use => 16,
            Action::SignIn => 17,
        }
    }

    /// Name of the action in policies.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Work(WorkloadAction::Exchange) => "Exchange",
            Action::Work(WorkloadAction::OpenTask) => "OpenTask",
            Action::Work(WorkloadAction::ExtendTask) => "ExtendTask",
            Action::Work(WorkloadAction::DelegateTask) => "DelegateTask",
            Action::Introspect => "Introspect",
            Action::Approve => "Approve",
            Action::Use => "Use",
            Action::SignIn => "SignIn",
            Action::Admin(OperatorAction::Revoke) => "Revoke",
            Action::Admin(OperatorAction::Lock) => "Lock",
            Action::Admin(OperatorAction::ManageKeys) => "ManageKeys",
            Action::Admin(OperatorAction::ManageTrust) => "ManageTrust",
            Action::Admin(OperatorAction::ManagePolicy) => "ManagePolicy",
            Action::Admin(OperatorAction::ManageUpstreams) => "ManageUpstreams",
            Action::Admin(OperatorAction::ManageTasks) => "ManageTasks",
            Action::Admin(OperatorAction::ReadAudit) => "ReadAudit",
            Action::Admin(OperatorAction::Observe) => "Observe",
            Action::Admin(OperatorAction::ApproveChange) => "ApproveChange",
        }
    }

    /// The action group that policies may name instead of the action; `None` where the action has no group.
    pub const fn group(self) -> Option<&'static str> {
        match self {
            Action::Work(_) => Some("Work"),
            Action::Introspect | Action::Approve | Action::Use | Action::SignIn => None,
            Action::Admin(_) => Some("Admin"),
        }
    }
}
