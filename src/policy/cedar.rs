//! Evaluates a question with Cedar against some of a set's policies.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use cedar_policy::{
    AuthorizationError, Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicyId,
    PolicySet, Request, Response, RestrictedExpression, Schema,
};

use super::ADMIN;
use super::action::Action;
use super::attribute_reads::AttributeRead;
use super::attributes::{AttributeValue, ResolvedQuestion};
use mayfly_base::limits;
use mayfly_verify::seq::Millis;

/// Cedar's verdict. Everything except `Permit` is a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyVerdict {
    /// Permitted by these policies.
    Permit {
        /// Ids of the policies that permit, sorted.
        by: Vec<String>,
    },
    /// Forbidden by these policies. The list is empty where no policy permits.
    Deny {
        /// Ids of the policies that forbid, sorted.
        by: Vec<String>,
    },
    /// A policy could not be evaluated. Nothing is permitted, regardless of the other policies.
    EngineError {
        /// The evaluation error, with the policy's id.
        what: String,
    },
}

impl PolicyVerdict {
    /// Whether the verdict permits.
    pub fn permits(&self) -> bool {
        matches!(self, PolicyVerdict::Permit { .. })
    }

    /// Ids of the policies that decided, sorted.
    pub fn by(&self) -> &[String] {
        match self {
            PolicyVerdict::Permit { by } | PolicyVerdict::Deny { by } => by,
            PolicyVerdict::EngineError { .. } => &[],
        }
    }
}

impl fmt::Display for PolicyVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyVerdict::Permit { by } => write!(f, "permitted by {}", by.join(", ")),
            PolicyVerdict::Deny { by } if by.is_empty() => f.write_str("no policy permits it"),
            PolicyVerdict::Deny { by } => write!(f, "forbidden by {}", by.join(", ")),
            PolicyVerdict::EngineError { what } => write!(f, "refused because a policy could not be evaluated: {what}"),
        }
    }
}

/// The schema's type names, parsed once.
#[derive(Clone)]
pub(super) struct SchemaTypes {
    workload: EntityTypeName,
    role: EntityTypeName,
    upstream: EntityTypeName,
    environment: EntityTypeName,
    mayfly: EntityTypeName,
    action: EntityTypeName,
}

impl SchemaTypes {
    pub(super) fn new() -> Result<SchemaTypes, String> {
        let name = |text: &str| text.parse::<EntityTypeName>().map_err(|e| e.to_string());
        Ok(SchemaTypes {
            workload: name("Workload")?,
            role: name("Role")?,
            upstream: name("Upstream")?,
            environment: name("Environment")?,
            mayfly: name("Mayfly")?,
            action: name("Action")?,
        })
    }

    /// The action entity with its group as parent. Cedar resolves `action in Action::"Work"` like any other parent.
    pub(super) fn action(&self, action: Action) -> Result<Entity, String> {
        let parents = action.group().map(|group| uid(&self.action, group)).into_iter().collect();
        Entity::new(uid(&self.action, action.name()), HashMap::new(), parents).map_err(|e| e.to_string())
    }
}

/// Principal, action and resource as Cedar entities.
pub(super) struct RequestEntities {
    principal: EntityUid,
    action: EntityUid,
    resource: EntityUid,
    entities: Entities,
}

/// The input of one evaluation: the policies, their entities, and the context attributes to write.
pub(super) struct EvaluationInput<'a> {
    pub policies: &'a PolicySet,
    pub sides: &'a RequestEntities,
    pub context: &'a [AttributeRead],
}

/// Builds the principal, action and resource entities with the attributes in `reads` only. Validated against the schema where one is given.
pub(super) fn sides(
    types: &SchemaTypes,
    action: &Entity,
    reads: &[AttributeRead],
    case: &ResolvedQuestion<'_>,
    schema: Option<&Schema>,
) -> Result<RequestEntities, String> {
    let CedarAttributes { principal, resource, .. } = written(reads, case);
    let principal = principal.entity(uid(&types.workload, case.question.caller.as_str()), &types.role)?;
    let resource = match case.question.upstream() {
        Some(upstream) => resource.entity(uid(&types.upstream, &upstream.name), &types.environment)?,
        None => Entity::new_no_attrs(uid(&types.mayfly, ADMIN), HashSet::new()),
    };
    let (p, a, r) = (principal.uid(), action.uid(), resource.uid());
    let entities = Entities::from_entities([principal, resource, action.clone()], schema).map_err(|e| e.to_string())?;
    Ok(RequestEntities { principal: p, action: a, resource: r, entities })
}

/// Evaluates the policies with the attributes that they read and no others. Validated against the schema where one is given.
pub(super) fn ask(asked: &EvaluationInput<'_>, case: &ResolvedQuestion<'_>, schema: Option<&Schema>) -> PolicyVerdict {
    match respond(asked, case, schema) {
        Ok(response) => verdict(&response),
        Err(what) => PolicyVerdict::EngineError { what },
    }
}

/// Ids of the policies whose conditions hold or fail with an error. All policies in `asked` must be permits.
pub(super) fn satisfied_policies(asked: &EvaluationInput<'_>, case: &ResolvedQuestion<'_>) -> Result<HashSet<PolicyId>, String> {
    let response = respond(asked, case, None)?;
    let mut ids: HashSet<PolicyId> = response.diagnostics().reason().cloned().collect();
    for error in response.diagnostics().errors() {
        let AuthorizationError::PolicyEvaluationError(error) = error;
        ids.insert(error.policy_id().clone());
    }
    Ok(ids)
}

fn respond(asked: &EvaluationInput<'_>, case: &ResolvedQuestion<'_>, schema: Option<&Schema>) -> Result<Response, String> {
    let RequestEntities { principal, action, resource, entities } = asked.sides;
    let context = context(written(asked.context, case).context)?;
    let request =
        Request::new(principal.clone(), action.clone(), resource.clone(), context, schema).map_err(|e| e.to_string())?;
    let evaluated = || Authorizer::new().is_authorized(&request, asked.policies, entities);
    let response = evaluated();
    // A policy also fails where this thread has too little stack left for its levels.
    let failed = response.diagnostics().errors().next().is_some();
    Ok(if failed { stacker::grow(limits::POLICY_STACK_BYTES, evaluated) } else { response })
}

fn written<'a>(reads: &[AttributeRead], case: &ResolvedQuestion<'a>) -> CedarAttributes<'a> {
    let mut written = CedarAttributes::default();
    for read in reads {
        written.add(read.fact.path, (read.fact.get)(case));
    }
    written
}

fn verdict(response: &Response) -> PolicyVerdict {
    let mut errors: Vec<String> = response.diagnostics().errors().map(ToString::to_string).collect();
    errors.sort_unstable();
    if !errors.is_empty() {
        // Cedar skips a policy that fails. Skipping a failed `forbid` would permit the request.
        return PolicyVerdict::EngineError { what: errors.join("; ") };
    }
    let mut by: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
    by.sort_unstable();
    match response.decision() {
        Decision::Allow => PolicyVerdict::Permit { by },
        Decision::Deny => PolicyVerdict::Deny { by },
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

type Attributes = Vec<(String, RestrictedExpression)>;

/// An entity under construction.
#[derive(Default)]
struct EntityBuilder<'a> {
    attributes: Attributes,
    parents: Vec<&'a str>,
}

impl EntityBuilder<'_> {
    fn entity(self, name: EntityUid, parent_kind: &EntityTypeName) -> Result<Entity, String> {
        let parents: HashSet<EntityUid> = self.parents.into_iter().map(|id| uid(parent_kind, id)).collect();
        let attributes: HashMap<String, RestrictedExpression> = self.attributes.into_iter().collect();
        Entity::new(name, attributes, parents).map_err(|e| e.to_string())
    }
}

/// Attributes sorted by their place in a request.
#[derive(Default)]
struct CedarAttributes<'a> {
    principal: EntityBuilder<'a>,
    resource: EntityBuilder<'a>,
    context: BTreeMap<&'static str, Node>,
}

/// A context attribute: a value or a record of values.
enum Node {
    Value(RestrictedExpression),
    Record(Attributes),
}

impl<'a> CedarAttributes<'a> {
    fn add(&mut self, path: &'static str, value: Option<AttributeValue<'a>>) {
        let Some(value) = value else { return };
        match (path.split_once('.'), value) {
            (None, _) => {}
            (Some(("principal", "in")), AttributeValue::Texts(names)) => self.principal.parents = names,
            (Some(("resource", "in")), AttributeValue::Texts(names)) => self.resource.parents = names,
            (Some(("principal", name)), value) => self.principal.attributes.push((name.to_owned(), expression(value))),
            (Some(("resource", name)), value) => self.resource.attributes.push((name.to_owned(), expression(value))),
            (Some((_, path)), value) => self.context(path, expression(value)),
        }
    }

    fn context(&mut self, path: &'static str, value: RestrictedExpression) {
        let Some((record, name)) = path.split_once('.') else {
            self.context.insert(path, Node::Value(value));
            return;
        };
        if let Node::Record(fields) = self.context.entry(record).or_insert_with(|| Node::Record(Vec::new())) {
            fields.push((name.to_owned(), value));
        }
    }
}

fn context(nodes: BTreeMap<&'static str, Node>) -> Result<Context, String> {
    let mut pairs = Vec::with_capacity(nodes.len());
    for (name, node) in nodes {
        let value = match node {
            Node::Value(value) => value,
            Node::Record(fields) => RestrictedExpression::new_record(fields).map_err(|e| e.to_string())?,
        };
        pairs.push((name.to_owned(), value));
    }
    Context::from_pairs(pairs).map_err(|e| e.to_string())
}

fn expression(value: AttributeValue<'_>) -> RestrictedExpression {
    match value {
        AttributeValue::Bool(b) => RestrictedExpression::new_bool(b),
        AttributeValue::Long(n) => RestrictedExpression::new_long(n),
        AttributeValue::Text(text) => RestrictedExpression::new_string(text.to_owned()),
        AttributeValue::Texts(texts) => {
            RestrictedExpression::new_set(texts.into_iter().map(|t| RestrictedExpression::new_string(t.to_owned())))
        }
        AttributeValue::Moment(at) => RestrictedExpression::new_datetime(datetime(at)),
    }
}

/// A time in Cedar's format. A time outside Cedar's range gives an empty string, which makes the request fail and thus refuses it.
fn datetime(at: Millis) -> String {
    let seconds = i64::try_from(at.seconds()).ok();
    let Some(t) = seconds.and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok()) else {
        return String::new();
    };
    let (date, ms) = (t.date(), at.0 % 1000);
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z", t.hour(), t.minute(), t.second())
}
