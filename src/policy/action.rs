//! The actions of the Cedar schema: everything a policy can be asked about.

/// An action of a workload on one upstream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Work {
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
pub enum Admin {
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

/// An operator's action as a type, so that the compiler distinguishes an operator admitted to read from one admitted to revoke.
pub trait AdminAction: Copy + std::fmt::Debug + Send + Sync + 'static {
    /// The action that policy is asked about.
    const ACTION: Admin;
}

/// One type for each action of [`Admin`]. An `Admitted` proves admission for one of these types.
pub mod admin {
    macro_rules! actions {
        ($($name:ident: $what:literal),+ $(,)?) => {$(
            #[doc = $what]
            #[derive(Clone, Copy, Debug)]
            pub struct $name;

            impl super::AdminAction for $name {
                const ACTION: super::Admin = super::Admin::$name;
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
    Work(Work),
    /// Introspect a credential.
    Introspect,
    /// An action of an operator.
    Admin(Admin),
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
        Action::Work(Work::Exchange),
        Action::Work(Work::OpenTask),
        Action::Work(Work::ExtendTask),
        Action::Work(Work::DelegateTask),
        Action::Introspect,
        Action::Admin(Admin::Revoke),
        Action::Admin(Admin::Lock),
        Action::Admin(Admin::ManageKeys),
        Action::Admin(Admin::ManageTrust),
        Action::Admin(Admin::ManagePolicy),
        Action::Admin(Admin::ManageUpstreams),
        Action::Admin(Admin::ManageTasks),
        Action::Admin(Admin::ReadAudit),
        Action::Admin(Admin::Observe),
        Action::Admin(Admin::ApproveChange),
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
            Action::Work(Work::Exchange) => "Exchange",
            Action::Work(Work::OpenTask) => "OpenTask",
            Action::Work(Work::ExtendTask) => "ExtendTask",
            Action::Work(Work::DelegateTask) => "DelegateTask",
            Action::Introspect => "Introspect",
            Action::Approve => "Approve",
            Action::Use => "Use",
            Action::SignIn => "SignIn",
            Action::Admin(Admin::Revoke) => "Revoke",
            Action::Admin(Admin::Lock) => "Lock",
            Action::Admin(Admin::ManageKeys) => "ManageKeys",
            Action::Admin(Admin::ManageTrust) => "ManageTrust",
            Action::Admin(Admin::ManagePolicy) => "ManagePolicy",
            Action::Admin(Admin::ManageUpstreams) => "ManageUpstreams",
            Action::Admin(Admin::ManageTasks) => "ManageTasks",
            Action::Admin(Admin::ReadAudit) => "ReadAudit",
            Action::Admin(Admin::Observe) => "Observe",
            Action::Admin(Admin::ApproveChange) => "ApproveChange",
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
