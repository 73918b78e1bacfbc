//! The actions of the schema: what can be asked for.

/// What a workload wants for one upstream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Work {
    /// A credential: exchanging, renewing, authorizing.
    Exchange,
    /// A task that includes this upstream. Asked once per upstream that the task names.
    OpenTask,
    /// More time for a task.
    ExtendTask,
    /// A child task for another caller.
    DelegateTask,
}

/// What an operator wants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Admin {
    /// Revoke anything.
    Revoke,
    /// Add and lift locks.
    Lock,
    /// Rotate, retire, compromise signing keys.
    ManageKeys,
    /// Add and remove trust domains.
    ManageTrust,
    /// Set policy and modes.
    ManagePolicy,
    /// Register, change, disable upstreams.
    ManageUpstreams,
    /// Hold, resume, close tasks of others.
    ManageTasks,
    /// Read the audit.
    ReadAudit,
    /// See status, lists and metrics.
    Observe,
    /// Let through what another operator changes.
    ApproveChange,
}

/// An action of operators as a type, so that the compiler tells one who was admitted to look from one who was admitted to revoke.
pub trait AdminAction: Copy + std::fmt::Debug + Send + Sync + 'static {
    /// The action that policy is asked about.
    const ACTION: Admin;
}

/// The types of [`Admin`]'s actions: an [`Admitted`](crate::admission::Admitted) is a proof of one of them.
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
    /// Of a workload.
    Work(Work),
    /// To ask whether a credential is active.
    Introspect,
    /// Of an operator.
    Admin(Admin),
    /// To let through what somebody else asked for.
    Approve,
    /// To use a credential as its upstream's server says that it was used.
    Use,
    /// Of a person: to sign in.
    SignIn,
}

impl Action {
    /// Every action there is, in the order of their numbers.
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

    /// Its place in [`Action::ALL`].
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

    /// Its name in policies.
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

    /// The group that policies may name instead, where there is one.
    pub const fn group(self) -> Option<&'static str> {
        match self {
            Action::Work(_) => Some("Work"),
            Action::Introspect | Action::Approve | Action::Use | Action::SignIn => None,
            Action::Admin(_) => Some("Admin"),
        }
    }
}
