//! Compiles Cedar text into validated policies: checks ids, entity names and types (strict validation).

use std::collections::BTreeMap;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{PolicyId, Schema, ValidationMode, Validator};

use super::SCHEMA;
use super::action::Action;
use super::applicable_policies::ActionPolicies;
use super::cedar::SchemaTypes;
use super::roles::Roles;
use mayfly_base::document::{Diagnostic, SourceFile, is_name};
use mayfly_identity::spiffe_id::SpiffeId;

/// One part per action. A part holds only the policies whose scope can match the action; the verdict and the analysis of reads use no
/// others.
pub(super) fn parts(
    types: &SchemaTypes,
    policies: &BTreeMap<String, cedar_policy::Policy>,
) -> Result<Vec<ActionPolicies>, String> {
    Action::ALL
        .iter()
        .map(|action| {
            let own = policies.values().filter(|policy| applies(policy, *action));
            ActionPolicies::new(types.action(*action)?, own)
        })
        .collect()
}

/// Whether a policy's scope can match an action.
pub(super) fn applies(policy: &cedar_policy::Policy, action: Action) -> bool {
    let names = |uid: &cedar_policy::EntityUid| {
        let id = uid.id().unescaped();
        id == action.name() || Some(id) == action.group()
    };
    match policy.action_constraint() {
        cedar_policy::ActionConstraint::Any => true,
        cedar_policy::ActionConstraint::Eq(uid) => names(&uid),
        cedar_policy::ActionConstraint::In(uids) => uids.iter().any(names),
    }
}

/// Parses a file.
pub(super) fn parse(source: &SourceFile) -> Result<cedar_policy::PolicySet, Vec<Diagnostic>> {
    source.text.parse().map_err(|errors: cedar_policy::ParseErrors| errors.iter().map(|e| complaint(source, &e.into())).collect())
}

/// Takes parsed files one after the other and collects the complaints about all of them.
pub(super) struct Compiler<'r> {
    pub types: SchemaTypes,
    pub validator: Validator,
    /// The set comes from the ledger. A recorded set must stay loadable, or no server would start on that ledger; checks added after the
    /// set was recorded therefore produce warnings instead of complaints.
    recorded: bool,
    /// `None` where the roles file is itself invalid. Role names are not checked then.
    roles: Option<&'r Roles>,
    pub policies: BTreeMap<String, cedar_policy::Policy>,
    pub upstreams: Vec<String>,
    /// Texts that policies compare with `context.scopes` and `context.kind`. A mistyped text silently never matches.
    pub compared: Vec<(EnumeratedAttribute, String)>,
    pub complaints: Vec<Diagnostic>,
    pub warnings: Vec<Diagnostic>,
}

/// Policies may dereference attributes of the principal, the resource and the context only; an entity that a policy names has no attributes
/// in a request.
const DEREFERENCES: u32 = 1;

impl<'r> Compiler<'r> {
    /// A compiler for the shipped schema. An error means that the program itself is faulty.
    pub fn new(roles: Option<&'r Roles>, recorded: bool) -> Result<Compiler<'r>, String> {
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(|e| e.to_string())?;
        let (policies, upstreams, compared, complaints, warnings) = Default::default();
        let (types, validator) = (SchemaTypes::new()?, Validator::new(schema));
        Ok(Compiler { types, validator, recorded, roles, policies, upstreams, compared, complaints, warnings })
    }

    /// Adds the parsed policies of a file, or complaints about them.
    pub fn add(&mut self, source: &SourceFile, parsed: &cedar_policy::PolicySet) {
        if parsed.num_of_templates() > 0 {
            let at = source.text.find("?principal").or(source.text.find("?resource")).unwrap_or(0);
            let remedy = "nothing links templates here: write one policy per principal, or use a role";
            self.complaints.push(Diagnostic::at(source, at, "a template with ?principal or ?resource", remedy));
        }
        let mut named = cedar_policy::PolicySet::new();
        for (number, policy) in in_order(parsed) {
            let Some(id) = self.id(source, number, policy) else { continue };
            let policy = policy.new_id(PolicyId::new(&id));
            self.literals(source, &id, &policy);
            if let Ok(json) = policy.to_json() {
                texts_compared(&json, 0, &mut self.compared);
            }
            if let Some(what) = super::unmeetable_approvals::unmeetable_condition(&policy) {
                let at = source.text.find(&format!("\"{id}\"")).unwrap_or(0);
                let remedy =
                    "one person approves a request: compare with 1, and let the registration and the action Approve say who may";
                let list = if self.recorded { &mut self.warnings } else { &mut self.complaints };
                list.push(Diagnostic::at(source, at, format!("policy `{id}` {what}"), remedy));
            }
            // Ids are unique here, so adding cannot fail on a duplicate.
            if named.add(policy.clone()).is_ok() {
                self.policies.insert(id, policy);
            }
        }
        let result = self.validator.validate_with_level(&named, ValidationMode::Strict, DEREFERENCES);
        self.complaints.extend(result.validation_errors().map(|e| complaint(source, &e.into())));
        self.warnings.extend(result.validation_warnings().map(|w| complaint(source, &w.into())));
    }

    /// The `@id` of a policy; without one, the file name and the policy's number.
    fn id(&mut self, source: &SourceFile, number: usize, policy: &cedar_policy::Policy) -> Option<String> {
        let id = policy.annotation("id").map_or_else(|| format!("{}#{number}", source.file), str::to_owned);
        let at = || source.text.find(&format!("\"{id}\"")).unwrap_or(0);
        if policy.annotation("id").is_some() && !is_name(&id) {
            let remedy = "letters, digits and ._:/@+- only, beginning with a letter or digit";
            self.complaints.push(Diagnostic::at(source, at(), format!("policy id {id:?} is no name"), remedy));
            return None;
        }
        if self.policies.contains_key(&id) {
            let what = format!("policy id {id} is there twice");
            self.complaints.push(Diagnostic::at(source, at(), what, "refusals name the policy by its id: give each its own @id"));
            return None;
        }
        Some(id)
    }

    /// Complains about entity names that are not defined, since they are most likely mistyped.
    fn literals(&mut self, source: &SourceFile, policy: &str, parsed: &cedar_policy::Policy) {
        for uid in parsed.entity_literals() {
            let name = uid.id().unescaped();
            let wrong = match (uid.type_name().basename(), self.roles) {
                ("Role", Some(roles)) => unknown(name, roles.names(), "[role] of the roles file"),
                ("Environment", Some(roles)) => unknown(name, roles.environments(), "[environment] of the roles file"),
                ("Workload", _) => SpiffeId::parse(name).err().map(|defect| defect.to_string()),
                _ => None,
            };
            if uid.type_name().basename() == "Upstream" && !self.upstreams.iter().any(|u| u == name) {
                self.upstreams.push(name.to_owned());
                self.upstreams.sort_unstable();
            }
            if let Some(remedy) = wrong {
                let at = source.text.find(&uid.to_string()).unwrap_or(0);
                self.complaints.push(Diagnostic::at(source, at, format!("for policy `{policy}`, unknown entity {uid}"), remedy));
            }
        }
    }
}

/// A context attribute whose values come from a closed list: registered scopes or credential kinds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EnumeratedAttribute {
    /// `context.scopes`
    Scopes,
    /// `context.kind`
    Kind,
}

/// Maximum expression depth that is searched. Cedar's parser has a lower limit.
const DEPTH: usize = 512;

/// Collects the texts that an expression compares with one of these attributes. The expression is in Cedar's JSON form:
/// `{"==": {"left": …, "right": …}}`.
fn texts_compared(json: &serde_json::Value, depth: usize, found: &mut Vec<(EnumeratedAttribute, String)>) {
    let members = match json {
        serde_json::Value::Array(items) if depth < DEPTH => {
            return items.iter().for_each(|item| texts_compared(item, depth + 1, found));
        }
        serde_json::Value::Object(members) if depth < DEPTH => members,
        _ => return,
    };
    for (operator, operands) in members {
        if let (Some(left), Some(right)) = (operands.get("left"), operands.get("right"))
            && ["==", "!=", "contains", "containsAll", "containsAny"].contains(&operator.as_str())
        {
            for (one, other) in [(left, right), (right, left)] {
                if let Some(attribute) = attribute(one) {
                    texts(other, &mut |text| found.push((attribute, text.to_owned())));
                }
            }
        }
        texts_compared(operands, depth + 1, found);
    }
}

/// The attribute that a JSON expression reads, if it is `context.scopes` or `context.kind`.
fn attribute(json: &serde_json::Value) -> Option<EnumeratedAttribute> {
    let access = json.get(".")?;
    if access.get("left")?.get("Var")? != "context" {
        return None;
    }
    match access.get("attr")?.as_str()? {
        "scopes" => Some(EnumeratedAttribute::Scopes),
        "kind" => Some(EnumeratedAttribute::Kind),
        _ => None,
    }
}

/// Calls `each` with a text literal, or with each text of a set literal.
fn texts(json: &serde_json::Value, each: &mut impl FnMut(&str)) {
    if let Some(text) = json.get("Value").and_then(serde_json::Value::as_str) {
        each(text);
    }
    for item in json.get("Set").and_then(serde_json::Value::as_array).into_iter().flatten() {
        if let Some(text) = item.get("Value").and_then(serde_json::Value::as_str) {
            each(text);
        }
    }
}

/// The policies of a file in their order in the file, numbered from 1. Cedar names them policy0, policy1, …
fn in_order(parsed: &cedar_policy::PolicySet) -> Vec<(usize, &cedar_policy::Policy)> {
    let number = |p: &cedar_policy::Policy| p.id().to_string().strip_prefix("policy").and_then(|n| n.parse::<usize>().ok());
    let mut policies: Vec<_> = parsed.policies().map(|p| (number(p).unwrap_or(usize::MAX - 1) + 1, p)).collect();
    policies.sort_by_key(|(n, _)| *n);
    policies
}

fn unknown(name: &str, known: &[String], place: &str) -> Option<String> {
    if known.iter().any(|k| k == name) {
        return None;
    }
    Some(match mayfly_base::document::nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("define it under {place}, which has {}", known.join(", ")),
    })
}

/// A suggestion for a mistyped action. Cedar's own suggestion compares names with and without their type and takes the first of several
/// equally near ones.
fn action_meant(complaint: &str) -> Option<String> {
    let (_, named) = complaint.split_once("unrecognized action `Action::\"")?;
    let (named, _) = named.split_once('"')?;
    let groups = Action::ALL.iter().filter_map(|a| a.group());
    let near = mayfly_base::document::nearest(named, Action::ALL.iter().map(|a| a.name()).chain(groups));
    near.map(|near| format!("did you mean Action::\"{near}\"?"))
}

/// A complaint made of Cedar's error and its place in the file. Cedar's text names the policy.
fn complaint(source: &SourceFile, error: &DetailedError) -> Diagnostic {
    let remedy = action_meant(&error.message)
        .or_else(|| error.help.clone())
        .unwrap_or_else(|| "docs/policy.md lists what a policy may name".to_owned());
    match error.source_locations.first() {
        Some(label) => Diagnostic::at(source, label.loc.start, &error.message, remedy),
        None => Diagnostic::about(&source.file, &error.message, remedy),
    }
}
