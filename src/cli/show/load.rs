//! The JSON of the server's load.

use crate::out::tree::OrderedJson;
use mayfly_authority::admission::admission_queue::REFUSED_WITHIN_US;
use mayfly_proto::mayfly::v1 as pb;

/// The load of the server. `refused` are the exchanges that were refused since the server's start because they would have waited too long,
/// by the time from when they were read to their refusal. `refused_within` names the end of each class in milliseconds (null for the last
/// class, which has no end) and leaves out classes with none.
pub fn json(load: &pb::LoadStatus) -> OrderedJson {
    let ends = REFUSED_WITHIN_US.iter().map(|us| Some(*us as f64 / 1000.0)).chain(std::iter::repeat(None));
    let classes = ends.zip(&load.refused).filter(|(_, count)| **count > 0);
    let class = |(end, count): (Option<f64>, &u64)| OrderedJson::map([("at_most_ms", end.into()), ("count", (*count).into())]);
    OrderedJson::map([
        ("waiting", load.waiting.into()),
        ("decision_us", (load.decision_ns as f64 / 1000.0).into()),
        ("refused_total", load.refused.iter().sum::<u64>().into()),
        ("refused", load.refused.clone().into()),
        ("refused_within", OrderedJson::List(classes.map(class).collect())),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_for_overload_name_their_class_of_time() {
        let load = json(&pb::LoadStatus { waiting: 1, decision_ns: 2_500, refused: vec![0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3] });
        assert_eq!((load.text_at("decision_us"), load.text_at("refused_total")), ("2.5".to_owned(), "5".to_owned()));
        let within = serde_json::to_string(&load.at("refused_within")).unwrap();
        assert_eq!(within, r#"[[{"at_most_ms":0.5,"count":2},{"at_most_ms":null,"count":3}]]"#);
    }
}
