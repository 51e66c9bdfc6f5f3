//! The SQL functions.

use std::sync::Arc;

use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ScalarUDF};

use super::function::Function;
use super::function_kind::FunctionKind;
use super::udf::RerankUdf;
use crate::models::Family;
use crate::registry::ModelRegistry;

/// Suffix that names a function's synchronous variant.
const SYNC_SUFFIX: &str = "_sync";

/// A function of SQL.
struct CatalogueEntry {
    name: &'static str,
    kind: FunctionKind,
    /// Whether each family has a variant, `<name>_<family>`, which takes no model.
    for_each_family: bool,
}

/// Every function. All else (variants, rules, the codec of a cluster) follows from these entries.
const CATALOGUE: &[CatalogueEntry] = &[
    CatalogueEntry { name: "rerank", kind: FunctionKind::Score, for_each_family: true },
    CatalogueEntry { name: "rerank_details", kind: FunctionKind::Details, for_each_family: false },
];

/// A function as a session has it.
#[derive(Debug, Clone)]
struct KnownFunction {
    udf: ScalarUDF,
    /// The same, in calls that have their place in a plan.
    placed: ScalarUDF,
    function: Function,
}

/// The functions that the rules look for.
#[derive(Debug, Clone)]
pub(crate) struct KnownFunctions(Vec<KnownFunction>);

impl KnownFunctions {
    /// The asynchronous functions, which run in the operator.
    pub(crate) fn asynchronous(registry: &ModelRegistry) -> Self {
        Self::new(functions(registry, ""), RerankUdf::asynchronous, RerankUdf::placed)
    }

    /// Their synchronous variants.
    pub(crate) fn synchronous(registry: &ModelRegistry) -> Self {
        Self::new(functions(registry, SYNC_SUFFIX), RerankUdf::synchronous, RerankUdf::synchronous)
    }

    /// All of them.
    pub(crate) fn all(registry: &ModelRegistry) -> Self {
        Self([Self::asynchronous(registry).0, Self::synchronous(registry).0].concat())
    }

    fn new(
        functions: Vec<Function>,
        to_udf: impl Fn(Function) -> ScalarUDF,
        to_placed: impl Fn(Function) -> ScalarUDF,
    ) -> Self {
        let known = |function: Function| KnownFunction {
            udf: to_udf(function.clone()),
            placed: to_placed(function.clone()),
            function,
        };
        Self(functions.into_iter().map(known).collect())
    }

    /// The functions that SQL registers.
    pub(crate) fn udfs(self) -> impl Iterator<Item = ScalarUDF> {
        self.0.into_iter().map(|known| known.udf)
    }

    /// The function behind a UDF.
    pub(crate) fn find(&self, udf: &ScalarUDF) -> Option<&Function> {
        self.0.iter().find(|known| known.udf == *udf || known.placed == *udf).map(|known| &known.function)
    }

    /// Whether an expression is itself a call of one of the functions that has no place in the plan yet.
    pub(crate) fn is_call(&self, expression: &Expr) -> bool {
        let Expr::ScalarFunction(ScalarFunction { func, .. }) = expression else { return false };
        self.0.iter().any(|known| known.udf == **func)
    }

    /// Whether an expression is itself a call that has its place.
    pub(crate) fn is_placed_call(&self, expression: &Expr) -> bool {
        matches!(expression, Expr::ScalarFunction(ScalarFunction { func, .. }) if self.is_placed(func))
    }

    /// Whether a UDF is that of calls that have their place.
    pub(crate) fn is_placed(&self, udf: &ScalarUDF) -> bool {
        self.0.iter().any(|known| known.placed == *udf)
    }

    /// The call as one that has its place: no rule moves, merges or repeats it.
    pub(crate) fn place(&self, call: ScalarFunction) -> Expr {
        let placed = self.0.iter().find(|known| known.udf == *call.func).map(|known| Arc::new(known.placed.clone()));
        Expr::ScalarFunction(ScalarFunction { func: placed.unwrap_or(call.func), args: call.args })
    }
}

fn functions(registry: &ModelRegistry, suffix: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    for CatalogueEntry { name, kind, for_each_family } in CATALOGUE {
        functions.push(Function::new(format!("{name}{suffix}"), None, *kind, registry.clone()));
        if *for_each_family {
            functions.extend(Family::ALL.iter().map(|family| {
                Function::new(format!("{name}_{family}{suffix}"), Some(*family), *kind, registry.clone())
            }));
        }
    }
    functions
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_cover_the_families() {
        let functions = KnownFunctions::all(&ModelRegistry::default());
        let names: Vec<String> = functions.udfs().map(|udf| udf.name().to_owned()).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        for family in Family::ALL {
            assert!(names.contains(&format!("rerank_{family}")) && names.contains(&format!("rerank_{family}_sync")));
        }
    }

    #[test]
    fn parameters_have_names() {
        for KnownFunction { udf, function, .. } in KnownFunctions::all(&ModelRegistry::default()).0 {
            let names: Vec<&str> = udf.signature().parameter_names.iter().flatten().map(String::as_str).collect();
            assert_eq!(names, function.parameters(), "{}", udf.name());
        }
    }

    #[test]
    fn a_udf_is_found_by_functions_over_the_same_models_only() {
        let registry = ModelRegistry::default();
        let (known, others) = (KnownFunctions::all(&registry), KnownFunctions::all(&ModelRegistry::default()));
        for udf in known.clone().udfs() {
            assert_eq!(known.find(&udf).unwrap().name(), udf.name());
            assert!(others.find(&udf).is_none());
        }
    }

    #[test]
    fn the_readme_names_every_function() {
        let readme = include_str!("../../../README.md");
        for udf in KnownFunctions::asynchronous(&ModelRegistry::default()).udfs() {
            let name = udf.name();
            assert!([format!("`{name}(query"), format!("`{name}`")].iter().any(|form| readme.contains(form)), "{name}");
        }
    }
}
