//! Side conditions of rules: named questions about a match, answered by facts.

use tgc_ir::attr::Attr;
use tgc_ir::facts::Truth;

use crate::egraph::{ClassData, Site};

/// Why a condition stands in a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The rule is wrong without it.
    If,
    /// The rule does not pay or is not built for it; sound without it.
    When,
}

/// A question with arguments.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) role: Role,
    pub(crate) name: &'static str,
    pub(crate) args: Vec<String>,
    ask: fn(&Site<'_>, &[String]) -> Truth,
}

impl Condition {
    pub(crate) fn new(role: Role, name: &str, args: Vec<String>) -> Option<Condition> {
        let (name, _, ask) =
            TABLE.iter().find(|(n, arity, _)| *n == name && *arity == args.len())?;
        Some(Condition { role, name, args, ask: *ask })
    }

    /// Holds for certain.
    pub(crate) fn holds(&self, site: &Site<'_>) -> bool {
        (self.ask)(site, &self.args).is_yes()
    }
}

type Row = (&'static str, usize, fn(&Site<'_>, &[String]) -> Truth);

/// Name, number of arguments, answer.
const TABLE: &[Row] = &[
    ("splat", 1, |s, a| truth(data(s, &a[0]).and_then(|d| d.splat).is_some())),
    ("not_splat", 1, |s, a| truth(data(s, &a[0]).is_some_and(|d| d.splat.is_none()))),
    ("nonzero", 1, |s, a| {
        truth(data(s, &a[0]).and_then(|d| d.splat).is_some_and(|v| v.as_f64() != 0.0))
    }),
    ("positive", 1, |s, a| {
        truth(data(s, &a[0]).and_then(|d| d.splat).is_some_and(|v| v.as_f64() > 0.0))
    }),
    ("const", 1, |s, a| truth(data(s, &a[0]).is_some_and(|d| d.is_const))),
    ("float", 1, |s, a| {
        truth(data(s, &a[0]).and_then(ClassData::ty).is_some_and(|t| t.dtype.is_float()))
    }),
    ("same_shape", 2, same_shape),
    ("is_count", 3, is_count),
    ("identity", 1, |s, a| truth(matches!(attr(s, &a[0]), Some(Attr::View(v)) if v.is_identity()))),
    ("dtype", 2, |s, a| {
        truth(
            matches!((data(s, &a[0]).and_then(ClassData::ty), attr(s, &a[1])), (Some(t), Some(Attr::DType(d))) if t.dtype == *d),
        )
    }),
    ("widens", 2, widens),
    ("per_output_channel", 2, per_output_channel),
    ("forward", 1, |s, a| truth(matches!(attr(s, &a[0]), Some(Attr::Conv(c)) if !c.transposed))),
];

fn truth(is: bool) -> Truth {
    if is { Truth::Yes } else { Truth::No }
}

fn data<'a>(site: &Site<'a>, name: &str) -> Option<&'a ClassData> {
    site.class(name).map(|id| &site.egraph[id].data)
}

fn attr<'a>(site: &Site<'a>, name: &str) -> Option<&'a Attr> {
    data(site, name).and_then(|d| d.attr).map(|i| site.egraph.analysis.attr(i))
}

/// Equal shapes (element types may differ).
fn same_shape(site: &Site<'_>, args: &[String]) -> Truth {
    let types =
        args.iter().map(|a| data(site, a).and_then(ClassData::ty)).collect::<Option<Vec<_>>>();
    let Some([a, b]) = types.as_deref().and_then(|t| t.first_chunk::<2>()) else {
        return Truth::No;
    };
    if a.rank() != b.rank() {
        return Truth::No;
    }
    let facts = &site.egraph.analysis.facts;
    a.shape.iter().zip(&b.shape).map(|(x, y)| facts.equal(x, y)).fold(Truth::Yes, Truth::and)
}

/// ?n is the number of elements of ?x along ?axes (a literal, or a dim).
fn is_count(site: &Site<'_>, args: &[String]) -> Truth {
    let (Some(n), Some(x), Some(Attr::Ints(axes))) =
        (site.class(&args[0]), data(site, &args[1]).and_then(ClassData::ty), attr(site, &args[2]))
    else {
        return Truth::No;
    };
    let extents = axes.iter().map(|a| usize::try_from(*a).ok().and_then(|a| x.shape.get(a)));
    let Some(extents) = extents.collect::<Option<Vec<_>>>() else { return Truth::No };
    let count = tgc_ir::Dim::product(extents);
    let class = &site.egraph[n];
    if let (Some(have), Some(want)) = (class.data.splat, count.as_const()) {
        return truth(have.as_f64() == want as f64);
    }
    truth(site.is_dim(n, &count))
}

/// Converting ?x to dtype ?a loses nothing.
fn widens(site: &Site<'_>, args: &[String]) -> Truth {
    let (Some(x), Some(Attr::DType(to))) =
        (data(site, &args[0]).and_then(ClassData::ty), attr(site, &args[1]))
    else {
        return Truth::No;
    };
    let from = x.dtype;
    let is = match (from.mantissa_bits(), to.mantissa_bits()) {
        (Some(a), Some(b)) => b >= a && to.max_value() >= from.max_value(),
        (None, Some(b)) => from.bits() < b,
        (None, None) => {
            let ((al, ah), (bl, bh)) = (from.int_range(), to.int_range());
            *to != tgc_ir::DType::Bool && bl <= al && bh >= ah
        }
        (Some(_), None) => false,
    };
    truth(is)
}

/// ?s has one value per output channel of filter ?w [o, c, …] and extent 1
/// elsewhere, as a factor of the result [n, o, …].
fn per_output_channel(site: &Site<'_>, args: &[String]) -> Truth {
    let (Some(s), Some(w)) = (
        data(site, &args[0]).and_then(ClassData::ty),
        data(site, &args[1]).and_then(ClassData::ty),
    ) else {
        return Truth::No;
    };
    if s.rank() != w.rank() || s.rank() < 3 {
        return Truth::No;
    }
    let elsewhere = s.shape.iter().enumerate().all(|(a, d)| a == 1 || d.is(1));
    truth(
        elsewhere
            && (s.shape[1].is(1)
                || site.egraph.analysis.facts.equal(&s.shape[1], &w.shape[0]).is_yes()),
    )
}
