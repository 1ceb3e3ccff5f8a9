//! What the filters of a subscription say, compiled.

use klaxon_model::filter::Filters;

use crate::jsonpath::Predicate;

/// Filters, all of which must hold.
pub struct Condition {
    pub filters: Filters,
    /// `where`.
    pub predicate: Option<Predicate>,
    /// Why nothing is to match.
    pub broken: Option<String>,
}

impl Condition {
    /// What the trigger let in compiles. What was written past it (triggers off) matches nothing
    /// rather than fail the application's statement.
    pub fn compile(filters: &str) -> Self {
        match Filters::parse(filters) {
            Ok(filters) => match filters.where_path().map(Predicate::parse).transpose() {
                Ok(predicate) => Self { filters, predicate, broken: None },
                Err(problem) => {
                    Self { filters, predicate: None, broken: Some(format!("filter where: {problem}")) }
                }
            },
            Err(error) => {
                Self { filters: Filters::default(), predicate: None, broken: Some(error.to_string()) }
            }
        }
    }
}
