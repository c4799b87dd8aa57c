//! Lists generated from the tables: ops, operators, rules, passes, targets.

use std::path::PathBuf;

use clap::Args;

use tgc::Session;
use tgc::session::{Failure, Kind, Options};
use tgc_ir::device_table::DEVICES;
use tgc_ir::op::{Op, PRIMITIVES};
use tgc_ir::scalar::ScalarOp;

use super::Output;

/// Arguments of a list.
#[derive(Args)]
pub(crate) struct ListArgs {
    /// Print a Markdown table.
    #[arg(long)]
    markdown: bool,
}

/// Arguments of `rules`.
#[derive(Args)]
pub(crate) struct RulesArgs {
    /// Check a rules file: grammar, ops, conditions.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    #[command(flatten)]
    list: ListArgs,
}

/// Instances drawn per rule by `rules --check`.
const CHECKED_INSTANCES: usize = 192;

/// Prints rows under a header, as text, Markdown or JSON.
fn table(args: &ListArgs, output: &Output, schema: &str, header: &[&str], rows: &[Vec<String>]) {
    if output.json {
        let rows: Vec<serde_json::Value> = rows
            .iter()
            .map(|r| {
                header
                    .iter()
                    .zip(r)
                    .map(|(k, v)| ((*k).to_owned(), serde_json::json!(v)))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            })
            .collect();
        output.document(schema, serde_json::json!({ "rows": rows }));
        return;
    }
    if args.markdown {
        output.result(format_args!("| {} |", header.join(" | ")));
        output.result(format_args!("|{}|", vec!["---"; header.len()].join("|")));
        for row in rows {
            let cells: Vec<String> = row.iter().map(|c| c.replace('|', "\\|")).collect();
            output.result(format_args!("| {} |", cells.join(" | ")));
        }
        return;
    }
    let widths: Vec<usize> = (0..header.len())
        .map(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
        output.result(cells.join("  ").trim_end());
    }
}

/// `tgc passes`.
pub(crate) fn passes(args: &ListArgs, output: &Output) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> =
        tgc_passes::PASSES.iter().map(|p| vec![p.name.to_owned(), p.summary.to_owned()]).collect();
    table(args, output, "tgc.passes/1", &["pass", "what it does"], &rows);
    Ok(())
}

/// `tgc rules`.
pub(crate) fn rules(args: &RulesArgs, output: &Output) -> Result<(), Failure> {
    if let Some(path) = &args.check {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Failure::new(Kind::File, format!("cannot read {}: {e}", path.display()))
        })?;
        let mut set = tgc_passes::rules::RuleSet::default();
        set.add_text(&path.display().to_string(), &text)
            .map_err(|e| Failure::new(Kind::Usage, e))?;
        let reports: Vec<_> = set
            .rules
            .iter()
            .map(|rule| tgc_passes::rules::check_rule(rule, 0, CHECKED_INSTANCES))
            .collect();
        reports.iter().for_each(|report| output.result(report));
        let wrong = reports.iter().filter(|report| !report.holds()).count();
        if wrong > 0 {
            let total = reports.len();
            return Err(Failure::new(
                Kind::Verification,
                format!("{wrong} of {total} rules do not hold"),
            ));
        }
        return Ok(());
    }
    let session = Session::new(Options::default());
    let rows: Vec<Vec<String>> = session
        .rules()
        .rules
        .iter()
        .map(|r| {
            vec![r.name.clone(), r.class.name().to_owned(), r.text().to_owned(), r.law.clone()]
        })
        .collect();
    table(&args.list, output, "tgc.rules/1", &["rule", "class", "rewrite", "law"], &rows);
    Ok(())
}

/// `tgc ops`.
pub(crate) fn ops(args: &ListArgs, output: &Output) -> Result<(), Failure> {
    let attrs = |name: &str| {
        let schema = Op::schema(name).unwrap_or_default();
        schema.iter().map(|(n, k)| format!("{n}: {k:?}")).collect::<Vec<_>>().join(", ")
    };
    let mut rows: Vec<Vec<String>> = PRIMITIVES
        .iter()
        .map(|n| vec![(*n).to_owned(), "primitive".into(), attrs(n), String::new()])
        .collect();
    rows.extend(ScalarOp::ALL.iter().map(|op| {
        let r = op.record();
        let device = match r.device {
            tgc_ir::scalar::Expansion::Intrinsic => "device intrinsic".to_owned(),
            tgc_ir::scalar::Expansion::Expand(text) => text.to_owned(),
        };
        vec![r.name.to_owned(), "scalar".into(), format!("{} operands", r.arity), device]
    }));
    rows.extend(
        tgc_ir::composite::all()
            .iter()
            .map(|c| vec![c.name.to_owned(), "composite".into(), attrs(c.name), c.doc.clone()]),
    );
    table(args, output, "tgc.ops/1", &["op", "kind", "attributes", "meaning"], &rows);
    Ok(())
}

/// `tgc operators`.
pub(crate) fn operators(args: &ListArgs, output: &Output) -> Result<(), Failure> {
    let mut rows: Vec<Vec<String>> = tgc_onnx::operators()
        .map(|(domain, name, since)| {
            let since: Vec<String> = since.iter().map(ToString::to_string).collect();
            let domain = if domain.is_empty() { "ai.onnx".to_owned() } else { domain.to_owned() };
            vec![name.to_owned(), domain, since.join(", ")]
        })
        .collect();
    rows.sort();
    table(args, output, "tgc.operators/1", &["operator", "domain", "since opset"], &rows);
    Ok(())
}

/// `tgc targets`.
pub(crate) fn targets(args: &ListArgs, output: &Output) -> Result<(), Failure> {
    let mut rows = vec![vec![
        "cpu".to_owned(),
        "this machine".into(),
        String::new(),
        String::new(),
        String::new(),
    ]];
    rows.extend(DEVICES.iter().map(|d| {
        vec![
            d.target.to_owned(),
            d.name.to_owned(),
            format!("{} SMs at {} GHz", d.sms, d.clock_ghz),
            format!("{} GB/s", d.dram_gb_s),
            format!("{} TFLOP/s f16", d.f16_tflops),
        ]
    }));
    table(
        args,
        output,
        "tgc.targets/1",
        &["target", "device", "cores", "memory", "arithmetic"],
        &rows,
    );
    Ok(())
}
