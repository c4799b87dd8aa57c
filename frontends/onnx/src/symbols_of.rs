//! The symbols that an attribute of an op mentions. Kept apart because it lists the attribute kinds that hold dims.

use std::collections::BTreeSet;

use tgc_ir::attr::Attr;
use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::view::OutAtom;

/// Adds every symbol of the attribute.
pub(crate) fn attr(attr: &Attr, out: &mut BTreeSet<Symbol>) {
    let mut add = |d: &Dim| d.collect_symbols(out);
    match attr {
        Attr::Dim(d) => add(d),
        Attr::Dims(all) => all.iter().for_each(add),
        Attr::View(view) => {
            view.input.iter().flatten().for_each(&mut add);
            view.fixed.iter().for_each(|(_, d)| add(d));
            for part in view.output.iter().flatten() {
                add(part.extent());
                if let OutAtom::Take { start, .. } = part {
                    add(start);
                }
            }
        }
        Attr::Contract(spec) => spec.extents.iter().for_each(add),
        Attr::Conv(spec) => spec.pad_low.iter().chain(&spec.pad_high).for_each(add),
        Attr::Pool(spec) => spec.pad_low.iter().chain(&spec.pad_high).for_each(add),
        Attr::Region(region) => {
            let graph = region.graph();
            for id in graph.ids() {
                graph.types(id).iter().flat_map(|t| &t.shape).for_each(|d| d.collect_symbols(out));
                graph.op(id).attrs().iter().for_each(|a| self::attr(a, out));
            }
        }
        _ => {}
    }
}
