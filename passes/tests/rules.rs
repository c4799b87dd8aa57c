//! Every built-in rule holds on instances drawn from its own left side, and
//! the same test catches rules that are wrong on purpose.

use tgc_passes::rules::{RuleSet, check_rule};

/// Instances per rule.
const INSTANCES: usize = 192;

#[test]
fn every_builtin_rule_holds() {
    let set = RuleSet::builtin();
    let reports: Vec<_> = set.rules.iter().map(|rule| check_rule(rule, 1, INSTANCES)).collect();
    let wrong: Vec<String> =
        reports.iter().filter(|r| !r.holds()).map(ToString::to_string).collect();
    assert!(wrong.is_empty(), "{} of {} rules:\n{}", wrong.len(), reports.len(), wrong.join("\n"));
}

#[test]
fn wrong_rules_are_caught() {
    let mut set = RuleSet::default();
    set.add_text("wrong.rules", include_str!("wrong.rules")).expect("reads");
    assert!(set.rules.len() >= 30);
    let reports: Vec<_> = set.rules.iter().map(|rule| check_rule(rule, 1, INSTANCES)).collect();
    let passed: Vec<String> =
        reports.iter().filter(|r| r.holds()).map(ToString::to_string).collect();
    assert!(passed.is_empty(), "not caught:\n{}", passed.join("\n"));
    // Most by a counterexample, not because nothing was reached.
    let refuted = reports.iter().filter(|r| r.failure.is_some()).count();
    let unreached: Vec<String> =
        reports.iter().filter(|r| r.failure.is_none()).map(ToString::to_string).collect();
    assert!(refuted >= 30 && refuted + 8 >= reports.len(), "{}", unreached.join("\n"));
}

#[test]
fn reports_do_not_depend_on_what_ran_before() {
    let set = RuleSet::builtin();
    let rule = &set.rules[0];
    let first = check_rule(rule, 7, 32);
    check_rule(&set.rules[1], 7, 32);
    let second = check_rule(rule, 7, 32);
    assert_eq!((first.drawn, first.reached), (second.drawn, second.reached));
}
